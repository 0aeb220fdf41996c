//! Builds the helper that the profiler puts into processes: `helper/` of this directory, with the compiler that
//! builds the profiler, linked with nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the profiler looks up in the image; all else is local to it.
const EXPORTS: &str = "{ global: profiler_helper_*; local: *; };\n";

fn main() {
    let source = Path::new(&variable("CARGO_MANIFEST_DIR")).join("helper/src");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");

    let out = PathBuf::from(variable("OUT_DIR"));
    let object = out.join("helper.o");
    let exports = out.join("helper.exports");
    std::fs::write(&exports, EXPORTS).unwrap_or_else(|e| panic!("cannot write {}: {e}", exports.display()));

    // One unit, so that every call is resolved inside; optimised, since that is what removes all paths to a panic.
    run(Command::new(variable("RUSTC"))
        .arg(source.join("lib.rs"))
        .args([
            "--crate-name=profiler_helper",
            "--crate-type=lib",
            "--edition=2024",
        ])
        .arg(format!("--emit=obj={}", object.display()))
        .arg(format!("--target={}", variable("TARGET")))
        .args(["-Copt-level=2", "-Ccodegen-units=1", "-Cpanic=abort"])
        .args([
            "-Crelocation-model=pic",
            "-Cdebug-assertions=off",
            "-Cdebuginfo=0",
        ])
        // For our own walks, which go on through the handler to what it interrupted.
        .arg("-Cforce-unwind-tables=yes"));

    // `-z defs`: whatever is not in the object, as a call of memcpy or of a panic, is an error.
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    run(Command::new(linker)
        .args([
            "-shared",
            "-nostdlib",
            "-Wl,-Bsymbolic",
            "-Wl,-z,defs",
            "-Wl,-z,noexecstack",
            "-Wl,--build-id=none",
        ])
        .arg(format!("-Wl,--version-script={}", exports.display()))
        .arg("-o")
        .arg(out.join("helper.so"))
        .arg(&object));
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|e| panic!("cargo sets {name}: {e}"))
}
