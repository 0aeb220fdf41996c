//! A profiler that honours hooks may be killed at any moment: its target does not notice, and the next one clears up.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Context, Result, ensure};
use profiler_tests::harm::{self, Judged, ask, finish_after, until_called};
use profiler_tests::programs::{self, Form};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, full};
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;

/// How many profilers die, in the full test and otherwise.
const DEATHS: [u64; 2] = [100, 24];

/// When a profiler dies.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as it has something in the target.
    Mapped,
    /// When the hook has been called so often.
    Called(u64),
    /// When it has ceased to sample, and leaves.
    Leaving,
}

impl Moment {
    /// Of eight deaths six are while samples are taken, spread evenly over the first 600 calls; which, is always the same.
    fn of(n: u64) -> Self {
        match n % 8 {
            0 => Self::Mapped,
            4 => Self::Leaving,
            _ => Self::Called(1 + n * 7919 % 600),
        }
    }
}

#[test]
fn a_target_survives_the_death_of_its_profiler_at_any_moment_and_the_next_one_clears_up() -> Result<()> {
    let _guard = exclusive();
    let program = programs::go("go_harm", "local", Form::Exe, "")?;
    let alone = harm::checksum_alone(&program)?;
    let mut command = program.command();
    // The runtime's own signals call the hook, too.
    command.arg("rounds").env("GODEBUG", "asyncpreemptoff=1");
    let mut target = Target::start(command)?;
    let before = Snapshot::at_rest(target.pid())?;
    let (mut deaths, mut remains) = (0, 0);
    for moment in (0..full(DEATHS)).map(Moment::of) {
        if !dies(&mut target, moment).with_context(|| format!("{moment:?}"))? {
            continue;
        }
        deaths += 1;
        remains += u32::from(has_helper(&target)?);
        // It goes on.
        ask(&mut target, "report")?;
        let recorder = harm::start(&target, "require")?;
        let recording = finish_after(recorder, || until_called(&mut target, 100))?;
        let stacks = Judged::of(recording.stacks()?);
        ensure!(
            stacks.honoured > 30 && stacks.wrong.is_empty(),
            "{moment:?}: {stacks:?}"
        );
        ensure!(
            !recording.stderr.contains("warning"),
            "{moment:?}: {}",
            recording.stderr
        );
        let differences = before.lasting_differences(target.pid(), Freedom::GoRuntime, &[])?;
        ensure!(differences.is_empty(), "{moment:?}: {}", differences.join("\n"));
    }
    eprintln!(
        "{deaths} profilers were killed, {remains} of them left something, and each next one found its way"
    );
    ensure!(deaths * 8 >= full(DEATHS) * 7 && remains > 0);
    let finished = target.finish()?;
    ensure!(
        finished.status.success() && finished.checksum == alone,
        "{finished:?}"
    );
    Ok(())
}

/// Starts a profiler and kills it. False if it was done before.
fn dies(target: &mut Target, moment: Moment) -> Result<bool> {
    let mut recorder = harm::start(target, "require")?;
    match moment {
        Moment::Mapped => {
            while !has_helper(target)? {
                std::thread::yield_now();
            }
        }
        Moment::Called(n) => until_called(target, n)?,
        Moment::Leaving => {
            recorder.wait_until_sampling()?;
            recorder.signal(Signal::INT)?;
            while recorder.is_sampling() {
                std::thread::yield_now();
            }
        }
    }
    recorder.signal(Signal::KILL)?;
    Ok(recorder.wait()?.status.signal() == Some(Signal::KILL.as_raw()))
}

/// Whether anything of ours is in the target.
fn has_helper(target: &Target) -> Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid()))?;
    Ok(maps.contains("profiler-hooks"))
}
