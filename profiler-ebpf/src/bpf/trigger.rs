//! Asking a sampled thread what the traceback hooks of its program say: by a signal, sent so that it disturbs nothing.
//!
//! A thread is asked only where it was interrupted in user mode: it cannot be in a system call then, so none is
//! interrupted, and the signal's handler runs at the very instruction that was sampled.

use super::maps::{ASKED, Scratch, config, count};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_send_signal_thread};
use core::ffi::c_void;
use core::ptr::addr_of_mut;
use profiler_abi::sample::{Header, Regs};
use profiler_abi::table::{Asking, Counter, ProcSlot};

/// `PF_EXITING` (include/linux/sched.h).
const EXITING: u64 = 4;

/// Asks the current thread, which `scratch` holds the walk of, if nothing speaks against it.
#[inline(always)]
pub fn ask(scratch: *mut Scratch, slot: *const ProcSlot, task: *const task_struct) {
    // SAFETY: slot is a map value, and so are its fields. User space replaces the signal in one store.
    let (asking, signal) = unsafe {
        let asking = addr_of_mut!((*slot.cast_mut()).asking);
        (asking, addr_of_mut!((*asking).signal).read_volatile())
    };
    // SAFETY: scratch is this CPU's map value.
    let (state, tid, now) = unsafe {
        let header = &(*scratch).header;
        (&(*scratch).state, header.tid, header.time_ns)
    };
    // Where the stack has no C with Go beneath, and where the thread is not Go's, there is nothing to ask.
    if signal == 0 || (state.left_c == 0 && state.g != 0) {
        return;
    }
    let outcome = match admit(scratch, asking, task, signal, tid, now) {
        Ok(thread) => send(scratch, asking, signal, thread, tid, now),
        Err(refusal) => refusal,
    };
    count(outcome, 1);
}

/// The thread pointer of the thread if it may be asked, or why it may not.
#[inline(always)]
fn admit(
    scratch: *mut Scratch,
    asking: *mut Asking,
    task: *const task_struct,
    signal: u32,
    tid: u32,
    now: u64,
) -> Result<u64, Counter> {
    let config = config();
    let bit = 1u64 << ((signal - 1) & 63);
    if word(task, config.task_flags)? & EXITING != 0 {
        return Err(Counter::NotAskedExiting);
    }
    if word(task, config.task_blocked)? & bit != 0 {
        return Err(Counter::NotAskedBlocked);
    }
    let shared = word(task, config.task_signal)? as *const task_struct;
    if (word(task, config.task_pending)? | word(shared, config.signal_pending)?) & bit != 0 {
        return Err(Counter::NotAskedPending);
    }
    // SAFETY: scratch is this CPU's map value.
    let (danger, sp) = unsafe { ((*scratch).state.danger, (*scratch).regs[Regs::RSP as usize]) };
    if danger != 0 {
        return Err(Counter::NotAskedDanger);
    }
    let (stack, size) = (
        word(task, config.task_altstack)?,
        word(task, config.task_altstack_size)?,
    );
    if size == 0 || sp.wrapping_sub(stack) < size {
        return Err(Counter::NotAskedNoStack);
    }
    // SAFETY: the value is copied at once.
    if let Some(&asked) = unsafe { ASKED.get(tid) }
        && now.wrapping_sub(asked) < Asking::PATIENCE_NS
    {
        return Err(Counter::NotAskedWaiting);
    }
    // SAFETY: a map value. That other CPUs write it as well makes the count inexact, no more.
    let too_many = unsafe {
        if now.wrapping_sub((*asking).window_ns) >= Asking::WINDOW_NS {
            (*asking).window_ns = now;
            (*asking).asked = 0;
        }
        (*asking).asked >= (*asking).per_window as u64
    };
    if too_many {
        return Err(Counter::NotAskedRate);
    }
    word(task, config.task_fsbase)
}

#[inline(always)]
fn send(scratch: *mut Scratch, asking: *mut Asking, signal: u32, thread: u64, tid: u32, now: u64) -> Counter {
    // Before the signal: the answer may come at once.
    if ASKED.insert(tid, now, 0).is_err() {
        return Counter::NotAskedBusy;
    }
    // SAFETY: no precondition; the kernel sends it when interrupts are on again, before the thread goes on.
    if unsafe { bpf_send_signal_thread(signal) } != 0 {
        let _ = ASKED.remove(tid);
        return Counter::NotAskedBusy;
    }
    // SAFETY: both are map values; see `admit`.
    unsafe {
        (*asking).asked += 1;
        (*scratch).header.flags |= Header::ASKED;
        (*scratch).header.cookie = thread;
    }
    Counter::Asked
}

/// A word of a kernel struct, at an offset that user space took from the kernel's BTF.
#[inline(always)]
fn word(base: *const task_struct, offset: u32) -> Result<u64, Counter> {
    let mut word = 0u64;
    // SAFETY: the destination is a word; the helper checks the source.
    let read = unsafe {
        bpf_probe_read_kernel(
            (&raw mut word).cast(),
            8,
            base.cast::<u8>().wrapping_add(offset as usize).cast::<c_void>(),
        )
    };
    if read == 0 {
        Ok(word)
    } else {
        Err(Counter::NotAskedBusy)
    }
}
