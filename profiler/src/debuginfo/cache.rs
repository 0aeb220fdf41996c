//! The cache that all clients of debuginfod on a machine share: a folder for each build id, with the file `debuginfo` in
//! it, empty if the servers did not have it (debuginfod_find_debuginfo(3), elfutils 0.186 and later).

use crate::target::map_file;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

/// What a cache keeps of a build id.
#[derive(Debug)]
pub(super) enum Kept {
    /// A file. Nobody says that it is the right one.
    File(Bytes),
    /// Servers did not have it, not long ago.
    Absent,
    Nothing,
}

/// The folder; `None` if nothing is kept.
#[derive(Debug)]
pub(super) struct Cache(Option<PathBuf>);

/// A file on its way into the cache. It has no name yet, so that nobody sees half of it, and so that it goes away with us.
#[derive(Debug)]
pub(super) struct NewFile {
    file: File,
    /// Where it belongs, if it can be kept.
    path: Option<PathBuf>,
}

/// How long an absence is believed (debuginfod-client-config(7), `cache_miss_s`).
const ABSENCE: Duration = Duration::from_secs(600);
const NAME: &str = "debuginfo";

impl Cache {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    fn folder(&self, build_id: &str) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(build_id))
    }

    pub(super) fn get(&self, build_id: &str) -> Kept {
        let Some(path) = self.folder(build_id).map(|folder| folder.join(NAME)) else {
            return Kept::Nothing;
        };
        let Ok(file) = File::open(&path) else {
            return Kept::Nothing;
        };
        let Ok(metadata) = file.metadata() else {
            return Kept::Nothing;
        };
        if metadata.is_file() && metadata.len() == 0 {
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age < ABSENCE) {
                return Kept::Absent;
            }
            // Another client may have been faster.
            let _ = std::fs::remove_file(&path);
            return Kept::Nothing;
        }
        map_file(&file).map_or(Kept::Nothing, |file| Kept::File(file.bytes))
    }

    /// A file to write what a server sends; somewhere else if the cache cannot be written.
    pub(super) fn new_file(&self, build_id: &str) -> io::Result<NewFile> {
        if let Some(folder) = self.folder(build_id)
            && std::fs::create_dir_all(&folder).is_ok()
        {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            // As elfutils leaves them: nobody is to change them.
            if let Ok(fd) = openat(CWD, &folder, flags, Mode::RUSR) {
                return Ok(NewFile {
                    file: fd.into(),
                    path: Some(folder.join(NAME)),
                });
            }
        }
        Ok(NewFile {
            file: tempfile::tempfile()?,
            path: None,
        })
    }

    /// No server has the file.
    pub(super) fn remember_absence(&self, build_id: &str) {
        if let Some(folder) = self.folder(build_id)
            && std::fs::create_dir_all(&folder).is_ok()
        {
            // Nothing is lost if it cannot be remembered.
            let _ = File::create_new(folder.join(NAME));
        }
    }
}

impl NewFile {
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(super) fn contents(&self) -> io::Result<Bytes> {
        Ok(map_file(&self.file)?.bytes)
    }

    /// Gives it its name, unless another client has been faster.
    pub(super) fn keep(self) {
        let Some(path) = &self.path else { return };
        let link = || {
            let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, file, CWD, path, AtFlags::SYMLINK_FOLLOW)
        };
        if link() == Err(rustix::io::Errno::EXIST) {
            // What was there has been looked at and is not the file, or is as good as this one.
            let _ = std::fs::remove_file(path);
            let _ = link();
        }
    }
}
