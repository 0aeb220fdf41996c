//! What the BPF program needs for a sample, by the kernel's own statistics of BPF programs.

use super::Figure;
use super::paired::spread;
use anyhow::{Context, Result, ensure};
use profiler_tests::profiler::Recorder;
use profiler_tests::programs::{self, Form};
use profiler_tests::target::Target;
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const RECORDINGS: usize = 7;
/// How long each takes.
const TIME: Duration = Duration::from_secs(2);

/// Frames of `tests/targets/frames`: the mean of its two threads.
const FRAMES: f64 = 64.0;
/// Frames of the same when it calls itself once instead of 59 times.
const FEW_FRAMES: f64 = FRAMES - 58.0;

/// Where the kernel is told to count (Documentation/admin-guide/sysctl/kernel.rst, `bpf_stats_enabled`).
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// `BPF_PROG_TYPE_PERF_EVENT` (include/uapi/linux/bpf.h).
const PERF_EVENT: &str = "7";

pub(super) fn run() -> Result<Vec<Figure>> {
    let _counting = Counting::start()?;
    let frames = programs::native("frames/frames.c")?;
    let (sample, of) = sample_ns(frames.command())?;
    let mut few = frames.command();
    few.arg("1");
    let (few, of_few) = sample_ns(few)?;
    let mixed = sample_ns(programs::go("go_nested", "local", Form::Exe, "")?.command())?;
    Ok(vec![
        Figure::new(
            format!("BPF program, C without frame pointers, {FRAMES:.0} frames: a sample{of}"),
            format!("{sample:.0} ns"),
            "",
        ),
        Figure::new(
            "the same for each frame",
            format!("{:.1} ns", sample / FRAMES),
            "50 ns",
        ),
        Figure::new(
            format!("the same with {FEW_FRAMES:.0} frames: a sample{of_few}"),
            format!("{few:.0} ns"),
            "",
        ),
        Figure::new(
            "for each of the frames that the one has and the other has not",
            format!("{:.1} ns", (sample - few) / (FRAMES - FEW_FRAMES)),
            "",
        ),
        Figure::new(
            format!("BPF program, Go that calls C that calls Go: a sample{}", mixed.1),
            format!("{:.0} ns", mixed.0),
            "",
        ),
    ])
}

/// The time that the BPF program takes for a sample of a program, in nanoseconds, and its spread, as text.
fn sample_ns(program: Command) -> Result<(f64, String)> {
    let mut target = Target::start(program)?;
    let mut times = Vec::new();
    for _ in 0..RECORDINGS {
        let pid = target.pid().to_string();
        let mut recorder = Recorder::start(["-p", &pid, "-F", "999", "--no-kernel", "--hooks=off"])?;
        recorder.wait_until_sampling()?;
        target.work_for(TIME)?;
        let spent = spent_ns(recorder.pid())?;
        recorder.signal(Signal::INT)?;
        // Some more samples come until it has ended: one in hundred, at most.
        times.push(spent as f64 / recorder.wait()?.summary()?.kept()? as f64);
    }
    target.finish()?;
    let (least, middle, most) = spread(&mut times)?;
    Ok((middle, format!(" ({least:.0} to {most:.0} ns)")))
}

/// The time that the sampling program of a profiler has taken so far, in nanoseconds.
fn spent_ns(profiler: u32) -> Result<u64> {
    let folder = format!("/proc/{profiler}/fdinfo");
    let mut spent = None;
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        // What is closed meanwhile is none of ours.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        if field("prog_type") == Some(PERF_EVENT) {
            spent = spent.max(field("run_time_ns").and_then(|time| time.parse().ok()));
        }
    }
    let spent = spent.context("the profiler has no BPF program for events")?;
    ensure!(spent > 0, "the kernel does not count what BPF programs take");
    Ok(spent)
}

/// While it lives, the kernel counts what BPF programs take.
struct Counting {
    before: String,
}

impl Counting {
    fn start() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(Path::new(SWITCH), "1").with_context(|| format!("cannot write to {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // It could be written before.
        let _ = fs::write(SWITCH, &self.before);
    }
}
