//! The signal handler.
//!
//! It makes no system call, takes no lock, allocates nothing and calls nobody but the hook. Its frame is gone when
//! it jumps into the target's own `x_cgo_callers`: hooks that unwind from themselves count on finding that function
//! directly above the kernel's signal frame.

use crate::go::{Contexts, Thread, thread_pointer, word};
use crate::shared::{
    BUSY, Buffer, CONTEXTS_CUT, Config, FREE, GUARD, LEAF_ASKED, LEAF_OVERRUN, MAX_CONTEXTS, MAX_PCS,
    NO_HOOK, READY, SLOTS, Shared, Slot,
};
use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// In the process: the shared pages that lie behind the code, always at the same distance.
#[unsafe(no_mangle)]
// SAFETY: it is made of atomic integers, for which zero is a value.
pub static profiler_helper_shared: Shared = unsafe { core::mem::zeroed() };

/// What `sa_restorer` points to. Unwinders know a signal frame by exactly these bytes at its return address (libgcc's
/// config/i386/linux-unwind.h, LLVM's libunwind, gdb), so the longer encoding of the number must be used.
///
/// # Safety
/// Only the kernel may make it run, with a signal frame on the stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn profiler_helper_restorer() {
    // mov $15, %rax; syscall; the last two are never reached.
    naked_asm!(
        ".byte 0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05",
        "ud2"
    )
}

/// The handler, called by the kernel: signal in rdi, siginfo in rsi, ucontext in rdx, return address on the stack.
///
/// # Safety
/// Only the kernel may call it, with `SA_SIGINFO`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn profiler_helper_handler() {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_def_cfa_offset 16",
        "push rsi",
        ".cfi_def_cfa_offset 24",
        "push rdx",
        ".cfi_def_cfa_offset 32",
        // The stack is aligned for a call now.
        "call {decide}",
        "mov r10, rdx",
        "pop rdx",
        ".cfi_def_cfa_offset 24",
        "pop rsi",
        ".cfi_def_cfa_offset 16",
        "pop rdi",
        ".cfi_def_cfa_offset 8",
        "test r10, r10",
        "jz 2f",
        // x_cgo_callers(signal, siginfo, ucontext, hook, buffer, then) ends by calling then(signal, siginfo, ucontext)
        // and does nothing else with the signal's number (runtime/cgo/gcc_traceback.c): the slot takes its place.
        "mov rdi, r10",
        "mov rcx, [r10 + {hook}]",
        "lea r8, [r10 + {leaf}]",
        "lea r9, [rip + {leaf_answered}]",
        "2:",
        "test rax, rax",
        "jz 3f",
        "jmp rax",
        "3:",
        "ret",
        ".cfi_endproc",
        decide = sym decide,
        leaf_answered = sym leaf_answered,
        hook = const offset_of!(Slot, hook),
        leaf = const offset_of!(Slot, leaf),
    )
}

/// Where the handler goes: in registers rax and rdx.
#[repr(C)]
struct Next {
    /// Address of the function to jump to; 0: return to the interrupted code.
    function: u64,
    /// Address of the slot that the function is to fill; 0: it is another handler of the signal.
    slot: u64,
}

impl Next {
    const RETURN: Self = Self { function: 0, slot: 0 };
}

