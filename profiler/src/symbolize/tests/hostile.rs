//! Files that were made to do harm, and files in which chance has done it. What counts is that each test ends, in
//! reasonable time and memory, and with an answer from what is still sound.

use super::{Program, functions, read, run};
use crate::addr::{Avma, Svma};
use crate::symbolize::elf::Elf;
use crate::symbolize::{Kallsyms, Object, PerfMap, Reason};
use bytes::Bytes;
use std::process::Command;

/// `main` and DWARF of one unit that says where it is and ends with what `entries` brings. Code 1 is the unit, 2 a
/// function at `main`, 3 an inlined function without attributes but with children, 4 one at `main`.
fn assembly(abbreviations: &str, entries: &str, more: &str) -> &'static str {
    let text = format!(
        r#"
        .text
        .globl main
        .type main, @function
main:   nop
        ret
        .size main, .-main

        .section .debug_abbrev,"",@progbits
        .uleb128 1, 0x11
        .byte 1
        .uleb128 0x11, 0x01, 0x12, 0x07, 0, 0
        .uleb128 2, 0x2e
        .byte 1
        .uleb128 0x03, 0x08, 0x11, 0x01, 0x12, 0x07, 0, 0
        .uleb128 3, 0x1d
        .byte 1
        .uleb128 0, 0
        .uleb128 4, 0x1d
        .byte 1
        .uleb128 0x03, 0x08, 0x11, 0x01, 0x12, 0x07, 0, 0
        {abbreviations}
        .byte 0

        .section .debug_info,"",@progbits
        .long 1f - 0f
0:      .short 4
        .long .debug_abbrev
        .byte 8
        .uleb128 1
        .quad main, 2
        {entries}
1:
        {more}
        .section .note.GNU-stack,"",@progbits
        "#
    );
    // The source of a program lives as long as the test; there are a few of them.
    Box::leak(text.into_boxed_str())
}

fn hostile(abbreviations: &str, entries: &str, more: &str) -> Program {
    Program::new(
        assembly(abbreviations, entries, more),
        "s",
        "gcc -nostdlib -Wl,-e,main",
    )
}

const TOO_COSTLY: &str = "its DWARF is too costly to read for its size";

const FUNCTION: &str = ".uleb128 2\n.asciz \"from_dwarf\"\n.quad main, 2\n";

#[test]
fn the_unit_is_sound_without_its_hostile_part() {
    let program = hostile(
        "",
        &format!("{FUNCTION} .uleb128 4\n.asciz \"inside\"\n.quad main, 1\n.byte 0, 0, 0"),
        "",
    );
    assert_eq!(functions(&program.names_at("main")), ["inside", "from_dwarf"]);
}

#[test]
fn a_million_functions_inside_one_another_do_not_overflow_the_stack() {
    let entries = format!("{FUNCTION} .fill 1000000, 1, 3\n .fill 1000002, 1, 0");
    let program = hostile("", &entries, "");
    let object = program.object();
    let names = object.lookup(program.address("main"));
    assert_eq!(functions(&names.unwrap()), ["main"], "the symbol is still good");
}

#[test]
fn as_many_inlined_functions_as_fit_are_reported_with_the_outermost() {
    let inlined = ".uleb128 4\n.asciz \"inside\"\n.quad main, 2\n";
    let entries = format!("{FUNCTION} .rept 300\n{inlined}.endr\n.fill 302, 1, 0");
    let program = hostile("", &entries, "");
    let names = program.names_at("main");
    assert!(names.len() <= 256, "{}", names.len());
    let last = names.last().unwrap();
    assert!(["from_dwarf", "main"].contains(&&last.function[..]), "{last:?}");
    assert!(!last.inlined);
}

#[test]
fn entries_of_a_byte_with_thousands_of_attributes_are_refused() {
    let wide = ".uleb128 5, 0x34\n.byte 0\n.rept 100000\n.uleb128 0x3f, 0x19\n.endr\n.uleb128 0, 0\n";
    let program = hostile(
        wide,
        &format!("{FUNCTION} .byte 0\n.fill 1000000, 1, 5\n.byte 0"),
        "",
    );
    let object = program.object();
    let names = object.lookup(program.address("main")).unwrap();
    assert_eq!(functions(&names), ["main"]);
    assert_eq!(object.dwarf_problem(), Some(TOO_COSTLY));
}

