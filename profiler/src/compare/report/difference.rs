//! A difference as text and as a graph.

use super::share;
use crate::compare::{Change, Difference, Pair, Side};
use crate::format::{Error, flamegraph, thousands};
use std::fmt::Write;

/// Under which code that only the baseline has stands in the graph.
const GONE: &str = "[only in the baseline]";

/// The most frames of a stack in the text: the innermost, which tell stacks apart.
const MAX_FRAMES: usize = 6;

/// Tables for a terminal: `most` functions and as many stacks, the largest change first.
pub fn text(pair: &Pair, difference: &Difference, most: usize) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for side in Side::BOTH {
        let runs = pair.runs(side);
        let _ = write!(
            out,
            "{:<9}  {} {}, {} samples each",
            side.label(),
            runs.len(),
            if runs.len() == 1 { "run" } else { "runs" },
            thousands(difference.samples[side as usize].round() as u64)
        );
        if let Some(seconds) = difference.cpu_seconds {
            let _ = write!(out, ", {:.3} CPU s each", seconds[side as usize]);
        }
        if let Some(seconds) = difference.duration {
            let _ = write!(out, " in {:.1} s", seconds[side as usize]);
        }
        out.push('\n');
    }
    out.push_str(
        "Shares are of a run's own samples, so longer or busier runs do not look slower; of several runs the mean \
         is shown.\n\n",
    );
    let _ = writeln!(
        out,
        "{:>9} {:>9} {:>9}   {:>9} {:>9} {:>9}  {}function",
        "self",
        "→",
        "change",
        "total",
        "→",
        "change",
        if difference.cpu_seconds.is_some() {
            "  total in CPU s  "
        } else {
            ""
        }
    );
    for change in difference.functions.iter().take(most) {
        let [before, after] = change.own;
        let [total_before, total_after] = change.total;
        let _ = write!(
            out,
            "{:>9} {:>9} {:>9}   {:>9} {:>9} {:>9}  ",
            share(before),
            share(after),
            points(change.own),
            share(total_before),
            share(total_after),
            points(change.total)
        );
        if let Some(seconds) = difference.cpu_seconds {
            let _ = write!(
                out,
                "{:>7.3} {:>7.3}   ",
                total_before * seconds[0],
                total_after * seconds[1]
            );
        }
        let _ = writeln!(out, "{}", pair.function(change.frames[0]).name);
    }
    if !difference.stacks.is_empty() {
        let _ = writeln!(out, "\n{:>9} {:>9} {:>9}  stack", "before", "after", "change");
    }
    for change in difference.stacks.iter().take(most) {
        let _ = writeln!(
            out,
            "{:>9} {:>9} {:>9}  {}",
            share(change.own[0]),
            share(change.own[1]),
            points(change.own),
            stack(pair, change)
        );
    }
    out
}

/// Stacks of both sides, one line each: `frame;…;frame BASELINE CANDIDATE`.
pub fn folded(pair: &Pair) -> String {
    Difference::folded(pair)
}

/// A flame graph of the candidate; red has become more, blue less. What is only in the baseline stands beside it.
///
/// # Errors
/// [`Error::Write`].
pub fn svg(pair: &Pair) -> Result<Vec<u8>, Error> {
    flamegraph::difference(&Difference::graph(pair, GONE), title(pair))
}

fn title(pair: &Pair) -> String {
    let runs = Side::BOTH.map(|side| pair.runs(side).len());
    format!(
        "CPU: baseline ({} {}) → candidate ({} {}) · width: candidate · red: more, blue: less, at equal samples",
        runs[0],
        if runs[0] == 1 { "run" } else { "runs" },
        runs[1],
        if runs[1] == 1 { "run" } else { "runs" },
    )
}

/// The change of a share, in percentage points.
fn points([before, after]: [f64; 2]) -> String {
    format!("{:+.2}", 100.0 * (after - before))
}

fn stack(pair: &Pair, change: &Change) -> String {
    let cut = change.frames.len().saturating_sub(MAX_FRAMES);
    let names: Vec<&str> = change.frames[cut..]
        .iter()
        .map(|&id| &*pair.function(id).name)
        .collect();
    format!("{}{}", if cut > 0 { "…;" } else { "" }, names.join(";"))
}
