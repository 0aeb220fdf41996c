//! Symbols and DWARF in separate files. Whatever form they have, they name every address of the program's code as the
//! whole file does.

use super::{Name, Object, Program, Reason, read, run, symbols_of};
use crate::addr::Svma;
use crate::symbolize::{AltLink, Error};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Inlined functions, some of them in namespaces that only DWARF knows, and types that `dwz` finds twice.
const CODE: &str = r#"
#include <stdlib.h>
#include <vector>
namespace outer {
struct Point { int x, y; Point *next; };
namespace {
struct Hidden {
    int turn(int x) { return rand() + x; }
};
inline __attribute__((always_inline)) int innermost(Point *p) { Hidden h; return h.turn(p->x) * 3; }
}
static inline __attribute__((always_inline)) int middle(Point *p) { return innermost(p) + 1; }
__attribute__((noinline)) int work(int x)
{
    Point p = {x, x + 1, nullptr};
    auto lambda = [&](int by) { return middle(&p) * by; };
    std::vector<int> values;
    for (int i = 0; i < x; i++)
        values.push_back(lambda(i));
    return values.empty() ? 0 : values[x / 2];
}
}
static __attribute__((noinline)) int internal(int x) { return outer::work(x) + abs(rand()); }
int main(int argc, char **argv)
{
    return internal(argc);
}
"#;

const COMPILER: &str = "g++ -O2 -fno-asynchronous-unwind-tables";

fn program(options: &str) -> Program {
    Program::new(CODE, "cc", &format!("{COMPILER} {options}"))
}

fn tool(name: &str, arguments: &[&str], files: &[&Path]) {
    run(Command::new(name).args(arguments).args(files));
}

impl Program {
    /// Its debug file and the rest, which asks for it.
    fn split(&self, strip: &str) -> (PathBuf, PathBuf) {
        let (debug, stripped) = (self.beside("program.debug"), self.beside("stripped"));
        tool("objcopy", &["--only-keep-debug"], &[&self.path, &debug]);
        let link = format!("--add-gnu-debuglink={}", debug.display());
        tool("objcopy", &[strip, &link], &[&self.path, &stripped]);
        (debug, stripped)
    }

    /// What the whole file says about its code. Not about that of the C library's startup files.
    fn everything(&self) -> Vec<(Svma, Result<Vec<Name>, Reason>)> {
        let object = self.object();
        let names = self.sample().map(|address| (address, object.lookup(address)));
        let names: Vec<_> = names.collect();
        let depths = names.iter().map(|(_, names)| names.as_ref().map_or(0, Vec::len));
        assert!(depths.max() >= Some(4), "functions are inlined");
        names
    }

    /// Every third address of functions with DWARF.
    fn sample(&self) -> impl Iterator<Item = Svma> {
        let text = run(Command::new("nm").args(["-S", "--defined-only"]).arg(&self.path));
        let ranges: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                let [start, size, _, name] = words[..] else {
                    return None;
                };
                let ours = name.contains("work") || name.contains("main") || name.contains("internal");
                let number = |text| u64::from_str_radix(text, 16).unwrap();
                ours.then(|| number(start)..number(start) + number(size))
            })
            .collect();
        assert!(ranges.len() >= 3, "{text}");
        ranges.into_iter().flatten().step_by(3).map(Svma)
    }
}

/// Asserts that an object says the same as the whole file.
fn assert_same(object: &Object, expected: &[(Svma, Result<Vec<Name>, Reason>)], what: &str) {
    for (address, names) in expected {
        assert_eq!(&object.lookup(*address), names, "{what}: {address:x?}");
    }
    assert_eq!(object.dwarf_problem(), None, "{what}");
}

