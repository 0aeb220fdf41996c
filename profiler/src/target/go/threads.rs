//! The threads (Ms) that the Go runtime of a process has, and the contexts of C code that wait beneath Go code on
//! them.
//!
//! All Ms are in a list that starts at `runtime.allm` and goes on by `m.alllink` (runtime/runtime2.go). New ones come
//! first; those that end are taken out. Where the list starts is told by `runtime.mcommoninit`, which puts them in and
//! is there in stripped programs, too:
//!
//! ```text
//! T = allm
//! m_alllink(M) = T
//! R = &allm
//! ```
//!
//! and an exchange of M with what R points to, or a call of the function that does that.
//!
//! The process runs while it is read, so what is found is a glimpse: each M is true, but not at the same moment.

use super::hooks::{Error, LEN};
use super::{GoRuntime, Layout, ReadMemory, body, code, word};
use crate::addr::{Avma, Bias, Svma};
use crate::gopclntab::{Image, Pclntab};
use bytes::Bytes;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};
use object::{Object, ObjectSymbol};
use std::io;
use std::ops::Range;

/// The function that puts a thread into the list.
const ADD: &str = "runtime.mcommoninit";
/// The start of the list.
const SYMBOL: &str = "runtime.allm";
/// The most of its code that is decoded, in bytes; it has up to 720.
const MAX_CODE: u64 = 4096;
/// More threads than any process has: kernel.threads-max is far below on real machines.
const MAX_THREADS: usize = 1 << 18;
/// More callbacks than can be beneath one another on a thread.
const MAX_CONTEXTS: u64 = 1 << 24;

/// A thread of the Go runtime, as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its M.
    pub m: Avma,
    /// Its id, as the process sees it; 0 if it has none yet.
    pub tid: u64,
    /// The goroutine that it runs, or that it waits for because that runs on no other thread.
    pub goroutine: Option<Goroutine>,
    /// How many calls of C are in progress.
    pub c_calls: u32,
}

/// A goroutine on a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goroutine {
    /// Its number.
    pub id: u64,
    /// How many contexts it has: callbacks from C for which the context hook gave one.
    pub contexts: u64,
}

impl Thread {
    /// Whether it has nothing to do and holds nothing: no goroutine, and no C beneath.
    pub fn is_idle(&self) -> bool {
        self.goroutine.is_none() && self.c_calls == 0
    }

    /// How many contexts wait on it.
    pub fn contexts(&self) -> u64 {
        self.goroutine.map_or(0, |goroutine| goroutine.contexts)
    }
}

/// Why the threads of a process could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Memory is not there, or we may not look.
    #[error("cannot read the memory of the process")]
    Memory(#[from] io::Error),
    /// Something in the list is no thread.
    #[error("the list of its threads is damaged: at {0} there is none")]
    NoThread(Avma),
    /// A slice is longer than its array.
    #[error("the goroutine at {0} cannot be understood: it says that it has {1} contexts, and room for {2}")]
    NoSlice(Avma, u64, u64),
    /// The list does not end.
    #[error("the list of its threads does not end after {MAX_THREADS}")]
    TooMany,
}

/// Where the list of threads starts in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    allm: Svma,
    layout: Layout,
}

impl Threads {
    /// Finds the list in `object`, which was parsed from `data`, has the functions of `pclntab` and the runtime `go`.
    ///
    /// # Errors
    /// [`Error`] if it is not certain where it is, or how its members are linked.
    pub fn find(
        object: &object::File<'_>,
        data: &Bytes,
        pclntab: &Pclntab,
        go: &GoRuntime,
    ) -> Result<Self, Error> {
        let function = body(pclntab, ADD).ok_or(Error::Missing(ADD))?;
        let (allm, alllink) = Image::new(object, data)
            .and_then(|image| decode(&code(&image, &function, MAX_CODE)?, function.entry()))
            .ok_or(Error::Shape { function: ADD })?;
        if alllink != go.layout.m_alllink {
            return Err(Error::Field {
                field: "m.alllink",
                stated: go.layout.m_alllink,
                by: go.layout_source,
                function: ADD,
                used: alllink,
            });
        }
        let symbol = object.symbol_by_name(SYMBOL).map(|symbol| Svma(symbol.address()));
        match symbol.filter(|&stated| stated != allm) {
            Some(stated) => Err(Error::Variable {
                variable: SYMBOL,
                stated,
                by: "its symbol",
                function: ADD,
                used: allm,
            }),
            None => Ok(Self {
                allm,
                layout: go.layout,
            }),
        }
    }

