//! The traceback hooks that a program registers with `runtime.SetCgoTraceback`: where the runtime keeps them, and
//! what a process has there.
//!
//! Three variables in the runtime's data, one per hook, each nil or the address of a C function, set at any time
//! (runtime/traceback.go), and `_cgo_callers`, which leads to the C function that calls the traceback hook in a
//! signal handler (runtime/cgo/callbacks.go, `x_cgo_callers`). In Go 1.21–1.27 the three lie side by side, but
//! nothing promises that. So, beside the symbols, two functions are asked, which are there in stripped programs,
//! too: `runtime.cgoSigtramp` and the setter. All must agree.

use super::sigtramp::{self, SigTramp};
use super::{GoRuntime, ReadMemory, Source, body, code, word};
use crate::addr::{Avma, Bias, Svma};
use crate::gopclntab::{Image, Pclntab};
use bytes::Bytes;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};
use object::{Object, ObjectSymbol};
use std::io;

#[cfg(test)]
mod tests;

/// The function that registers hooks. A program that cannot call it does not have it.
const SETTER: &str = "runtime.SetCgoTraceback";
/// The function that takes a context off the slice when a callback returns: one instruction.
const POP: &str = "runtime.cgocallbackg1.func1";
/// The most that is decoded of either, in bytes. The setter has up to 320.
const MAX_CODE: u64 = 1024;

/// Registers in which the setter has the hooks when it stores them: parameters 2, 3 and 4 (Go's internal ABI for
/// amd64), in the order of [`HookVariables`].
const STORED_FROM: [Register; 3] = [Register::RBX, Register::RCX, Register::RDI];

/// The symbols of the variables, in the order of [`HookVariables`].
const SYMBOLS: [&str; 4] = [
    "runtime.cgoTraceback",
    "runtime.cgoContext",
    "runtime.cgoSymbolizer",
    "_cgo_callers",
];

/// Where the hooks of an object are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookVariables {
    /// `runtime.cgoTraceback`.
    pub traceback: Svma,
    /// `runtime.cgoContext`.
    pub context: Svma,
    /// `runtime.cgoSymbolizer`.
    pub symbolizer: Svma,
    /// `_cgo_callers`: nil without cgo.
    pub callers: Svma,
}

/// What a process has in [`HookVariables`]; `None` is nil.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// The traceback function.
    pub traceback: Option<Avma>,
    /// The context function.
    pub context: Option<Avma>,
    /// The symbolizer function.
    pub symbolizer: Option<Avma>,
    /// `x_cgo_callers`.
    pub callers: Option<Avma>,
}

/// Why it is not certain where the hooks are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A function is not as it was in any release.
    #[error("the code of {function} is not like that of any known Go release")]
    Shape {
        /// Its name.
        function: &'static str,
    },
    /// Two facts about one variable.
    #[error("{variable} is at {stated} by {by}, but the code of {function} uses {used}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Where it was expected.
        stated: Svma,
        /// Where it was expected from.
        by: &'static str,
        /// The function that uses it.
        function: &'static str,
        /// The address in its code.
        used: Svma,
    },
    /// Two facts about one field.
    #[error("{field} is at offset {stated} by {by}, but the code of {function} uses {used}")]
    Field {
        /// Go's name of it.
        field: &'static str,
        /// The offset that was expected, in bytes.
        stated: u32,
        /// Where it was expected from.
        by: Source,
        /// The function that uses it.
        function: &'static str,
        /// The offset in its code, in bytes.
        used: u32,
    },
    /// The object does not have what it needs for cgo.
    #[error("it has no function {0}")]
    Missing(&'static str),
}