extern "C" fn decide(_signal: u64, siginfo: u64, ucontext: u64) -> Next {
    let shared = &profiler_helper_shared;
    let (config, counters) = (&shared.config, &shared.counters);
    // SAFETY: the kernel gives 128 bytes of siginfo: si_code at 8, si_value at 24 (include/uapi/asm-generic/siginfo.h).
    let (code, cookie) = unsafe { (word(siginfo, 8) as u32, word(siginfo, 24)) };
    let ours = code == config.si_code.load(Relaxed) as u32
        && cookie & config.cookie_mask.load(Relaxed) == config.cookie_magic.load(Relaxed);
    if !ours {
        // The kernel had no memory for the signal's siginfo, or RLIMIT_SIGPENDING is reached (kernel/signal.c,
        // `__send_signal_locked`): it may be one of ours. On its own threads Go ignores it, unless the program wants it;
        // on others Go would end the process (runtime/signal_unix.go, `badsignal`).
        // SAFETY: si_pid and si_uid at 16; the config is that of the process.
        let is_lost = code == 0 && unsafe { word(siginfo, 16) == 0 && Thread::current(config).tid == 0 };
        if is_lost {
            counters.without_info.fetch_add(1, Relaxed);
            return Next::RETURN;
        }
        counters.passed_on.fetch_add(1, Relaxed);
        let previous = shared.actions.previous.handler.load(Relaxed);
        // SIG_DFL and SIG_IGN are no functions.
        let function = if previous > 1 { previous } else { 0 };
        return Next { function, slot: 0 };
    }
    counters.entered.fetch_add(1, Relaxed);
    if config.enabled.load(Acquire) == 0 {
        counters.disabled.fetch_add(1, Relaxed);
        return Next::RETURN;
    }
    let Some(slot) = claim(shared) else {
        counters.no_slot.fetch_add(1, Relaxed);
        return Next::RETURN;
    };
    // SAFETY: the profiler wrote the config for this process before it installed the handler.
    let thread = unsafe { Thread::current(config) };
    slot.cookie.store(cookie, Relaxed);
    slot.thread_pointer.store(thread_pointer(), Relaxed);
    slot.tid.store(thread.tid, Relaxed);
    slot.curg.store(thread.curg, Relaxed);
    slot.ucontext.store(ucontext, Relaxed);
    // SAFETY: the kernel made the ucontext for this thread, and the config is that of the process.
    let (pc, sp) = unsafe { interrupted(ucontext, config) };
    slot.pc.store(pc, Relaxed);
    slot.sp.store(sp, Relaxed);
    slot.flags.store(0, Relaxed);
    slot.n_contexts.store(0, Relaxed);

    // SAFETY: the addresses in the config are those of pointers in the process.
    let (hook, callers) = unsafe { (pointer(config.traceback.load(Relaxed)), callers(config)) };
    slot.hook.store(hook, Relaxed);
    if hook == 0 || callers == 0 {
        slot.flags.store(NO_HOOK, Relaxed);
        slot.state.store(READY, Release);
        return Next::RETURN;
    }
    save_errno(config, slot);
    if thread.asks_leaf {
        slot.flags.store(LEAF_ASKED, Relaxed);
        slot.leaf.prepare();
        return Next {
            function: callers,
            slot: slot as *const Slot as u64,
        };
    }
    ask_contexts(config, slot);
    Next::RETURN
}

/// Program counter and stack pointer of the code that was interrupted.
///
/// Go's signal for preemption, where it is delivered together with ours, comes first, and has ours blocked while it is
/// handled. Its handler makes the interrupted Go code call `runtime.asyncPreempt`, the first instruction of which is
/// then what our signal finds, with the sampled instruction as return address (runtime/signal_unix.go, `doSigPreempt`;
/// `pushCall` in runtime/signal_amd64.go, Go 1.21–1.27). The goroutine is where it was.
///
/// # Safety
/// The kernel made the `ucontext` for the calling thread, and the config is that of the process.
unsafe fn interrupted(ucontext: u64, config: &Config) -> (u64, u64) {
    // SAFETY: gregs[REG_RSP] at 160, gregs[REG_RIP] at 168 (arch/x86/include/uapi/asm/sigcontext.h).
    let (sp, pc) = unsafe { (word(ucontext, 160), word(ucontext, 168)) };
    if pc == 0 || pc != config.async_preempt.load(Relaxed) {
        return (pc, sp);
    }
    // SAFETY: at the first instruction of a function the stack pointer is at its return address.
    (unsafe { word(sp, 0) }, sp.wrapping_add(8))
}

/// Takes a free slot.
fn claim(shared: &Shared) -> Option<&Slot> {
    let visit = shared.next.fetch_add(1, Relaxed);
    let slot = (0..SLOTS).find_map(|n| {
        let slot = shared.slots.get((visit as usize).wrapping_add(n) % SLOTS)?;
        let taken = slot.state.compare_exchange(FREE, BUSY, AcqRel, Relaxed);
        taken.is_ok().then_some(slot)
    })?;
    slot.visit.store(visit, Relaxed);
    Some(slot)
}

/// Where `x_cgo_callers` is, or what does the same in a program without Go's runtime.
///
/// # Safety
/// The config is that of the process.
unsafe fn callers(config: &Config) -> u64 {
    match config.callers.load(Relaxed) {
        0 => own_callers as *const () as u64,
        // SAFETY: the profiler put the address of Go's `_cgo_callers` there.
        address => unsafe { pointer(address) },
    }
}

/// # Safety
/// `address` is 0 or that of a pointer in the process.
unsafe fn pointer(address: u64) -> u64 {
    if address == 0 {
        return 0;
    }
    // SAFETY: by the contract of this function.
    unsafe { word(address, 0) }
}

/// What a traceback function is called with (runtime/cgo/libcgo.h, `cgoTracebackArg`, version 0).
#[repr(C)]
struct TracebackArg {
    context: u64,
    sig_context: u64,
    buf: u64,
    max: u64,
}

