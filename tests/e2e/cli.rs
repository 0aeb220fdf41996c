//! What `profiler record` does at its edges: what it is given, how it ends, what it says.

use anyhow::{Context, Result, ensure};
use profiler_tests::profiler::{Recorder, Recording, as_nobody, command, record, says};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, pprof, programs};
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How long targets are recorded where it does not matter.
const A_WHILE: Duration = Duration::from_secs(1);

#[test]
fn a_process_that_does_not_exist_is_named() -> Result<()> {
    let _guard = exclusive();
    // A process that has been waited for: its id is free.
    let mut gone = Command::new("true").spawn()?;
    gone.wait()?;
    let recording = record(["-p", &gone.id().to_string(), "-d", "1"])?;
    ensure!(recording.status.code() == Some(1), "{recording:?}");
    says(&recording.stderr, &[&gone.id().to_string(), "process"])
}

#[test]
fn a_process_that_ends_leaves_what_was_recorded() -> Result<()> {
    let _guard = exclusive();
    let mut target = busy()?;
    let mut recorder = Recorder::start(["-p", &target.pid().to_string()])?;
    recorder.wait_until_sampling()?;
    target.work_for(A_WHILE)?;
    target.finish()?;
    let recording = recorder.wait()?;
    has_samples(&recording)?;
    says(&recording.stderr, &["ended"])
}

#[test]
fn a_process_that_never_ran_is_said_to_be_idle() -> Result<()> {
    let _guard = exclusive();
    let mut idle = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let recording = record(["-p", &idle.id().to_string(), "-d", "1"]);
    drop(idle.stdin.take());
    idle.wait()?;
    let recording = recording?;
    ensure!(recording.status.code() == Some(0), "{recording:?}");
    says(&recording.stderr, &["no sample"])
}

#[test]
fn a_lack_of_capabilities_is_named_with_the_way_out() -> Result<()> {
    let _guard = exclusive();
    let target = busy()?;
    let output = as_nobody([
        "record",
        "-p",
        &target.pid().to_string(),
        "-d",
        "1",
        "-o",
        "out.folded",
    ])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    says(&stderr(&output), &["CAP_", "sudo"])
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_the_recording() -> Result<()> {
    let _guard = exclusive();
    let target = busy()?;
    let folder = tempfile::tempdir()?;
    let good = folder.path().join("good.folded");
    let missing = folder.path().join("missing/profile.svg");
    // Nobody can create files there, root neither.
    let read_only = Path::new("/sys/profile.svg");
    for bad in [missing.as_path(), read_only] {
        let output = command(["record", "-p", &target.pid().to_string(), "-d", "1", "-o"])?
            .arg(&good)
            .arg("-o")
            .arg(bad)
            .output()?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        says(
            &stderr(&output),
            &[&bad.parent().unwrap_or(bad).display().to_string()],
        )?;
        let recorded = fs::metadata(&good).is_ok_and(|file| file.len() > 0);
        ensure!(!recorded, "it was found only after the recording");
    }
    Ok(())
}

#[test]
fn a_frequency_of_zero_is_refused() -> Result<()> {
    let _guard = exclusive();
    let recording = record(["-F", "0", "--", "true"])?;
    ensure!(recording.status.code() == Some(1), "{recording:?}");
    says(&recording.stderr, &["frequency"])
}

#[test]
fn a_command_is_followed_into_its_children_and_its_exit_status_passed_on() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("busy_threads/busy_threads.c")?;
    let script = format!("'{}' 1; exit 7", program.path.display());
    let (mut record, folder) = Recorder::command(["-F", "999", "--", "sh", "-c", &script])?;
    record.stderr(Stdio::inherit());
    // The command has the standard streams of the profiler, so the pair of them is the target.
    let mut target = Target::start(record)?;
    target.work_for(A_WHILE)?;
    let finished = target.finish()?;
    ensure!(finished.status.code() == Some(7), "{finished:?}");

    let recording = Recording::read(folder, String::new(), String::new(), finished.status)?;
    let folded = recording.folded.context("no stacks were written")?;
    let report = program.checker()?.report(&folded);
    ensure!(
        folded.with_frame("busy") > 0,
        "there is no sample of the child: {report}"
    );
    ensure!(
        folded.stacks.iter().any(|stack| stack.comm == "busy_threads"),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_command_that_cannot_be_run_is_named() -> Result<()> {
    let _guard = exclusive();
    let recording = record(["--", "/missing/command"])?;
    ensure!(recording.status.code() == Some(1), "{recording:?}");
    says(&recording.stderr, &["/missing/command"])
}

#[test]
fn an_interrupt_ends_the_recording_and_everything_is_written() -> Result<()> {
    let _guard = exclusive();
    for signal in [Signal::INT, Signal::TERM] {
        let mut target = busy()?;
        let mut recorder = Recorder::start(["-p", &target.pid().to_string()])?;
        recorder.wait_until_sampling()?;
        target.work_for(A_WHILE)?;
        recorder.signal(signal)?;
        let recording = recorder.wait()?;
        has_samples(&recording)?;
        ensure!(recording.summary()?.kept()? == recording.stacks()?.total());
        ensure!(target.finish()?.status.success(), "the target did not survive");
    }
    Ok(())
}

#[test]
fn a_second_interrupt_quits() -> Result<()> {
    let _guard = exclusive();
    let mut target = busy()?;
    let mut recorder = Recorder::start(["-p", &target.pid().to_string()])?;
    recorder.wait_until_sampling()?;
    target.work_for(A_WHILE)?;
    recorder.signal(Signal::INT)?;
    // The first may have been enough by now.
    let _ = recorder.signal(Signal::INT);
    let status = recorder.wait()?.status;
    let ended = matches!(
        (status.code(), status.signal()),
        (Some(0 | 1 | 130), None) | (None, Some(2))
    );
    ensure!(ended, "{status}");
    ensure!(target.finish()?.status.success(), "the target did not survive");
    Ok(())
}

#[test]
fn pprof_and_folded_stacks_have_the_same_samples() -> Result<()> {
    let _guard = exclusive();
    let target = busy()?;
    let recording = record(["-p", &target.pid().to_string(), "-F", "999", "-d", "2"])?;
    target.finish()?;
    has_samples(&recording)?;
    let folded = recording.stacks()?;
    let of_folded = folded.self_time(|stack| stack.frames.last().cloned().unwrap_or_default());
    let of_pprof = pprof::self_time(&recording.pprof())?;
    ensure!(
        of_pprof.values().sum::<u64>() == folded.total(),
        "{of_pprof:?}, folded {of_folded:?}"
    );
    ensure!(pprof::traced_total(&recording.pprof())? == folded.total());
    ensure!(of_pprof.get("leaf") > Some(&0), "{of_pprof:?}");
    Ok(())
}

/// A program that is never idle.
fn busy() -> Result<Target> {
    let mut command = programs::native("busy_threads/busy_threads.c")?.command();
    command.arg("1");
    Target::start(command)
}

fn has_samples(recording: &Recording) -> Result<()> {
    ensure!(
        recording.stacks()?.with_frame("leaf") > 0,
        "there is no sample: {recording:?}"
    );
    ensure!(fs::metadata(recording.pprof())?.len() > 0);
    Ok(())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
