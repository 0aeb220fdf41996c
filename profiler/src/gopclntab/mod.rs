//! Go's own table of functions, `.gopclntab`: where each function is, how far the stack pointer has moved at
//! each instruction, and which source line of which (inlined) function an instruction comes from.
//!
//! Every Go program carries it, also a stripped one, because the runtime needs it to walk stacks. The format is
//! the one with magic `0xfffffff1` (Go 1.20 and later), as `runtime/symtab.go`, `runtime/symtabinl.go` and
//! `internal/abi/symtab.go` of Go 1.21–1.27 read it.
//!
//! Everything read here is foreign: offsets are checked, tables are walked only as far as the function they
//! belong to reaches, and a record that points out of its table is left out.

mod function;
mod image;
mod inline;
mod locate;
mod pcvalue;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub use function::{Function, Functions};
pub(crate) use image::Image;
pub use inline::LogicalFrame;

use crate::addr::Svma;
use crate::words::u32_at;
use bytes::Bytes;
use std::ops::Range;

/// Why the table of functions of a Go object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The table is of a format that is not read here.
    #[error(
        "the Go function table has magic {magic:#010x}; only {:#010x}, of Go 1.20 and later, is understood: \
         build the program with a newer Go",
        locate::MAGIC
    )]
    Format {
        /// The first word of the table.
        magic: u32,
    },
    /// The table is there, but nothing in the file describes it.
    #[error("the Go function table at {table} has no runtime.moduledata that describes it")]
    NoModuledata {
        /// Where the table is.
        table: Svma,
    },
    /// The table contradicts itself.
    #[error("the Go function table is damaged: {0}")]
    Damaged(&'static str),
}

/// The table of functions of one Go object. A clone shares the bytes.
#[derive(Clone, Debug)]
pub struct Pclntab {
    /// `moduledata.text`: what the entries of `ftab` count from. Not the start of the section `.text`.
    text: u64,
    /// `[minpc, maxpc)`.
    range: Range<u64>,
    /// How many functions there are.
    len: usize,
    /// `pclntable`: `ftab`, then the records (`runtime._func`) that it points to.
    records: Bytes,
    /// `funcnametab`.
    names: Bytes,
    /// `cutab`: per compilation unit, where the names of its files are.
    units: Bytes,
    /// `filetab`.
    files: Bytes,
    /// `pctab`: all tables from program counters to values.
    values: Bytes,
    /// What starts at `moduledata.gofunc`; empty if no function has an inline tree.
    trees: Bytes,
    /// The `funcID` of functions that the compiler or linker made up.
    wrapper: Option<u8>,
}

impl Pclntab {
    /// Finds the table in `object`, which was parsed from `data`.
    ///
    /// `None` if the object is not an x86-64 ELF with Go code in it. All forms of linking are known: static,
    /// position independent, shared library, plugin, stripped, with the table in a section of its own or merged
    /// into `.data.rel.ro`.
    ///
    /// # Errors
    ///
    /// [`Error`] if the object has a table of Go functions that cannot be used.
    pub fn find(object: &object::File<'_>, data: &Bytes) -> Result<Option<Self>, Error> {
        match Image::new(object, data) {
            Some(image) => locate::find(object, &image),
            None => Ok(None),
        }
    }

    /// The addresses that the table speaks of, `[moduledata.minpc, moduledata.maxpc)`. C code of the same object
    /// is outside, except where the Go linker itself linked C code in: there no line covers it, and
    /// [`Pclntab::inline_stack`] is empty.
    pub fn text_range(&self) -> Range<Svma> {
        Svma(self.range.start)..Svma(self.range.end)
    }

    /// All functions in the order of their addresses. Functions with a damaged record are left out.
    pub fn functions(&self) -> Functions<'_> {
        Functions::new(self)
    }

    /// The functions called `name` in the object; an assembly function and the wrapper that the linker made for
    /// it share a name. Looks at every function.
    pub fn functions_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Function<'a>> {
        self.functions().filter(move |f| f.is_named(name))
    }

    /// The function that contains `pc`.
    pub fn lookup(&self, pc: Svma) -> Option<Function<'_>> {
        if !self.range.contains(&pc.0) {
            return None;
        }
        let offset = u32::try_from(pc.0.checked_sub(self.text)?).ok()?;
        let entries = self.records.get(..self.len.checked_mul(8)?)?.as_chunks::<8>().0;
        let after = entries.partition_point(|e| u32_at(e, 0).is_some_and(|entry| entry <= offset));
        Function::new(self, after.checked_sub(1)?)
    }

    /// Whether a function with this `funcID` is a wrapper, which Go hides in stacks unless it panicked.
    pub fn is_wrapper(&self, func_id: u8) -> bool {
        self.wrapper == Some(func_id)
    }

    /// Whether inlined calls can be told from the function that they were inlined into. False for a program
    /// without any, and for one whose inline trees are not where a known release of Go has them.
    pub fn has_inline_trees(&self) -> bool {
        !self.trees.is_empty()
    }

    /// Offset from `text` of function number `index`, or for `index == len` of the end of the last one.
    fn entry_offset(&self, index: usize) -> Option<u32> {
        u32_at(&self.records, index.checked_mul(8)?)
    }

    /// The name at `offset` in the table of names. The runtime takes offset 0 for no name, but the linker puts
    /// the name of the first function there, in all of Go 1.21–1.27.
    fn name_at(&self, offset: i32) -> &str {
        usize::try_from(offset).map_or("", |at| string_at(&self.names, at))
    }
}

/// Names longer than this are cut: a table without a NUL must not make each name as long as the table.
const LONGEST_NAME: usize = 1 << 16;

/// The NUL-terminated string at `at`, as far as it is UTF-8.
fn string_at(table: &[u8], at: usize) -> &str {
    let rest = table.get(at..).unwrap_or_default();
    let rest = &rest[..rest.len().min(LONGEST_NAME)];
    let name = rest.split(|&b| b == 0).next().unwrap_or_default();
    name.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
