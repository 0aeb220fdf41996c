//! Tables in programs that are compiled here and now, and bytes that are none.

use super::{Error, MAGIC, SYMBOL, Table, VERSION};
use crate::addr::{Avma, Svma};
use crate::hooks::symbolizer::ArgumentBlock;
use object::{Object, ObjectSection, ObjectSymbol};
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const HOOKS_C: &str = include_str!("tests/testdata/hooks.c");
const HOOKS_RS: &str = include_str!("tests/testdata/hooks.rs");
const STRICT: &str = "-Wall -Wextra -Werror -pedantic";

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    assert_eq!(errors, "", "{command:?}");
}

/// What `compiler OPTIONS` makes of a source that can include the header.
fn build(compiler: &str, source: &str) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let (input, output) = (folder.path().join("source"), folder.path().join("program"));
    std::fs::write(&input, source).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let mut words = compiler.split(' ').filter(|word| !word.is_empty());
    let mut command = Command::new(words.next().unwrap());
    if compiler.starts_with('g') {
        command.arg("-I").arg(include);
    }
    run(command.args(words).arg("-o").arg(&output).arg(&input));
    std::fs::read(output).unwrap()
}

fn c(options: &str) -> Vec<u8> {
    build(&format!("gcc {STRICT} {options} -x c"), HOOKS_C)
}

/// The table as the file has it, without a process. Only in what is not position independent the addresses are final.
fn read_from_file(file: &[u8]) -> Table {
    let address = Table::find(file).unwrap().unwrap();
    let object = object::File::parse(file).unwrap();
    let bytes = object
        .sections()
        .find_map(|section| section.data_range(address.0, Table::SIZE as u64).ok().flatten());
    Table::read(bytes.unwrap()).unwrap()
}

fn address_of(file: &[u8], function: &str) -> Option<Avma> {
    let object = object::File::parse(file).unwrap();
    let mut symbols = object.symbols();
    symbols
        .find(|symbol| symbol.name() == Ok(function))
        .map(|symbol| Avma(symbol.address()))
}

#[test]
fn the_hooks_of_a_program_in_c_and_in_cpp_are_read_back() {
    for compiler in [
        "gcc -std=c99 -x c",
        "gcc -std=c11 -O2 -x c",
        "gcc -std=gnu17 -O2 -flto -x c",
        "gcc -O2 -fvisibility=hidden -fdata-sections -ffunction-sections -Wl,--gc-sections -x c",
        "g++ -std=c++98 -x c++",
        "g++ -std=c++11 -O2 -x c++",
        "g++ -std=c++20 -O2 -fvisibility=hidden -fdata-sections -Wl,--gc-sections -x c++",
    ] {
        let (name, options) = compiler.split_once(' ').unwrap();
        let source = if name == "g++" {
            // Functions of C++ have other names; these are looked up by the ones of C.
            HOOKS_C.replace("void my_", "extern \"C\" void my_")
        } else {
            HOOKS_C.into()
        };
        let file = build(&format!("{name} {STRICT} -no-pie {options}"), &source);
        let table = read_from_file(&file);
        assert!(table.traceback.is_some(), "{compiler}");
        assert_eq!(table.traceback, address_of(&file, "my_traceback"), "{compiler}");
        assert_eq!(table.symbolizer, address_of(&file, "my_symbolizer"), "{compiler}");
    }
}

#[test]
fn the_argument_blocks_of_the_header_are_those_of_the_protocol() {
    let block = [
        ("pc", offset_of!(ArgumentBlock, pc)),
        ("file", offset_of!(ArgumentBlock, file)),
        ("lineno", offset_of!(ArgumentBlock, lineno)),
        ("func", offset_of!(ArgumentBlock, func)),
        ("entry", offset_of!(ArgumentBlock, entry)),
        ("more", offset_of!(ArgumentBlock, more)),
        ("data", offset_of!(ArgumentBlock, data)),
    ];
    let mut source = format!(
        "#include \"traceback_hooks.h\"\n#include <stddef.h>\n\
         _Static_assert(sizeof(struct profiler_symbolizer) == {}, \"symbolizer\");\n\
         _Static_assert(sizeof(struct profiler_traceback) == 32, \"traceback\");\n\
         _Static_assert(sizeof(struct profiler_traceback_hooks) == {}, \"table\");\n",
        size_of::<ArgumentBlock>(),
        Table::SIZE
    );
    let mut fields = block.map(|(name, at)| ("profiler_symbolizer", name, at)).to_vec();
    for (at, name) in ["context", "sig_context", "buf", "max"].into_iter().enumerate() {
        fields.push(("profiler_traceback", name, at * 8));
    }
    for (block, field, at) in fields {
        source += &format!("_Static_assert(offsetof(struct {block}, {field}) == {at}, \"{field}\");\n");
    }
    build(&format!("gcc {STRICT} -std=c11 -c -x c"), &source);
}

