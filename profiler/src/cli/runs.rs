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
            run(&path, frequency, &words(line))?;
            runs.baseline.push(path);
        }
        let path = runs._folder.path().join(format!("run-{number}.pb.gz"));
        run(&path, frequency, command)?;
        runs.candidate.push(path);
    }
    Ok(runs)
}

/// The command that a line stands for. One that has nothing for a shell is run without it: it is the program then, and not
/// the shell, that the recording is of.
fn words(line: &str) -> Vec<OsString> {
    let plain = |c: char| c.is_alphanumeric() || " \t/._-+:,@%=".contains(c);
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.first() {
        Some(program) if line.chars().all(plain) && !program.contains('=') => {
            words.into_iter().map(OsString::from).collect()
        }
        _ => ["sh", "-c", line].map(OsString::from).to_vec(),
    }
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

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_line_is_run_by_a_shell_only_if_it_needs_one() {
        for (line, expected) in [
            ("./old  -n 8 --in=a.txt", &["./old", "-n", "8", "--in=a.txt"][..]),
            ("cd old && ./bench", &["sh", "-c", "cd old && ./bench"]),
            ("./old 'a b'", &["sh", "-c", "./old 'a b'"]),
            ("GOGC=off ./old", &["sh", "-c", "GOGC=off ./old"]),
            ("./old $N", &["sh", "-c", "./old $N"]),
            ("", &["sh", "-c", ""]),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
    }
}