#[test]
fn functions_that_share_one_huge_list_of_ranges_run_out_of_fuel() {
    let shared = ".uleb128 5, 0x2e\n.byte 0\n.uleb128 0x55, 0x17, 0, 0\n";
    let entries = ".rept 20000\n.uleb128 5\n.long .debug_ranges\n.endr\n.byte 0";
    let ranges = ".section .debug_ranges,\"\",@progbits\n.rept 20000\n.quad 0, 1\n.endr\n.quad 0, 0\n";
    let program = hostile(shared, entries, ranges);
    let object = program.object();
    let names = object.lookup(program.address("main")).unwrap();
    assert_eq!(functions(&names), ["main"]);
}

#[test]
fn units_that_share_one_huge_table_of_abbreviations_run_out_of_fuel() {
    let long = ".rept 50000\n.uleb128 77 + (. - .debug_abbrev), 0x34\n.byte 0\n.uleb128 0, 0\n.endr\n";
    let units = ".section .debug_info\n.set at, 0\n.rept 20000\n.long 8\n.short 4\n\
                 .long .debug_abbrev + at\n.byte 8\n.byte 0\n.set at, at + 7\n.endr\n";
    let program = hostile(long, ".byte 0", units);
    let object = program.object();
    let names = object.lookup(program.address("main")).unwrap();
    assert_eq!(functions(&names), ["main"]);
    assert_eq!(object.dwarf_problem(), Some(TOO_COSTLY));
}

#[test]
fn references_in_a_circle_end() {
    // An inlined function whose origin is itself: the reference is to an offset in the unit.
    let circle = ".uleb128 5, 0x1d\n.byte 0\n.uleb128 0x31, 0x13, 0x11, 0x01, 0x12, 0x07, 0, 0\n";
    let entries = format!("{FUNCTION} 9: .uleb128 5\n.long 9b - 0b + 4\n.quad main, 2\n.byte 0, 0");
    let program = hostile(circle, &entries, "");
    let last = program.names_at("main").pop().unwrap();
    assert!(["from_dwarf", "main"].contains(&&last.function[..]), "{last:?}");
}

#[test]
fn sections_that_unpack_out_of_proportion_are_not_unpacked() {
    for format in ["zlib", "zstd"] {
        let zeros = ".section .debug_str,\"\",@progbits\n.fill 50000000, 1, 0\n";
        let program = hostile("", &format!("{FUNCTION} .byte 0, 0"), zeros);
        let packed = program.beside("packed");
        run(Command::new("objcopy")
            .arg(format!("--compress-debug-sections={format}"))
            .args([&program.path, &packed]));
        let packed = read(&packed);
        assert!(packed.len() < 1_000_000, "{}", packed.len());
        assert_eq!(Elf::parse(&packed).unwrap().uncompressed(".debug_str"), None);
        let object = Object::parse(packed, None).unwrap();
        // Without .debug_str, which nothing here refers to, the rest is still good.
        let names = object.lookup(program.address("main")).unwrap();
        assert_eq!(functions(&names), ["from_dwarf"], "{format}");
    }
}

/// A small program with all there is: DWARF 5, symbols, a linkage table, notes.
const SMALL: &str = r#"
#include <stdlib.h>
static inline __attribute__((always_inline)) int inner(int x) { return abs(rand()) + x; }
__attribute__((noinline)) int work(int x) { return inner(x) * inner(x + 1); }
int main(int argc, char **argv) { return work(argc); }
"#;

/// Looks at everything that an object has. The answers are of no interest.
fn ask_everything(file: Bytes, debug: Option<Bytes>, addresses: &[Svma]) {
    let Ok(object) = Object::parse(file, debug) else {
        return;
    };
    for &address in addresses {
        if let Ok(names) = object.lookup(address) {
            assert!(!names.is_empty());
        }
        object.offset_of_svma(address);
        object.svma_of_offset(address.0);
    }
    object.build_id();
    object.go_build_id();
    object.debug_link();
    object.dwarf_problem();
}

