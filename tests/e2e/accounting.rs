//! Every sample that was due is in the profile or is counted as lost.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::cpu_time::on_cpu;
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, programs};
use rustix::process::Signal;
use std::time::Duration;

/// How far from the samples that were due those that are accounted for may be, in percent.
const SLACK: f64 = 2.0;

/// How long the threads are recorded.
const TIME: Duration = Duration::from_secs(10);

#[test]
fn at_9999_hertz_every_sample_is_kept_or_counted_as_lost() -> Result<()> {
    let _guard = exclusive();
    let (recording, due) = record_two_threads(9999)?;
    accounted_for(&recording, due)
}

#[test]
fn at_999_hertz_nothing_is_lost() -> Result<()> {
    let _guard = exclusive();
    let (recording, due) = record_two_threads(999)?;
    accounted_for(&recording, due)?;
    ensure!(
        recording.summary()?.lost()? == 0,
        "lost: {}",
        recording.summary()?.lost()?
    );
    Ok(())
}

/// Records two busy threads, and says how many samples were due by the scheduler's account.
fn record_two_threads(hertz: u32) -> Result<(Recording, f64)> {
    let mut command = programs::native("busy_threads/busy_threads.c")?.command();
    command.arg("2");
    let mut target = Target::start(command)?;
    let pid = target.pid();
    let mut recorder = Recorder::start(["-p", &pid.to_string(), "-F", &hertz.to_string()])?;
    recorder.wait_until_sampling()?;
    let before = on_cpu(pid)?;
    target.work_for(TIME)?;
    let after = on_cpu(pid)?;
    recorder.signal(Signal::INT)?;
    let recording = recorder.wait()?;
    ensure!(target.finish()?.status.success());
    Ok((recording, f64::from(hertz) * (after - before).as_secs_f64()))
}

fn accounted_for(recording: &Recording, due: f64) -> Result<()> {
    let (summary, stacks) = (recording.summary()?, recording.stacks()?);
    let (kept, lost) = (summary.kept()?, summary.lost()?);
    let share = (kept + lost) as f64 * 100.0 / due;
    eprintln!("{due:.0} samples were due, {kept} were kept and {lost} lost: {share:.2} %");
    ensure!(
        (share - 100.0).abs() <= SLACK,
        "{share:.2} % of the samples that were due are accounted for"
    );
    ensure!(
        stacks.total() == kept,
        "the profile has {} samples, the summary {kept}",
        stacks.total()
    );
    Ok(())
}
