//! What the verdict is worth: simulated runs whose truth is known.

use super::testing::{Load, Noise, pair, profile, program, run, scaled};
use super::{Error, Judgement, Measure, Pair, Policy, Side, Status, Verdict, judge};
use profiler_abi::stop::StopReason;
use rand::SeedableRng;
use rand::rngs::StdRng;

const QUIET: Noise = Noise {
    jitter: 0.02,
    samples: 30_000.0,
};

fn check(loads: [&Load; 2], runs: usize, noise: Noise, seed: u64) -> (Pair, Judgement) {
    let pair = pair(loads, runs, noise, &mut StdRng::seed_from_u64(seed));
    let judgement = judge(&pair, &Policy::default());
    (pair, judgement)
}

fn blamed(pair: &Pair, judgement: &Judgement) -> Vec<String> {
    judgement
        .findings
        .iter()
        .filter(|finding| finding.evidence.status == Status::Regression)
        .map(|finding| pair.function(finding.function).name.clone())
        .collect()
}

fn status_of(pair: &Pair, judgement: &Judgement, name: &str) -> Status {
    judgement
        .findings
        .iter()
        .find(|finding| finding.measure == Measure::Own && pair.function(finding.function).name == name)
        .unwrap()
        .evidence
        .status
}

/// 200 comparisons of unchanged code.
fn false_alarms(runs: usize, jitter: f64) -> usize {
    let program = program(60);
    let noise = Noise { jitter, ..QUIET };
    let mut inconclusive = 0;
    let failed = (0..200)
        .filter(|&seed| {
            let (_, judgement) = check([&program, &program], runs, noise, seed);
            inconclusive += usize::from(judgement.verdict == Verdict::Inconclusive);
            judgement.verdict == Verdict::Regression
        })
        .count();
    // Five runs that differ by 5 % cannot show much; all the others can.
    assert!(
        inconclusive <= 20 || (runs, jitter) == (5, 0.05),
        "{inconclusive} of 200 are inconclusive"
    );
    failed
}

#[test]
fn unchanged_code_fails_in_at_most_five_of_a_hundred_checks() {
    for runs in [5, 8] {
        for jitter in [0.02, 0.05] {
            let failed = false_alarms(runs, jitter);
            assert!(failed <= 10, "{runs} runs, jitter {jitter}: {failed} of 200");
        }
    }
}

#[test]
fn ten_percent_on_a_function_of_five_percent_is_found_and_blamed_on_it() {
    let before = program(60);
    let after = scaled(&before, "main.f5", 1.1);
    let found = (0..200)
        .filter(|&seed| {
            let (pair, judgement) = check([&before, &after], 8, QUIET, 1_000 + seed);
            judgement.verdict == Verdict::Regression
                && blamed(&pair, &judgement).contains(&"main.f5".to_owned())
        })
        .count();
    assert!(found >= 180, "{found} of 200");
}

#[test]
fn a_program_that_gets_slower_everywhere_is_found_though_no_share_moves() {
    let before = program(60);
    let after: Load = before
        .iter()
        .map(|(stack, weight)| (stack.clone(), weight * 1.15))
        .collect();
    let found = (0..50)
        .filter(|&seed| {
            let (pair, judgement) = check([&before, &after], 8, QUIET, seed);
            judgement.verdict == Verdict::Regression
                && judgement.program.as_ref().unwrap().evidence.status == Status::Regression
                && blamed(&pair, &judgement).is_empty()
        })
        .count();
    assert!(found >= 45, "{found} of 50");
}

#[test]
fn a_function_that_vanishes_does_not_make_the_others_regressions() {
    let before = program(60);
    let after = scaled(&scaled(&before, "main.f0", 0.0), "main.f1", 0.0);
    for seed in 0..20 {
        let (pair, judgement) = check([&before, &after], 8, QUIET, seed);
        assert_eq!(
            judgement.verdict,
            Verdict::Pass,
            "{:?}",
            blamed(&pair, &judgement)
        );
        assert_eq!(status_of(&pair, &judgement, "main.f0"), Status::Improved);
    }
}

/// The program with one stack replaced by others, which take these parts of its time.
fn refactored(load: &Load, function: &str, parts: &[(&[&str], f64)]) -> Load {
    let mut out = Load::new();
    for (stack, weight) in load {
        if stack.last().is_some_and(|name| name == function) {
            let callers = &stack[..stack.len() - 1];
            for (names, part) in parts {
                let names = names.iter().map(|name| (*name).to_owned());
                out.push((callers.iter().cloned().chain(names).collect(), weight * part));
            }
        } else {
            out.push((stack.clone(), *weight));
        }
    }
    out
}

