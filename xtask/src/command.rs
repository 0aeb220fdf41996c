//! Other programs: every run is announced, never reads from the terminal, and fails with the command line in
//! the message.

use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// The cargo that runs this task.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command that knows nothing of the cargo that runs this task: another toolchain must not meet the first
/// one's compiler, flags, target directory or libraries.
pub fn outside_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn belongs_to_outer_cargo(name: &str) -> bool {
    // What the user says about the network and the place of downloads holds for every toolchain.
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_TERM_",
    ];
    match name {
        "LD_LIBRARY_PATH" | "RUSTFLAGS" | "RUSTUP_TOOLCHAIN" | "RUST_RECURSION_COUNT" => true,
        _ => {
            name == "CARGO" || name.starts_with("RUSTC") || {
                name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept))
            }
        }
    }
}

/// Runs a command whose output the user sees.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command for what it writes to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", shown(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` did not write text", shown(command)))
}

/// Whether there is such a program and it answers this question successfully.
pub fn answers(program: impl AsRef<OsStr>, args: &[&str]) -> bool {
    succeeds(outside_cargo(program).args(args))
}

/// Whether a command succeeds; what it says is nobody's business.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// `PATH` with a directory before all others.
pub fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(all).with_context(|| format!("{} cannot be in PATH", first.display()))
}

/// The command line as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::belongs_to_outer_cargo;

    #[test]
    fn another_toolchain_does_not_inherit_the_compiler_but_does_inherit_the_network() {
        for name in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
        ] {
            assert!(belongs_to_outer_cargo(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_HTTP_CAINFO", "RUSTUP_HOME", "PATH", "HOME"] {
            assert!(!belongs_to_outer_cargo(name), "{name}");
        }
    }
}
