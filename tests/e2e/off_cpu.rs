//! Time off the CPU, held against what the program itself measured.

use anyhow::{Context, Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::folded::Folded;
use profiler_tests::pprof;
use profiler_tests::profiler::{Recorder, Recording, command, record};
use profiler_tests::programs;
use profiler_tests::target::Target;
use std::process::Command;

/// What the program asks the kernel for in each way: 25 times 20 ms, in nanoseconds.
const ASKED: u64 = 25 * 20_000_000;

/// Waits that a clock ends: three times 25, which come in any case. As many reads wait, but not for a byte that is there: on a
/// machine that stalls, two come together.
const CERTAIN: u64 = 75;

/// The three functions that wait.
const FUNCTIONS: [&str; 3] = ["in_sleep", "in_futex", "in_read"];

#[test]
fn waits_are_where_and_as_long_as_the_program_measured() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("waits/waits.c")?;
    let mut target = Target::start(program.command())?;
    let pid = target.pid().to_string();
    let mut recorder = Recorder::start(["-p", &pid, "--off-cpu", "-d", "60"])?;
    recorder.wait_until_sampling()?;
    target.command("wait")?;
    let line = target.read_line()?;
    let measured: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    recorder.signal(rustix::process::Signal::INT)?;
    let recording = recorder.wait()?;
    ensure!(target.finish()?.status.success());

    let stacks = recording.stacks()?;
    for (function, measured) in FUNCTIONS.into_iter().zip(measured) {
        let waited = stacks.with_frame(function);
        // The clock is read before the thread leaves the CPU and after it is back: less is off the CPU than was measured. It
        // leaves within microseconds, unless another thread has the CPU in between, and that is not its waiting: a tenth of
        // all waits is far more than that takes.
        ensure!(
            waited <= measured && waited >= ASKED / 10 * 9,
            "{function}: {waited} ns off the CPU, {measured} ns by the clock, {ASKED} ns asked for"
        );
        for stack in stacks
            .stacks
            .iter()
            .filter(|stack| stack.frames.iter().any(|f| f == function))
        {
            let user = stack.user();
            let at = user
                .iter()
                .position(|frame| frame == function)
                .context("it is there")?;
            ensure!(
                at >= 2 && user[at - 1] == "round_of_waits" && user[at - 2] == "main" && stack.from_kernel(),
                "{stack:?}"
            );
        }
    }
    ensure!(stacks.with_frame("write_late") >= ASKED / 10 * 9);
    let (waits, short) = recording.summary()?.waits()?;
    ensure!(waits > CERTAIN, "{waits} waits, {short} shorter ones");
    ensure!(recording.summary()?.kept()? == stacks.total());
    let profile = pprof::raw(&recording.pprof())?;
    ensure!(profile.contains("off-cpu/nanoseconds"), "{profile}");
    reads_back(&recording)
}

/// What a command that succeeds prints.
fn printed(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The other commands read what was recorded, or say why not.
fn reads_back(recording: &Recording) -> Result<()> {
    let saved = recording.pprof();
    let table = printed(command(["report", "--sort", "total"])?.arg(&saved))?;
    ensure!(table.contains(" ms off the CPU"), "{table}");
    let row = table.lines().find(|line| line.ends_with("  in_sleep"));
    ensure!(row.is_some(), "{table}");
    let folded = saved.with_file_name("again.folded");
    printed(command(["convert"])?.args([&saved, &folded]))?;
    ensure!(Folded::parse(&std::fs::read_to_string(folded)?)?.total() == recording.stacks()?.total());
    let refused = command(["diff"])?.args([&saved, &saved]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && said.contains("only CPU profiles can be compared"),
        "{said}"
    );
    Ok(())
}

#[test]
fn threads_that_work_do_not_wait_and_short_waits_are_counted() -> Result<()> {
    let _guard = exclusive();
    // More threads than most machines have CPUs: they are made to leave all the time, and can run all the time.
    let mut busy = programs::native("busy_threads/busy_threads.c")?.command();
    busy.arg("8");
    let target = Target::start(busy)?;
    let recording = record([
        "-p",
        &target.pid().to_string(),
        "--off-cpu",
        "--min-block",
        "0",
        "-d",
        "1",
    ])?;
    ensure!(target.finish()?.status.success());
    let leaf = recording
        .folded
        .as_ref()
        .map_or(0, |folded| folded.with_frame("leaf"));
    // A page fault can make one wait, for the disk or a lock.
    ensure!(leaf < 10_000_000, "{leaf} ns in a function that never waits");

    let program = programs::native("waits/waits.c")?;
    let mut target = Target::start(program.command())?;
    let pid = target.pid().to_string();
    let mut recorder = Recorder::start(["-p", &pid, "--off-cpu", "--min-block", "60000", "-d", "60"])?;
    recorder.wait_until_sampling()?;
    target.command("wait")?;
    target.read_line()?;
    recorder.signal(rustix::process::Signal::INT)?;
    let recording = recorder.wait()?;
    ensure!(target.finish()?.status.success());
    let (waits, short) = recording.summary()?.waits()?;
    ensure!(
        waits == 0 && short > CERTAIN,
        "{waits} waits, {short} shorter ones"
    );
    Ok(())
}

#[test]
fn hooks_cannot_be_asked_where_a_thread_waits() -> Result<()> {
    let pid = std::process::id().to_string();
    let output = command(["record", "-p", &pid, "--off-cpu", "--hooks=require"])?.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && stderr.contains("leave --hooks out"),
        "{stderr}"
    );
    Ok(())
}
