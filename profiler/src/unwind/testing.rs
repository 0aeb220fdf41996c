//! What the tests of several files here need.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol};
use profiler_abi::rule::{ExtRule, Kind, Rule};
use profiler_abi::sample::Regs;

use super::ext::ExtTable;
use super::rows::{Layer, Row, Rows};
use crate::addr::Svma;

/// Numbers that look random and are the same in each run (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A layer with one function per range.
pub(super) fn layer_from(ranges: &[(Range<u64>, Rule)]) -> Layer {
    let mut layer = Layer::default();
    for (range, rule) in ranges {
        let start = Svma(range.start);
        layer.push(start..Svma(range.end), [Row { start, rule: *rule }]);
    }
    layer
}

/// Rows with the given rules, for all of the address space.
pub(super) fn rows_from(ranges: &[(Range<u64>, Rule)]) -> Rows {
    Rows::overlay([layer_from(ranges)], &[Svma(0)..Svma(u64::MAX)])
}

/// A rule in words: `sp+16 bp@-16`, `*(10+8)+16 bp=` (a register without its r), `go AsmCgoCall 5`.
pub(super) fn words(rule: Rule, ext: &ExtTable) -> String {
    let saved = |offset: i64| match offset {
        0 => "bp=".to_owned(),
        offset => format!("bp@{offset:+}"),
    };
    match rule.kind() {
        kind @ (Kind::Sp | Kind::Bp) => format!(
            "{}+{} {}",
            if kind == Kind::Sp { "sp" } else { "bp" },
            rule.cfa_offset(),
            saved(-(rule.bp_below_cfa() as i64))
        ),
        Kind::Ext => {
            let rule = ext.rules()[rule.ext_index() as usize];
            let name = (0..17)
                .map(gimli::Register)
                .find(|r| Regs::from_dwarf(r.0) == Some(rule.reg))
                .and_then(gimli::X86_64::register_name)
                .expect("a register");
            let base = format!("{}{:+}", &name[1..], rule.offset);
            let cfa = match rule.flags & ExtRule::DEREF {
                0 => base,
                _ => format!("*({base}){:+}", rule.addend),
            };
            let bp = match (rule.bp_offset, rule.flags & ExtRule::BP_AT_BP) {
                (ExtRule::BP_SAME, 0) => "bp=".to_owned(),
                (ExtRule::BP_LOST, 0) => "bp?".to_owned(),
                (offset, 0) => saved(offset.into()),
                (offset, _) => format!("bp@bp{offset:+}"),
            };
            let ra = match rule.ra_offset {
                -8 => String::new(),
                offset => format!(" ra@{offset:+}"),
            };
            format!("{cfa} {bp}{ra}")
        }
        Kind::Go => {
            let switch = profiler_abi::rule::GoSwitch::from_bits(rule.go_switch()).expect("a switch");
            format!("go {switch:?} {}", rule.go_parameter())
        }
        kind => format!("{kind:?}"),
    }
}

/// Runs a compiler.
pub(super) fn run(command: &mut Command) {
    let output = command.output().expect("the command exists");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Compiles C (or C++, by the compiler's name) into `out`.
pub(super) fn compile(compiler: &str, source: &str, flags: &[&str], out: &Path) {
    let file = out.with_extension(if compiler == "g++" { "cc" } else { "c" });
    std::fs::write(&file, source).expect("the source is written");
    run(Command::new(compiler).args(flags).arg("-o").arg(out).arg(&file));
}

const GO_PROGRAM: &str = r#"package main

/*
extern int goCallback(int);
static int call(int n) { return goCallback(n) + 1; }
*/
import "C"
import "time"

//export goCallback
func goCallback(n C.int) C.int { return n * 2 }

func main() { println(C.call(3), time.Now().Unix()) }
"#;

/// Builds a small cgo program with a release of Go (or `local`).
pub(super) fn build_go(release: &str, folder: &Path) -> Vec<u8> {
    std::fs::write(folder.join("go.mod"), "module cgo\n\ngo 1.21\n").expect("go.mod is written");
    std::fs::write(folder.join("main.go"), GO_PROGRAM).expect("the source is written");
    run(Command::new("go")
        .args(["build", "-o", "program", "."])
        .env("GOTOOLCHAIN", release)
        .env("CGO_ENABLED", "1")
        .current_dir(folder));
    std::fs::read(folder.join("program")).expect("the program was built")
}

/// The functions of an object's symbol table: address and machine code by name.
pub(super) fn functions<'d>(file: &object::File<'d>) -> HashMap<String, (Svma, &'d [u8])> {
    let text = file.section_by_name(".text").expect("code");
    let data = text.data().expect("code");
    let mut functions = HashMap::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == object::SymbolKind::Text)
    {
        let start = symbol.address().wrapping_sub(text.address()) as usize;
        let code = data
            .get(start..)
            .and_then(|code| code.get(..symbol.size() as usize));
        if let (Ok(name), Some(code)) = (symbol.name(), code) {
            functions.insert(name.to_owned(), (Svma(symbol.address()), code));
        }
    }
    functions
}
