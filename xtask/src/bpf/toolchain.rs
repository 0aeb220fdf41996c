//! A Rust that can build for the BPF target, which has no compiled `core`: it needs the source of `core`,
//! the unstable option that builds it, and bpf-linker with an LLVM that is no older than the compiler's.

use super::LINKER_VERSION;
use crate::command::{output, outside_cargo, path_with, run};
use crate::host;
use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release of LLVM that bpf-linker is built with, which is also that of Debian's rustc-web.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A stable Rust whose `core` source is packaged, and LLVM's tools.
const DEBIAN_RUST: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "llvm-22"];
/// What bpf-linker is built with.
const DEBIAN_LLVM: &[&str] = &[
    "llvm-22-dev",
    "libpolly-22-dev",
    "libxml2-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "g++",
];

const RUST_BY_HAND: &str = "install it with `rustup toolchain install nightly --component rust-src`";
const LINKER_BY_HAND: &str = "Install bpf-linker 0.13.0 from https://github.com/aya-rs/bpf-linker/releases into a \
    directory of PATH";

/// Which Rust builds the BPF object.
pub enum Toolchain {
    /// rustup's nightly.
    Nightly,
    /// Debian's `rustc-web`: a stable compiler that is told to take unstable options.
    Debian,
}

impl Toolchain {
    /// A toolchain that works, which is installed if there is none.
    pub fn require() -> Result<Self> {
        let toolchain = if nightly_has_source() {
            Self::Nightly
        } else if host::is_debian() {
            host::require_debian(DEBIAN_RUST, "to compile the BPF program").with_context(|| {
                format!(
                    "neither rustup's nightly nor Debian's Rust can be used (for the first: {RUST_BY_HAND})"
                )
            })?;
            Self::Debian
        } else {
            bail!("cannot compile the BPF program: rustup has no nightly with rust-src; {RUST_BY_HAND}");
        };
        toolchain.require_linker()?;
        Ok(toolchain)
    }

    /// Its cargo, with bpf-linker in `PATH`.
    pub fn cargo(&self) -> Result<Command> {
        let mut command = match self {
            Self::Nightly => {
                let mut command = outside_cargo("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
            Self::Debian => {
                let mut command = outside_cargo("/usr/bin/cargo");
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        command.env("PATH", path_with_linker()?);
        Ok(command)
    }

    /// Prefixes of paths that would differ from machine to machine in the object, and what to write for them.
    pub fn path_prefixes(&self, root: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
        Ok(vec![
            (cargo_home()?, "cargo"),
            (self.sysroot()?.join("lib/rustlib/src/rust"), "rust"),
            (root.to_path_buf(), "."),
        ])
    }

    /// Its LLVM's objcopy; that of GNU does not know BPF.
    pub fn objcopy(&self) -> Result<Command> {
        Ok(match self {
            Self::Nightly => {
                let answer = output(self.rustc().arg("-vV"))?;
                let host = field(&answer, "host: ").context("rustc does not name its host")?;
                let lib = self.sysroot()?.join("lib");
                let mut command = outside_cargo(lib.join("rustlib").join(host).join("bin/rust-objcopy"));
                // It is made to be started by rustc, which has found its libraries already.
                command.env("LD_LIBRARY_PATH", lib);
                command
            }
            Self::Debian => outside_cargo(Path::new(LLVM_PREFIX).join("bin/llvm-objcopy")),
        })
    }

    fn sysroot(&self) -> Result<PathBuf> {
        let sysroot = output(self.rustc().args(["--print", "sysroot"]))?;
        Ok(PathBuf::from(sysroot.trim_end()))
    }

    fn rustc(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut command = outside_cargo("rustup");
                command.args(["run", "nightly", "rustc"]);
                command
            }
            Self::Debian => outside_cargo("/usr/bin/rustc"),
        }
    }

    fn require_linker(&self) -> Result<()> {
        let mut linker = outside_cargo("bpf-linker");
        let installed = output(linker.arg("--version").env("PATH", path_with_linker()?));
        if installed.is_ok_and(|answer| answer.trim() == format!("bpf-linker {LINKER_VERSION}")) {
            return Ok(());
        }
        let llvm = output(self.rustc().arg("-vV"))?;
        if llvm_release(&llvm).is_none_or(|release| release > LLVM) {
            bail!(
                "bpf-linker {LINKER_VERSION} is missing, and {self} needs one with an LLVM newer than {LLVM}. {LINKER_BY_HAND}"
            );
        }
        if !host::is_debian() {
            bail!("bpf-linker {LINKER_VERSION} is missing. {LINKER_BY_HAND}");
        }
        host::require_debian(DEBIAN_LLVM, "to build bpf-linker").context(LINKER_BY_HAND)?;
        println!("Installing bpf-linker {LINKER_VERSION}, which links the BPF object, with cargo");
        run(outside_cargo("cargo")
            .args([
                "install",
                "bpf-linker",
                "--version",
                LINKER_VERSION,
                "--no-default-features",
            ])
            .args(["--features", "llvm-22"])
            .env("LLVM_PREFIX", LLVM_PREFIX))
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nightly => "rustup's nightly",
            Self::Debian => "Debian's rustc-web",
        })
    }
}

fn nightly_has_source() -> bool {
    let mut rustup = outside_cargo("rustup");
    output(rustup.args(["component", "list", "--installed", "--toolchain", "nightly"]))
        .is_ok_and(|components| components.lines().any(|component| component == "rust-src"))
}

/// The first number of the LLVM version in the answer to `rustc -vV`.
fn llvm_release(answer: &str) -> Option<u32> {
    field(answer, "LLVM version: ")?.split('.').next()?.parse().ok()
}

/// A line of the answer to `rustc -vV`.
fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name))
}

/// `PATH` with the directory that `cargo install` fills, which only rustup puts there.
fn path_with_linker() -> Result<OsString> {
    path_with(&cargo_home()?.join("bin"))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::llvm_release;

    #[test]
    fn the_release_of_llvm_is_read_from_the_compilers_answer() {
        let answer = "rustc 1.96.0 (built from a source tarball)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_release(answer), Some(22));
        assert_eq!(llvm_release("rustc 1.96.0\n"), None);
    }
}
