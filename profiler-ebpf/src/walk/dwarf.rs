//! Steps that follow call frame information, and the one that has to do without.

use super::{FETCH_WORDS, Machine, State, eh_return, return_to};
use profiler_abi::rule::{ExtRule, R12, Rule};
use profiler_abi::sample::Regs;
use profiler_abi::stop::StopReason;

/// How far above the stack pointer a frame pointer may lead when no rule vouches for it, in bytes. Larger frames
/// exist, but a larger jump is more likely a register that holds something else.
const FRAME_POINTER_REACH: u64 = 1 << 20;

/// The usual frame: return address at CFA − 8, caller's frame pointer below it or unchanged.
#[inline(always)]
pub(super) fn packed<M: Machine>(
    state: &mut State,
    machine: &mut M,
    rule: Rule,
    cfa: u64,
) -> Result<(), StopReason> {
    let pc = machine
        .stack_word(state, cfa.wrapping_sub(8))
        .ok_or(StopReason::Unreadable)?;
    let below = rule.bp_below_cfa();
    if below != 0 {
        state.bp = machine
            .stack_word(state, cfa.wrapping_sub(below))
            .ok_or(StopReason::Unreadable)?;
    }
    state.r12 = rule.r12(state.r12, cfa);
    return_to(state, pc, cfa)
}

/// A frame that needs more words to describe; see [`ExtRule`].
#[inline(always)]
pub(super) fn extended<M: Machine>(state: &mut State, machine: &mut M, index: u32) -> Result<(), StopReason> {
    let rule = machine.ext_rule(index).ok_or(StopReason::NoRule)?;
    if rule.flags & ExtRule::BEGINS_THREADS != 0 && machine.reg(Regs::RAX) == 0 {
        return Err(StopReason::Root);
    }
    let base = match rule.reg {
        Regs::RSP => state.sp,
        Regs::RBP => state.bp,
        reg if state.exact != 0 => machine.reg(reg),
        Regs::R12 if state.r12 == R12::IN_REGISTER => machine.reg(Regs::R12),
        Regs::R12 => {
            let saved = state.r12.saved().ok_or(StopReason::RegisterLost)?;
            machine.word(saved).ok_or(StopReason::Unreadable)?
        }
        _ => return Err(StopReason::RegisterLost),
    };
    state.r12 = R12::LOST;
    let mut cfa = base.wrapping_add_signed(rule.offset as i64);
    if rule.flags & ExtRule::DEREF != 0 {
        cfa = machine.stack_word(state, cfa).ok_or(StopReason::Unreadable)?;
        cfa = cfa.wrapping_add_signed(rule.addend as i64);
    }
    let ra = cfa.wrapping_add_signed(rule.ra_offset as i64);
    let pc = machine.stack_word(state, ra).ok_or(StopReason::Unreadable)?;
    if rule.flags & ExtRule::MAY_BE_REPLACED != 0 && !eh_return::is_caller(state, machine, pc) {
        return Err(StopReason::FramesReplaced);
    }
    match rule.bp_offset {
        ExtRule::BP_SAME => {}
        ExtRule::BP_LOST => state.bp = 0,
        offset => {
            let base = if rule.flags & ExtRule::BP_AT_BP != 0 {
                state.bp
            } else {
                cfa
            };
            let saved = base.wrapping_add_signed(offset as i64);
            state.bp = machine.stack_word(state, saved).ok_or(StopReason::Unreadable)?;
        }
    }
    return_to(state, pc, cfa)
}

/// A slot of a procedure linkage table, which has pushed its index from byte 11 on.
#[inline(always)]
pub(super) fn plt<M: Machine>(state: &mut State, machine: &mut M) -> Result<(), StopReason> {
    let pushed = if state.pc & 15 >= 11 { 8 } else { 0 };
    let cfa = state.sp.wrapping_add(8 + pushed);
    let pc = machine
        .stack_word(state, cfa.wrapping_sub(8))
        .ok_or(StopReason::Unreadable)?;
    return_to(state, pc, cfa)
}