#[test]
fn a_debug_file_says_what_the_whole_file_says() {
    for (options, strip) in [
        ("-g", "--strip-all"),
        ("-g", "--strip-debug"),
        ("-g -gdwarf-4", "--strip-all"),
        ("-g -no-pie", "--strip-all"),
        ("-g -gz=zlib", "--strip-all"),
        ("-g -Wl,--compress-debug-sections=zstd", "--strip-all"),
        ("-g -Wl,--build-id=none", "--strip-all"),
    ] {
        let program = program(options);
        let (debug, stripped) = program.split(strip);
        let mut object = Object::parse(read(&stripped), None).unwrap();
        assert!(object.wants_debug_file());
        object.add_debug_file(read(&debug)).unwrap();
        assert!(!object.wants_debug_file());
        assert_same(&object, &program.everything(), options);
    }
}

#[test]
fn a_debug_file_that_cannot_be_told_to_belong_to_the_program_is_refused() {
    let program = program("-g -Wl,--build-id=none");
    let (debug, _) = program.split("--strip-all");
    // Neither a build id nor a link.
    let bare = program.beside("bare");
    tool("objcopy", &["--strip-all"], &[&program.path, &bare]);
    let mut object = Object::parse(read(&bare), None).unwrap();
    let refused = object.add_debug_file(read(&debug)).unwrap_err();
    assert!(
        refused.to_string().contains("nothing to compare with"),
        "{refused}"
    );
    assert!(object.wants_debug_file());
}

#[test]
fn names_from_a_debug_file_replace_those_that_were_known_before() {
    let program = program("-g");
    let (debug, stripped) = program.split("--strip-all");
    let internal = symbols_of(&program.path, &[])
        .into_iter()
        .find(|(_, _, name)| name.contains("internal"))
        .unwrap()
        .0;
    let mut object = Object::parse(read(&stripped), None).unwrap();
    assert_eq!(object.lookup(internal), Err(Reason::NoSymbols));
    object.add_debug_file(read(&debug)).unwrap();
    assert_same(&object, &program.everything(), "after");
}

/// Two programs, what they have in common in a third file, and what the first was before.
fn deduplicated(options: &str) -> (Program, PathBuf, PathBuf) {
    let program = program(options);
    let (debug, stripped) = program.split("--strip-all");
    let twin = program.beside("twin.debug");
    std::fs::copy(&debug, &twin).unwrap();
    let common = program.beside("common.debug");
    run(Command::new("dwz").current_dir(program.folder.path()).args([
        "-m",
        "common.debug",
        "-M",
        "common.debug",
        "program.debug",
        "twin.debug",
    ]));
    assert!(read(&common).len() > 1000);
    (program, debug, stripped)
}

#[test]
fn what_dwz_moved_to_a_supplementary_file_is_found_there() {
    for options in ["-g", "-g -gdwarf-4"] {
        let (program, debug, stripped) = deduplicated(options);
        let mut object = Object::parse(read(&stripped), None).unwrap();
        assert_eq!(object.alt_link(), None);
        // The checksum is that of the file before dwz, as in packages; the build id counts.
        object.add_debug_file(read(&debug)).unwrap();
        let AltLink { path, build_id } = object.alt_link().unwrap();
        assert_eq!(path, "common.debug");
        let common = read(&program.beside(&path));
        assert_eq!(
            Object::parse(common.clone(), None).unwrap().build_id(),
            Some(build_id)
        );

        object.add_supplementary_file(&common).unwrap();
        assert_eq!(object.alt_link(), None);
        assert_same(&object, &program.everything(), options);
    }
}

#[test]
fn the_supplementary_file_of_others_is_refused() {
    let (program, debug, stripped) = deduplicated("-g");
    let mut object = Object::parse(read(&stripped), Some(read(&debug))).unwrap();
    let refused = object.add_supplementary_file(&read(&program.path)).unwrap_err();
    assert!(matches!(refused, Error::DebugFileDiffers { .. }), "{refused}");
    // Without it, functions whose names are there have those of symbols.
    let names = object.lookup(program.address("main")).unwrap();
    assert_eq!(names.last().map(|name| &*name.function), Some("main"));
}

