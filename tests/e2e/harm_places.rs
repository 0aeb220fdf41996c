//! However a program with hooks was built, and wherever it runs, its hooks are honoured without harm, or the recording says why not
//! and is right without.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::harm::{Case, Unharmed, for_seconds};
use profiler_tests::programs::{self, Form, Program};
use profiler_tests::{exclusive, full};
use std::process::Command;

const SECONDS: u64 = 2;

fn exe() -> Result<Program> {
    programs::go("go_harm", "local", Form::Exe, "")
}

/// Records a program whose hooks have to be honoured.
fn honoured(what: &str, case: Case) -> Result<Unharmed> {
    let unharmed = case.unharmed(for_seconds(SECONDS))?;
    eprintln!("{what}: {}", unharmed.summary()?);
    ensure!(unharmed.stacks.honoured > 100, "{what}: {:?}", unharmed.stacks);
    Ok(unharmed)
}

#[test]
fn a_program_linked_with_glibc_statically_is_honoured() -> Result<()> {
    let _guard = exclusive();
    let program = programs::go_with(
        "go_harm",
        "static",
        "gcc",
        &["-ldflags", "-linkmode external -extldflags -static"],
    )?;
    honoured("static glibc", Case::new(&program, "rounds")).map(drop)
}

#[test]
fn a_program_linked_with_musl_is_honoured() -> Result<()> {
    let _guard = exclusive();
    for (name, flags) in [
        ("musl", "-linkmode external"),
        ("musl-static", "-linkmode external -extldflags -static"),
    ] {
        let program = programs::go_with("go_harm", name, "musl-gcc", &["-ldflags", flags])?;
        honoured(name, Case::new(&program, "rounds"))?;
    }
    Ok(())
}

#[test]
fn a_position_independent_program_is_honoured() -> Result<()> {
    let _guard = exclusive();
    let program = programs::go("go_harm", "local", Form::Pie, "")?;
    honoured("PIE", Case::new(&program, "rounds")).map(drop)
}

#[test]
fn a_library_in_a_program_of_c_is_honoured() -> Result<()> {
    let _guard = exclusive();
    let library = programs::go_with("go_harm", "library.so", "gcc", &["-buildmode=c-shared"])?;
    let program = exe()?;
    let mut command = programs::native("go_harm/host/host.c")?.command();
    command.arg(&library.path);
    honoured("c-shared", Case::by(&program, command, "rounds")).map(drop)
}

#[test]
fn a_library_that_a_program_of_c_is_linked_with_is_honoured() -> Result<()> {
    let _guard = exclusive();
    for toolchain in full([&["go1.21.13", "local"][..], &["local"]]) {
        let name = format!("linked-{toolchain}.so");
        let library = programs::go_by(toolchain, "go_harm", &name, "gcc", &["-buildmode=c-shared"])?;
        let host = programs::host("go_harm/host/linked.c", "harm-linked", Some(&library))?;
        let program = exe()?;
        honoured(&name, Case::by(&program, host.command(), "rounds"))?;
    }
    Ok(())
}

#[test]
fn a_program_in_namespaces_of_its_own_is_honoured() -> Result<()> {
    let _guard = exclusive();
    let program = exe()?;
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ])
        .arg(&program.path);
    honoured("namespaces", Case::by(&program, command, "rounds")).map(drop)
}

#[test]
fn a_program_with_a_seccomp_filter_is_honoured_unless_that_would_end_it() -> Result<()> {
    let _guard = exclusive();
    let program = exe()?;
    let case = |filter| Case::new(&program, "rounds").env("HARM_SECCOMP", filter);
    for filter in full([&["allow", "log", "errno"][..], &["errno"]]) {
        honoured(filter, case(filter))?;
    }
    let walked = case("kill").auto().unharmed(for_seconds(SECONDS))?;
    eprintln!("seccomp, kill: {}", walked.stacks.walked);
    ensure!(
        walked
            .recording
            .stderr
            .contains("a filter of its system calls ends it for memfd_create"),
        "{}",
        walked.recording.stderr
    );
    ensure!(
        walked.stacks.honoured == 0 && walked.stacks.walked > 100,
        "{:?}",
        walked.stacks
    );
    Ok(())
}
