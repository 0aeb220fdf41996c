//! Taking a sample: on every tick of the sampling clock that finds a wanted process on the CPU.

use super::machine::Bpf;
use super::maps::{SCRATCH, SLOTS, Scratch, config, count};
use super::record::{send, send_request};
use super::{labels, scope, trigger};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_smp_processor_id,
    bpf_get_stack, bpf_ktime_get_ns, bpf_loop, bpf_probe_read_kernel, bpf_task_pt_regs,
};
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use core::ffi::c_void;
use core::ptr::addr_of_mut;
use profiler_abi::MAX_KERNEL_FRAMES;
use profiler_abi::sample::{Header, RecordKind, Regs, UserWord};
use profiler_abi::stop::StopReason;
use profiler_abi::table::{Counter, ProcSlot};
use profiler_ebpf::ticks;
use profiler_ebpf::walk::{self, Machine, State};

/// The two low bits of `cs` are the privilege level; 0 is the kernel's.
const PRIVILEGE_LEVEL: u64 = 3;

/// The segment of 64-bit code, `__USER_CS` (arch/x86/include/asm/segment.h); any other is of 32-bit code.
const USER_CS: u64 = 0x33;

/// Runs on every tick of the sampling clock of a CPU.
#[perf_event]
pub fn sample(ctx: PerfEventContext) -> u32 {
    let _ = try_sample(&ctx);
    0
}

#[inline(always)]
fn try_sample(ctx: &PerfEventContext) -> Option<()> {
    // SAFETY: helpers without preconditions.
    let (cpu, now, id) = unsafe {
        (
            bpf_get_smp_processor_id(),
            bpf_ktime_get_ns(),
            bpf_get_current_pid_tgid(),
        )
    };
    let scratch = SCRATCH.get_ptr_mut(cpu)?;
    // SAFETY: the entry is this CPU's; programs do not migrate, and the clock's tick does not interrupt itself.
    let lost = unsafe { ticks::lost(&mut (*scratch).tick_due_ns, now, config().period_ns) };
    // SAFETY: as above.
    let is_same_thread = unsafe { core::mem::replace(&mut (*scratch).last_thread, id) == id };
    let slot = scope::slot((id >> 32) as u32)?;
    let in_kernel = interrupted_kernel(ctx);
    let switches = switches();
    // SAFETY: as above.
    let had_cpu =
        unsafe { core::mem::replace(&mut (*scratch).last_switches, switches) == switches && is_same_thread };
    // Else something else may have had the CPU meanwhile, or nothing: the clock of a CPU that idles is served late in
    // virtual machines.
    if lost > 0 && had_cpu {
        // Only the kernel can put off interrupts, and for the process it works in system calls. Where a late tick
        // meets anything else, the process did not run in the meantime: a hypervisor had taken the CPU, or another
        // interrupt took long.
        let counter = if in_kernel && in_system_call() {
            Counter::LostTicks
        } else {
            Counter::WithheldTicks
        };
        count(counter, lost);
    }

    let at = Interrupted {
        cpu,
        now,
        id,
        slot,
        in_kernel,
    };
    let (stop, n_words) = take(ctx.as_ptr(), scratch, &at);
    if !in_kernel
        && stop != StopReason::NoUserStack
        && let Some(slot) = SLOTS.get_ptr(slot)
    {
        // SAFETY: no precondition; the kernel gives a pointer that it trusts.
        trigger::ask(scratch, slot, unsafe { bpf_get_current_task_btf() });
    }
    send(scratch.cast(), n_words);
    Some(())
}

/// What is known of a thread before its stack is walked.
pub struct Interrupted {
    pub cpu: u32,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub now: u64,
    /// As bpf_get_current_pid_tgid() has it.
    pub id: u64,
    /// Of its process.
    pub slot: u32,
    /// It is in kernel code.
    pub in_kernel: bool,
}

