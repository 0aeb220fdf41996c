//! Keeping track of watched processes that fork and exec, without a gap in which they could run unseen.

use super::maps::{PROCS, config};
use super::record::send_request;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_probe_read_kernel};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use core::ffi::c_void;
use profiler_abi::sample::RecordKind;
use profiler_abi::table::ProcSlot;

/// `sched_process_fork(parent, child)`: also runs for every new thread.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn forked(ctx: RawTracePointContext) -> i32 {
    if config().follow_children == 0 {
        return 0;
    }
    // SAFETY: no precondition.
    let parent = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    // SAFETY: the value is copied at once.
    let Some(&slot) = (unsafe { PROCS.get(parent) }) else {
        return 0;
    };
    let child_task: *const u8 = ctx.arg(1);
    let mut child = 0u32;
    // SAFETY: the destination is a u32; the source is a field of the new task, whose offset user space took from
    // the kernel's BTF.
    let read = unsafe {
        bpf_probe_read_kernel(
            (&raw mut child).cast(),
            4,
            child_task.add(config().task_tgid as usize).cast::<c_void>(),
        )
    };
    if read != 0 || child == parent {
        return 0;
    }
    // The child is a copy: until it calls exec, its parent's tables fit.
    if PROCS.insert(child, slot, 0).is_ok() {
        send_request(RecordKind::Fork, child, slot, 0, parent as u64);
    }
    0
}

/// `sched_process_exec`: the process's mappings have been replaced.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn execed(_ctx: RawTracePointContext) -> i32 {
    // SAFETY: no precondition.
    let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    // SAFETY: only asked whether it is there.
    if unsafe { PROCS.get(tgid) }.is_none() {
        return 0;
    }
    if PROCS.insert(tgid, ProcSlot::PENDING, 0).is_ok() {
        send_request(RecordKind::Exec, tgid, ProcSlot::PENDING, 0, 0);
    }
    0
}
