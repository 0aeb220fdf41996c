//! C++: qualified names, templates, lambdas, and a cross-check against `addr2line`.

use super::{Program, functions, read, run};
use crate::addr::Svma;
use crate::symbolize::dwarf::Dwarf;
use crate::symbolize::elf::Elf;
use std::io::Write;
use std::process::{Command, Stdio};

const SHAPES: &str = r#"
#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>
#define HERE(label) __asm__ volatile(#label ": nop")
#define NOINLINE __attribute__((noinline))
#define INLINE inline __attribute__((always_inline))

namespace outer_space::inner {
    template <typename T> struct Box {
        T content;
        NOINLINE T get(int times) const { HERE(in_get); return content * times; } // get is here
        INLINE T twice() const { HERE(in_twice); return content + content; } // twice is here
        NOINLINE T operator()(int x) { HERE(in_call); return content - x; } // call is here
    };
}

namespace {
    NOINLINE int hidden(int x) { HERE(in_hidden); return x ^ 5; } // hidden is here
}

static NOINLINE int file_static(int x) { HERE(in_static); return x ^ 6; } // static is here

namespace {
    struct Shelf { int room(int x) const; };
    INLINE int Shelf::room(int x) const { HERE(in_room); return x ^ 8; } // room is here
}

template <typename F> NOINLINE int apply(F f, int x) { return f(x); } // apply calls

extern "C" NOINLINE int plain_c(int x) { HERE(in_c); return x ^ 7; } // c is here

int main(int argc, char **argv) // main starts
{
    outer_space::inner::Box<int> box{argc};
    int sum = box.get(3) + box(4) + hidden(argc) + file_static(argc) + plain_c(argc);
    sum += box.twice(); // main calls twice
    sum += apply([argc](int x) { HERE(in_lambda); return x * argc; }, 5); // lambda is here
    sum += Shelf().room(sum); // main calls room
    std::map<std::string, std::vector<int>> shelves;
    for (int i = 0; i < argc; i++) shelves[std::to_string(i)].push_back(sum);
    std::ostringstream text;
    for (auto &[name, items] : shelves) {
        std::sort(items.begin(), items.end(), [](int a, int b) { return a > b; });
        text << name << items.size();
    }
    return text.str().size();
}
"#;

fn shapes(options: &str) -> Program {
    Program::new(SHAPES, "cpp", &format!("g++ -std=c++17 -O2 {options}"))
}

#[test]
fn functions_are_named_as_people_write_them() {
    for options in ["-g -gdwarf-4", "-g -gdwarf-5", ""] {
        let program = shapes(options);
        for (label, function, line) in [
            ("in_get", "outer_space::inner::Box<int>::get", "// get is here"),
            (
                "in_call",
                "outer_space::inner::Box<int>::operator()",
                "// call is here",
            ),
            ("in_hidden", "(anonymous namespace)::hidden", "// hidden is here"),
            ("in_static", "file_static", "// static is here"),
            ("in_c", "plain_c", "// c is here"),
        ] {
            let names = program.names_at(label);
            assert_eq!(functions(&names), [function], "{options}");
            let line = program.line(line).filter(|_| !options.is_empty());
            assert_eq!(names[0].line, line, "{options}: {function}");
            assert_eq!(names[0].start_line, line, "{options}: {function}");
        }
    }
}

#[test]
fn inlined_methods_and_lambdas_have_whole_names_and_lines() {
    for options in ["-gdwarf-4", "-gdwarf-5"] {
        let program = shapes(options);
        let (here, call, main) = (
            program.line("// twice is here"),
            program.line("// main calls twice"),
            program.line("// main starts"),
        );
        assert_eq!(
            program.shown_at("in_twice"),
            [
                ("outer_space::inner::Box<int>::twice".to_owned(), here, here, true),
                ("main".to_owned(), call, main, false),
            ]
        );
        let (here, call) = (
            program.line("// room is here"),
            program.line("// main calls room"),
        );
        let room = "(anonymous namespace)::Shelf::room".to_owned();
        assert_eq!(
            program.shown_at("in_room"),
            [(room, here, here, true), ("main".to_owned(), call, main, false)]
        );
        let (here, call) = (program.line("// lambda is here"), program.line("// apply calls"));
        assert_eq!(
            program.shown_at("in_lambda"),
            [
                ("main::{lambda}::operator()".to_owned(), here, here, true),
                ("apply<main::{lambda(int)#1}>".to_owned(), call, call, false),
            ]
        );
    }
}

#[test]
fn the_linker_keeps_its_name() {
    let program = shapes("-g");
    let names = program.names_at("in_get");
    assert_eq!(
        names[0].system_name.as_deref(),
        Some("_ZNK11outer_space5inner3BoxIiE3getEi")
    );
}

/// `addr2line` of binutils reads DWARF with other code. At every instruction, the lines of all frames must agree.
#[test]
fn every_instruction_has_the_frames_that_addr2line_shows() {
    let program = shapes("-g");
    let object = program.object();
    let listing = run(Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "-j", ".text"])
        .arg(&program.path));
    let instructions: Vec<u64> = listing
        .lines()
        .filter(|line| line.starts_with(' ') && !is_padding(line))
        .filter_map(|line| u64::from_str_radix(line.split_once(':')?.0.trim(), 16).ok())
        .collect();
    assert!(instructions.len() > 1000, "{}", instructions.len());

    let theirs = addr2line(&program, &instructions);
    assert_eq!(theirs.len(), instructions.len());
    for (&address, theirs) in instructions.iter().zip(theirs) {
        let ours: Vec<String> = match object.lookup(Svma(address)) {
            Ok(names) => names
                .iter()
                .map(|name| name.line.map_or("?".to_owned(), |line| line.to_string()))
                .collect(),
            Err(_) => vec!["?".to_owned()],
        };
        assert_eq!(ours, theirs, "at {address:#x}");
    }
}

#[test]
fn reading_all_that_a_compiler_wrote_takes_a_fraction_of_the_fuel() {
    for options in ["-gdwarf-4", "-gdwarf-5", "-g -flto", "-g3"] {
        let program = shapes(options);
        let elf = Elf::parse(&read(&program.path)).unwrap();
        let dwarf = Dwarf::load(&elf, None).unwrap();
        let text = elf.section(".text").unwrap();
        for address in (text.address..text.address + text.size).step_by(4) {
            dwarf.frames(address).unwrap();
        }
        let (read, granted) = dwarf.reads();
        assert!(
            read > 1000 && read < granted / 4,
            "{options}: {read} of {granted}"
        );
    }
}

fn is_padding(line: &str) -> bool {
    let instruction = line.split_once('\t').map_or("", |(_, text)| text);
    ["nop", "xchg   %ax,%ax", "data16", "cs nop"]
        .iter()
        .any(|padding| instruction.starts_with(padding))
}

/// The lines of all frames at each address, `?` for unknown ones.
fn addr2line(program: &Program, addresses: &[u64]) -> Vec<Vec<String>> {
    let mut child = Command::new("addr2line")
        .args(["-a", "-i", "-e"])
        .arg(&program.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input: String = addresses
        .iter()
        .map(|address| format!("{address:#x}\n"))
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let mut found: Vec<Vec<String>> = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        match line.rsplit_once(':') {
            None => found.push(Vec::new()),
            Some((_, number)) => {
                let number = number
                    .split(' ')
                    .next()
                    .unwrap()
                    .replace('0', if number == "0" { "?" } else { "0" });
                found.last_mut().unwrap().push(number);
            }
        }
    }
    found
}
