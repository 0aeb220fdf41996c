//! Every build form of a Go program has true stacks: libraries in programs of C and C++, static ones, ones with the race
//! detector, several runtimes in a process; and so has what interrupts, replaces or copies a program.

#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::exact::{self, Demand};
use profiler_tests::profiler::{self, Recorder};
use profiler_tests::programs::{self, EVERY_GO, Form, Program};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, full};
use std::ffi::OsStr;
use std::time::Duration;

/// How long each program is recorded, in seconds, and how many samples it has at least: also where others use the CPUs.
const SECONDS: [u32; 2] = [5, 1];
const SAMPLES: [u64; 2] = [500, 100];

/// Functions of `go_library` at every depth.
const LIBRARY: [&str; 5] = ["main.leafNoFrame", "main.grow", "c_leaf", "c_step", "run_thread"];

/// Functions of `go_nested`.
const NESTED: [&str; 4] = ["main.goBurn", "main.goLeafNoFrame", "c_leaf3", "c_inner_step"];

fn toolchains() -> Vec<&'static str> {
    full([&EVERY_GO[..], &["local"][..]]).to_vec()
}

fn record(program: &Program, arguments: &[&Program], seen: &[&str]) -> Result<()> {
    let mut command = program.command();
    command.args(arguments.iter().map(|program| &program.path));
    exact::record(program, command, demand(seen)).map(drop)
}

fn shared_library(toolchain: &str, tags: &str) -> Result<Program> {
    programs::go_by(
        toolchain,
        "go_library",
        &format!("{toolchain}{tags}.so"),
        "gcc",
        &["-buildmode=c-shared", "-tags", tags],
    )
}

#[test]
fn a_library_that_a_program_of_c_loads() -> Result<()> {
    let _guard = exclusive();
    for toolchain in toolchains() {
        let library = shared_library(toolchain, "")?;
        let host = programs::host("go_library/host/loads.c", &format!("loads-{toolchain}"), None)?;
        record(&host, &[&library], &LIBRARY)?;
    }
    Ok(())
}

#[test]
fn two_libraries_with_runtimes_of_their_own_that_call_each_other() -> Result<()> {
    let _guard = exclusive();
    let pairs = [
        ("local", "go1.21.13"),
        ("local", "local"),
        ("go1.27.3", "go1.24.11"),
    ];
    for (first, second) in full([&pairs[..], &pairs[..1]]) {
        let (first, second) = (shared_library(first, "")?, shared_library(second, "second")?);
        let host = programs::host("go_library/host/loads.c", "loads-two", None)?;
        record(
            &host,
            &[&first, &second],
            &[&LIBRARY[..], &["main.goFirst", "main.goSecond"]].concat(),
        )?;
    }
    Ok(())
}

#[test]
fn a_library_that_a_program_of_c_is_linked_with() -> Result<()> {
    let _guard = exclusive();
    for toolchain in toolchains() {
        let library = shared_library(toolchain, "")?;
        let name = format!("linked-{toolchain}");
        let host = programs::host("go_library/host/linked.c", &name, Some(&library))?;
        record(&host, &[], &LIBRARY)?;
    }
    Ok(())
}

#[test]
fn an_archive_that_a_program_of_cpp_is_linked_with() -> Result<()> {
    let _guard = exclusive();
    for toolchain in toolchains() {
        let name = format!("{toolchain}.a");
        let archive = programs::go_by(toolchain, "go_library", &name, "gcc", &["-buildmode=c-archive"])?;
        let name = format!("archived-{toolchain}");
        let host = programs::host("go_library/host/linked.cc", &name, Some(&archive))?;
        record(&host, &[], &[&LIBRARY[..], &["host::call"]].concat())?;
    }
    Ok(())
}

#[test]
fn a_program_that_is_linked_statically() -> Result<()> {
    let _guard = exclusive();
    for toolchain in toolchains() {
        for cc in ["gcc", "musl-gcc"] {
            let flags = ["-ldflags", "-linkmode external -extldflags -static"];
            let name = format!("static-{cc}-{toolchain}");
            let program = programs::go_by(toolchain, "go_nested", &name, cc, &flags)?;
            record(&program, &[], &NESTED)?;
        }
    }
    Ok(())
}

#[test]
fn a_program_with_the_race_detector_has_true_stacks_also_inside_of_it() -> Result<()> {
    let _guard = exclusive();
    for toolchain in full([&EVERY_GO[..], &EVERY_GO[..1]]) {
        let name = format!("race-{toolchain}");
        let program = programs::go_by(toolchain, "go_nested", &name, "gcc", &["-race"])?;
        record(&program, &[], &NESTED)?;
    }
    Ok(())
}

