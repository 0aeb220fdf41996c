//! Every format is read back by a reader that is not ours.

use super::{Format, Report, difference};
use crate::compare::testing::{self, Noise};
use crate::compare::{Difference, Judgement, Pair, Policy, Side, Verdict, judge};
use quick_xml::events::Event;
use rand::SeedableRng;
use rand::rngs::StdRng;

const SCHEMA: &str = include_str!("../../../schema/check.schema.json");

/// Names that are markup everywhere.
const HOSTILE: &str = "main.<b>&\"'`*_|]]>%0A::error::\n\u{1b}[2J\u{202e}";

fn sides(runs: usize, factor: f64) -> (Pair, Judgement) {
    let mut before = testing::program(60);
    let names = ["main.main".to_owned(), HOSTILE.to_owned()];
    before.push((names.to_vec(), 0.05));
    let after = testing::scaled(&testing::scaled(&before, HOSTILE, factor), "main.f5", factor);
    let noise = Noise {
        jitter: 0.02,
        samples: 30_000.0,
    };
    let pair = testing::pair([&before, &after], runs, noise, &mut StdRng::seed_from_u64(7));
    let judgement = judge(&pair, &Policy::default());
    (pair, judgement)
}

fn each_verdict() -> [(Pair, Judgement); 3] {
    let all = [sides(8, 1.0), sides(8, 1.5), sides(1, 1.5)];
    let verdicts = all.each_ref().map(|(_, judgement)| judgement.verdict);
    assert_eq!(
        verdicts,
        [Verdict::Pass, Verdict::Regression, Verdict::Inconclusive]
    );
    all
}

fn write((pair, judgement): &(Pair, Judgement), format: Format) -> String {
    let report = Report {
        pair,
        policy: &Policy::default(),
        judgement,
        root: "/src",
    };
    let text = report.write(format);
    assert!(
        text.ends_with('\n') && !text.contains(['\u{1b}', '\u{202e}']),
        "{format:?}"
    );
    text
}

#[test]
fn json_fits_the_published_schema() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for outcome in each_verdict() {
        let document: serde_json::Value = serde_json::from_str(&write(&outcome, Format::Json)).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(document["verdict"], outcome.1.verdict.label());
        let broken = serde_json::json!({ "schema": 1, "verdict": "maybe" });
        assert!(!validator.is_valid(&broken));
    }
}

/// The elements of `junit-10.xsd` of Jenkins' xunit plugin that we write, with the attributes that they may have.
const JUNIT: [(&str, &[&str]); 5] = [
    ("testsuites", &["name", "time", "tests", "failures", "errors"]),
    (
        "testsuite",
        &["name", "tests", "failures", "errors", "skipped", "time"],
    ),
    ("testcase", &["name", "time", "classname", "group"]),
    ("failure", &["type", "message"]),
    ("skipped", &["type", "message"]),
];

