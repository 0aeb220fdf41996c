//! Where the cost went: a rise that is matched by a fall nearby is no regression, and of a chain of callers whose totals rose
//! only the cause is blamed.

use super::judge::{Finding, Measure, Status};
use super::measure::Row;
use super::stats::Estimate;
use super::{FunctionId, Pair, Policy};
use std::collections::{HashMap, HashSet};

/// A fall that is less probable than this by chance can explain a rise.
const IMPROBABLE: f64 = 0.01;

/// The part of a rise that a fall, or a callee's rise, has to have to explain it.
const EXPLAINS: f64 = 0.5;

/// A function is new, or gone, if one side has less than this part of the other's share.
const NEW: f64 = 0.1;

/// Finds the explanations, and changes the status of what is explained.
pub(super) fn explain(pair: &Pair, policy: &Policy, rows: &[Row], shift: f64, findings: &mut [Finding]) {
    let calls = Calls::of(pair);
    for measure in [Measure::Own, Measure::Total] {
        matched(policy, rows, shift, findings, measure, &calls);
    }
    callers(findings, rows, shift, &calls);
}

/// The call graph of both sides.
struct Calls {
    callees: HashMap<FunctionId, Vec<FunctionId>>,
    callers: HashMap<FunctionId, HashSet<FunctionId>>,
}

impl Calls {
    fn of(pair: &Pair) -> Self {
        let mut calls = Self {
            callees: HashMap::new(),
            callers: HashMap::new(),
        };
        for &(caller, callee) in pair.calls() {
            calls.callees.entry(caller).or_default().push(callee);
            calls.callers.entry(callee).or_default().insert(caller);
        }
        calls
    }

    fn adjacent(&self, a: FunctionId, b: FunctionId) -> bool {
        let calls = |caller, callee| {
            self.callers
                .get(callee)
                .is_some_and(|callers| callers.contains(caller))
        };
        calls(&a, &b) || calls(&b, &a)
    }

    fn share_a_caller(&self, a: FunctionId, b: FunctionId) -> bool {
        match (self.callers.get(&a), self.callers.get(&b)) {
            (Some(a), Some(b)) => !a.is_disjoint(b),
            // Both are outermost.
            (None, None) => true,
            _ => false,
        }
    }

    /// Everything that `from` calls, and what that calls.
    fn below(&self, from: FunctionId) -> HashSet<FunctionId> {
        let mut seen = HashSet::new();
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            for &callee in self.callees.get(&at).into_iter().flatten() {
                if seen.insert(callee) {
                    next.push(callee);
                }
            }
        }
        seen
    }
}

/// The rise of a mean share in points, after the common shift.
fn rise(row: &Row, shift: f64) -> f64 {
    row.mean[1] * (-shift).exp() - row.mean[0]
}

/// Groups of rises and falls that belong together: if a group as a whole did not rise, its cost has moved.
fn matched(
    policy: &Policy,
    rows: &[Row],
    shift: f64,
    findings: &mut [Finding],
    measure: Measure,
    calls: &Calls,
) {
    let of_measure = |at: &usize| rows[*at].measure == measure;
    let risen: Vec<usize> = (0..rows.len())
        .filter(of_measure)
        .filter(|&at| matches!(findings[at].evidence.status, Status::Regression | Status::Suspect))
        .collect();
    let fallen: Vec<usize> = (0..rows.len())
        .filter(of_measure)
        .filter(|&at| {
            let estimate = rows[at].estimate().map(|estimate| estimate.less(shift));
            estimate
                .unwrap_or_else(|| rows[at].sampling_only().less(shift))
                .p_fall()
                <= IMPROBABLE
        })
        .collect();
    let mut groups = Groups::new(rows.len());
    for &up in &risen {
        for &down in &fallen {
            let enough = -rise(&rows[down], shift) >= EXPLAINS * rise(&rows[up], shift)
                // One of several functions that another was split into.
                || gone(&rows[down]);
            if enough && related(&rows[up], &rows[down], measure, calls) {
                groups.join(up, down);
            }
        }
    }
    for &up in &risen {
        let members = |of: &[usize]| -> Vec<usize> {
            let same = |&at: &usize| groups.root(at) == groups.root(up);
            of.iter().copied().filter(same).collect()
        };
        let (up_members, down_members) = (members(&risen), members(&fallen));
        if !down_members.is_empty() && !rose(policy, rows, shift, &up_members, &down_members) {
            let finding = &mut findings[up];
            finding.evidence.status = Status::Moved;
            finding.others = down_members.iter().map(|&at| rows[at].function).collect();
        }
    }
}

