//! Names, files and lines of programs whose symbols and debug information are in other files.

use anyhow::{Context, Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::pprof;
use profiler_tests::profiler::{Recorder, Recording};
use profiler_tests::programs;
use profiler_tests::target::Target;
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A stripped copy of a program in a folder of its own, which asks for a debug file that is nowhere yet.
struct Stripped {
    folder: TempDir,
    program: PathBuf,
    debug: PathBuf,
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

impl Stripped {
    fn new() -> Result<Self> {
        let whole = programs::native("c_deep/c_deep.c")?.path;
        let folder = TempDir::new()?;
        // The kernel shows mapped files by their real path.
        let at = folder.path().canonicalize()?;
        let (program, debug) = (at.join("stripped"), at.join("made/program.debug"));
        std::fs::create_dir(at.join("made"))?;
        run(Command::new("objcopy")
            .arg("--only-keep-debug")
            .args([&whole, &debug]))?;
        run(Command::new("objcopy")
            .arg("--strip-all")
            .arg(format!("--add-gnu-debuglink={}", debug.display()))
            .args([&whole, &program]))?;
        Ok(Self {
            folder,
            program,
            debug,
        })
    }

    fn record(&self, environment: &[(&str, &str)]) -> Result<Recording> {
        self.record_until(environment, Some("1"), |recorder| recorder.wait())
    }

    /// Records for that many seconds, or until `end` ends it.
    fn record_until(
        &self,
        environment: &[(&str, &str)],
        seconds: Option<&str>,
        end: impl FnOnce(Recorder) -> Result<Recording>,
    ) -> Result<Recording> {
        let target = Target::start(Command::new(&self.program))?;
        let pid = target.pid().to_string();
        let mut args = vec!["-p", &pid, "-F", "499", "--no-kernel"];
        args.extend(seconds.into_iter().flat_map(|seconds| ["-d", seconds]));
        let recording = end(Recorder::start_with(args, environment)?)?;
        ensure!(target.finish()?.status.success());
        Ok(recording)
    }
}

/// The places (`file:line`) of all frames of `function`.
fn places(recording: &Recording, function: &str) -> Result<Vec<String>> {
    let samples = pprof::samples(&[recording.pprof()])?;
    let frames = samples.into_iter().flat_map(|sample| sample.frames);
    let of_function = frames.filter(|frame| frame.function == function);
    Ok(of_function.map(|frame| frame.place).collect())
}

/// All frames of `f1` are in its source.
fn ensure_in_source(recording: &Recording) -> Result<()> {
    let places = places(recording, "f1")?;
    let in_source = |place: &String| {
        let (file, line) = place.rsplit_once(':').unwrap_or_default();
        let file = Path::new(file);
        file.is_absolute()
            && file.ends_with("c_deep/c_deep.c")
            && line.parse::<u32>().is_ok_and(|line| line > 0)
    };
    ensure!(
        places.len() > 100 && places.iter().all(in_source),
        "{places:?}\n{}",
        recording.stderr
    );
    Ok(())
}

/// A debuginfod server on this machine that sends this file, whatever it is asked for, or never answers; and who hears of
/// each connection.
fn serve(file: Option<PathBuf>) -> Result<(String, Receiver<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let (connected, connections) = mpsc::channel();
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        for stream in listener.incoming().flatten() {
            // Not every test wants to know.
            let _ = connected.send(());
            match &file {
                Some(file) => drop(answer(stream, file)),
                None => unanswered.push(stream),
            }
        }
    });
    Ok((url, connections))
}

fn answer(mut stream: TcpStream, file: &Path) -> Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    let head: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    ensure!(head.iter().any(|line| line.contains("/buildid/")), "{head:?}");
    let body = std::fs::read(file)?;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    Ok(stream.write_all(&body)?)
}

