//! The profiles of two sides, from files.

use super::inputs;
use anyhow::{Context, Result};
use profiler::compare::{Counted, Pair, Side};
use profiler::format::pprof;
use profiler::profile::Profile;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// The most threads that read: more would need more memory than a check should.
const MAX_WORKERS: usize = 4;

/// Adds the files to their sides. They are read and counted on several threads: that is nearly all of the work.
///
/// # Errors
/// One of them is not a CPU profile, or does not fit the others; the message names it.
pub fn load(pair: &mut Pair, baseline: &[PathBuf], candidate: &[PathBuf]) -> Result<()> {
    let files: Vec<(Side, &Path)> = baseline
        .iter()
        .map(|path| (Side::Baseline, path.as_path()))
        .chain(candidate.iter().map(|path| (Side::Candidate, path.as_path())))
        .collect();
    let with_stacks = pair.has_stacks();
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_WORKERS);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| -> Result<()> {
        // Without room, so that nobody is far ahead of what was added.
        let (sender, receiver) = mpsc::sync_channel(0);
        for _ in 0..workers {
            let (sender, next, files) = (sender.clone(), &next, &files);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, path)) = files.get(at) else { break };
                    if sender.send((at, count(path, with_stacks))).is_err() {
                        // Another file was refused.
                        break;
                    }
                }
            });
        }
        drop(sender);
        // In the order in which they were named, whoever is first.
        let mut waiting = BTreeMap::new();
        let mut due = 0;
        for (at, counted) in receiver {
            waiting.insert(at, counted);
            while let Some(counted) = waiting.remove(&due) {
                pair.add_counted(files[due].0, counted?)?;
                due += 1;
            }
        }
        Ok(())
    })
}

fn count(path: &Path, with_stacks: bool) -> Result<Counted> {
    let profile = read(path)?;
    Ok(Counted::of(&path.to_string_lossy(), &profile, with_stacks)?)
}

fn read(path: &Path) -> Result<Profile> {
    pprof::read(&inputs::bytes(path)?).with_context(|| inputs::cannot_use(path))
}

#[cfg(test)]
mod tests {
    use profiler::compare::Pair;
    use profiler::format::pprof;
    use profiler::profile::{Builder, Frame, Kind, Measure, Meta, Origin, Roots, Summary, Thread};
    use profiler_abi::stop::StopReason;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, UNIX_EPOCH};

    /// A profile of one function.
    fn profile(function: &str, frequency_hz: u64) -> Vec<u8> {
        let mut builder = Builder::default();
        let frame = builder.frame(Frame {
            function: function.to_owned(),
            system_name: None,
            file: None,
            line: None,
            start_line: None,
            module: None,
            address: 16,
            kind: Kind::Native,
            origin: Origin::Walked,
            inlined: false,
        });
        let thread = builder.thread(Thread {
            pid: 1,
            tid: 1,
            name: "t".to_owned(),
            process: String::new(),
        });
        builder.sample(thread, [frame], StopReason::Root, false, 10);
        let meta = Meta {
            program: "p".to_owned(),
            pids: vec![1],
            start: UNIX_EPOCH,
            duration: Duration::from_secs(1),
            frequency_hz,
            facts: Vec::new(),
            measure: Measure::default(),
            roots: Roots::default(),
        };
        pprof::write(&builder.finish(meta, Summary::default())).expect("written")
    }

    fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    fn load(baseline: &[PathBuf], candidate: &[PathBuf]) -> anyhow::Result<()> {
        let mut pair = Pair::default();
        super::load(&mut pair, baseline, candidate)?;
        Ok(pair.check()?)
    }

    #[test]
    fn an_error_names_the_file_and_the_problem() {
        let folder = tempfile::tempdir().expect("a folder");
        let good = profile("main", 99);
        let baseline = [file(folder.path(), "good.pb.gz", &good)];
        for (name, bytes, problem) in [
            ("cut.pb.gz", &good[..good.len() / 2], "gzip"),
            ("empty.pb.gz", b"", "empty"),
            ("other.pb.gz", &profile("elsewhere", 99), "no function in common"),
            ("rate.pb.gz", &profile("main", 997), "997 Hz"),
            ("text.pb.gz", b"no profile", "pprof"),
        ] {
            let candidate = [file(folder.path(), name, bytes)];
            let error = load(&baseline, &candidate).expect_err(name);
            let message = format!("{error:#}");
            assert!(
                message.contains(name) && message.contains(problem),
                "{name}: {message}"
            );
        }
        let error = load(&baseline, &[folder.path().to_owned()]).expect_err("a directory");
        assert!(format!("{error:#}").contains("directory"), "{error:#}");
        let missing = folder.path().join("missing.pb.gz");
        let error = load(&baseline, &[missing]).expect_err("missing");
        assert!(format!("{error:#}").contains("missing.pb.gz"), "{error:#}");
        load(&baseline, &baseline).expect("a profile fits itself");
    }
}
