//! What the system only gives to unsafe code: files mapped into our memory, and children that start stopped.

use bytes::Bytes;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The contents of `file`, without reading them.
///
/// # Errors
/// What the kernel says to mmap.
pub fn map_file(file: &File) -> io::Result<Bytes> {
    // SAFETY: the mapping is private and read-only. The file can still be changed or cut off by others while we
    // read it, as with any mapping of a file: values may change between two reads, which the parsers allow for by
    // checking what they read and copying nothing twice; a cut-off page raises SIGBUS, the risk that every
    // profiler and debugger takes with the programs it looks at.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
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
