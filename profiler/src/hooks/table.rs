//! The table by which a program without the Go runtime publishes hooks: a variable of known name and layout, which
//! `profiler/include/traceback_hooks.h` documents for those who write one.

use crate::addr::{Avma, Svma};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The name of the variable.
pub const SYMBOL: &str = "profiler_traceback_hooks";
/// Its first bytes, as a number.
pub const MAGIC: u64 = u64::from_le_bytes(*b"PROFHOOK");
/// The version of the argument blocks that the hooks take; that of `runtime.SetCgoTraceback`.
pub const VERSION: u64 = 0;

/// The hooks that a table names at the moment. A program may set them late. Whether there is code at an address is for
/// the caller to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Lists stacks. Without it, nothing may be called.
    pub traceback: Option<Avma>,
    /// Names addresses.
    pub symbolizer: Option<Avma>,
}

/// The table in memory.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: u64,
    version: u64,
    traceback: u64,
    symbolizer: u64,
}

/// Why there is no table, though the object is named as if there were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object file cannot be understood.
    #[error("cannot look for traceback hooks: {0}")]
    Object(String),
    /// The symbol is not that of such a variable.
    #[error(
        "{SYMBOL} is no table of traceback hooks: its symbol is not one of a variable of {} bytes",
        Table::SIZE
    )]
    Symbol,
    /// The memory is not all there.
    #[error("{SYMBOL} cannot be read: {found} of its {} bytes are there", Table::SIZE)]
    Size {
        /// How many bytes there are.
        found: usize,
    },
    /// Another variable of the same name, or one that the program has not filled.
    #[error(
        "{SYMBOL} is no table of traceback hooks: it begins with {found:#018x} and not with \"PROFHOOK\""
    )]
    Magic {
        /// What it begins with.
        found: u64,
    },
    /// The hooks expect other argument blocks.
    #[error("the traceback hooks of the program are of version {0}; only version {VERSION} is known")]
    Version(u64),
}

impl Table {
    /// Bytes that the table takes.
    pub const SIZE: usize = size_of::<Raw>();
    /// Where in it the pointer to the traceback function is.
    pub const TRACEBACK: u64 = offset_of!(Raw, traceback) as u64;
    /// Where in it the pointer to the symbolizer function is.
    pub const SYMBOLIZER: u64 = offset_of!(Raw, symbolizer) as u64;

    /// Where an object file, an executable or a library, says that its table is; `None` if it has none. One that it
    /// only refers to is in another object.
    ///
    /// # Errors
    /// If the file is no object file for this machine, or has something else under that name.
    pub fn find(file: &[u8]) -> Result<Option<Svma>, Error> {
        let damaged = |cause: object::read::Error| Error::Object(cause.to_string());
        let header = FileHeader64::<LE>::parse(file).map_err(damaged)?;
        header.endian().map_err(damaged)?;
        if header.e_machine(LE) != elf::EM_X86_64 {
            return Err(Error::Object("it is not for x86-64".into()));
        }
        let sections = header.sections(LE, file).map_err(damaged)?;
        // The dynamic symbols are fewer, and still there when the others have been stripped.
        for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let symbols = sections.symbols(LE, file, kind).map_err(damaged)?;
            if symbols.is_empty() {
                continue;
            }
            let names = sections
                .section(symbols.string_section())
                .and_then(|section| section.data(LE, file))
                .map_err(damaged)?;
            let found = symbols
                .iter()
                .find(|symbol| !symbol.is_undefined(LE) && is_named(names, symbol.st_name(LE)));
            if let Some(symbol) = found {
                return if symbol.st_type() == elf::STT_OBJECT && symbol.st_size(LE) >= Self::SIZE as u64 {
                    Ok(Some(Svma(symbol.st_value(LE))))
                } else {
                    Err(Error::Symbol)
                };
            }
        }
        Ok(None)
    }

    /// Reads the table from the bytes that a process has there.
    ///
    /// # Errors
    /// If they are not a table, or one of another version.
    pub fn read(memory: &[u8]) -> Result<Self, Error> {
        let Ok((raw, _)) = Raw::read_from_prefix(memory) else {
            return Err(Error::Size { found: memory.len() });
        };
        if raw.magic != MAGIC {
            return Err(Error::Magic { found: raw.magic });
        }
        if raw.version != VERSION {
            return Err(Error::Version(raw.version));
        }
        let hook = |address: u64| (address != 0).then_some(Avma(address));
        Ok(Self {
            traceback: hook(raw.traceback),
            symbolizer: hook(raw.symbolizer),
        })
    }
}

/// Whether the string there is the symbol. Only so many bytes are looked at: names without an end, in a file made for
/// that, would take as long as its author likes.
fn is_named(names: &[u8], offset: u32) -> bool {
    let rest = names.get(offset as usize..).unwrap_or_default();
    rest.strip_prefix(SYMBOL.as_bytes())
        .is_some_and(|end| end.first() == Some(&0))
}

#[cfg(test)]
mod tests;
