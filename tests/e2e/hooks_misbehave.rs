//! Hooks that do what no hook should: the recording ends in time with all its samples, says what happened, and the program is
//! as it was, its results included.

use anyhow::{Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::folded::{Folded, Stack};
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs::{self, Form};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::Target;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a sound hook says of the interrupted code, and of a context.
const LEAF: &str = "[unmapped+0x7000100]";
const CONTEXT: &str = "[unmapped+0x7000200]";

/// The hook.
const HOOK: &str = "hook_traceback";

/// What the recording says of a hook that it does not call any more, and of a thread that was in it for ever.
const NOT_CALLED: &str = "it is not called any more";
const TAKEN_OUT: &str = "taken out of it";

/// Seconds of a recording: for a hook that only answers, for one that is given up, and for a program that becomes another.
const ANSWERS: &str = "1";
const GIVEN_UP: &str = "3";
const CHANGES: &str = "5";

#[test]
fn a_hook_that_loops_for_ever_loses_its_thread() -> Result<()> {
    let said = misbehaving("loop")?.stderr;
    ensure!(said.contains(NOT_CALLED) || said.contains(TAKEN_OUT), "{said}");
    ensure!(said.contains(TAKEN_OUT), "{said}");
    Ok(())
}

#[test]
fn a_hook_that_waits_for_a_lock_of_the_interrupted_code_loses_its_thread() -> Result<()> {
    let said = misbehaving("lock")?.stderr;
    ensure!(said.contains(NOT_CALLED) && said.contains(TAKEN_OUT), "{said}");
    Ok(())
}

#[test]
fn a_slow_hook_is_not_called_any_more() -> Result<()> {
    for mode in ["slow10", "slow100"] {
        let recording = misbehaving(mode)?;
        // Our own handler called it, and the walk goes through that to what was interrupted, once it is known.
        let in_hook = |is: &dyn Fn(&Stack) -> bool| {
            let stacks = recording.stacks().into_iter().flat_map(|folded| &folded.stacks);
            stacks
                .filter(|stack| stack.user().iter().any(|frame| frame == HOOK) && is(stack))
                .count()
        };
        let not_known = |stack: &Stack| {
            ["no-mapping", "tables-"]
                .iter()
                .any(|reason| stack.frames[0].contains(reason))
        };
        ensure!(
            in_hook(&|stack| stack.is_incomplete() && !not_known(stack)) == 0,
            "{mode}: {recording:?}"
        );
        if mode == "slow100" {
            let from_main = |stack: &Stack| stack.user().iter().any(|frame| frame == "main.main");
            ensure!(in_hook(&from_main) > 0, "{mode}: {recording:?}");
        }
        let said = recording.stderr;
        ensure!(said.contains("took longer than 5 ms"), "{mode}: {said}");
        ensure!(!said.contains(TAKEN_OUT), "{mode}: {said}");
    }
    Ok(())
}

#[test]
fn a_hook_that_writes_behind_its_buffer_is_not_called_any_more() -> Result<()> {
    let said = misbehaving("overrun")?.stderr;
    ensure!(
        said.contains("wrote beyond its buffer") && said.contains(NOT_CALLED),
        "{said}"
    );
    Ok(())
}

#[test]
fn addresses_that_cannot_be_and_lists_without_an_end_are_only_numbers() -> Result<()> {
    for (mode, expected) in [
        ("garbage", "[unmapped+0x700000000123]"),
        ("full", "[unmapped+0x700041f]"),
    ] {
        let recording = misbehaving(mode)?;
        ensure!(!recording.stderr.contains(NOT_CALLED), "{}", recording.stderr);
        ensure!(
            recording.stacks()?.with_frame(expected) > 0,
            "{mode}: no {expected}"
        );
    }
    Ok(())
}

#[test]
fn each_hook_can_be_missing() -> Result<()> {
    let _guard = exclusive();
    for letters in ["-", "t", "c", "s", "tc", "ts", "cs", "tcs"] {
        let mut recording = recorded(&["sound", letters], ANSWERS, |_| Ok(()))?;
        let has = |letter| letters.contains(letter);
        let said = std::mem::take(&mut recording.stderr);
        let stacks = recording.stacks()?;
        ensure!(!said.contains("not honoured"), "{letters}: {said}");
        // Where there is a symbolizer, the addresses have its name.
        let named = stacks.with_frame(LEAF) + stacks.with_frame("hooked");
        ensure!((named > 0) == has('t'), "{letters}: {named} answers");
        if !has('s') {
            let contexts = stacks.with_frame(CONTEXT);
            ensure!(
                (contexts > 0) == (has('t') && has('c')),
                "{letters}: {contexts} contexts"
            );
        }
    }
    Ok(())
}

#[test]
fn hooks_that_are_registered_during_the_recording_are_honoured_from_then_on() -> Result<()> {
    let _guard = exclusive();
    let recording = recorded(&["sound", "tc", "late"], CHANGES, |target| {
        target.command("register")?;
        ensure!(target.read_line()? == "registered");
        Ok(())
    })?;
    let said = &recording.stderr;
    ensure!(said.contains("honoured from now on"), "{said}");
    let stacks = recording.stacks()?;
    ensure!(stacks.with_frame(LEAF) > 0 && stacks.with_frame(CONTEXT) > 0);
    Ok(())
}

#[test]
fn a_forked_child_is_not_asked_and_its_parent_still_is() -> Result<()> {
    let _guard = exclusive();
    let program = programs::go("bad_hooks", "local", Form::Exe, "")?;
    // The children of a command are recorded with it.
    let (mut command, folder) = Recorder::command(["-F", "499", "--no-kernel", "--hooks=auto", "--"])?;
    command.arg(&program.path).args(["sound", "tc"]);
    command
        .env("GODEBUG", "asyncpreemptoff=1")
        .stderr(Stdio::inherit());
    let mut target = Target::start(command)?;
    // The helper is there as soon as the hooks were found to be registered.
    let maps = format!("/proc/{}/maps", target.pid());
    while !fs::read_to_string(&maps)?.contains("profiler-hooks") {
        target.work_for(Duration::from_millis(10))?;
    }
    target.command("fork")?;
    ensure!(target.read_line()? == "forked");
    target.work_for(Duration::from_secs(4))?;
    // The child ends well, or the program does not.
    ensure!(target.finish()?.status.success());
    let folded = Folded::parse(&fs::read_to_string(folder.path().join("out.folded"))?)?;
    let stacks = &folded.stacks;
    let count = |is_child: bool, is_answered: bool| {
        let counted = stacks.iter().filter(|stack| {
            (stack.comm == "child") == is_child && stack.frames.iter().any(|f| f == LEAF) == is_answered
        });
        counted.map(|stack| stack.count).sum::<u64>()
    };
    ensure!(count(true, false) > 0, "no sample of the child");
    ensure!(count(true, true) == 0, "the child was asked");
    ensure!(count(false, true) > 0, "nobody was asked");
    Ok(())
}

#[test]
fn a_program_that_executes_itself_is_asked_anew() -> Result<()> {
    let _guard = exclusive();
    let mut target = start(&["sound", "tc"])?;
    let mut recorder = recorder(&target, CHANGES)?;
    recorder.wait_until_sampling()?;
    target.command("exec")?;
    ensure!(target.read_line()?.starts_with("ready "));
    let recording = recorder.wait()?;
    ensure!(
        recording.stderr.contains("honoured from now on"),
        "{}",
        recording.stderr
    );
    ensure!(recording.stacks()?.with_frame(LEAF) > 0);
    let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid()))?;
    ensure!(!maps.contains("profiler-hooks"), "{maps}");
    ensure!(target.finish()?.status.success());
    Ok(())
}

