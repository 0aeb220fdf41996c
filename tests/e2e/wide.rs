//! Recordings of processes that nobody listed: the whole host, and control groups.

use anyhow::{Context, Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::folded::{Folded, Stack};
use profiler_tests::profiler::{Recorder, Recording, command, record};
use profiler_tests::programs::{self, Form, Program};
use profiler_tests::target::Target;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Fewer whole stacks of a program than this prove little. The first ones come before its tables are made.
const WHOLE: u64 = 20;

/// How long programs are recorded.
const WORK: Duration = Duration::from_millis(1500);

/// A name of a thread has at most 15 bytes (`TASK_COMM_LEN`).
fn comm(program: &Program) -> String {
    let name = program.path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(15).collect()
}

/// The stacks of a program, without the name that they begin with.
fn of(recording: &Recording, program: &Program) -> Result<Folded> {
    let comm = comm(program);
    let stacks = recording.stacks()?.stacks.iter();
    Ok(Folded {
        stacks: stacks.filter(|stack| stack.comm == comm).cloned().collect(),
    })
}

/// Every stack of the program is a true chain, or says why it ended.
fn judge(recording: &Recording, program: &Program) -> Result<()> {
    let stacks = of(recording, program)?.stacks;
    let name = comm(program);
    let whole = Folded {
        stacks: stacks.into_iter().filter(|stack| !is_cut(stack)).collect(),
    };
    ensure!(
        whole.total() >= WHOLE,
        "{name}: only {} whole stacks",
        whole.total()
    );
    let report = program.checker()?.report(&whole);
    ensure!(
        report.user.percent() >= 99.5,
        "{name}: not only true chains\n{report}"
    );
    Ok(())
}

fn is_cut(stack: &Stack) -> bool {
    let first = stack.frames.first().map_or("", String::as_str);
    stack.is_incomplete() || first.starts_with("[no stack: ")
}

#[test]
fn the_whole_host_has_programs_by_name_also_such_as_start_later() -> Result<()> {
    let _guard = exclusive();
    let before = programs::native("c_deep/c_deep.c")?;
    let later = programs::go("go_nested", "local", Form::Exe, "")?;

    let mut early = Target::start(before.command())?;
    let mut recorder = Recorder::start(["-a", "-F", "499", "-d", "4"])?;
    recorder.wait_until_sampling()?;
    early.work_for(WORK)?;
    let mut late = Target::start(later.command())?;
    late.work_for(WORK)?;
    let recording = recorder.wait()?;
    ensure!(early.finish()?.status.success() && late.finish()?.status.success());
    judge(&recording, &before)?;
    judge(&recording, &later)?;
    // Its threads have its name, so nothing stands between that and the frames.
    let whole = of(&recording, &before)?;
    ensure!(
        whole
            .stacks
            .iter()
            .all(|stack| stack.frames.first().is_none_or(|frame| *frame != comm(&before)))
    );
    let summary = recording.summary()?;
    ensure!(summary.kept()? == recording.stacks()?.total());
    Ok(())
}

/// A control group of our own, with one below it. Removed when it is dropped.
struct Groups {
    outer: PathBuf,
}

impl Groups {
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1).filter(|_| line.contains(" cgroup2 ")))
            .next()
            .context("no control groups of version 2 are mounted")?;
        let outer = Path::new(root).join(format!("profiler-tests-{}", std::process::id()));
        fs::create_dir_all(outer.join("inner"))?;
        Ok(Self { outer })
    }

    fn move_to(&self, group: &str, pid: u32) -> Result<()> {
        Ok(fs::write(
            self.outer.join(group).join("cgroup.procs"),
            pid.to_string(),
        )?)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.outer.join("inner"));
        let _ = fs::remove_dir(&self.outer);
    }
}

#[test]
fn a_control_group_has_what_is_in_it_and_below_it_and_nothing_else() -> Result<()> {
    let _guard = exclusive();
    let inside = programs::native("c_deep/c_deep.c")?;
    let below = programs::go("go_nested", "local", Form::Exe, "")?;
    let outside = programs::native("busy_threads/busy_threads.c")?;
    let mut command = outside.command();
    command.arg("1");

    let groups = Groups::new()?;
    let elsewhere = Target::start(command)?;
    let (first, second) = (Target::start(inside.command())?, Target::start(below.command())?);
    groups.move_to("", first.pid())?;
    groups.move_to("inner", second.pid())?;
    // As /proc/PID/cgroup has it.
    let path = format!("/{}", groups.outer.file_name().unwrap_or_default().display());
    let recording = record(["--cgroup", &path, "-F", "499", "-d", "2"])?;
    for target in [elsewhere, first, second] {
        ensure!(target.finish()?.status.success());
    }
    judge(&recording, &inside)?;
    judge(&recording, &below)?;
    let known = [comm(&inside), comm(&below)];
    let others: Vec<&Stack> = recording
        .stacks()?
        .stacks
        .iter()
        .filter(|stack| !known.contains(&stack.comm))
        .collect();
    ensure!(others.is_empty(), "{others:?}");
    Ok(())
}

#[test]
fn threads_have_boxes_of_their_own_if_that_is_wanted() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("c_deep/c_deep.c")?;
    let target = Target::start(program.command())?;
    let pid = target.pid().to_string();
    let threads: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|entry| Ok(format!("c_deep ({})", entry?.file_name().display())))
        .collect::<Result<_>>()?;
    let recording = record(["-p", &pid, "--per-thread", "-F", "499", "-d", "1"])?;
    ensure!(target.finish()?.status.success());
    for stack in &recording.stacks()?.stacks {
        let thread = stack.frames.first().context("no thread")?;
        ensure!(stack.comm == "c_deep" && threads.contains(thread), "{stack:?}");
    }
    for thread in &threads {
        ensure!(recording.stacks()?.with_frame(thread) > 0, "{thread} is missing");
    }
    Ok(())
}

#[test]
fn what_a_recording_of_the_host_cannot_do_is_explained() -> Result<()> {
    let _guard = exclusive();
    for (args, words) in [
        (
            &["-a", "--hooks=require"][..],
            "--hooks=auto asks those that have",
        ),
        (
            &["--cgroup", "no/such/group"],
            "no control group of version 2 at no/such/group",
        ),
        (&["--cgroup", "/proc"], "no control group of version 2 at /proc"),
    ] {
        let output = command(["record"].iter().chain(args))?.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1) && stderr.contains(words),
            "{args:?}: {} {stderr}",
            output.status
        );
    }
    Ok(())
}
