//! The runs that `check --record` takes itself: with this same binary, each into a file of its own.

use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// How much of what a failed run has said is repeated, in bytes from the end.
const MAX_STDERR: usize = 2_000;

/// The recordings of both sides. They are removed with the folder.
pub struct Runs {
    _folder: TempDir,
    pub baseline: Vec<PathBuf>,
    pub candidate: Vec<PathBuf>,
}

/// Records `n` runs of `command`, each after one of `against`, which is a line for the shell: what makes the machine slower
/// for a while then does so for both. What the commands write to their standard output is dropped.
///
/// # Errors
/// A run could not be recorded, or its command failed.
pub fn record(n: u32, frequency: u64, command: &[OsString], against: Option<&str>) -> Result<Runs> {
    let folder = tempfile::tempdir().context("cannot make a folder for the recordings")?;
    let mut runs = Runs {
        baseline: Vec::new(),
        candidate: Vec::new(),
        _folder: folder,
    };
    for number in 1..=n {
        if let Some(line) = against {
            let path = runs._folder.path().join(format!("against-{number}.pb.gz"));
            run(&path, frequency, &["sh", "-c", line].map(OsString::from))?;
            runs.baseline.push(path);
        }
        let path = runs._folder.path().join(format!("run-{number}.pb.gz"));
        run(&path, frequency, command)?;
        runs.candidate.push(path);
    }
    Ok(runs)
}

fn run(path: &Path, frequency: u64, command: &[OsString]) -> Result<()> {
    let line = command.join(OsStr::new(" "));
    let profiler = std::env::current_exe().context("cannot find this program's own file")?;
    let output = Command::new(profiler)
        .args(["record", "-F", &frequency.to_string(), "-o"])
        .arg(path)
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("cannot record {}", line.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = &output.stderr[output.stderr.len().saturating_sub(MAX_STDERR)..];
    bail!(
        "a run of {} failed ({}): {}",
        line.display(),
        output.status,
        String::from_utf8_lossy(said).trim()
    );
}