fn misbehaving(mode: &str) -> Result<Recording> {
    let _guard = exclusive();
    recorded(&[mode, "tc"], GIVEN_UP, |_| Ok(()))
}

fn start(arguments: &[&str]) -> Result<Target> {
    let program = programs::go("bad_hooks", "local", Form::Exe, "")?;
    let mut command: Command = program.command();
    command.args(arguments).env("GODEBUG", "asyncpreemptoff=1");
    Target::start(command)
}

fn recorder(target: &Target, seconds: &str) -> Result<Recorder> {
    let pid = target.pid().to_string();
    Recorder::start([
        "-p",
        &pid,
        "-F",
        "499",
        "-d",
        seconds,
        "--no-kernel",
        "--hooks=auto",
    ])
}

/// Records the program with these arguments, which does something meanwhile. It has to be the same after as before, and no
/// sample may be missing.
fn recorded(
    arguments: &[&str],
    seconds: &str,
    meanwhile: impl FnOnce(&mut Target) -> Result<()>,
) -> Result<Recording> {
    let mut target = start(arguments)?;
    let before = Snapshot::at_rest(target.pid())?;
    let mut recorder = recorder(&target, seconds)?;
    recorder.wait_until_sampling()?;
    meanwhile(&mut target)?;
    let recording = recorder.wait()?;
    let differences = before.differences(&Snapshot::at_rest(target.pid())?, Freedom::GoRuntime);
    ensure!(
        differences.is_empty(),
        "{arguments:?}: not as it was:\n{}\n{}",
        differences.join("\n"),
        recording.stderr
    );
    let summary = recording.summary()?;
    ensure!(
        summary.kept()? > 0 && summary.without_room()? == 0,
        "{}",
        recording.stderr
    );
    ensure!(
        recording.stacks()?.with_frame("main.round") > 0,
        "no walked stack"
    );
    let finished = target.finish()?;
    ensure!(finished.status.success() && finished.iterations > 0);
    Ok(recording)
}
