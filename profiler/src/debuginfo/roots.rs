//! Directories in which absolute paths are resolved: the root directory of a process, and ours.

use crate::target::map_file;
use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// A root directory. It stays what it is when the process that has it ends.
#[derive(Clone, Debug)]
pub struct Root(Arc<OwnedFd>);

/// Where the files of a process are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// As the process sees files; `None` if it is gone.
    pub own: Option<Root>,
    /// As we see them, if the process sees others.
    pub host: Option<Root>,
}

/// Longest path, in bytes: `PATH_MAX`.
const MAX_PATH: usize = 4096;

impl Root {
    /// A directory as a root.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(directory: &str) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, directory, flags, Mode::empty())?;
        Ok(Self(Arc::new(fd)))
    }

    /// The contents of a regular file. `..` and symbolic links do not lead out of the root (openat2(2),
    /// `RESOLVE_IN_ROOT`); nothing else is ever opened, since to open a device can have effects.
    ///
    /// # Errors
    /// There is none that can be read, or it is no regular file.
    pub fn read(&self, path: &str) -> io::Result<Bytes> {
        if path.len() > MAX_PATH {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let look = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found: OwnedFd = openat2(&*self.0, path, look, Mode::empty(), resolve)?;
        let found = File::from(found);
        if !found.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(map_file(&File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?)?.bytes)
    }
}

/// The root directories of processes. Each is opened once: processes of a container share theirs, most share ours.
#[derive(Debug, Default)]
pub struct Roots(HashMap<View, Root>);

/// What tells how a process sees files: its mount namespace and its root directory, as `/proc` has them.
type View = (PathBuf, PathBuf);

impl Roots {
    /// Where the files of a process are looked for.
    pub fn places(&mut self, pid: u32) -> Places {
        let (theirs, ours) = (view(&pid.to_string()), view("self"));
        if theirs.is_some() && theirs == ours {
            let own = self.root(theirs, "/");
            return Places { own, host: None };
        }
        Places {
            own: self.root(theirs, &format!("/proc/{pid}/root")),
            host: self.root(ours, "/"),
        }
    }

    fn root(&mut self, view: Option<View>, directory: &str) -> Option<Root> {
        match self.0.entry(view?) {
            Entry::Occupied(known) => Some(known.get().clone()),
            Entry::Vacant(new) => Some(new.insert(Root::open(directory).ok()?).clone()),
        }
    }
}

/// How a process sees files; `None` if it is gone.
fn view(process: &str) -> Option<View> {
    let link = |name: &str| std::fs::read_link(format!("/proc/{process}/{name}")).ok();
    Some((link("ns/mnt")?, link("root")?))
}

/// `name` as a path from `folder`, with `.` and `..` left to the kernel; as it is if it is absolute.
pub(super) fn join(folder: &str, name: &str) -> String {
    if name.starts_with('/') {
        return name.to_owned();
    }
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// The folder of a file.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::{Root, Roots, folder_of, join};
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_do_not_lead_out_of_a_root() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, inside) = (folder.path().join("secret"), folder.path().join("root"));
        std::fs::write(&outside, "outside").unwrap();
        std::fs::create_dir_all(inside.join("lib")).unwrap();
        std::fs::write(inside.join("secret"), "inside").unwrap();
        symlink("/secret", inside.join("lib/absolute")).unwrap();
        symlink("../../../secret", inside.join("lib/upwards")).unwrap();
        let root = Root::open(inside.to_str().unwrap()).unwrap();
        for path in [
            "/secret",
            "/../secret",
            "/lib/absolute",
            "/lib/upwards",
            "lib/../../secret",
        ] {
            assert_eq!(root.read(path).unwrap(), "inside", "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let root = Root::open("/").unwrap();
        for path in [
            pipe.to_str().unwrap(),
            folder.path().to_str().unwrap(),
            "/dev/zero",
        ] {
            assert!(
                root.read(path).unwrap_err().to_string().contains("regular"),
                "{path}"
            );
        }
        assert!(root.read(&"/".repeat(5000)).is_err());
        assert!(root.read("/no such file").is_err());
    }

    #[test]
    fn a_process_like_ours_is_looked_at_once() {
        let mut roots = Roots::default();
        let ours = roots.places(std::process::id());
        assert!(ours.own.is_some() && ours.host.is_none());
        let gone = roots.places(u32::MAX);
        assert!(gone.own.is_none() && gone.host.is_some());
        assert_eq!(roots.0.len(), 1, "and opened once");
    }

    #[test]
    fn names_are_joined_to_folders() {
        assert_eq!(join("/usr/bin", "a.debug"), "/usr/bin/a.debug");
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/usr", "/lib/x"), "/lib/x");
        assert_eq!(folder_of("/usr/bin/ls"), "/usr/bin");
        assert_eq!(folder_of("/ls"), "");
    }
}