/// Makes a record of the current thread's stack in `scratch`. Returns why the walk ended, and how many words the record has.
#[inline(always)]
pub fn take(ctx: *mut c_void, scratch: *mut Scratch, at: &Interrupted) -> (StopReason, u64) {
    let tgid = (at.id >> 32) as u32;
    // SAFETY: scratch is this CPU's entry.
    unsafe {
        let header = addr_of_mut!((*scratch).header);
        (*header).kind = RecordKind::Sample as u32;
        (*header).tgid = tgid;
        (*header).tid = at.id as u32;
        (*header).cpu = at.cpu;
        (*header).time_ns = at.now;
        (*header).slot = at.slot;
        (*header).flags = 0;
        (*header).n_kernel = 0;
        (*header).n_user = 0;
        (*header).generation = 0;
        // Volatile: neighbouring zeros would become a call of memset, which is a loop over bytes here.
        addr_of_mut!((*header).goid).write_volatile(0);
        addr_of_mut!((*header).stop_pc).write_volatile(0);
        addr_of_mut!((*header).cookie).write_volatile(0);
        addr_of_mut!((*header).n_labels).write_volatile(0);
        addr_of_mut!((*header).n_label_words).write_volatile(0);
        (*scratch).labels.labels = 0;
        bpf_get_current_comm(addr_of_mut!((*header).comm).cast(), 16);
        (*scratch).window_at = 0;
    }

    if at.in_kernel {
        kernel_stack(ctx, scratch);
    }
    // SAFETY: scratch is this CPU's entry.
    let n_kernel = unsafe { (*scratch).header.n_kernel };
    let (stop, n_words) = match SLOTS.get_ptr(at.slot) {
        Some(slot) => user_stack(scratch, slot, tgid, at.slot),
        // A thread of the kernel has nothing else: its stack is whole.
        None if at.slot == ProcSlot::KERNEL && n_kernel != 0 => (StopReason::Root, 0),
        None if at.slot == ProcSlot::KERNEL => (StopReason::NoUserStack, 0),
        None if at.slot == ProcSlot::NO_ROOM => (StopReason::NoRoom, 0),
        None if at.slot == ProcSlot::NOT_ALLOWED => (StopReason::NotAllowed, 0),
        // ProcSlot::PENDING: it has just called exec, or has just been met.
        None => (StopReason::TablesPending, 0),
    };
    // SAFETY: scratch is this CPU's entry.
    unsafe {
        (*scratch).header.stop = stop as u32;
        (*scratch).header.n_user = n_words as u32;
    }
    let n_words = n_kernel as u64 + n_words;
    (stop, n_words + labels::copy(scratch, n_words))
}

#[inline(always)]
fn interrupted_kernel(ctx: &PerfEventContext) -> bool {
    // SAFETY: the context of a perf_event program starts with the interrupted registers, in the order of
    // `struct pt_regs` (struct bpf_perf_event_data, include/uapi/linux/bpf_perf_event.h).
    let cs = unsafe { ctx.as_ptr().cast::<u64>().add(Regs::CS as usize).read() };
    cs & PRIVILEGE_LEVEL == 0
}

/// How often the current thread has been taken off a CPU.
#[inline(always)]
fn switches() -> u64 {
    // SAFETY: no precondition; the kernel gives a pointer that it trusts.
    let task = unsafe { bpf_get_current_task_btf() };
    let word = |offset| trigger::word(task, offset).unwrap_or(0);
    word(config().task_gave_way).wrapping_add(word(config().task_preempted))
}

#[inline(always)]
fn in_system_call() -> bool {
    let mut number = 0u64;
    // SAFETY: the destination is a word; the source is in the registers that the current task entered the kernel with.
    unsafe {
        let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u64;
        let source = regs.wrapping_add(Regs::ORIG_RAX as usize).cast::<c_void>();
        bpf_probe_read_kernel((&raw mut number).cast(), 8, source) == 0 && number != Regs::NO_SYSCALL
    }
}

/// Puts the kernel frames at the start of the record.
#[inline(always)]
fn kernel_stack(ctx: *mut c_void, scratch: *mut Scratch) {
    // SAFETY: scratch is this CPU's entry; the length is less than that of the words.
    unsafe {
        (*scratch).header.flags |= Header::FROM_KERNEL;
        if config().kernel_frames == 0 {
            return;
        }
        let bytes = bpf_get_stack(
            ctx,
            addr_of_mut!((*scratch).words).cast(),
            (MAX_KERNEL_FRAMES * 8) as u32,
            0,
        );
        if bytes > 0 {
            let n = bytes as u64 / 8;
            (*scratch).header.n_kernel = if n > MAX_KERNEL_FRAMES as u64 { 0 } else { n as u32 };
        }
    }
}

