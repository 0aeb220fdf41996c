//! The same work with and without a recording, in turn: what differs is what the recording costs. The work is that of
//! `tests/targets/hook_cost`, which says what CPU time it took.

use anyhow::{Context, Result};
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs::Program;
use profiler_tests::target::Target;
use rustix::process::Signal;

/// How often each comparison is made: the middle one counts. One by itself is off by 1.5 % in either direction on a virtual
/// machine, the middle one of so many by half a percent.
const PAIRS: usize = 16;
/// Rounds of work, of a tenth of a second, on each side of a comparison.
const ROUNDS: usize = 10;

/// Something that samples a process until it is dropped or ended.
pub(super) trait Sampling {
    /// Ends it.
    fn end(self: Box<Self>) -> Result<()>;
}

impl Sampling for Recorder {
    fn end(self: Box<Self>) -> Result<()> {
        self.signal(Signal::INT)?;
        self.wait().map(drop)
    }
}

/// Lets something sample a process.
pub(super) type Start<'a> = Box<dyn Fn(u32) -> Result<Box<dyn Sampling>> + 'a>;

/// Lets the profiler do so.
pub(super) fn ours<'a>(args: &'a [&'a str]) -> Start<'a> {
    Box::new(|pid| Ok(Box::new(recorder(pid, args)?)))
}

/// How much more CPU time the same work, beneath so many callbacks, takes while each of `starts` samples it, in percent,
/// time and again.
pub(super) fn slower(program: &Program, callbacks: u32, starts: &[Start]) -> Result<Vec<Result<Vec<f64>>>> {
    let mut target = Target::start(program.command())?;
    let mut before = work(&mut target, callbacks)?;
    let slower = in_turns(starts, PAIRS, |start| {
        let sampling = start(target.pid())?;
        let sampled = work(&mut target, callbacks)?;
        sampling.end()?;
        let after = work(&mut target, callbacks)?;
        let slower = sampled / ((before + after) / 2.0) * 100.0 - 100.0;
        before = after;
        Ok(slower)
    });
    target.finish()?;
    Ok(slower)
}

/// Measures each of some things so often, in turns: what changes on the machine meanwhile meets all of them. One that
/// fails is not measured again.
pub(super) fn in_turns<T, R>(
    things: &[T],
    times: usize,
    mut measure: impl FnMut(&T) -> Result<R>,
) -> Vec<Result<Vec<R>>> {
    let mut found: Vec<_> = things.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..times {
        for (thing, found) in things.iter().zip(&mut found) {
            if let Ok(values) = found {
                match measure(thing) {
                    Ok(value) => values.push(value),
                    Err(error) => *found = Err(error),
                }
            }
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::in_turns;
    use anyhow::bail;

    #[test]
    fn all_have_their_turn_until_they_fail() {
        let mut order = Vec::new();
        let found = in_turns(&[1, 2, 3], 2, |&thing| {
            order.push(thing);
            if thing == 2 {
                bail!("no");
            }
            Ok(thing * 10)
        });
        assert_eq!(order, [1, 2, 3, 1, 3]);
        assert_eq!(found[0].as_ref().unwrap(), &[10, 10]);
        assert!(found[1].is_err());
        assert_eq!(found[2].as_ref().unwrap(), &[30, 30]);
    }
}
