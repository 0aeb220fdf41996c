//! The memory that the handler shares with the profiler.
//!
//! Everything is an atomic integer: both sides may look at any time, and no value of any word is invalid.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// First word of the memory: "profhook".
pub const MAGIC: u64 = u64::from_le_bytes(*b"profhook");
/// Second word. Bumped when anything in this file changes.
pub const VERSION: u64 = 2;

/// How many answers can wait to be fetched.
pub const SLOTS: usize = 64;
/// The most PCs that a traceback function is asked for: what Go asks for (runtime/cgo/gcc_traceback.c; runtime's
/// `cgoCallers`), Go 1.21–1.27.
pub const MAX_PCS: usize = 32;
/// The most contexts of one thread that are asked for.
pub const MAX_CONTEXTS: usize = 16;
/// Words behind each buffer that no hook may touch.
pub const GUARD_WORDS: usize = 16;
/// What the guard words hold.
pub const GUARD: u64 = 0x6472_6175_675f_666f;

/// All of it.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Shared {
    /// [`MAGIC`], once the rest has been written.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU64,
    /// Written by the profiler only.
    pub config: Config,
    /// Where rt_sigaction(2) is pointed to.
    pub actions: Actions,
    /// Written by the handler only.
    pub counters: Counters,
    /// Where the search for a free slot begins.
    pub next: AtomicU32,
    /// Keeps the next field at a multiple of 64 bytes.
    pub reserved: AtomicU32,
    /// Answers.
    pub slots: [Slot; SLOTS],
}

/// What the handler has to know of the process. Addresses are the process's, offsets and times in bytes.
#[derive(Debug)]
#[repr(C)]
pub struct Config {
    /// Whether hooks may be called: 0 or 1.
    pub enabled: AtomicU64,
    /// The `si_code` that our signals have, as an i32.
    pub si_code: AtomicU64,
    /// The bits of `si_value` that tell our signals; 0: none.
    pub cookie_mask: AtomicU64,
    /// What these bits are.
    pub cookie_magic: AtomicU64,
    /// The signal that the handler was installed for; 0: none.
    pub signal: AtomicU64,
    /// Address of the pointer to the traceback function.
    pub traceback: AtomicU64,
    /// Address of Go's pointer to `x_cgo_callers`; 0: there is no Go runtime, and this image calls the hook.
    pub callers: AtomicU64,
    /// Address of `x_cgo_call_traceback_function` (Go 1.26 and later, for the thread sanitizer); 0: there is none.
    pub call_traceback: AtomicU64,
    /// Address of libc's `__errno_location`; 0: there is none.
    pub errno_location: AtomicU64,
    /// Whether the process has a Go runtime, and the offsets below hold: 0 or 1.
    pub go: AtomicU64,
    /// Address of g relative to the thread pointer, as an i64.
    pub tls_g: AtomicU64,
    /// `g.m`.
    pub g_m: AtomicU64,
    /// `g.syscallsp`.
    pub g_syscallsp: AtomicU64,
    /// `g.cgoCtxt`.
    pub g_cgo_ctxt: AtomicU64,
    /// `m.curg`.
    pub m_curg: AtomicU64,
    /// `m.ncgo`.
    pub m_ncgo: AtomicU64,
    /// `m.cgoCallersUse`.
    pub m_cgo_callers_use: AtomicU64,
    /// `m.procid`.
    pub m_procid: AtomicU64,
    /// Address of the function `runtime.asyncPreempt`; 0: there is none.
    pub async_preempt: AtomicU64,
}

/// Dispositions of the signal.
#[derive(Debug)]
#[repr(C)]
pub struct Actions {
    /// Ours.
    pub ours: Action,
    /// The one before ours, to which signals that are not ours are passed on.
    pub previous: Action,
    /// What the last rt_sigaction(2) returned.
    pub found: Action,
}

