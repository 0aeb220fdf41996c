//! Steps across the stack switches of the Go runtime (runtime/asm_amd64.s, Go 1.21 to 1.27).
//!
//! A goroutine has its own small stack; C and the scheduler run on the thread's *system stack*, which belongs to
//! the thread's g0. A chain Go → C → Go → C therefore alternates between two stacks:
//!
//! ```text
//! goroutine's stack                         system stack
//!   main.main                                 clone3 … runtime.mstart
//!   runtime.cgocall
//!   runtime.asmcgocall ───────────────────►   (depth, g)                 AsmCgoCall goes back
//!                                             c_outer
//!                                             crosscall2
//!   runtime.cgocallback  ◄─────────────────   runtime.cgocallback        CgoCallback goes back
//!   main.callback                               (its frame is in a list headed by g0.sched.sp)
//!   runtime.asmcgocall ───────────────────►   (depth, g)
//!                                             c_inner  ◄── sampled here
//! ```
//!
//! Several runtimes can be in one process, each with its own goroutine, list and thread-local g for a thread. Where the code
//! of a switch is tells whose it is.
//!
//! Frame pointers cross these switches too, but the ones stored on the system stack are not corrected when the
//! goroutine's stack moves: they would lead into freed memory. The words used here are corrected, or relative.

use super::{GoThread, Machine, State, return_to};
use profiler_abi::go::{GoLayout, MAX_RUNTIMES};
use profiler_abi::rule::{GoSwitch, Rule};
use profiler_abi::sample::UserWord;
use profiler_abi::stop::StopReason;

/// The most that `depth` can be: Go's largest goroutine stack (runtime/stack.go, `maxstackceiling`, twice the
/// default maximum of 1 GB).
const MAX_DEPTH: u64 = 2_000_000_000;

/// How far a `cgocallback` frame can be above the stack pointer with which the newer system stack segment starts:
/// the segment starts at `g0.sched.sp`, which is that frame, less what `asmcgocall` reserves (at most 64 bytes and
/// alignment).
const SEGMENT_GAP: u64 = 0x100;

/// Frame of `cgocallback`, in words above its stack pointer, the same in 1.21 to 1.27.
mod callback_frame {
    /// `g0.sched.sp` before this callback: the next older frame of the list.
    pub(super) const PREVIOUS: usize = 0;
    /// The frame pointer of `crosscall2`.
    pub(super) const SAVED_BP: usize = 3;
    /// The return address, into `crosscall2`.
    pub(super) const RETURN_ADDRESS: usize = 4;
    /// The third argument: what the context hook returned for this callback.
    pub(super) const CONTEXT: usize = 7;
    /// All of it.
    pub(super) const WORDS: usize = 8;
}

/// Follows one stack switch.
#[inline(always)]
pub(super) fn switch<M: Machine>(state: &mut State, machine: &mut M, rule: Rule) -> Result<(), StopReason> {
    let at = runtime_of(state.pc, machine).ok_or(StopReason::NoG)?;
    let go = machine.go(at);
    match GoSwitch::from_bits(rule.go_switch()) {
        Some(GoSwitch::AsmCgoCall) => asmcgocall(state, machine, &go, rule.go_parameter()),
        Some(GoSwitch::CgoCallback) => cgocallback(state, machine, &go, at),
        Some(GoSwitch::SystemStack) => systemstack(state, machine, &go, at),
        Some(GoSwitch::MoreStack) => morestack(state, machine, &go, at),
        Some(GoSwitch::Gogo) => gogo(state, machine, &go, at),
        None => Err(StopReason::NoRule),
    }
}

/// Which Go runtime the code at `pc` is of.
#[inline(always)]
fn runtime_of<M: Machine>(pc: u64, machine: &M) -> Option<usize> {
    (0..MAX_RUNTIMES).find(|&runtime| {
        let go = machine.go(runtime);
        pc.wrapping_sub(go.text) < go.text_size
    })
}

/// From C to the goroutine that called it, by the depth that `asmcgocall` left beside g.
#[inline(always)]
fn asmcgocall<M: Machine>(
    state: &mut State,
    machine: &mut M,
    go: &GoLayout,
    slot: u32,
) -> Result<(), StopReason> {
    let at = state.sp.wrapping_add(slot as u64 * 8);
    if !machine.fetch::<2>(at) {
        return Err(StopReason::Unreadable);
    }
    let (depth, g) = (machine.fetched(0), machine.fetched(1));
    if depth == 0 || depth > MAX_DEPTH || depth & 7 != 0 || g == 0 {
        return Err(StopReason::BadCgoCall);
    }
    let hi = machine
        .word(g.wrapping_add(go.g_stack_hi as u64))
        .ok_or(StopReason::BadCgoCall)?;
    state.system_sp = state.sp;
    state.left_c = 1;
    caller_of_record(state, machine, hi.wrapping_sub(depth)).or(Err(StopReason::BadCgoCall))
}

