//! C: inlined chains in every shape that DWARF comes in, files without DWARF, symbols and linkage tables.

use super::{Name, Object, Program, Reason, functions, read, run, symbols_of};
use crate::addr::Svma;
use crate::profile::Kind;
use crate::symbolize::Error;
use std::process::Command;

const CHAIN: &str = r#"
#include <stdlib.h>
#define HERE(label) __asm__ volatile(#label ": nop")
#define INLINE static inline __attribute__((always_inline))

INLINE int innermost(int x) // innermost starts
{
    HERE(here); // innermost is here
    return x * 3;
}

INLINE int middle(int x) // middle starts
{
    int y = x + 1;
    return innermost(y) + 1; // middle calls
}

__attribute__((noinline)) int outer(int x) // outer starts
{
    HERE(in_outer); // outer is here
    return middle(x) * 2; // outer calls
}

__asm__(".globl hand_written\n"
        ".type hand_written, @function\n"
        "hand_written: nop\n"
        "inner_label: nop\n"
        "ret\n"
        ".size hand_written, .-hand_written\n"
        "nop\n"
        "signature: .ascii \"signature\"\n"
        ".type signature, @function\n"
        ".size signature, 9\n"
        ".globl sizeless\n"
        "sizeless: nop\n"
        "nop\n"
        "ret\n");

int main(int argc, char **argv)
{
    return outer(argc) + abs(rand());
}
"#;

fn chain(options: &str) -> Program {
    Program::new(CHAIN, "c", &format!("gcc -O2 {options}"))
}

fn assert_chain(program: &Program, names: &[Name]) {
    let name = |function: &str, line, start, inlined| Name {
        function: function.to_owned(),
        system_name: None,
        file: Some(program.beside("source.c").to_str().unwrap().to_owned()),
        line: program.line(line),
        start_line: program.line(start),
        kind: Kind::Native,
        inlined,
    };
    assert_eq!(
        names,
        [
            name("innermost", "innermost is here", "innermost starts", true),
            name("middle", "middle calls", "middle starts", true),
            name("outer", "outer calls", "outer starts", false),
        ]
    );
}

#[test]
fn inlined_functions_are_frames_of_their_own_in_every_version_of_dwarf() {
    for options in [
        "-gdwarf-2",
        "-gdwarf-3",
        "-gdwarf-4",
        "-gdwarf-5",
        "-gdwarf-5 -gdwarf64",
    ] {
        let program = chain(options);
        assert_chain(&program, &program.names_at("here"));
        assert_eq!(
            program.shown_at("in_outer"),
            [(
                "outer".to_owned(),
                program.line("outer is here"),
                program.line("outer starts"),
                false
            )]
        );
    }
}

#[test]
fn compressed_sections_say_the_same() {
    for options in [
        "-g -gz=zlib",
        "-g -Wl,--compress-debug-sections=zstd",
        "-g -no-pie -gz=zlib",
    ] {
        let program = chain(options);
        let headers = run(Command::new("readelf").arg("-tW").arg(&program.path));
        assert!(headers.contains("COMPRESSED"), "{options}: {headers}");
        assert_chain(&program, &program.names_at("here"));
    }
}

#[test]
fn cross_unit_references_of_link_time_optimization_are_followed() {
    let program = chain("-g -flto");
    let dwarf = run(Command::new("readelf")
        .args(["--debug-dump=info"])
        .arg(&program.path));
    assert!(dwarf.matches("Compilation Unit").count() > 1);
    assert_chain(&program, &program.names_at("here"));
}

#[test]
fn a_stripped_program_is_named_by_its_debug_file() {
    let program = chain("-g");
    let (debug, stripped) = (program.beside("program.debug"), program.beside("stripped"));
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .arg(&program.path)
        .arg(&debug));
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .args([&program.path, &stripped]));
    let here = program.address("here");

    let alone = Object::parse(read(&stripped), None).unwrap();
    assert_eq!(alone.lookup(here), Err(Reason::NoSymbols));
    let (name, checksum) = alone.debug_link().unwrap();
    assert_eq!(name, "program.debug");
    assert_eq!(checksum, crc32(&read(&debug)));

    let with_debug = Object::parse(read(&stripped), Some(read(&debug))).unwrap();
    assert_chain(&program, &with_debug.lookup(here).unwrap());
    let main = with_debug.lookup(program.address("main")).unwrap();
    assert_eq!(functions(&main), ["main"]);
    assert_eq!(with_debug.build_id(), program.object().build_id());
}

#[test]
fn the_debug_file_of_another_build_is_refused() {
    let (program, other) = (chain("-g"), chain("-g -DOTHER=1 -O1"));
    let refused = Object::parse(read(&program.path), Some(read(&other.path))).unwrap_err();
    let (expected, found) = (
        program.object().build_id().unwrap(),
        other.object().build_id().unwrap(),
    );
    assert_eq!(
        refused,
        Error::DebugFileDiffers {
            expected: format!("build id {expected}"),
            found: format!("build id {found}"),
        }
    );

    // Without build ids the checksum decides.
    let program = chain("-g -Wl,--build-id=none");
    let debug = program.beside("program.debug");
    let linked = program.beside("linked");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .arg(&program.path)
        .arg(&debug));
    run(Command::new("objcopy")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .args([&program.path, &linked]));
    assert!(Object::parse(read(&linked), Some(read(&debug))).is_ok());
    let refused = Object::parse(read(&linked), Some(read(&program.path))).unwrap_err();
    assert!(refused.to_string().contains("checksum"), "{refused}");
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut checksum = flate2::Crc::new();
    checksum.update(bytes);
    checksum.sum()
}

