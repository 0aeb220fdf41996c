//! What the traceback hooks of a program said about one interrupted thread, as the helper in the program reports it.
//!
//! The helper calls the traceback function in its signal handler, first for the interrupted code, then for each context
//! that is live, and stores everything in one [`Record`]. The program can write to that memory as well as the helper
//! can, so a record is read like anything else that comes from a target. An address in it is only a number.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most addresses that one call of a traceback function gives: what the Go runtime asks for (`cgoCallers` in
/// runtime/symtab.go and `tracebackPCs` in runtime/traceback.go, Go 1.21–1.27).
pub const MAX_PCS: usize = 32;
/// The most contexts, the newest ones, that the helper asks for in one handler.
pub const MAX_CONTEXTS: usize = 8;

/// One report, as it is in the memory that is shared with the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// Id of the interrupted thread.
    pub tid: u32,
    /// How many of `contexts` are filled.
    pub n_contexts: u32,
    /// The interrupted instruction.
    pub pc: u64,
    /// What the signal carried to tell it from others; 0 if the kernel cannot send such a value.
    pub cookie: u64,
    /// The buffer as the hook left it when asked for the interrupted code; all zero if it was not asked.
    pub leaf: [u64; MAX_PCS],
    /// The contexts, newest first.
    pub contexts: [ContextRecord; MAX_CONTEXTS],
}

/// One context, and the buffer as the hook left it when asked for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ContextRecord {
    /// What the context hook had returned.
    pub value: u64,
    /// The buffer.
    pub pcs: [u64; MAX_PCS],
}

/// The stacks of one interrupted thread as its program sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Id of the thread.
    pub tid: u32,
    /// The interrupted instruction.
    pub pc: u64,
    /// What the signal carried; 0 if nothing.
    pub cookie: u64,
    /// The C stack that was interrupted; empty if the hook had nothing to say.
    pub leaf: PcList,
    /// The C stacks of the contexts, newest first.
    pub contexts: Vec<(u64, PcList)>,
}

/// A C stack, innermost first. Each address is one to symbolize as it is: hooks give the address of the call itself,
/// not the one after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcList {
    /// At most [`MAX_PCS`], none of them 0.
    pub pcs: Vec<u64>,
    /// The buffer had no room for the zero that ends a list, so the stack may go on.
    pub full: bool,
}

/// Why a record is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too few bytes.
    #[error("a report of the helper has {expected} bytes, this one {found}")]
    Size {
        /// Those of a [`Record`].
        expected: usize,
        /// Those that there are.
        found: usize,
    },
    /// More contexts than there is room for.
    #[error("a report of the helper has at most {MAX_CONTEXTS} contexts, this one claims {0}")]
    Contexts(u32),
}

impl Answer {
    /// Reads a [`Record`] at the start of `bytes`, which must be a copy: the target can change its own memory at any
    /// time.
    ///
    /// # Errors
    /// If it is shorter than a record, or claims more contexts than one holds.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let Ok((record, _)) = Record::read_from_prefix(bytes) else {
            return Err(Error::Size {
                expected: size_of::<Record>(),
                found: bytes.len(),
            });
        };
        let contexts = usize::try_from(record.n_contexts)
            .ok()
            .and_then(|n| record.contexts.get(..n))
            .ok_or(Error::Contexts(record.n_contexts))?;
        Ok(Self {
            tid: record.tid,
            pc: record.pc,
            cookie: record.cookie,
            leaf: PcList::new(&record.leaf),
            contexts: contexts
                .iter()
                .map(|context| (context.value, PcList::new(&context.pcs)))
                .collect(),
        })
    }

    /// What the hook said about a context. Several callbacks can have the same context; as that is the same question,
    /// they share the answer.
    pub fn context(&self, value: u64) -> Option<&PcList> {
        self.contexts
            .iter()
            .find(|(context, _)| *context == value)
            .map(|(_, list)| list)
    }
}

