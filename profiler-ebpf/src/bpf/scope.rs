//! Whose samples are wanted: processes in a list, all, or those in a control group.
//!
//! Where processes are not listed, one gets its tables when it is first met: what the profiler does for processes then is
//! bounded by the number of samples, however many processes come and go.

use super::maps::{PROCS, config};
use super::record::send_request;
use super::trigger;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_task_btf};
use profiler_abi::sample::RecordKind;
use profiler_abi::table::{Config, ProcSlot};

/// `PF_KTHREAD` (include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// How many levels of control groups are looked at: the wanted one is deeper than it seems where a namespace hides what
/// is above it.
const LEVELS: u32 = 32;

/// `BPF_NOEXIST`: another CPU may have met the process at the same time.
const IF_NEW: u64 = 1;

/// The slot of the process on the CPU, if samples of it are wanted.
#[inline(always)]
pub fn slot(tgid: u32) -> Option<u32> {
    let scope = config().scope;
    if scope == Config::CGROUP && !is_in_cgroup() {
        return None;
    }
    // SAFETY: the value is copied at once.
    if let Some(&slot) = unsafe { PROCS.get(tgid) } {
        return Some(slot);
    }
    // Process 0 is the CPU with nothing to do.
    if scope == Config::LISTED || tgid == 0 {
        return None;
    }
    // SAFETY: no precondition; the kernel gives a pointer that it trusts.
    let task = unsafe { bpf_get_current_task_btf() };
    if trigger::word(task, config().task_flags).unwrap_or(0) & KERNEL_THREAD != 0 {
        return Some(ProcSlot::KERNEL);
    }
    if PROCS.insert(tgid, ProcSlot::PENDING, IF_NEW).is_err() {
        return Some(ProcSlot::NO_ROOM);
    }
    if !send_request(RecordKind::Met, tgid, ProcSlot::PENDING, 0, 0) {
        // It will be met again.
        let _ = PROCS.remove(tgid);
    }
    Some(ProcSlot::PENDING)
}

#[inline(always)]
fn is_in_cgroup() -> bool {
    for level in 0..LEVELS {
        // SAFETY: no precondition.
        let id = unsafe {
            bpf_get_current_ancestor_cgroup_id(config().cgroup_level.wrapping_add(level).cast_signed())
        };
        if id == 0 || id == config().cgroup_id {
            return id != 0;
        }
    }
    false
}