#[test]
fn a_stripped_library_names_what_it_exports() {
    let program = chain("-fPIC -shared");
    let outer = program.address("outer");
    let stripped = program.beside("stripped");
    run(Command::new("strip").arg("-o").args([&stripped, &program.path]));
    let library = Object::parse(read(&stripped), None).unwrap();
    assert_eq!(functions(&library.lookup(outer).unwrap()), ["outer"]);
    // Better no name than that of the neighbour.
    let hole = Svma(program.address("signature").0 - 1);
    assert_eq!(library.lookup(hole), Err(Reason::NoSymbols));
}

#[test]
fn assembly_is_named_by_its_symbols() {
    for options in ["-g", ""] {
        let program = chain(options);
        for (label, function) in [
            ("hand_written", "hand_written"),
            ("inner_label", "hand_written"),
            ("sizeless", "sizeless"),
        ] {
            assert_eq!(functions(&program.names_at(label)), [function], "{options}");
        }
        let sizeless = Svma(program.address("sizeless").0 + 2);
        assert_eq!(
            functions(&program.object().lookup(sizeless).unwrap()),
            ["sizeless"]
        );
    }
}

#[test]
fn slots_of_the_linkage_table_are_named_by_what_they_lead_to() {
    for options in [
        "-fcf-protection=none",
        "-fcf-protection=full",
        "-fcf-protection=none -fno-plt",
        "-no-pie -Wl,-z,ibtplt",
        "-Wl,-z,now -Wl,-z,ibtplt",
    ] {
        let program = chain(options);
        let listing = run(Command::new("objdump")
            .args(["-d", "--no-show-raw-insn"])
            .arg(&program.path));
        let object = program.object();
        let mut slots = 0;
        for line in listing.lines().filter(|line| line.ends_with("@plt>:")) {
            let (address, name) = line.split_once(' ').unwrap();
            let address = Svma(u64::from_str_radix(address, 16).unwrap());
            let name = name.trim_matches(['<', '>', ':']);
            assert_eq!(functions(&object.lookup(address).unwrap()), [name], "{options}");
            slots += 1;
        }
        assert!(slots > 0 || options.contains("-fno-plt"), "{options}\n{listing}");
    }
}

#[test]
fn what_has_no_name_has_a_reason() {
    let program = chain("");
    let object = program.object();
    assert_eq!(object.lookup(Svma(0)), Err(Reason::NotCode));
    assert_eq!(object.lookup(Svma(u64::MAX)), Err(Reason::NotCode));
    let hole = Svma(program.address("signature").0 - 1);
    assert_eq!(object.lookup(hole), Err(Reason::BetweenSymbols));
}

#[test]
fn every_function_of_a_real_library_is_found_by_its_symbol() {
    let ldd = run(Command::new("gcc").arg("-print-file-name=libstdc++.so.6"));
    let path = std::fs::canonicalize(ldd.trim()).unwrap();
    let object = Object::parse(read(&path), None).unwrap();
    let symbols = symbols_of(&path, &["-D"]);
    let code: Vec<_> = symbols
        .iter()
        .filter(|(_, kind, _)| "TtWwi".contains(*kind))
        .collect();
    assert!(code.len() > 4000, "{}", code.len());
    for (address, _, name) in &code {
        let found = object.lookup(*address).unwrap();
        let system_name = found[0].system_name.as_ref().unwrap_or(&found[0].function);
        let aliases = code.iter().filter(|(of, _, _)| of == address);
        let names: Vec<_> = aliases.map(|(_, _, name)| without_version(name)).collect();
        assert!(
            names.contains(&&system_name[..]),
            "{name}: {system_name} is none of {names:?}"
        );
    }
}

fn without_version(name: &str) -> &str {
    name.split('@').next().unwrap()
}

#[test]
fn file_offsets_lead_to_stated_addresses_and_back() {
    for options in ["-g", "-g -no-pie", "-g -Wl,-z,noseparate-code"] {
        let program = chain(options);
        let object = program.object();
        let stated = program.address("signature");
        let offset = object.offset_of_svma(stated).unwrap();
        assert!(
            read(&program.path)[offset as usize..].starts_with(b"signature"),
            "{options}"
        );
        assert_eq!(object.svma_of_offset(offset), Some(stated), "{options}");
        assert_eq!(object.svma_of_offset(u64::MAX), None);
        assert_eq!(object.offset_of_svma(Svma(u64::MAX)), None);
    }
}

#[test]
fn what_is_no_program_for_this_machine_says_so() {
    assert_eq!(
        Object::parse("#!/bin/sh\n".into(), None).unwrap_err(),
        Error::NotElf
    );
    assert_eq!(Object::parse("".into(), None).unwrap_err(), Error::NotElf);
    let mut program = read(&chain("").path).to_vec();
    program[18] = 183;
    assert_eq!(
        Object::parse(program.into(), None).unwrap_err(),
        Error::Foreign {
            class: 2,
            machine: 183
        }
    );
}

#[test]
fn build_ids_are_those_that_readelf_shows() {
    let program = chain("");
    let notes = run(Command::new("readelf").arg("-nW").arg(&program.path));
    let (_, id) = notes.split_once("Build ID: ").unwrap();
    assert_eq!(
        program.object().build_id().as_deref(),
        id.split_whitespace().next()
    );
    assert_eq!(program.object().go_build_id(), None);
}
