//! Simulated recordings.

use super::{Pair, Side};
use crate::profile::{Builder, Frame, FrameId, Kind, Measure, Meta, Origin, Profile, Roots, Summary, Thread};
use profiler_abi::stop::StopReason;
use rand::rngs::StdRng;
use rand_distr::{Binomial, Distribution, Normal};
use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

/// A stack, root first, and how much CPU time it takes.
pub(super) type Load = Vec<(Vec<String>, f64)>;

/// A program of `functions` functions below ten callers, shares falling with their number: the first takes a tenth, the
/// smallest some thousandths. `main.f5` takes 5 %.
pub(super) fn program(functions: usize) -> Load {
    let weight = |at: usize| 1.0 / (at as f64 + 8.0);
    let sum: f64 = (0..functions).filter(|&at| at != 5).map(weight).sum();
    (0..functions)
        .map(|at| {
            let share = if at == 5 { 0.05 } else { 0.95 * weight(at) / sum };
            let caller = format!("main.g{}", at % 10);
            (vec!["main.main".to_owned(), caller, format!("main.f{at}")], share)
        })
        .collect()
}

/// The same program after a change of one function.
pub(super) fn scaled(load: &Load, function: &str, factor: f64) -> Load {
    let mut load = load.clone();
    for (stack, weight) in &mut load {
        if stack.last().is_some_and(|name| name == function) {
            *weight *= factor;
        }
    }
    load
}

/// How runs differ.
#[derive(Clone, Copy)]
pub(super) struct Noise {
    /// Of each function's weight, from run to run: standard deviation as a fraction.
    pub(super) jitter: f64,
    /// Samples of a run that takes the time that loads of 1 in all take.
    pub(super) samples: f64,
}

/// One run: jitter, then sampling.
pub(super) fn run(load: &Load, noise: Noise, rng: &mut StdRng) -> Profile {
    let jitter = Normal::new(0.0, noise.jitter).unwrap();
    // What makes a whole run slower: the clock, the cache, the neighbours.
    let whole: f64 = jitter.sample(rng);
    let counts: Vec<(Vec<String>, u64)> = load
        .iter()
        .map(|(stack, weight)| {
            let weight = weight * (whole + jitter.sample(rng)).exp();
            // Many ticks, each a sample of this stack or not.
            let ticks = (20.0 * noise.samples) as u64;
            let chance = (weight * noise.samples / ticks as f64).clamp(0.0, 1.0);
            (stack.clone(), Binomial::new(ticks, chance).unwrap().sample(rng))
        })
        .collect();
    profile(&counts, StopReason::Root)
}

/// A recording of these stacks.
pub(super) fn profile(counts: &[(Vec<String>, u64)], stop: StopReason) -> Profile {
    let mut builder = Builder::default();
    let mut summary = Summary::default();
    let mut ids: HashMap<String, FrameId> = HashMap::new();
    let thread = builder.thread(Thread {
        pid: 1,
        tid: 1,
        name: "bench".to_owned(),
        process: String::new(),
    });
    for (stack, count) in counts {
        let mut frames = Vec::new();
        for name in stack {
            let next = ids.len() as u32 + 1;
            let id = *ids
                .entry(name.clone())
                .or_insert_with(|| builder.frame(frame(name, next)));
            frames.push(id);
        }
        builder.sample(thread, frames, stop, false, *count);
        summary.kept += count;
        *summary.by_stop.entry(stop).or_default() += count;
    }
    let meta = Meta {
        program: "bench".to_owned(),
        pids: vec![1],
        start: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        duration: Duration::from_secs(30),
        frequency_hz: 997,
        facts: [
            ("cpu", "Model 1"),
            ("cpus", "4"),
            ("kernel", "6.1.0"),
            ("machine", "x86_64"),
            ("go", "go1.26"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        measure: Measure::default(),
        roots: Roots::default(),
    };
    builder.finish(meta, summary)
}

fn frame(name: &str, number: u32) -> Frame {
    Frame {
        function: name.to_owned(),
        system_name: None,
        file: Some(format!("/src/bench/{}.go", name.rsplit('.').next().unwrap())),
        line: Some(number + 3),
        start_line: Some(number),
        module: None,
        address: u64::from(number) * 16,
        kind: Kind::Go,
        origin: Origin::Walked,
        inlined: false,
    }
}

/// So many runs of each side.
pub(super) fn pair(loads: [&Load; 2], runs: usize, noise: Noise, rng: &mut StdRng) -> Pair {
    let mut pair = Pair::with_stacks();
    for side in Side::BOTH {
        for number in 0..runs {
            let profile = run(loads[side as usize], noise, rng);
            pair.add(side, &format!("{}-{number}", side.label()), &profile)
                .unwrap();
        }
    }
    pair.check().unwrap();
    pair
}
