//! Object files, and what is in them.

use crate::elf;
use crate::input::Input;
use bytes::Bytes;
use profiler::addr::Svma;
use profiler::gopclntab::Pclntab;
use profiler::hooks::Table;
use profiler::symbolize;
use profiler::target::go::GoRuntime;
use profiler::target::go::sites::HookSites;
use profiler::unwind::go_asm::{self, GoAsmFunction};
use profiler::unwind::{ExtTable, ObjectRows, asm, danger, table};
use profiler_abi::rule::Rule;
use profiler_abi::table::{BLOCK_INDEX_LEN, BLOCK_SHIFT, REGION_SHIFT};

/// A whole file: symbols, names, notes.
pub fn elf(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let _ = Table::find(&bytes);
    if let Ok(file) = object::File::parse(&*bytes) {
        let _ = danger::zones(&file);
        rows(&file, None);
    }
    names(&bytes, &[0x1000, 0x1100, 0x40_1000]);
}

/// Sections of debug information.
pub fn dwarf(data: &[u8]) {
    let (file, addresses) = elf::file(data);
    names(&Bytes::from(file), &addresses);
}

/// A program whose debug information is in another file. Before the parts of both is the length of the first's.
pub fn debug_files(data: &[u8]) {
    let mut input = Input(data);
    let len = usize::from(input.u16());
    let (program, addresses) = elf::file(input.bytes(len));
    let other = Bytes::from(elf::file(input.0).0);
    let parse = || symbolize::Object::parse(program.clone().into(), None);
    let Ok(mut object) = parse() else { return };
    let _ = object.add_debug_file(other.clone());
    if object.add_supplementary_file(&other).is_ok() {
        ask(&object, &addresses);
    }
    let Ok(object) = parse() else { return };
    for &address in addresses.iter().take(4) {
        for unit in object.split_units(Svma(address)).iter().take(16) {
            let _ = object.add_split_unit(unit, &other);
        }
    }
    ask(&object, &addresses);
    let Ok(object) = parse() else { return };
    if object.add_package(&other).is_ok() {
        ask(&object, &addresses);
    }
}

/// Call frame information.
pub fn call_frames(data: &[u8]) {
    let (file, _) = elf::file(data);
    if let Ok(file) = object::File::parse(&*file) {
        rows(&file, None);
    }
}

/// Go's tables, and the runtime behind them.
pub fn go(data: &[u8]) {
    let (bytes, addresses) = elf::file(data);
    let bytes = Bytes::from(bytes);
    let Ok(file) = object::File::parse(&*bytes) else {
        return;
    };
    let Ok(Some(pclntab)) = Pclntab::find(&file, &bytes) else {
        return;
    };
    for function in pclntab.functions().take(200) {
        let _ = (function.name(), function.is_wrapper(), function.start_line());
        let deltas = function.sp_deltas().take(10_000);
        assert!(
            deltas.is_sorted_by(|(a, _), (b, _)| a.end <= b.start),
            "runs ascend"
        );
        let _ = pclntab.inline_stack(function.entry());
        let _ = pclntab.inline_stack(Svma(function.end().0.wrapping_sub(1)));
    }
    for address in addresses {
        let _ = (pclntab.lookup(Svma(address)), pclntab.inline_stack(Svma(address)));
    }
    rows(&file, Some(&pclntab));
    if let Ok(Some(runtime)) = GoRuntime::find(&file, &bytes, &pclntab) {
        let _ = HookSites::find(&file, &bytes, &pclntab, &runtime);
    }
}

/// The names of Go functions with rules of their own.
const SPECIAL: [&str; 8] = [
    "runtime.asmcgocall",
    "runtime.cgocallback",
    "runtime.systemstack",
    "runtime.morestack",
    "runtime.gogo",
    "runtime.mcall",
    "runtime.sigreturn__sigaction",
    "runtime.goexit",
];

/// A function of assembly, also as if it were one of those that switch stacks.
pub fn machine_code(data: &[u8]) {
    let mut input = Input(data);
    let which = input.u8();
    let entry = Svma(0x40_1000);
    let mut ext = ExtTable::default();
    let rows = if which & 1 == 0 {
        asm::rows(entry, input.0, &mut ext)
    } else {
        let function = GoAsmFunction {
            name: SPECIAL[usize::from(which >> 1) % SPECIAL.len()],
            entry,
            code: input.0,
            top_frame: which & 128 != 0,
        };
        go_asm::rows(&function, &mut ext).unwrap_or_default()
    };
    assert!(rows.is_sorted_by(|a, b| a.start < b.start), "rows ascend");
}

/// The rows of a file, and that their tables say the same.
fn rows(file: &object::File<'_>, pclntab: Option<&Pclntab>) {
    let mut ext = ExtTable::default();
    let object = ObjectRows::read(file, None, pclntab, &mut ext, || ());
    let rows = object.rows.as_slice();
    assert!(rows.is_sorted_by(|a, b| a.start < b.start), "rows ascend");
    assert!(object.bytes_without_rule() <= object.text_bytes());
    let tables = table::encode(&object.rows);
    for row in rows.iter().step_by(rows.len() / 64 + 1) {
        let found = find(&tables, row.start.0);
        // Only the first 4 GiB of code have tables, and a region takes no more rows than it can count.
        assert!(
            found == row.rule || found == Rule::NONE,
            "{row:?} is {found:?} in its table"
        );
    }
}

/// The rule of an address, as the BPF program finds it.
fn find(tables: &[(u32, Vec<u8>)], svma: u64) -> Rule {
    let Some((_, table)) = tables
        .iter()
        .find(|(number, _)| u64::from(*number) == svma >> REGION_SHIFT)
    else {
        return Rule::NONE;
    };
    let half = |at: usize| usize::from(u16::from_le_bytes([table[at], table[at + 1]]));
    let low = (svma & ((1 << REGION_SHIFT) - 1)) as usize;
    let block = low >> BLOCK_SHIFT;
    let starts = BLOCK_INDEX_LEN * 2;
    let mut row = half(block * 2);
    while row < half(block * 2 + 2) && half(starts + row * 2) <= low {
        row += 1;
    }
    let rules = (starts + half((BLOCK_INDEX_LEN - 1) * 2) * 2 + 3) & !3;
    let Some(row) = row.checked_sub(1) else {
        return Rule::NONE;
    };
    let at = rules + row * 4;
    Rule(u32::from_le_bytes([
        table[at],
        table[at + 1],
        table[at + 2],
        table[at + 3],
    ]))
}

/// The names of some addresses.
fn names(bytes: &Bytes, addresses: &[u64]) {
    let Ok(object) = symbolize::Object::parse(bytes.clone(), None) else {
        return;
    };
    let _ = (
        object.build_id(),
        object.go_build_id(),
        object.debug_link(),
        object.alt_link(),
    );
    ask(&object, addresses);
}

fn ask(object: &symbolize::Object, addresses: &[u64]) {
    for &address in addresses {
        if let Ok(names) = object.lookup(Svma(address)) {
            assert!(!names.is_empty(), "a name or a reason");
        }
        if let Some(svma) = object.svma_of_offset(address) {
            let _ = (object.lookup(svma), object.offset_of_svma(svma));
        }
    }
    let _ = object.dwarf_problem();
}
