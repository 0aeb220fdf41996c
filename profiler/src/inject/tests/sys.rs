//! The system calls of these tests that no library makes safe.

use crate::inject::filter::Instruction;
use nix::libc;
use nix::unistd::ForkResult;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// Has a command run with this filter of its system calls.
pub(super) fn filter(command: &mut Command, program: &[Instruction]) {
    let program: Vec<_> = program.iter().map(Instruction::bytes).collect();
    let install = move || {
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel reads the program, which has the layout that it wants.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                ) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(install) };
}
