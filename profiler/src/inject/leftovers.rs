//! Finding what a killed profiler left in a process, and removing it.

use super::error::Error;
use super::leave::{Region, take_out};
use super::lock::Locked;
use super::sys::SharedMap;
use super::thread::Call;
use super::{Plan, borrow, snapshot};
use crate::target::maps::{FileId, MapEntry};
use crate::target::process::Process;
use crate::target::status::Status;
use profiler_helper::shared::{MAGIC, Shared, VERSION};
use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

/// The name of the helper's file.
pub(super) const NAME: &CStr = c"profiler-hooks";
/// What `/proc` calls a file with this name.
const LINK: &str = "/memfd:profiler-hooks (deleted)";

/// Whether this link of `/proc/PID/fd` leads to a helper's file.
pub(super) fn is_ours(link: impl AsRef<Path>) -> bool {
    fs::read_link(link).is_ok_and(|target| target == Path::new(LINK))
}

/// Whether a mapping with this name is of a helper's file.
pub(super) fn is_name(name: &str) -> bool {
    name == LINK
}

/// What wait(2) says of who was killed.
const SIGKILL: u32 = 9;
/// How long a snapshot may take to die: the memory of a large process is not given back at once.
const DYING: Duration = Duration::from_millis(500);

/// Removes what is there. A handler that may still be reached is left alone: it does nothing.
pub(super) fn remove(process: &Process, plan: &Plan) -> Result<(), Error> {
    for snapshot in dead_snapshots(process) {
        snapshot::reap(process, plan, snapshot)?;
    }
    for fd in descriptors(process) {
        in_use(process, File::open(format!("/proc/{}/fd/{fd}", process.pid)))?;
        borrow(process, plan, |thread| {
            // Its number may mean another file by now.
            if is_ours(format!("/proc/{}/fd/{fd}", process.pid)) {
                thread.call(Call::Close, [fd, 0, 0, 0, 0, 0])?;
            }
            Ok(())
        })?;
    }
    let maps = process.maps().map_err(|source| Error::Access {
        pid: process.pid,
        what: "read the mappings",
        source: io::Error::other(source),
    })?;
    let mut helpers: BTreeMap<FileId, Vec<&MapEntry>> = BTreeMap::new();
    for entry in maps.iter().filter(|entry| is_name(&entry.name)) {
        helpers.entry(entry.file).or_default().push(entry);
    }
    for parts in helpers.values() {
        remove_mapped(process, plan, parts)?;
    }
    Ok(())
}

/// Snapshots of the process that nobody waited for, as the process calls them. Those that are about to die are waited for.
fn dead_snapshots(process: &Process) -> Vec<u32> {
    let deadline = Instant::now() + DYING;
    loop {
        let children: Vec<Child> = children(process).filter_map(Child::read).collect();
        if children.iter().all(|child| child.is_dead) || Instant::now() > deadline {
            let dead = children.iter().filter(|child| child.is_dead);
            return dead.map(|child| child.inner).collect();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Its children, as we call them.
fn children(process: &Process) -> impl Iterator<Item = u32> {
    let lists = process.tids().into_iter().map(|tid| {
        fs::read_to_string(format!("/proc/{}/task/{tid}/children", process.pid)).unwrap_or_default()
    });
    let lists: Vec<String> = lists.collect();
    let words = lists.iter().flat_map(|list| list.split_whitespace());
    let children: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
    children.into_iter()
}

/// A child that may be a snapshot.
struct Child {
    /// Its id as the process calls it.
    inner: u32,
    /// It has ended, as snapshots do.
    is_dead: bool,
}

impl Child {
    /// `None` if it is no snapshot: those have no exit signal, and were killed or ended by themselves at once.
    fn read(id: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may hold anything. Behind it is the third field (proc_pid_stat(5)).
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let rest = String::from_utf8_lossy(stat.get(end + 1..)?).into_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let is_dead = field(3)? == "Z";
        let (exit_signal, exit_code) = (field(38)?, field(52)?.parse::<u32>().ok()?);
        let has_ended_so = [SIGKILL, snapshot::EXIT_CODE << 8].contains(&exit_code);
        if exit_signal != "0" || is_dead && !has_ended_so {
            return None;
        }
        let status = fs::read(format!("/proc/{id}/status")).ok()?;
        let inner = Status::parse(&status).id_inside;
        Some(Self { inner, is_dead })
    }
}

/// Removes the helper that is mapped as `parts`, in the order of their addresses.
fn remove_mapped(process: &Process, plan: &Plan, parts: &[&MapEntry]) -> Result<(), Error> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return Ok(());
    };
    // We map it in one piece. Whoever did otherwise is to keep it.
    if parts.windows(2).any(|pair| pair[0].end != pair[1].start) {
        return Ok(());
    }
    let path = |part: &MapEntry| format!("/proc/{}/map_files/{:x}-{:x}", process.pid, part.start, part.end);
    let memfd = in_use(process, File::options().read(true).write(true).open(path(first)))?;
    let (base, len) = (first.start, last.end - first.start);
    // Memory that is not executable is shared, and tells what was installed.
    let written = parts.iter().find(|part| !part.executable);
    let shared = written.and_then(|part| Some((part.start, open(&memfd, part.offset)?)));
    let Some((shared_at, shared)) = shared else {
        return borrow(process, plan, |thread| {
            thread.call(Call::Munmap, [base, len, 0, 0, 0, 0]).map(|_| ())
        })
        .map(|_| ());
    };
    if shared.magic.load(Acquire) == MAGIC && shared.version.load(Relaxed) != VERSION {
        return Ok(());
    }
    let signal = shared.config.signal.load(Relaxed) as u32;
    let entered = shared.counters.entered.load(Relaxed);
    let region = Region {
        base,
        len,
        shared_at,
        shared,
    };
    // Whoever sent signals is gone with its BPF programs, so what was sent has arrived.
    take_out(process, plan, &region, signal, Some(entered)).map(|_| ())
}

/// Its shared memory, if the file is sealed as it should be: nobody can cut it off while we look.
fn open(memfd: &File, offset: u64) -> Option<SharedMap> {
    let seals = fcntl_get_seals(memfd).ok()?;
    let end = offset.checked_add(size_of::<Shared>() as u64)?;
    let is_whole = seals.contains(SealFlags::SHRINK) && memfd.metadata().ok()?.len() >= end;
    is_whole.then(|| SharedMap::new(memfd, offset).ok()).flatten()
}

/// The descriptors of the process that lead to a helper's file.
fn descriptors(process: &Process) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{}/fd", process.pid))
        .into_iter()
        .flatten()
        .flatten();
    let ours = entries.filter(|entry| is_ours(entry.path()));
    ours.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The file, unless a living profiler uses it: that has locked it.
fn in_use(process: &Process, file: io::Result<File>) -> Result<Locked, Error> {
    let pid = process.pid;
    let access = |what| move |source| Error::Access { pid, what, source };
    let file = file.map_err(access("open the helper in the memory"))?;
    match Locked::new(file) {
        Err(Errno::WOULDBLOCK) => Err(Error::InUse { pid }),
        locked => locked.map_err(|e| access("lock the helper in the memory")(e.into())),
    }
}
