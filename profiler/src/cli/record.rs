//! `profiler record`.

use super::args;
use super::outputs::{self, Output};
use super::preflight;
use super::progress::Progress;
use super::sys;
use anyhow::{Context, Result, bail};
use profiler::debuginfo::debuginfod::Settings;
use profiler::format::{self, Format};
use profiler::profile::{Profile, Roots};
use profiler::record::{Ended, HookMode, Options, Session};
use profiler::sampler::{self, Event, Scope};
use profiler::target::cgroup::Cgroup;
use profiler::target::command::StoppedCommand;
use profiler::target::process::{self, Process};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports for a process that a signal ended: 128 + its number.
const ENDED_BY_SIGNAL: i32 = 128;

/// For how many threads that start later there is room, if nobody waits.
const SPARE_THREADS: usize = 256;

/// Runs the command.
pub fn run(args: args::Record) -> Result<ExitCode> {
    sys::give_back_large_blocks();
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
    let wide = Wide::of(&args)?;
    let mut session = Session::new(Options {
        sampling: sampler::Options {
            frequency_hz: args.frequency,
            max_frames: args.max_frames,
            kernel_frames: !args.no_kernel || args.kernel,
            follow_children: !args.command.is_empty(),
            scope: wide.as_ref().map_or(Scope::Listed, |wide| wide.scope),
            event: event(&args, &processes),
        },
        hooks: hooks(&args)?,
        roots: Roots {
            process: wide.is_some(),
            per_thread: args.per_thread,
            tags: args.tags.clone(),
        },
        title: wide.as_ref().map_or_else(String::new, |wide| wide.title.clone()),
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
    if let Some(wide) = wide {
        allow_many_files();
        session.expect(&wide.processes());
        targets.push(wide.title);
    }
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
        explain_no_samples(&args, ended, on_cpu);
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

/// A recording of processes that nobody listed.
struct Wide {
    scope: Scope,
    /// `None`: the whole host.
    cgroup: Option<Cgroup>,
    title: String,
}

impl Wide {
    /// The processes that there are already.
    fn processes(&self) -> Vec<u32> {
        match &self.cgroup {
            Some(cgroup) => cgroup.processes(),
            None => process::all(),
        }
    }

    fn of(args: &args::Record) -> Result<Option<Self>> {
        if args.all {
            let host = rustix::system::uname();
            let title = format!("host {}", host.nodename().to_string_lossy());
            return Ok(Some(Self {
                scope: Scope::Host,
                cgroup: None,
                title,
            }));
        }
        let Some(path) = &args.cgroup else { return Ok(None) };
        let cgroup = Cgroup::find(path).context("cannot record")?;
        let (id, level) = (cgroup.id, cgroup.level);
        Ok(Some(Self {
            scope: Scope::Cgroup { id, level },
            title: format!("cgroup {}", cgroup.path.display()),
            cgroup: Some(cgroup),
        }))
    }
}

/// Whether hooks are honoured.
fn hooks(args: &args::Record) -> Result<HookMode> {
    let is_wide = args.all || args.cgroup.is_some();
    match args.hooks {
        Some(args::Hooks::Auto | args::Hooks::Require) if args.off_cpu => bail!(
            "cannot record: traceback hooks are asked on the CPU, where a thread that waits is not; leave --hooks out"
        ),
        Some(args::Hooks::Require) if is_wide => bail!(
            "cannot record: --hooks=require is for processes that are named (-p): of a whole host or control group some \
             have no hooks; --hooks=auto asks those that have"
        ),
        Some(when) => Ok(when.into()),
        None if is_wide || args.off_cpu => Ok(HookMode::Off),
        None => Ok(HookMode::Auto),
    }
}

/// When samples are taken.
fn event(args: &args::Record, processes: &[Process]) -> Event {
    if !args.off_cpu {
        return Event::Tick;
    }
    let threads = match processes {
        // Of a command or a whole host: as many as the host has (proc_loadavg(5)).
        [] => std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
            let (_, all) = text.split(' ').nth(3)?.split_once('/')?;
            all.parse().ok()
        }),
        processes => Some(processes.iter().map(|process| process.tids().len()).sum()),
    };
    // Others start later.
    let room = 2 * threads.unwrap_or(0) + SPARE_THREADS;
    Event::Block {
        min: args.min_block,
        threads: u32::try_from(room).unwrap_or(u32::MAX),
    }
}

/// Each process that is followed takes a descriptor: as many as we may have.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without, there is room for fewer processes, and the others say so.
    let _ = setrlimit(Resource::Nofile, limit);
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
fn explain_no_samples(args: &args::Record, ended: Ended, on_cpu_ns: u64) {
    let on_cpu_ms = on_cpu_ns as f64 / 1e6;
    let frequency_hz = args.frequency;
    let reason = match ended {
        _ if args.off_cpu => format!(
            "no thread came back from a wait of at least {} ms (--min-block)",
            args.min_block.as_secs_f64() * 1e3
        ),
        _ if args.all || args.cgroup.is_some() => {
            "no process of it was on a CPU when a sample was due".to_owned()
        }
        Ended::TargetsGone => "the target ended before a sample could be taken".to_owned(),
        Ended::Stopped => format!(
            "the target was on a CPU for {on_cpu_ms:.1} ms in all, and a sample is taken every {:.1} ms of that: it \
             waited, for work or for something else",
            1e3 / frequency_hz as f64
        ),
    };
    eprintln!("no samples: {reason}");
}
