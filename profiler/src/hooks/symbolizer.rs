//! The conversation with a symbolizer hook.
//!
//! It is held as `runtime/pprof` holds it (`expandCgoFrames` in runtime/symtab.go, Go 1.21–1.27): a new block of zeros
//! for each address; one call, and more of them as long as the hook sets `More`, each with the block as the hook left
//! it; then one last call with `PC` 0, by which the hook frees what it keeps in `Data`. The other style of the Go
//! runtime, one block for all addresses of a stack (`printCgoTraceback`), ties an answer to the order of questions,
//! and hooks exist that take a `File` which is not nil for a later call of the same address.
//!
//! The last call is made for *every* address. Go leaves it out when the first answer has neither file nor function; the
//! text of the protocol knows no such exception ("when the traceback is complete, the function will be called once more
//! with PC set to zero; this may be used to free any information"), and a hook that allocated something before it
//! found nothing would leak it with each address. For the same reason it is made after a hook that would never
//! have come to an end has been cut off.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How often a hook is asked about one address before it is taken to never clear `More`.
pub const MAX_CALLS: usize = 64;
/// The longest string that is believed, in bytes without its zero: the longest path that Linux opens, `PATH_MAX`.
pub const MAX_STRING: usize = 4095;
/// Lines above this are no lines: compilers count them in an `int`.
const MAX_LINE: u64 = i32::MAX as u64;
/// When names take this much memory, in bytes, no further address is asked for.
const MAX_KEPT: usize = 64 << 20;

/// The argument of a symbolizer: `cgoSymbolizerArg` (runtime/traceback.go; runtime/cgo/libcgo.h since Go 1.26). Each
/// field is a `uintptr_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArgumentBlock {
    /// The address to name; 0 in the last call.
    pub pc: u64,
    /// Address of the name of the file, which ends with a zero byte; 0 if there is none.
    pub file: u64,
    /// Line in the file; 0 if unknown.
    pub lineno: u64,
    /// Address of the name of the function, likewise.
    pub func: u64,
    /// First address of the function; 0 if unknown.
    pub entry: u64,
    /// Not 0 if there is more to say about the address.
    pub more: u64,
    /// The hook's own.
    pub data: u64,
}

/// The memory that the hook's strings are in.
pub trait Memory {
    /// The bytes from `address` up to the first zero byte, without it, but no more than `max`. `None` if a byte on the
    /// way cannot be read.
    fn c_string(&mut self, address: u64, max: usize) -> Option<Vec<u8>>;
}

/// One function at an address, as the hook tells it. Control characters are left in: formats escape them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Its name. A hook may know only the file.
    pub name: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it; 1 is the first.
    pub line: Option<u32>,
    /// Its first address. A number to show; nothing may be looked up by it.
    pub entry: Option<u64>,
}

/// What the hook said about one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The functions, innermost first: each is inlined in the one that follows. Empty if the hook does not know the
    /// address.
    pub functions: Vec<Function>,
    /// What was wrong with the conversation.
    pub odd: BTreeSet<Oddity>,
}

/// Something that a sound hook does not do. The label is for the closing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oddity {
    /// `More` was still set after [`MAX_CALLS`] calls. The functions up to there are kept.
    Capped,
    /// A name was in memory that cannot be read; it counts as absent.
    UnreadableString,
    /// A name did not end within [`MAX_STRING`] bytes; it counts as absent.
    UnterminatedString,
    /// A line was larger than any; it counts as unknown.
    BadLine,
    /// The hook did not come back. What it had said before is kept.
    Failed,
    /// The hook was not asked, since names already take all the memory that they may.
    OutOfSpace,
}

impl Oddity {
    /// What happened, in a few words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Capped => "never came to an end",
            Self::UnreadableString => "name in unreadable memory",
            Self::UnterminatedString => "name without an end",
            Self::BadLine => "impossible line number",
            Self::Failed => "hook crashed or hung",
            Self::OutOfSpace => "too many names",
        }
    }
}

/// The conversation about all addresses of a recording, each of which is asked for once.
///
/// [`Self::next_call`] says what to pass to the hook, [`Self::returned`] takes what came back, until there is nothing
/// left to call.
#[derive(Debug, Default)]
pub struct Symbolizer {
    asked: HashSet<u64>,
    queue: VecDeque<u64>,
    call: Option<Call>,
    named: BTreeMap<u64, Named>,
    /// Bytes that `named` takes, roughly.
    kept: usize,
}

