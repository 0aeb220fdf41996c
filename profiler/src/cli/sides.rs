//! The profiles of two sides, from files.

use anyhow::{Context, Result, bail};
use profiler::compare::{Pair, Side};
use profiler::format::pprof;
use profiler::profile::Profile;
use std::fs;
use std::path::Path;

/// Larger files are not profiles.
const MAX_FILE: u64 = 1 << 30;

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
    let name = || format!("cannot use {}", path.display());
    let metadata = fs::metadata(path).with_context(name)?;
    if metadata.is_dir() {
        bail!(
            "cannot use {}: it is a directory; name the profiles in it",
            path.display()
        );
    }
    if metadata.len() > MAX_FILE {
        bail!("cannot use {}: it is larger than any profile", path.display());
    }
    let bytes = fs::read(path).with_context(name)?;
    pprof::read(&bytes).with_context(name)
}
