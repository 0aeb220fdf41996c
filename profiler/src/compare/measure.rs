//! From counts to the numbers that are tested: logarithms of shares, and what all of them have in common.

use super::stats::{self, Estimate};
use super::{FunctionId, Measure, Pair, Policy, Run, Side};

/// A function is tested if it has so many samples in a run of one side at least, on average: with fewer, the
/// logarithm of a count is far from normal.
const MIN_SAMPLES: f64 = 20.0;

/// A function whose total is larger than that is the whole program, which is tested on its own.
const MAX_TOTAL_SHARE: f64 = 0.9;

/// How much larger a total has to be than the function's own samples to be worth a test.
const TOTAL_OVER_OWN: f64 = 1.1;

/// With fewer functions on both sides it cannot be told what they have in common.
const MIN_FUNCTIONS: usize = 4;

/// One function in all runs.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) function: FunctionId,
    pub(super) measure: Measure,
    /// Share of the samples in each run, by side.
    pub(super) shares: [Vec<f64>; 2],
    /// Its logarithm; finite also where there is no sample.
    pub(super) logs: [Vec<f64>; 2],
    /// Variance that sampling alone gives the logarithm in one run, by side.
    pub(super) floors: [f64; 2],
    /// Mean share, by side.
    pub(super) mean: [f64; 2],
    /// It has enough samples on both sides.
    pub(super) on_both: bool,
}

impl Row {
    fn new(pair: &Pair, function: FunctionId, measure: Measure) -> Self {
        let count = |run: &Run| {
            let counts = run.counts(function);
            match measure {
                Measure::Own => counts.own,
                Measure::Total => counts.total,
            }
        };
        let shares = Side::BOTH.map(|side| {
            let share = |run: &Run| count(run) as f64 / run.samples as f64;
            pair.runs(side).iter().map(share).collect::<Vec<f64>>()
        });
        let logs = Side::BOTH.map(|side| {
            // Half a sample more, so that there is a logarithm of none.
            let log = |run: &Run| ((count(run) as f64 + 0.5) / (run.samples as f64 + 1.0)).ln();
            pair.runs(side).iter().map(log).collect()
        });
        let mean_count = Side::BOTH.map(|side| {
            let runs = pair.runs(side);
            runs.iter().map(count).sum::<u64>() as f64 / runs.len().max(1) as f64
        });
        let mean = [stats::mean(&shares[0]), stats::mean(&shares[1])];
        Self {
            function,
            measure,
            // Binomial.
            floors: [0, 1].map(|side| (1.0 - mean[side]).max(0.0) / (mean_count[side] + 0.5)),
            on_both: mean_count.iter().all(|&count| count >= MIN_SAMPLES),
            shares,
            logs,
            mean,
        }
    }

    /// The change of the logarithm, from run to run.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        Estimate::welch(&self.logs[0], &self.logs[1], self.floors)
    }

    /// The change of the logarithm if samples were independent and nothing else varied: too sure of itself.
    pub(super) fn sampling_only(&self) -> Estimate {
        let variance = |side: usize| self.floors[side] / self.logs[side].len().max(1) as f64;
        Estimate::known(
            stats::mean(&self.logs[1]) - stats::mean(&self.logs[0]),
            variance(0) + variance(1),
        )
    }
}

/// The functions to test, chosen by their size only. All of their own samples first, then totals.
pub(super) fn rows(pair: &Pair, policy: &Policy) -> Vec<Row> {
    let tested = |row: &Row| {
        [0, 1].into_iter().any(|side| {
            let samples = pair
                .runs(Side::BOTH[side])
                .iter()
                .map(|run| run.samples)
                .sum::<u64>() as f64;
            let per_run = samples / row.shares[side].len().max(1) as f64;
            row.mean[side] >= policy.min_share && row.mean[side] * per_run >= MIN_SAMPLES
        })
    };
    let names = |id: &FunctionId| !policy.ignores(&pair.function(*id).name);
    let own: Vec<Row> = pair
        .ids()
        .filter(names)
        .map(|id| Row::new(pair, id, Measure::Own))
        .filter(tested)
        .collect();
    let totals = pair
        .ids()
        .filter(names)
        .map(|id| Row::new(pair, id, Measure::Total))
        .filter(|row| tested(row) && row.on_both && row.mean.iter().all(|&share| share < MAX_TOTAL_SHARE))
        .filter(|row| {
            let own = Row::new(pair, row.function, Measure::Own);
            row.mean
                .iter()
                .zip(own.mean)
                .any(|(&total, own)| total > own * TOTAL_OVER_OWN)
        });
    own.iter().cloned().chain(totals).collect()
}

/// What the logarithms of all functions' shares have in common: the mean of the middle half of the changes, by
/// share. With few functions that is unknown, and what the whole program changed by is used instead: a share that
/// stays while the program gets faster is a function that got faster.
pub(super) fn common_shift(rows: &[Row], program: Option<f64>) -> f64 {
    let mut changes: Vec<(f64, f64)> = rows
        .iter()
        .filter(|row| row.measure == Measure::Own && row.on_both)
        .map(|row| {
            let change = stats::mean(&row.logs[1]) - stats::mean(&row.logs[0]);
            (change, row.mean[0].min(row.mean[1]))
        })
        .collect();
    if changes.len() < MIN_FUNCTIONS {
        return -program.unwrap_or(0.0);
    }
    changes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let cut = changes.len() / 4;
    let middle = &changes[cut..changes.len() - cut];
    let weight: f64 = middle.iter().map(|(_, share)| share).sum();
    middle.iter().map(|(change, share)| change * share).sum::<f64>() / weight.max(f64::MIN_POSITIVE)
}
