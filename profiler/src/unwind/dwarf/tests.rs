mod oracle;

use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol};
use profiler_abi::rule::{ExtRule, Kind, Rule};

use self::oracle::{Machine, Step, each_row};
use super::{CallFrames, Layer, Reader, text};
use crate::addr::Svma;
use crate::unwind::testing::{Random, compile, functions, words};
use crate::unwind::{Coverage, ExtTable, Rows, Unsupported};

const PROGRAM: &str = r#"
#include <alloca.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) void keep(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

__attribute__((noinline)) int plain(int n) {
    char b[100];
    memset(b, n, sizeof b);
    keep(b);
    return b[n & 63];
}

__attribute__((noinline)) int with_alloca(int n) {
    char *b = alloca(n + 16);
    memset(b, n, n);
    keep(b);
    return b[0];
}

__attribute__((noinline, force_align_arg_pointer)) int realigned(int n) {
    _Alignas(64) char b[256];
    memset(b, n, sizeof b);
    keep(b);
    return b[n & 127];
}

__attribute__((noinline)) int realigned_with_alloca(int n, ...) {
    _Alignas(64) char b[256];
    va_list a;
    va_start(a, n);
    char *c = alloca(n + va_arg(a, int));
    va_end(a);
    memset(b, n, sizeof b);
    memset(c, n, n);
    keep(b);
    keep(c);
    return b[n & 127] + c[0];
}

int main(int argc, char **argv) {
    qsort(argv, argc, sizeof *argv, (int (*)(const void *, const void *))strcmp);
    return plain(argc) + with_alloca(argc) + realigned(argc) + realigned_with_alloca(argc, argc);
}
"#;

const CPP_PROGRAM: &str = r#"
#include <stdexcept>
#include <string>
#include <vector>

__attribute__((noinline)) static void thrower(int n) {
    if (n > 1) throw std::runtime_error(std::to_string(n));
}

int main(int argc, char **) {
    std::vector<std::string> all(argc);
    try {
        for (auto &s : all) { s = "x"; thrower(argc); }
    } catch (const std::exception &e) {
        return e.what()[0];
    }
    return 0;
}
"#;

const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

fn build(compiler: &str, source: &str, flags: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("program");
    compile(compiler, source, flags, &out);
    std::fs::read(out).unwrap()
}

struct Read {
    rows: Rows,
    ext: ExtTable,
    coverage: Coverage,
    without_rule: u64,
    text: u64,
}

fn read(file: &object::File<'_>) -> Read {
    let mut ext = ExtTable::default();
    let mut coverage = Coverage::default();
    let frames = CallFrames::read(file, &mut ext, &mut coverage);
    let text = text(file);
    let rows = Rows::overlay([frames.eh_frame, frames.debug_frame], &text);
    Read {
        without_rule: rows.bytes_without_rule(&text),
        text: text.iter().map(|range| range.end.0 - range.start.0).sum(),
        rows,
        ext,
        coverage,
    }
}

/// Checks every row of an object against the machine; returns how many were checked.
fn agree_with_the_machine(data: &[u8]) -> u64 {
    let file = object::File::parse(data).unwrap();
    let read = read(&file);
    let mut checked = 0;
    each_row(&file, |section, signal_frame, row, range| {
        // All bytes of a slot of a linkage table; elsewhere the ends will do.
        let bytes = match row.cfa() {
            gimli::CfaRule::Expression(_) => range.clone().take(64).collect(),
            _ => vec![range.start, range.end - 1],
        };
        for pc in bytes {
            let rule = read.rows.rule_at(Svma(pc));
            if signal_frame {
                assert_eq!(rule, Rule::SIG_FRAME, "{pc:#x}");
                continue;
            }
            if rule == Rule::NONE {
                continue;
            }
            let machine = Machine::new(pc, checked);
            let mut expected = machine.step_by_row(section, row);
            let found = machine.step_by_rule(rule, &read.ext);
            if (rule.kind(), rule.cfa_offset(), rule.bp_below_cfa()) == (Kind::Sp, 8, 0)
                && let Some(gimli::RegisterRule::Expression(_)) = row.register(gimli::X86_64::RBP)
                && let (
                    Step::Caller { frame_pointer, .. },
                    Step::Caller {
                        frame_pointer: restored,
                        ..
                    },
                ) = (&mut expected, found)
            {
                // The last instruction of a function that realigned the stack: see `cfi::meaning`.
                *frame_pointer = restored;
            }
            assert_eq!(found, expected, "{pc:#x}: {}", words(rule, &read.ext));
        }
        checked += 1;
    });
    assert_eq!(checked, read.coverage.rows);
    checked
}

