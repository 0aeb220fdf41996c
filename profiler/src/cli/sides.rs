//! The profiles of two sides, from files.

use super::inputs;
use anyhow::{Context, Result, bail};
use profiler::compare::{Pair, Side};
use profiler::format::pprof;
use profiler::profile::Profile;
use std::path::Path;

/// Adds the files to their sides. They are read two at a time: unpacking is most of the work.
///
/// # Errors
/// One of them is not a CPU profile, or does not fit the others; the message names it.
pub fn load<'a>(
    pair: &mut Pair,
    baseline: &'a [impl AsRef<Path>],
    candidate: &'a [impl AsRef<Path>],
) -> Result<()> {
    let files: Vec<(Side, &Path)> = baseline
        .iter()
        .map(|path| (Side::Baseline, path.as_ref()))
        .chain(candidate.iter().map(|path| (Side::Candidate, path.as_ref())))
        .collect();
    for files in files.chunks(2) {
        let profiles: Vec<Result<Profile>> = std::thread::scope(|scope| {
            let readers: Vec<_> = files.iter().map(|(_, path)| scope.spawn(|| read(path))).collect();
            readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or_else(|_| bail!("a worker failed")))
                .collect()
        });
        for ((side, path), profile) in files.iter().zip(profiles) {
            pair.add(*side, &path.to_string_lossy(), &profile?)?;
        }
    }
    pair.check()?;
    Ok(())
}

fn read(path: &Path) -> Result<Profile> {
    pprof::read(&inputs::bytes(path)?).with_context(|| inputs::cannot_use(path))
}

#[cfg(test)]
mod tests {
    use super::load;
    use profiler::compare::Pair;
    use profiler::format::pprof;
    use profiler::profile::{Builder, Frame, Kind, Meta, Origin, Summary, Thread};
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
        });
        builder.sample(thread, [frame], StopReason::Root, false, 10);
        let meta = Meta {
            program: "p".to_owned(),
            pids: vec![1],
            start: UNIX_EPOCH,
            duration: Duration::from_secs(1),
            frequency_hz,
            facts: Vec::new(),
        };
        pprof::write(&builder.finish(meta, Summary::default())).expect("written")
    }

    fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("written");
        path
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
            let error = load(&mut Pair::default(), &baseline, &candidate).expect_err(name);
            let message = format!("{error:#}");
            assert!(
                message.contains(name) && message.contains(problem),
                "{name}: {message}"
            );
        }
        let error = load(&mut Pair::default(), &baseline, &[folder.path()]).expect_err("a directory");
        assert!(format!("{error:#}").contains("directory"), "{error:#}");
        let missing = folder.path().join("missing.pb.gz");
        let error = load(&mut Pair::default(), &baseline, &[missing]).expect_err("missing");
        assert!(format!("{error:#}").contains("missing.pb.gz"), "{error:#}");
        load(&mut Pair::default(), &baseline, &baseline).expect("a profile fits itself");
    }
}