type Traceback = unsafe extern "C" fn(*mut TracebackArg);
type Then = extern "C" fn(u64, u64, u64);

/// What `x_cgo_callers` of runtime/cgo does.
unsafe extern "C" fn own_callers(
    slot: u64,
    siginfo: u64,
    ucontext: u64,
    hook: Traceback,
    buffer: u64,
    then: Then,
) {
    let mut arg = TracebackArg {
        context: 0,
        sig_context: ucontext,
        buf: buffer,
        max: MAX_PCS as u64,
    };
    // SAFETY: the hook is the function that the program registered for this purpose.
    unsafe { hook(&raw mut arg) };
    then(slot, siginfo, ucontext);
}

/// Goes on after the hook has answered for the interrupted code.
extern "C" fn leaf_answered(slot: u64, _siginfo: u64, _ucontext: u64) {
    // SAFETY: `decide` passed the address of a slot of ours, and x_cgo_callers hands it on.
    let slot = unsafe { &*(slot as *const Slot) };
    if slot.leaf.is_overrun() {
        slot.flags.fetch_or(LEAF_OVERRUN, Relaxed);
    }
    ask_contexts(&profiler_helper_shared.config, slot);
}

/// Asks for the contexts, newest first, and publishes the answer.
fn ask_contexts(config: &Config, slot: &Slot) {
    // SAFETY: the slot's goroutine is the one that this thread runs, and it stands still while we are here.
    let contexts = unsafe { Contexts::of(slot.curg.load(Relaxed), config) };
    let function = match config.call_traceback.load(Relaxed) {
        0 => slot.hook.load(Relaxed),
        wrapper => wrapper,
    };
    // SAFETY: both are functions of the process that take the address of a `TracebackArg`.
    let function: Traceback = unsafe { core::mem::transmute::<u64, Traceback>(function) };
    let mut n = 0;
    for answer in &slot.contexts {
        if u64::from(n) >= contexts.len {
            break;
        }
        // SAFETY: the index is less than the length.
        let value = unsafe { contexts.get(contexts.len - 1 - u64::from(n)) };
        n += 1;
        answer.value.store(value, Relaxed);
        answer.overrun.store(0, Relaxed);
        answer.buffer.prepare();
        // Go never pushes 0, and a hook must never be asked for context 0 without a signal context.
        if value == 0 {
            continue;
        }
        let mut arg = TracebackArg {
            context: value,
            sig_context: 0,
            buf: answer.buffer.pcs.as_ptr() as u64,
            max: MAX_PCS as u64,
        };
        // SAFETY: as above; the context is live: it is on the goroutine's list while its thread runs this handler.
        unsafe { function(&raw mut arg) };
        answer
            .overrun
            .store(u64::from(answer.buffer.is_overrun()), Relaxed);
    }
    if contexts.len > MAX_CONTEXTS as u64 {
        slot.flags.fetch_or(CONTEXTS_CUT, Relaxed);
    }
    slot.n_contexts.store(n, Relaxed);
    restore_errno(slot);
    slot.state.store(READY, Release);
}

impl Buffer {
    /// Clears it: hooks need not end their list with 0.
    fn prepare(&self) {
        for pc in &self.pcs {
            pc.store(0, Relaxed);
        }
        for guard in &self.guard {
            guard.store(GUARD, Relaxed);
        }
    }

    fn is_overrun(&self) -> bool {
        self.guard.iter().any(|guard| guard.load(Relaxed) != GUARD)
    }
}

fn save_errno(config: &Config, slot: &Slot) {
    let errno_at = errno_at(config);
    slot.errno_at.store(errno_at, Relaxed);
    if errno_at != 0 {
        // SAFETY: the address of the thread's errno.
        slot.errno
            .store(unsafe { (errno_at as *const u32).read_volatile() }, Relaxed);
    }
}

fn restore_errno(slot: &Slot) {
    let errno_at = slot.errno_at.load(Relaxed);
    if errno_at != 0 {
        // SAFETY: the address of the thread's errno.
        unsafe { (errno_at as *mut u32).write_volatile(slot.errno.load(Relaxed)) };
    }
}

fn errno_at(config: &Config) -> u64 {
    let function = config.errno_location.load(Relaxed);
    if function == 0 {
        return 0;
    }
    // SAFETY: libc's `__errno_location`, which adds a constant to the thread pointer.
    let function = unsafe { core::mem::transmute::<u64, unsafe extern "C" fn() -> u64>(function) };
    // SAFETY: as above.
    unsafe { function() }
}
