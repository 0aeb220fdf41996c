//! Opening the files that a process has mapped.

use super::maps::MapEntry;
use super::process::Process;
use super::sys::{Mapped, map_file};
use bytes::Bytes;
use rustix::fs::{OFlags, major, minor};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// Why a mapped file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither way to the file works.
    #[error("cannot open {name} of process {pid}")]
    Open {
        /// The process.
        pid: u32,
        /// What the process calls the file.
        name: String,
        /// What the system said last.
        #[source]
        source: io::Error,
    },
    /// It is memory without a file, or a device.
    #[error("{}", if .name.is_empty() { "anonymous memory" } else { "not a file" })]
    NotAFile {
        /// The name of the mapping.
        name: String,
    },
    /// The kernel's own object cannot be read from the memory of the process.
    #[error("cannot read the vDSO of process {pid}")]
    Vdso {
        /// The process.
        pid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a file of that name, but it is not the one that is mapped.
    #[error("{name} was replaced after process {pid} had mapped it, and the mapped file cannot be opened")]
    Replaced {
        /// The process.
        pid: u32,
        /// What the process calls the file.
        name: String,
    },
}

/// The contents of the object that a mapping is of: a file, or the vDSO.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn contents(process: &Process, entry: &MapEntry) -> Result<Mapped, Error> {
    if entry.name == "[vdso]" {
        // The kernel's own code in every process: its object exists in memory only.
        let bytes = process.memory(entry.start, (entry.end - entry.start) as usize);
        return bytes
            .map(|bytes| Bytes::from(bytes).into())
            .map_err(|source| Error::Vdso {
                pid: process.pid,
                source,
            });
    }
    if !entry.is_file() {
        return Err(Error::NotAFile {
            name: entry.name.clone(),
        });
    }
    open(process.pid, entry)
}

/// The contents of the file behind a mapping, as the process sees it: through its own root directory if it has
/// another than ours, and also when the file has been deleted.
///
/// # Errors
/// The file cannot be opened, or is another one by now.
fn open(pid: u32, entry: &MapEntry) -> Result<Mapped, Error> {
    // The kernel's own link to the file needs no name, but CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
    let link = format!("/proc/{pid}/map_files/{:x}-{:x}", entry.start, entry.end);
    if let Ok(mapped) = File::open(link).and_then(|file| map_file(&file)) {
        return Ok(mapped);
    }
    let name = || entry.path().to_owned();
    let failed = |source| Error::Open {
        pid,
        name: name(),
        source,
    };
    // Not blocking: by now the name may be that of a pipe.
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(format!("/proc/{pid}/root{}", entry.path()))
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::Replaced { pid, name: name() });
    }
    let device = metadata.dev();
    // Overlay file systems show another device number in maps than in stat: the inode has to do there.
    let same_device = (major(device), minor(device)) == (entry.file.major, entry.file.minor);
    if metadata.ino() != entry.file.inode || (!same_device && entry.name.ends_with(" (deleted)")) {
        return Err(Error::Replaced { pid, name: name() });
    }
    map_file(&file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::{super::process::Process, open};

    #[test]
    fn our_own_executable_can_be_read_as_we_have_mapped_it() {
        let us = Process::open(std::process::id()).expect("we exist");
        let maps = us.maps().expect("maps");
        let exe = std::fs::read("/proc/self/exe").expect("own executable");
        let path = std::fs::read_link("/proc/self/exe").expect("own executable");
        let entry = maps
            .iter()
            .find(|e| e.name == path.to_string_lossy())
            .expect("it is mapped");
        let file = open(us.pid, entry).expect("it can be opened");
        assert_eq!(file.bytes.len(), exe.len());
        assert!(file.bytes[..] == exe[..]);
        // What was given back comes again.
        file.release();
        assert!(file.bytes[..] == exe[..]);
    }
}
