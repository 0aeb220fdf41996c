//! The rows of Go code: from Go's own table of functions, and of assembly functions from their machine code.
//!
//! The table says how far the stack pointer has moved at each instruction, which is all there is to know of
//! compiled functions. Assembly may load the stack pointer with something else: such functions are read
//! instruction by instruction, and those that change stacks are known by name.

use super::go_asm::{self, GoAsmFunction};
use super::{ExtTable, Layer, asm, pcsp};
use crate::addr::Svma;
use crate::gopclntab::{Function, Pclntab};
use std::ops::Range;

/// What the Go code of an object tells.
#[derive(Debug, Default)]
pub struct GoCode {
    /// The rows.
    pub layer: Layer,
    /// Functions of the runtime that change stacks in a way that is not known: chains through them may break.
    /// Whole sentences without the final stop.
    pub unknown_shapes: Vec<String>,
}

/// Reads the rows of every Go function. `code` gives the machine code at stated addresses, if the file has it.
pub fn read<'c>(
    pclntab: &Pclntab,
    code: impl Fn(Range<Svma>) -> Option<&'c [u8]>,
    ext: &mut ExtTable,
) -> GoCode {
    let mut go = GoCode::default();
    for function in pclntab.functions() {
        let (entry, end) = (function.entry(), function.end());
        let by_table = || {
            pcsp::rows(
                entry,
                function
                    .sp_deltas()
                    .map(|(range, delta)| (range.start.0..range.end.0, delta)),
            )
        };
        let rows = if function.is_asm() || function.writes_sp() || function.is_top_frame() {
            match code(entry..end) {
                Some(code) => assembly(&function, code, ext, &mut go.unknown_shapes),
                None => by_table(),
            }
        } else {
            by_table()
        };
        // The trampoline's row starts before its entry; see `go_asm::rows`.
        let start = rows.first().map_or(entry, |row| row.start.min(entry));
        go.layer.push(start..end, rows);
    }
    go
}

fn assembly(
    function: &Function<'_>,
    code: &[u8],
    ext: &mut ExtTable,
    unknown_shapes: &mut Vec<String>,
) -> Vec<super::Row> {
    let name = function.name();
    let entry = function.entry();
    let shape = GoAsmFunction {
        name: &name,
        entry,
        code,
        top_frame: function.is_top_frame(),
    };
    go_asm::rows(&shape, ext).unwrap_or_else(|unknown| {
        unknown_shapes.push(unknown.to_string());
        asm::rows(entry, code, ext)
    })
}