#[test]
fn junit_is_xml_that_counts_right() {
    for outcome in each_verdict() {
        let xml = write(&outcome, Format::Junit);
        let mut reader = quick_xml::Reader::from_str(&xml);
        reader.config_mut().check_end_names = true;
        let (mut suite, mut cases, mut failures, mut skipped) = (None, 0, 0, 0);
        loop {
            match reader.read_event().unwrap() {
                Event::Start(element) | Event::Empty(element) => {
                    let (_, allowed) = JUNIT
                        .iter()
                        .find(|(name, _)| name.as_bytes() == element.name().as_ref())
                        .unwrap();
                    for attribute in element.attributes() {
                        let key = attribute.unwrap().key;
                        assert!(
                            allowed.iter().any(|name| name.as_bytes() == key.as_ref()),
                            "{key:?}"
                        );
                    }
                    match element.name().as_ref() {
                        b"testsuite" => {
                            let value = |name| {
                                let attribute = element.try_get_attribute(name).unwrap().unwrap();
                                String::from_utf8(attribute.value.into_owned())
                                    .unwrap()
                                    .parse::<u32>()
                                    .unwrap()
                            };
                            suite = Some((value("tests"), value("failures"), value("skipped")));
                        }
                        b"testcase" => cases += 1,
                        b"failure" => failures += 1,
                        b"skipped" => skipped += 1,
                        _ => {}
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(suite, Some((cases, failures, skipped)));
        assert_eq!(failures > 0, outcome.1.verdict == Verdict::Regression);
        assert!(cases > 30, "{xml}");
        assert_eq!(xml.contains(">bench/f5.go:"), failures > 0, "{xml}");
    }
}

#[test]
fn github_annotations_stand_at_the_lines_of_the_code() {
    let [pass, regression, inconclusive] = each_verdict().map(|outcome| write(&outcome, Format::Github));
    assert_eq!(pass.lines().count(), 1);
    assert!(pass.starts_with("::notice title=CPU profile%3A pass::"), "{pass}");
    assert!(
        inconclusive.starts_with("::warning title=CPU profile%3A inconclusive::"),
        "{inconclusive}"
    );
    assert!(!inconclusive.contains("\n::error"), "{inconclusive}");
    let line = regression
        .lines()
        .find(|line| line.contains("title=main.f5::"))
        .unwrap();
    assert!(line.starts_with("::error file=bench/f5.go,line="), "{line}");
    for line in regression.lines() {
        // No name can start a command of its own.
        assert!(
            line.starts_with("::error ") || line.starts_with("::warning "),
            "{line}"
        );
    }
}

#[test]
fn markdown_is_one_table_whose_rows_have_as_many_cells() {
    for outcome in each_verdict() {
        let text = write(&outcome, Format::Markdown);
        assert!(text.starts_with("## ") && text.contains(outcome.1.verdict.label()));
        for row in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(row.matches('|').count(), 8, "{row}");
        }
        assert!(!text.contains("<b>"), "{text}");
    }
}

#[test]
fn text_says_what_was_found_and_on_what_it_rests() {
    let [pass, regression, inconclusive] = each_verdict().map(|outcome| write(&outcome, Format::Text));
    assert!(pass.starts_with("PASS: "), "{pass}");
    assert!(
        pass.contains("smallest change that would have been noticed"),
        "{pass}"
    );
    assert!(
        regression.starts_with("REGRESSION: ") && regression.contains("main.f5"),
        "{regression}"
    );
    assert!(
        inconclusive.starts_with("INCONCLUSIVE: the baseline has 1 run"),
        "{inconclusive}"
    );
    assert!(inconclusive.contains("suspect"), "{inconclusive}");
}

#[test]
fn a_difference_states_its_normalisation_and_draws_what_vanished() {
    let stacks = |counts: &[(&[&str], u64)]| {
        let counts: Vec<_> = counts
            .iter()
            .map(|(stack, count)| (stack.iter().map(|name| (*name).to_owned()).collect(), *count))
            .collect();
        testing::profile(&counts, profiler_abi::stop::StopReason::Root)
    };
    let mut pair = Pair::with_stacks();
    let before = stacks(&[(&["main", "old"], 100), (&["main", "same"], 300)]);
    // Twice as many samples of the same: not slower.
    let after = stacks(&[(&["main", "new"], 200), (&["main", "same"], 600)]);
    pair.add(Side::Baseline, "a", &before).unwrap();
    pair.add(Side::Candidate, "b", &after).unwrap();
    assert_eq!(
        difference::folded(&pair),
        "main;new 0 200\nmain;old 200 0\nmain;same 600 600\n"
    );
    let changes = Difference::of(&pair);
    let own = |name: &str| {
        let mut changes = changes.functions.iter();
        changes
            .find(|change| pair.function(change.frames[0]).name == name)
            .unwrap()
            .own
    };
    assert_eq!(
        (own("old"), own("new"), own("same")),
        ([0.25, 0.0], [0.0, 0.25], [0.75, 0.75])
    );
    let text = difference::text(&pair, &changes, 10);
    assert!(text.contains("Shares are of a run's own samples"), "{text}");
    let svg = String::from_utf8(difference::svg(&pair).unwrap()).unwrap();
    for name in [
        "only in the baseline",
        ">old (200 samples",
        ">new (200 samples",
        "main (800 samples",
    ] {
        assert!(svg.contains(name), "{name}: {svg}");
    }
}
