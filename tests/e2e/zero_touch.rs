//! A process that is recorded is left alone: it looks the same before, during and after, and computes the same.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::profiler::Recorder;
use profiler_tests::programs::{self, Form, Program};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::{Finished, Target};
use std::time::Duration;

/// How long a program works before it is looked at: what the Go runtime starts late is there by then.
const SETTLED: Duration = Duration::from_secs(2);

#[test]
fn a_c_program_is_left_alone() -> Result<()> {
    let _guard = exclusive();
    left_alone(&programs::native("c_deep/c_deep.c")?, Freedom::None)
}

#[test]
fn a_go_program_is_left_alone() -> Result<()> {
    let _guard = exclusive();
    left_alone(
        &programs::go("go_nested", "local", Form::Exe, "")?,
        Freedom::GoRuntime,
    )
}

fn left_alone(program: &Program, freedom: Freedom) -> Result<()> {
    let alone = run_alone(program)?;

    let mut target = Target::start(program.command())?;
    target.work_for(SETTLED)?;
    let before = Snapshot::at_rest(target.pid())?;
    let mut recorder = Recorder::start(["-p", &target.pid().to_string(), "-F", "999", "-d", "3"])?;
    recorder.wait_until_sampling()?;
    let during = Snapshot::at_rest(target.pid())?;
    let recording = recorder.wait()?;
    let after = Snapshot::at_rest(target.pid())?;
    let finished = target.finish()?;

    for (when, later) in [("during", during), ("after", after)] {
        let differences = before.differences(&later, freedom);
        ensure!(
            differences.is_empty(),
            "{when} the recording:\n{}",
            differences.join("\n")
        );
    }
    ensure!(recording.stacks()?.total() > 0, "there was no sample");
    ensure!(
        finished.status == alone.status && finished.checksum == alone.checksum,
        "{finished:?}, alone {alone:?}"
    );
    eprintln!(
        "{}: {} rounds, all with checksum {}",
        program.path.display(),
        finished.iterations,
        finished.checksum
    );
    Ok(())
}

fn run_alone(program: &Program) -> Result<Finished> {
    let mut target = Target::start(program.command())?;
    target.work_for(Duration::from_millis(100))?;
    target.finish()
}