/// The call to make now.
#[derive(Debug)]
struct Call {
    /// The address that is talked about. In the block it is 0 when the last call is due.
    pc: u64,
    block: ArgumentBlock,
    n_calls: usize,
    named: Named,
}

impl Symbolizer {
    /// Wants to know the functions at `pc`. 0 is no address: in the protocol it ends a conversation.
    pub fn ask(&mut self, pc: u64) {
        if pc != 0 && self.asked.insert(pc) {
            self.queue.push_back(pc);
        }
    }

    /// The block to call the hook with; `None` when there is nothing to call it for. The same block until
    /// [`Self::returned`] or [`Self::failed`].
    pub fn next_call(&mut self) -> Option<ArgumentBlock> {
        while self.call.is_none() {
            let pc = self.queue.pop_front()?;
            let mut named = Named::default();
            if self.kept < MAX_KEPT {
                let block = ArgumentBlock {
                    pc,
                    ..Default::default()
                };
                self.call = Some(Call {
                    pc,
                    block,
                    n_calls: 0,
                    named,
                });
            } else {
                named.odd.insert(Oddity::OutOfSpace);
                self.named.insert(pc, named);
            }
        }
        self.call.as_ref().map(|call| call.block)
    }

    /// The hook came back and left `block`. Its strings are copied now: they may be gone after the next call.
    pub fn returned(&mut self, block: ArgumentBlock, memory: &mut impl Memory) {
        let Some(mut call) = self.call.take() else {
            return;
        };
        if call.block.pc == 0 {
            self.keep(call);
            return;
        }
        call.n_calls += 1;
        call.named.add(&block, memory);
        // "The function will be called again with the same PC", so what the hook wrote there does not count.
        let goes_on = block.more != 0 && call.n_calls < MAX_CALLS;
        let pc = if goes_on { call.pc } else { 0 };
        if block.more != 0 && !goes_on {
            call.named.odd.insert(Oddity::Capped);
        }
        call.block = ArgumentBlock { pc, ..block };
        self.call = Some(call);
    }

    /// The hook did not come back: it crashed, or was given up. The conversation about its address is over; a last
    /// call would reach a process that is gone.
    pub fn failed(&mut self) {
        if let Some(mut call) = self.call.take() {
            call.named.odd.insert(Oddity::Failed);
            self.keep(call);
        }
    }

    /// What the hook said about `pc`; `None` if the conversation about it is not over or never began.
    pub fn named(&self, pc: u64) -> Option<&Named> {
        self.named.get(&pc)
    }

    /// What it said about every address so far, in their order.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Named)> {
        self.named.iter().map(|(&pc, named)| (pc, named))
    }

    /// For each oddity, the number of addresses that it was met with.
    pub fn oddities(&self) -> BTreeMap<Oddity, u64> {
        let mut counts = BTreeMap::new();
        for oddity in self.named.values().flat_map(|named| &named.odd) {
            *counts.entry(*oddity).or_default() += 1;
        }
        counts
    }

    fn keep(&mut self, call: Call) {
        self.kept = self.kept.saturating_add(call.named.size());
        self.named.insert(call.pc, call.named);
    }
}

impl Named {
    /// Adds what the hook left in the block. Go makes a frame without a name of an answer that says nothing, unless it
    /// is the first; we make none.
    fn add(&mut self, block: &ArgumentBlock, memory: &mut impl Memory) {
        let name = self.string(block.func, memory);
        let file = self.string(block.file, memory);
        let line = match block.lineno {
            0 => None,
            1..=MAX_LINE => Some(block.lineno as u32),
            _ => {
                self.odd.insert(Oddity::BadLine);
                None
            }
        };
        if name.is_some() || file.is_some() {
            self.functions.push(Function {
                name,
                file,
                line,
                entry: (block.entry != 0).then_some(block.entry),
            });
        }
    }

    fn string(&mut self, address: u64, memory: &mut impl Memory) -> Option<String> {
        if address == 0 {
            return None;
        }
        // One byte more than is believed: if it is there, the string is too long.
        let Some(bytes) = memory.c_string(address, MAX_STRING + 1) else {
            self.odd.insert(Oddity::UnreadableString);
            return None;
        };
        if bytes.len() > MAX_STRING {
            self.odd.insert(Oddity::UnterminatedString);
            return None;
        }
        // An empty name names nothing.
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn size(&self) -> usize {
        let texts = |f: &Function| {
            let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            size_of::<Function>() + length(&f.name) + length(&f.file)
        };
        size_of::<Self>() + self.functions.iter().map(texts).sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
