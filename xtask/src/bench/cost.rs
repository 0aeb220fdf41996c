//! What a recording costs: the program that is recorded, and the machine. Beside it the other recorders that are
//! installed, in turns with the profiler and on the same process.

use super::Figure;
use super::foreign::{self, Foreign};
use super::paired::{self, Start, in_turns, spread_of};
use anyhow::{Context, Result, anyhow, ensure};
use profiler_tests::profiler;
use profiler_tests::programs::{self, Form, Program};
use profiler_tests::target::Target;
use profiler_tests::usage::{self, Usage};
use std::iter::once;
use std::path::Path;
use tempfile::TempDir;

/// The rates of the recordings, in Hz, and what is promised of the slowdown at each.
pub(super) const RATES: [(u32, &str); 2] = [(99, "0.5 %"), (999, "2 %")];

/// Lengths of two recordings: what the longer one takes more is what recording costs, without start and end.
const SECONDS: [u32; 2] = [3, 13];
const RECORDINGS: usize = 5;

pub(super) fn run() -> Result<Vec<Figure>> {
    let (others, left_out) = foreign::installed();
    let program = programs::go("hook_cost", "local", Form::Exe, "")?;
    let mut figures = Vec::new();
    for nth in 0..RATES.len() {
        figures.extend(slowdowns(&program, nth, &others)?);
    }
    figures.extend(needs(&programs::go("demo", "local", Form::Exe, "")?, &others)?);
    figures.extend(left_out);
    Ok(figures)
}

/// How recordings at one of the [`RATES`] slow a program down.
fn slowdowns(program: &Program, nth: usize, others: &[&'static Foreign]) -> Result<Vec<Figure>> {
    let (rate, promised) = RATES[nth];
    let rate_text = rate.to_string();
    let args = ["-F", &rate_text, "--hooks=off"];
    let theirs = others
        .iter()
        .map(|other| -> Start { Box::new(|pid| Ok(Box::new(other.start(pid, other.rates[nth])?))) });
    let starts: Vec<Start> = once(paired::ours(&args)).chain(theirs).collect();
    let slower = paired::slower(program, 0, &starts)?.into_iter();
    let measured = slower.map(|slower| Measured::percent(slower?)).collect();

    let names = others
        .iter()
        .map(|other| format!("slowdown at {} Hz by {}", other.rates[nth], other.label()));
    let names = once(format!("slowdown at {rate} Hz")).chain(names).collect();
    rows(names, measured, promised)
}

/// CPU time and memory of the recorders while they record a program at the first of the [`RATES`].
fn needs(program: &Program, others: &[&'static Foreign]) -> Result<Vec<Figure>> {
    type Record<'a> = Box<dyn Fn(u32, &Path) -> Result<Usage> + 'a>;

    let target = Target::start(program.command())?;
    let pid = target.pid();
    let (rate, _) = RATES[0];
    let ours: Record = Box::new(move |seconds, folder| {
        let (pid, rate, seconds) = (pid.to_string(), rate.to_string(), seconds.to_string());
        let mut command = profiler::command(["record", "-p", &pid, "-F", &rate, "-d", &seconds])?;
        let used = usage::of(command.current_dir(folder))?;
        ensure!(used.status.success(), "the recording failed:\n{}", used.stderr);
        Ok(used)
    });
    let theirs = others.iter().map(|other| -> Record {
        Box::new(move |seconds, folder| other.usage(pid, other.rates[0], seconds, folder))
    });
    let records: Vec<Record> = once(ours).chain(theirs).collect();
    let needs = in_turns(&records, RECORDINGS, |record| {
        let folder = TempDir::new()?;
        let short = record(SECONDS[0], folder.path())?;
        let long = record(SECONDS[1], folder.path())?;
        let more = long.cpu.saturating_sub(short.cpu).as_secs_f64();
        let share = more * 100.0 / f64::from(SECONDS[1] - SECONDS[0]);
        Ok((share, short.peak_memory.max(long.peak_memory)))
    });
    drop(target);

    let each = |measured: fn(&[(f64, u64)]) -> Result<Measured>| {
        let of = |need: &Result<Vec<_>>| match need {
            Ok(need) => measured(need),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        needs.iter().map(of).collect::<Vec<_>>()
    };
    let shares = each(|need| Measured::percent(need.iter().map(|(share, _)| *share).collect()));
    let memory = each(|need| Measured::most(need.iter().map(|(_, memory)| *memory)));
    let names = |what: &str| {
        let theirs = others
            .iter()
            .map(|other| format!("{what} at {} Hz of {}, demo", other.rates[0], other.label()));
        once(format!("{what} at {rate} Hz of the profiler, demo"))
            .chain(theirs)
            .collect::<Vec<_>>()
    };
    let mut figures = rows(names("CPU"), shares, "1 %")?;
    figures.extend(rows(names("peak memory"), memory, "60 MiB")?);
    Ok(figures)
}

/// One value of one recorder.
struct Measured {
    value: f64,
    /// The same as text, with its unit.
    shown: String,
    /// Between what it was, if it was measured more than once.
    spread: String,
}

impl Measured {
    /// The middle of some percentages.
    fn percent(mut values: Vec<f64>) -> Result<Self> {
        let (value, spread) = spread_of(&mut values, "%")?;
        Ok(Self {
            value,
            shown: format!("{value:.2} %"),
            spread,
        })
    }

    /// The largest of some sizes in bytes.
    fn most(sizes: impl Iterator<Item = u64>) -> Result<Self> {
        let most = sizes.max().context("nothing was measured")?;
        Ok(Self {
            value: most as f64,
            shown: format!("{} MiB", most >> 20),
            spread: String::new(),
        })
    }
}

/// The rows of what was measured of the profiler, which is first, and of the others. What one of these failed with is a
/// row too: it is not for us to mend, and says nothing of the rest.
fn rows(names: Vec<String>, measured: Vec<Result<Measured>>, promised: &str) -> Result<Vec<Figure>> {
    let mut all = names.into_iter().zip(measured);
    let (name, ours) = all.next().context("nothing was measured")?;
    let ours = ours?;
    let mut figures = vec![Figure::new(name + &ours.spread, ours.shown, promised)];
    figures.extend(all.map(|(name, theirs)| match theirs {
        Ok(theirs) => Figure::new(name + &theirs.spread, theirs.shown, "").beside(ours.value, theirs.value),
        Err(error) => Figure::new(format!("{name}: {error:#}"), "failed", ""),
    }));
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::{Measured, rows};
    use anyhow::anyhow;

    fn names() -> Vec<String> {
        ["profiler", "perf", "other"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_recorder_that_fails_leaves_the_others_their_rows() {
        let measured = vec![
            Measured::percent(vec![1.0, 3.0, 2.0]),
            Err(anyhow!("it ended")),
            Measured::percent(vec![8.0]),
        ];
        let figures = rows(names(), measured, "1 %").unwrap();
        let text: Vec<_> = figures
            .iter()
            .map(|figure| [&figure.what, &figure.found, &figure.promised, &figure.ratio].map(String::as_str))
            .collect();
        assert_eq!(
            text,
            [
                ["profiler (1.00 to 3.00 %)", "2.00 %", "1 %", ""],
                ["perf: it ended", "failed", "", ""],
                ["other (8.00 to 8.00 %)", "8.00 %", "", "0.25"],
            ]
        );
    }

    #[test]
    fn the_profiler_may_not_fail() {
        let measured = vec![Err(anyhow!("no")), Measured::most([1].into_iter())];
        assert!(rows(names(), measured, "").is_err());
    }
}
