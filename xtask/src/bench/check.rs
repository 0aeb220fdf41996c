//! What `profiler check` and `profiler diff` need for large profiles.

use super::{Figure, median_and_most};
use anyhow::{Result, ensure};
use profiler_tests::{profiler, synthetic, usage};
use std::ffi::OsString;
use std::fs;

const STACKS: usize = 50_000;
const RUNS: u64 = 8;
const REPETITIONS: usize = 5;

pub(super) fn run() -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let side = |name: &str, seed: u64| -> Result<Vec<OsString>> {
        (0..RUNS)
            .map(|run| {
                let path = folder.path().join(format!("{name}-{run}.pb.gz"));
                let run = synthetic::Run {
                    stacks: STACKS,
                    seed: seed + run,
                    ..synthetic::Run::default()
                };
                fs::write(&path, run.write()?)?;
                Ok(path.into_os_string())
            })
            .collect()
    };
    let (baseline, candidate) = (side("old", 0)?, side("new", RUNS)?);
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let check = [
        words(&["check", "--baseline"]),
        baseline.clone(),
        words(&["--candidate"]),
        candidate.clone(),
    ];
    let diff = [words(&["diff"]), baseline, words(&["--new"]), candidate];
    let mut figures = measure("check", &check.concat(), "2 s", "500 MiB")?;
    figures.extend(measure("diff", &diff.concat(), "", "")?);
    Ok(figures)
}

fn measure(what: &str, args: &[OsString], time: &str, memory: &str) -> Result<Vec<Figure>> {
    let (mut wall, mut cpu, mut peak) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let used = usage::of(&mut profiler::command(args)?)?;
        ensure!(
            used.status.success(),
            "{what}: {}\n{}{}",
            used.status,
            used.stdout,
            used.stderr
        );
        wall.push(used.wall);
        cpu.push(used.cpu);
        peak.push(used.peak_memory);
    }
    let data = format!("{what}, 2 × {RUNS} profiles of {STACKS} stacks");
    let mut figures = Vec::new();
    for (name, times, promised) in [("time", &mut wall, time), ("CPU time", &mut cpu, "")] {
        if let Some((median, most)) = median_and_most(times) {
            let (median, most) = (median.as_secs_f64(), most.as_secs_f64());
            figures.push(Figure::new(
                format!("{data}: {name}, median"),
                format!("{median:.2} s"),
                promised,
            ));
            figures.push(Figure::new(
                format!("{data}: {name}, most"),
                format!("{most:.2} s"),
                promised,
            ));
        }
    }
    if let Some((_, most)) = median_and_most(&mut peak) {
        let found = format!("{} MiB", most >> 20);
        figures.push(Figure::new(format!("{data}: memory, most"), found, memory));
    }
    Ok(figures)
}
