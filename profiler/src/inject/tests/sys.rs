//! The system calls of these tests that no library makes safe.

use nix::libc;
use nix::unistd::ForkResult;
use std::io;

/// fork(2), for a process whose other threads hold no lock: one that runs a single test. See [`super::death::alone`].
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the thread that waits for this test is the only other one, and it holds no lock.
    unsafe { nix::unistd::fork() }
}

/// rt_tgsigqueueinfo(2): queues `signal` for a thread of process `pid`, as if from `code`, with `value`.
///
/// # Errors
/// That of the system call.
pub(super) fn queue_signal(pid: u32, tid: u32, signal: u32, code: i32, value: u64) -> io::Result<()> {
    // siginfo: signal at 0, code at 8, value at 24.
    let mut info = [0_u64; 16];
    info[0] = signal.into();
    info[1] = u64::from(code.cast_unsigned());
    info[3] = value;
    // SAFETY: the kernel reads 128 bytes.
    match unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, signal, info.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
