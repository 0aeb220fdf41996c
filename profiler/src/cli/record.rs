//! `profiler record`.

use super::args;
use super::outputs::{self, Output};
use super::preflight;
use super::progress::Progress;
use anyhow::{Context, Result};
use profiler::debuginfo::debuginfod::Settings;
use profiler::format::{self, Format};
use profiler::profile::Profile;
use profiler::record::{Ended, Options, Session};
use profiler::sampler;
use profiler::target::command::StoppedCommand;
use profiler::target::process::{self, Process};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports for a process that a signal ended: 128 + its number.
const ENDED_BY_SIGNAL: i32 = 128;

/// Runs the command.
pub fn run(args: args::Record) -> Result<ExitCode> {
    let outputs = outputs::plan(&args.outputs)?;
    if let Some(path) = &args.summary_json {
        outputs::check(path)?;
    }
    preflight::pid_namespace()?;
    // Before the capabilities: that a process does not exist is true for everybody. That we may not look at one is
    // for them to explain.
    let opened = args
        .pids
        .iter()
        .map(|&pid| Process::open(pid))
        .collect::<Result<Vec<_>, _>>();
    if matches!(opened, Err(process::Error::Read { .. })) {
        preflight::capabilities()?;
    }
    let processes = opened.context("cannot record")?;
    preflight::capabilities()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(record(args, processes, &outputs))
}

async fn record(args: args::Record, processes: Vec<Process>, outputs: &[Output]) -> Result<ExitCode> {
    let mut session = Session::new(Options {
        sampling: sampler::Options {
            frequency_hz: args.frequency,
            max_frames: args.max_frames,
            kernel_frames: !args.no_kernel || args.kernel,
            follow_children: !args.command.is_empty(),
        },
        hooks: args.hooks.into(),
        debuginfod: Settings::from_env(),
    })?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;

    let command = match args.command.split_first() {
        Some((program, arguments)) => Some(
            StoppedCommand::start(program, arguments)
                .with_context(|| format!("cannot start {}", program.display()))?,
        ),
        None => None,
    };
    let mut targets: Vec<String> = processes.iter().map(|process| process.name()).collect();
    for process in processes {
        session.watch(process).await?;
    }
    if let Some(command) = &command {
        let process = Process::open(command.pid())?;
        targets.push(process.name());
        session.watch(process).await?;
    }
    session.start()?;
    let mut child = match command {
        Some(command) => Some(command.resume().context("cannot let the command run")?),
        None => None,
    };

    let mut progress = Progress::new(targets.join(", "));
    let mut stopped = None;
    let outcome = {
        let stop = stop(&mut interrupt, &mut terminate, args.duration, &mut stopped);
        session.run(stop, &mut progress).await
    };
    progress.finish();
    // Who said that it shall end does not wait for a server.
    if matches!(stopped, None | Some(Stopped::TimeIsUp)) && session.is_fetching() {
        say_that_it_waits();
        let stop = stop(&mut interrupt, &mut terminate, None, &mut stopped);
        tokio::select! {
            () = session.fetched() => {}
            () = stop => {}
        }
    }
    let by_terminate = stopped == Some(Stopped::Terminated);
    // From here on Ctrl-C quits: what is left to do is bounded, but the user decides.
    tokio::spawn(async move {
        if interrupt.recv().await.is_some() {
            quit();
        }
    });

    let on_cpu = session.on_cpu_ns();
    let profile = tokio::task::spawn_blocking(move || session.finish())
        .await
        .context("a worker failed")??;
    let written = write(&profile, outputs, args.summary_json.as_deref());
    // What was recorded before something went wrong has been written like anything else.
    let ended = outcome.context("the recording was cut off")?;
    written?;
    if profile.summary.kept == 0 {
        explain_no_samples(ended, on_cpu, args.frequency);
    }
    let Some(child) = &mut child else {
        return Ok(ExitCode::SUCCESS);
    };
    if by_terminate {
        child.terminate();
    }
    let status = child.wait().context("cannot wait for the command")?;
    let code = status
        .code()
        .unwrap_or_else(|| ENDED_BY_SIGNAL + status.signal().unwrap_or(0));
    Ok(ExitCode::from(code as u8))
}

/// Why a recording shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// By Ctrl-C.
    Interrupted,
    /// By SIGTERM.
    Terminated,
    /// It has taken as long as it was to take.
    TimeIsUp,
}

/// Ready when the recording shall end.
async fn stop(
    interrupt: &mut Signal,
    terminate: &mut Signal,
    duration: Option<Duration>,
    stopped: &mut Option<Stopped>,
) {
    let time_is_up = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    *stopped = Some(tokio::select! {
        _ = interrupt.recv() => Stopped::Interrupted,
        _ = terminate.recv() => Stopped::Terminated,
        () = time_is_up => Stopped::TimeIsUp,
    });
}

#[expect(clippy::print_stderr, reason = "what the user waits for")]
fn say_that_it_waits() {
    eprintln!("waiting for debug files from debuginfod; Ctrl-C goes on without them");
}

#[expect(clippy::exit, reason = "a second Ctrl-C means now")]
fn quit() -> ! {
    std::process::exit(ENDED_BY_SIGNAL + 2);
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of the command"
)]
fn write(profile: &Profile, outputs: &[Output], summary_json: Option<&std::path::Path>) -> Result<()> {
    let mut failed = Vec::new();
    let mut is_kept = false;
    for output in outputs {
        match format::write(profile, output.format) {
            Ok(bytes) => match outputs::write(&output.path, &bytes) {
                Ok(()) => {
                    println!("wrote {}", output.path.display());
                    is_kept |= output.format == Format::Pprof;
                }
                Err(error) => failed.push(error),
            },
            // Said once, below, with the reason.
            Err(format::Error::NoSamples) => {}
            Err(error) => failed
                .push(anyhow::Error::from(error).context(format!("cannot write {}", output.path.display()))),
        }
    }
    if let Some(path) = summary_json {
        match outputs::write(path, format::summary::json(profile).as_bytes()) {
            Ok(()) => println!("wrote {}", path.display()),
            Err(error) => failed.push(error),
        }
    }
    eprint!("{}", format::summary::text(profile));
    if !failed.is_empty() && !is_kept {
        match outputs::rescue(profile) {
            Some(path) => eprintln!(
                "the profile is kept in {0}; `profiler convert {0} FILE` writes it in another format",
                path.display()
            ),
            None => eprintln!("the profile is lost: no other directory for temporary files has room either"),
        }
    }
    let mut failed = failed.into_iter();
    let Some(first) = failed.next() else { return Ok(()) };
    for error in failed {
        super::explain(&error);
    }
    Err(first)
}

#[expect(clippy::print_stderr, reason = "the result of the command")]
fn explain_no_samples(ended: Ended, on_cpu_ns: u64, frequency_hz: u64) {
    let on_cpu_ms = on_cpu_ns as f64 / 1e6;
    let reason = match ended {
        Ended::TargetsGone => "the target ended before a sample could be taken".to_owned(),
        Ended::Stopped => format!(
            "the target was on a CPU for {on_cpu_ms:.1} ms in all, and a sample is taken every {:.1} ms of that: it \
             waited, for work or for something else",
            1e3 / frequency_hz as f64
        ),
    };
    eprintln!("no samples: {reason}");
}