#[test]
fn every_row_of_c_steps_as_dwarf_says() {
    for flags in [
        ["-O2", "-fomit-frame-pointer", "-mavx2"],
        ["-O0", "-fno-omit-frame-pointer", "-mavx2"],
        ["-Os", "-fomit-frame-pointer", "-fcf-protection"],
    ] {
        assert!(
            agree_with_the_machine(&build("gcc", PROGRAM, &flags)) > 20,
            "{flags:?}"
        );
    }
}

#[test]
fn every_row_of_cpp_that_throws_steps_as_dwarf_says() {
    assert!(agree_with_the_machine(&build("g++", CPP_PROGRAM, &["-O2", "-static"])) > 10_000);
}

#[test]
fn every_row_of_the_c_library_steps_as_dwarf_says_and_few_have_no_rule() {
    let libc = std::fs::read(LIBC).unwrap();
    assert!(agree_with_the_machine(&libc) > 20_000);
    let read = read(&object::File::parse(&*libc).unwrap());
    for cause in Unsupported::ALL {
        let most = match cause {
            // longjmp and vfork keep it in a register for a few instructions.
            Unsupported::ReturnAddress => 5,
            // setcontext
            Unsupported::StackPointer => 1,
            _ => 0,
        };
        assert!(read.coverage.unsupported(cause) <= most, "{cause}");
    }
    assert_eq!(read.coverage.malformed, 0);
    assert_eq!(read.coverage.frame_pointer_lost, 0);
    assert!(
        read.without_rule * 20 < read.text,
        "{} of {}",
        read.without_rule,
        read.text
    );
}

#[test]
fn rows_are_those_that_readelf_prints() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("program");
    compile("gcc", PROGRAM, &["-O2", "-fomit-frame-pointer", "-mavx2"], &out);
    let data = std::fs::read(&out).unwrap();
    let read = read(&object::File::parse(&*data).unwrap());
    let listing = Command::new("readelf")
        .arg("--debug-dump=frames-interp")
        .arg(&out)
        .output()
        .unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let mut columns: Vec<&str> = Vec::new();
    let mut compared = 0;
    for line in listing.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, _, _, "CIE", ..] | [_, _, _, "FDE", ..] => columns.clear(),
            ["LOC", ..] => columns = fields,
            [address, cfa, ..] if !columns.is_empty() && address.len() == 16 => {
                let address = u64::from_str_radix(address, 16).unwrap();
                if address == 0 {
                    continue; // A common information entry.
                }
                let column = |name| columns.iter().position(|c| *c == name).map_or("u", |i| fields[i]);
                let bp = match column("rbp") {
                    "u" => "bp=".to_owned(),
                    bp => bp.replace('c', "bp@"),
                };
                let expected = match (cfa, column("ra")) {
                    (_, "u") => "End".to_owned(),
                    // Expressions are compared elsewhere.
                    ("exp", _) => continue,
                    _ if bp == "exp" => continue,
                    (cfa, "c-8") if cfa.starts_with("r10") => format!("{} {bp}", &cfa[1..]),
                    (cfa, "c-8") => format!("{} {bp}", &cfa[1..]),
                    other => panic!("{other:?}"),
                };
                let found = words(read.rows.rule_at(Svma(address)), &read.ext);
                assert_eq!(found, expected, "{address:#x}");
                compared += 1;
            }
            _ => {}
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn a_realigned_stack_has_its_frame_address_behind_the_frame_pointer() {
    let data = build("gcc", PROGRAM, &["-O2", "-fomit-frame-pointer", "-mavx2"]);
    let file = object::File::parse(&*data).unwrap();
    let read = read(&file);
    let (start, code) = functions(&file)["realigned_with_alloca"];
    let mut rules: Vec<String> = Vec::new();
    for at in 0..code.len() as u64 {
        let rule = words(read.rows.rule_at(Svma(start.0 + at)), &read.ext);
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }
    let behind = rules.iter().position(|rule| rule.starts_with("*(bp-")).unwrap();
    assert_eq!(rules[0], "sp+8 bp=");
    assert_eq!(rules[1], "10+0 bp=");
    assert_eq!(rules[behind - 1], "10+0 bp@bp+0");
    assert!(rules[behind].ends_with(")+0 bp@bp+0"), "{}", rules[behind]);
    assert_eq!(rules[behind + 1..], ["10+0 bp@bp+0", "sp+8 bp="]);
}