/// From a goroutine that C called back to that C code.
#[inline(always)]
fn cgocallback<M: Machine>(
    state: &mut State,
    machine: &mut M,
    go: &GoLayout,
    at: usize,
) -> Result<(), StopReason> {
    let GoThread { m, callbacks, .. } = state.threads[at];
    let mut frame = callbacks;
    if frame == 0 {
        if m == 0 {
            return Err(StopReason::NoG);
        }
        let g0 = machine
            .word(m.wrapping_add(go.m_g0 as u64))
            .ok_or(StopReason::NoG)?;
        frame = machine
            .word(g0.wrapping_add(go.g_sched_sp as u64))
            .ok_or(StopReason::BadCgoCallback)?;
    }
    if state.system_sp != 0 && frame.wrapping_sub(state.system_sp) >= SEGMENT_GAP {
        // The sample hit a newer callback just while `cgocallback` was entering itself in the list or leaving
        // it; its own frame was walked on the system stack like any other.
        frame = machine.word(frame).ok_or(StopReason::BadCgoCallback)?;
        if frame.wrapping_sub(state.system_sp) >= SEGMENT_GAP {
            return Err(StopReason::BadCgoCallback);
        }
    }
    if !machine.fetch::<{ callback_frame::WORDS }>(frame) {
        return Err(StopReason::BadCgoCallback);
    }
    let pc = machine.fetched(callback_frame::RETURN_ADDRESS);
    if pc.wrapping_sub(go.crosscall2) >= go.crosscall2_size {
        return Err(StopReason::BadCgoCallback);
    }
    let context = machine.fetched(callback_frame::CONTEXT);
    let bp = machine.fetched(callback_frame::SAVED_BP);
    state.threads[at].callbacks = machine.fetched(callback_frame::PREVIOUS);
    state.system_sp = 0;
    if context != 0 && !(machine.push(state, UserWord::CONTEXT_TAG) && machine.push(state, context)) {
        return Err(StopReason::MaxFrames);
    }
    state.bp = bp;
    return_to(
        state,
        pc,
        frame.wrapping_add((callback_frame::RETURN_ADDRESS as u64 + 1) * 8),
    )
}

/// From the runtime's own code on the system stack to the goroutine that asked for it.
#[inline(always)]
fn systemstack<M: Machine>(
    state: &mut State,
    machine: &mut M,
    go: &GoLayout,
    at: usize,
) -> Result<(), StopReason> {
    let curg = curg(state, machine, go, at)?;
    let sp = machine
        .word(curg.wrapping_add(go.g_sched_sp as u64))
        .ok_or(StopReason::BadGoSwitch)?;
    state.system_sp = state.sp;
    caller_of_record(state, machine, sp).or(Err(StopReason::BadGoSwitch))
}

/// From the growing of a stack to the function that needed more. It has not made its frame yet.
#[inline(always)]
fn morestack<M: Machine>(
    state: &mut State,
    machine: &mut M,
    go: &GoLayout,
    at: usize,
) -> Result<(), StopReason> {
    let curg = match curg(state, machine, go, at) {
        // It was told to let others run and has left the thread: what the thread does now is called by nobody.
        Err(StopReason::BadGoSwitch) => return Err(StopReason::Root),
        curg => curg?,
    };
    let sp = machine
        .word(curg.wrapping_add(go.g_sched_sp as u64))
        .ok_or(StopReason::BadGoSwitch)?;
    let pc = machine
        .word(curg.wrapping_add(go.g_sched_pc as u64))
        .ok_or(StopReason::BadGoSwitch)?;
    state.system_sp = state.sp;
    return_to(state, pc, sp).or(Err(StopReason::BadGoSwitch))
}

/// From `gogo`, which has loaded the stack pointer but not jumped yet, to where the goroutine resumes.
#[inline(always)]
fn gogo<M: Machine>(state: &mut State, machine: &mut M, go: &GoLayout, at: usize) -> Result<(), StopReason> {
    let g = state.threads[at].g;
    if g == 0 {
        return Err(StopReason::NoG);
    }
    let pc = machine
        .word(g.wrapping_add(go.g_sched_pc as u64))
        .ok_or(StopReason::BadGoSwitch)?;
    let sp = state.sp;
    return_to(state, pc, sp).or(Err(StopReason::BadGoSwitch))?;
    // It can be the first instruction of a goroutine, where one byte before is another function.
    state.exact = 1;
    Ok(())
}

#[inline(always)]
fn curg<M: Machine>(state: &State, machine: &mut M, go: &GoLayout, at: usize) -> Result<u64, StopReason> {
    let m = state.threads[at].m;
    if m == 0 {
        return Err(StopReason::NoG);
    }
    match machine.word(m.wrapping_add(go.m_curg as u64)) {
        None | Some(0) => Err(StopReason::BadGoSwitch),
        Some(curg) => Ok(curg),
    }
}

/// Moves to the caller of the assembly function whose frame record (frame pointer, return address) is at `record`.
#[inline(always)]
fn caller_of_record<M: Machine>(state: &mut State, machine: &mut M, record: u64) -> Result<(), StopReason> {
    if record & 7 != 0 {
        return Err(StopReason::BadGoSwitch);
    }
    if !machine.fetch::<2>(record) {
        return Err(StopReason::Unreadable);
    }
    state.bp = machine.fetched(0);
    return_to(state, machine.fetched(1), record.wrapping_add(16))
}
