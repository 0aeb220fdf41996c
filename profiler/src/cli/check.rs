//! `profiler check`.

use super::args::{self, ReportTo};
use super::baselines::{self, Baselines};
use super::{outputs, runs, sides};
use anyhow::{Context, Result};
use profiler::compare::report::{Format, Report};
use profiler::compare::{Judgement, MIN_RUNS, Pair, Policy, Side, judge};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// Read if it is there and no other file is named.
const CONFIG: &str = "profiler.toml";

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Runs the command.
pub fn run(args: &args::Check) -> Result<ExitCode> {
    let policy = policy(args)?;
    for report in &args.formats {
        if let Some(path) = &report.path {
            outputs::check(path)?;
        }
    }
    if let Some(directory) = directory(args) {
        baselines::check(directory)?;
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
    let Some(directory) = directory(args) else {
        sides::load(&mut pair, baseline, candidate)?;
        pair.check()?;
        let judgement = judge(&pair, &policy);
        report(args, &policy, &pair, &judgement)?;
        return Ok(ExitCode::from(judgement.exit_code(&policy)));
    };
    sides::load(&mut pair, &[], candidate)?;
    let now = SystemTime::now();
    let baselines = Baselines::of_host(
        directory,
        &pair.runs(Side::Candidate)[0],
        &policy.allow_differences,
        now,
        Duration::from_secs(args.max_age.saturating_mul(SECONDS_PER_DAY)),
    );
    let kept = baselines.files()?;
    sides::load(&mut pair, &kept, &[])?;
    if !kept.is_empty() {
        pair.check()?;
    }
    let keep = |afresh| {
        let runs = pair.runs(Side::Candidate);
        baselines.add(candidate, runs, now, args.keep as usize, afresh)
    };
    if args.update.is_some() && kept.len() < MIN_RUNS {
        keep(false)?;
        say(&format!(
            "no verdict: {} had {}; those of the candidate are kept there from now on",
            baselines.folder().display(),
            runs_of_this_host(kept.len()),
        ));
        return Ok(ExitCode::SUCCESS);
    }
    if kept.is_empty() {
        say(&format!(
            "{} has {}",
            baselines.folder().display(),
            runs_of_this_host(0)
        ));
    }
    let judgement = judge(&pair, &policy);
    report(args, &policy, &pair, &judgement)?;
    let code = judgement.exit_code(&policy);
    if args.update.is_some() {
        let folder = baselines.folder().display();
        if code == 0 {
            keep(judgement.changed())?;
            say(&match judgement.changed() {
                true => format!("the cost has changed: {folder} now has the candidate's runs only"),
                false => format!("the candidate's runs are kept in {folder}"),
            });
        } else {
            say(&format!("the candidate's runs are not kept in {folder}"));
        }
    }
    Ok(ExitCode::from(code))
}

/// Where runs are kept, if they are.
fn directory(args: &args::Check) -> Option<&Path> {
    args.update.as_deref().or(args.baseline_dir.as_deref())
}

fn runs_of_this_host(runs: usize) -> String {
    match runs {
        0 => "no run of a host like this one".to_owned(),
        1 => "only one run of a host like this one".to_owned(),
        n => format!("only {n} runs of a host like this one"),
    }
}

/// Beside the report: it may be in a form for programs.
#[expect(clippy::print_stderr, reason = "what became of the runs")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// Writes the reports.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of the command"
)]
fn report(args: &args::Check, policy: &Policy, pair: &Pair, judgement: &Judgement) -> Result<()> {
    let root = std::env::var("GITHUB_WORKSPACE")
        .or_else(|_| std::env::current_dir().map(|path| path.to_string_lossy().into_owned()))
        .unwrap_or_default();
    let report = Report {
        pair,
        policy,
        judgement,
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
    Ok(())
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
