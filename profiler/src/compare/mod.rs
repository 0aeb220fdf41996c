//! Two sets of profiles in, a difference or a verdict out.
//!
//! A *side* is the baseline or the candidate; each of its profiles is a *run*. [`Pair`] collects the runs of both sides
//! as counts by function, [`Difference`] says what changed, and [`Judgement`] whether that is a regression.
//!
//! # What is compared
//!
//! Runs are the replicates, not samples: two runs of one binary differ by more than sampling explains, and a test that
//! takes samples for independent calls most of that noise a change. For each function the logarithm of its share of
//! the samples is taken in each run, and the two sets of logarithms are compared with Welch's test.
//!
//! Shares have a flaw: when one function vanishes, all others grow. So the common shift of the functions, the mean of
//! the middle half of their changes, is taken off each change (as in the analysis of other data that are shares of a
//! whole). A function that got 10 % slower while the rest stayed as it was shows +10 %, whatever its share. What all functions
//! have in common, shares cannot show at all: so the CPU time of the whole program is compared first.
//!
//! Nothing here does I/O or reads a clock.

mod comparable;
mod count;
mod difference;
mod judge;
mod measure;
mod moved;
mod pair;
mod policy;
pub mod report;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use comparable::{Fact, Issue};
pub use count::{Counted, Function, FunctionId};
pub use difference::{Change, Difference};
pub use judge::{Evidence, Finding, Judgement, MIN_RUNS, Measure, Program, Status, Verdict, judge};
pub use pair::{Error, Pair, Run, Side};
pub use policy::{FailOn, FunctionRule, Policy, PolicyError, ProgramCost};
