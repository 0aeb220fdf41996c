//! Whether two sides can be compared fairly: hosts, kernels, losses, and mix-ups.

use super::{Pair, Policy, Run, Side};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

/// The largest difference in the share of whole stacks, or of lost samples, that is tolerated.
const MAX_QUALITY_GAP: f64 = 0.05;

/// What can differ between two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Model of the processor.
    Cpu,
    /// Number of processors.
    Cpus,
    /// Architecture.
    Machine,
    /// Release of the kernel.
    Kernel,
    /// Version of Go.
    Go,
    /// Build ids of libraries.
    Libraries,
    /// Name of the program.
    Program,
    /// Share of the stacks that are whole.
    Completeness,
    /// Share of the samples that were lost.
    Loss,
    /// A recording is there twice.
    Duplicate,
    /// When the sides were recorded.
    Order,
    /// What the files do not say.
    Unknown,
}

impl Fact {
    /// Every fact.
    pub const ALL: [Self; 12] = [
        Self::Cpu,
        Self::Cpus,
        Self::Machine,
        Self::Kernel,
        Self::Go,
        Self::Libraries,
        Self::Program,
        Self::Completeness,
        Self::Loss,
        Self::Duplicate,
        Self::Order,
        Self::Unknown,
    ];

    /// The word for it, as in a policy.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpus => "cpus",
            Self::Machine => "machine",
            Self::Kernel => "kernel",
            Self::Go => "go",
            Self::Libraries => "libraries",
            Self::Program => "program",
            Self::Completeness => "completeness",
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Order => "order",
            Self::Unknown => "unknown",
        }
    }
}

/// A difference between the sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// What differs.
    pub fact: Fact,
    /// It prevents a verdict.
    pub blocking: bool,
    /// A sentence for people, without a full stop.
    pub text: String,
}

/// Everything that differs, what prevents a verdict first.
pub(super) fn issues(pair: &Pair, policy: &Policy) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut found = |fact, blocking, text| {
        issues.push(Issue {
            fact,
            blocking: blocking && !policy.allow_differences.contains(&fact),
            text,
        });
    };
    for (fact, blocking, words) in [
        (Fact::Cpu, true, "the processor"),
        (Fact::Cpus, true, "the number of processors"),
        (Fact::Machine, true, "the architecture"),
        (Fact::Kernel, true, "the kernel"),
        (Fact::Go, false, "the version of Go"),
    ] {
        let [baseline, candidate] = Side::BOTH.map(|side| values(pair, side, fact.label()));
        if !baseline.is_empty() && !candidate.is_empty() && baseline != candidate {
            found(
                fact,
                blocking,
                format!(
                    "{words} differs: {} in the baseline, {} in the candidate",
                    join(&baseline),
                    join(&candidate)
                ),
            );
        } else if blocking && baseline.len() > 1 {
            found(
                fact,
                true,
                format!("{words} differs from run to run: {}", join(&baseline)),
            );
        }
    }
    let unknown = Side::BOTH.map(|side| values(pair, side, Fact::Cpu.label()).is_empty());
    if unknown != [false; 2] {
        found(
            Fact::Unknown,
            false,
            "some files do not say on which host they were recorded, so that could not be compared"
                .to_owned(),
        );
    }
    let [baseline, candidate] = Side::BOTH.map(|side| libraries(pair.runs(side)));
    let changed: Vec<&str> = baseline
        .iter()
        .filter(|(name, ids)| candidate.get(*name).is_some_and(|other| other != *ids))
        .map(|(name, _)| &**name)
        .collect();
    if !changed.is_empty() {
        found(
            Fact::Libraries,
            false,
            format!("other builds were recorded of {}", changed.join(", ")),
        );
    }
    quality(pair, &mut found);
    mix_ups(pair, &mut found);
    issues.sort_by_key(|issue| !issue.blocking);
    issues
}

fn quality(pair: &Pair, found: &mut impl FnMut(Fact, bool, String)) {
    let share = |side, part: fn(&Run) -> u64, whole: fn(&Run) -> u64| {
        let runs = pair.runs(side);
        runs.iter().map(part).sum::<u64>() as f64 / runs.iter().map(whole).sum::<u64>().max(1) as f64
    };
    let [before, after] = Side::BOTH.map(|side| share(side, |run| run.complete, |run| run.samples));
    if (before - after).abs() > MAX_QUALITY_GAP {
        found(
            Fact::Completeness,
            true,
            format!(
                "{:.1} % of the baseline's stacks are whole and {:.1} % of the candidate's: what is cut off is missing \
                 from callers on one side only",
                100.0 * before,
                100.0 * after
            ),
        );
    }
    let [before, after] = Side::BOTH.map(|side| share(side, |run| run.lost, |run| run.samples + run.lost));
    if (before - after).abs() > MAX_QUALITY_GAP {
        found(
            Fact::Loss,
            true,
            format!(
                "{:.1} % of the baseline's samples were lost and {:.1} % of the candidate's",
                100.0 * before,
                100.0 * after
            ),
        );
    }
}

fn mix_ups(pair: &Pair, found: &mut impl FnMut(Fact, bool, String)) {
    let mut first: BTreeMap<u64, &str> = BTreeMap::new();
    for run in Side::BOTH.iter().flat_map(|&side| pair.runs(side)) {
        if let Some(other) = first.insert(run.fingerprint, &run.name) {
            found(
                Fact::Duplicate,
                true,
                format!("{} and {other} are the same recording, not two runs", run.name),
            );
        }
    }
    let known = |side| {
        pair.runs(side)
            .iter()
            .map(|run| run.start)
            .filter(|&start| start > UNIX_EPOCH)
    };
    if let (Some(oldest), Some(newest)) = (known(Side::Baseline).min(), known(Side::Candidate).max())
        && oldest > newest
    {
        found(
            Fact::Order,
            false,
            "every run of the baseline is younger than the candidate: make sure that they are not swapped"
                .to_owned(),
        );
    }
    let [baseline, candidate] = Side::BOTH.map(|side| values(pair, side, "program"));
    if baseline.is_disjoint(&candidate) && !baseline.is_empty() && !candidate.is_empty() {
        found(
            Fact::Program,
            false,
            format!(
                "the program is called {} in the baseline and {} in the candidate",
                join(&baseline),
                join(&candidate)
            ),
        );
    }
}

fn values<'a>(pair: &'a Pair, side: Side, name: &str) -> BTreeSet<&'a str> {
    pair.runs(side)
        .iter()
        .filter_map(|run| run.facts.get(name).map(String::as_str))
        .collect()
}

fn join(values: &BTreeSet<&str>) -> String {
    let values: Vec<_> = values.iter().map(|value| crate::format::escape(value)).collect();
    values.join(", ")
}

/// Build ids of shared libraries: those of the program itself are expected to differ.
fn libraries(runs: &[Run]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, id) in runs.iter().flat_map(|run| &run.build_ids) {
        if name.contains(".so") {
            ids.entry(name).or_default().insert(id);
        }
    }
    ids
}
