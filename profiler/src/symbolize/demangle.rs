//! From the names that linkers use to the names that people use.

use crate::profile::Kind;
use cpp_demangle::DemangleOptions;
use std::fmt::{self, Write};

/// A symbol, made readable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// The name without parameters, return type, hash, version or suffix of the compiler.
    pub(super) function: String,
    /// The symbol, if it differs.
    pub(super) system_name: Option<String>,
    /// By the way the name is mangled; [`Kind::Native`] if it is not.
    pub(super) kind: Kind,
}

/// Symbols longer than this are not demangled, in bytes.
const MAX_MANGLED: usize = 16 << 10;
/// Names longer than this stay mangled, in bytes: both manglings can repeat a part by two characters, and that
/// part can hold repetitions itself.
const MAX_DEMANGLED: usize = 64 << 10;

/// Makes a symbol readable: C++ and Rust (both manglings) are demangled, versions and the suffixes that compilers
/// give to copies and parts of a function go. `name@plt` keeps its end.
pub(super) fn plain(symbol: &str) -> Plain {
    let (base, end) = match symbol.strip_suffix("@plt") {
        Some(base) => (base, "@plt"),
        None => (symbol, ""),
    };
    let base = without_compiler_suffix(without_version(base));
    let (name, kind) = if let Some(name) = rust(base) {
        (Some(name), Kind::Rust)
    } else {
        (cpp(base), Kind::Native)
    };
    let function = name.unwrap_or_else(|| base.to_owned()) + end;
    Plain {
        system_name: (function != symbol).then(|| symbol.to_owned()),
        function,
        kind,
    }
}

/// `memcpy` of `memcpy@@GLIBC_2.14`.
fn without_version(symbol: &str) -> &str {
    match symbol.find('@') {
        None | Some(0) => symbol,
        Some(at) => &symbol[..at],
    }
}

/// Suffixes of GCC and LLVM for what is still the same function in the source: the unlikely part of it
/// (`.cold`), a part that was not put inside its callers (`.part`), copies for certain arguments (`.constprop`,
/// `.isra`, `.clone`), and names made unique in link-time optimization (`.lto_priv`, `.llvm`, `.localalias`).
/// Most are followed by a number, and several may follow one another.
fn without_compiler_suffix(symbol: &str) -> &str {
    const SUFFIXES: [&str; 8] = [
        ".cold",
        ".part",
        ".constprop",
        ".isra",
        ".clone",
        ".lto_priv",
        ".llvm",
        ".localalias",
    ];
    let mut rest = symbol;
    loop {
        let unnumbered = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        let word = match unnumbered.strip_suffix('.') {
            Some(word) if unnumbered.len() < rest.len() => word,
            _ => rest,
        };
        match SUFFIXES.iter().find_map(|suffix| word.strip_suffix(suffix)) {
            Some(shorter) if !shorter.is_empty() => rest = shorter,
            _ => return rest,
        }
    }
}

fn rust(symbol: &str) -> Option<String> {
    let looks_so = symbol.starts_with("_R") || is_legacy_rust(symbol);
    if !looks_so || symbol.len() > MAX_MANGLED {
        return None;
    }
    let name = rustc_demangle::try_demangle(symbol).ok()?;
    let mut out = Bounded::default();
    // The alternate form leaves the hash out.
    write!(out, "{name:#}").ok()?;
    Some(out.0)
}

/// The legacy mangling is that of a C++ name, told apart by its last part: `17h`, 16 digits of a hash, `E`.
fn is_legacy_rust(symbol: &str) -> bool {
    let hash = symbol
        .strip_suffix('E')
        .and_then(|s| s.len().checked_sub(19).and_then(|at| s.get(at..)));
    symbol.starts_with("_ZN")
        && hash.is_some_and(|hash| {
            hash.strip_prefix("17h")
                .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        })
}

fn cpp(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_Z") || symbol.len() > MAX_MANGLED {
        return None;
    }
    let options = DemangleOptions::new()
        .no_params()
        .no_return_type()
        .hide_expression_literal_types();
    let mut out = Bounded::default();
    cpp_demangle::Symbol::new(symbol)
        .ok()?
        .structured_demangle(&mut out, &options)
        .ok()?;
    Some(out.0)
}

/// A string that refuses to grow without bound.
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len() + s.len() > MAX_DEMANGLED {
            return Err(fmt::Error);
        }
        self.0.push_str(s);
        Ok(())
    }
}
