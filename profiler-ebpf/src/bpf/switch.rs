//! Time off the CPU: from where a thread left it to wait for something, to where it has it again.
//!
//! The stack is walked where the thread leaves: only then is it the current one, whose memory can be read. It is kept
//! until the thread comes back, when it is known how long that took.

use super::maps::{BLOCKED, Record, SCRATCH, config, count};
use super::record::send;
use super::sample::{Interrupted, take};
use super::scope;
use super::trigger;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use core::ptr::addr_of_mut;
use profiler_abi::table::Counter;

/// `TASK_DEAD` (include/linux/sched.h): it does not come back.
const DEAD: u32 = 0x80;

/// `sched_switch(preempt, prev, next, …)` (include/trace/events/sched.h): `prev` is the current thread still.
#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn switched(ctx: RawTracePointContext) -> i32 {
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let _ = came_back(ctx.arg(2), now);
    let _ = left(&ctx, now);
    0
}

#[inline(always)]
fn came_back(next: *const task_struct, now: u64) -> Option<()> {
    let tid = half_word(next, config().task_pid)?;
    let record = BLOCKED.get_ptr_mut(tid)?;
    // SAFETY: a map value; only the CPU that its thread comes back on uses it, and then removes it.
    let off_cpu = unsafe { now.wrapping_sub((*record).header.time_ns) };
    if off_cpu < config().min_block_ns {
        count(Counter::ShortBlocks, 1);
        count(Counter::ShortBlockNs, off_cpu);
    } else {
        // SAFETY: as above.
        let n_words = unsafe {
            addr_of_mut!((*record).header.cookie).write_volatile(off_cpu);
            (*record).header.n_kernel as u64
                + (*record).header.n_user as u64
                + (*record).header.n_label_words as u64
        };
        send(record, n_words);
    }
    let _ = BLOCKED.remove(tid);
    Some(())
}

#[inline(always)]
fn left(ctx: &RawTracePointContext, now: u64) -> Option<()> {
    // One that was made to leave, or was woken before it had left, can run: it does not wait for anything.
    let state = half_word(ctx.arg(1), config().task_state)?;
    if ctx.arg::<u64>(0) & 1 != 0 || state == 0 || state & DEAD != 0 {
        return None;
    }
    // SAFETY: helpers without preconditions.
    let (cpu, id) = unsafe { (bpf_get_smp_processor_id(), bpf_get_current_pid_tgid()) };
    let slot = scope::slot((id >> 32) as u32)?;
    let scratch = SCRATCH.get_ptr_mut(cpu)?;
    let at = Interrupted {
        cpu,
        now,
        id,
        slot,
        in_kernel: true,
    };
    take(ctx.as_ptr(), scratch, &at);
    count(Counter::Blocks, 1);
    // SAFETY: scratch is this CPU's entry, and begins with a record.
    let record = unsafe { &*scratch.cast::<Record>() };
    if BLOCKED.insert(id as u32, record, 0).is_err() {
        count(Counter::BlocksWithoutRoom, 1);
    }
    Some(())
}

/// Half a word of a kernel struct.
#[inline(always)]
fn half_word(base: *const task_struct, offset: u32) -> Option<u32> {
    trigger::word(base, offset).ok().map(|word| word as u32)
}
