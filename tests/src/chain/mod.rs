//! Which call chains are true, and whether a recorded stack is one of them.
//!
//! A program's true chains are the paths through its calls: a stack is exact if, read from the root, each
//! frame is one that the frame before it calls, and the first is a root. Where the walk stopped short, lost a
//! caller, repeated a segment, or put in a frame of another goroutine, some frame is not a callee of the one
//! before it, and the stack is wrong *at* that frame.
//!
//! The calls are written as an indented tree, one file `chains.txt` for each target. See [`Spec`] for the
//! language, `tests/targets/common/*.chains.txt` for what all Go or all C programs have in common.

mod check;
mod pattern;
mod spec;
#[cfg(test)]
mod tests;

pub use check::{Checker, Report, Tally, Verdict};
pub use pattern::Symbols;
pub use spec::Spec;
