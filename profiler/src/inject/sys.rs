//! What the system only gives to unsafe code: memory shared with the target, and requests of ptrace(2) with
//! signals that libraries do not know.

use super::filter::INSTRUCTION;
use nix::libc;
use profiler_helper::shared::Shared;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

/// Room for [`extended_state`], in bytes: that of AMX takes 11 thousand.
const MAX_EXTENDED_STATE: usize = 64 << 10;
/// include/uapi/linux/elf.h.
const NT_X86_XSTATE: usize = 0x202;
/// include/uapi/linux/ptrace.h.
const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

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
    done(result).map(|_| ())
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
    done(result).map(|_| ())
}

/// The extended state of a stopped thread, its floating-point and vector registers, in the layout of the instruction
/// XSAVE.
pub(super) fn extended_state(tid: u32) -> io::Result<Vec<u8>> {
    let mut state = vec![0_u8; MAX_EXTENDED_STATE];
    let mut vector = libc::iovec {
        iov_base: state.as_mut_ptr().cast(),
        iov_len: state.len(),
    };
    // SAFETY: the kernel writes as much as the vector has room for, and into the vector how much that was.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET,
            tid.cast_signed(),
            NT_X86_XSTATE,
            &raw mut vector,
        )
    };
    done(result)?;
    state.truncate(vector.iov_len);
    Ok(state)
}

/// Where a stopped thread keeps its `struct rseq` (include/uapi/linux/rseq.h); 0 if it has none. Linux 5.13 and later
/// know.
pub(super) fn rseq(tid: u32) -> io::Result<u64> {
    let mut configuration = libc::ptrace_rseq_configuration {
        rseq_abi_pointer: 0,
        rseq_abi_size: 0,
        signature: 0,
        flags: 0,
        pad: 0,
    };
    // SAFETY: the kernel writes no more than the size that it is told.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_RSEQ_CONFIGURATION,
            tid.cast_signed(),
            size_of_val(&configuration),
            &raw mut configuration,
        )
    };
    done(result)?;
    Ok(configuration.rseq_abi_pointer)
}

/// The filter of system calls number `index` of a stopped thread, the latest first, as instructions of 8 bytes; `None` if it
/// has no more.
pub(super) fn seccomp_filter(tid: u32, index: u64) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: the kernel writes as many instructions as the filter has, which it says when it is given no address; nothing
    // can change a filter.
    let request = |program: *mut u8| unsafe {
        libc::ptrace(PTRACE_SECCOMP_GET_FILTER, tid.cast_signed(), index, program)
    };
    let count = match done(request(std::ptr::null_mut())) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        count => count?,
    };
    let mut program = vec![0; count as usize * INSTRUCTION];
    done(request(program.as_mut_ptr()))?;
    Ok(Some(program))
}

fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
