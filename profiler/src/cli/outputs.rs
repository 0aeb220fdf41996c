//! The files that a recording writes. Whether they can be written is found out before the recording.

use anyhow::{Context, Result};
use profiler::format::{self, Format};
use profiler::profile::Profile;
use rustix::fs::statvfs;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file and its format.
#[derive(Debug)]
pub struct Output {
    pub path: PathBuf,
    pub format: Format,
}

/// What to write if nothing was asked for.
const DEFAULT: [&str; 2] = ["profile.pb.gz", "flamegraph.svg"];

/// The files to write.
///
/// # Errors
/// The name of one says no format, or it cannot be written.
pub fn plan(paths: &[PathBuf]) -> Result<Vec<Output>> {
    let default = DEFAULT.map(PathBuf::from);
    let paths = if paths.is_empty() { &default[..] } else { paths };
    paths
        .iter()
        .map(|path| {
            let format = Format::from_path(path)?;
            check(path)?;
            Ok(Output {
                path: path.clone(),
                format,
            })
        })
        .collect()
}

/// Makes sure that a file can be written at `path`, without touching one that is there.
///
/// # Errors
/// It cannot.
pub fn check(path: &Path) -> Result<()> {
    let probe = beside(path);
    File::create_new(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .with_context(|| format!("cannot write {}", path.display()))?;
    if path.is_dir() {
        anyhow::bail!("cannot write {}: it is a directory", path.display());
    }
    if is_full(path) {
        anyhow::bail!(
            "cannot write {}: no space is left on its file system",
            path.display()
        );
    }
    Ok(())
}

/// Whether the file system that `path` is on has no block left: it may still take an empty file.
fn is_full(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Some have no blocks at all and do not say what they have instead.
    statvfs(folder.unwrap_or(Path::new("."))).is_ok_and(|found| found.f_blocks > 0 && found.f_bfree == 0)
}

/// Writes a profile that its own files could not take to the first directory for such things that has room: its path.
pub fn rescue(profile: &Profile) -> Option<PathBuf> {
    let bytes = format::write(profile, Format::Pprof).ok()?;
    let name = format!("profile-{}{}", std::process::id(), Format::Pprof.extension());
    let here = std::env::current_dir().ok();
    let temporary = [std::env::temp_dir(), "/var/tmp".into(), "/dev/shm".into()];
    here.into_iter()
        .chain(temporary)
        .map(|folder| folder.join(&name))
        .find(|path| write(path, &bytes).is_ok())
}

/// Writes a file whole or not at all: a reader, or a full disk, never sees half of it in its place.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside(path);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// A name in the same directory that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}
