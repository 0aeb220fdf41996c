//! What the system only gives to unsafe code: memory shared with the target, and requests of ptrace(2) with
//! signals that libraries do not know.

use nix::libc;
use profiler_helper::shared::Shared;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

/// The helper's [`Shared`] memory in our address space.
#[derive(Debug)]
pub(super) struct SharedMap(NonNull<Shared>);

// SAFETY: the mapping belongs to the value and holds nothing but atomics.
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps the part of `memfd` that begins at `offset`. The file has been sealed, so that nobody can cut it off.
    pub(super) fn new(memfd: &File, offset: u64) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                size_of::<Shared>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memfd,
                offset,
            )?
        };
        NonNull::new(base.cast())
            .map(Self)
            .ok_or(io::ErrorKind::InvalidData.into())
    }
}

impl Deref for SharedMap {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: mapped for as long as `self` is there, aligned to a page, and made of atomic integers only, for which
        // every value is valid and which others may write at any time.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference outlives `self`.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
    }
}

/// Ends the tracing of a stopped thread and lets it receive `signal`; 0: none. Real-time signals have no name in nix.
pub(super) fn detach(tid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: this request takes no addresses of ours.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            tid.cast_signed(),
            0,
            libc::c_long::from(signal),
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Replaces the set of signals that a stopped thread blocks.
pub(super) fn set_signal_mask(tid: u32, mask: u64) -> io::Result<()> {
    // SAFETY: the kernel reads 8 bytes, the size that it is told.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_SETSIGMASK,
            tid.cast_signed(),
            size_of::<u64>(),
            &raw const mask,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
