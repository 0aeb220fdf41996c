//! The verdict.

use super::measure::{self, Row};
use super::policy::{FailOn, Policy, ProgramCost};
use super::stats::{self, Estimate};
use super::{FunctionId, Issue, Pair, Side, comparable, moved};

/// With fewer runs on a side nothing is decided.
pub const MIN_RUNS: usize = 3;

/// A change that a useful check can show, in multiples of the smallest change that is a regression.
const USEFUL: f64 = 5.0;

/// The part of the tested CPU time in which such a change has to be visible.
const MIN_COVERAGE: f64 = 0.5;

/// What the check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The code did not get slower, as far as was asked for.
    Pass,
    /// It did.
    Regression,
    /// These data cannot show it.
    Inconclusive,
}

impl Verdict {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Regression => "regression",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Which samples of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Those whose innermost frame it is: "self".
    Own,
    /// All that it is in.
    Total,
}

impl Measure {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Own => "self",
            Self::Total => "total",
        }
    }
}

/// What was found about one function, or about the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It got slower, surely and by more than the smallest change that matters.
    Regression,
    /// It seems to have got slower.
    Suspect,
    /// Its cost rose, and that of others that call it, are called by it or are gone fell by as much.
    Moved,
    /// Its total rose because of a function that it calls.
    Caller,
    /// It got faster.
    Improved,
    /// Nothing was found.
    Unchanged,
}

impl Status {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Suspect => "suspect",
            Self::Moved => "moved",
            Self::Caller => "caller",
            Self::Improved => "improved",
            Self::Unchanged => "unchanged",
        }
    }
}

/// A change and how sure it is. Changes are fractions: 0.1 is 10 % more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// The change.
    pub change: f64,
    /// It is above this, with the confidence of the [`Judgement`]; `None` if there are not two runs on each side.
    pub low: Option<f64>,
    /// It is below this, as sure.
    pub high: Option<f64>,
    /// The same bounds if nothing but sampling made runs differ. Never decisive.
    pub sampling_only: (f64, f64),
    /// Welch's test: how often a rise like this is seen where there is none.
    pub p: Option<f64>,
    /// The same after correction for the number of tests.
    pub p_adjusted: Option<f64>,
    /// Exact permutation test; for rises that the other test finds improbable.
    pub p_permutation: Option<f64>,
    /// The smallest change that would have been found four times out of five.
    pub detectable: Option<f64>,
    /// The smallest change that counts.
    pub min_change: f64,
    /// What follows.
    pub status: Status,
}

/// What was found about one function.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The function.
    pub function: FunctionId,
    /// Which of its samples.
    pub measure: Measure,
    /// Mean share of the samples, by side.
    pub share: [f64; 2],
    /// Mean CPU seconds of a run, by side, if the rate is known.
    pub seconds: Option<[f64; 2]>,
    /// The change, relative to what all functions have in common.
    pub evidence: Evidence,
    /// Other functions that explain it: where a moved cost came from, or what made a caller's total rise.
    pub others: Vec<FunctionId>,
}

/// What was found about the whole program.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Mean cost of a run, by side: CPU seconds, or samples if the rate is unknown; per second of the recording if the
    /// policy says so.
    pub cost: [f64; 2],
    /// The unit of that.
    pub unit: &'static str,
    /// The change.
    pub evidence: Evidence,
}

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in sentences without a full stop; the decisive one first.
    pub reasons: Vec<String>,
    /// The whole program; `None` if the policy ignores it or runs have no duration.
    pub program: Option<Program>,
    /// Every function that was tested, what matters most first.
    pub findings: Vec<Finding>,
    /// How the sides differ in more than code.
    pub issues: Vec<Issue>,
    /// How many runs, by side.
    pub runs: [usize; 2],
    /// Of the CPU time of tested functions, the part in functions where a change of `useful` would have been found.
    pub coverage: f64,
    /// The change that `coverage` is about.
    pub useful: f64,
    /// Of the bounds, each.
    pub confidence: f64,
}

impl Judgement {
    /// Whether the cost of anything is surely another than it was, up or down: then the candidate's runs and the baseline's are
    /// not runs of the same.
    pub fn changed(&self) -> bool {
        let statuses = self.findings.iter().map(|finding| finding.evidence.status);
        statuses
            .chain(self.program.iter().map(|program| program.evidence.status))
            .any(|status| !matches!(status, Status::Unchanged | Status::Suspect))
    }