/// Walks the user stack. Returns why it ended and how many words it has.
#[inline(always)]
fn user_stack(scratch: *mut Scratch, slot: *const ProcSlot, tgid: u32, index: u32) -> (StopReason, u64) {
    // SAFETY: no precondition; the kernel gives a pointer that it trusts.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: the destination is as large as `struct pt_regs`; the source is the current task's.
    let read = unsafe {
        let regs = bpf_task_pt_regs(task);
        bpf_probe_read_kernel(
            addr_of_mut!((*scratch).regs).cast(),
            (Regs::WORDS * 8) as u32,
            regs as *const c_void,
        )
    };
    // SAFETY: scratch is this CPU's entry.
    let (user_cs, user_sp) = unsafe {
        (
            (*scratch).regs[Regs::CS as usize],
            (*scratch).regs[Regs::RSP as usize],
        )
    };
    if read != 0 || user_cs & PRIVILEGE_LEVEL == 0 || user_sp == 0 {
        return (StopReason::NoUserStack, 0);
    }
    // SAFETY: slot is a map value. One load: user space replaces the word in one store.
    let tables = unsafe { addr_of_mut!((*slot.cast_mut()).current).read_volatile() };
    let mut machine = Bpf::new(scratch, slot, tables);
    // SAFETY: scratch is this CPU's entry.
    unsafe { (*scratch).header.generation = machine.generation };

    let mut walk = Walk {
        slot: index,
        stop: StopReason::MaxFrames as u32,
        tables,
    };
    // SAFETY: scratch is this CPU's entry, and the machine does not touch the state by itself.
    let state = unsafe { &mut (*scratch).state };
    walk::start(state, &mut machine);
    // More than the low 16 bits are the kernel's own (`struct pt_regs`).
    if user_cs & 0xffff != USER_CS {
        return leaf_only(state, &mut machine, StopReason::Code32);
    }
    if machine.generation == 0 {
        return leaf_only(state, &mut machine, StopReason::TablesPending);
    }
    // SAFETY: slot is a map value.
    if unsafe { (*slot).go[0].present } != 0 {
        find_goroutine(state, &mut machine, task);
    }
    // SAFETY: the callback has the signature that bpf_loop wants and its context is on our stack.
    unsafe {
        bpf_loop(
            config().max_frames + 1,
            advance as *const () as *mut c_void,
            (&raw mut walk).cast(),
            0,
        );
    }
    let stop = StopReason::from_bits(walk.stop).unwrap_or(StopReason::NoRule);
    // SAFETY: scratch is this CPU's entry.
    let (pc, n_words) = unsafe {
        (*scratch).header.stop_pc = (*scratch).state.pc;
        ((*scratch).state.pc, (*scratch).state.n_words)
    };
    if matches!(stop, StopReason::NoMapping | StopReason::TablesChanging) {
        send_request(RecordKind::Remap, tgid, index, pc, 0);
    }
    (stop, n_words)
}

/// A stack of which nothing but the interrupted instruction can be known.
#[inline(always)]
fn leaf_only(state: &mut State, machine: &mut Bpf, why: StopReason) -> (StopReason, u64) {
    let _ = machine.push(state, UserWord::frame(state.pc, true));
    (why, state.n_words)
}

/// What the loop needs, on the BPF stack: the kernel passes a loop's context from there only.
struct Walk {
    slot: u32,
    stop: u32,
    tables: u64,
}

/// A stride and a step; 1 ends the loop.
unsafe extern "C" fn advance(_index: u64, walk: *mut c_void) -> i64 {
    // SAFETY: the loop passes the address of `walk` in `user_stack`, which outlives it.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let stop = step(walk.slot, walk.tables);
    if stop == GO_ON {
        return 0;
    }
    walk.stop = stop as u32;
    1
}

/// Result of [`step`]: the walk is not over. No [`StopReason`].
const GO_ON: u64 = 1 << 32;

/// Goes on with the walk in this CPU's scratch: [`GO_ON`], or the reason for which it is over.
///
/// A global function: the verifier looks at it once, and not again for every way to the loop and through it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn step(slot: u32, tables: u64) -> u64 {
    // SAFETY: a helper without preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let (Some(scratch), Some(slot)) = (SCRATCH.get_ptr_mut(cpu), SLOTS.get_ptr(slot)) else {
        return StopReason::NoRule as u64;
    };
    let mut machine = Bpf::new(scratch, slot, tables);
    // SAFETY: scratch is this CPU's entry, and the machine does not touch the state by itself.
    let state = unsafe { &mut (*scratch).state };
    walk::stride(state, &mut machine);
    match walk::step(state, &mut machine) {
        Ok(()) => GO_ON,
        Err(stop) => stop as u64,
    }
}

#[inline(always)]
fn find_goroutine(state: &mut State, machine: &mut Bpf, task: *mut task_struct) {
    let mut thread_pointer = 0u64;
    // SAFETY: the destination is a word; the source is a field of the current task, whose offset user space took
    // from the kernel's BTF.
    let read = unsafe {
        bpf_probe_read_kernel(
            (&raw mut thread_pointer).cast(),
            8,
            task.cast::<u8>()
                .add(config().task_fsbase as usize)
                .cast::<c_void>(),
        )
    };
    if read != 0 || thread_pointer == 0 {
        return;
    }
    walk::find_g(state, machine, thread_pointer);
    let Some((runtime, curg)) = walk::curg(state, machine) else {
        return;
    };
    let go = machine.go(runtime);
    // SAFETY: scratch is this CPU's entry.
    unsafe {
        (*machine.scratch).header.goid = machine.word(curg.wrapping_add(go.g_goid as u64)).unwrap_or(0);
        if go.g_labels != 0 {
            (*machine.scratch).labels.labels = curg.wrapping_add(go.g_labels as u64);
            (*machine.scratch).labels.form = go.label_form as u64;
        }
    }
}