#[test]
fn the_other_releases_of_go() -> Result<()> {
    let _guard = exclusive();
    // Those that `chains` has not: with one of them it is about what differs between releases.
    let others = ["go1.27.3", "go1.22.10", "go1.23.9", "go1.25.5"];
    for toolchain in full([&others[..], &others[..1]]) {
        for form in full([&Form::ALL[..], &Form::ALL[2..]]) {
            let program = programs::go("go_nested", toolchain, *form, "")?;
            let seen = if *form == Form::Stripped {
                &NESTED[..2]
            } else {
                &NESTED
            };
            record(&program, &[], seen)?;
        }
        if full([true, false]) {
            record(
                &programs::go("go_moving", toolchain, Form::Exe, "")?,
                &[],
                &["main.deepBurn", "c_inner"],
            )?;
        }
    }
    Ok(())
}

#[test]
fn signals_that_the_go_runtime_handles() -> Result<()> {
    let _guard = exclusive();
    for toolchain in toolchains() {
        let program = programs::go("go_nested", toolchain, Form::Exe, "")?;
        // The handler takes about a hundredth of the time: it may be met in none of a few hundred samples.
        let mut met = 0;
        for _ in 0..5 {
            let mut command = program.command();
            command.arg("storm");
            let recording = exact::record(&program, command, demand(&[]))?;
            met += recording.stacks()?.with_frame("runtime.sigtrampgo");
            if met > 0 {
                break;
            }
        }
        ensure!(met > 0, "no sample in the handler");
    }
    Ok(())
}

#[test]
fn recursion_deeper_than_the_limit_is_cut_at_its_root() -> Result<()> {
    let _guard = exclusive();
    for toolchain in toolchains() {
        let program = programs::go("go_deep", toolchain, Form::Exe, "")?;
        let recording = exact::record(&program, program.command(), demand(&["main.leaf", "c_leaf"]))?;
        for stack in &recording.stacks()?.stacks {
            // A function that the compiler put inside another comes on top of the limit.
            let frames = stack.user().len();
            let is_true = if stack.is_incomplete() {
                frames >= 512
            } else {
                frames <= 513
            };
            ensure!(is_true, "{frames} frames: {stack:?}");
        }
    }
    Ok(())
}

#[test]
fn a_program_that_executes_another() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("execs/execs.c")?;
    let mut target = Target::start(program.command())?;
    let seconds = full(SECONDS);
    let mut recorder = Recorder::start(exact::arguments(&target, seconds + 1))?;
    recorder.wait_until_sampling()?;
    target.work_for(Duration::from_secs(1) / 2)?;
    target.command("exec")?;
    ensure!(target.read_line()?.starts_with("ready "));
    let recording = recorder.wait()?;
    ensure!(target.finish()?.status.success());
    exact::judge(
        &program,
        &recording,
        demand(&["before_leaf", "after_outer", "after_leaf"]),
    )
}

#[test]
fn children_that_never_call_exec() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("forks/forks.c")?;
    // Children are followed where the recording starts the program.
    let recorder = Recorder::start(
        ["-F", "999", "--kernel", "--"]
            .map(OsStr::new)
            .into_iter()
            .chain([program.path.as_os_str(), OsStr::new(full(["200", "40"]))]),
    )?;
    let recording = recorder.wait()?;
    exact::judge(
        &program,
        &recording,
        demand(&["parent_leaf", "child_work", "child_leaf"]),
    )
}

#[test]
fn a_thread_that_begins_another_keeps_its_callers() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("spawns/spawns.c")?;
    let target = Target::start(program.command())?;
    let recording = profiler::record(exact::arguments(&target, full(SECONDS)))?;
    ensure!(target.finish()?.status.success());
    let mut began = 0;
    for stack in &recording.stacks()?.stacks {
        let user = stack.user();
        // glibc before 2.34 has no clone3.
        let is_call = |name: &String| ["clone3", "__clone3", "clone", "__clone"].contains(&name.as_str());
        if !user.last().is_some_and(is_call) {
            continue;
        }
        let is_whole = user.iter().any(|frame| frame == "main") && user.iter().any(|frame| frame == "begin");
        let is_new = user.len() == 1;
        ensure!(!stack.is_incomplete() && (is_whole || is_new), "{stack:?}");
        if is_whole {
            began += stack.count;
        }
    }
    // Half of the program's time goes there.
    ensure!(
        began > recording.stacks()?.total() / 10,
        "{began}\n{}",
        recording.stderr
    );
    Ok(())
}

fn demand<'a>(seen: &'a [&'a str]) -> Demand<'a> {
    Demand {
        seconds: full(SECONDS),
        samples: full(SAMPLES),
        seen,
    }
}
