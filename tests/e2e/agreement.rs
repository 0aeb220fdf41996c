//! Our profile of a Go program agrees with the one that the program takes of itself.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Context, Result, ensure};
use profiler_tests::folded::Stack;
use profiler_tests::profiler::Recorder;
use profiler_tests::programs::{self, Form, GO_TOOLCHAINS};
use profiler_tests::stats::{Counts, chance, total_variation};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, full, pprof};

/// How long both record, in seconds: long enough for [`SAMPLES`] at the rate below. `AGREEMENT_SECONDS` changes it.
const SECONDS: u32 = 14;

/// The rate that the program asks its runtime for. Its timers are those of the kernel's tick, so a kernel with
/// `CONFIG_HZ=250` gives at most 250 samples per second and thread.
const GO_HZ: u32 = 250;

/// Fewer samples than this on either side prove little.
const SAMPLES: u64 = 5000;

/// How much further apart two profiles may be than 99 of 100 pairs are by chance.
const SLACK: f64 = 0.03;

#[test]
fn a_pure_go_program_is_seen_as_it_sees_itself() -> Result<()> {
    let _guard = exclusive();
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[2..]]) {
        agree(toolchain, "", leaf)?;
    }
    Ok(())
}

#[test]
fn a_program_of_go_and_c_is_seen_as_it_sees_itself() -> Result<()> {
    let _guard = exclusive();
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[..1]]) {
        agree(toolchain, "mixed", as_go_sees_it)?;
    }
    Ok(())
}

fn agree(toolchain: &str, tags: &str, name: fn(&Stack) -> String) -> Result<()> {
    let seconds = match std::env::var("AGREEMENT_SECONDS") {
        Ok(text) => text.parse().context("AGREEMENT_SECONDS is not a number")?,
        Err(_) => SECONDS,
    };
    let program = programs::go("go_pprof", toolchain, Form::Exe, tags)?;
    let mut command = program.command();
    // The signal by which Go preempts a goroutine and the one by which it samples wait for the same tick. Where
    // both come, the sample is in runtime.asyncPreempt, with a share that says nothing about the program.
    command.env("GODEBUG", "asyncpreemptoff=1");

    let mut target = Target::start(command)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("own.pb.gz");
    let pid = target.pid().to_string();
    let duration = seconds.to_string();
    let mut recorder = Recorder::start(["-p", &pid, "-F", "499", "-d", &duration, "--no-kernel"])?;
    recorder.wait_until_sampling()?;
    target.command(&format!("profile {seconds} {} {GO_HZ}", file.display()))?;
    let recording = recorder.wait()?;
    ensure!(target.read_line()?.starts_with("profiled "));
    ensure!(target.finish()?.status.success());

    let theirs = pprof::self_time(&file)?;
    let ours = recording.stacks()?.self_time(name);
    let count = |counts: &Counts| counts.values().sum::<u64>();
    let (distance, chance) = (total_variation(&ours, &theirs), chance(&ours, &theirs));
    eprintln!(
        "{toolchain} {tags}: ours {} samples, Go's {}; distance {distance:.4}, by chance {:.4} (99 %: {:.4})",
        count(&ours),
        count(&theirs),
        chance.mean,
        chance.p99
    );
    ensure!(
        count(&ours) >= SAMPLES && count(&theirs) >= SAMPLES,
        "too few samples; try AGREEMENT_SECONDS"
    );
    ensure!(
        distance <= chance.p99 + SLACK,
        "too far apart:\n{}",
        side_by_side(&ours, &theirs)
    );
    Ok(())
}

/// The innermost function. The vDSO is where Go's profile has the function that called it.
fn leaf(stack: &Stack) -> String {
    let mut frames = stack.user().iter().rev();
    frames.find(|frame| !in_vdso(frame)).cloned().unwrap_or_default()
}

/// The innermost function, but `runtime.cgocall` for all that C does: without hooks Go's own profile does not
/// see C, only that the goroutine is in it (runtime/proc.go, sigprof).
fn as_go_sees_it(stack: &Stack) -> String {
    let innermost = |name: &str| stack.user().iter().rposition(|frame| frame == name);
    match (innermost("runtime.asmcgocall"), innermost("runtime.cgocallback")) {
        (Some(call), callback) if callback.is_none_or(|callback| callback < call) => {
            "runtime.cgocall".to_owned()
        }
        _ => leaf(stack),
    }
}

fn in_vdso(frame: &str) -> bool {
    frame.starts_with("__vdso_") || frame == "clock_gettime" || frame.contains("vdso]+0x")
}

fn side_by_side(ours: &Counts, theirs: &Counts) -> String {
    let share = |counts: &Counts, function: &String| {
        let all: u64 = counts.values().sum();
        counts.get(function).copied().unwrap_or(0) as f64 * 100.0 / all.max(1) as f64
    };
    let mut rows: Vec<_> = ours
        .keys()
        .chain(theirs.keys().filter(|function| !ours.contains_key(*function)))
        .map(|function| (share(ours, function), share(theirs, function), function))
        .collect();
    rows.sort_by(|a, b| (b.0 - b.1).abs().total_cmp(&(a.0 - a.1).abs()));
    let row =
        |(ours, theirs, function): &(f64, f64, &String)| format!("{ours:7.2} % {theirs:7.2} %  {function}\n");
    let table: String = rows.iter().take(20).map(row).collect();
    format!("     ours      Go's\n{table}")
}
