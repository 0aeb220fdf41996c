//! Hooks of the shapes that libraries have, on SQLite that calls Go: stacks are those of Go's own profile of the same
//! time, and go on where Go's are cut.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Context, Result, ensure};
use profiler_tests::comparable::{Comparable, Frame};
use profiler_tests::exclusive;
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs::{self, Form, GO_TOOLCHAINS, Program};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::stats::{Counts, chance, total_variation};
use profiler_tests::target::Target;
use profiler_tests::traced::{self, Traced};
use std::collections::BTreeMap;
use std::path::Path;

/// How long both record, in seconds. `LIBRARIES_SECONDS` changes it.
const SECONDS: u32 = 6;

/// The rate that the program asks its runtime for; see `agreement`.
const GO_HZ: u32 = 250;

/// How much further apart two profiles may be than 99 of 100 pairs are by chance.
const SLACK: f64 = 0.02;

#[test]
fn a_leaf_hook_that_walks_from_inside_of_the_handler_is_honoured() -> Result<()> {
    for toolchain in GO_TOOLCHAINS {
        agree("leaf", toolchain)?;
    }
    Ok(())
}

#[test]
fn contexts_that_are_cursors_are_honoured() -> Result<()> {
    for toolchain in GO_TOOLCHAINS {
        agree("cursor", toolchain)?;
    }
    Ok(())
}

#[test]
fn contexts_that_are_whole_stacks_are_honoured() -> Result<()> {
    for toolchain in GO_TOOLCHAINS {
        agree("eager", toolchain)?;
    }
    Ok(())
}

/// Stacks that can be compared, and samples of each.
type Stacks = BTreeMap<Vec<Frame>, u64>;

fn agree(hooks: &str, toolchain: &str) -> Result<()> {
    let _guard = exclusive();
    let program = programs::go("go_sqlite", toolchain, Form::Exe, "")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("own.pb.gz");
    let recording = record_both(&program, hooks, &file)?;

    let mut comparable = Comparable::new(&program.path);
    let theirs = stacks(&mut comparable, &traced::stacks(&file)?);
    let ours = stacks(&mut comparable, &traced::stacks(&recording.pprof())?);
    let has_contexts = hooks != "leaf";
    let (ours_cut, theirs_cut) = (counts(&ours, has_contexts), counts(&theirs, has_contexts));
    let (distance, chance) = (
        total_variation(&ours_cut, &theirs_cut),
        chance(&ours_cut, &theirs_cut),
    );
    let total = |counts: &Counts| counts.values().sum::<u64>();
    eprintln!(
        "{hooks}, {toolchain}: ours {} samples, Go's {}; distance {distance:.4}, by chance {:.4} (99 %: {:.4})",
        total(&ours_cut),
        total(&theirs_cut),
        chance.mean,
        chance.p99,
    );
    ensure!(
        distance <= chance.p99 + SLACK,
        "too far apart:\n{}",
        side_by_side(&ours_cut, &theirs_cut)
    );
    Ok(())
}

/// Records a program while it records itself, to `file`. It has to be the same after as before.
fn record_both(program: &Program, hooks: &str, file: &Path) -> Result<Recording> {
    let seconds = match std::env::var("LIBRARIES_SECONDS") {
        Ok(text) => text.parse().context("LIBRARIES_SECONDS is not a number")?,
        Err(_) => SECONDS,
    };
    let mut command = program.command();
    // The signal by which Go preempts a goroutine and the one by which it samples wait for the same tick; see `agreement`.
    command.arg(hooks).env("GODEBUG", "asyncpreemptoff=1");
    let mut target = Target::start(command)?;
    // The first profile opens what the runtime and the symbolizer keep.
    target.command(&format!("profile 0.3 {} 100", file.display()))?;
    ensure!(target.read_line()?.starts_with("profiled "));
    let before = Snapshot::take(target.pid())?;
    let (pid, duration) = (target.pid().to_string(), seconds.to_string());
    let mut recorder = Recorder::start([
        "-p",
        &pid,
        "-F",
        "499",
        "-d",
        &duration,
        "--no-kernel",
        "--hooks=require",
    ])?;
    recorder.wait_until_sampling()?;
    target.command(&format!("profile {seconds} {} {GO_HZ}", file.display()))?;
    let recording = recorder.wait()?;
    ensure!(target.read_line()?.starts_with("profiled "));
    let after = Snapshot::take(target.pid())?;
    ensure!(target.finish()?.status.success());
    let differences = before.differences(&after, Freedom::GoRuntime);
    ensure!(
        differences.is_empty(),
        "the program is not as it was:\n{}",
        differences.join("\n")
    );
    Ok(recording)
}

fn stacks(comparable: &mut Comparable, profile: &[Traced]) -> Stacks {
    let mut stacks = Stacks::new();
    for stack in profile {
        if let Some(frames) = comparable.frames(stack) {
            *stacks.entry(frames).or_default() += stack.count;
        }
    }
    stacks
}

/// Samples of each stack, as far as it can be compared.
fn counts(stacks: &Stacks, has_contexts: bool) -> Counts {
    let mut counts = Counts::new();
    for (frames, n) in stacks {
        let frames = if has_contexts {
            frames.clone()
        } else {
            Comparable::without_callers(frames)
        };
        let names: Vec<_> = Comparable::limited(&frames)
            .into_iter()
            .map(|frame| frame.name)
            .collect();
        *counts.entry(names.join(";")).or_default() += n;
    }
    counts
}

fn side_by_side(ours: &Counts, theirs: &Counts) -> String {
    let mut rows: Vec<_> = ours
        .keys()
        .chain(theirs.keys().filter(|stack| !ours.contains_key(*stack)))
        .map(|stack| {
            let of = |counts: &Counts| counts.get(stack).copied().unwrap_or(0);
            (of(ours), of(theirs), stack)
        })
        .collect();
    let all = |counts: &Counts| counts.values().sum::<u64>().max(1) as f64;
    let (all_ours, all_theirs) = (all(ours), all(theirs));
    let apart = |row: &(u64, u64, &String)| (row.0 as f64 / all_ours - row.1 as f64 / all_theirs).abs();
    rows.sort_by(|a, b| apart(b).total_cmp(&apart(a)));
    let table: String = rows
        .iter()
        .take(20)
        .map(|(ours, theirs, stack)| format!("{ours:7} {theirs:7}  {stack}\n"))
        .collect();
    format!("   ours    Go's  stack\n{table}")
}
