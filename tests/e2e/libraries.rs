//! Hooks of the shapes that libraries have, on SQLite that calls Go: stacks are those of Go's own profile of the same
//! time, and go on where Go's are cut.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Context, Result, ensure};
use profiler_tests::comparable::{Comparable, Frame};
use profiler_tests::profiler::{Recorder, Recording, Summary};
use profiler_tests::programs::{self, Form, GO_TOOLCHAINS, Program};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::stats::{Counts, chance, total_variation};
use profiler_tests::target::Target;
use profiler_tests::traced::{self, Place, Traced};
use profiler_tests::{exclusive, full};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

/// How long both record, in seconds. `LIBRARIES_SECONDS` changes it.
const SECONDS: u32 = 6;

/// The rate that the program asks its runtime for; see `agreement`.
const GO_HZ: u32 = 250;

/// How much further apart two profiles may be than 99 of 100 pairs are by chance.
/// Three in a hundred samples are not asked, mostly since they are in the allocator, and their stacks are as walked.
const SLACK: f64 = 0.03;

/// The reason for which threads in libgcc's unwinder are not asked, and those in the allocator.
const DANGER: &str = "its stack had code that may hold a lock which the hooks need";

/// Libraries that have such code.
const DANGEROUS: [&str; 3] = ["libgcc_s", "libc.so", "ld-linux"];

/// How many standard deviations a share may be below what is expected.
const DEVIATIONS: f64 = 3.0;

/// Share of the addresses of C in both profiles that have the same names, in percent. The others were met only in samples
/// that had no answer, though they were out of danger.
const NAMED_ALIKE: f64 = 95.0;

/// Share of the samples out of danger that are asked, in percent. The others are in Go's own signal handler, which has all
/// signals blocked, or it is due.
const ASKED: f64 = 90.0;

/// Share of the questions that are answered in time, in percent.
const ANSWERED: f64 = 97.0;

/// Share of the stacks that are whole, in percent.
const WHOLE: f64 = 99.5;

/// Share of the stacks that Go's profile has no room for, in percent: enough to prove something.
const TOO_DEEP: f64 = 1.0;

#[test]
fn a_leaf_hook_that_walks_from_inside_of_the_handler_is_honoured() -> Result<()> {
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[2..]]) {
        agree("leaf", toolchain)?;
    }
    Ok(())
}

#[test]
fn contexts_that_are_cursors_are_honoured() -> Result<()> {
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[..1]]) {
        agree("cursor", toolchain)?;
    }
    Ok(())
}

