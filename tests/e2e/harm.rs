//! The program that is recorded is never harmed while its hooks are honoured, whatever it does.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::harm::{Case, Judged, Unharmed, ask, checksum_alone, finish_after, for_seconds, start};
use profiler_tests::profiler::record;
use profiler_tests::programs::{self, Form, Program};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, full};
use std::fs;
use std::time::Duration;

/// Long enough for some samples.
const SHORT: Duration = Duration::from_millis(700);

#[test]
fn five_hundred_threads_are_not_harmed() -> Result<()> {
    let _guard = exclusive();
    in_mode("threads").map(drop)
}

#[test]
fn a_program_whose_garbage_collector_never_rests_is_not_harmed() -> Result<()> {
    let _guard = exclusive();
    let unharmed = in_mode("garbage")?;
    ensure!(unharmed.number("collections") > 10);
    Ok(())
}

#[test]
fn a_program_with_more_than_a_million_callbacks_per_second_is_not_harmed() -> Result<()> {
    let _guard = exclusive();
    let unharmed = in_mode("callbacks")?;
    ensure!(unharmed.number("callbacks") > 1_000_000);
    Ok(())
}

#[test]
fn a_program_that_starts_others_all_the_time_is_not_harmed() -> Result<()> {
    let _guard = exclusive();
    let unharmed = in_mode("processes")?;
    ensure!(unharmed.number("children") > 100);
    Ok(())
}

#[test]
fn a_program_that_asks_for_all_signals_receives_those_that_it_sends() -> Result<()> {
    let _guard = exclusive();
    // It begins with the highest, which is the one that the profiler takes.
    let unharmed = in_mode("signals")?;
    ensure!(unharmed.number("signals") > 2);
    Ok(())
}

#[test]
fn no_system_call_is_interrupted() -> Result<()> {
    let _guard = exclusive();
    // The runtime sends signals of its own to preempt goroutines.
    let case = Case::new(&program()?, "waits").env("GODEBUG", "asyncpreemptoff=1");
    let unharmed = honoured("waits", case)?;
    ensure!(unharmed.number("calls") > 1000);
    // Nor is there another signal that could come in between.
    ensure!(unharmed.recording.summary()?.mismatched_answers()? == 0);
    let interrupted = unharmed.report.split(' ').filter(|word| !word.ends_with("=0"));
    // What is left is the word `report`, and the number of calls.
    ensure!(interrupted.count() == 2, "{}", unharmed.report);
    Ok(())
}

#[test]
fn a_program_that_executes_itself_is_recorded_on() -> Result<()> {
    let _guard = exclusive();
    let program = program()?;
    let mut command = program.command();
    command.arg("rounds");
    let mut target = Target::start(command)?;
    let recorder = start(&target, "require")?;
    let pid = target.pid();
    let recording = finish_after(recorder, || {
        target.work_for(SHORT)?;
        let ready = ask(&mut target, "exec")?;
        ensure!(ready == format!("ready {pid}"), "{ready:?}");
        target.work_for(SHORT)
    })?;
    let stacks = Judged::of(recording.stacks()?);
    eprintln!("exec: {stacks:?}");
    ensure!(stacks.honoured > 30 && stacks.wrong.is_empty(), "{stacks:?}");
    nothing_is_left(pid)?;
    let finished = target.finish()?;
    ensure!(finished.status.success() && finished.checksum == checksum_alone(&program)?);
    Ok(())
}

#[test]
fn a_program_that_ends_ends_its_recording() -> Result<()> {
    let _guard = exclusive();
    let program = program()?;
    let mut command = program.command();
    command.arg("rounds");
    let mut target = Target::start(command)?;
    let mut recorder = start(&target, "require")?;
    recorder.wait_until_sampling()?;
    target.work_for(SHORT)?;
    let finished = target.finish()?;
    ensure!(finished.status.success() && finished.checksum == checksum_alone(&program)?);
    let recording = recorder.wait()?;
    let stacks = Judged::of(recording.stacks()?);
    eprintln!("end: {stacks:?}");
    ensure!(stacks.honoured > 30 && stacks.wrong.is_empty(), "{stacks:?}");
    ensure!(!recording.stderr.contains("warning"), "{}", recording.stderr);
    Ok(())
}

#[test]
fn a_command_is_recorded_from_its_start_to_its_end() -> Result<()> {
    let _guard = exclusive();
    let program = program()?;
    let path = program.path.to_string_lossy().into_owned();
    let recording = record(["-F", "999", "--hooks=auto", "--", &path, "rounds", "20000"])?;
    let stacks = Judged::of(recording.stacks()?);
    eprintln!("command: {stacks:?}");
    ensure!(
        stacks.wrong.is_empty() && stacks.honoured + stacks.walked > 100,
        "{stacks:?}"
    );
    let checksum = format!("checksum {} 20000", checksum_alone(&program)?);
    ensure!(recording.stdout.contains(&checksum), "{}", recording.stdout);
    Ok(())
}

fn program() -> Result<Program> {
    programs::go("go_harm", "local", Form::Exe, "")
}

fn in_mode(mode: &str) -> Result<Unharmed> {
    honoured(mode, Case::new(&program()?, mode))
}

fn honoured(what: &str, case: Case) -> Result<Unharmed> {
    let unharmed = case.unharmed(for_seconds(full([30, 4])))?;
    eprintln!("{what}: {}", unharmed.summary()?);
    ensure!(unharmed.stacks.honoured > 100, "{:?}", unharmed.stacks);
    Ok(unharmed)
}

/// Makes sure that nothing of ours is in a process, and nobody traces it.
fn nothing_is_left(pid: u32) -> Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    ensure!(!maps.contains("profiler"), "{maps}");
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(status.contains("TracerPid:\t0\n"), "{status}");
    Ok(())
}
