//! The same work with and without a recording, in turn: what differs is what the recording costs. The work is that of
//! `tests/targets/hook_cost`, which says what CPU time it took.

use super::Figure;
use anyhow::{Context, Result};
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs::Program;
use profiler_tests::target::Target;
use rustix::process::Signal;

/// How often each comparison is made: the middle one counts.
pub(super) const PAIRS: usize = 12;
/// Rounds of work, of a tenth of a second, on each side of a comparison.
const ROUNDS: usize = 10;

/// Something that samples a process until it is dropped or ended.
pub(super) trait Sampling {
    /// Ends it.
    fn end(self) -> Result<()>;
}

impl Sampling for Recorder {
    fn end(self) -> Result<()> {
        self.signal(Signal::INT)?;
        self.wait().map(drop)
    }
}

/// How much more CPU time the same work, beneath so many callbacks, takes while `start` samples it.
pub(super) fn slowdown<S: Sampling>(
    program: &Program,
    callbacks: u32,
    what: &str,
    promised: &str,
    start: impl Fn(u32) -> Result<S>,
) -> Result<Figure> {
    let mut target = Target::start(program.command())?;
    let mut slower = Vec::new();
    let mut before = work(&mut target, callbacks)?;
    for _ in 0..PAIRS {
        let sampling = start(target.pid())?;
        let sampled = work(&mut target, callbacks)?;
        sampling.end()?;
        let after = work(&mut target, callbacks)?;
        slower.push(sampled / ((before + after) / 2.0) * 100.0 - 100.0);
        before = after;
    }
    target.finish()?;
    let (middle, spread) = spread_of(&mut slower, "%")?;
    Ok(Figure::new(
        format!("{what}{spread}"),
        format!("{middle:.2} %"),
        promised,
    ))
}

/// A recording of a process by the profiler, which samples already.
pub(super) fn recorder(pid: u32, args: &[&str]) -> Result<Recorder> {
    let pid = pid.to_string();
    let mut recorder = Recorder::start(["-p", &pid, "--no-kernel"].iter().chain(args))?;
    recorder.wait_until_sampling()?;
    Ok(recorder)
}

/// CPU time of [`ROUNDS`] rounds of work, in nanoseconds.
fn work(target: &mut Target, callbacks: u32) -> Result<f64> {
    (0..ROUNDS).map(|_| round(target, callbacks)).sum()
}

/// That of one round.
pub(super) fn round(target: &mut Target, callbacks: u32) -> Result<f64> {
    target.command(&format!("work {callbacks}"))?;
    target.read_line()?.parse().context("not a time")
}

/// The CPU time of [`ROUNDS`] rounds while they are recorded, in nanoseconds, and the recording.
pub(super) fn recorded(target: &mut Target, callbacks: u32, args: &[&str]) -> Result<(f64, Recording)> {
    record(target, args, |target| work(target, callbacks))
}

/// Records a process while it does something.
pub(super) fn record<T>(
    target: &mut Target,
    args: &[&str],
    work: impl FnOnce(&mut Target) -> Result<T>,
) -> Result<(T, Recording)> {
    let recorder = recorder(target.pid(), args)?;
    let done = work(target)?;
    recorder.signal(Signal::INT)?;
    Ok((done, recorder.wait()?))
}

/// The least, the middle and the largest of some values, which are sorted then.
pub(super) fn spread(values: &mut [f64]) -> Result<(f64, f64, f64)> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.get(values.len() / 2).context("nothing was measured")?;
    Ok((values[0], *middle, values[values.len() - 1]))
}

/// The middle of some values, which are sorted then; and the least and the largest, as text.
pub(super) fn spread_of(values: &mut [f64], unit: &str) -> Result<(f64, String)> {
    let (least, middle, most) = spread(values)?;
    Ok((middle, format!(" ({least:.2} to {most:.2} {unit})")))
}