#[test]
fn the_signal_trampoline_starts_one_byte_before_the_function() {
    let libc = std::fs::read(LIBC).unwrap();
    let read = read(&object::File::parse(&*libc).unwrap());
    let trampoline = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]; // mov $15, %rax; syscall
    let starts: Vec<u64> = read
        .rows
        .as_slice()
        .iter()
        .filter(|row| row.rule == Rule::SIG_FRAME)
        .map(|row| row.start.0)
        .collect();
    let [start] = starts[..] else {
        panic!("{starts:x?}");
    };
    // Addresses and offsets of the code of a shared library are the same but for whole pages.
    let at = libc
        .windows(trampoline.len())
        .position(|bytes| bytes == trampoline)
        .unwrap();
    assert_eq!((start + 1) & 0xfff, at as u64 & 0xfff);
}

#[test]
fn a_compressed_debug_frame_gives_the_rows_of_an_eh_frame() {
    let flags = ["-O2", "-fomit-frame-pointer", "-mavx2", "-g"];
    let with = build("gcc", PROGRAM, &flags);
    let without = build(
        "gcc",
        PROGRAM,
        &[
            &flags[..],
            &[
                "-fno-asynchronous-unwind-tables",
                "-Wl,--compress-debug-sections=zlib",
            ],
        ]
        .concat(),
    );
    let with = object::File::parse(&*with).unwrap();
    let without = object::File::parse(&*without).unwrap();
    let section = without.section_by_name(".debug_frame").unwrap();
    assert_ne!(
        section.compressed_data().unwrap().format,
        object::CompressionFormat::None
    );
    let (left, right) = (read(&with), read(&without));
    for (name, (start, code)) in functions(&with) {
        let Some((other, same)) = functions(&without).get(&name).copied() else {
            continue;
        };
        if !["plain", "with_alloca", "realigned", "realigned_with_alloca"].contains(&&*name) {
            continue;
        }
        assert_eq!(code.len(), same.len());
        for at in 0..code.len() as u64 {
            assert_eq!(
                words(left.rows.rule_at(Svma(start.0 + at)), &left.ext),
                words(right.rows.rule_at(Svma(other.0 + at)), &right.ext),
                "{name}+{at:#x}"
            );
        }
    }
    assert!(right.coverage.functions > 4);
}

#[test]
fn the_vdso_is_an_object_like_any_other() {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
    let start = u64::from_str_radix(start, 16).unwrap();
    let mut image = vec![0; (u64::from_str_radix(end, 16).unwrap() - start) as usize];
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut image, start).unwrap();
    assert!(agree_with_the_machine(&image) > 10);
    let read = read(&object::File::parse(&*image).unwrap());
    assert_eq!(
        (read.coverage.malformed, read.coverage.unsupported_rows()),
        (0, 0)
    );
}

/// An `.eh_frame` of one function, 0x1000..0x2_1000, with these instructions.
fn frame_of(instructions: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut entry = |id: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(8), 0);
        data.extend((body.len() as u32 + 4).to_le_bytes());
        data.extend(id.to_le_bytes());
        data.extend(body);
        data.len() as u32
    };
    // Version 1, no augmentation, alignment factors 1 and -8, return address 16; CFA = rsp + 8, RA at CFA - 8.
    let next = entry(0, &[1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1]);
    let body = [
        &0x1000_u64.to_le_bytes()[..],
        &0x2_0000_u64.to_le_bytes(),
        instructions,
    ]
    .concat();
    entry(next + 4, &body);
    data
}

fn rows_of_frame(data: &[u8]) -> (Layer, ExtTable, Coverage) {
    let mut ext = ExtTable::default();
    let mut coverage = Coverage::default();
    let mut reader = Reader {
        code: &|_| None,
        ext: &mut ext,
        coverage: &mut coverage,
    };
    let layer = reader.eh_frame(data, &gimli::BaseAddresses::default());
    (layer, ext, coverage)
}

/// The rules of a function with these instructions, in words.
fn rules_of(instructions: &[u8]) -> (Vec<String>, Coverage) {
    let (layer, ext, coverage) = rows_of_frame(&frame_of(instructions));
    let rows = Rows::overlay([layer], &[Svma(0)..Svma(0x10000)]);
    let words = rows.as_slice().iter().map(|row| words(row.rule, &ext)).collect();
    (words, coverage)
}

