//! From addresses to names. Bytes in, names out: nothing here opens a file; the caller brings the bytes of
//! object files, of `/proc/kallsyms` and of `/tmp/perf-PID.map`.
//!
//! A lookup that finds nothing is not an error but an answer: a [`Reason`], with what the user can do about it.
//!
//! Everything that is read here was written by the program that is watched, so it is read as if by an enemy:
//! names are cut, tables are searched by halving, and what DWARF may cost is bounded in [`Object`].

mod declaration;
mod demangle;
mod dwarf;
mod elf;
mod fuel;
mod kallsyms;
mod links;
mod mini;
mod object;
mod perf_map;
mod plt;
mod reason;
mod sections;
mod symbols;
mod told;

#[cfg(test)]
mod tests;

pub use dwarf::SplitUnit;
pub use elf::Error;
pub use kallsyms::{Kallsyms, KernelSymbol};
pub use links::AltLink;
pub use object::Object;
pub use perf_map::PerfMap;
pub use reason::Reason;

use crate::profile::Kind;
use std::ffi::CStr;

/// One function at an address. An address has several when the compiler put functions inside one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// Plain name as the language writes it: no parameters, no return type, no hash, no compiler suffix.
    pub function: String,
    /// The name the linker knows it by, if it differs.
    pub system_name: Option<String>,
    /// Source file, if known.
    pub file: Option<String>,
    /// Line in it, if known; 1 is the first. In a function that others were put inside: the line of the call.
    pub line: Option<u32>,
    /// Line where the function is declared, if known.
    pub start_line: Option<u32>,
    /// What kind of code it is.
    pub kind: Kind,
    /// The compiler put this function inside the one that follows.
    pub inlined: bool,
}

impl Name {
    /// A function of which a symbol table knows the name, and nothing else.
    fn of_symbol(symbol: &[u8]) -> Self {
        let plain = demangle::plain(&String::from_utf8_lossy(symbol));
        Self {
            function: plain.function,
            system_name: plain.system_name,
            file: None,
            line: None,
            start_line: None,
            kind: plain.kind,
            inlined: false,
        }
    }
}

/// Longest symbol that is read, in bytes. Names of C++ templates reach some ten thousand.
const MAX_SYMBOL: usize = 1 << 16;

/// The string that starts at `offset` of a string table and ends at a zero byte, cut after `longest` bytes.
fn string_at(table: &[u8], offset: u64, longest: usize) -> Option<&[u8]> {
    let rest = table.get(usize::try_from(offset).ok()?..)?;
    let rest = &rest[..rest.len().min(longest)];
    Some(CStr::from_bytes_until_nul(rest).map_or(rest, CStr::to_bytes))
}

/// Foreign bytes as text, cut to that many bytes.
fn text(bytes: &[u8], longest: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(longest)]).into_owned()
}
