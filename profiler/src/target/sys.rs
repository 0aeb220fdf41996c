//! What the system only gives to unsafe code: files mapped into our memory, and children that start stopped.

use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;

/// The contents of a file, and the memory that they take.
#[derive(Debug)]
pub struct Mapped {
    /// The contents.
    pub bytes: Bytes,
    map: Option<Arc<Mmap>>,
}

impl From<Bytes> for Mapped {
    /// Contents that are no file's.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, map: None }
    }
}

impl Mapped {
    /// Gives back the memory of what was read so far; what is looked at again is read again.
    pub fn release(&self) {
        let Some(map) = &self.map else { return };
        // SAFETY: the mapping is private and never written, so its pages hold nothing but the file's contents, and come back
        // from the file. Whoever reads meanwhile waits for that.
        let released = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // The advice is always taken for such a mapping; if not, the memory is the only thing that is lost.
        debug_assert!(released.is_ok(), "{released:?}");
    }
}

/// The contents of `file`, without reading them.
///
/// # Errors
/// What the kernel says to mmap.
pub fn map_file(file: &File) -> io::Result<Mapped> {
    // SAFETY: the mapping is private and read-only. The file can still be changed or cut off by others while we
    // read it, as with any mapping of a file: values may change between two reads, which the parsers allow for by
    // checking what they read and copying nothing twice; a cut-off page raises SIGBUS, the risk that every
    // profiler and debugger takes with the programs it looks at.
    let map = Arc::new(unsafe { Mmap::map(file)? });
    Ok(Mapped {
        bytes: Bytes::from_owner(Shared(Arc::clone(&map))),
        map: Some(map),
    })
}

/// An owner that [`Bytes`] can have.
struct Shared(Arc<Mmap>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Starts `command` as our tracee, which makes the kernel stop it with SIGTRAP at the end of its exec, before its
/// first instruction (ptrace(2), `PTRACE_TRACEME`).
///
/// # Errors
/// What fork, ptrace or exec say.
pub fn spawn_stopped(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only async-signal-safe functions may be called. `traceme` is a bare system call.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let mut child = command.spawn()?;
    match waitpid(pid(child.id()), Some(WaitPidFlag::__WALL))? {
        WaitStatus::Stopped(..) => Ok(child),
        // Killed in between.
        status => {
            let _ = child.try_wait();
            Err(io::Error::other(format!(
                "it did not stop at its first instruction but: {status:?}"
            )))
        }
    }
}

/// Lets a stopped tracee run and be traced no more.
///
/// # Errors
/// There is no such tracee.
pub fn detach(id: u32) -> io::Result<()> {
    Ok(ptrace::detach(pid(id), None)?)
}

/// Sends SIGTERM; the process may be gone.
pub fn terminate(id: u32) {
    let _ = nix::sys::signal::kill(pid(id), nix::sys::signal::Signal::SIGTERM);
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}
