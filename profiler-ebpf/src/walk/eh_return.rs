//! Whether a return address is still the one that a call left.
//!
//! `_Unwind_RaiseException` and its relatives overwrite their return address while they go over to the handler of an
//! exception (see `unwind::eh_return` of the profiler). The new one is behind a call as well, but of another
//! function.

use super::{Machine, State};

/// How far behind its start an unwinder may be, in bytes: the longest function that gets such a rule.
const REACH: u64 = 1 << 14;

/// Whether the instruction before `return_address` calls the function that `state` stands in: directly, through a
/// slot of a procedure linkage table, or through a pointer in memory (`-fno-plt`).
#[inline(always)]
pub(super) fn is_caller<M: Machine>(state: &State, machine: &mut M, return_address: u64) -> bool {
    let Some(code) = machine.word(return_address.wrapping_sub(8)) else {
        return false;
    };
    // Both calls end with a displacement of 32 bits from the next instruction.
    let target = return_address.wrapping_add_signed((code >> 32) as i32 as i64);
    if code >> 16 & 0xffff == 0x15ff {
        return points_here(state, machine, target);
    }
    if code >> 24 & 0xff != 0xe8 {
        return false;
    }
    if is_here(state, target) {
        return true;
    }
    let Some(slot) = machine.word(target) else {
        return false;
    };
    // A slot is `jmp *displacement(%rip)`, perhaps after `endbr64`, and then perhaps with the prefix `bnd`.
    if slot & 0xffff == 0x25ff {
        return jumps_here(state, machine, slot >> 16, target.wrapping_add(6));
    }
    if slot as u32 != 0xfa1e_0ff3 {
        return false;
    }
    match machine.word(target.wrapping_add(4)) {
        Some(jump) if jump & 0xffff == 0x25ff => {
            jumps_here(state, machine, jump >> 16, target.wrapping_add(10))
        }
        Some(jump) if jump & 0xff_ffff == 0x25_fff2 => {
            jumps_here(state, machine, jump >> 24, target.wrapping_add(11))
        }
        _ => false,
    }
}

#[inline(always)]
fn jumps_here<M: Machine>(state: &State, machine: &mut M, displacement: u64, next: u64) -> bool {
    points_here(
        state,
        machine,
        next.wrapping_add_signed(displacement as i32 as i64),
    )
}

#[inline(always)]
fn points_here<M: Machine>(state: &State, machine: &mut M, pointer: u64) -> bool {
    match machine.word(pointer) {
        Some(target) => is_here(state, target),
        None => false,
    }
}

#[inline(always)]
fn is_here(state: &State, target: u64) -> bool {
    state.pc.wrapping_sub(target) < REACH
}
