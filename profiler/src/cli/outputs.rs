//! The files that a recording writes. Whether they can be written is found out before the recording.

use anyhow::{Context, Result};
use profiler::format::{self, Format};
use profiler::profile::Profile;
use rustix::fs::{Access, access, statvfs};
use std::fs::{self, File};
use std::io::{self, Write};
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
    if path.is_dir() {
        anyhow::bail!("cannot write {}: it is a directory", path.display());
    }
    let probe = beside(path);
    let writable = if stays(path) {
        // Not opened: a pipe that nobody reads yet would make us wait.
        access(path, Access::WRITE_OK).map_err(io::Error::from)
    } else {
        File::create_new(&probe).and_then(|_| fs::remove_file(&probe))
    };
    writable.with_context(|| format!("cannot write {}", path.display()))?;
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

/// Writes a file whole or not at all: a reader, or a full disk, never sees half of it in its place. What is not a file but
/// stands for one is written to, and stays what it is.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = if stays(path) {
        fs::write(path, bytes)
    } else {
        replace(path, bytes)
    };
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Whether there is something at `path` that is no regular file: root would take `/dev/null` from the whole system, or the
/// link `/dev/stdout`, by putting a file in its place.
fn stays(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file())
}

/// A name in the same directory that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::{check, write};
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::thread;

    #[test]
    fn a_file_is_replaced_and_a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let link = folder.path().join("link");
        symlink("file", &link).unwrap();
        fs::write(&file, "a longer text").unwrap();
        for (path, text) in [(&file, "first"), (&link, "then")] {
            check(path).unwrap();
            write(path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_pipe_and_a_link_to_a_device_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = folder.path().join("nothing");
        symlink("/dev/null", &nothing).unwrap();
        check(&nothing).unwrap();
        write(&nothing, b"text").unwrap();
        assert!(nothing.is_symlink());

        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        check(&pipe).unwrap();
        let reader = thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, b"text").unwrap();
        assert_eq!(reader.join().unwrap(), "text");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("it is a directory"), "{error}");
    }
}