impl PcList {
    /// What is in a buffer up to its first zero.
    pub fn new(buffer: &[u64; MAX_PCS]) -> Self {
        let end = buffer.iter().position(|&pc| pc == 0);
        Self {
            pcs: buffer[..end.unwrap_or(MAX_PCS)].to_vec(),
            full: end.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, ContextRecord, Error, MAX_CONTEXTS, MAX_PCS, PcList, Record};
    use zerocopy::IntoBytes;

    fn buffer(pcs: &[u64]) -> [u64; MAX_PCS] {
        let mut buffer = [0; MAX_PCS];
        buffer[..pcs.len()].copy_from_slice(pcs);
        buffer
    }

    fn record() -> Record {
        let mut record = Record {
            tid: 7,
            n_contexts: 2,
            pc: 0x1000,
            cookie: 9,
            leaf: buffer(&[0x1000, 0x2000]),
            ..Default::default()
        };
        record.contexts[0] = ContextRecord {
            value: 2,
            pcs: buffer(&[0x200, 0x201]),
        };
        record.contexts[1] = ContextRecord {
            value: 1,
            pcs: buffer(&[0x100]),
        };
        record
    }

    fn list(pcs: &[u64]) -> PcList {
        PcList {
            pcs: pcs.to_vec(),
            full: false,
        }
    }

    #[test]
    fn a_report_is_read_newest_context_first() {
        assert_eq!(
            Answer::read(record().as_bytes()),
            Ok(Answer {
                tid: 7,
                pc: 0x1000,
                cookie: 9,
                leaf: list(&[0x1000, 0x2000]),
                contexts: vec![(2, list(&[0x200, 0x201])), (1, list(&[0x100]))],
            })
        );
    }

    #[test]
    fn a_list_ends_at_its_first_zero() {
        assert_eq!(PcList::new(&buffer(&[1, 2, 0, 3])), list(&[1, 2]));
        assert_eq!(PcList::new(&buffer(&[0, 3])), list(&[]));
    }

    #[test]
    fn a_list_without_a_zero_is_whole_and_marked() {
        let full = PcList::new(&[5; MAX_PCS]);
        assert_eq!((full.pcs.len(), full.full), (MAX_PCS, true));
        // With the last word it is not full.
        let mut buffer = [5; MAX_PCS];
        buffer[MAX_PCS - 1] = 0;
        let list = PcList::new(&buffer);
        assert_eq!((list.pcs.len(), list.full), (MAX_PCS - 1, false));
    }

    #[test]
    fn wild_addresses_are_kept_as_the_numbers_they_are() {
        let wild = [u64::MAX, 1, 1 << 63, 0xdead_beef_dead_beef];
        assert_eq!(PcList::new(&buffer(&wild)), list(&wild));
    }

    #[test]
    fn a_number_of_contexts_is_not_trusted_as_a_length() {
        for n in [MAX_CONTEXTS as u32 + 1, u32::MAX] {
            let record = Record {
                n_contexts: n,
                ..record()
            };
            assert_eq!(Answer::read(record.as_bytes()), Err(Error::Contexts(n)));
        }
    }

    #[test]
    fn a_report_that_is_cut_anywhere_is_refused() {
        let record = record();
        let bytes = record.as_bytes();
        for found in 0..bytes.len() {
            assert_eq!(
                Answer::read(&bytes[..found]),
                Err(Error::Size {
                    expected: bytes.len(),
                    found
                })
            );
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        for byte in 0..=u8::MAX {
            let bytes = vec![byte; size_of::<Record>() + 3];
            assert_eq!(Answer::read(&bytes).is_ok(), byte == 0, "{byte}");
        }
    }

    #[test]
    fn a_context_is_found_by_its_value() {
        let answer = Answer::read(record().as_bytes()).unwrap();
        assert_eq!(answer.context(1), Some(&list(&[0x100])));
        assert_eq!(answer.context(3), None);
        assert_eq!(answer.context(0), None);
    }
}
