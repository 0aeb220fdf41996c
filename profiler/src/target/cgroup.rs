//! A control group of version 2, by its path.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its id: the inode of the directory (fs/kernfs/dir.c, `kernfs_ino`).
    pub id: u64,
    /// How deep it is below the root that is mounted. In a namespace that root has others above it.
    pub level: u32,
}

/// Why there is no control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo")]
    Mounts(#[source] io::Error),
    /// Version 2 is not in use.
    #[error("no control groups of version 2 are mounted here: mount -t cgroup2 none /mnt")]
    NotMounted,
    /// There is none of this name.
    #[error(
        "there is no control group of version 2 at {0}; /proc/PID/cgroup shows that of a process, behind \"0::\""
    )]
    Missing(String),
}

impl Cgroup {
    /// Finds the control group at `path`: that of its directory, or below a directory where control groups are mounted, as
    /// `/proc/PID/cgroup` has it.
    ///
    /// # Errors
    /// There is none.
    pub fn find(path: &Path) -> Result<Self, Error> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(Error::Mounts)?;
        let roots = mount_points(&mounts);
        if roots.is_empty() {
            return Err(Error::NotMounted);
        }
        let below = path.strip_prefix("/").unwrap_or(path);
        let candidates = [path.to_owned(), Path::new("/sys/fs/cgroup").join(below)];
        candidates
            .into_iter()
            .chain(roots.iter().map(|root| root.join(below)))
            .find_map(|candidate| Self::at(&candidate, &roots))
            .ok_or_else(|| Error::Missing(path.display().to_string()))
    }

    /// The ids of the processes in it and below it.
    pub fn processes(&self) -> Vec<u32> {
        let (mut found, mut groups) = (Vec::new(), vec![self.path.clone()]);
        while let Some(group) = groups.pop() {
            // Groups come and go, and one of threads has no list of processes: these are met when they run.
            let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()));
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            groups.extend(
                below
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        found
    }

    /// The control group whose directory is at `path`.
    fn at(path: &Path, roots: &[PathBuf]) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let found = fs::metadata(&path).ok().filter(fs::Metadata::is_dir)?;
        let root = roots.iter().find(|root| {
            path.starts_with(root) && fs::metadata(root).is_ok_and(|root| root.dev() == found.dev())
        })?;
        let level = path.strip_prefix(root).ok()?.components().count();
        Some(Self {
            level: u32::try_from(level).ok()?,
            id: found.ino(),
            path,
        })
    }
}

/// Where control groups of version 2 are mounted (proc_pid_mountinfo(5)).
fn mount_points(mounts: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_wanted = file_system.split(' ').next() == Some("cgroup2");
        let point = mount.split(' ').nth(4).filter(|_| is_wanted)?;
        Some(PathBuf::from(point.replace("\\040", " ")))
    };
    mounts.lines().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::{Cgroup, Error, mount_points};
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn mounts_of_version_2_are_told_from_others() {
        let mounts = "\
24 1 0:22 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
26 24 0:24 / /mnt/a\\040b rw shared:4 master:2 - cgroup2 cgroup2 rw
";
        assert_eq!(mount_points(mounts), [PathBuf::from("/mnt/a b")]);
    }

    #[test]
    fn we_are_in_the_group_that_we_are_in_and_in_those_above_it() {
        let of_us = fs::read_to_string("/proc/self/cgroup").expect("we are in groups");
        let path = of_us
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .expect("also of version 2");
        for path in [path, "/"] {
            let group = Cgroup::find(Path::new(path)).expect("it is there");
            assert!(group.processes().contains(&std::process::id()), "{path}");
        }
    }

    #[test]
    fn what_is_no_control_group_is_refused() {
        for path in ["/proc", "/no/such/group", "../../.."] {
            let found = Cgroup::find(Path::new(path));
            assert!(
                matches!(found, Err(Error::Missing(_) | Error::NotMounted)),
                "{path}: {found:?}"
            );
        }
    }
}
