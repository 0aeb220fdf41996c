//! What changed, without a judgement: by function and by stack.

use super::pair::Node;
use super::{FunctionId, Pair, Side};

/// The change of one function or stack. Shares are means of the runs' shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The function, or the frames of the stack, root first.
    pub frames: Vec<FunctionId>,
    /// Share of the samples that end in it, by side.
    pub own: [f64; 2],
    /// Share of the samples that it is in, by side; for a stack the same as `own`.
    pub total: [f64; 2],
}

impl Change {
    /// The larger of the changes of both shares.
    pub fn effect(&self) -> f64 {
        let change = |shares: [f64; 2]| (shares[1] - shares[0]).abs();
        change(self.own).max(change(self.total))
    }
}

/// What changed between two sides.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Every function, the largest change first.
    pub functions: Vec<Change>,
    /// Every stack, the largest change first. Empty unless the pair has stacks.
    pub stacks: Vec<Change>,
    /// Mean CPU seconds of a run, by side, if the rate is known.
    pub cpu_seconds: Option<[f64; 2]>,
    /// Mean duration of a run in seconds, by side, if known.
    pub duration: Option<[f64; 2]>,
    /// Mean number of samples of a run, by side.
    pub samples: [f64; 2],
}

impl Difference {
    /// Compares.
    pub fn of(pair: &Pair) -> Self {
        let mean = |value: &dyn Fn(&super::Run) -> Option<f64>| {
            let mut means = [0.0; 2];
            for side in Side::BOTH {
                for run in pair.runs(side) {
                    means[side as usize] += value(run)? / pair.runs(side).len() as f64;
                }
            }
            Some(means)
        };
        let share = |id, total: bool| {
            mean(&|run| {
                let counts = run.counts(id);
                let count = if total { counts.total } else { counts.own };
                Some(count as f64 / run.samples as f64)
            })
            .unwrap_or_default()
        };
        let mut functions: Vec<Change> = pair
            .ids()
            .map(|id| Change {
                frames: vec![id],
                own: share(id, false),
                total: share(id, true),
            })
            .filter(|change| change.total != [0.0; 2])
            .collect();
        let mut stacks = stacks(pair);
        for changes in [&mut functions, &mut stacks] {
            changes.sort_by(|a, b| {
                b.effect()
                    .total_cmp(&a.effect())
                    .then_with(|| a.frames.cmp(&b.frames))
            });
        }
        Self {
            functions,
            stacks,
            cpu_seconds: mean(&super::Run::cpu_seconds),
            duration: mean(&|run| (!run.duration.is_zero()).then_some(run.duration.as_secs_f64())),
            samples: mean(&|run| Some(run.samples as f64)).unwrap_or_default(),
        }
    }

    /// One line `frame;…;frame BASELINE CANDIDATE` for each stack, sorted: what `inferno-flamegraph` and
    /// `flamegraph.pl` draw as a difference. Counts of the baseline are scaled to as many samples as the candidate has.
    pub fn folded(pair: &Pair) -> String {
        let mut lines: Vec<String> = scaled(pair)
            .into_iter()
            .map(|(frames, [before, after])| format!("{} {before} {after}", names(pair, &frames)))
            .collect();
        lines.sort_unstable();
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// The lines for the graph: as [`Self::folded`], but in the order of the tree, and what is only in the baseline stands
    /// beside the rest, as wide as it was there: the graph has the candidate's widths, and it would be invisible.
    pub(super) fn graph(pair: &Pair, gone: &str) -> Vec<String> {
        let mut lines: Vec<(Vec<String>, [u64; 2])> = scaled(pair)
            .into_iter()
            .map(|(frames, [before, after])| {
                let names = frames.iter().map(|&id| pair.function(id).name.clone());
                if after == 0 {
                    // Its width is the second count, its colour the difference.
                    (
                        std::iter::once(gone.to_owned()).chain(names).collect(),
                        [2 * before, before],
                    )
                } else {
                    (names.collect(), [before, after])
                }
            })
            .collect();
        lines.sort_unstable();
        lines
            .into_iter()
            .map(|(names, [before, after])| format!("{} {before} {after}", names.join(";")))
            .collect()
    }
}

fn names(pair: &Pair, frames: &[FunctionId]) -> String {
    let names: Vec<&str> = frames.iter().map(|&id| &*pair.function(id).name).collect();
    names.join(";")
}

/// Stacks with samples, root first, the baseline scaled to the candidate's total.
fn scaled(pair: &Pair) -> Vec<(Vec<FunctionId>, [u64; 2])> {
    let totals = Side::BOTH.map(|side| pair.runs(side).iter().map(|run| run.samples).sum::<u64>());
    let factor = totals[1] as f64 / totals[0].max(1) as f64;
    let nodes = pair.nodes();
    nodes
        .iter()
        .filter(|node| node.own != [0, 0])
        .map(|node| {
            let before = (node.own[0] as f64 * factor).round() as u64;
            (path(nodes, node), [before, node.own[1]])
        })
        .filter(|(_, counts)| *counts != [0, 0])
        .collect()
}

fn path(nodes: &[Node], leaf: &Node) -> Vec<FunctionId> {
    let mut frames = vec![leaf.function];
    let mut caller = leaf.caller;
    while let Some(at) = caller {
        let node = &nodes[at as usize];
        frames.push(node.function);
        caller = node.caller;
    }
    frames.reverse();
    frames
}

fn stacks(pair: &Pair) -> Vec<Change> {
    let totals = Side::BOTH.map(|side| pair.runs(side).iter().map(|run| run.samples).sum::<u64>());
    let nodes = pair.nodes();
    nodes
        .iter()
        .filter(|node| node.own != [0, 0])
        .map(|node| {
            let shares = [0, 1].map(|side| node.own[side] as f64 / totals[side].max(1) as f64);
            Change {
                frames: path(nodes, node),
                own: shares,
                total: shares,
            }
        })
        .collect()
}