    /// Whether the check fails under this policy, and the exit code that says so: 0, 2 or 3.
    pub fn exit_code(&self, policy: &Policy) -> u8 {
        let fails = |what| policy.fail_on.contains(&what);
        let suspect = self.findings.iter().map(|finding| finding.evidence.status);
        let suspect = suspect
            .chain(self.program.iter().map(|program| program.evidence.status))
            .any(|status| status == Status::Suspect);
        match self.verdict {
            _ if fails(FailOn::Never) => 0,
            Verdict::Regression => 2,
            _ if suspect && fails(FailOn::Suspect) => 2,
            Verdict::Inconclusive if fails(FailOn::Inconclusive) => 2,
            Verdict::Inconclusive => 3,
            Verdict::Pass => 0,
        }
    }
}

/// Decides. The whole program and the family of all its functions are tested at the policy's α each; since the change also
/// has to be larger than the smallest that counts, unchanged code fails far less often than that.
pub fn judge(pair: &Pair, policy: &Policy) -> Judgement {
    let issues = comparable::issues(pair, policy);
    let runs = Side::BOTH.map(|side| pair.runs(side).len());
    let both = runs.iter().all(|&runs| runs > 0);
    let program = if both { program(pair, policy) } else { None };
    let rows = if both {
        measure::rows(pair, policy)
    } else {
        Vec::new()
    };
    let shift = measure::common_shift(
        &rows,
        program.as_ref().map(|program| program.evidence.change.ln_1p()),
    );
    let mut findings = functions(pair, policy, &rows, shift);
    moved::explain(pair, policy, &rows, shift, &mut findings);
    let useful = USEFUL * policy.min_change.max(0.01);
    let mut judgement = Judgement {
        verdict: Verdict::Pass,
        reasons: Vec::new(),
        coverage: coverage(&findings, useful),
        program,
        findings,
        issues,
        runs,
        useful,
        confidence: policy.confidence(),
    };
    if runs.iter().any(|&runs| runs < MIN_RUNS) || judgement.issues.iter().any(|issue| issue.blocking) {
        judgement.withhold();
    }
    judgement.decide(pair);
    judgement.findings.sort_by(|a, b| {
        let weight = |finding: &Finding| (finding.share[1] - finding.share[0]).abs();
        (a.evidence.status.cmp(&b.evidence.status)).then(weight(b).total_cmp(&weight(a)))
    });
    judgement
}

impl Judgement {
    /// What was seen in too few runs, or on sides that cannot be compared, is a suspicion at most.
    fn withhold(&mut self) {
        let findings = self.findings.iter_mut().map(|finding| &mut finding.evidence);
        let program = self.program.iter_mut().map(|program| &mut program.evidence);
        for evidence in findings.chain(program) {
            if evidence.status == Status::Regression {
                evidence.status = Status::Suspect;
            }
        }
    }

    fn decide(&mut self, pair: &Pair) {
        let blocking: Vec<String> = self
            .issues
            .iter()
            .filter(|issue| issue.blocking)
            .map(|issue| issue.text.clone())
            .collect();
        let mut slower = Vec::new();
        let program = self.program.as_ref().map(|program| program.evidence);
        if let Some(evidence) = program.filter(|evidence| evidence.status == Status::Regression) {
            slower.push(format!(
                "the whole program takes {} CPU time",
                more(evidence.change)
            ));
        }
        for finding in &self.findings {
            if finding.evidence.status == Status::Regression {
                slower.push(format!(
                    "{} takes {} CPU time ({})",
                    pair.function(finding.function).name,
                    more(finding.evidence.change),
                    finding.measure.label()
                ));
            }
        }
        let mut doubts = blocking;
        for side in Side::BOTH {
            match self.runs[side as usize] {
                n if n >= MIN_RUNS => {}
                0 => doubts.push(format!("the {} has no runs: there is nothing to compare", side.label())),
                n => doubts.push(format!(
                    "the {} has {n} {}, and runs of unchanged code differ: at least {MIN_RUNS} are needed, 8 are good",
                    side.label(),
                    if n == 1 { "run" } else { "runs" }
                )),
            }
        }
        if doubts.is_empty() && slower.is_empty() {
            doubts.extend(self.blind());
        }
        (self.verdict, self.reasons) = match (doubts.is_empty(), slower.is_empty()) {
            (false, _) => (Verdict::Inconclusive, doubts),
            (true, false) => (Verdict::Regression, slower),
            (true, true) => (
                Verdict::Pass,
                vec!["nothing got slower by what these data could have shown".to_owned()],
            ),
        };
    }

