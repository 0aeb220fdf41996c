//! For programs. The schema is `profiler/schema/check.schema.json`; fields may be added, and when one is removed or changes
//! its meaning, `schema` becomes 2.

use super::Report;
use crate::compare::{Evidence, Side};
use serde_json::{Value, json};

pub(super) fn write(report: &Report<'_>) -> String {
    let (judgement, policy) = (report.judgement, report.policy);
    let findings: Vec<Value> = judgement
        .findings
        .iter()
        .map(|finding| {
            let place = report.place(finding.function);
            let others: Vec<&str> = finding.others.iter().map(|&id| report.name(id)).collect();
            json!({
                "function": report.name(finding.function),
                "measure": finding.measure.label(),
                "file": place.as_ref().map(|(file, _)| file),
                "line": place.as_ref().map(|(_, line)| line),
                "share": finding.share,
                "cpu_seconds": finding.seconds,
                "evidence": evidence(&finding.evidence),
                "others": others,
            })
        })
        .collect();
    let issues: Vec<Value> = judgement
        .issues
        .iter()
        .map(|issue| json!({ "fact": issue.fact.label(), "blocking": issue.blocking, "text": issue.text }))
        .collect();
    let program = judgement.program.as_ref().map(|program| {
        json!({ "cost": program.cost, "unit": program.unit, "evidence": evidence(&program.evidence) })
    });
    let document = json!({
        "schema": 1,
        "verdict": judgement.verdict.label(),
        "exit_code": judgement.exit_code(policy),
        "reasons": judgement.reasons,
        "policy": {
            "min_change": policy.min_change,
            "min_share": policy.min_share,
            "alpha": policy.alpha,
        },
        "confidence": judgement.confidence,
        "baseline": runs(report, Side::Baseline),
        "candidate": runs(report, Side::Candidate),
        "program": program,
        "coverage": judgement.coverage,
        "useful_change": judgement.useful,
        "issues": issues,
        "findings": findings,
    });
    // No map here has keys that are not strings, which is all that could fail.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn runs(report: &Report<'_>, side: Side) -> Vec<Value> {
    let runs = report.pair.runs(side).iter();
    runs.map(|run| {
        json!({
            "name": run.name,
            "samples": run.samples,
            "complete": run.complete,
            "lost": run.lost,
            "cpu_seconds": run.cpu_seconds(),
            "duration_seconds": run.duration.as_secs_f64(),
            "facts": run.facts,
        })
    })
    .collect()
}

fn evidence(evidence: &Evidence) -> Value {
    let (low, high) = evidence.sampling_only;
    json!({
        "status": evidence.status.label(),
        "change": evidence.change,
        "low": evidence.low,
        "high": evidence.high,
        "sampling_only": { "low": low, "high": high },
        "p": evidence.p,
        "p_adjusted": evidence.p_adjusted,
        "p_permutation": evidence.p_permutation,
        "detectable": evidence.detectable,
        "min_change": evidence.min_change,
    })
}