    /// Reads the threads of a process where the object has `bias`. Those
    /// that are only just being made are left out.
    ///
    /// # Errors
    /// [`ReadError`] if the memory cannot be read or is not as Go has it.
    pub fn read(&self, bias: Bias, read: ReadMemory<'_>) -> Result<Vec<Thread>, ReadError> {
        let mut threads = Vec::new();
        let mut m = Avma(word(read, self.allm.to_avma(bias))?);
        for _ in 0..MAX_THREADS {
            if m == Avma(0) {
                return Ok(threads);
            }
            threads.extend(self.thread(m, read)?);
            m = Avma(word(read, at(m, self.layout.m_alllink))?);
        }
        Err(ReadError::TooMany)
    }

    fn thread(&self, m: Avma, read: ReadMemory<'_>) -> Result<Option<Thread>, ReadError> {
        let layout = &self.layout;
        let g0 = Avma(word(read, at(m, layout.m_g0))?);
        if g0 == Avma(0) {
            return Ok(None);
        }
        match Avma(word(read, at(g0, layout.g_m))?) {
            // It is being made: the two are linked after it has been put into the list (runtime/proc.go, `allocm`).
            Avma(0) => return Ok(None),
            of_g0 if of_g0 != m => return Err(ReadError::NoThread(m)),
            _ => {}
        }
        let current = Avma(word(read, at(m, layout.m_curg))?);
        let locked = Avma(word(read, at(m, layout.m_lockedg))?);
        let goroutine = [current, locked]
            .into_iter()
            .find(|&g| g != Avma(0))
            .map(|g| self.goroutine(g, read))
            .transpose()?;
        Ok(Some(Thread {
            m,
            tid: word(read, at(m, layout.m_procid))?,
            goroutine,
            // 32 bits.
            c_calls: word(read, at(m, layout.m_ncgo))? as u32,
        }))
    }

    fn goroutine(&self, g: Avma, read: ReadMemory<'_>) -> Result<Goroutine, ReadError> {
        // The length first: the array is replaced before it grows (runtime/cgocall.go, `cgocallbackg1`).
        let slice = at(g, self.layout.g_cgo_ctxt);
        let contexts = word(read, at(slice, LEN))?;
        let room = word(read, at(slice, 2 * LEN))?;
        if contexts > room || room > MAX_CONTEXTS {
            return Err(ReadError::NoSlice(g, contexts, room));
        }
        Ok(Goroutine {
            id: word(read, at(g, self.layout.g_goid))?,
            contexts,
        })
    }
}

/// The code of `runtime.futex`, in which threads wait that have nothing to do.
pub fn wait_function(pclntab: &Pclntab) -> Option<Range<Svma>> {
    body(pclntab, "runtime.futex").map(|function| function.entry()..function.end())
}

/// `offset` bytes above `address`.
fn at(address: Avma, offset: u32) -> Avma {
    Avma(address.0.wrapping_add(u64::from(offset)))
}