    /// What these data could not have shown.
    fn blind(&self) -> Option<String> {
        let too_large = |evidence: &Evidence| evidence.detectable.is_none_or(|change| change > self.useful);
        if let Some(program) = self
            .program
            .as_ref()
            .filter(|program| too_large(&program.evidence))
        {
            return Some(format!(
                "the CPU time of the whole program varies so much from run to run that only a change of {} would have \
                 been noticed: record more runs, or longer ones",
                program.evidence.detectable.map_or("any size".to_owned(), signed)
            ));
        }
        if self.findings.is_empty() {
            return Some(
                "no function has enough samples to be tested: record longer, or lower --min-share".to_owned(),
            );
        }
        (self.coverage < MIN_COVERAGE).then(|| {
            format!(
                "a change of {} would have been noticed in only {:.0} % of the tested CPU time: record more runs, or \
                 longer ones",
                signed(self.useful),
                100.0 * self.coverage
            )
        })
    }
}

/// `+9.5 %`.
pub(super) fn signed(change: f64) -> String {
    if change >= 9.995 {
        return format!("{:.0} times", change + 1.0);
    }
    format!("{:+.1} %", 100.0 * change)
}

fn more(change: f64) -> String {
    if change >= 9.995 {
        format!("{:.0} times the", change + 1.0)
    } else {
        format!("{:.1} % more", 100.0 * change)
    }
}

fn program(pair: &Pair, policy: &Policy) -> Option<Program> {
    let per_second = match policy.program {
        ProgramCost::PerRun => false,
        ProgramCost::PerSecond => true,
        ProgramCost::Ignore => return None,
    };
    let mut costs: [Vec<f64>; 2] = Default::default();
    let mut floors = [0.0; 2];
    let mut unit = "CPU s per run";
    for side in Side::BOTH {
        let runs = pair.runs(side);
        for run in runs {
            let mut cost = run.cpu_seconds().unwrap_or_else(|| {
                unit = "samples per run";
                run.samples as f64
            });
            if per_second {
                if run.duration.is_zero() {
                    return None;
                }
                cost /= run.duration.as_secs_f64();
                unit = "CPUs";
            }
            costs[side as usize].push(cost);
        }
        // What a count of independent events varies by.
        let samples: u64 = runs.iter().map(|run| run.samples).sum();
        floors[side as usize] = runs.len() as f64 / samples.max(1) as f64;
    }
    let logs = costs
        .each_ref()
        .map(|costs| costs.iter().map(|cost| cost.ln()).collect::<Vec<f64>>());
    let known = |side: usize| floors[side] / logs[side].len().max(1) as f64;
    let sampling = Estimate::known(stats::mean(&logs[1]) - stats::mean(&logs[0]), known(0) + known(1));
    let estimate = Estimate::welch(&logs[0], &logs[1], floors);
    let p = estimate.map(Estimate::p_rise);
    let p_fall = estimate.map(Estimate::p_fall);
    Some(Program {
        cost: costs.each_ref().map(|costs| stats::mean(costs)),
        unit,
        evidence: evidence(&Tested {
            estimate,
            sampling,
            logs: &logs,
            adjusted: p,
            adjusted_fall: p_fall,
            family: 1,
            min_change: policy.min_change,
            policy,
        }),
    })
}

