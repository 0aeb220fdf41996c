//! The program that is recorded is never harmed while its hooks are honoured, whatever it does.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::harm::{Case, for_seconds};
use profiler_tests::programs::{self, Form};

#[test]
fn five_hundred_threads_are_not_harmed() -> Result<()> {
    let _guard = exclusive();
    in_mode("threads", 4).map(|_| ())
}

#[test]
fn a_program_whose_garbage_collector_never_rests_is_not_harmed() -> Result<()> {
    let _guard = exclusive();
    in_mode("garbage", 4).map(|_| ())
}

#[test]
fn a_program_with_more_than_a_million_callbacks_per_second_is_not_harmed() -> Result<()> {
    let _guard = exclusive();
    in_mode("callbacks", 4).map(|_| ())
}

#[test]
fn a_program_that_starts_others_all_the_time_is_not_harmed() -> Result<()> {
    let _guard = exclusive();
    in_mode("processes", 4).map(|_| ())
}

#[test]
fn a_program_that_asks_for_all_signals_receives_those_that_it_sends() -> Result<()> {
    let _guard = exclusive();
    in_mode("signals", 8).map(|_| ())
}

#[test]
fn no_system_call_is_interrupted() -> Result<()> {
    let _guard = exclusive();
    in_mode("waits", 4).map(|_| ())
}

fn in_mode(mode: &str, seconds: u64) -> Result<()> {
    let program = programs::go("go_harm", "local", Form::Exe, "")?;
    let unharmed = Case::new(&program, mode).unharmed(for_seconds(seconds))?;
    eprintln!("{mode}: {}", unharmed.summary()?);
    ensure!(unharmed.stacks.honoured > 100, "{:?}", unharmed.stacks);
    Ok(())
}
