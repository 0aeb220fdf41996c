//! Builds the programs to be profiled, from `tests/targets`.
//!
//! They go to `tests-targets` in cargo's target directory. Go's own cache decides what has to be compiled; C
//! takes so little time that it is compiled always.

use crate::chain::{Checker, Spec, Symbols};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The Go releases that targets are built with: the first and a middle one of those supported, and the machine's.
pub const GO_TOOLCHAINS: [&str; 3] = ["go1.21.13", "go1.24.11", "local"];

/// Every Go release that is supported, one of each series.
pub const EVERY_GO: [&str; 7] = [
    "go1.21.13",
    "go1.22.10",
    "go1.23.9",
    "go1.24.11",
    "go1.25.5",
    "go1.26.6",
    "go1.27.3",
];

/// How a Go target is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An executable at a fixed address.
    Exe,
    /// A position-independent executable.
    Pie,
    /// An executable without symbol table and DWARF (`-ldflags "-s -w"`).
    Stripped,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exe, Self::Pie, Self::Stripped];

    fn label(self) -> &'static str {
        match self {
            Self::Exe => "exe",
            Self::Pie => "pie",
            Self::Stripped => "stripped",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Exe => &["-buildmode=exe"],
            Self::Pie => &["-buildmode=pie"],
            Self::Stripped => &["-buildmode=exe", "-ldflags=-s -w"],
        }
    }
}

/// A program that was built.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable or library.
    pub path: PathBuf,
    /// Its folder in `tests/targets`.
    folder: String,
    /// What all programs of its languages have in common.
    common: &'static [&'static str],
    stripped: bool,
}

impl Program {
    /// The true chains of the program, from `chains.txt` in its folder.
    pub fn checker(&self) -> Result<Checker> {
        let mut texts = Vec::new();
        let common = self.common.iter().map(|file| format!("common/{file}"));
        for file in common.chain([format!("{}/chains.txt", self.folder)]) {
            let path = targets().join(&file);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            texts.push((file, text));
        }
        let spec = Spec::parse(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())))?;
        let module = self
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        spec.checker(if self.stripped {
            Symbols::Stripped { module }
        } else {
            Symbols::All
        })
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }
}

/// Builds the Go program in `folder` with a toolchain of [`GO_TOOLCHAINS`]; `tags` are build tags, separated by
/// commas.
pub fn go(folder: &str, toolchain: &str, form: Form, tags: &str) -> Result<Program> {
    let _building = building();
    let label = form.label();
    let path = output(&format!("{}{tags}-{toolchain}-{label}", folder.replace('/', "_")))?;
    let mut build = Command::new("go");
    build
        .current_dir(targets().join(folder))
        .env("GOTOOLCHAIN", toolchain)
        // A flag from outside would make another program.
        .env_remove("GOFLAGS")
        .env_remove("CGO_CFLAGS")
        .env("CGO_ENABLED", "1")
        .args(["build", "-o"])
        .arg(&path)
        .args(form.flags())
        .args(["-tags", tags, "."]);
    run(&mut build)?;
    Ok(Program {
        path,
        folder: folder.to_owned(),
        common: &["go.chains.txt"],
        stripped: form == Form::Stripped,
    })
}

/// Builds the Go program in `folder`, as the file `folder-name`, with the C compiler `cc` and flags of `go build`.
pub fn go_with(folder: &str, name: &str, cc: &str, flags: &[&str]) -> Result<Program> {
    go_by("local", folder, name, cc, flags)
}

/// The same with a toolchain of [`EVERY_GO`].
pub fn go_by(toolchain: &str, folder: &str, name: &str, cc: &str, flags: &[&str]) -> Result<Program> {
    let _building = building();
    let path = output(&format!("{folder}-{name}"))?;
    let mut build = Command::new("go");
    build
        .current_dir(targets().join(folder))
        .env("GOTOOLCHAIN", toolchain)
        .env_remove("GOFLAGS")
        .env_remove("CGO_CFLAGS")
        .env("CGO_ENABLED", "1")
        .env("CC", cc)
        .args(["build", "-o"])
        .arg(&path)
        .args(flags)
        .arg(".");
    run(&mut build)?;
    Ok(Program {
        path,
        folder: folder.to_owned(),
        common: &["go.chains.txt"],
        stripped: false,
    })
}

/// Builds the C or C++ program `source` (`folder/host/file.c`) around the Go library in `folder`, as the file `name`;
/// linked with the library, if it does not load it itself.
pub fn host(source: &str, name: &str, library: Option<&Program>) -> Result<Program> {
    let linked: Vec<&OsStr> = library.iter().map(|library| library.path.as_os_str()).collect();
    let mut program = compile(source, name, &[], &linked)?;
    program.folder = source.split('/').next().unwrap_or_default().to_owned();
    program.common = &["go.chains.txt", "c.chains.txt"];
    Ok(program)
}

/// Builds the C or C++ program `source` (`folder/file.c`), without frame pointers and without tail calls.
pub fn native(source: &str) -> Result<Program> {
    compile(source, &stem(source), &[], &[])
}

/// Builds a shared library in the same way.
pub fn native_library(source: &str) -> Result<Program> {
    compile(source, &stem(source), &["-shared", "-fPIC"], &[])
}

