//! Runs the profiler and reads what it wrote.

use crate::folded::Folded;
use crate::programs::{cargo_target, run};
use crate::target;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing that is waited for takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether a profiler samples.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A finished recording.
#[derive(Debug)]
pub struct Recording {
    /// The stacks; `None` if none were written.
    pub folded: Option<Folded>,
    /// The summary; `None` if none was written.
    pub summary: Option<Summary>,
    /// What the profiler printed on standard output, unless that was not ours to read.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
    /// Its exit status.
    pub status: ExitStatus,
    folder: TempDir,
}

/// A recording that is running. The profiler is killed when this is dropped.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    folder: TempDir,
}

/// The JSON summary of a recording.
#[derive(Clone, Debug)]
pub struct Summary(Value);

/// Where the profiler is: `PROFILER_BIN`, or built here, once.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| match std::env::var_os("PROFILER_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => build().map_err(|e| format!("{e:#}")),
    });
    match built {
        Ok(path) => Ok(path),
        Err(message) => Err(anyhow::Error::msg(message.clone())),
    }
}

fn build() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    run(Command::new(env!("CARGO"))
        .current_dir(workspace)
        .args(["build", "--release", "-p", "profiler"]))?;
    Ok(cargo_target().join("release/profiler"))
}

/// A command of the profiler.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Records to the end. `args` are those after `record`, without outputs.
pub fn record<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Recording> {
    Recorder::start(args)?.wait()
}

impl Recorder {
    /// Starts a recording; `args` are those after `record`. Folded stacks, pprof and summary go to a folder of
    /// its own.
    pub fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Self> {
        let (mut command, folder) = Self::command(args)?;
        let child = command.spawn().context("cannot start the profiler")?;
        Ok(Self { child, folder })
    }

    /// Likewise, with more variables in its environment.
    pub fn start_with<S: AsRef<OsStr>>(
        args: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let (mut command, folder) = Self::command(args)?;
        command.envs(environment.iter().copied());
        let child = command.spawn().context("cannot start the profiler")?;
        Ok(Self { child, folder })
    }

    /// The command that [`Recorder::start`] starts, and the folder of its outputs.
    pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<(Command, TempDir)> {
        let folder = TempDir::new()?;
        let mut command = command([OsStr::new("record"), OsStr::new("-o")])?;
        command.arg(folder.path().join("out.folded"));
        command.arg("-o").arg(folder.path().join("out.pb.gz"));
        // No server is asked unless a test has one.
        command.env_remove("DEBUGINFOD_URLS");
        command
            .arg("--summary-json")
            .arg(folder.path().join("summary.json"));
        command.args(args);
        Ok((command, folder))
    }

    /// Waits until the profiler samples: until it holds the link of a BPF program to a perf event, or to the scheduler. An error if it
    /// ends before.
    pub fn wait_until_sampling(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.is_sampling() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let mut stderr = String::new();
                if let Some(pipe) = &mut self.child.stderr {
                    pipe.read_to_string(&mut stderr)?;
                }
                anyhow::bail!("the profiler ended before it took a sample: {status}\n{stderr}");
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "the profiler opened no perf event in {PATIENCE:?}"
            );
            // Else this would take the CPU on which the profiler begins.
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Whether the profiler samples now.
    pub fn is_sampling(&self) -> bool {
        let fds = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()));
        fds.into_iter()
            .flatten()
            .flatten()
            .filter_map(|fd| fs::read_to_string(fd.path()).ok())
            .any(|info| info.contains("link_type:\tperf") || info.contains("tp_name:\tsched_switch"))
    }

    /// The profiler's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the profiler a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("the profiler has no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for the end and reads what was written.
    pub fn wait(mut self) -> Result<Recording> {
        // Drained on two threads: a full pipe would stop the profiler.
        let stdout = self
            .child
            .stdout
            .take()
            .map(|pipe| std::thread::spawn(move || drain(pipe)));
        let stderr = self
            .child
            .stderr
            .take()
            .map_or_else(|| Ok(String::new()), drain)?;
        let stdout = match stdout.map(std::thread::JoinHandle::join) {
            Some(Ok(text)) => text?,
            _ => String::new(),
        };
        let status = self.child.wait()?;
        let folder = std::mem::replace(&mut self.folder, TempDir::new()?);
        Recording::read(folder, stdout, stderr, status)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        target::end(&mut self.child);
    }
}

impl Recording {
    /// Reads the outputs in `folder` of a profiler that has ended.
    pub fn read(folder: TempDir, stdout: String, stderr: String, status: ExitStatus) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        let folded = read("out.folded").map(|text| Folded::parse(&text)).transpose()?;
        let summary = read("summary.json")
            .map(|text| Summary::parse(&text))
            .transpose()?;
        Ok(Self {
            folded,
            summary,
            stdout,
            stderr,
            status,
            folder,
        })
    }

    /// The stacks of a recording that must have succeeded.
    pub fn stacks(&self) -> Result<&Folded> {
        ensure!(
            self.status.success(),
            "the profiler failed ({}):\n{}",
            self.status,
            self.stderr
        );
        self.folded
            .as_ref()
            .context("the profiler wrote no folded stacks")
    }

    /// The summary of a recording that must have succeeded.
    pub fn summary(&self) -> Result<&Summary> {
        ensure!(
            self.status.success(),
            "the profiler failed ({}):\n{}",
            self.status,
            self.stderr
        );
        self.summary.as_ref().context("the profiler wrote no summary")
    }

    /// The pprof file.
    pub fn pprof(&self) -> PathBuf {
        self.folder.path().join("out.pb.gz")
    }
}

