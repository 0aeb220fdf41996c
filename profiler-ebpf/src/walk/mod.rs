//! One step of the walk: from a frame to its caller.

mod dwarf;
mod eh_return;
mod go;
mod stride;

use profiler_abi::go::{GoLayout, MAX_RUNTIMES};
use profiler_abi::rule::{ExtRule, Kind, R12, Rule};
use profiler_abi::sample::{Regs, UserWord};
use profiler_abi::stop::StopReason;

pub use stride::{STRIDE, stride};

/// The most words that [`Machine::fetch`] reads at once: the registers in a signal's context.
pub const FETCH_WORDS: usize = 17;

/// Bytes of each instruction that makes a system call: `syscall`, `sysenter`, `int 0x80`.
const SYSCALL_LEN: u64 = 2;

/// What a walk needs from the world. All reads are of the sampled process's memory.
pub trait Machine {
    /// A word of the stack. Words near each other are read often, so an implementation may read ahead.
    fn stack_word(&mut self, state: &State, address: u64) -> Option<u64>;

    /// A word of the stack if it was read already.
    fn near_word(&self, address: u64) -> Option<u64>;

    /// A word anywhere else, read by itself.
    fn word(&mut self, address: u64) -> Option<u64>;

    /// Reads the `N` words at `address`, at most [`FETCH_WORDS`], to be asked for with [`Machine::fetched`].
    fn fetch<const N: usize>(&mut self, address: u64) -> bool;

    /// Word `index` of those fetched last.
    fn fetched(&self, index: usize) -> u64;

    /// The rule in force at `pc`.
    fn rule(&mut self, pc: u64) -> Result<Rule, StopReason>;

    /// The rule in force at `pc` if it was looked up already.
    fn known_rule(&self, pc: u64) -> Option<Rule>;

    /// An entry of the table of extended rules.
    fn ext_rule(&mut self, index: u32) -> Option<ExtRule>;

    /// Appends a word to the stack found so far; false if it is full.
    fn push(&mut self, state: &mut State, word: u64) -> bool;

    /// A register of the interrupted code; `index` as in [`Regs`].
    fn reg(&self, index: u32) -> u64;

    /// Replaces a register: the walk has reached code that a signal interrupted.
    fn set_reg(&mut self, index: u32, value: u64);

    /// What is known of a Go runtime of the process; `runtime` is less than [`MAX_RUNTIMES`].
    fn go(&self, runtime: usize) -> GoLayout;
}

/// Where a walk stands. What each step needs comes first, in one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// Address of the next instruction in the frame.
    pub pc: u64,
    /// Stack pointer in the frame.
    pub sp: u64,
    /// Frame pointer register in the frame.
    pub bp: u64,
    /// Where the frame's r12 is.
    pub r12: R12,
    /// `pc` is the interrupted instruction itself, not one after a call; then the other registers are known too.
    /// 0 or 1.
    pub exact: u64,
    /// The frame was reached by a frame pointer, so its address is only plausible. 0 or 1.
    pub guessed: u64,
    /// Words pushed so far.
    pub n_words: u64,
    /// A frame is in a danger zone. 0 or 1.
    pub danger: u64,
    /// The walk went from C to the Go code that called it, so a traceback hook has something to say. 0 or 1.
    pub left_c: u64,
    /// Stack pointer with which the system stack was left for the goroutine's; 0 if it was not.
    pub system_sp: u64,
    /// What the thread is in each Go runtime of the process.
    pub threads: [GoThread; MAX_RUNTIMES],
}

/// A thread in one Go runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GoThread {
    /// Its g, 0 if it has none.
    pub g: u64,
    /// Its m, 0 if it has none.
    pub m: u64,
    /// The next older frame in the list of `cgocallback` frames; 0 before the first was used.
    pub callbacks: u64,
}

impl State {
    /// Whether the thread has a g in any Go runtime.
    #[inline(always)]
    pub fn has_g(&self) -> bool {
        const { assert!(MAX_RUNTIMES == 4) };
        self.threads[0].g | self.threads[1].g | self.threads[2].g | self.threads[3].g != 0
    }
}

