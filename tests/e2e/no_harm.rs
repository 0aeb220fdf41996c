//! What Go's own distribution tests its runtime with at the border to C goes on as without us while its threads are asked
//! for what hooks say.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Context, Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::profiler::Recorder;
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::Target;
use profiler_tests::testprogcgo::{self, Driven, TestProgCgo};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

/// Programs that run in rounds, all at once, with the hooks of the driver. They print OK, or what is wrong.
const ROUNDS: [&str; 11] = [
    "CgoTraceback",
    "CgoCallbackGC",
    "EnsureDropM",
    "CgoCCodeSIGPROF",
    "CgoExecSignalMask",
    "SigStack",
    "EINTR",
    "StackSwitchCallback",
    "NeedmDeadlock",
    "CgoRaceSignal",
    "CgoExternalThreadSignal",
];

/// It is so busy that it may have no thread at rest, which is what it takes to get in.
const BUSY: &str = "CgoPprofCallback";

#[test]
fn programs_that_are_asked_print_what_they_print() -> Result<()> {
    let _guard = exclusive();
    let programs = TestProgCgo::build("local", "exe")?;
    asked(&programs, &ROUNDS, "--hooks=require")?;
    asked(&programs, &[BUSY], "--hooks=auto")
}

/// A program that ends by itself, and what it does then.
struct Once {
    name: &'static str,
    variable: Option<(&'static str, &'static str)>,
    /// What it prints, in this order (runtime/crash_cgo_test.go).
    prints: &'static [&'static str],
}

const ONCE: [Once; 9] = [
    once(
        "CrashTraceback",
        &["cgo symbolizer:1", "cgo symbolizer:2", "cgo symbolizer:3"],
    ),
    once("CrashTracebackGo", &["main.h3", "main.h2", "main.h1"]),
    once(
        "PanicCallback",
        &[
            "panic: runtime error: invalid memory address or nil pointer dereference",
            "panic_callback",
            "PanicCallback",
        ],
    ),
    once("TracebackSigpanic", &["main.TracebackSigpanic"]),
    once("EnsureBindM", &["OK"]),
    once("TracebackContextPreemption", &["OK"]),
    Once {
        variable: Some(("GOMAXPROCS", "1")),
        ..once("LockOSThreadMain", &["OK"])
    },
    Once {
        variable: Some(("GO_TEST_CGOSIGFWD", "1")),
        ..once("CgoSigfwd", &["OK"])
    },
    Once {
        variable: Some(("GO_START_SIGPROF_THREAD", "1")),
        ..once("CgoExternalThreadSIGPROF", &["OK"])
    },
];

const fn once(name: &'static str, prints: &'static [&'static str]) -> Once {
    Once {
        name,
        variable: None,
        prints,
    }
}

#[test]
fn programs_that_we_start_end_as_they_end() -> Result<()> {
    let _guard = exclusive();
    let programs = TestProgCgo::build("local", "exe")?;
    for program in &ONCE {
        program.ends_alike(&programs.plain(program.name))?;
    }
    Ok(())
}

#[test]
fn hooks_that_a_program_without_cgo_registers_are_not_called() -> Result<()> {
    let _guard = exclusive();
    let program = once("SetCgoTracebackNoCgo", &["OK"]);
    program.ends_alike(&testprogcgo::without_cgo(program.name)?)
}

impl Once {
    /// Runs the command alone and started by us.
    fn ends_alike(&self, command: &Command) -> Result<()> {
        let run = |command: &mut Command| {
            let command = command.envs(self.variable).stdin(Stdio::null());
            command
                .output()
                .with_context(|| format!("cannot run {command:?}"))
        };
        let alone = run(Command::new(command.get_program()).args(command.get_args()))?;
        let (mut recorder, _folder) = Recorder::command(["-F", "999", "--hooks=auto", "--"])?;
        let recorded = run(recorder.arg(command.get_program()).args(command.get_args()))?;
        // What a shell makes of the end by a signal.
        let code = alone
            .status
            .code()
            .or(alone.status.signal().map(|signal| 128 + signal));
        ensure!(
            recorded.status.code() == code,
            "{}: {recorded:?} and not {alone:?}",
            self.name
        );
        for output in [&alone, &recorded] {
            let text = [&output.stdout[..], &output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let mut rest = &*text;
            for line in self.prints {
                rest = rest
                    .split_once(line)
                    .with_context(|| format!("{}: not {line:?} in\n{text}", self.name))?
                    .1;
            }
            ensure!(!text.contains("runtime: "), "{}: {text}", self.name);
        }
        // After that, we say what we wrote.
        ensure!(
            recorded.stdout.starts_with(&alone.stdout),
            "{}: {recorded:?} and not {alone:?}",
            self.name
        );
        Ok(())
    }
}

/// Records programs that run in rounds, all of them together, and asks them what hooks say.
fn asked(programs: &TestProgCgo, names: &[&str], hooks: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut running = Vec::new();
    for &name in names {
        let errors = folder.path().join(name);
        let mut command = programs.driven(name, Driven::WithHooks);
        command
            .stderr(fs::File::create(&errors)?)
            .env("TMPDIR", folder.path())
            .env("RUNTIME_TEST_SHORT", "1");
        let mut target = Target::start(command).with_context(|| name.to_owned())?;
        target.command("pause")?;
        has_paused(&mut target, name)?;
        let before = Snapshot::at_rest(target.pid())?;
        running.push((name, target, errors, before));
    }
    for (_, target, ..) in &mut running {
        target.command("go on")?;
    }
    let pids = running
        .iter()
        .flat_map(|(_, target, ..)| ["-p".to_owned(), target.pid().to_string()]);
    let options = ["-F", "499", "-d", "4", hooks].map(str::to_owned);
    let mut recorder = Recorder::start(options.into_iter().chain(pids))?;
    recorder.wait_until_sampling()?;
    let recording = recorder.wait()?;
    eprintln!("{names:?}:\n{}", recording.stderr);
    recording.stacks()?;
    for (_, target, ..) in &mut running {
        target.command("pause")?;
    }
    for (name, mut target, errors, before) in running {
        has_paused(&mut target, name).with_context(|| fs::read_to_string(&errors).unwrap_or_default())?;
        let after = Snapshot::at_rest(target.pid())?;
        let mut differences = before.differences(&after, Freedom::GoRuntime);
        // Go deletes its own profile's timer of a thread when that runs Go code again (runtime/proc.go, `execute`).
        differences.retain(|difference| !difference.contains("setting timers"));
        ensure!(
            differences.is_empty(),
            "{name} is not as it was:\n{}",
            differences.join("\n")
        );
        let finished = target.finish()?;
        ensure!(
            finished.status.success() && finished.iterations > 1,
            "{name}: {finished:?}"
        );
        // Some say it there.
        let errors = fs::read_to_string(errors)?;
        ensure!(errors.lines().all(|line| line == "OK"), "{name}: {errors}");
    }
    Ok(())
}

/// Waits until the driver rests.
fn has_paused(target: &mut Target, name: &str) -> Result<()> {
    let printed = target.read_line()?;
    ensure!(
        printed.split_whitespace().all(|word| word == "OK"),
        "{name}: {printed}"
    );
    Ok(())
}
