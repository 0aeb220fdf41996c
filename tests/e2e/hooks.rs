//! Traceback hooks are honoured from outside, and the program is as it was.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Context, Result, ensure};
use profiler_tests::folded::Folded;
use profiler_tests::profiler::{Recording, record};
use profiler_tests::programs::{self, Form, GO_TOOLCHAINS};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::Target;
use profiler_tests::testprogcgo::{Driven, TestProgCgo};
use profiler_tests::{exclusive, full};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Share of the samples that are as the hook says, in percent. The others had no answer in time.
const ANSWERED: f64 = 98.5;

#[test]
fn the_leaf_is_what_the_hook_says_it_is() -> Result<()> {
    let _guard = exclusive();
    // Of the other builds, `conformance` looks at the same program.
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[2..]]) {
        let mode = "pie";
        let programs = TestProgCgo::build(toolchain, mode)?;
        let (recording, profiles) = honoured(&programs, "CgoPprof")?;
        let stacks = recording.stacks()?;
        // The hook says that all time in C is in cpuHog, which cpuHog2 called (testprogcgo/pprof.go).
        let (answered, in_c) = counts(stacks, "runtime.asmcgocall", |below| {
            below == ["cpuHog2", "cpuHog"]
        });
        report(&format!("{toolchain} {mode}, CgoPprof"), answered, in_c, ANSWERED)?;
        // Go's own profiles of the same time say the same.
        for profile in &profiles {
            let traces = traces(profile)?;
            fs::remove_file(profile)?;
            ensure!(
                is_in_order(&traces, &["cpuHog", "cpuHog2", "main._Cfunc_cpuHog"]),
                "Go's own profile is another one:\n{traces}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_context_stands_where_its_callback_came_through_c() -> Result<()> {
    let _guard = exclusive();
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[1..2]]) {
        let programs = TestProgCgo::build(toolchain, "exe")?;
        let (recording, _) =
            honoured(&programs, "TracebackContextPreemption").with_context(|| format!("with {toolchain}"))?;
        let stacks = recording.stacks()?;
        // Each context is 1, and what the hook says of that is the address 0x100 (testprogcgo/tracebackctxt_c.c), which
        // is in no mapping. The symbolizer has two lines of cFunction for it, one inlined in the other.
        let callback = "main.TracebackContextPreemptionGoFunction";
        let (answered, in_callback) = counts_at(stacks, callback, |stack, at| {
            let before: Vec<&str> = stack[..at].iter().rev().map(String::as_str).collect();
            let from = before.iter().position(|&frame| frame == "crosscall2");
            from.is_some_and(|from| {
                before[from + 1..].starts_with(&["cFunction", "cFunction", "runtime.asmcgocall"])
            })
        });
        report(
            &format!("{toolchain}, TracebackContextPreemption"),
            answered,
            in_callback,
            ANSWERED,
        )?;
    }
    Ok(())
}

#[test]
fn a_program_without_hooks_is_recorded_as_walked_or_not_at_all() -> Result<()> {
    let _guard = exclusive();
    let target = Target::start(programs::go("go_nested", "local", Form::Exe, "")?.command())?;
    let pid = target.pid().to_string();
    let required = record(["-p", &pid, "-d", "1", "--hooks=require"])?;
    ensure!(required.status.code() == Some(1), "{required:?}");
    ensure!(
        required.stderr.contains("no traceback function"),
        "{}",
        required.stderr
    );
    let auto = record(["-p", &pid, "-d", "1", "-F", "499", "--hooks=auto"])?;
    ensure!(auto.stacks()?.with_frame("main.work") > 0);
    ensure!(!auto.stderr.contains("hook"), "{}", auto.stderr);
    ensure!(target.finish()?.status.success());
    Ok(())
}

/// Records one of Go's own programs with its hooks. It has to be the same after as before. Also the profiles that it took
/// of itself meanwhile.
fn honoured(programs: &TestProgCgo, name: &str) -> Result<(Recording, Vec<String>)> {
    let mut target = Target::start(programs.driven(name, Driven::Rounds))?;
    // At rest: its own profiler opens files of its own now and then.
    target.command("pause")?;
    let mut output = target.read_line()?;
    let before = Snapshot::at_rest(target.pid())?;
    target.command("go on")?;
    let pid = target.pid().to_string();
    let recording = record([
        "-p",
        &pid,
        "-F",
        "499",
        "-d",
        "4",
        // Else samples in the kernel would look like those whose hooks gave nothing.
        "--kernel",
        "--hooks=require",
    ])?;
    target.command("pause")?;
    output = format!("{output} {}", target.read_line()?);
    let after = Snapshot::at_rest(target.pid())?;
    ensure!(target.finish()?.status.success());
    let differences = before.differences(&after, Freedom::GoRuntime);
    ensure!(
        differences.is_empty(),
        "{name} is not as it was:\n{}",
        differences.join("\n")
    );
    let profiles = output.split_whitespace().filter(|word| Path::new(word).is_file());
    Ok((recording, profiles.map(str::to_owned).collect()))
}

/// Of the samples of user code that have `function` in their stack, those for which `is_expected` holds of what is below the
/// innermost one.
fn counts(stacks: &Folded, function: &str, is_expected: impl Fn(&[String]) -> bool) -> (u64, u64) {
    counts_at(stacks, function, |stack, at| is_expected(&stack[at + 1..]))
}

fn counts_at(stacks: &Folded, function: &str, is_expected: impl Fn(&[String], usize) -> bool) -> (u64, u64) {
    let mut counts = (0, 0);
    // In the kernel nobody is asked, since the signal would come when the system call is over, and neither are threads in
    // a signal handler of Go's, which has all signals blocked.
    for stack in stacks.stacks.iter().filter(|stack| !stack.from_kernel()) {
        let user = stack.user();
        if user
            .iter()
            .any(|frame| frame == "runtime.sigtramp" || frame == "runtime.cgoSigtramp")
        {
            continue;
        }
        let Some(at) = user.iter().rposition(|frame| frame == function) else {
            continue;
        };
        counts.1 += stack.count;
        if is_expected(user, at) {
            counts.0 += stack.count;
        }
    }
    counts
}

fn report(what: &str, answered: u64, all: u64, least: f64) -> Result<()> {
    let share = answered as f64 * 100.0 / all.max(1) as f64;
    eprintln!("{what}: {answered} of {all} samples are as the hook says ({share:.2} %)");
    ensure!(all >= 300, "{what}: only {all} samples");
    ensure!(share >= least, "{what}: {share:.2} %");
    Ok(())
}

fn traces(profile: &str) -> Result<String> {
    let output = Command::new("go")
        .args(["tool", "pprof", "-traces", profile])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the text has these words in this order, each on the line after the last.
fn is_in_order(text: &str, words: &[&str]) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.windows(words.len() + 1).any(|window| {
        let mut words = words.iter();
        let mut word = words.next();
        for line in window {
            if word.is_some_and(|word| line.split_whitespace().last() == Some(word)) {
                word = words.next();
            }
        }
        word.is_none()
    })
}
