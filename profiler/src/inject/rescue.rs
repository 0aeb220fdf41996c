//! Getting a thread out of a hook that does not come back: one that loops, or waits for a lock that the code holds which
//! it interrupted.
//!
//! The thread returns through its own signal frame to the code that was sampled, as if the hook had returned: the kernel
//! restores every register and the signal mask from that frame. What the hook has done to memory stays done, and a lock
//! that it has taken stays taken: nobody outside can know of it. Go's own buffer and its guard, `m.cgoCallers` and
//! `m.cgoCallersUse`, are not concerned: the hook was given a buffer of ours.
//!
//! One PTRACE_SETREGS makes the change. Should we die before it, the thread is in the hook as before; after it, it is out.

use super::error::Error;
use super::install::is_handling;
use super::leave::Region;
use super::thread::{Fault, Seized};
use crate::target::process::Process;
use crate::words::u64_at;
use nix::sys::ptrace;
use nix::unistd::Pid;
use profiler_helper::shared::{BUSY, FREE, Slot};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// What `mov $15, %rax; syscall` is: the call of rt_sigreturn(2) behind every signal handler.
const SIGRETURN: [u8; 9] = *b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05";
/// `orig_rax` of a thread that is not in a system call: the kernel then restarts none.
const NO_CALL: u64 = u64::MAX;
/// How far `errno` can be from the thread pointer, in bytes.
const MAX_TLS: u64 = 1 << 20;
/// Bytes of a `ucontext_t` that are looked at: the stack, at 16, is that which the kernel knew as the alternate one.
const UCONTEXT: usize = 40;

/// A thread that is in the handler, in a hook most likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    slot: usize,
    /// Which of the signals that reached the handler it handles.
    pub visit: u32,
    /// Its thread pointer.
    pub thread: u64,
}

/// The threads that are in the handler.
pub(super) fn inside(region: &Region) -> Vec<Inside> {
    let slots = region.shared.slots.iter().enumerate();
    let busy = slots.filter(|(_, slot)| slot.state.load(Acquire) == BUSY);
    busy.map(|(index, slot)| Inside {
        slot: index,
        visit: slot.visit.load(Relaxed),
        thread: slot.thread_pointer.load(Relaxed),
    })
    .collect()
}

/// Takes a thread out of the hook that it is in. False if it is not in one, or not for certain. No hook may be called any
/// more in the process.
///
/// On a thread of its own: when that ends, the kernel lets go of whatever it may still trace.
pub(super) fn rescue(process: &Process, region: &Region, inside: Inside) -> Result<bool, Error> {
    let search = || {
        for tid in process.tids() {
            // One that sleeps so that nothing wakes it would not stop.
            let may_be = process
                .status(tid)
                .is_some_and(|status| is_handling(&status) && !status.is_uninterruptible());
            if !may_be {
                continue;
            }
            match take_out(process, region, inside, tid) {
                Ok(true) => return Ok(true),
                Err(Fault::Failed(error)) => return Err(error),
                Ok(false) | Err(_) => {}
            }
        }
        Ok(false)
    };
    std::thread::scope(|scope| {
        let rescuer = scope.spawn(search);
        rescuer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes thread `tid` out, if it is the one and everything is as it has to be.
fn take_out(process: &Process, region: &Region, inside: Inside, tid: u32) -> Result<bool, Fault> {
    let Some(slot) = region.shared.slots.get(inside.slot) else {
        return Ok(false);
    };
    let stopped = Seized::stop(process, tid)?;
    let id = Pid::from_raw(tid.cast_signed());
    let mut regs = ptrace::getregs(id).or(Err(Fault::Unfit))?;
    // While it is stopped, nothing of this changes.
    let is_the_one = regs.fs_base == inside.thread
        && slot.thread_pointer.load(Relaxed) == inside.thread
        && slot.visit.load(Relaxed) == inside.visit
        && slot.state.load(Acquire) == BUSY;
    let is_masked = process.status(tid).is_some_and(|status| is_handling(&status));
    // In our own code it comes along by itself.
    let is_ours = regs.rip.wrapping_sub(region.base) < region.len;
    let ucontext = slot.ucontext.load(Relaxed);
    if !is_the_one || !is_masked || is_ours {
        return Ok(false);
    }
    let Some(restorer) = frame(process, region, ucontext, regs.rsp) else {
        return Ok(false);
    };
    if restore_errno(process, slot).is_err() {
        return Ok(false);
    }
    // No other signal takes the slot: hooks are not called any more.
    slot.state.store(FREE, Release);
    (regs.rip, regs.rsp, regs.orig_rax) = (restorer, ucontext, NO_CALL);
    let changed = ptrace::setregs(id, regs);
    if changed.is_err() {
        slot.state.store(BUSY, Release);
    }
    drop(stopped);
    Ok(changed.is_ok())
}

/// Where the signal frame of a handler of ours with this `ucontext` returns to, if there is one, on the stack that signals
/// are handled on and above what the thread has there now.
fn frame(process: &Process, region: &Region, ucontext: u64, sp: u64) -> Option<u64> {
    // The return address lies below the ucontext.
    let bytes = process.memory(ucontext.checked_sub(8)?, 8 + UCONTEXT).ok()?;
    let restorer = u64_at(&bytes, 0)?;
    let (stack, size) = (u64_at(&bytes, 8 + 16)?, u64_at(&bytes, 8 + 32)?);
    // Without an alternate stack it is the thread's own.
    let (stack, size) = match size {
        0 => mapping(process, ucontext)?,
        size => (stack, size),
    };
    let is_on_stack = |address: u64| address.wrapping_sub(stack) < size;
    let code = process.memory(restorer, SIGRETURN.len()).ok()?;
    let is_ours = restorer.wrapping_sub(region.base) < region.len && code == SIGRETURN;
    (is_ours && is_on_stack(ucontext) && is_on_stack(sp) && sp < ucontext).then_some(restorer)
}

/// Start and length of the mapping that has this address.
fn mapping(process: &Process, address: u64) -> Option<(u64, u64)> {
    let maps = process.maps().ok()?;
    let entry = maps
        .iter()
        .find(|entry| (entry.start..entry.end).contains(&address))?;
    Some((entry.start, entry.end - entry.start))
}

/// `errno` belongs to the interrupted code, and no signal frame holds it.
fn restore_errno(process: &Process, slot: &Slot) -> io::Result<()> {
    let at = slot.errno_at.load(Relaxed);
    if at == 0 {
        return Ok(());
    }
    // It is in the thread's own block of thread-local storage, which its thread pointer is at.
    if at.abs_diff(slot.thread_pointer.load(Relaxed)) > MAX_TLS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let errno = slot.errno.load(Relaxed).to_le_bytes();
    File::options()
        .write(true)
        .open(format!("/proc/{}/mem", process.pid))?
        .write_all_at(&errno, at)
}