#[test]
fn refactored_code_of_equal_cost_passes() {
    let before = program(60);
    let renamed = refactored(&before, "main.f5", &[(&["main.renamed"], 1.0)]);
    let split = refactored(&before, "main.f5", &[(&["main.one"], 0.5), (&["main.two"], 0.5)]);
    let outlined = refactored(
        &before,
        "main.f5",
        &[(&["main.f5"], 0.3), (&["main.f5", "main.part"], 0.7)],
    );
    let inlined = refactored(&before, "main.f5", &[(&[], 1.0)]);
    for (what, after, function) in [
        ("renamed", &renamed, "main.renamed"),
        ("split", &split, "main.two"),
        ("outlined", &outlined, "main.part"),
        ("inlined", &inlined, "main.g5"),
    ] {
        for seed in 0..20 {
            for (loads, moved) in [([&before, after], function), ([after, &before], "main.f5")] {
                let (pair, judgement) = check(loads, 8, QUIET, seed);
                assert_eq!(
                    judgement.verdict,
                    Verdict::Pass,
                    "{what} {seed}: {:?}",
                    judgement.reasons
                );
                assert_eq!(
                    status_of(&pair, &judgement, moved),
                    Status::Moved,
                    "{what} {seed}"
                );
            }
        }
    }
}

#[test]
fn a_refactoring_that_costs_more_fails() {
    let before = program(60);
    let after = refactored(&before, "main.f5", &[(&["main.one"], 0.8), (&["main.two"], 0.8)]);
    let found = (0..20)
        .filter(|&seed| {
            let (pair, judgement) = check([&before, &after], 8, QUIET, seed);
            blamed(&pair, &judgement)
                .iter()
                .any(|name| name == "main.one" || name == "main.two")
        })
        .count();
    assert_eq!(found, 20);
}

#[test]
fn a_rise_in_many_small_callees_is_seen_in_their_caller() {
    // 40 functions of 0.25 % each below one caller.
    let mut before = program(60);
    before.extend((0..40).map(|at| {
        let names = ["main.main", "main.many"].map(str::to_owned);
        (
            names.into_iter().chain([format!("main.small{at}")]).collect(),
            0.0025,
        )
    }));
    let after: Load = before
        .iter()
        .map(|(stack, weight)| {
            (
                stack.clone(),
                if stack[1] == "main.many" {
                    weight * 1.3
                } else {
                    *weight
                },
            )
        })
        .collect();
    let (pair, judgement) = check([&before, &after], 8, QUIET, 1);
    assert_eq!(
        blamed(&pair, &judgement),
        ["main.many"],
        "{:?}",
        judgement.reasons
    );
}

#[test]
fn of_a_chain_of_callers_only_the_cause_is_blamed() {
    let chain = |weight| {
        let mut load = program(60);
        let names = ["main.main", "main.outer", "main.inner", "main.cause"];
        load.push((names.map(str::to_owned).to_vec(), weight));
        load
    };
    let (pair, judgement) = check([&chain(0.1), &chain(0.15)], 8, QUIET, 1);
    assert_eq!(blamed(&pair, &judgement), ["main.cause"]);
    let callers = judgement
        .findings
        .iter()
        .filter(|finding| finding.evidence.status == Status::Caller);
    assert_eq!(callers.count(), 2);
}

#[test]
fn too_few_runs_are_inconclusive_and_a_large_change_is_suspect() {
    let before = program(60);
    let after = scaled(&before, "main.f5", 2.0);
    for runs in [1, 2] {
        let (_, judgement) = check([&before, &before], runs, QUIET, 1);
        assert_eq!(judgement.verdict, Verdict::Inconclusive);
        let (pair, judgement) = check([&before, &after], runs, QUIET, 1);
        assert_eq!(
            judgement.verdict,
            Verdict::Inconclusive,
            "{:?}",
            judgement.reasons
        );
        assert_eq!(judgement.exit_code(&Policy::default()), 3);
        assert_eq!(status_of(&pair, &judgement, "main.f5"), Status::Suspect);
    }
}

#[test]
fn tiny_profiles_are_inconclusive() {
    let program = program(60);
    for samples in [30.0, 300.0, 1_000.0] {
        let noise = Noise { samples, ..QUIET };
        let (_, judgement) = check([&program, &program], 5, noise, 1);
        assert_eq!(judgement.verdict, Verdict::Inconclusive, "{samples}");
    }
}