fn functions(pair: &Pair, policy: &Policy, rows: &[Row], shift: f64) -> Vec<Finding> {
    let estimates: Vec<Option<Estimate>> = rows
        .iter()
        .map(|row| row.estimate().map(|estimate| estimate.less(shift)))
        .collect();
    let adjust = |p: fn(Estimate) -> f64| {
        let p_values: Vec<f64> = estimates.iter().map(|estimate| estimate.map_or(1.0, p)).collect();
        stats::benjamini_hochberg(&p_values)
    };
    let (adjusted, adjusted_fall) = (adjust(Estimate::p_rise), adjust(Estimate::p_fall));
    rows.iter()
        .enumerate()
        .map(|(at, row)| Finding {
            function: row.function,
            measure: row.measure,
            share: row.mean,
            seconds: seconds(pair, row),
            evidence: evidence(&Tested {
                estimate: estimates[at],
                sampling: row.sampling_only().less(shift),
                logs: &[
                    row.logs[0].clone(),
                    row.logs[1].iter().map(|log| log - shift).collect(),
                ],
                adjusted: estimates[at].map(|_| adjusted[at]),
                adjusted_fall: estimates[at].map(|_| adjusted_fall[at]),
                family: rows.len(),
                min_change: policy.min_change_of(&pair.function(row.function).name),
                policy,
            }),
            others: Vec::new(),
        })
        .collect()
}

/// One test and all that its status depends on.
struct Tested<'a> {
    estimate: Option<Estimate>,
    sampling: Estimate,
    logs: &'a [Vec<f64>; 2],
    adjusted: Option<f64>,
    adjusted_fall: Option<f64>,
    /// How many tests are made together.
    family: usize,
    min_change: f64,
    policy: &'a Policy,
}

fn evidence(tested: &Tested<'_>) -> Evidence {
    let alpha = tested.policy.alpha;
    let confidence = tested.policy.confidence();
    let least = tested.min_change.ln_1p();
    let bounds = tested.estimate.map(|estimate| estimate.bounds(confidence));
    let sampling_bounds = tested.sampling.bounds(confidence);
    let is_small = |p: Option<f64>, limit: f64| p.is_some_and(|p| p <= limit);
    let risen = is_small(tested.adjusted, alpha);
    let fallen = is_small(tested.adjusted_fall, alpha);
    let p_permutation = risen
        .then(|| stats::permutation(&tested.logs[0], &tested.logs[1]))
        .flatten();
    // With three runs a side the smallest possible is 1 in 20, which proves nothing against it.
    let smallest = stats::choices(tested.logs[0].len() + tested.logs[1].len(), tested.logs[1].len());
    let contradicted = p_permutation.is_some_and(|p| {
        p > tested.policy.alpha && smallest.is_some_and(|ways| 1.0 / ways as f64 <= tested.policy.alpha)
    });
    let alone = tested.logs.iter().any(|logs| logs.len() < MIN_RUNS);
    let status = if risen && !contradicted && bounds.is_some_and(|(low, _)| low > least) {
        Status::Regression
    } else if risen
        || (alone && tested.sampling.p_rise() * tested.family as f64 <= alpha && sampling_bounds.0 > least)
    {
        Status::Suspect
    } else if fallen {
        Status::Improved
    } else {
        Status::Unchanged
    };
    let estimate = tested.estimate.unwrap_or(tested.sampling);
    Evidence {
        change: estimate.difference.exp_m1(),
        low: bounds.map(|(low, _)| low.exp_m1()),
        high: bounds.map(|(_, high)| high.exp_m1()),
        sampling_only: (sampling_bounds.0.exp_m1(), sampling_bounds.1.exp_m1()),
        p: tested.estimate.map(Estimate::p_rise),
        p_adjusted: tested.adjusted,
        p_permutation,
        detectable: tested.estimate.map(|estimate| {
            estimate
                .detectable(alpha / tested.family as f64, confidence, least)
                .exp_m1()
        }),
        min_change: tested.min_change,
        status,
    }
}

fn seconds(pair: &Pair, row: &Row) -> Option<[f64; 2]> {
    let mut seconds = [0.0; 2];
    for side in Side::BOTH {
        let runs = pair.runs(side);
        for (run, share) in runs.iter().zip(&row.shares[side as usize]) {
            seconds[side as usize] += share * run.cpu_seconds()? / runs.len() as f64;
        }
    }
    Some(seconds)
}

fn coverage(findings: &[Finding], useful: f64) -> f64 {
    let (mut tested, mut seen) = (0.0, 0.0);
    for finding in findings.iter().filter(|finding| finding.measure == Measure::Own) {
        let share = finding.share[0].max(finding.share[1]);
        tested += share;
        let threshold = useful.max(USEFUL * finding.evidence.min_change);
        if finding
            .evidence
            .detectable
            .is_some_and(|change| change <= threshold)
        {
            seen += share;
        }
    }
    if tested > 0.0 { seen / tested } else { 0.0 }
}
