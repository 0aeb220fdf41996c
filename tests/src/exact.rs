//! Records a program whose true chains are known, and demands that its stacks are true chains.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use crate::chain::Report;
use crate::folded::Folded;
use crate::profiler::{self, Recording};
use crate::programs::Program;
use crate::target::Target;
use anyhow::{Result, ensure};
use std::process::Command;

/// Share of samples in user mode that must be true chains, in percent.
pub const EXACT: f64 = 99.5;

/// What is demanded of a recording, besides true chains.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// How long it takes, in seconds.
    pub seconds: u32,
    /// The least samples in user mode: fewer prove little.
    pub samples: u64,
    /// Functions that are in some of the stacks.
    pub seen: &'a [&'a str],
}

/// Share of samples that each function which must be seen has at least, in percent.
const SEEN: f64 = 0.5;

/// Runs a program, records it, and judges what was recorded.
///
/// # Errors
/// The program was disturbed, or its stacks are not its true chains.
pub fn record(program: &Program, command: Command, demand: Demand<'_>) -> Result<Recording> {
    let target = Target::start(command)?;
    let recording = profiler::record(arguments(&target, demand.seconds))?;
    let finished = target.finish()?;
    ensure!(finished.status.success(), "the target failed: {finished:?}");
    judge(program, &recording, demand)?;
    Ok(recording)
}

/// The arguments of a recording of so many seconds.
pub fn arguments(target: &Target, seconds: u32) -> [String; 7] {
    let (pid, seconds) = (target.pid().to_string(), seconds.to_string());
    ["-p", &pid, "-F", "999", "-d", &seconds, "--kernel"].map(str::to_owned)
}

/// Judges a recording.
///
/// # Errors
/// Too few of the stacks are true chains, or they prove nothing.
pub fn judge(program: &Program, recording: &Recording, demand: Demand<'_>) -> Result<()> {
    let name = program.path.file_name().unwrap_or_default().display();
    let stacks = recording.stacks()?;
    let report = program.checker()?.report(stacks);
    eprintln!("{name}: {report}");
    enough(&report, stacks, demand)?;
    let summary = recording.summary()?;
    let incomplete: u64 = stacks
        .stacks
        .iter()
        .filter(|s| s.is_incomplete())
        .map(|s| s.count)
        .sum();
    ensure!(
        summary.kept()? == stacks.total() && summary.complete()? + incomplete == summary.kept()?,
        "{name}: the summary does not fit the {} stacks, {incomplete} of them incomplete: {summary:?}",
        stacks.total()
    );
    ensure!(
        report.user.percent() >= EXACT,
        "{name}: less than {EXACT} % of the stacks are true chains\n{report}"
    );
    Ok(())
}

/// Stacks that all end early, or at the same function, would be exact and worth nothing.
fn enough(report: &Report, stacks: &Folded, demand: Demand<'_>) -> Result<()> {
    ensure!(
        report.user.total() >= demand.samples,
        "only {} samples in user mode",
        report.user.total()
    );
    for function in demand.seen {
        let share = stacks.with_frame(function) as f64 * 100.0 / stacks.total() as f64;
        ensure!(share >= SEEN, "{function} is in {share:.2} % of the stacks");
    }
    Ok(())
}
