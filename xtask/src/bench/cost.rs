//! What a recording costs: the program that is recorded, and the machine. Beside it `perf record`, if it is installed.

use super::Figure;
use super::paired::{self, Sampling, spread_of};
use crate::command::answers;
use anyhow::{Context, Result, ensure};
use profiler_tests::programs::{self, Form, Program};
use profiler_tests::target::Target;
use profiler_tests::{profiler, usage};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Lengths of two recordings: what the longer one takes more is what recording costs, without start and end.
const SECONDS: [u32; 2] = [3, 13];
const RECORDINGS: usize = 5;

/// How long `perf record` gets to begin: it tells nobody when it has.
const PERF_BEGINS: Duration = Duration::from_secs(1);

pub(super) fn run() -> Result<Vec<Figure>> {
    let program = programs::go("hook_cost", "local", Form::Exe, "")?;
    let mut figures = Vec::new();
    for (rate, promised) in [("99", "0.5 %"), ("999", "2 %")] {
        let args = ["-F", rate, "--hooks=off"];
        let start = |pid| paired::recorder(pid, &args);
        let what = format!("slowdown at {rate} Hz");
        figures.push(paired::slowdown(&program, 0, &what, promised, start)?);
    }
    if answers("perf", &["--version"]) {
        for (what, args) in [
            ("perf record, no stacks", &[][..]),
            ("perf record, frame pointers", &["-g"]),
            ("perf record, copied stacks", &["--call-graph", "dwarf"]),
        ] {
            let start = |pid| Perf::start(pid, args);
            let what = format!("slowdown at 999 Hz by {what}");
            figures.push(paired::slowdown(&program, 0, &what, "", start)?);
        }
    }
    figures.extend(own(&programs::go("demo", "local", Form::Exe, "")?)?);
    Ok(figures)
}

/// CPU time and memory of the profiler while it records a program at 99 Hz.
fn own(program: &Program) -> Result<Vec<Figure>> {
    let target = Target::start(program.command())?;
    let pid = target.pid().to_string();
    let (mut shares, mut memory) = (Vec::new(), 0);
    for _ in 0..RECORDINGS {
        let folder = TempDir::new()?;
        let mut took = [Duration::ZERO; 2];
        for (seconds, took) in SECONDS.iter().zip(&mut took) {
            let mut command = profiler::command(["record", "-p", &pid, "-F", "99"])?;
            command
                .args(["-d", &seconds.to_string()])
                .current_dir(folder.path());
            let used = usage::of(&mut command)?;
            ensure!(used.status.success(), "the recording failed:\n{}", used.stderr);
            *took = used.cpu;
            memory = memory.max(used.peak_memory);
        }
        let more = took[1].saturating_sub(took[0]).as_secs_f64();
        shares.push(more * 100.0 / f64::from(SECONDS[1] - SECONDS[0]));
    }
    drop(target);
    let (middle, spread) = spread_of(&mut shares, "%")?;
    Ok(vec![
        Figure::new(
            format!("CPU of the profiler at 99 Hz, demo{spread}"),
            format!("{middle:.2} %"),
            "1 %",
        ),
        Figure::new(
            "memory of the profiler at its peak, demo",
            format!("{} MiB", memory >> 20),
            "60 MiB",
        ),
    ])
}

/// `perf record` of a process.
struct Perf {
    child: Child,
    _folder: TempDir,
}

impl Perf {
    fn start(pid: u32, args: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        let output: &Path = &folder.path().join("perf.data");
        let child = Command::new("perf")
            .args(["record", "-e", "cpu-clock:u", "-F", "999"])
            .args(args)
            .args(["-p", &pid.to_string(), "-o"])
            .arg(output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start perf")?;
        std::thread::sleep(PERF_BEGINS);
        Ok(Self {
            child,
            _folder: folder,
        })
    }
}

impl Sampling for Perf {
    fn end(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("perf has no process id")?;
        kill_process(pid, Signal::INT)?;
        self.child.wait()?;
        Ok(())
    }
}
