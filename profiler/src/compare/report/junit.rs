//! A test suite, in the form that Jenkins, GitLab and others read (the strictest known description is `junit-10.xsd` of
//! Jenkins' xunit plugin): one test case for the whole program and one for each function and measure.

use super::Report;
use crate::compare::{Judgement, Status, Verdict};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use std::io;

pub(super) fn write(report: &Report<'_>) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing to memory cannot fail.
    let _ = suites(&mut writer, report);
    let mut xml = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    xml.push('\n');
    xml
}

/// How a test case ended.
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

fn suites(writer: &mut Writer<Vec<u8>>, report: &Report<'_>) -> io::Result<()> {
    let cases = cases(report);
    let count = |wanted: fn(&Outcome) -> bool| {
        cases
            .iter()
            .filter(|case| wanted(&case.outcome))
            .count()
            .to_string()
    };
    let tests = cases.len().to_string();
    let failures = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer
        .create_element("testsuites")
        .write_inner_content(|writer| {
            writer
                .create_element("testsuite")
                .with_attributes([
                    ("name", "profiler check"),
                    ("tests", &*tests),
                    ("failures", &*failures),
                    ("errors", "0"),
                    ("skipped", &*skipped),
                    ("time", "0"),
                ])
                .write_inner_content(|writer| cases.iter().try_for_each(|case| write_case(writer, case)))
                .map(|_| ())
        })
        .map(|_| ())
}

struct Case {
    class: &'static str,
    name: String,
    place: Option<(String, u32)>,
    outcome: Outcome,
}

fn write_case(writer: &mut Writer<Vec<u8>>, case: &Case) -> io::Result<()> {
    let element = writer.create_element("testcase").with_attributes([
        ("classname", case.class),
        ("name", &*case.name),
        ("time", "0"),
    ]);
    match &case.outcome {
        Outcome::Passed => element.write_empty()?,
        Outcome::Failed(text) => element.write_inner_content(|writer| {
            writer
                .create_element("failure")
                .with_attributes([("message", &**text), ("type", "regression")])
                .write_text_content(BytesText::new(&match &case.place {
                    // A test case has no attributes for it that all readers allow.
                    Some((file, line)) => format!("{file}:{line}: {text}"),
                    None => text.clone(),
                }))
                .map(|_| ())
        })?,
        Outcome::Skipped(text) => element.write_inner_content(|writer| {
            writer
                .create_element("skipped")
                .with_attribute(("message", &**text))
                .write_empty()
                .map(|_| ())
        })?,
    };
    Ok(())
}

fn cases(report: &Report<'_>) -> Vec<Case> {
    let judgement = report.judgement;
    let mut cases = vec![Case {
        class: "profiler.check",
        name: "verdict".to_owned(),
        place: None,
        outcome: match judgement.verdict {
            Verdict::Pass => Outcome::Passed,
            _ if judgement.exit_code(report.policy) == 2 => Outcome::Failed(judgement.reasons.join("; ")),
            Verdict::Inconclusive => Outcome::Skipped(judgement.reasons.join("; ")),
            Verdict::Regression => Outcome::Passed,
        },
    }];
    if let Some(program) = &judgement.program {
        cases.push(Case {
            class: "profiler.check",
            name: "whole program".to_owned(),
            place: None,
            outcome: outcome(judgement, program.evidence.status, || {
                format!("takes {} CPU time", super::signed(program.evidence.change))
            }),
        });
    }
    for finding in &judgement.findings {
        cases.push(Case {
            class: match finding.measure {
                crate::compare::Measure::Own => "profiler.check.self",
                crate::compare::Measure::Total => "profiler.check.total",
            },
            name: report.name(finding.function).to_owned(),
            place: report.place(finding.function),
            outcome: outcome(judgement, finding.evidence.status, || report.sentence(finding)),
        });
    }
    cases
}

fn outcome(judgement: &Judgement, status: Status, sentence: impl Fn() -> String) -> Outcome {
    match (status, judgement.verdict) {
        (Status::Regression, _) => Outcome::Failed(sentence()),
        (Status::Suspect, _) => Outcome::Skipped(sentence()),
        (_, Verdict::Inconclusive) => Outcome::Skipped("inconclusive".to_owned()),
        _ => Outcome::Passed,
    }
}