/// The address of `allm` and the offset of `m.alllink` by the `code` that starts at `address`.
pub(super) fn decode(code: &[u8], address: Svma) -> Option<(Svma, u32)> {
    let code: Vec<Instruction> = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE)
        .into_iter()
        .collect();
    let variable = |instruction: &Instruction, code: Code| {
        let is = instruction.code() == code && instruction.is_ip_rel_memory_operand();
        is.then(|| instruction.ip_rel_memory_address())
    };
    // Of the variables that the function loads, only this one's address is taken afterwards.
    code.iter().enumerate().find_map(|(i, load)| {
        let allm = variable(load, Code::Mov_r64_rm64)?;
        let after = code.get(i + 1..)?;
        let taken = after
            .iter()
            .position(|other| variable(other, Code::Lea_r64_m) == Some(allm))?;
        // The write barrier's own store goes through R11.
        let link = after[..taken].iter().find(|store| {
            store.code() == Code::Mov_rm64_r64
                && store.op1_register() == load.op0_register()
                && !matches!(
                    store.memory_base(),
                    Register::R11 | Register::RIP | Register::None
                )
        })?;
        Some((Svma(allm), u32::try_from(link.memory_displacement64()).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::{Goroutine, MAX_THREADS, ReadError, Threads};
    use crate::addr::{Avma, Bias, Svma};
    use crate::target::go::{GoVersion, Layout};
    use std::collections::HashMap;
    use std::io;

    const ALLM: u64 = 0x1000;
    const BIAS: u64 = 0x5555_0000_0000;

    /// Words of a process; the others are 0.
    struct Fake {
        words: HashMap<u64, u64>,
        layout: Layout,
    }

    impl Fake {
        fn new() -> Self {
            let version = GoVersion::parse("go1.26.6").expect("a version");
            Self {
                words: HashMap::new(),
                layout: Layout::of_release(&version).expect("a known release"),
            }
        }

        fn set(&mut self, address: u64, offset: u32, value: u64) -> &mut Self {
            self.words.insert(address + u64::from(offset), value);
            self
        }

        /// An M with its g0.
        fn m(&mut self, m: u64, tid: u64, next: u64) {
            let (layout, g0) = (self.layout, m + 0x10_0000);
            self.set(m, layout.m_g0, g0)
                .set(g0, layout.g_m, m)
                .set(m, layout.m_procid, tid)
                .set(m, layout.m_alllink, next);
        }

        fn g(&mut self, g: u64, id: u64, contexts: u64, room: u64) {
            let layout = self.layout;
            self.set(g, layout.g_goid, id)
                .set(g, layout.g_cgo_ctxt + 8, contexts)
                .set(g, layout.g_cgo_ctxt + 16, room);
        }

        fn read(&self) -> Result<Vec<super::Thread>, ReadError> {
            let threads = Threads {
                allm: Svma(ALLM),
                layout: self.layout,
            };
            threads.read(Bias(BIAS), &|address, len| {
                assert_eq!(len, 8);
                let word = self.words.get(&address.0).copied().unwrap_or(0);
                Ok(word.to_le_bytes().to_vec())
            })
        }
    }

    /// Two threads: one in a callback, one that waits for a goroutine of its own.
    fn two() -> Fake {
        let mut fake = Fake::new();
        let layout = fake.layout;
        fake.set(BIAS + ALLM, 0, 0xc000_0000);
        fake.m(0xc000_0000, 12, 0xc001_0000);
        fake.m(0xc001_0000, 11, 0);
        fake.g(0xd000_0000, 7, 3, 4);
        fake.g(0xd001_0000, 1, 2, 2);
        fake.set(0xc000_0000, layout.m_curg, 0xd000_0000)
            .set(0xc000_0000, layout.m_lockedg, 0xd001_0000)
            .set(0xc000_0000, layout.m_ncgo, 0xffff_0000_0000_0003)
            .set(0xc001_0000, layout.m_lockedg, 0xd001_0000);
        fake
    }

    #[test]
    fn a_thread_has_the_goroutine_that_it_runs_or_waits_for() {
        let threads = two().read().expect("a list");
        let found: Vec<_> = threads.iter().map(|t| (t.tid, t.goroutine, t.c_calls)).collect();
        let goroutine = |id, contexts| Some(Goroutine { id, contexts });
        assert_eq!(found, [(12, goroutine(7, 3), 3), (11, goroutine(1, 2), 0)]);
        assert!(!threads[0].is_idle() && !threads[1].is_idle());
    }

    #[test]
    fn a_thread_that_is_being_made_is_left_out() {
        let mut fake = two();
        let layout = fake.layout;
        fake.set(0xc000_0000, layout.m_g0, 0);
        let tids = |fake: &Fake| -> Vec<u64> { fake.read().expect("a list").iter().map(|t| t.tid).collect() };
        assert_eq!(tids(&fake), [11]);
        let mut fake = two();
        fake.set(0xc010_0000, layout.g_m, 0);
        assert_eq!(tids(&fake), [11]);
    }

    #[test]
    fn what_is_no_thread_is_named() {
        let mut fake = two();
        let layout = fake.layout;
        fake.set(0xc011_0000, layout.g_m, 0xc000_0000);
        assert!(matches!(fake.read(), Err(ReadError::NoThread(Avma(0xc001_0000)))));
    }

    #[test]
    fn a_slice_that_is_longer_than_its_array_is_refused() {
        for (contexts, room) in [(5, 4), (u64::MAX, u64::MAX), (0, 1 << 40)] {
            let mut fake = two();
            fake.g(0xd000_0000, 7, contexts, room);
            let error = fake.read().expect_err("it cannot be");
            assert!(
                matches!(error, ReadError::NoSlice(Avma(0xd000_0000), ..)),
                "{error}"
            );
        }
    }

    #[test]
    fn a_list_that_does_not_end_is_given_up() {
        let mut fake = two();
        let layout = fake.layout;
        fake.set(0xc001_0000, layout.m_alllink, 0xc000_0000);
        let error = fake.read().expect_err("it has no end");
        assert!(error.to_string().contains(&MAX_THREADS.to_string()), "{error}");
    }

    #[test]
    fn memory_that_cannot_be_read_is_an_error() {
        let fake = Fake::new();
        let threads = Threads {
            allm: Svma(ALLM),
            layout: fake.layout,
        };
        let error = threads.read(Bias(0), &|_, _| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(matches!(error, Err(ReadError::Memory(_))));
        // Too few bytes.
        let error = threads.read(Bias(0), &|_, _| Ok(vec![0; 4]));
        assert!(matches!(error, Err(ReadError::Memory(_))));
    }
}