/// Makes one step: records the frame that `state` stands in and moves to its caller.
///
/// # Errors
/// The reason for which the walk is over; [`StopReason::Root`] is the good one.
#[inline(always)]
pub fn step<M: Machine>(state: &mut State, machine: &mut M) -> Result<(), StopReason> {
    // A call that never returns can be the last instruction of its function; the address after it belongs to
    // another one. One byte before, we are in the call for certain.
    let lookup = if state.exact != 0 {
        state.pc
    } else {
        state.pc.wrapping_sub(1)
    };
    let rule = match machine.rule(lookup) {
        Ok(rule) => rule,
        Err(StopReason::NoMapping) if state.exact == 0 => {
            // Not a return address, so not a frame. If a frame pointer led here, the missing rule is the cause.
            return Err(if state.guessed != 0 {
                StopReason::NoRule
            } else {
                StopReason::NoMapping
            });
        }
        Err(stop) => {
            let _ = machine.push(state, UserWord::frame(state.pc, state.exact != 0));
            return Err(stop);
        }
    };
    state.danger |= rule.is_dangerous() as u64;
    // Nothing calls a signal trampoline: where the handler returns to is its first instruction.
    let is_exact = state.exact != 0 || matches!(rule.kind(), Kind::SigFrame);
    let frame = UserWord::frame(state.pc, is_exact);
    if !machine.push(state, frame) {
        return Err(StopReason::MaxFrames);
    }
    match rule.kind() {
        Kind::Sp => {
            let cfa = state.sp.wrapping_add(rule.cfa_offset());
            dwarf::packed(state, machine, rule, cfa)
        }
        Kind::Bp => {
            let cfa = state.bp.wrapping_add(rule.cfa_offset());
            dwarf::packed(state, machine, rule, cfa)
        }
        Kind::End => Err(StopReason::Root),
        Kind::None => dwarf::frame_pointer(state, machine),
        Kind::Plt => dwarf::plt(state, machine),
        Kind::Ext => dwarf::extended(state, machine, rule.ext_index()),
        Kind::SigFrame => dwarf::signal_frame(state, machine),
        Kind::Go => {
            state.r12 = R12::LOST;
            go::switch(state, machine, rule)
        }
    }
}

/// Finds g and m of the thread whose thread pointer is `thread_pointer`, in each Go runtime; leaves 0 where there is none.
///
/// Thread-local storage is the only place that is right in every state of a thread of a cgo program: r14 holds g
/// in Go code only.
#[inline(always)]
pub fn find_g<M: Machine>(state: &mut State, machine: &mut M, thread_pointer: u64) {
    for runtime in 0..MAX_RUNTIMES {
        let go = machine.go(runtime);
        if go.present == 0 {
            return;
        }
        let g = machine.word(thread_pointer.wrapping_add_signed(go.tls_g));
        let Some(g) = g.filter(|&g| g != 0) else {
            continue;
        };
        let Some(m) = machine.word(g.wrapping_add(go.g_m as u64)) else {
            continue;
        };
        state.threads[runtime] = GoThread { g, m, callbacks: 0 };
    }
}

/// The g of the thread's current goroutine, with the number of its runtime: of the first one in which it runs any.
#[inline(always)]
pub fn curg<M: Machine>(state: &State, machine: &mut M) -> Option<(usize, u64)> {
    for runtime in 0..MAX_RUNTIMES {
        let m = state.threads[runtime].m;
        if m == 0 {
            continue;
        }
        let go = machine.go(runtime);
        if let Some(curg) = machine.word(m.wrapping_add(go.m_curg as u64))
            && curg != 0
        {
            return Some((runtime, curg));
        }
    }
    None
}

/// Moves to the caller at `pc`, whose stack pointer is the callee's CFA.
#[inline(always)]
fn return_to(state: &mut State, pc: u64, cfa: u64) -> Result<(), StopReason> {
    if pc == 0 {
        return Err(StopReason::NullReturn);
    }
    state.pc = pc;
    state.sp = cfa;
    state.exact = 0;
    state.guessed = 0;
    Ok(())
}

/// Puts a walk where the interrupted code stands.
#[inline(always)]
pub fn start<M: Machine>(state: &mut State, machine: &mut M) {
    state.pc = machine.reg(Regs::RIP);
    if machine.reg(Regs::ORIG_RAX) != Regs::NO_SYSCALL && is_after_syscall(state.pc, machine) {
        // The saved address is the one after the system call, which can belong to the next function: no rule says
        // that rt_sigreturn(2) comes back.
        state.pc = state.pc.wrapping_sub(SYSCALL_LEN);
    }
    state.sp = machine.reg(Regs::RSP);
    state.bp = machine.reg(Regs::RBP);
    state.r12 = R12::IN_REGISTER;
    state.exact = 1;
    state.guessed = 0;
    for thread in &mut state.threads {
        *thread = GoThread::default();
    }
    state.system_sp = 0;
    state.n_words = 0;
    state.danger = 0;
    state.left_c = 0;
}

/// Whether the instruction before `pc` makes a system call. It does not where the kernel, on its way out of one, has set up a
/// signal handler: `pc` is the first instruction of that.
#[inline(always)]
fn is_after_syscall<M: Machine>(pc: u64, machine: &mut M) -> bool {
    // `syscall`, `sysenter`, `int $0x80`. What cannot be read is not paged in, but has just been executed.
    match machine.word(pc.wrapping_sub(8)) {
        Some(word) => matches!(word >> 48, 0x050f | 0x340f | 0x80cd),
        None => true,
    }
}
