//! What traceback hooks give is named by the program's own symbolizer.

use anyhow::{Context, Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs::{self, Form, GO_TOOLCHAINS};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::Target;
use std::fs;

/// The program with hooks, which says of every context that it is `c_down`, and of every address that it is `hooked`.
fn start(toolchain: &str, hooks: &str) -> Result<Target> {
    start_with(toolchain, hooks, "symbolizer.c")
}

/// The same with another symbolizer.
fn start_with(toolchain: &str, hooks: &str, symbolizer: &str) -> Result<Target> {
    let program = programs::go("go_hooks", toolchain, Form::Exe, "")?;
    let library = programs::native_library(&format!("go_hooks/{symbolizer}"))?.path;
    let mut command = program.command();
    command.arg(&library);
    let mut target = Target::start(command)?;
    target.command(&format!("register {hooks}"))?;
    let answer = target.read_line()?;
    ensure!(answer == "registered", "{answer}");
    Ok(target)
}

fn recorder(target: &Target, seconds: &str, more: &[&str]) -> Result<Recorder> {
    let pid = target.pid().to_string();
    let args = [
        "-p",
        &pid,
        "-F",
        "499",
        "-d",
        seconds,
        "--no-kernel",
        "--hooks=require",
    ];
    let mut recorder = Recorder::start(args.iter().chain(more))?;
    recorder.wait_until_sampling()?;
    Ok(recorder)
}

/// What a callback came through, from C to Go, in the stacks: how often it is `name`.
fn through(recording: &Recording, name: &str) -> Result<u64> {
    let stacks = &recording.stacks()?.stacks;
    let has = |stack: &[String]| {
        let mut threes = stack.windows(3);
        threes.any(|frames| frames == ["runtime.asmcgocall", name, "crosscall2"])
    };
    let found = stacks.iter().filter(|stack| has(stack.user()));
    Ok(found.map(|stack| stack.count).sum())
}

#[test]
fn frames_of_contexts_have_the_names_that_the_program_gives_them() -> Result<()> {
    let _guard = exclusive();
    for toolchain in GO_TOOLCHAINS {
        let target = start(toolchain, "tcs")?;
        let before = Snapshot::at_rest(target.pid())?;
        let folder = tempfile::tempdir()?;
        let svg = folder.path().join("hooks.svg");
        let svg = svg.to_str().context("a path")?;
        let recording = recorder(&target, "2", &["-o", svg])?.wait()?;
        let differences = before.lasting_differences(target.pid(), Freedom::GoRuntime, &[])?;
        ensure!(differences.is_empty(), "{toolchain}: {differences:?}");

        let named = through(&recording, "hooked")?;
        ensure!(named > 20, "{toolchain}: {named}\n{:?}", recording.stderr);
        let names = recording.summary()?.hook_names();
        ensure!(
            names["named"].as_u64() > Some(0) && names["unknown"] == 0,
            "{names}"
        );
        ensure!(names["snapshots"].as_u64() > Some(0), "{names}");
        for table in ["odd", "not_asked"] {
            ensure!(
                names[table].as_object().is_some_and(|table| table.is_empty()),
                "{names}"
            );
        }
        let svg = fs::read_to_string(svg)?;
        let title = svg
            .split("<title>hooked (")
            .nth(1)
            .context("a box of the hook's")?;
        let title = title.split("</title>").next().unwrap_or_default();
        ensure!(
            title.ends_with("; as the program&apos;s traceback hook says)"),
            "{title}"
        );
        ensure!(target.finish()?.status.success());
    }
    Ok(())
}

#[test]
fn without_a_symbolizer_object_files_give_the_names() -> Result<()> {
    let _guard = exclusive();
    let target = start("local", "tc")?;
    let recording = recorder(&target, "2", &[])?.wait()?;
    let named = through(&recording, "c_down")?;
    ensure!(named > 20, "{named}\n{:?}", recording.stderr);
    let names = recording.summary()?.hook_names();
    ensure!(names["named"] == 0 && names["snapshots"] == 0, "{names}");
    let reason = &names["not_asked"]["the program has registered no symbolizer"];
    ensure!(reason.as_u64() > Some(0), "{names}");
    ensure!(target.finish()?.status.success());
    Ok(())
}

#[test]
fn object_files_name_the_functions_of_which_the_symbolizer_knows_the_file_only() -> Result<()> {
    let _guard = exclusive();
    let target = start_with("local", "tcs", "library/object_symbolizer.c")?;
    let recording = recorder(&target, "2", &[])?.wait()?;
    let named = through(&recording, "c_down")?;
    ensure!(named > 20, "{named}\n{:?}", recording.stderr);
    let by_file = |stack: &[String]| stack.iter().any(|frame| frame.starts_with("[go_hooks"));
    let stacks = &recording.stacks()?.stacks;
    ensure!(!stacks.iter().any(|stack| by_file(stack.user())), "{stacks:?}");
    let names = recording.summary()?.hook_names();
    ensure!(
        names["named"] == 0 && names["unknown"].as_u64() > Some(0),
        "{names}"
    );
    ensure!(target.finish()?.status.success());
    Ok(())
}

#[test]
fn a_program_that_ends_by_itself_has_been_asked_before() -> Result<()> {
    let _guard = exclusive();
    let mut target = start("local", "tcs")?;
    let recorder = recorder(&target, "60", &[])?;
    target.work_for(std::time::Duration::from_secs(3))?;
    ensure!(target.finish()?.status.success());
    let recording = recorder.wait()?;
    ensure!(through(&recording, "hooked")? > 20);
    let names = recording.summary()?.hook_names();
    ensure!(names["named"].as_u64() > Some(0), "{names}");
    Ok(())
}
