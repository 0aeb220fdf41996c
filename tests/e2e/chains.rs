//! Every recorded stack is held against the true call chains of its program.
use anyhow::{Result, ensure};
use profiler_tests::exact::{self, Demand};
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs::{self, Form, GO_TOOLCHAINS, Program};
use profiler_tests::target::Target;
use profiler_tests::{exclusive, full};
use std::process::Command;
use std::time::Duration;

/// Seconds of a recording, in the full test and otherwise; and how many samples prove enough, which a program with one
/// thread gives in half the time.
const SECONDS: [u32; 2] = [5, 2];
const SAMPLES: [u64; 2] = [2500, 1000];

#[test]
fn go_calls_c_calls_go_three_deep() -> Result<()> {
    let _guard = exclusive();
    let go = [
        "main.goBurn",
        "main.goLeafNoFrame",
        "main.goInner",
        "goInner",
        "runtime.cgocallback",
    ];
    let c = ["c_leaf1", "c_leaf2", "c_leaf3", "c_inner_step"];
    let each = GO_TOOLCHAINS.into_iter().zip(Form::ALL).collect();
    let every = GO_TOOLCHAINS.map(|toolchain| Form::ALL.map(|form| (toolchain, form)));
    for (toolchain, form) in full([every.concat(), each]) {
        let program = programs::go("go_nested", toolchain, form, "")?;
        let named = if form == Form::Stripped { &[][..] } else { &c[..] };
        exact(&program, program.command(), &[&go[..], named].concat())?;
    }
    Ok(())
}

#[test]
fn a_goroutine_whose_stack_moves_under_c() -> Result<()> {
    let _guard = exclusive();
    for toolchain in GO_TOOLCHAINS {
        let program = programs::go("go_moving", toolchain, Form::Exe, "")?;
        exact(
            &program,
            program.command(),
            &["main.deepBurn", "c_leaf", "c_inner", "c_outer_step"],
        )?;
    }
    Ok(())
}

#[test]
fn three_hundred_frames_of_c_without_frame_pointers() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("c_deep/c_deep.c")?;
    exact(
        &program,
        program.command(),
        &["run", "run_thread", "c_leaf", "f0", "f1", "f2"],
    )
}

#[test]
fn exceptions_pass_through_frames_of_cpp() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("cpp_throw/cpp_throw.cc")?;
    let seen = ["ns::thrower", "ns::Guard::~Guard", "_Unwind_RaiseException"];
    exact(&program, program.command(), &seen)
}

#[test]
fn a_library_that_is_loaded_during_the_recording() -> Result<()> {
    let _guard = exclusive();
    let library = programs::native_library("dlopen_late/plugin.c")?;
    let program = programs::native("dlopen_late/dlopen_late.c")?;
    let mut command = program.command();
    command.arg(&library.path);

    let mut target = Target::start(command)?;
    let mut recorder = Recorder::start(arguments(&target))?;
    recorder.wait_until_sampling()?;
    target.command("load")?;
    ensure!(target.read_line()?.starts_with("loaded "));
    let recording = recorder.wait()?;
    ensure!(target.finish()?.status.success());
    judge(&program, &recording, &["own_leaf", "plugin_outer", "plugin_leaf"])
}

#[test]
fn a_library_that_takes_the_place_of_another() -> Result<()> {
    let _guard = exclusive();
    let first = programs::native_library("dlopen_late/plugin.c")?;
    let second = programs::native_library("dlopen_late/second.c")?;
    let program = programs::native("dlopen_late/dlopen_late.c")?;
    let mut command = program.command();
    command.args([&first.path, &second.path]);

    let mut target = Target::start(command)?;
    target.command("load")?;
    let before = target.read_line()?;
    let mut recorder = Recorder::start(arguments(&target))?;
    recorder.wait_until_sampling()?;
    target.work_for(Duration::from_secs(1))?;
    target.command("load")?;
    let after = target.read_line()?;
    ensure!(before == after, "the trap is not set: {before} is not {after}");
    let recording = recorder.wait()?;
    ensure!(target.finish()?.status.success());
    judge(
        &program,
        &recording,
        &["plugin_leaf", "second_outer", "second_leaf"],
    )
}

#[test]
fn time_in_signal_handlers() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("signal_frames/signal_frames.c")?;
    exact(
        &program,
        program.command(),
        &["leaf", "on_prof", "on_vtalrm_altstack", "handler_leaf"],
    )
}

#[test]
fn time_in_the_vdso() -> Result<()> {
    let _guard = exclusive();
    let c = programs::native("vdso_time/c/vdso_time.c")?;
    exact(&c, c.command(), &["now"])?;
    for toolchain in GO_TOOLCHAINS {
        let go = programs::go("vdso_time/go", toolchain, Form::Exe, "")?;
        exact(&go, go.command(), &["main.wall", "main.monotonic"])?;
    }
    Ok(())
}

/// Runs and records a program, and judges what was recorded.
fn exact(program: &Program, command: Command, seen: &[&str]) -> Result<()> {
    exact::record(program, command, demand(seen)).map(drop)
}

/// Those of a recording in which a library is loaded. What it loses is the moment until the library's tables are there,
/// however long it is: a share of it says something only for a certain length.
fn arguments(target: &Target) -> [String; 7] {
    exact::arguments(target, 5)
}

fn judge(program: &Program, recording: &Recording, seen: &[&str]) -> Result<()> {
    exact::judge(program, recording, demand(seen))
}

fn demand<'a>(seen: &'a [&'a str]) -> Demand<'a> {
    Demand {
        seconds: full(SECONDS),
        samples: full(SAMPLES),
        seen,
    }
}
