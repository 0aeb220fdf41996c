//! Functions that nothing describes but their machine code: compiled without unwind tables, or written in assembly.
//!
//! With a frame pointer the walk could do without rules, but compilers leave that out of functions that call nothing, whatever
//! they are told; then the caller would be lost without a sign. So these functions are read, as far as the symbol table says
//! where they are.

use super::{ExtTable, Layer, Rows, asm};
use crate::addr::Svma;
use object::{Object, ObjectSymbol, SymbolKind};
use profiler_abi::rule::Rule;
use std::ops::Range;

/// The most code of an object that is read, in bytes. Reading takes some hundred times as long as evaluating tables.
const MAX_CODE: u64 = 4 << 20;

/// Rows of the functions of `file` that `covered` says nothing about. `code` gives the bytes at stated addresses.
pub(super) fn read<'c>(
    file: &object::File<'_>,
    covered: &Rows,
    code: impl Fn(Range<Svma>) -> Option<&'c [u8]>,
    ext: &mut ExtTable,
) -> Layer {
    let symbols = file.symbols().chain(file.dynamic_symbols());
    let mut functions: Vec<_> = symbols
        .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .map(|symbol| (Svma(symbol.address()), symbol))
        .collect();
    // Of symbols for the same address the first counts.
    functions.sort_by_key(|(start, _)| *start);
    let mut covered = covered.ascending();
    functions.retain(|(start, symbol)| {
        covered.rule_at(*start) == Rule::NONE && !is_part(symbol.name_bytes().unwrap_or_default())
    });
    functions.dedup_by_key(|(start, _)| *start);
    let mut layer = Layer::default();
    let mut left = MAX_CODE;
    for (start, symbol) in functions {
        let size = symbol.size();
        let Some(end) = start.0.checked_add(size) else {
            continue;
        };
        let Some(after) = left.checked_sub(size) else {
            break;
        };
        left = after;
        let range = start..Svma(end);
        if let Some(code) = code(range.clone()) {
            layer.push(range, asm::rows(start, code, ext));
        }
    }
    layer
}

/// Whether a symbol is of a piece of a function that compilers put elsewhere: it is jumped to with a frame on the stack.
fn is_part(name: &[u8]) -> bool {
    name.windows(5).any(|window| window == b".cold")
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::unwind::testing::compile;
    use crate::unwind::{Coverage, ExtTable, Rows, dwarf};
    use object::{Object, ObjectSymbol};
    use profiler_abi::rule::Kind;

    const SOURCE: &str = "
        __attribute__((noipa)) unsigned long leaf(unsigned long x) { return x * 3; }
        __attribute__((noipa)) unsigned long outer(unsigned long x) {
            volatile unsigned long pad[20];
            pad[x & 7] = leaf(x);
            return pad[x & 7] + leaf(x + 1);
        }
        int main(void) { return (int)outer(1); }";

    #[test]
    fn functions_without_tables_have_the_rows_of_their_tables() {
        let folder = tempfile::tempdir().unwrap();
        let build = |name: &str, flags: &[&str]| {
            let out = folder.path().join(name);
            compile(
                "gcc",
                SOURCE,
                &[&["-O2", "-g0", "-fomit-frame-pointer"], flags].concat(),
                &out,
            );
            std::fs::read(out).unwrap()
        };
        let bare = build("bare", &["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]);
        let told = build("told", &[]);
        let (bare, told) = (
            object::File::parse(&bare[..]).unwrap(),
            object::File::parse(&told[..]).unwrap(),
        );
        let mut ext = ExtTable::default();
        let text = dwarf::text(&bare);
        let layer = read(
            &bare,
            &Rows::default(),
            |range| dwarf::code_of(&bare, range),
            &mut ext,
        );
        let ours = Rows::overlay([layer], &text);
        let frames = dwarf::CallFrames::read(&told, &mut ext, &mut Coverage::default());
        let theirs = Rows::overlay([frames.eh_frame], &dwarf::text(&told));
        for name in ["leaf", "outer"] {
            let find = |file: &object::File<'_>| {
                let symbol = file.symbol_by_name(name).unwrap();
                (symbol.address(), symbol.size())
            };
            let ((at, size), (told_at, told_size)) = (find(&bare), find(&told));
            assert_eq!(size, told_size);
            for offset in 0..size {
                let rule = |rows: &Rows, at: u64| rows.rule_at(crate::addr::Svma(at + offset));
                let (ours, theirs) = (rule(&ours, at), rule(&theirs, told_at));
                assert_eq!(theirs.kind(), ours.kind(), "{name}+{offset:#x}");
                assert!(matches!(ours.kind(), Kind::Sp | Kind::Bp), "{name}+{offset:#x}");
                assert_eq!(theirs.cfa_offset(), ours.cfa_offset(), "{name}+{offset:#x}");
            }
        }
    }
}