fn addresses_of(program: &Program) -> Vec<Svma> {
    let work = program.address("work").0;
    let mut addresses: Vec<_> = (work..work + 48).step_by(5).map(Svma).collect();
    addresses.extend([0, 1, u64::MAX - 1, u64::MAX].map(Svma));
    addresses.push(program.address("main"));
    addresses
}

/// The same numbers on every run (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..1 + self.below(8) {
            let at = self.below(bytes.len());
            let values = [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8];
            let value = values[self.below(values.len())];
            let length = [1, 1, 1, 2, 4, 8][self.below(6)].min(bytes.len() - at);
            bytes[at..at + length].fill(value);
        }
    }
}

#[test]
fn damaged_programs_do_no_harm() {
    for options in ["-gdwarf-4", "-gdwarf-5", "-g -gz=zlib"] {
        let program = Program::new(SMALL, "c", &format!("gcc -O2 {options}"));
        let addresses = addresses_of(&program);
        let sound = read(&program.path);
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        // Bytes between the header and the last page are mostly code and padding; the tables are what is read.
        let tables = sound.len() - sound.len() / 3;
        for round in 0..1500 {
            let mut damaged = sound.to_vec();
            match round % 3 {
                0 => chance.damage(&mut damaged),
                1 => chance.damage(&mut damaged[tables..]),
                _ => chance.damage(&mut damaged[..1024]),
            }
            ask_everything(damaged.into(), None, &addresses);
        }
    }
}

#[test]
fn every_section_can_be_damaged_alone() {
    let program = Program::new(SMALL, "c", "gcc -O2 -g");
    let addresses = addresses_of(&program);
    let sound = read(&program.path);
    let mut chance = Chance(42);
    for (offset, size) in sections_of(&program) {
        for _ in 0..60 {
            let mut damaged = sound.to_vec();
            chance.damage(&mut damaged[offset..offset + size]);
            ask_everything(damaged.into(), Some(sound.clone()), &addresses);
        }
    }
}

/// Offset and size in the file of every section that has bytes there.
fn sections_of(program: &Program) -> Vec<(usize, usize)> {
    let listing = run(Command::new("objdump").args(["-h", "-w"]).arg(&program.path));
    let sections: Vec<_> = listing
        .lines()
        .filter(|line| line.contains("CONTENTS"))
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let number = |word: &str| usize::from_str_radix(word, 16).unwrap();
            (number(words[5]), number(words[2]))
        })
        .collect();
    assert!(sections.len() > 15, "{listing}");
    sections
}

#[test]
fn truncated_programs_do_no_harm() {
    let program = Program::new(SMALL, "c", "gcc -O2 -g");
    let addresses = addresses_of(&program);
    let sound = read(&program.path);
    for length in (0..sound.len()).step_by(37) {
        ask_everything(sound.slice(..length), None, &addresses);
    }
    // An object must not stand at an address that suits its words.
    for shift in 1..8 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(&sound);
        let object = Object::parse(Bytes::from(shifted).slice(shift..), None).unwrap();
        assert_eq!(
            functions(&object.lookup(program.address("main")).unwrap()),
            ["main"]
        );
    }
}

#[test]
fn objects_can_go_to_other_threads() {
    let program = Program::new(SMALL, "c", "gcc -O2 -g");
    let main = program.address("main");
    let object = program.object();
    assert!(object.lookup(main).is_ok());
    let names = std::thread::spawn(move || object.lookup(main)).join().unwrap();
    assert_eq!(functions(&names.unwrap()), ["main"]);
}

#[test]
fn texts_of_noise_do_no_harm() {
    let mut chance = Chance(7);
    for _ in 0..200 {
        let noise: Vec<u8> = (0..chance.below(4000))
            .map(|_| b"0123456789abcdefx tTwW[]\n\t\xff\0"[chance.below(28)])
            .collect();
        let kallsyms = Kallsyms::parse(noise.clone().into());
        let map = PerfMap::parse(&noise.into());
        for address in [0, 1, 0xab, 0xffff, u64::MAX] {
            let kernel = kallsyms.lookup(Avma(address));
            assert!(
                kernel.is_ok() || matches!(kernel, Err(Reason::NotInKernel | Reason::KernelAddressesHidden))
            );
            let jit = map.lookup(Avma(address));
            assert!(jit.is_ok() || jit == Err(Reason::NotInPerfMap));
        }
    }
}
