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
        let by_table = || pcsp::rows(function.sp_deltas());
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
        name,
        entry,
        code,
        top_frame: function.is_top_frame(),
    };
    go_asm::rows(&shape, ext).unwrap_or_else(|unknown| {
        unknown_shapes.push(unknown.to_string());
        asm::rows(entry, code, ext)
    })
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::addr::Svma;
    use crate::gopclntab::fixtures::{Build, FORMS, TOOLCHAINS};
    use crate::gopclntab::{Function, Pclntab};
    use crate::unwind::dwarf::{self, CallFrames};
    use crate::unwind::{Coverage, ExtTable, Rows};
    use profiler_abi::rule::Kind;

    fn is_compiled(function: &Function<'_>) -> bool {
        !function.is_asm() && !function.writes_sp() && !function.is_top_frame()
    }

    /// Holds the rows from Go's own table, of a stripped program too, against `.debug_frame`, which says where the
    /// frame is but not where the frame pointer was saved.
    #[test]
    fn compiled_functions_have_the_frames_that_dwarf_gives_them() {
        for (toolchain, form) in TOOLCHAINS.into_iter().flat_map(|t| FORMS.map(|form| (t, form))) {
            if form.is_stripped() || form.mode == "c-shared" {
                continue;
            }
            let build = Build { toolchain, ..form };
            let bytes = build.bytes();
            let file = object::File::parse(&bytes[..]).unwrap();
            let pclntab = Pclntab::find(&file, &bytes).unwrap().unwrap();
            let text = dwarf::text(&file);
            let mut ext = ExtTable::default();
            let frames = CallFrames::read(&file, &mut ext, &mut Coverage::default());
            let theirs = Rows::overlay([frames.debug_frame], &text);
            let ours = Rows::overlay([read(&pclntab, |_| None, &mut ext).layer], &text);
            let mut compared = 0;
            for function in pclntab.functions().filter(is_compiled) {
                let end = function
                    .sp_deltas()
                    .last()
                    .map_or(function.entry(), |(run, _)| run.end);
                for address in function.entry().0..end.0 {
                    let (ours, theirs) = (ours.rule_at(Svma(address)), theirs.rule_at(Svma(address)));
                    if theirs.kind() == Kind::Sp {
                        let name = function.name();
                        assert_eq!(ours.kind(), Kind::Sp, "{build:?}, {name} at {address:#x}");
                        assert_eq!(
                            ours.cfa_offset(),
                            theirs.cfa_offset(),
                            "{build:?}, {name} at {address:#x}"
                        );
                        compared += 1;
                    }
                }
            }
            assert!(compared > 400_000, "{build:?}: only {compared} bytes of code");
        }
    }

    #[test]
    fn a_stripped_program_has_the_rows_of_the_whole_one() {
        for toolchain in TOOLCHAINS {
            let rows = |form: Build| {
                let bytes = Build { toolchain, ..form }.bytes();
                let file = object::File::parse(&bytes[..]).unwrap();
                let pclntab = Pclntab::find(&file, &bytes).unwrap().unwrap();
                let go = read(&pclntab, |_| None, &mut ExtTable::default());
                Rows::overlay([go.layer], &dwarf::text(&file))
            };
            let (whole, stripped) = (rows(FORMS[0]), rows(FORMS[1]));
            assert!(whole.as_slice().len() > 5_000);
            assert_eq!(whole.as_slice(), stripped.as_slice(), "{toolchain}");
        }
    }
}