/// The kernel's `struct kernel_sigaction` on x86-64.
#[derive(Debug)]
#[repr(C)]
pub struct Action {
    /// Address of the function, or `SIG_DFL` = 0, or `SIG_IGN` = 1.
    pub handler: AtomicU64,
    /// `SA_*`.
    pub flags: AtomicU64,
    /// Address of the code that calls rt_sigreturn(2).
    pub restorer: AtomicU64,
    /// Signals that are blocked meanwhile: bit n-1 for signal n.
    pub mask: AtomicU64,
}

/// What the handler did.
#[derive(Debug)]
#[repr(C)]
pub struct Counters {
    /// Signals of ours.
    pub entered: AtomicU64,
    /// Signals of others that were passed on.
    pub passed_on: AtomicU64,
    /// Signals that came without siginfo to a thread that Go does not know, which were dropped.
    pub without_info: AtomicU64,
    /// Signals of ours that found no free slot.
    pub no_slot: AtomicU64,
    /// Signals of ours that came while hooks may not be called.
    pub disabled: AtomicU64,
}

/// One answer. The handler takes it from [`FREE`] to [`BUSY`] to [`READY`], the profiler back to [`FREE`].
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    /// [`FREE`], [`BUSY`] or [`READY`].
    pub state: AtomicU32,
    /// Tells this signal from those that used the slot before.
    pub visit: AtomicU32,
    /// Keeps the next fields at multiples of their size.
    pub reserved: AtomicU32,
    /// Bits: [`LEAF_ASKED`] and those that follow.
    pub flags: AtomicU32,
    /// `si_value` of the signal.
    pub cookie: AtomicU64,
    /// The thread: its thread pointer (the base of `fs`).
    pub thread_pointer: AtomicU64,
    /// The thread: its id as Go knows it, in the PID namespace of the process; 0 for threads that Go does not know.
    pub tid: AtomicU64,
    /// Program counter of the code that is asked about.
    pub pc: AtomicU64,
    /// Its stack pointer.
    pub sp: AtomicU64,
    /// Address of the signal's `ucontext_t`; also the stack pointer with which rt_sigreturn(2) ends the handler.
    pub ucontext: AtomicU64,
    /// The traceback function.
    pub hook: AtomicU64,
    /// The interrupted goroutine; 0: none.
    pub curg: AtomicU64,
    /// Address of the thread's `errno`; 0: there is none.
    pub errno_at: AtomicU64,
    /// `errno`, which belongs to the interrupted code.
    pub errno: AtomicU32,
    /// How many of [`Slot::contexts`] are filled.
    pub n_contexts: AtomicU32,
    /// What the traceback function said of the interrupted code.
    pub leaf: Buffer,
    /// What it said of the contexts of callbacks, newest first.
    pub contexts: [Context; MAX_CONTEXTS],
}

/// The slot is not used.
pub const FREE: u32 = 0;
/// The handler fills the slot.
pub const BUSY: u32 = 1;
/// The slot waits to be fetched.
pub const READY: u32 = 2;

/// The hook was asked for the interrupted code.
pub const LEAF_ASKED: u32 = 1;
/// It wrote behind the end of the buffer.
pub const LEAF_OVERRUN: u32 = 2;
/// No hook is registered.
pub const NO_HOOK: u32 = 4;
/// There are more contexts than [`MAX_CONTEXTS`]; the oldest were left out.
pub const CONTEXTS_CUT: u32 = 8;

/// One context.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    /// What the context function returned.
    pub value: AtomicU64,
    /// Whether the hook wrote behind the end of the buffer: 0 or 1.
    pub overrun: AtomicU64,
    /// What the traceback function said.
    pub buffer: Buffer,
}

/// What a traceback function writes to.
#[derive(Debug)]
#[repr(C)]
pub struct Buffer {
    /// Program counters up to the first 0.
    pub pcs: [AtomicU64; MAX_PCS],
    /// [`GUARD`] in each, unless the function wrote behind the end.
    pub guard: [AtomicU64; GUARD_WORDS],
}
