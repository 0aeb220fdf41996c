//! Real inputs, for a fuzzer to begin with.

use crate::parts_of;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use profiler::gopclntab::Pclntab;
use std::fs;
use std::path::Path;
use std::process::Command;

const C: &str = r#"
struct pair { long a, b; };
static inline long twice(long x) { return x * 2; }
__attribute__((noinline)) static long leaf(struct pair *p, int n) {
  volatile long room[16];
  for (int i = 0; i < n; i++) room[i & 15] = twice(p->a) + i;
  return room[n & 15];
}
__attribute__((noinline)) long spread(long n) {
  volatile char space[n + 1];
  space[n] = 1;
  struct pair p = {n, space[n]};
  return leaf(&p, (int)n) + 1;
}
int main(void) { return (int)spread(3); }
"#;

const GO: &str = "package main\n\nfunc main() { println(len([]int{1, 2})) }\n";

/// Go functions whose code is looked at.
const GO_CODE: [&str; 8] = [
    "runtime.asmcgocall",
    "runtime.cgocallback",
    "runtime.systemstack",
    "runtime.morestack",
    "runtime.gogo",
    "runtime.mcall",
    "runtime.cgoSigtramp",
    "runtime.goexit",
];

const CODE: [&str; 1] = [".text"];
const FRAMES: [&str; 3] = [".text", ".eh_frame", ".debug_frame"];
const DWARF: [&str; 9] = [
    ".text",
    ".debug_abbrev",
    ".debug_info",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_aranges",
];
const GO_TABLES: [&str; 7] = [
    ".gopclntab",
    ".noptrdata",
    ".data",
    ".rodata",
    ".go.module",
    ".go.func",
    ".go.buildinfo",
];

/// Small programs.
#[derive(Debug)]
pub struct Samples {
    /// Of C, in several forms.
    c: Vec<Vec<u8>>,
    /// Of Go; none if there is no Go.
    go: Option<Vec<u8>>,
}

impl Samples {
    /// Builds the programs; that of Go takes some seconds when it is built for the first time.
    pub fn build(with_go: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        fs::write(path("sample.c"), C)?;
        let mut c = Vec::new();
        for flags in [
            &["-g", "-nostdlib", "-static", "-Wl,-e,main"][..],
            &[
                "-gdwarf-4",
                "-fno-asynchronous-unwind-tables",
                "-nostdlib",
                "-static",
                "-Wl,-e,main",
            ],
            &["-s"],
        ] {
            let mut gcc = Command::new("gcc");
            gcc.args(["-O2", "-o"])
                .arg(path("c"))
                .args(flags)
                .arg(path("sample.c"));
            run(&mut gcc)?;
            c.push(fs::read(path("c"))?);
        }
        let go = if with_go { Some(go(folder.path())?) } else { None };
        Ok(Self { c, go })
    }

    /// Those for a target.
    pub fn of(&self, target: &str) -> Result<Vec<Vec<u8>>> {
        let of_c = |wanted: &[&str]| -> Result<Vec<Vec<u8>>> {
            let parts = self.c.iter().map(|elf| parts_of(elf, wanted, &[]));
            Ok(parts.collect::<Result<_, _>>()?)
        };
        let texts = |texts: &[&str]| Ok(texts.iter().map(|text| text.as_bytes().to_vec()).collect());
        match target {
            "elf" | "hook_table" => Ok(self.c.clone()),
            "dwarf" => of_c(&DWARF),
            "call_frames" => of_c(&FRAMES),
            "machine_code" => {
                // Behind the header of the one part.
                Ok(of_c(&CODE)?
                    .into_iter()
                    .flat_map(|part| [0, 1, 3, 5, 9].map(|which| code(which, &part)))
                    .collect())
            }
            "go" => self.go.iter().map(|elf| go_parts(elf)).collect(),
            "perf_map" => {
                texts(&["7f0000001000 40 LazyCompile:~f a.js:1\n7f0000001020 80 g\n7f0000000000 10000 all\n"])
            }
            "kallsyms" => texts(&[
                "0000000000000000 A fixed_percpu_data\nffffffff81000000 T startup_64\nffffffffc0000000 t nf_hook\t[nf_tables]\n",
            ]),
            "proc" => Ok(["maps", "status", "task"]
                .map(|file| match file {
                    "task" => b"202 0x7f1 0x80 0x0 0x0 0x0 0x0 0x7ffd1000 0x7f2000\n".to_vec(),
                    file => fs::read(format!("/proc/self/{file}")).unwrap_or_default(),
                })
                .to_vec()),
            "pprof" => {
                let profile = profiler::format::unfold::read(FOLDED.as_bytes())?;
                Ok(vec![profiler::format::pprof::write(&profile)?, raw_profile()])
            }
            "folded" => texts(&[FOLDED]),
            _ => Ok(vec![
                (0..=255).cycle().take(2048).collect(),
                vec![0; 64],
                vec![0x41; 600],
            ]),
        }
    }
}

const FOLDED: &str =
    "prog;main;f;g 7\nprog;[incomplete: no-rule];f 2\nprog;main;f;do_syscall_64_[k] 1\nother;main.main 3\n";

/// A profile as other programs write it, not packed.
fn raw_profile() -> Vec<u8> {
    let mut message = Vec::new();
    let mut field = |number: u8, content: &[u8]| {
        message.extend([number << 3 | 2, content.len() as u8]);
        message.extend(content);
    };
    // Sample types (samples/count, cpu/nanoseconds), a sample at location 1, its location and function, then strings.
    field(1, &[8, 1, 16, 2]);
    field(1, &[8, 3, 16, 4]);
    field(2, &[10, 1, 1, 18, 2, 5, 50]);
    field(3, &[8, 1, 16, 0, 24, 0x80, 32]);
    field(4, &[8, 1, 16, 1, 24, 0x90, 0x20, 34, 4, 8, 1, 16, 9]);
    field(5, &[8, 1, 16, 5, 24, 5, 32, 6]);
    for text in ["", "samples", "count", "cpu", "nanoseconds", "main.f", "main.go"] {
        field(6, text.as_bytes());
    }
    message
}

/// Code with its selector before it.
fn code(which: u8, part: &[u8]) -> Vec<u8> {
    const HEADER: usize = 13;
    let code = part.get(HEADER..).unwrap_or_default();
    [&[which], &code[..code.len().min(2048)]].concat()
}

fn go(folder: &Path) -> Result<Vec<u8>> {
    fs::write(folder.join("main.go"), GO)?;
    fs::write(folder.join("go.mod"), "module sample.test\n\ngo 1.21\n")?;
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-ldflags=-s -w", "-o", "sample"]);
    go.env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS")
        .current_dir(folder);
    run(&mut go)?;
    Ok(fs::read(folder.join("sample"))?)
}

/// The tables of a Go program and the code of a few functions.
fn go_parts(elf: &[u8]) -> Result<Vec<u8>> {
    let bytes = Bytes::copy_from_slice(elf);
    let file = object::File::parse(&*bytes)?;
    let pclntab = Pclntab::find(&file, &bytes)?.context("it has no Go functions")?;
    let functions = GO_CODE.iter().flat_map(|name| pclntab.functions_named(name));
    let code: Vec<_> = functions
        .map(|function| function.entry().0..function.end().0)
        .collect();
    Ok(parts_of(elf, &GO_TABLES, &code)?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
