//! Names, files and lines of programs whose symbols and debug information are in other files.

use anyhow::{Context, Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::pprof;
use profiler_tests::profiler::{Recording, record};
use profiler_tests::programs;
use profiler_tests::target::Target;
use std::path::{Path, PathBuf};
use std::process::Command;
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

    fn record(&self) -> Result<Recording> {
        let target = Target::start(Command::new(&self.program))?;
        let pid = target.pid().to_string();
        let recording = record(["-p", &pid, "-F", "499", "-d", "1", "--no-kernel"])?;
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

#[test]
fn a_stripped_program_has_files_and_lines_if_its_debug_file_is_beside_it() -> Result<()> {
    let _guard = exclusive();
    let stripped = Stripped::new()?;
    std::fs::create_dir(stripped.folder.path().join(".debug"))?;
    std::fs::copy(
        &stripped.debug,
        stripped.folder.path().join(".debug/program.debug"),
    )?;
    let recording = stripped.record()?;
    let places = places(&recording, "f1")?;
    let in_source = |place: &String| {
        let (file, line) = place.rsplit_once(':').unwrap_or_default();
        let file = Path::new(file);
        file.is_absolute()
            && file.ends_with("c_deep/c_deep.c")
            && line.parse::<u32>().is_ok_and(|line| line > 0)
    };
    ensure!(places.len() > 100 && places.iter().all(in_source), "{places:?}");
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
    let recording = stripped.record()?;
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
