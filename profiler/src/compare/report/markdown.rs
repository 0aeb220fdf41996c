//! For a pull request or a job's summary.

use super::{Report, interval, share};
use crate::compare::Verdict;
use crate::compare::judge::signed;
use std::fmt::Write;

/// The most functions in the table; the JSON has all of them.
const MAX_FUNCTIONS: usize = 20;

pub(super) fn write(report: &Report<'_>) -> String {
    let judgement = report.judgement;
    let sign = match judgement.verdict {
        Verdict::Pass => "✅",
        Verdict::Regression => "❌",
        Verdict::Inconclusive => "❔",
    };
    let mut out = format!("## {sign} CPU profile: {}\n\n", judgement.verdict.label());
    // Writing to a String cannot fail.
    for reason in &judgement.reasons {
        let _ = writeln!(out, "- {}", text(reason));
    }
    for issue in judgement.issues.iter().filter(|issue| !issue.blocking) {
        let _ = writeln!(out, "- note: {}", text(&issue.text));
    }
    if let Some(program) = &judgement.program {
        let _ = writeln!(
            out,
            "\n**Whole program:** {:.3} → {:.3} {}, **{}** ({})",
            program.cost[0],
            program.cost[1],
            program.unit,
            signed(program.evidence.change),
            interval(&program.evidence)
        );
    }
    let notable: Vec<_> = report.notable().collect();
    if !notable.is_empty() {
        out.push_str(
            "\n| status | function | measure | change | between | before | after |\n|---|---|---|--:|--:|--:|--:|\n",
        );
    }
    for finding in notable.iter().take(MAX_FUNCTIONS) {
        let evidence = &finding.evidence;
        let _ = writeln!(
            out,
            "| {} | {} | {} | **{}** | {} | {} | {} |",
            evidence.status.label(),
            code(report.name(finding.function)),
            finding.measure.label(),
            signed(evidence.change),
            interval(evidence),
            share(finding.share[0]),
            share(finding.share[1]),
        );
    }
    if let more @ 1.. = notable.len().saturating_sub(MAX_FUNCTIONS) {
        let _ = writeln!(out, "\nand {more} more");
    }
    let _ = writeln!(
        out,
        "\n<details><summary>What this rests on</summary>\n\n{}; {}. Changes are relative to what all functions have in \
         common; bounds hold with {:.0} % confidence each.\n\n</details>",
        report.data(),
        report.power(),
        100.0 * judgement.confidence
    );
    out
}

/// Text in which nothing is markup.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '@' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// A name as code in a cell of a table. HTML, since no Markdown can quote every name there.
fn code(name: &str) -> String {
    let mut out = String::from("<code>");
    for c in name.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Markdown is read within inline HTML too.
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '@' | '#' | ':' => {
                out.push_str(&format!("&#{};", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out + "</code>"
}