impl Summary {
    /// Reads a summary.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self(
            serde_json::from_str(text).context("the summary is not JSON")?,
        ))
    }

    /// The number at `path`, a JSON pointer.
    fn number(&self, path: &str) -> Result<u64> {
        self.0
            .pointer(path)
            .and_then(Value::as_u64)
            .with_context(|| format!("the summary has no number {path}: {}", self.0))
    }

    /// Samples in the profile.
    pub fn kept(&self) -> Result<u64> {
        self.number("/samples/kept")
    }

    /// Those whose stacks are whole.
    pub fn complete(&self) -> Result<u64> {
        self.number("/samples/complete")
    }

    /// Samples that the profiler had no room for.
    pub fn without_room(&self) -> Result<u64> {
        self.number("/lost/ring_full")
    }

    /// Samples whose stacks are as the hooks of the program said.
    pub fn hook_answers(&self) -> Result<u64> {
        self.number("/hooks/used")
    }

    /// Samples whose threads were asked, and did not answer in time.
    pub fn unanswered(&self) -> Result<u64> {
        self.number("/hooks/unanswered")
    }

    /// Samples whose threads were not asked, by reason.
    pub fn not_asked(&self) -> Result<BTreeMap<String, u64>> {
        self.by_reason("/hooks/not_asked")
    }

    /// Answers that were not used, by reason.
    pub fn refused(&self) -> Result<BTreeMap<String, u64>> {
        self.by_reason("/hooks/refused")
    }

    /// The numbers at `path` that are not 0.
    fn by_reason(&self, path: &str) -> Result<BTreeMap<String, u64>> {
        let reasons = self.0.pointer(path).and_then(Value::as_object);
        let reasons = reasons.context("no hooks were asked")?.iter();
        Ok(reasons
            .filter_map(|(reason, n)| Some((reason.clone(), n.as_u64()?)))
            .filter(|(_, n)| *n > 0)
            .collect())
    }

    /// The longest time that a thread was stopped to let the helper in or out, in microseconds.
    pub fn longest_stop_us(&self) -> Result<u64> {
        self.number("/hooks/longest_stop_us")
    }

    /// The longest time that a thread was stopped for a snapshot, in microseconds.
    pub fn names_longest_stop_us(&self) -> Result<u64> {
        self.number("/hook_names/longest_stop_us")
    }

    /// How often symbolizers were called, and how long that took, in microseconds.
    pub fn symbolizer_calls(&self) -> Result<(u64, u64)> {
        Ok((
            self.number("/hook_names/calls")?,
            self.number("/hook_names/calling_us")?,
        ))
    }

    /// Who named what hooks gave.
    pub fn hook_names(&self) -> &Value {
        &self.0["hook_names"]
    }

    /// Modules without symbols, and why.
    pub fn missing(&self) -> Vec<(String, String)> {
        self.pairs("modules_without_symbols", "reason")
    }

    /// Separate debug files: the module, and what became of the file.
    pub fn debug_files(&self) -> Vec<(String, String)> {
        self.pairs("debug_files", "outcome")
    }

    fn pairs(&self, list: &str, what: &str) -> Vec<(String, String)> {
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let entries = self.0[list].as_array().into_iter().flatten();
        entries
            .map(|entry| (text(entry, "module"), text(entry, what)))
            .collect()
    }

    /// Answers of hooks that were for another instruction than the one that was sampled.
    pub fn mismatched_answers(&self) -> Result<u64> {
        self.number("/hooks/refused/the answer was for another instruction")
    }

    /// Waits that are in a profile of time off the CPU, and those that were too short for it.
    pub fn waits(&self) -> Result<(u64, u64)> {
        Ok((self.number("/off_cpu/blocks")?, self.number("/off_cpu/short")?))
    }

    /// Samples whose labels are not all in the profile.
    pub fn labels_cut(&self) -> Result<u64> {
        self.number("/labels_cut")
    }

    /// Samples that are not in the profile.
    pub fn lost(&self) -> Result<u64> {
        self.number("/lost/total")
    }
}

/// Runs the profiler as a user who may nothing, in a folder of its own.
pub fn as_nobody<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Output> {
    // Where everybody may look.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let profiler = folder.path().join("profiler");
    fs::copy(binary()?, &profiler)?;
    Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--",
        ])
        .arg(&profiler)
        .args(args)
        .current_dir(folder.path())
        .output()
        .context("cannot run setpriv")
}

/// Fails unless a message has all these words, in letters of either case.
pub fn says(message: &str, words: &[&str]) -> Result<()> {
    let lower = message.to_lowercase();
    for word in words {
        ensure!(
            lower.contains(&word.to_lowercase()),
            "there is no {word:?} in:\n{message}"
        );
    }
    Ok(())
}

/// All that comes out of a pipe.
pub(crate) fn drain(mut pipe: impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn the_numbers_of_a_summary_are_found() {
        let summary = Summary::parse(
            r#"{"samples": {"kept": 7, "complete": 6}, "lost": {"total": 3, "ring_full": 1, "ticks": 2},
               "hooks": {"used": 4, "unanswered": 1, "not_asked": {"it was exiting": 0, "it had none": 2},
                         "refused": {"it came too late": 1}}}"#,
        )
        .unwrap();
        let numbers = [summary.kept(), summary.complete(), summary.lost()];
        assert_eq!(numbers.map(Result::unwrap), [7, 6, 3]);
        let hooks = (summary.hook_answers().unwrap(), summary.unanswered().unwrap());
        assert_eq!(hooks, (4, 1));
        let not_asked = summary.not_asked().unwrap();
        assert_eq!(
            not_asked.into_iter().collect::<Vec<_>>(),
            [("it had none".to_owned(), 2)]
        );
        assert_eq!(summary.refused().unwrap()["it came too late"], 1);
        let none = Summary::parse("{}").unwrap();
        assert!(none.kept().is_err() && none.not_asked().is_err());
    }
}