fn gone(row: &Row) -> bool {
    row.mean[1] < NEW * row.mean[0]
}

fn is_new(row: &Row) -> bool {
    row.mean[0] < NEW * row.mean[1]
}

fn related(up: &Row, down: &Row, measure: Measure, calls: &Calls) -> bool {
    let (a, b) = (up.function, down.function);
    match measure {
        // Callers and callees; and with the same caller, what was renamed, split or joined.
        Measure::Own => calls.adjacent(a, b) || (is_new(up) || gone(down)) && calls.share_a_caller(a, b),
        // A caller's total holds its callee's: only what stands beside can have given it away.
        Measure::Total => !calls.adjacent(a, b) && calls.share_a_caller(a, b),
    }
}

/// Whether a group as a whole rose by more than the smallest change that counts.
fn rose(policy: &Policy, rows: &[Row], shift: f64, up: &[usize], down: &[usize]) -> bool {
    let sums = |side: usize, factor: f64| -> Vec<f64> {
        (0..rows[up[0]].shares[side].len())
            .map(|run| {
                up.iter()
                    .chain(down)
                    .map(|&at| rows[at].shares[side][run] * factor)
                    .sum()
            })
            .collect()
    };
    let (before, after) = (sums(0, 1.0), sums(1, (-shift).exp()));
    // What sampling alone varies a share by: that of its logarithm, times the share squared.
    let floor = |side: usize| -> f64 {
        up.iter()
            .chain(down)
            .map(|&at| rows[at].floors[side] * rows[at].mean[side].powi(2))
            .sum()
    };
    let floors = [floor(0), floor(1)];
    let known = || {
        Estimate::known(
            super::stats::mean(&after) - super::stats::mean(&before),
            floors[0] / before.len() as f64 + floors[1] / after.len() as f64,
        )
    };
    let estimate = Estimate::welch(&before, &after, floors).unwrap_or_else(known);
    let risen: f64 = up.iter().map(|&at| rows[at].mean[0]).sum();
    let fallen: f64 = down.iter().map(|&at| -rise(&rows[at], shift)).sum();
    let (low, _) = estimate.bounds(policy.confidence());
    low > policy.min_change * risen.max(fallen)
}

/// Totals that rose because of something below.
fn callers(findings: &mut [Finding], rows: &[Row], shift: f64, calls: &Calls) {
    let up = |finding: &Finding| {
        matches!(
            finding.evidence.status,
            Status::Regression | Status::Suspect | Status::Moved
        )
    };
    let causes: Vec<usize> = (0..rows.len()).filter(|&at| up(&findings[at])).collect();
    for at in 0..rows.len() {
        if rows[at].measure != Measure::Total || !up(&findings[at]) {
            continue;
        }
        let below = calls.below(rows[at].function);
        let explains = |&&cause: &&usize| {
            let own = rows[cause].measure == Measure::Own;
            let (function, other) = (rows[at].function, rows[cause].function);
            // Of two that call each other, neither explains the other's total.
            let is_below = below.contains(&other) && !calls.below(other).contains(&function);
            (is_below || own && function == other)
                && rise(&rows[cause], shift) >= EXPLAINS * rise(&rows[at], shift)
        };
        let others: Vec<FunctionId> = causes
            .iter()
            .filter(explains)
            .filter(|&&cause| cause != at)
            .map(|&cause| rows[cause].function)
            .collect();
        if !others.is_empty() {
            findings[at].evidence.status = Status::Caller;
            findings[at].others = others;
        }
    }
}

/// Disjoint sets of rows.
struct Groups {
    parents: Vec<usize>,
}

impl Groups {
    fn new(n: usize) -> Self {
        Self {
            parents: (0..n).collect(),
        }
    }

    fn root(&self, mut at: usize) -> usize {
        while self.parents[at] != at {
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a] = b;
    }
}