#[test]
fn a_stripped_library_still_exports_its_table() {
    for options in [
        "-shared -fPIC -s",
        "-shared -fPIC -s -O2 -fvisibility=hidden -fdata-sections -Wl,--gc-sections",
    ] {
        assert!(Table::find(&c(options)).unwrap().is_some(), "{options}");
    }
}

#[test]
fn a_stripped_executable_has_its_table_if_it_exports_it() {
    let export = format!("-Wl,--export-dynamic-symbol={SYMBOL}");
    for (options, is_found) in [
        ("-pie", true),
        ("-pie -s", false),
        (&format!("-pie -s {export}"), true),
        (&format!("-no-pie -s {export}"), true),
    ] {
        assert_eq!(Table::find(&c(options)).unwrap().is_some(), is_found, "{options}");
    }
}

#[test]
fn a_library_in_rust_can_publish_hooks() {
    let file = build("rustc --edition 2024 --crate-type cdylib -Cpanic=abort", HOOKS_RS);
    // The loader will write the addresses of the functions.
    read_from_file(&file);
}

#[test]
fn a_program_without_a_table_has_none() {
    assert_eq!(
        Table::find(&build("gcc -x c", "int main(void) { return 0; }")),
        Ok(None)
    );
    let refers = format!("extern char {SYMBOL}[];\nchar *f(void) {{ return {SYMBOL}; }}\n");
    assert_eq!(Table::find(&build("gcc -shared -fPIC -x c", &refers)), Ok(None));
}

#[test]
fn something_else_of_that_name_is_refused() {
    for source in [
        format!("void {SYMBOL}(volatile long *p) {{ p[1] = p[2] * p[3] / p[4] + p[5] * p[6] / p[7]; }}"),
        format!("long {SYMBOL}[3] = {{1}};"),
        format!("__thread long {SYMBOL}[4];"),
    ] {
        let file = build("gcc -shared -fPIC -x c", &source);
        assert_eq!(Table::find(&file), Err(Error::Symbol), "{source}");
    }
}

#[test]
fn a_name_that_only_begins_like_it_is_another() {
    for name in [format!("{SYMBOL}2"), format!("my_{SYMBOL}"), SYMBOL[1..].into()] {
        let file = build("gcc -shared -fPIC -x c", &format!("long {name}[4] = {{1}};"));
        assert_eq!(Table::find(&file), Ok(None), "{name}");
    }
}

#[test]
fn what_is_no_object_file_for_this_machine_is_refused() {
    let file = c("");
    let mut foreign = file.clone();
    foreign[18] = 183; // e_machine: AArch64
    for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &foreign] {
        assert!(matches!(Table::find(bytes), Err(Error::Object(_))));
    }
    assert!(Table::find(&file).unwrap().is_some());
}

#[test]
fn a_file_that_is_cut_or_damaged_anywhere_is_read_without_harm() {
    let file = c("-s -shared -fPIC -nostdlib");
    let address: Option<Svma> = Table::find(&file).unwrap();
    assert!(address.is_some());
    for length in 0..file.len() {
        let _ = Table::find(&file[..length]);
    }
    for at in 0..file.len() {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = file.clone();
            damaged[at] = value;
            let _ = Table::find(&damaged);
        }
    }
}

fn bytes(magic: u64, version: u64, traceback: u64, symbolizer: u64) -> Vec<u8> {
    [magic, version, traceback, symbolizer]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

#[test]
fn hooks_that_are_not_set_are_none() {
    for (traceback, symbolizer) in [(0, 0), (0x10, 0), (0, 0x20), (u64::MAX, 1)] {
        let hook = |address| (address != 0).then_some(Avma(address));
        assert_eq!(
            Table::read(&bytes(MAGIC, VERSION, traceback, symbolizer)),
            Ok(Table {
                traceback: hook(traceback),
                symbolizer: hook(symbolizer),
            })
        );
    }
}

#[test]
fn memory_that_is_no_table_is_refused() {
    assert_eq!(Table::read(&bytes(0, 0, 1, 2)), Err(Error::Magic { found: 0 }));
    assert_eq!(Table::read(&bytes(MAGIC, 1, 1, 2)), Err(Error::Version(1)));
    assert_eq!(
        Table::read(&bytes(MAGIC, u64::MAX, 1, 2)),
        Err(Error::Version(u64::MAX))
    );
    let table = bytes(MAGIC, VERSION, 1, 2);
    for found in 0..table.len() {
        assert_eq!(Table::read(&table[..found]), Err(Error::Size { found }));
    }
}
