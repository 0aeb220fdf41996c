//! `cargo xtask test`: everything that must pass before a change is accepted, cheapest first.

use crate::command::{answers, cargo, path_with, run as run_command, succeeds};
use crate::{bpf, go, host, kernels, tidy, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A name, and what has to succeed.
type Step = (&'static str, fn(&Machine) -> Result<()>);

const STEPS: &[Step] = &[
    ("format", |m| m.cargo(&["fmt", "--all", "--check"])),
    ("repository rules", |_| tidy::run()),
    ("BPF object fits its sources", |_| bpf::check()),
    // What follows embeds the object that was built here, not the one that was cloned.
    ("BPF object builds", |_| bpf::build()),
    ("lints", |m| {
        m.cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
    }),
    ("unit tests", unit_tests),
    ("end-to-end tests", end_to_end),
    ("other kernels", other_kernels),
];

/// What tests look for to know that they have more time: `full` in `tests/src`.
const FULL: &str = "PROFILER_TEST_FULL";

/// Runs every step, up to the first that fails, and says how long each took.
pub fn run(full: bool) -> Result<()> {
    host::require_root("test", "to load BPF programs and to record other processes")?;
    println!("== prerequisites ==");
    let start = Instant::now();
    let machine = Machine::prepare(full)?;
    let mut took = vec![("prerequisites", start.elapsed())];

    let mut outcome = Ok(());
    for (name, step) in STEPS {
        println!("\n== {name} ==");
        let start = Instant::now();
        let result = step(&machine);
        took.push((name, start.elapsed()));
        if result.is_err() {
            outcome = result.with_context(|| format!("FAILED: {name}"));
            break;
        }
    }
    println!("\n{}", table(&took));
    if outcome.is_ok() {
        println!("All steps passed.");
    }
    outcome
}

/// Half of the time these tests wait for processes that they started. Meanwhile what the next step records with is built.
fn unit_tests(machine: &Machine) -> Result<()> {
    let build = machine.cargo_command(RELEASE);
    let mut build = Command::new("nice")
        .args(["-n", "19"])
        .arg(build.get_program())
        .args(build.get_args())
        .arg("--quiet")
        .env("PATH", &machine.path)
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start nice")?;
    let tested = machine.cargo(&["test", "--workspace", "--exclude", "profiler-tests", "--locked"]);
    let built = build.wait()?;
    tested?;
    ensure!(built.success(), "the release build failed: {built}");
    Ok(())
}

/// What builds the profiler that end-to-end tests record with.
const RELEASE: &[&str] = &["build", "--release", "--package", "profiler", "--locked"];

/// Records real programs with the release build. What the kernel keeps (events, programs, signals) is shared by
/// the whole machine, so one test runs at a time.
fn end_to_end(machine: &Machine) -> Result<()> {
    machine.cargo(RELEASE)?;
    let profiler = workspace::target_dir()?.join("release").join("profiler");
    run_command(
        machine
            .cargo_command(&[
                "test",
                "--package",
                "profiler-tests",
                "--locked",
                "--",
                "--test-threads=1",
            ])
            .env("PROFILER_BIN", profiler),
    )
}

/// Takes a minute or two, and changes with the BPF program only.
fn other_kernels(machine: &Machine) -> Result<()> {
    if machine.full {
        return kernels::run();
    }
    println!("left out: only with --full, or by themselves: cargo xtask kernels");
    Ok(())
}

/// The machine that tests run on, with everything they need.
struct Machine {
    /// `PATH`, with Go in it.
    path: OsString,
    /// Whether tests may take longer.
    full: bool,
}

impl Machine {
    fn prepare(full: bool) -> Result<Self> {
        let why = "to build the programs that tests read and record";
        host::require(
            host::C_TOOLCHAIN
                .iter()
                .chain(host::CXX)
                .chain(host::MUSL)
                .chain(host::DEBUG_FILES)
                .chain(host::SQLITE)
                .chain(host::PYTHON),
            why,
        )?;
        host::require(host::GROFF, "to read the manual pages")?;
        let go = go::require(why)?;
        require_component("rustfmt", "fmt")?;
        require_component("clippy", "clippy")?;
        let path = match go.parent() {
            Some(directory) if go.is_absolute() => path_with(directory)?,
            _ => std::env::var_os("PATH").unwrap_or_default(),
        };
        Ok(Self { path, full })
    }

    fn cargo(&self, args: &[&str]) -> Result<()> {
        run_command(&mut self.cargo_command(args))
    }

    fn cargo_command(&self, args: &[&str]) -> Command {
        let mut command = cargo();
        command
            .args(args)
            .current_dir(workspace::root())
            .env("PATH", &self.path)
            .env_remove(FULL);
        if self.full {
            command.env(FULL, "1");
        }
        command
    }
}

/// Makes sure that cargo has a subcommand which rustup may have left out.
fn require_component(component: &str, subcommand: &str) -> Result<()> {
    let has_it = || succeeds(cargo().args([subcommand, "--version"]));
    if has_it() {
        return Ok(());
    }
    if answers("rustup", &["--version"]) {
        println!("Installing {component}, which checks every change");
        run_command(Command::new("rustup").args(["component", "add", component]))?;
    }
    if !has_it() {
        bail!("`cargo {subcommand}` does not work: install {component} for this Rust toolchain");
    }
    Ok(())
}

fn table(took: &[(&str, Duration)]) -> String {
    let mut text = String::new();
    let total = took.iter().map(|(_, time)| *time).sum();
    for (name, time) in took.iter().copied().chain([("total", total)]) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<30}{:>8.1} s", time.as_secs_f64());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;
    use std::time::Duration;

    #[test]
    fn the_table_ends_with_the_total() {
        let took = [
            ("format", Duration::from_millis(250)),
            ("lints", Duration::from_millis(11_500)),
        ];
        assert_eq!(
            table(&took),
            "format                             0.2 s\n\
             lints                             11.5 s\n\
             total                             11.8 s\n"
        );
    }
}