#[test]
fn contexts_that_are_whole_stacks_are_honoured() -> Result<()> {
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[1..2]]) {
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

    let mut comparable = Comparable::new(&program.path)?;
    let by_go = traced::stacks(&file)?;
    let theirs = stacks(&mut comparable, &by_go);
    let recorded = traced::stacks(&recording.pprof())?;
    let ours = stacks(&mut comparable, &recorded);
    eprintln!("{hooks}, {toolchain}:");
    account_for_all(&recorded, recording.summary()?)?;
    same_names(&comparable, &recorded, &by_go)?;
    deeper(&ours, &theirs, hooks != "leaf")?;
    let has_contexts = hooks != "leaf";
    let (ours_cut, theirs_cut) = (counts(&ours, has_contexts), counts(&theirs, has_contexts));
    let (distance, chance) = (
        total_variation(&ours_cut, &theirs_cut),
        chance(&ours_cut, &theirs_cut),
    );
    let total = |counts: &Counts| counts.values().sum::<u64>();
    eprintln!(
        "    ours {} samples, Go's {}; distance {distance:.4}, by chance {:.4} (99 %: {:.4})",
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
    let before = Snapshot::at_rest(target.pid())?;
    let (pid, duration) = (target.pid().to_string(), seconds.to_string());
    let mut recorder = Recorder::start(["-p", &pid, "-F", "499", "-d", &duration, "--hooks=require"])?;
    recorder.wait_until_sampling()?;
    target.command(&format!("profile {seconds} {} {GO_HZ}", file.display()))?;
    let recording = recorder.wait()?;
    ensure!(target.read_line()?.starts_with("profiled "));
    let after = Snapshot::at_rest(target.pid())?;
    ensure!(target.finish()?.status.success());
    let mut differences = before.differences(&after, Freedom::GoRuntime);
    // Go takes the timers of its profile from its threads when these have something to do next.
    differences.retain(|difference| !difference.starts_with("the setting timers "));
    ensure!(
        differences.is_empty(),
        "the program is not as it was:\n{}",
        differences.join("\n")
    );
    Ok(recording)
}

/// Every sample of user code with C on its stack was answered, or there is a reason.
fn account_for_all(recorded: &[Traced], summary: &Summary) -> Result<()> {
    let count = |is: &dyn Fn(&Traced) -> bool| -> u64 {
        let of_user = recorded.iter().filter(|stack| !stack.from_kernel() && is(stack));
        of_user.map(|stack| stack.count).sum()
    };
    let calls_c = |place: &Rc<Place>| place.names().any(|name| name.starts_with("runtime.asmcgocall"));
    // Where asmcgocall itself was interrupted, it may be on the system's stack already; this function of Go's it calls before.
    let is_go = |place: &Rc<Place>| place.names().any(|name| name == "gosave_systemstack_switch");
    let has_called = |pair: &[Rc<Place>]| calls_c(&pair[1]) && !is_go(&pair[0]);
    let at_least = count(&|stack| stack.places.windows(2).any(has_called));
    let at_most = count(&|stack| stack.places.iter().any(calls_c));
    let in_unwinder = count(&|stack| is_in(stack, &["libgcc_s"]));
    let in_any = count(&|stack| is_in(stack, &DANGEROUS));

    let (answered, unanswered, not_asked) = (
        summary.hook_answers()?,
        summary.unanswered()?,
        summary.not_asked()?,
    );
    let refused = summary.refused()?;
    let in_danger = not_asked.get(DANGER).copied().unwrap_or(0);
    let asked = answered + unanswered;
    let all = asked + not_asked.values().sum::<u64>();
    eprintln!(
        "    {all} samples with C: {answered} answered ({:.1} %), {unanswered} not in time ({refused:?}), {not_asked:?}; \
         {in_unwinder} in libgcc's unwinder",
        percent(answered, all),
    );
    ensure!(
        at_least <= all && all <= at_most,
        "{all} samples are accounted for, of {at_least} to {at_most}"
    );
    ensure!(
        in_unwinder <= in_danger && in_danger <= in_any,
        "{in_danger} in danger, and {in_unwinder} to {in_any} in code that may be"
    );
    ensure!(percent(asked, all - in_danger) >= ASKED, "{asked} asked");
    ensure!(
        percent(answered, asked) >= ANSWERED,
        "{answered} of {asked} answered"
    );
    Ok(())
}

/// What the program's symbolizer named for Go, it named for us, functions that it says are inlined included.
fn same_names(comparable: &Comparable, ours: &[Traced], theirs: &[Traced]) -> Result<()> {
    let names = |stacks: &mut dyn Iterator<Item = &Traced>| {
        let mut names: BTreeMap<u64, BTreeSet<Vec<String>>> = BTreeMap::new();
        for place in stacks.flat_map(|stack| &stack.places) {
            if !comparable.is_go(place) && !place.functions.is_empty() {
                let of_place = names.entry(place.address).or_default();
                of_place.insert(place.names().map(str::to_owned).collect());
            }
        }
        names
    };
    // Those in danger were not asked.
    let ours = names(&mut ours.iter().filter(|stack| !is_in(stack, &DANGEROUS)));
    let theirs = names(&mut theirs.iter());
    let both: Vec<_> = theirs
        .iter()
        .filter_map(|(address, theirs)| Some((theirs, ours.get(address)?)))
        .collect();
    // A sample that has no answer for another reason may have walked to the same address.
    let (same, others): (Vec<_>, Vec<_>) = both
        .iter()
        .copied()
        .partition(|(theirs, ours)| theirs.is_subset(ours));
    let (same, both) = (same.len() as u64, both.len() as u64);
    let inlined = ours
        .values()
        .flatten()
        .any(|names| names[..] == ["fold_letter", "fold"]);
    eprintln!("    {same} of {both} addresses of C that both have are named alike");
    ensure!(percent(same, both) >= NAMED_ALIKE, "named otherwise: {others:?}");
    ensure!(inlined, "no inlined function of the symbolizer's");
    Ok(())
}

/// Whether a frame is in one of these libraries.
fn is_in(stack: &Traced, libraries: &[&str]) -> bool {
    let mappings = stack.places.iter().filter_map(|place| place.mapping.as_ref());
    let mut names = mappings.filter_map(|mapping| mapping.path.rsplit('/').next());
    names.any(|name| libraries.iter().any(|library| name.starts_with(library)))
}

fn percent(of: u64, all: u64) -> f64 {
    of as f64 * 100.0 / all.max(1) as f64
}

/// Stacks that Go's profile has no room for are whole in ours, and begin as Go's do.
fn deeper(ours: &Stacks, theirs: &Stacks, has_contexts: bool) -> Result<()> {
    let count = |stacks: &Stacks, is: &dyn Fn(&[Frame]) -> bool| -> u64 {
        let of_kind = stacks.iter().filter(|(frames, _)| is(frames));
        of_kind.map(|(_, n)| n).sum()
    };
    let all = count(ours, &|_| true);
    let too_deep = count(ours, &Comparable::is_too_deep);
    let cut = count(ours, &|frames| !Comparable::is_whole(frames));
    ensure!(percent(too_deep, all) >= TOO_DEEP, "{too_deep} of {all} are deep");
    ensure!(
        percent(all - cut, all) >= WHOLE,
        "{cut} of {all} are cut:\n{}",
        cut_stacks(ours)
    );

    // Where a C segment is cut: what is left of it, and samples.
    let cut_by_go = |stacks: &Stacks| {
        let mut cut = Stacks::new();
        for (frames, n) in stacks {
            let beginning = beginning(frames, has_contexts);
            if !Comparable::is_whole(&beginning) {
                *cut.entry(beginning).or_default() += n;
            }
        }
        cut
    };
    let (ours, theirs) = (cut_by_go(ours), cut_by_go(theirs));
    let (n, of) = (count(&theirs, &|_| true), count(&ours, &|_| true));
    let found = percent(count(&theirs, &|frames| ours.contains_key(frames)), n);
    // That a sample has a stack that others have had: all but as many as have been met once (Good, Turing). Both shares vary by
    // chance: Go's, and that of ours (the variance of the estimate is Good's, "The population frequencies of species", 1953, of
    // those met once and twice). None met once is not that none can be.
    let met = |times: u64| ours.values().filter(|n| **n == times).count() as u64;
    let (once, twice) = (met(1).max(1), met(2));
    let expected = percent(of.saturating_sub(once), of);
    let of_theirs = expected * (100.0 - expected) / n.max(1) as f64;
    let of_ours = 100.0 * percent(once + 2 * twice, of) / of.max(1) as f64;
    let deviation = (of_theirs + of_ours).sqrt();
    eprintln!(
        "    {too_deep} of {all} stacks are too deep for Go's profile, {cut} are cut; of Go's, {n} are: {found:.1} % of these \
         begin as ours (expected: {expected:.1} %, deviation {deviation:.1})"
    );
    ensure!(
        found >= expected - DEVIATIONS * deviation,
        "Go's do not begin as ours"
    );
    Ok(())
}

fn cut_stacks(stacks: &Stacks) -> String {
    let cut = stacks.keys().filter(|frames| !Comparable::is_whole(frames));
    let names = |frames: &Vec<Frame>| {
        frames
            .iter()
            .map(|frame| &*frame.name)
            .collect::<Vec<_>>()
            .join(";")
    };
    cut.map(names).collect::<Vec<_>>().join("\n")
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
        let names: Vec<_> = beginning(frames, has_contexts)
            .into_iter()
            .map(|frame| frame.name)
            .collect();
        *counts.entry(names.join(";")).or_default() += n;
    }
    counts
}

/// What both profiles have of a stack in any case.
fn beginning(frames: &[Frame], has_contexts: bool) -> Vec<Frame> {
    if has_contexts {
        Comparable::limited(frames)
    } else {
        Comparable::limited(&Comparable::without_callers(frames))
    }
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
