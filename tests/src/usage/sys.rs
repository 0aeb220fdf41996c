//! wait4(2), which neither the standard library nor nix has.

use nix::libc::{rusage, wait4};
use std::io;
use std::mem::MaybeUninit;

/// Waits for the child `pid`: its wait status and what it used.
pub(super) fn wait(pid: u32) -> io::Result<(i32, rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live memory of the types that wait4 writes.
        let waited = unsafe { wait4(pid.cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
        if waited >= 0 {
            // SAFETY: an rusage is plain numbers, for which zeros, or what the kernel wrote, are valid.
            return Ok((status, unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