#[test]
fn rules_that_do_not_fit_the_packed_form_are_extended() {
    for (instructions, expected) in [
        // def_cfa r10, 0
        (&[0x0c, 10, 0][..], "10+0 bp="),
        // def_cfa_expression breg7 40; deref; plus_uconst 8, and rbp at CFA - 16: OpenSSL.
        (&[0x0f, 5, 0x77, 40, 0x06, 0x23, 8, 0x86, 2], "*(sp+40)+8 bp@-16"),
        // The same with const1u 8; plus.
        (&[0x0f, 6, 0x77, 40, 0x06, 0x08, 8, 0x22], "*(sp+40)+8 bp="),
        // def_cfa_expression breg6 16
        (&[0x0f, 2, 0x76, 16], "bp+16 bp="),
        // The return address at CFA - 16.
        (&[0x90, 2], "sp+8 bp= ra@-16"),
        // rbp at CFA - 512 is too far for the packed form.
        (&[0x86, 64], "sp+8 bp@-512"),
        // rbp at an odd place: offset_extended_sf rbp, 1 (CFA - 8 * -1)
        (&[0x11, 6, 0x7f], "sp+8 bp@+8"),
        // def_cfa rsp 12, which is no multiple of a word.
        (&[0x0c, 7, 12], "sp+12 bp="),
        // rbp is kept in rax, or is a value: register rbp, rax; val_offset rbp, 2.
        (&[0x09, 6, 0], "sp+8 bp?"),
        (&[0x14, 6, 2], "sp+8 bp?"),
        // undefined rip
        (&[0x07, 16], "End"),
    ] {
        let (rules, coverage) = rules_of(instructions);
        assert_eq!(rules, [expected, "None"], "{instructions:x?}");
        assert_eq!(coverage.unsupported_rows(), 0);
        assert_eq!(coverage.frame_pointer_lost, u64::from(expected.ends_with('?')));
    }
}

#[test]
fn what_cannot_be_said_is_counted_by_cause() {
    for (instructions, cause) in [
        // def_cfa_expression breg7 0; deref; deref
        (&[0x0f, 4, 0x77, 0, 6, 6][..], Unsupported::CfaExpression),
        // def_cfa xmm0, 0
        (&[0x0c, 17, 0], Unsupported::CfaRegister),
        // def_cfa rip, 0
        (&[0x0c, 16, 0], Unsupported::CfaRegister),
        // def_cfa r10, 2^32
        (&[0x0c, 10, 0x80, 0x80, 0x80, 0x80, 0x10], Unsupported::Offset),
        // register rip, rax
        (&[0x09, 16, 0], Unsupported::ReturnAddress),
        // rsp at CFA - 16
        (&[0x87, 2], Unsupported::StackPointer),
    ] {
        let (rules, coverage) = rules_of(instructions);
        assert!(rules.is_empty(), "{rules:?}");
        assert_eq!(coverage.unsupported(cause), 1, "{cause}");
        assert_eq!((coverage.rows, coverage.unsupported_rows()), (1, 1));
    }
}

#[test]
fn linkage_tables_with_other_slots_get_rows_for_each_slot() {
    let table = |pushed: u8| {
        [
            0x0f,
            11,
            0x77,
            8,
            0x80,
            0,
            0x3f,
            0x1a,
            0x30 + pushed,
            0x2a,
            0x33,
            0x24,
            0x22,
        ]
    };
    assert_eq!(rules_of(&table(11)).0, ["Plt", "None"]);
    let (layer, ..) = rows_of_frame(&frame_of(&table(9)));
    let rows = Rows::overlay([layer], &[Svma(0)..Svma(0x10000)]);
    for address in 0x1000..0x1100 {
        let expected = if address % 16 < 9 {
            Rule::sp(8, None)
        } else {
            Rule::sp(16, None)
        };
        assert_eq!(rows.rule_at(Svma(address)), expected.unwrap(), "{address:#x}");
    }
}

