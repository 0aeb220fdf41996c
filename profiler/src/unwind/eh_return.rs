//! Functions that end by going on in another frame: how exceptions of C++ reach their handlers.
//!
//! `_Unwind_RaiseException` and its relatives save the registers of the handler's frame over those that they saved
//! of their own caller, and only then change stacks (gcc/unwind.inc, `uw_install_context`). In between, what the
//! call frame information says of their frame is not so: the return address is one of the handler's callees, and the
//! frame it is looked for in is another.

use super::{ExtTable, Row};
use crate::addr::Svma;
use gimli::{CfaRule, RegisterRule, UnwindTableRow, X86_64};
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use profiler_abi::rule::ExtRule;
use std::ops::Range;

/// The longest function that is looked at, in bytes. Those in libgcc have about 1,000.
const MAX_CODE: u64 = 1 << 14;

/// Whether `row` is of the instructions with which such a function leaves: the frame address is in a register that
/// no ordinary function keeps it in, and the registers are saved that carry the exception to its handler (rax and
/// rdx on x86-64: gcc/config/i386/i386.h, `EH_RETURN_DATA_REGNO`).
pub(super) fn leaves(row: &UnwindTableRow<usize>) -> bool {
    let elsewhere = matches!(row.cfa(), CfaRule::RegisterAndOffset { register, .. }
        if ![X86_64::RSP, X86_64::RBP, X86_64::R10].contains(register));
    let saved = |register| matches!(row.register(register), Some(RegisterRule::Offset(_)));
    elsewhere && saved(X86_64::RAX) && saved(X86_64::RDX)
}

/// Where the frame of the function at `entry` is not what its call frame information says, if the instructions with
/// which it leaves start at `leaving`. `code` gives the machine code at stated addresses.
///
/// `uw_install_context` makes two calls: of the function that copies the registers, and of an empty one that
/// debuggers stop at.
pub(super) fn replaced<'c>(
    entry: Svma,
    leaving: Svma,
    code: impl Fn(Range<Svma>) -> Option<&'c [u8]>,
) -> Option<Range<Svma>> {
    if leaving.0.checked_sub(entry.0)? > MAX_CODE {
        return None;
    }
    let code = code(entry..leaving)?;
    let calls: Vec<u64> = Decoder::with_ip(64, code, entry.0, DecoderOptions::NONE)
        .iter()
        .filter(|instruction| {
            matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall
            )
        })
        .map(|call| call.ip())
        .collect();
    let [copying, _empty] = *calls.last_chunk()?;
    Some(Svma(copying)..leaving)
}

/// Makes the rules in `range`, which ends where a row starts, hold only as long as the return address has not been
/// replaced.
pub(super) fn guard(rows: &mut Vec<Row>, range: Range<Svma>, ext: &mut ExtTable) {
    let first = rows.partition_point(|row| row.start <= range.start);
    if let Some(before) = first.checked_sub(1) {
        let (start, rule) = (range.start, rows[before].rule);
        rows.insert(first, Row { start, rule });
    }
    for row in rows.iter_mut().filter(|row| range.contains(&row.start)) {
        row.rule = ext.flagged(row.rule, ExtRule::MAY_BE_REPLACED);
    }
}