#[test]
fn mini_debuginfo_names_internal_functions() {
    let program = program("");
    let mini = program.beside("mini");
    std::fs::write(program.beside("keep"), "_ZL8internali\n").unwrap();
    let keep = format!("--keep-symbols={}", program.beside("keep").display());
    tool(
        "objcopy",
        &["-S", "--remove-section=.comment", &keep],
        &[&program.path, &mini],
    );
    tool("xz", &["-k", "-f"], &[&mini]);
    let stripped = program.beside("stripped");
    let section = format!(".gnu_debugdata={}", program.beside("mini.xz").display());
    tool(
        "objcopy",
        &["--strip-all", "--add-section", &section],
        &[&program.path, &stripped],
    );
    let object = Object::parse(read(&stripped), None).unwrap();
    let names = object.lookup(program.address("_ZL8internali")).unwrap();
    assert_eq!(names[0].function, "internal");
    assert_eq!(object.lookup(program.address("main")), Err(Reason::NoSymbols));
    assert!(object.wants_debug_file());
}

#[test]
fn mini_debuginfo_that_unpacks_out_of_proportion_is_not_unpacked() {
    let program = program("");
    let zeros = program.beside("zeros");
    std::fs::write(&zeros, vec![0; 100 << 20]).unwrap();
    tool("xz", &["-0", "-f"], &[&zeros]);
    let truncated = program.beside("truncated");
    let packed = read(&program.beside("zeros.xz"));
    std::fs::write(&truncated, &packed[..packed.len() / 2]).unwrap();
    for file in [program.beside("zeros.xz"), truncated, program.path.clone()] {
        let stripped = program.beside("stripped");
        let section = format!(".gnu_debugdata={}", file.display());
        tool(
            "objcopy",
            &["--strip-all", "--add-section", &section],
            &[&program.path, &stripped],
        );
        let object = Object::parse(read(&stripped), None).unwrap();
        assert_eq!(object.lookup(program.address("main")), Err(Reason::NoSymbols));
    }
}

/// Adds what lookups of these addresses want, from `file_of`.
fn add_split_units(object: &Object, addresses: &[Svma], file_of: impl Fn(&str) -> Bytes) -> usize {
    let mut added = 0;
    for &address in addresses {
        for unit in object.split_units(address) {
            object.add_split_unit(&unit, &file_of(&unit.path)).unwrap();
            added += 1;
        }
    }
    added
}

/// A program of one split unit, compiled and linked apart, and the same whole.
fn split_program(options: &str) -> (Program, Object) {
    let whole = program(options);
    let object = whole.beside("source.o");
    let (compile, link) = (format!("{options} -gsplit-dwarf"), options);
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    run(Command::new("g++")
        .args(words(&COMPILER["g++ ".len()..]))
        .args(words(&compile))
        .arg("-c")
        .arg(whole.beside("source.cc"))
        .arg("-o")
        .arg(&object)
        .current_dir(whole.folder.path()));
    let split = whole.beside("split");
    run(Command::new("g++")
        .args(words(link))
        .arg(&object)
        .arg("-o")
        .arg(&split));
    let object = Object::parse(read(&split), None).unwrap();
    (whole, object)
}

#[test]
fn split_units_say_what_the_whole_file_says() {
    for options in ["-g -gdwarf-5", "-g -gdwarf-4", "-g -gdwarf-5 -gz"] {
        let (whole, object) = split_program(options);
        let addresses: Vec<_> = whole.sample().collect();
        let units = object.split_units(addresses[0]);
        assert_eq!(units.len(), 1, "{options}");
        assert_eq!(units[0].folder.as_deref(), whole.folder.path().to_str());
        let added = add_split_units(&object, &addresses, |path| read(&whole.beside(path)));
        assert_eq!(added, 1, "{options}");
        assert_same(&object, &whole.everything(), options);
        assert_eq!(object.split_units(Svma(u64::MAX)), []);
    }
}

