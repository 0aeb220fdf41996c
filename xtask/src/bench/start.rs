//! How long a recording takes to begin, and after Ctrl-C to end; and what memory one of a large program takes.

use super::Figure;
use super::paired::spread_of;
use anyhow::{Context, Result, ensure};
use profiler_tests::profiler::{self, Recorder};
use profiler_tests::programs::{self, Form};
use profiler_tests::target::{self, Target};
use profiler_tests::usage;
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RECORDINGS: usize = 7;
/// How long each samples.
const TIME: Duration = Duration::from_secs(1);

/// Functions that a compiler has to work on for longer than all recordings take.
const FUNCTIONS: usize = 60_000;

pub(super) fn run() -> Result<Vec<Figure>> {
    let demo = programs::go("demo", "local", Form::Exe, "")?;
    let target = Target::start(demo.command())?;
    let mut figures = times(target.pid(), "demo", "300 ms", "500 ms")?;
    drop(target);

    let compiler = Compiler::start()?;
    let what = format!(
        "rustc with {} MB of libraries",
        compiler.library_bytes / 1_000_000
    );
    figures.extend(times(compiler.child.id(), &what, "1500 ms", "")?);
    figures.push(memory(compiler.child.id(), &what, "150 MiB")?);
    Ok(figures)
}

/// The most memory that recordings of a process take.
fn memory(pid: u32, what: &str, promised: &str) -> Result<Figure> {
    let mut most = 0;
    for _ in 0..RECORDINGS {
        let folder = TempDir::new()?;
        let mut record = profiler::command(["record", "-p", &pid.to_string(), "-d", "1"])?;
        let used = usage::of(record.current_dir(folder.path()))?;
        ensure!(used.status.success(), "the recording failed:\n{}", used.stderr);
        most = most.max(used.peak_memory);
    }
    Ok(Figure::new(
        format!("peak memory, {what}"),
        format!("{} MiB", most >> 20),
        promised,
    ))
}

/// The times of recordings of a process.
fn times(pid: u32, what: &str, begin: &str, end: &str) -> Result<Vec<Figure>> {
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..RECORDINGS {
        let folder = TempDir::new()?;
        let svg = folder.path().join("out.svg");
        let svg = svg.to_str().context("a temporary path is not Unicode")?;
        let start = Instant::now();
        let mut recorder = Recorder::start(["-p", &pid.to_string(), "-F", "99", "-o", svg])?;
        recorder.wait_until_sampling()?;
        begins.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(TIME);
        let stop = Instant::now();
        recorder.signal(Signal::INT)?;
        let recording = recorder.wait()?;
        ends.push(stop.elapsed().as_secs_f64() * 1e3);
        ensure!(
            recording.status.success(),
            "the recording failed:\n{}",
            recording.stderr
        );
    }
    let (begins, ends) = (spread_of(&mut begins, "ms")?, spread_of(&mut ends, "ms")?);
    Ok(vec![
        Figure::new(
            format!("from start to sampling, {what}{}", begins.1),
            format!("{:.0} ms", begins.0),
            begin,
        ),
        Figure::new(
            format!("from Ctrl-C to the end, files included, {what}{}", ends.1),
            format!("{:.0} ms", ends.0),
            end,
        ),
    ])
}

/// A process with large libraries, at work: `rustc`.
struct Compiler {
    child: Child,
    library_bytes: u64,
    _folder: TempDir,
}

impl Compiler {
    fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let source = folder.path().join("large.rs");
        let mut text = String::new();
        for n in 0..FUNCTIONS {
            writeln!(
                text,
                "pub fn f{n}(x: &[u64]) -> u64 {{ x.iter().map(|y| y % {}).sum() }}",
                n + 3
            )?;
        }
        fs::write(&source, text)?;
        // Not rustup's, which is a small program that executes the compiler.
        let sysroot = PathBuf::from(printed(Command::new("rustc").args(["--print", "sysroot"]))?);
        let child = Command::new(sysroot.join("bin/rustc"))
            .args(["--crate-type=lib", "-Copt-level=3", "-Ccodegen-units=1", "-o"])
            .arg(folder.path().join("large.rlib"))
            .arg(source)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start rustc")?;
        let libraries = fs::read_dir(sysroot.join("lib"))?.filter_map(Result::ok);
        let mapped = libraries.filter(|entry| {
            let name = entry.file_name();
            ["librustc_driver", "libLLVM.so"]
                .iter()
                .any(|start| name.to_string_lossy().starts_with(start))
        });
        let library_bytes = mapped
            .map(|entry| entry.metadata().map_or(0, |about| about.len()))
            .sum();
        Ok(Self {
            child,
            library_bytes,
            _folder: folder,
        })
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        target::end(&mut self.child);
    }
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