/// Runs of which the candidate's are changed by `change`.
fn altered(change: impl Fn(usize, &mut crate::profile::Profile)) -> Judgement {
    let program = program(60);
    let mut rng = StdRng::seed_from_u64(1);
    let mut pair = Pair::default();
    for side in Side::BOTH {
        for number in 0..5 {
            let mut profile = run(&program, QUIET, &mut rng);
            if side == Side::Candidate {
                change(number, &mut profile);
            }
            pair.add(side, &format!("{}-{number}", side.label()), &profile)
                .unwrap();
        }
    }
    judge(&pair, &Policy::default())
}

#[test]
fn sides_that_cannot_be_compared_are_inconclusive() {
    assert_eq!(altered(|_, _| {}).verdict, Verdict::Pass);
    let truncated = altered(|_, profile| {
        let cut = profile.summary.kept / 5;
        profile
            .summary
            .by_stop
            .insert(StopReason::Root, profile.summary.kept - cut);
        profile.summary.by_stop.insert(StopReason::NoRule, cut);
    });
    let lossy = altered(|_, profile| profile.summary.lost_ring_full = profile.summary.kept / 4);
    let other_host = altered(|_, profile| profile.meta.facts[0].1 = "Model 2".to_owned());
    let other_kernel = altered(|_, profile| profile.meta.facts[2].1 = "6.2.0".to_owned());
    for (judgement, word) in [
        (truncated, "whole"),
        (lossy, "lost"),
        (other_host, "Model 2"),
        (other_kernel, "6.2.0"),
    ] {
        assert_eq!(judgement.verdict, Verdict::Inconclusive);
        assert!(judgement.reasons[0].contains(word), "{:?}", judgement.reasons);
    }
    let other_go = altered(|_, profile| profile.meta.facts[4].1 = "go1.27".to_owned());
    assert_eq!(other_go.verdict, Verdict::Pass);
    assert!(other_go.issues[0].text.contains("go1.27"));
}

#[test]
fn the_same_recording_on_both_sides_is_noticed() {
    let mut rng = StdRng::seed_from_u64(1);
    let profiles: Vec<_> = (0..5).map(|_| run(&program(60), QUIET, &mut rng)).collect();
    let mut pair = Pair::default();
    for side in Side::BOTH {
        for (number, profile) in profiles.iter().enumerate() {
            pair.add(side, &format!("{number}.pb.gz"), profile).unwrap();
        }
    }
    let judgement = judge(&pair, &Policy::default());
    assert_eq!(judgement.verdict, Verdict::Inconclusive);
    assert!(
        judgement.reasons[0].contains("same recording"),
        "{:?}",
        judgement.reasons
    );
}

#[test]
fn a_policy_decides_what_fails() {
    use super::{FailOn, FunctionRule};
    let before = program(60);
    let after = scaled(&before, "main.f5", 1.3);
    let pair = pair([&before, &after], 8, QUIET, &mut StdRng::seed_from_u64(1));
    let code = |policy: &Policy| judge(&pair, policy).exit_code(policy);
    let default = Policy::default();
    assert_eq!(code(&default), 2);
    let ignored = Policy {
        ignore: vec!["main.f5".to_owned(), "main.g5".to_owned()],
        ..default.clone()
    };
    assert_eq!(code(&ignored), 0);
    let allowed = Policy {
        functions: ["main.f5", "main.g5"]
            .map(|name| FunctionRule {
                name: name.to_owned(),
                min_change: 0.5,
            })
            .to_vec(),
        ..default.clone()
    };
    assert_eq!(code(&allowed), 0);
    let never = Policy {
        fail_on: [FailOn::Never].into(),
        ..default
    };
    assert_eq!(code(&never), 0);
}

#[test]
fn what_cannot_be_compared_at_all_is_an_error() {
    let stacks = |name: &str, count| vec![(vec![name.to_owned()], count)];
    let mut pair = Pair::default();
    let empty = profile(&[], StopReason::Root);
    let name = "empty.pb.gz".to_owned();
    assert_eq!(
        pair.add(Side::Baseline, &name, &empty),
        Err(Error::Empty { name })
    );
    assert_eq!(pair.check(), Err(Error::NoRuns { side: Side::Baseline }));
    let one = profile(&stacks("main.a", 5), StopReason::Root);
    pair.add(Side::Baseline, "a", &one).unwrap();
    assert_eq!(
        pair.check(),
        Err(Error::NoRuns {
            side: Side::Candidate
        })
    );
    let mut other = profile(&stacks("main.b", 5), StopReason::Root);
    pair.add(Side::Candidate, "b", &other).unwrap();
    assert!(matches!(pair.check(), Err(Error::NoOverlap { .. })));
    other.meta.frequency_hz = 99;
    let error = pair.add(Side::Candidate, "c.pb.gz", &other).unwrap_err();
    assert!(
        error.to_string().starts_with("c.pb.gz: ") && error.to_string().contains("997 Hz"),
        "{error}"
    );
}
