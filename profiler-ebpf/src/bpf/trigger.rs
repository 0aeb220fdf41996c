//! Asking a sampled thread what the traceback hooks of its program say: by a signal, sent so that it disturbs nothing.
//!
//! A thread is asked only where it was interrupted in user mode: it cannot be in a system call then, so none is
//! interrupted, and the signal's handler runs at the very instruction that was sampled. While it runs, the thread has the
//! signal blocked, and is not asked again.

use super::maps::{Scratch, config, count};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_probe_read_kernel, bpf_send_signal_thread};
use core::ffi::c_void;
use core::ptr::addr_of_mut;
use profiler_abi::kfunc;
use profiler_abi::sample::{Header, Regs};
use profiler_abi::table::{Asking, Counter, ProcSlot};

/// `PF_EXITING` (include/linux/sched.h).
const EXITING: u64 = 4;
/// Size of `struct k_sigaction` on x86-64: handler, flags, restorer and mask (include/linux/signal_types.h).
const ACTION_BYTES: u32 = 32;
/// What Go gives its own handlers (runtime/os_linux.go, `malg(32 * 1024)`). The kernel's frame and ours take less than half.
const ROOM: u64 = 32 * 1024;
/// `PIDTYPE_PID` (include/linux/pid_types.h): the signal is for the thread, not for its process.
const PIDTYPE_PID: u32 = 0;

/// Asks the current thread, which `scratch` holds the walk of, if nothing speaks against it.
#[inline(always)]
pub fn ask(scratch: *mut Scratch, slot: *const ProcSlot, task: *const task_struct) {
    // SAFETY: slot is a map value, and so are its fields. User space replaces the signal in one store, after the others.
    let (asking, signal, process) = unsafe {
        let asking = addr_of_mut!((*slot.cast_mut()).asking);
        (
            asking,
            addr_of_mut!((*asking).signal).read_volatile(),
            (*asking).tgid,
        )
    };
    // SAFETY: scratch is this CPU's map value.
    let (state, now, tgid) = unsafe {
        (
            &(*scratch).state,
            (*scratch).header.time_ns,
            (*scratch).header.tgid,
        )
    };
    // Where the stack has no C with Go beneath, and where the thread is not Go's, there is nothing to ask.
    if signal == 0 || process != tgid || (state.left_c == 0 && state.has_g()) {
        return;
    }
    let outcome = match admit(scratch, asking, task, signal, now) {
        Ok(thread) => send(scratch, asking, task, signal, thread),
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
    now: u64,
) -> Result<u64, Counter> {
    let config = config();
    let bit = 1u64 << ((signal - 1) & 63);
    if word(task, config.task_flags)? & EXITING != 0 {
        return Err(Counter::NotAskedExiting);
    }
    let blocked = word(task, config.task_blocked)?;
    if blocked & bit != 0 {
        return Err(Counter::NotAskedBlocked);
    }
    let shared = word(task, config.task_signal)? as *const task_struct;
    let pending = word(task, config.task_pending)? | word(shared, config.signal_pending)?;
    if pending & bit != 0 {
        return Err(Counter::NotAskedPending);
    }
    // Its handler would be entered before ours, which then interrupts that and not what was sampled.
    if pending & !blocked != 0 {
        return Err(Counter::NotAskedOther);
    }
    // SAFETY: scratch is this CPU's map value.
    let (danger, sp) = unsafe { ((*scratch).state.danger, (*scratch).regs[Regs::RSP as usize]) };
    if danger != 0 {
        return Err(Counter::NotAskedDanger);
    }
    // The end of the handler is a system call, too.
    let filters = match config.task_filters {
        0 => 0,
        offset => word(task, offset)? as u32,
    };
    // SAFETY: a map value.
    if filters != unsafe { (*asking).filters } {
        return Err(Counter::NotAskedFiltered);
    }
    let (stack, size) = (
        word(task, config.task_altstack)?,
        word(task, config.task_altstack_size)?,
    );
    // Threads that no runtime has set up have none: their handlers run on the stack that they interrupt, Go's as well.
    let has_room = match size {
        0 => room(task, sp)? >= ROOM,
        size => sp.wrapping_sub(stack) >= size,
    };
    if !has_room {
        return Err(Counter::NotAskedNoStack);
    }
    // The first word of an action is its handler.
    let actions = word(task, config.task_sighand)? as *const task_struct;
    let action = config.sighand_action + (signal - 1) * ACTION_BYTES;
    // SAFETY: a map value.
    if word(actions, action)? != unsafe { (*asking).handler } {
        return Err(Counter::NotAskedReplaced);
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
fn send(
    scratch: *mut Scratch,
    asking: *mut Asking,
    task: *const task_struct,
    signal: u32,
    thread: u64,
) -> Counter {
    // SAFETY: scratch is this CPU's map value.
    let cookie = unsafe { (*scratch).header.time_ns };
    // Either way the kernel sends it when interrupts are on again, before the thread goes on.
    // SAFETY: the task is the current one, as the kernel gave it.
    let (sent, flags) = match unsafe { send_signal_task(task, signal, PIDTYPE_PID, cookie) } {
        // SAFETY: no precondition.
        kfunc::MISSING => (unsafe { bpf_send_signal_thread(signal) } == 0, Header::ASKED),
        result => (result == 0, Header::ASKED | Header::COOKIE),
    };
    if !sent {
        return Counter::NotAskedBusy;
    }
    // SAFETY: both are map values; see `admit`.
    unsafe {
        (*asking).asked += 1;
        (*scratch).header.flags |= flags;
        (*scratch).header.cookie = thread;
    }
    Counter::Asked
}

/// The kernel function `bpf_send_signal_task`, or [`kfunc::MISSING`].
///
/// # Safety
/// The kernel gave `task` itself: it is no address that was read from somewhere.
#[inline(always)]
unsafe fn send_signal_task(task: *const task_struct, signal: u32, kind: u32, cookie: u64) -> i32 {
    type SendSignalTask = unsafe extern "C" fn(*const task_struct, u32, u32, u64) -> i32;
    // SAFETY: the number of a helper is called as if it were an address; see `kfunc`.
    let call: SendSignalTask = unsafe { core::mem::transmute(kfunc::SEND_SIGNAL_TASK as usize) };
    // SAFETY: by the contract of this function.
    unsafe { call(task, signal, kind, cookie) }
}

/// How many bytes there are below `sp` in the mapping that it is in.
#[inline(always)]
fn room(task: *const task_struct, sp: u64) -> Result<u64, Counter> {
    let mut start = u64::MAX;
    // SAFETY: the callback has the signature that bpf_find_vma wants, and its context is on our stack.
    let found = unsafe {
        bpf_find_vma(
            task.cast_mut(),
            sp,
            store_start as *const () as *mut c_void,
            (&raw mut start).cast(),
            0,
        )
    };
    match found {
        0 => Ok(sp.saturating_sub(start)),
        // Another thread is about to change the mappings.
        _ => Err(Counter::NotAskedBusy),
    }
}

/// Stores where the mapping, a `struct vm_area_struct`, begins.
unsafe extern "C" fn store_start(
    _task: *const task_struct,
    mapping: *const task_struct,
    start: *mut c_void,
) -> i64 {
    if let Ok(word) = word(mapping, config().mapping_start) {
        // SAFETY: `room` passes the address of a word.
        unsafe { *start.cast::<u64>() = word };
    }
    0
}

/// A word of a kernel struct, at an offset that user space took from the kernel's BTF.
#[inline(always)]
pub fn word(base: *const task_struct, offset: u32) -> Result<u64, Counter> {
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
