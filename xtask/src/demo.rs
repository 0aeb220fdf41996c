//! `cargo xtask demo`: from a clean clone to a flame graph.

use crate::command::{cargo, run as run_command};
use crate::{go, host, workspace};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const SECONDS: &str = "5";
const FLAME_GRAPH: &str = "flamegraph.svg";
const PROFILE: &str = "profile.pb.gz";

/// Builds the profiler and the demo target, records one with the other, and says where the result is.
pub fn run() -> Result<()> {
    host::require_root(
        "demo",
        "to load BPF programs and to read the memory of other processes",
    )?;
    let why = "to build the program that is recorded, in which Go and C call each other";
    host::require(host::C_TOOLCHAIN.iter().chain(host::SQLITE), why)?;
    let go = go::require(why)?;

    let target_dir = workspace::target_dir()?;
    run_command(
        cargo()
            .args(["build", "--release", "--package", "profiler"])
            .current_dir(workspace::root()),
    )?;
    let program = target_dir.join("demo").join("orders");
    build_target(&go, &program)?;

    let target = Target::start(&program)?;
    println!(
        "Process {} prices orders; it is recorded for {SECONDS} seconds.",
        target.pid
    );
    let profiler = target_dir.join("release").join("profiler");
    run_command(Command::new(profiler).args([
        "record",
        "-p",
        &target.pid,
        "-d",
        SECONDS,
        "-o",
        FLAME_GRAPH,
        "-o",
        PROFILE,
    ]))?;
    let counters = target.stop()?;

    let here = std::env::current_dir().context("cannot find the current directory")?;
    println!();
    println!("The process found its results right to the end: {counters}");
    println!(
        "Flame graph, for a browser:   {}",
        here.join(FLAME_GRAPH).display()
    );
    println!("Profile, for `go tool pprof`: {}", here.join(PROFILE).display());
    Ok(())
}

fn build_target(go: &Path, program: &Path) -> Result<()> {
    run_command(
        Command::new(go)
            // Version control tells nothing here, and fails in a clone that belongs to someone else.
            .args(["build", "-buildvcs=false", "-o"])
            .arg(program)
            .arg(".")
            .env("CGO_ENABLED", "1")
            .env_remove("GOFLAGS")
            .env_remove("GOROOT")
            .current_dir(workspace::root().join("tests/targets/demo")),
    )
}

/// The running demo target; ended when dropped.
struct Target {
    child: Child,
    said: BufReader<ChildStdout>,
    pid: String,
}

impl Target {
    /// Starts the target and waits until it says that it is ready.
    fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the target has no standard output")?;
        let mut target = Self {
            child,
            said: BufReader::new(stdout),
            pid: String::new(),
        };
        let mut line = String::new();
        target
            .said
            .read_line(&mut line)
            .context("cannot read what the target says")?;
        let Some(pid) = line.trim_end().strip_prefix("ready ") else {
            bail!("{} did not say that it is ready, but {line:?}", program.display());
        };
        target.pid = pid.to_owned();
        Ok(target)
    }

    /// Ends the target and returns its last words.
    fn stop(mut self) -> Result<String> {
        // The target works until its standard input is closed.
        drop(self.child.stdin.take());
        let mut counters = String::new();
        self.said
            .read_to_string(&mut counters)
            .context("cannot read what the target says")?;
        let status = self.child.wait().context("cannot wait for the target")?;
        if !status.success() {
            bail!("the recorded program failed ({status}): the recording has disturbed it");
        }
        Ok(counters.trim_end().to_owned())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // After `stop` there is nothing left to end, and both say so; before it, this is an error's way out.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
