//! The runs that `check --update` keeps: a folder for each class of hosts, in it one file for each run.

use super::outputs;
use anyhow::{Context, Result, bail};
use profiler::compare::{Fact, Run};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The end of the names of kept runs; what is called otherwise is not ours.
const EXTENSION: &str = ".pb.gz";

/// The longest part of a folder's name that one fact gives.
const MAX_FACT: usize = 60;

/// Runs of the candidate's class of hosts.
pub struct Baselines {
    folder: PathBuf,
    /// Older runs count no more.
    oldest: SystemTime,
}

/// A kept run. They are called by the time when they were recorded, so that the oldest is known without reading it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    recorded: u64,
    path: PathBuf,
}

impl Baselines {
    /// Those in `directory` of hosts like the one that recorded `run`: of hosts whose every difference would prevent a
    /// verdict, unless it is among `allowed`. Runs that were recorded more than `max_age` before `now` are left out.
    pub fn of_host(
        directory: &Path,
        run: &Run,
        allowed: &BTreeSet<Fact>,
        now: SystemTime,
        max_age: Duration,
    ) -> Self {
        let facts: Vec<String> = [Fact::Cpu, Fact::Cpus, Fact::Machine, Fact::Kernel]
            .into_iter()
            .filter(|fact| !allowed.contains(fact))
            .filter_map(|fact| run.facts.get(fact.label()))
            .map(|value| file_name(value))
            .collect();
        let class = if facts.is_empty() {
            "unknown".to_owned()
        } else {
            facts.join("_")
        };
        Self {
            folder: directory.join(class),
            oldest: now.checked_sub(max_age).unwrap_or(UNIX_EPOCH),
        }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Files of the runs that count, the oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let oldest = seconds(self.oldest);
        Ok(self
            .kept()?
            .into_iter()
            .filter(|kept| kept.recorded >= oldest)
            .map(|kept| kept.path)
            .collect())
    }

    /// Keeps these files, too, and of all at most `most`, the youngest. Each is there whole or not at all. What is too
    /// old, or too many, is removed; with `afresh` all that was there before.
    ///
    /// # Errors
    /// A file cannot be read, written or removed.
    pub fn add(
        &self,
        files: &[PathBuf],
        runs: &[Run],
        now: SystemTime,
        most: usize,
        afresh: bool,
    ) -> Result<()> {
        let before = self.kept()?;
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        let mut added = BTreeSet::new();
        for (file, run) in files.iter().zip(runs) {
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            // The epoch: the file does not say.
            let recorded = Some(run.start).filter(|&start| start > UNIX_EPOCH).unwrap_or(now);
            let name = format!("{:011}-{:016x}{EXTENSION}", seconds(recorded), run.fingerprint());
            let path = self.folder.join(name);
            outputs::write(&path, &bytes)?;
            added.insert(path);
        }
        // Only now that the new ones are there.
        let oldest = seconds(self.oldest);
        let kept = self.kept()?;
        let surplus = kept.len().saturating_sub(most);
        for (at, kept) in kept.iter().enumerate() {
            let replaced = afresh && !added.contains(&kept.path) && before.contains(kept);
            if at < surplus || kept.recorded < oldest || replaced {
                remove(&kept.path)?;
            }
        }
        Ok(())
    }

    /// All that are there, the oldest first.
    fn kept(&self) -> Result<Vec<Kept>> {
        let context = || format!("cannot read {}", self.folder.display());
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(context),
        };
        let mut kept = Vec::new();
        for entry in entries {
            let path = entry.with_context(context)?.path();
            if let Some(recorded) = recorded(&path) {
                kept.push(Kept { recorded, path });
            }
        }
        kept.sort_unstable();
        Ok(kept)
    }
}

/// Refuses what is there and is no directory, before anything was recorded.
///
/// # Errors
/// `path` is something else.
pub fn check(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            bail!("cannot keep runs in {}: it is not a directory", path.display())
        }
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot keep runs in {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// When the run in this file was recorded, in seconds since the epoch, if it is one of ours.
fn recorded(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?;
    let (recorded, fingerprint) = name.split_once('-')?;
    u64::from_str_radix(fingerprint, 16).ok()?;
    recorded.parse().ok()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", path.display())),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A fact as a part of a file name: it comes from a file, and could be anything.
fn file_name(fact: &str) -> String {
    let mut name = String::new();
    for c in fact.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() || c == '.' => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
        if name.len() >= MAX_FACT {
            break;
        }
    }
    name.trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{file_name, recorded};
    use std::path::Path;

    #[test]
    fn a_fact_becomes_one_harmless_part_of_a_path() {
        for (fact, name) in [
            ("AMD EPYC 9R14 @ 2.6/GHz", "amd-epyc-9r14-2.6-ghz"),
            ("6.1.0-13-amd64", "6.1.0-13-amd64"),
            ("../../etc", "etc"),
            ("..", ""),
            ("a\0b\nc\u{202e}", "a-b-c"),
        ] {
            assert_eq!(file_name(fact), name, "{fact:?}");
        }
        assert_eq!(file_name(&"x".repeat(1_000)).len(), super::MAX_FACT);
    }

    #[test]
    fn only_files_of_our_making_are_kept_runs() {
        for (name, expected) in [
            ("01700000000-00c0ffee00c0ffee.pb.gz", Some(1_700_000_000)),
            (".01700000000-00c0ffee00c0ffee.pb.gz.77.tmp", None),
            ("profile.pb.gz", None),
            ("01700000000-profile.pb.gz", None),
        ] {
            assert_eq!(recorded(Path::new(name)), expected, "{name}");
        }
    }
}