/// No rule: if the frame pointer leads to a plausible record, follow it. The next step finds out whether the
/// return address is one.
#[inline(always)]
pub(super) fn frame_pointer<M: Machine>(state: &mut State, machine: &mut M) -> Result<(), StopReason> {
    state.r12 = R12::LOST;
    if state.exact != 0
        && let Some(pushed) = pushed_without_record(state.pc, machine)
    {
        // The register holds the caller's frame pointer still, or again.
        let cfa = state.sp.wrapping_add(pushed + 8);
        let pc = machine
            .stack_word(state, cfa.wrapping_sub(8))
            .ok_or(StopReason::NoRule)?;
        return_to(state, pc, cfa).or(Err(StopReason::NoRule))?;
        state.guessed = 1;
        return Ok(());
    }
    let record = state.bp;
    if record < state.sp || record - state.sp > FRAME_POINTER_REACH || record & 7 != 0 {
        return Err(StopReason::NoRule);
    }
    let bp = machine.stack_word(state, record).ok_or(StopReason::NoRule)?;
    let pc = machine
        .stack_word(state, record.wrapping_add(8))
        .ok_or(StopReason::NoRule)?;
    state.bp = bp;
    return_to(state, pc, record.wrapping_add(16)).or(Err(StopReason::NoRule))?;
    state.guessed = 1;
    Ok(())
}

/// Where the interrupted instruction at `pc` shows that a function has not made its frame record yet or has undone it: how
/// many bytes are on the stack above the return address.
#[inline(always)]
fn pushed_without_record<M: Machine>(pc: u64, machine: &mut M) -> Option<u64> {
    let code = machine.word(pc)?;
    // `push %rbp`, also behind `endbr64`, and `ret`.
    if matches!(code as u8, 0x55 | 0xc3) || code & 0xff_ffff_ffff == 0x55_fa1e_0ff3 {
        return Some(0);
    }
    // Two encodings of `mov %rsp,%rbp`, behind `push %rbp`.
    let is_mov = matches!(code & 0xff_ffff, 0xe5_8948 | 0xec_8b48);
    (is_mov && machine.word(pc.wrapping_sub(1))? as u8 == 0x55).then_some(8)
}

/// A signal handler has returned to its trampoline: the kernel left everything about the interrupted code above.
///
/// `struct rt_sigframe` (arch/x86/include/asm/sigframe.h) is return address, `struct ucontext`, siginfo; the
/// return has taken the first, so the stack pointer is the address of the ucontext. Its `uc_mcontext` starts at
/// byte 40 (flags, link, stack_t) with the registers in the order of `struct sigcontext`
/// (arch/x86/include/uapi/asm/sigcontext.h).
#[inline(always)]
pub(super) fn signal_frame<M: Machine>(state: &mut State, machine: &mut M) -> Result<(), StopReason> {
    if !machine.fetch::<FETCH_WORDS>(state.sp.wrapping_add(40)) {
        return Err(StopReason::Unreadable);
    }
    macro_rules! restore {
        ($($index:literal => $reg:ident),* $(,)?) => {
            $( let word = machine.fetched($index); machine.set_reg(Regs::$reg, word); )*
        };
    }
    restore! {
        0 => R8, 1 => R9, 2 => R10, 3 => R11, 4 => R12, 5 => R13, 6 => R14, 7 => R15, 8 => RDI, 9 => RSI,
        10 => RBP, 11 => RBX, 12 => RDX, 13 => RAX, 14 => RCX, 15 => RSP, 16 => RIP,
    }
    state.pc = machine.reg(Regs::RIP);
    state.sp = machine.reg(Regs::RSP);
    state.bp = machine.reg(Regs::RBP);
    state.r12 = R12::IN_REGISTER;
    state.exact = 1;
    state.guessed = 0;
    Ok(())
}
