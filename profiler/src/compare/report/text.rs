//! For a terminal.

use super::{Report, interval, share};
use crate::compare::Status;
use crate::compare::judge::signed;
use std::fmt::Write;

/// The most functions that are listed; the JSON has all of them.
const MAX_FUNCTIONS: usize = 30;

pub(super) fn write(report: &Report<'_>) -> String {
    let judgement = report.judgement;
    let mut out = format!(
        "{}: {}\n",
        judgement.verdict.label().to_uppercase(),
        judgement.reasons.join("; ")
    );
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n{}", report.data());
    if let Some(program) = &judgement.program {
        let evidence = &program.evidence;
        let _ = writeln!(
            out,
            "whole program: {:.3} → {:.3} {}, {} ({}), {}",
            program.cost[0],
            program.cost[1],
            program.unit,
            signed(evidence.change),
            interval(evidence),
            evidence.status.label()
        );
    }
    let _ = writeln!(out, "{}", report.power());
    for issue in &judgement.issues {
        let prefix = if issue.blocking {
            "prevents a verdict"
        } else {
            "note"
        };
        let _ = writeln!(out, "{prefix}: {}", issue.text);
    }
    let notable: Vec<_> = report.notable().collect();
    if notable.is_empty() {
        return out;
    }
    let _ = writeln!(
        out,
        "\n{:<11} {:>9} {:>20} {:>20} {:>9} {:>9}  function",
        "status", "change", "between", "by sampling only", "before", "after"
    );
    for finding in notable.iter().take(MAX_FUNCTIONS) {
        let evidence = &finding.evidence;
        let (low, high) = evidence.sampling_only;
        let _ = write!(
            out,
            "{:<11} {:>9} {:>20} {:>20} {:>9} {:>9}  {}",
            evidence.status.label(),
            signed(evidence.change),
            interval(evidence),
            format!("{} … {}", signed(low), signed(high)),
            share(finding.share[0]),
            share(finding.share[1]),
            report.name(finding.function),
        );
        let others: Vec<&str> = finding.others.iter().map(|&id| report.name(id)).collect();
        let why = match evidence.status {
            Status::Moved => format!(", moved from {}", others.join(", ")),
            Status::Caller => format!(", because of {}", others.join(", ")),
            _ => String::new(),
        };
        let _ = writeln!(out, " ({}{why})", finding.measure.label());
    }
    if let more @ 1.. = notable.len().saturating_sub(MAX_FUNCTIONS) {
        let _ = writeln!(out, "and {more} more");
    }
    let _ = writeln!(
        out,
        "\nChanges are relative to what all functions have in common; the true change is above the first bound and below \
         the second with {:.0} % confidence each.",
        100.0 * judgement.confidence
    );
    out
}
