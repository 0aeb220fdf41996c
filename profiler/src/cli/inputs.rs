//! Saved profiles, read back.

use anyhow::{Context, Result, bail};
use profiler::format::{Format, pprof, unfold};
use profiler::profile::Profile;
use std::fs;
use std::path::Path;

/// Larger files are not profiles.
const MAX_FILE: u64 = 1 << 30;

/// The profile in a file: folded stacks if its name ends in `.folded`, else pprof.
///
/// # Errors
/// It cannot be read or understood; the message names the file.
pub fn read(path: &Path) -> Result<Profile> {
    let bytes = bytes(path)?;
    match Format::from_path(path) {
        Ok(Format::Folded) => unfold::read(&bytes),
        _ => pprof::read(&bytes),
    }
    .with_context(|| cannot_use(path))
}

/// The content of a file that may be a profile.
///
/// # Errors
/// It cannot be read; the message names the file.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).with_context(|| cannot_use(path))?;
    if metadata.is_dir() {
        bail!("{}: it is a directory; name the profiles in it", cannot_use(path));
    }
    if metadata.len() > MAX_FILE {
        bail!("{}: it is larger than any profile", cannot_use(path));
    }
    fs::read(path).with_context(|| cannot_use(path))
}

/// The beginning of a message.
pub fn cannot_use(path: &Path) -> String {
    format!("cannot use {}", path.display())
}
