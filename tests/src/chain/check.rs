//! Judges stacks by the true chains.

use super::pattern::{OwnNames, Pattern, Symbols};
use crate::folded::{Folded, Stack};
use std::collections::BTreeMap;
use std::fmt;

/// How many different wrong stacks a report shows.
const SHOWN: usize = 12;

/// The true chains, ready to be asked. Made by [`super::Spec::checker`].
#[derive(Clone, Debug)]
pub struct Checker {
    /// What the frame of each node may be called.
    patterns: Vec<Vec<Pattern>>,
    /// The nodes of the frames that may follow each node's.
    next: Vec<Vec<usize>>,
    /// The nodes of roots.
    roots: Vec<usize>,
    symbols: Symbols,
    own: OwnNames,
}

/// Whether a stack is a true chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Exact,
    /// It is not.
    Wrong {
        /// Index, from the root, of the first frame that the one before it does not call.
        at: usize,
        /// What could have been there.
        expected: Vec<String>,
    },
}

/// Samples, by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples whose stacks are true chains.
    pub exact: u64,
    /// The others.
    pub wrong: u64,
}

/// What the samples of a recording were worth.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Samples taken in user mode.
    pub user: Tally,
    /// Samples taken in the kernel, judged by their user part.
    pub kernel: Tally,
    wrong: BTreeMap<String, u64>,
}

impl Checker {
    pub(super) fn new(
        patterns: Vec<Vec<Pattern>>,
        next: Vec<Vec<usize>>,
        roots: Vec<usize>,
        symbols: Symbols,
        own: OwnNames,
    ) -> Self {
        Self {
            patterns,
            next,
            roots,
            symbols,
            own,
        }
    }

    /// Judges frames given root first, without those of the kernel.
    pub fn verdict<S: AsRef<str>>(&self, root_first: &[S]) -> Verdict {
        let mut possible = self.roots.clone();
        if root_first.is_empty() {
            return Verdict::Wrong {
                at: 0,
                expected: self.names(&possible),
            };
        }
        for (at, frame) in root_first.iter().enumerate() {
            let matched: Vec<usize> = possible
                .iter()
                .copied()
                .filter(|&node| self.fits(node, frame.as_ref()))
                .collect();
            if matched.is_empty() {
                return Verdict::Wrong {
                    at,
                    expected: self.names(&possible),
                };
            }
            possible = matched
                .iter()
                .flat_map(|&node| self.next[node].iter().copied())
                .collect();
            possible.sort_unstable();
            possible.dedup();
        }
        Verdict::Exact
    }

    /// Judges every stack of a recording.
    pub fn report(&self, folded: &Folded) -> Report {
        let mut report = Report::default();
        for stack in &folded.stacks {
            let verdict = self.verdict(stack.user());
            let tally = if stack.from_kernel() {
                &mut report.kernel
            } else {
                &mut report.user
            };
            match verdict {
                Verdict::Exact => tally.exact += stack.count,
                Verdict::Wrong { at, expected } => {
                    tally.wrong += stack.count;
                    *report.wrong.entry(describe(stack, at, &expected)).or_default() += stack.count;
                }
            }
        }
        report
    }

    fn fits(&self, node: usize, frame: &str) -> bool {
        self.patterns[node]
            .iter()
            .any(|pattern| pattern.matches(frame, &self.symbols, &self.own))
    }

    fn names(&self, nodes: &[usize]) -> Vec<String> {
        let mut names: Vec<String> = nodes
            .iter()
            .flat_map(|&node| self.patterns[node].iter().map(Pattern::to_string))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn describe(stack: &Stack, at: usize, expected: &[String]) -> String {
    let mut frames: Vec<String> = stack.user().to_vec();
    match frames.get_mut(at) {
        Some(frame) => *frame = format!(">>>{frame}<<<"),
        None => frames.push(">>><<<".to_owned()),
    }
    format!(
        "{}\n    expected there: {}",
        frames.join(";"),
        expected.join(", ")
    )
}

impl Tally {
    /// All samples.
    pub fn total(self) -> u64 {
        self.exact + self.wrong
    }

    /// Share of exact ones, in percent. No samples are no evidence: 0.
    pub fn percent(self) -> f64 {
        if self.total() == 0 {
            0.0
        } else {
            self.exact as f64 * 100.0 / self.total() as f64
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:.2} %)", self.exact, self.total(), self.percent())
    }
}

impl fmt::Display for Report {
    /// The figures, then the wrong stacks, most frequent first, with the first wrong frame marked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exact in user mode: {}; in the kernel: {}",
            self.user, self.kernel
        )?;
        let mut wrong: Vec<_> = self.wrong.iter().collect();
        wrong.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
        for (stack, count) in wrong.iter().take(SHOWN) {
            write!(f, "\n  {count} x {stack}")?;
        }
        if wrong.len() > SHOWN {
            write!(f, "\n  and {} other wrong stacks", wrong.len() - SHOWN)?;
        }
        Ok(())
    }
}