#[test]
fn debug_files_are_fetched_from_servers_that_the_user_names() -> Result<()> {
    let _guard = exclusive();
    let stripped = Stripped::new()?;
    let cache = TempDir::new()?;
    let cache_path = cache.path().to_str().context("a path")?;
    let (url, _) = serve(Some(stripped.debug.clone()))?;
    let environment = [
        ("DEBUGINFOD_URLS", url.as_str()),
        ("DEBUGINFOD_CACHE_PATH", cache_path),
    ];
    let fetched = stripped.record(&environment)?;
    ensure_in_source(&fetched)?;
    let notes = fetched.summary()?.debug_files();
    let note = notes.iter().find(|(module, _)| module == "stripped");
    let (_, note) = note.with_context(|| format!("{notes:?}"))?;
    ensure!(note.contains(&format!("fetched from {url}")), "{note}");

    // Nobody is there now, and the file is.
    let nobody = ["DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH"];
    let cached = stripped.record(&[(nobody[0], "http://127.0.0.1:9"), (nobody[1], cache_path)])?;
    ensure_in_source(&cached)?;
    let text = &cached.stderr;
    ensure!(text.contains("taken from the cache of debuginfod"), "{text}");
    Ok(())
}

#[test]
fn who_ends_a_recording_does_not_wait_for_servers() -> Result<()> {
    let _guard = exclusive();
    let stripped = Stripped::new()?;
    let cache = TempDir::new()?;
    let cache_path = cache.path().to_str().context("a path")?;
    let (url, connections) = serve(None)?;
    let environment = [
        ("DEBUGINFOD_URLS", url.as_str()),
        ("DEBUGINFOD_CACHE_PATH", cache_path),
    ];
    let mut took = Duration::MAX;
    let recording = stripped.record_until(&environment, None, |recorder| {
        connections.recv_timeout(Duration::from_secs(60))?;
        let end = Instant::now();
        recorder.signal(Signal::INT)?;
        let recording = recorder.wait()?;
        took = end.elapsed();
        Ok(recording)
    })?;
    // A server has 90 s to answer.
    ensure!(took < Duration::from_secs(60), "{took:?}");
    let notes = recording.summary()?.debug_files();
    let note = (
        "stripped".to_owned(),
        "debuginfod had not answered when the recording was over".to_owned(),
    );
    ensure!(notes.contains(&note), "{notes:?}");
    Ok(())
}

#[test]
fn a_stripped_program_has_files_and_lines_if_its_debug_file_is_beside_it() -> Result<()> {
    let _guard = exclusive();
    let stripped = Stripped::new()?;
    std::fs::create_dir(stripped.folder.path().join(".debug"))?;
    std::fs::copy(
        &stripped.debug,
        stripped.folder.path().join(".debug/program.debug"),
    )?;
    let recording = stripped.record(&[])?;
    ensure_in_source(&recording)?;
    let text = &recording.stderr;
    ensure!(!text.contains("separate debug files"), "{text}");
    Ok(())
}

#[test]
fn the_debug_file_of_another_build_is_refused_and_the_table_says_so() -> Result<()> {
    let _guard = exclusive();
    let stripped = Stripped::new()?;
    let other = programs::native("busy_threads/busy_threads.c")?.path;
    std::fs::copy(other, stripped.folder.path().join("program.debug"))?;
    let recording = stripped.record(&[])?;
    let (summary, text) = (recording.summary()?, &recording.stderr);
    let [refused] = &summary.debug_files()[..] else {
        anyhow::bail!("{text}");
    };
    ensure!(
        refused.0 == "stripped"
            && refused
                .1
                .contains("program.debug is refused: the debug file belongs to another build"),
        "{refused:?}"
    );
    ensure!(
        text.contains("separate debug files") && text.contains("another build"),
        "{text}"
    );
    let missing = summary.missing();
    let reason = missing.iter().find(|(module, _)| module == "stripped");
    let (_, reason) = reason.with_context(|| format!("{missing:?}"))?;
    ensure!(
        reason.contains("-dbgsym") && reason.contains("DEBUGINFOD_URLS") && reason.contains("build id"),
        "{reason}"
    );
    ensure!(places(&recording, "f1")?.is_empty());
    Ok(())
}
