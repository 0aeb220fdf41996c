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

/// Fewer samples than this in a second prove little.
const SAMPLES: u64 = 100;

/// Share of samples that each function which must be seen has at least, in percent.
const SEEN: f64 = 0.5;

/// Runs a program, records it for so many seconds, and judges what was recorded.
///
/// # Errors
/// The program was disturbed, or its stacks are not its true chains.
pub fn record(program: &Program, command: Command, seconds: u32, seen: &[&str]) -> Result<Recording> {
    let target = Target::start(command)?;
    let recording = profiler::record(arguments(&target, seconds))?;
    let finished = target.finish()?;
    ensure!(finished.status.success(), "the target failed: {finished:?}");
    judge(program, &recording, seconds, seen)?;
    Ok(recording)
}

/// The arguments of such a recording.
pub fn arguments(target: &Target, seconds: u32) -> [String; 7] {
    let (pid, seconds) = (target.pid().to_string(), seconds.to_string());
    ["-p", &pid, "-F", "999", "-d", &seconds, "--kernel"].map(str::to_owned)
}

/// Judges a recording of so many seconds. Each function in `seen` must be in some of the stacks.
///
/// # Errors
/// Too few of the stacks are true chains, or they prove nothing.
pub fn judge(program: &Program, recording: &Recording, seconds: u32, seen: &[&str]) -> Result<()> {
    let name = program.path.file_name().unwrap_or_default().display();
    let stacks = recording.stacks()?;
    let report = program.checker()?.report(stacks);
    eprintln!("{name}: {report}");
    enough(&report, stacks, SAMPLES * u64::from(seconds), seen)?;
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
fn enough(report: &Report, stacks: &Folded, samples: u64, seen: &[&str]) -> Result<()> {
    ensure!(
        report.user.total() >= samples,
        "only {} samples in user mode",
        report.user.total()
    );
    for function in seen {
        let share = stacks.with_frame(function) as f64 * 100.0 / stacks.total() as f64;
        ensure!(share >= SEEN, "{function} is in {share:.2} % of the stacks");
    }
    Ok(())
}