/// Builds a program of parts: those after the first, which is the program's `main`, with flags of their own and without debug
/// information.
pub fn native_parts(source: &str, parts: &[(&str, &[&str])]) -> Result<Program> {
    let mut objects = Vec::new();
    for (part, flags) in parts {
        let flags = [&["-c", "-g0"], *flags].concat();
        objects.push(compile(part, &format!("{}.o", stem(part)), &flags, &[])?.path);
    }
    let linked: Vec<&OsStr> = objects.iter().map(|path| path.as_os_str()).collect();
    let folder = source.split('/').next().unwrap_or_default();
    compile(source, folder, &[], &linked)
}

/// The same program without symbols and debug information.
pub fn stripped(program: &Program) -> Result<Program> {
    let mut path = program.path.clone().into_os_string();
    path.push("-stripped");
    let path = PathBuf::from(path);
    run(Command::new("strip").arg("-o").arg(&path).arg(&program.path))?;
    Ok(Program {
        path,
        stripped: true,
        ..program.clone()
    })
}

/// Builds the Rust program `folder/main.rs`, as users release it, with debug information.
pub fn rust(folder: &str) -> Result<Program> {
    let _building = building();
    let path = output(folder)?;
    let source = targets().join(folder).join("main.rs");
    run(Command::new("rustc")
        .args(["--edition=2024", "-Copt-level=3", "-Cdebuginfo=2", "-o"])
        .arg(&path)
        .arg(source))?;
    Ok(Program {
        path,
        folder: folder.to_owned(),
        common: &["c.chains.txt"],
        stripped: false,
    })
}

/// A command that runs the Python script `script` of the targets.
pub fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(targets().join(script));
    command
}

/// The name of a source file, without its ending.
fn stem(source: &str) -> String {
    let stem = Path::new(source).file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn compile(source: &str, name: &str, flags: &[&str], linked: &[&OsStr]) -> Result<Program> {
    let _building = building();
    let source_path = targets().join(source);
    let path = output(name)?;
    let compiler = if source.ends_with(".cc") { "g++" } else { "gcc" };
    // Renamed into place, so that a run of the last build can go on.
    let fresh = path.with_extension("new");
    run(Command::new(compiler)
        .args(["-O2", "-g", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"])
        .args(["-Wall", "-Wextra", "-Werror", "-pthread"])
        .args(flags)
        .arg(&source_path)
        .args(linked)
        .arg("-o")
        .arg(&fresh))?;
    fs::rename(&fresh, &path)?;
    let folder = source
        .rsplit_once('/')
        .map_or("", |(folder, _)| folder)
        .to_owned();
    Ok(Program {
        path,
        folder,
        common: &["c.chains.txt"],
        stripped: false,
    })
}

/// Cargo's target directory.
pub fn cargo_target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    )
}

fn targets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("targets")
}

fn output(name: &str) -> Result<PathBuf> {
    let folder = cargo_target().join("tests-targets");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // The kernel shows mapped files by their real path.
    Ok(folder.canonicalize()?.join(name))
}

/// Lets one build run at a time: two of the same program would write the same file.
fn building() -> MutexGuard<'static, ()> {
    static BUILDING: Mutex<()> = Mutex::new(());
    BUILDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a tool to its end; what it printed is part of the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}: is it installed?"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Form, GO_TOOLCHAINS, go, native, run};
    use crate::chain::Verdict;
    use crate::target::Target;
    use std::process::Command;

    #[test]
    fn go_targets_work_in_every_form_with_every_toolchain() {
        let mut checksums = Vec::new();
        for toolchain in GO_TOOLCHAINS {
            for form in Form::ALL {
                let program = go("go_nested", toolchain, form, "").unwrap();
                let finished = Target::start(program.command()).unwrap().finish().unwrap();
                assert!(finished.status.success(), "{program:?}");
                checksums.push(finished.checksum);
            }
        }
        checksums.dedup();
        assert_eq!(checksums.len(), 1, "{checksums:?}");
    }

    #[test]
    fn the_frameless_leaf_of_go_nested_has_no_frame() {
        for toolchain in GO_TOOLCHAINS {
            let program = go("go_nested", toolchain, Form::Exe, "").unwrap();
            let code = run(Command::new("objdump")
                .args(["-d", "--no-show-raw-insn", "--disassemble=main.goLeafNoFrame"])
                .arg(&program.path))
            .unwrap();
            assert!(
                code.contains("imul") && code.contains("ret"),
                "{toolchain}: {code}"
            );
            assert!(
                !code.contains("push") && !code.contains("%rsp"),
                "{toolchain}: {code}"
            );
        }
    }

    #[test]
    fn every_target_says_what_its_chains_are() {
        let c = [
            "c_deep/c_deep.c",
            "dlopen_late/dlopen_late.c",
            "signal_frames/signal_frames.c",
        ];
        let others = [
            "cpp_throw/cpp_throw.cc",
            "busy_threads/busy_threads.c",
            "vdso_time/c/vdso_time.c",
        ];
        for source in c.into_iter().chain(others) {
            let root = ["_start", "__libc_start_main", "__libc_start_call_main", "main"];
            assert_eq!(
                native(source).unwrap().checker().unwrap().verdict(&root),
                Verdict::Exact,
                "{source}"
            );
        }
        for folder in ["go_nested", "go_moving", "vdso_time/go"] {
            for form in [Form::Exe, Form::Stripped] {
                let checker = go(folder, "local", form, "").unwrap().checker().unwrap();
                let root = ["runtime.goexit", "runtime.main", "main.main"];
                assert_eq!(checker.verdict(&root), Verdict::Exact, "{folder}");
            }
        }
    }
}
