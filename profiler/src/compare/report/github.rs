//! Workflow commands of GitHub Actions (docs.github.com, "Workflow commands"): annotations at the lines of the code.

use super::Report;
use crate::compare::{Status, Verdict};
use std::fmt::Write;

pub(super) fn write(report: &Report<'_>) -> String {
    let judgement = report.judgement;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let level = match judgement.verdict {
        Verdict::Pass => "notice",
        _ if judgement.exit_code(report.policy) == 2 => "error",
        _ => "warning",
    };
    let _ = writeln!(
        out,
        "::{level} title={}::{}",
        property(&format!("CPU profile: {}", judgement.verdict.label())),
        message(&judgement.reasons.join("; "))
    );
    for finding in report.notable() {
        let level = match finding.evidence.status {
            Status::Regression => "error",
            Status::Suspect => "warning",
            _ => continue,
        };
        let name = report.name(finding.function);
        let place = report
            .place(finding.function)
            .map_or_else(String::new, |(file, line)| {
                format!("file={},line={line},", property(&file))
            });
        let _ = writeln!(
            out,
            "::{level} {place}title={}::{}",
            property(name),
            message(&format!("{name} {}", report.sentence(finding)))
        );
    }
    out
}

fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}
