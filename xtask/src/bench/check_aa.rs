//! How often `profiler check` fails a program that did not change: real recordings of one binary on this machine.

use super::Figure;
use anyhow::{Context, Result, ensure};
use profiler_tests::programs::{self, Form};
use profiler_tests::{profiler, usage};

const CHECKS: usize = 20;
const RUNS: &str = "8";

/// So that each run has some thousands of samples.
const FREQUENCY: &str = "4999";

pub(super) fn run() -> Result<Vec<Figure>> {
    let program = programs::go("batch", "local", Form::Exe, "")?;
    let path = program
        .path
        .to_str()
        .context("the program's path is not Unicode")?;
    let mut verdicts = [0; 4];
    for number in 1..=CHECKS {
        let used = usage::of(&mut profiler::command([
            "check",
            "--record",
            RUNS,
            "-F",
            FREQUENCY,
            "--against",
            path,
            "--",
            path,
        ])?)?;
        let code = used.status.code().context("the check was killed")?;
        ensure!(code != 1, "the check failed:\n{}{}", used.stdout, used.stderr);
        println!("{number:>3}: {}", used.stdout.lines().next().unwrap_or_default());
        if let Some(count) = usize::try_from(code).ok().and_then(|code| verdicts.get_mut(code)) {
            *count += 1;
        }
    }
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let what = |what: &str| format!("check, {CHECKS} × {RUNS} + {RUNS} runs of one binary: {what}");
    Ok(vec![
        Figure::new(what("regression"), verdicts[2].to_string(), "at most 1"),
        Figure::new(what("inconclusive"), verdicts[3].to_string(), ""),
        Figure::new(what("pass"), verdicts[0].to_string(), ""),
        Figure::new("load of the machine at the end", load, ""),
    ])
}
