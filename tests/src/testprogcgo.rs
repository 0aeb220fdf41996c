//! The programs that Go's own distribution tests the traceback protocol with (runtime/testdata/testprogcgo, driven by
//! runtime/crash_cgo_test.go), made to run as long as we like by a driver of ours.

use crate::programs::{cargo_target, run};
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is inserted into copies of the toolchain's own files: file, the text there, and what stands in its place. No line
/// moves. A program that is not in a release has no such text.
const INSERTIONS: [(&str, &str, &str); 3] = [
    // The innermost function of the chain that TracebackContext is about would return at once.
    ("tracebackctxt.go", "func G2() {", "func G2() { burn()"),
    // Callbacks that sleep are never sampled.
    ("gprof.go", "func GoSleep() {", "func GoSleep() { for { burn() }"),
    // Go's own profile is what ours is compared with.
    (
        "tracebackctxt.go",
        "StartCPUProfile(io.Discard)",
        "StartCPUProfile(kept(io.Discard))",
    ),
];

/// All programs, built by one toolchain.
#[derive(Clone, Debug)]
pub struct TestProgCgo {
    path: PathBuf,
}

/// How a program is made to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// It runs again and again.
    Rounds,
    /// It runs once, and the threads that it started go on.
    Once,
    /// It registers no hooks, and runs again and again with some that the driver registers.
    WithHooks,
}

impl TestProgCgo {
    /// Builds the programs from the sources that the toolchain itself has. `mode` is for `-buildmode`, or `race`: with the
    /// race detector.
    pub fn build(toolchain: &str, mode: &str) -> Result<Self> {
        let sources = sources(toolchain, "testprogcgo")?;
        let overlay = tempfile::tempdir()?;
        let replacements = overlay.path().join("overlay.json");
        fs::write(&replacements, overlaid(&sources, overlay.path())?.to_string())?;
        let path = built(&format!("testprogcgo-{toolchain}-{mode}"))?;
        let mut build = go(toolchain);
        build
            .current_dir(&sources)
            .env("CGO_ENABLED", "1")
            .arg("build")
            .arg("-overlay")
            .arg(replacements);
        match mode {
            "race" => build.arg("-race"),
            mode => build.args(["-buildmode", mode]),
        };
        run(build.arg("-o").arg(&path).arg("."))?;
        Ok(Self { path })
    }

    /// Makes one of them last.
    pub fn driven(&self, name: &str, how: Driven) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["Driver", name]);
        match how {
            Driven::Rounds => {}
            Driven::Once => _ = command.arg("once"),
            Driven::WithHooks => _ = command.arg("hooks"),
        }
        command
    }

    /// Runs one of them once, as Go's tests do.
    pub fn plain(&self, name: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(name);
        command
    }
}

/// Runs one of the programs that Go's distribution tests its runtime with where there is no C (runtime/testdata/testprog),
/// built without cgo by the newest toolchain.
pub fn without_cgo(name: &str) -> Result<Command> {
    let path = built("testprog-local")?;
    let mut build = go("local");
    build
        .current_dir(sources("local", "testprog")?)
        .env("CGO_ENABLED", "0")
        .args(["build", "-o"]);
    run(build.arg(&path).arg("."))?;
    let mut command = Command::new(path);
    command.arg(name);
    Ok(command)
}

fn go(toolchain: &str) -> Command {
    let mut go = Command::new("go");
    go.env("GOTOOLCHAIN", toolchain)
        .env_remove("GOFLAGS")
        .env_remove("CGO_CFLAGS");
    go
}

/// Where the toolchain has the sources of its test programs.
fn sources(toolchain: &str, folder: &str) -> Result<PathBuf> {
    let root = run(go(toolchain).args(["env", "GOROOT"]))?;
    Ok(Path::new(root.trim()).join("src/runtime/testdata").join(folder))
}

fn built(name: &str) -> Result<PathBuf> {
    Ok(cargo_target().canonicalize()?.join("tests-targets").join(name))
}

/// What is laid over Go's own directory, where alone packages of Go's own may be imported: our driver, and copies of
/// the files with insertions, which are written to `folder`.
fn overlaid(sources: &Path, folder: &Path) -> Result<serde_json::Value> {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/testprogcgo/driver.go");
    let mut replace = BTreeMap::from([(sources.join("driver.go"), driver)]);
    for (file, found, inserted) in INSERTIONS {
        let original = sources.join(file);
        let copy = folder.join(file);
        // It may have an insertion already.
        let last = replace.insert(original.clone(), copy.clone()).unwrap_or(original);
        let text = fs::read_to_string(&last).with_context(|| format!("cannot read {}", last.display()))?;
        fs::write(copy, text.replacen(found, inserted, 1))?;
    }
    Ok(json!({ "Replace": replace }))
}

#[cfg(test)]
mod tests {
    use super::{Driven, TestProgCgo};
    use crate::programs::{GO_TOOLCHAINS, run};
    use crate::target::Target;
    use std::process::Command;

    #[test]
    fn the_programs_build_with_every_toolchain_and_run_in_rounds() {
        for toolchain in GO_TOOLCHAINS {
            let programs = TestProgCgo::build(toolchain, "exe").unwrap();
            let mut target = Target::start(programs.driven("CgoPprof", Driven::Rounds)).unwrap();
            target.command("output").unwrap();
            let profiles = target.read_line().unwrap();
            let profile = profiles.split(' ').next().unwrap();
            let traces = run(Command::new("go").args(["tool", "pprof", "-traces", profile])).unwrap();
            for profile in profiles.split(' ') {
                std::fs::remove_file(profile).unwrap();
            }
            assert!(
                traces.contains("cpuHog") && traces.contains("cpuHog2"),
                "{traces}"
            );
            target.command("output").unwrap();
            for profile in target.read_line().unwrap().split_whitespace() {
                std::fs::remove_file(profile).unwrap();
            }
            assert!(target.finish().unwrap().status.success());
            assert_eq!(
                run(&mut programs.plain("TracebackContext")).unwrap(),
                "OK\n",
                "{toolchain}"
            );
        }
    }
}
