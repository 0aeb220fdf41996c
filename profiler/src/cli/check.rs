//! `profiler check`.

use super::args::{self, ReportTo};
use super::{outputs, runs, sides};
use anyhow::{Context, Result};
use profiler::compare::report::{Format, Report};
use profiler::compare::{Pair, Policy, judge};
use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

/// Read if it is there and no other file is named.
const CONFIG: &str = "profiler.toml";

/// Runs the command.
pub fn run(args: &args::Check) -> Result<ExitCode> {
    let policy = policy(args)?;
    for report in &args.formats {
        if let Some(path) = &report.path {
            outputs::check(path)?;
        }
    }
    let recorded = match args.record {
        Some(n) => {
            // Not after minutes of recording.
            super::preflight::capabilities()?;
            Some(runs::record(
                n,
                args.frequency,
                &args.command,
                args.against.as_deref(),
            )?)
        }
        None => None,
    };
    let (mut baseline, mut candidate) = (&args.baseline, &args.candidate);
    if let Some(recorded) = &recorded {
        candidate = &recorded.candidate;
        if args.against.is_some() {
            baseline = &recorded.baseline;
        }
    }
    let mut pair = Pair::default();
    sides::load(&mut pair, baseline, candidate)?;
    finish(args, &policy, &pair)
}

/// Judges, writes the reports, and says how it went.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of the command"
)]
fn finish(args: &args::Check, policy: &Policy, pair: &Pair) -> Result<ExitCode> {
    let judgement = judge(pair, policy);
    let root = std::env::var("GITHUB_WORKSPACE")
        .or_else(|_| std::env::current_dir().map(|path| path.to_string_lossy().into_owned()))
        .unwrap_or_default();
    let report = Report {
        pair,
        policy,
        judgement: &judgement,
        root: root.trim_end_matches('/'),
    };
    let default = [ReportTo {
        format: Format::Text,
        path: None,
    }];
    let formats = if args.formats.is_empty() {
        &default[..]
    } else {
        &args.formats
    };
    for ReportTo { format, path } in formats {
        let text = report.write(*format);
        match path {
            Some(path) => outputs::write(path, text.as_bytes())?,
            None => print!("{text}"),
        }
    }
    if formats.iter().all(|report| report.path.is_some()) {
        // Otherwise nobody would know why the job failed.
        eprintln!("{}: {}", judgement.verdict.label(), judgement.reasons.join("; "));
    }
    Ok(ExitCode::from(judgement.exit_code(policy)))
}

/// The file under version control, and what was typed over it.
fn policy(args: &args::Check) -> Result<Policy> {
    let default = fs::exists(CONFIG).unwrap_or(false).then(|| CONFIG.into());
    let mut policy = match args.config.as_ref().or(default.as_ref()) {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Policy::from_toml(&text).with_context(|| format!("cannot use {}", path.display()))?
        }
        None => Policy::default(),
    };
    let set = |value: Option<f64>, to: &mut f64| {
        if let Some(value) = value {
            *to = value;
        }
    };
    set(args.min_change, &mut policy.min_change);
    set(args.min_share, &mut policy.min_share);
    set(args.alpha, &mut policy.alpha);
    if !args.fail_on.is_empty() {
        policy.fail_on = args
            .fail_on
            .iter()
            .map(|fail_on| fail_on.0)
            .collect::<BTreeSet<_>>();
    }
    if let Some(cost) = &args.program_cost {
        policy.program = cost.0;
    }
    policy.ignore.extend(args.ignore.iter().cloned());
    policy
        .allow_differences
        .extend(args.allow_differences.iter().map(|fact| fact.0));
    policy.check()?;
    Ok(policy)
}
