//! Steps of the usual kind, several at a time.
//!
//! Beside its work, a step costs a call of the loop's callback with its return, which mitigations of the processor's faults
//! make dear, and the state's way through memory. Most frames need neither: their rules were looked up before, and their
//! words are in the piece of stack that was read last. A stride shares the cost among such frames.

use super::{Machine, State};
use core::hint::black_box;
use profiler_abi::rule::Kind;
use profiler_abi::sample::UserWord;

/// Steps of a stride.
pub const STRIDE: u32 = 32;

/// Makes the steps, at most [`STRIDE`], that need nothing which has to be fetched; each does what [`super::step`] would do.
#[inline(always)]
pub fn stride<M: Machine>(state: &mut State, machine: &mut M) {
    if state.exact != 0 {
        return;
    }
    for _ in 0..STRIDE {
        // The state goes through memory after each step: of what it reads there the verifier knows nothing, where it would
        // follow each combination of the ways through the steps before.
        if !usual_step(black_box(&mut *state), machine) {
            break;
        }
    }
}

/// Makes a step if it is of the usual kind.
#[inline(always)]
fn usual_step<M: Machine>(state: &mut State, machine: &mut M) -> bool {
    let Some(rule) = machine.known_rule(state.pc.wrapping_sub(1)) else {
        return false;
    };
    let base = match rule.kind() {
        Kind::Sp => state.sp,
        Kind::Bp => state.bp,
        _ => return false,
    };
    let cfa = base.wrapping_add(rule.cfa_offset());
    let Some(return_address) = machine.near_word(cfa.wrapping_sub(8)) else {
        return false;
    };
    let below = rule.bp_below_cfa();
    let bp = if below == 0 {
        state.bp
    } else if let Some(bp) = machine.near_word(cfa.wrapping_sub(below)) {
        bp
    } else {
        return false;
    };
    if return_address == 0 || !machine.push(state, UserWord::frame(state.pc, false)) {
        return false;
    }
    state.r12 = rule.r12(state.r12, cfa);
    state.danger |= rule.is_dangerous() as u64;
    (state.pc, state.sp, state.bp) = (return_address, cfa, bp);
    state.guessed = 0;
    true
}