#[test]
fn a_malformed_entry_does_not_hide_the_next() {
    let good = frame_of(&[0x41, 0x0e, 16]);
    let (layer, _, coverage) = rows_of_frame(&good);
    assert_eq!((layer.functions(), coverage.malformed), (1, 0));
    // An entry whose common information is itself, before the good ones; the FDE's pointer is relative.
    let mut data = vec![12, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    data.extend(&good);
    let (layer, _, coverage) = rows_of_frame(&data);
    assert_eq!((layer.functions(), coverage.malformed), (1, 1));
    // An instruction that does not exist.
    let (layer, _, coverage) = rows_of_frame(&frame_of(&[0x41, 0x3f]));
    assert_eq!((layer.functions(), coverage.malformed), (0, 1));
    // Cut off anywhere.
    for len in 0..good.len() {
        rows_of_frame(&good[..len]);
    }
}

#[test]
fn no_mutation_makes_it_panic_or_run_long() {
    let data = build("gcc", PROGRAM, &["-O2", "-fomit-frame-pointer", "-mavx2"]);
    let file = object::File::parse(&*data).unwrap();
    let frame = file.section_by_name(".eh_frame").unwrap();
    let original = frame.data().unwrap();
    let bases = gimli::BaseAddresses::default().set_eh_frame(frame.address());
    let mut random = Random::new(11);
    for _ in 0..20_000 {
        let mut mutated = original.to_vec();
        for _ in 0..1 + random.below(6) {
            let at = random.below(mutated.len() as u64) as usize;
            mutated[at] = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => mutated[at] ^ 1 << random.below(8),
                _ => random.next() as u8,
            };
        }
        let mut ext = ExtTable::default();
        let mut coverage = Coverage::default();
        let mut reader = Reader {
            code: &|_| None,
            ext: &mut ext,
            coverage: &mut coverage,
        };
        let eh_frame = reader.eh_frame(&mutated, &bases);
        let debug_frame = reader.debug_frame(&mutated, &bases);
        let rows = Rows::overlay([eh_frame, debug_frame], &text(&file));
        assert!(rows.as_slice().is_sorted_by(|a, b| a.start < b.start));
        // One row per byte of instructions is the most that there can be.
        assert!(coverage.rows <= 4 * original.len() as u64);
    }
}

#[test]
fn instructions_that_all_functions_share_are_bounded() {
    // One common information entry of 64 KiB of `nop`s, and thousands of functions that name it.
    let mut data = Vec::new();
    let body = [&[1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1][..], &vec![0; 1 << 16]].concat();
    data.extend((body.len() as u32 + 4).to_le_bytes());
    data.extend(0_u32.to_le_bytes());
    data.extend(body);
    for n in 0..20_000_u64 {
        let id = data.len() as u32 + 4;
        data.extend(20_u32.to_le_bytes());
        data.extend(id.to_le_bytes());
        data.extend((0x1000 + n * 16).to_le_bytes());
        data.extend(16_u64.to_le_bytes());
    }
    let (layer, _, coverage) = rows_of_frame(&data);
    assert_eq!((layer.functions(), coverage.malformed), (0, 20_000));
}

#[test]
fn extended_rules_beyond_the_table_are_counted() {
    let mut instructions = Vec::new();
    for n in 0..ExtTable::CAPACITY as u32 + 10 {
        // advance_loc 1; def_cfa r10, n
        instructions.extend([0x41, 0x0c, 10]);
        instructions.extend([n as u8 | 0x80, (n >> 7) as u8 | 0x80, (n >> 14) as u8]);
    }
    let (_, ext, coverage) = rows_of_frame(&frame_of(&instructions));
    assert_eq!(ext.rules().len(), ExtTable::CAPACITY);
    assert_eq!(coverage.unsupported(Unsupported::TableFull), 10);
}

#[test]
fn the_frame_of_an_unwinder_is_not_believed_while_it_is_replaced() {
    let asked = Command::new("gcc")
        .arg("-print-file-name=libgcc_s.so.1")
        .output()
        .unwrap();
    let bytes = std::fs::read(String::from_utf8(asked.stdout).unwrap().trim()).unwrap();
    let file = object::File::parse(&bytes[..]).unwrap();
    let mut ext = ExtTable::default();
    let frames = CallFrames::read(&file, &mut ext, &mut Coverage::default());
    let rows = Rows::overlay([frames.eh_frame], &text(&file));
    let is_guarded = |rule: Rule| {
        rule.kind() == Kind::Ext
            && ext.rules()[rule.ext_index() as usize].flags & ExtRule::MAY_BE_REPLACED != 0
    };
    let in_force = |range: std::ops::Range<u64>| {
        let bytes = range.filter(|&address| is_guarded(rows.rule_at(Svma(address))));
        bytes.count() as u64
    };
    let mut all = 0;
    for name in [
        "_Unwind_RaiseException",
        "_Unwind_Resume",
        "_Unwind_ForcedUnwind",
        "_Unwind_Resume_or_Rethrow",
    ] {
        let function = file
            .dynamic_symbols()
            .find(|symbol| symbol.name() == Ok(name))
            .unwrap_or_else(|| panic!("no {name}"));
        let range = function.address()..function.address() + function.size();
        let bytes = in_force(range);
        // The instructions between two calls and the loading of registers, at the end of the function.
        assert!(
            (30..200).contains(&bytes),
            "{name}: {bytes} of {}",
            function.size()
        );
        all += bytes;
    }
    // ... and nowhere else.
    let everywhere = text(&file)
        .into_iter()
        .map(|text| in_force(text.start.0..text.end.0));
    assert_eq!(everywhere.sum::<u64>(), all);
}
