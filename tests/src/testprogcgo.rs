//! The programs that Go's own distribution tests the traceback protocol with (runtime/testdata/testprogcgo, driven by
//! runtime/crash_cgo_test.go), made to run as long as we like by a driver of ours.

use crate::programs::{cargo_target, run};
use anyhow::Result;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All programs, built by one toolchain.
#[derive(Clone, Debug)]
pub struct TestProgCgo {
    path: PathBuf,
}

impl TestProgCgo {
    /// Builds the programs from the sources that the toolchain itself has. `mode` is for `-buildmode`.
    pub fn build(toolchain: &str, mode: &str) -> Result<Self> {
        let go = || {
            let mut go = Command::new("go");
            go.env("GOTOOLCHAIN", toolchain)
                .env_remove("GOFLAGS")
                .env_remove("CGO_CFLAGS")
                .env("CGO_ENABLED", "1");
            go
        };
        let root = run(go().args(["env", "GOROOT"]))?;
        let sources = Path::new(root.trim()).join("src/runtime/testdata/testprogcgo");
        // Laid over Go's own directory, where alone packages of Go's own may be imported.
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/testprogcgo/driver.go");
        let overlay = tempfile::NamedTempFile::new()?;
        let replace = json!({ "Replace": { sources.join("driver.go").to_string_lossy(): driver } });
        fs::write(overlay.path(), replace.to_string())?;
        let path = cargo_target()
            .canonicalize()?
            .join("tests-targets")
            .join(format!("testprogcgo-{toolchain}-{mode}"));
        run(go()
            .current_dir(&sources)
            .arg("build")
            .arg("-overlay")
            .arg(overlay.path())
            .args(["-buildmode", mode, "-o"])
            .arg(&path)
            .arg("."))?;
        Ok(Self { path })
    }

    /// Runs one of them again and again.
    pub fn driven(&self, name: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["Driver", name]);
        command
    }

    /// Runs one of them once, as Go's tests do.
    pub fn plain(&self, name: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(name);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::TestProgCgo;
    use crate::programs::{GO_TOOLCHAINS, run};
    use crate::target::Target;
    use std::process::Command;

    #[test]
    fn the_programs_build_with_every_toolchain_and_run_in_rounds() {
        for toolchain in GO_TOOLCHAINS {
            let programs = TestProgCgo::build(toolchain, "exe").unwrap();
            let mut target = Target::start(programs.driven("CgoPprof")).unwrap();
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