/// A package of one unit in version 5 of the format (DWARF 5, 7.3.5), which `dwp` of binutils does not write and that of
/// LLVM not of GCC's units.
fn package(whole: &Program, id: u64) -> PathBuf {
    let unit = whole.beside("source.dwo");
    // Kinds of sections (DW_SECT_INFO and so on) and their sizes.
    let kinds = [
        (1, ".debug_info.dwo"),
        (3, ".debug_abbrev.dwo"),
        (4, ".debug_line.dwo"),
        (6, ".debug_str_offsets.dwo"),
        (8, ".debug_rnglists.dwo"),
    ];
    let headers = run(Command::new("readelf").arg("-SW").arg(&unit));
    let sections: Vec<(u32, u32)> = kinds
        .into_iter()
        .filter_map(|(kind, name)| {
            let line = headers.lines().find(|line| line.contains(&format!(" {name} ")))?;
            let size = line.split_whitespace().rev().nth(5)?;
            Some((kind, u32::from_str_radix(size, 16).unwrap()))
        })
        .collect();
    // Version, columns, units, slots; the hash table and which row each slot has; columns, offsets, sizes.
    let mut index: Vec<u8> = [5, sections.len() as u32, 1, 2].map(u32::to_le_bytes).concat();
    let slots = if id & 1 == 0 {
        [(id, 1), (0, 0)]
    } else {
        [(0, 0), (id, 1)]
    };
    index.extend(slots.iter().flat_map(|(id, _)| id.to_le_bytes()));
    index.extend(slots.iter().flat_map(|(_, row): &(u64, u32)| row.to_le_bytes()));
    index.extend(sections.iter().flat_map(|(kind, _)| kind.to_le_bytes()));
    index.extend(sections.iter().flat_map(|_| 0_u32.to_le_bytes()));
    index.extend(sections.iter().flat_map(|(_, size)| size.to_le_bytes()));
    std::fs::write(whole.beside("index"), index).unwrap();
    let package = whole.beside("split.dwp");
    let section = format!(".debug_cu_index={}", whole.beside("index").display());
    tool("objcopy", &["--add-section", &section], &[&unit, &package]);
    package
}

#[test]
fn a_package_has_all_split_units() {
    for options in ["-g -gdwarf-5", "-g -gdwarf-4"] {
        let (whole, object) = split_program(options);
        let address = whole.sample().next().unwrap();
        let [unit] = &object.split_units(address)[..] else {
            panic!("it has one unit");
        };
        let package = if options.contains('5') {
            package(&whole, unit.id)
        } else {
            run(Command::new("dwp")
                .current_dir(whole.folder.path())
                .args(["source.dwo", "-o", "split.dwp"]));
            whole.beside("split.dwp")
        };
        object.add_package(&read(&package)).unwrap();
        assert_eq!(object.split_units(address), [], "{options}");
        assert_same(&object, &whole.everything(), options);
    }
}

#[test]
fn the_split_unit_of_another_build_is_refused() {
    let (whole, object) = split_program("-g -gdwarf-5");
    let (other, _) = split_program("-g -gdwarf-5 -DOTHER=1 -O1");
    let address = whole.sample().next().unwrap();
    let unit = object.split_units(address).remove(0);
    let refused = object
        .add_split_unit(&unit, &read(&other.beside("source.dwo")))
        .unwrap_err();
    assert!(refused.to_string().contains("unit id"), "{refused}");
    for file in [Bytes::from_static(b"\x7fELF"), read(&whole.path)] {
        assert!(object.add_split_unit(&unit, &file).is_err());
        let _ = object.add_package(&file);
    }
    // The line is in the program itself, the name comes from its symbols.
    let names = object.lookup(address).unwrap();
    assert!(names[0].line.is_some(), "{names:?}");
}