impl HookVariables {
    /// Finds them in `object`, which was parsed from `data`, has the functions of `pclntab` and the runtime `go`.
    /// `None` if the program cannot register hooks: it does not have the function for it.
    ///
    /// # Errors
    /// [`Error`] if it is not certain where they are, or that `go`'s layout is right about contexts.
    pub fn find(
        object: &object::File<'_>,
        data: &Bytes,
        pclntab: &Pclntab,
        go: &GoRuntime,
    ) -> Result<Option<Self>, Error> {
        let Some(setter) = body(pclntab, SETTER) else {
            return Ok(None);
        };
        let image = Image::new(object, data).ok_or(Error::Missing(SETTER))?;
        let decoded = |name, limit| {
            let function = body(pclntab, name).ok_or(Error::Missing(name))?;
            let code = code(&image, &function, limit).ok_or(Error::Shape { function: name })?;
            Ok((code, function.entry()))
        };

        let (code_of_pop, _) = decoded(POP, MAX_CODE)?;
        let contexts = pop(&code_of_pop).ok_or(Error::Shape { function: POP })?;
        if contexts != go.layout.g_cgo_ctxt {
            return Err(Error::Field {
                field: "g.cgoCtxt",
                stated: go.layout.g_cgo_ctxt,
                by: go.layout_source,
                function: POP,
                used: contexts,
            });
        }

        let code_of_setter = code(&image, &setter, MAX_CODE).ok_or(Error::Shape { function: SETTER })?;
        let stored = stores(&code_of_setter, setter.entry()).ok_or(Error::Shape { function: SETTER })?;
        let (code_of_tramp, entry) = decoded(sigtramp::NAME, sigtramp::MAX_CODE)?;
        let [traceback, callers] = SigTramp::decode(&code_of_tramp, entry)
            .and_then(|tramp| tramp.variables)
            .ok_or(Error::Shape {
                function: sigtramp::NAME,
            })?;
        agree(SYMBOLS[0], (stored[0], SETTER), (traceback, sigtramp::NAME))?;
        for (name, address) in symbols(object) {
            let used = match SYMBOLS.iter().position(|&wanted| wanted == name) {
                Some(i @ 0..3) => (stored[i], SETTER),
                _ => (callers, sigtramp::NAME),
            };
            agree(name, (address, "its symbol"), used)?;
        }
        Ok(Some(Self {
            traceback,
            context: stored[1],
            symbolizer: stored[2],
            callers,
        }))
    }

    /// Reads what a process has, where the object has `bias`.
    ///
    /// # Errors
    /// What `read` says.
    pub fn read(&self, bias: Bias, read: ReadMemory<'_>) -> io::Result<Hooks> {
        let value = |variable: Svma| {
            let value = word(read, variable.to_avma(bias))?;
            Ok::<_, io::Error>((value != 0).then_some(Avma(value)))
        };
        Ok(Hooks {
            traceback: value(self.traceback)?,
            context: value(self.context)?,
            symbolizer: value(self.symbolizer)?,
            callers: value(self.callers)?,
        })
    }
}

fn agree(
    variable: &'static str,
    (stated, by): (Svma, &'static str),
    (used, function): (Svma, &'static str),
) -> Result<(), Error> {
    if stated == used {
        return Ok(());
    }
    Err(Error::Variable {
        variable,
        stated,
        by,
        function,
        used,
    })
}

/// Those of [`SYMBOLS`] that the object has, with their addresses.
fn symbols(object: &object::File<'_>) -> impl Iterator<Item = (&'static str, Svma)> {
    object.symbols().filter_map(|symbol| {
        let name = symbol.name_bytes().ok()?;
        let known = SYMBOLS.into_iter().find(|known| known.as_bytes() == name)?;
        symbol.is_definition().then_some((known, Svma(symbol.address())))
    })
}

/// Where the setter's `code`, which starts at `address`, stores the hooks. `None` if it does not store three
/// registers, those of [`STORED_FROM`] in this order.
fn stores(code: &[u8], address: Svma) -> Option<[Svma; 3]> {
    let is_store = |i: &Instruction| i.code() == Code::Mov_rm64_r64 && i.is_ip_rel_memory_operand();
    let stores: Vec<Instruction> = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE)
        .into_iter()
        .filter(is_store)
        .collect();
    let stores: &[Instruction; 3] = stores.first_chunk().filter(|_| stores.len() == 3)?;
    (stores.each_ref().map(|store| store.op1_register()) == STORED_FROM)
        .then(|| stores.each_ref().map(|store| Svma(store.ip_rel_memory_address())))
}

/// The offset of `g.cgoCtxt` by the `code` that takes the last context off: `DECQ off(AX); RET`, where `off` is that
/// of the slice's length.
fn pop(code: &[u8]) -> Option<u32> {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE).into_iter();
    let (decrement, end) = (decoder.next()?, decoder.next()?);
    let fits = decrement.code() == Code::Dec_rm64
        && decrement.memory_base() == Register::RAX
        && decrement.memory_index() == Register::None
        && end.code() == Code::Retnq;
    u32::try_from(decrement.memory_displacement64())
        .ok()
        .filter(|_| fits)?
        .checked_sub(LEN)
}

/// Offset of a slice's length (runtime/slice.go, `slice`).
pub(super) const LEN: u32 = 8;
