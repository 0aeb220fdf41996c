//! From the bytes of a record to what they mean. Pure.

use profiler_abi::sample::{Header, RecordKind, UserWord};
use profiler_abi::stop::StopReason;
use zerocopy::FromBytes;

/// One record from the BPF program.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'r> {
    /// A sample.
    Sample(RawSample<'r>),
    /// A walk met an address in no known mapping of the process.
    Remap {
        /// The process.
        tgid: u32,
    },
    /// A watched process forked; the child is watched with its parent's tables.
    Fork {
        /// The child.
        tgid: u32,
        /// Its parent.
        parent: u32,
    },
    /// A watched process has called exec.
    Exec {
        /// The process.
        tgid: u32,
    },
    /// A process was met whose samples are wanted, and which is not watched yet.
    Met {
        /// The process.
        tgid: u32,
    },
}

/// A sample as it was taken: addresses, not names.
#[derive(Debug, PartialEq, Eq)]
pub struct RawSample<'r> {
    /// The fixed part.
    pub header: Header,
    /// How the walk of the user stack ended.
    pub stop: StopReason,
    /// Kernel addresses, innermost first.
    kernel: &'r [u8],
    /// Tagged user words, innermost first.
    user: &'r [u8],
}

impl RawSample<'_> {
    /// Kernel addresses, innermost first.
    pub fn kernel(&self) -> impl Iterator<Item = u64> {
        words(self.kernel)
    }

    /// Tagged user words ([`profiler_abi::sample::UserWord`]), innermost first.
    pub fn user(&self) -> impl Iterator<Item = u64> {
        words(self.user)
    }

    /// The interrupted instruction, if user code was interrupted.
    pub fn leaf(&self) -> Option<u64> {
        match UserWord::decode(self.user().next()?) {
            UserWord::Exact(pc) => Some(pc),
            UserWord::ReturnAddress(_) | UserWord::Context => None,
        }
    }

    /// Name of the thread.
    pub fn comm(&self) -> String {
        let len = self
            .header
            .comm
            .iter()
            .position(|&b| b == 0)
            .unwrap_or(self.header.comm.len());
        String::from_utf8_lossy(&self.header.comm[..len]).into_owned()
    }
}

/// Reads a record; `None` if the bytes are not one, which only a program other than ours could cause.
pub fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let (header, rest) = Header::read_from_prefix(bytes).ok()?;
    let tgid = header.tgid;
    Some(match RecordKind::from_bits(header.kind)? {
        RecordKind::Remap => Record::Remap { tgid },
        RecordKind::Fork => Record::Fork {
            tgid,
            parent: header.cookie as u32,
        },
        RecordKind::Exec => Record::Exec { tgid },
        RecordKind::Met => Record::Met { tgid },
        RecordKind::Sample => {
            let (kernel, rest) = rest.split_at_checked(header.n_kernel as usize * 8)?;
            let user = rest.get(..header.n_user as usize * 8)?;
            Record::Sample(RawSample {
                header,
                stop: StopReason::from_bits(header.stop)?,
                kernel,
                user,
            })
        }
    })
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::{Record, parse};
    use profiler_abi::sample::{Header, UserWord};
    use profiler_abi::stop::StopReason;
    use zerocopy::IntoBytes;

    fn record(header: &Header, words: &[u64]) -> Vec<u8> {
        [header.as_bytes(), words.as_bytes()].concat()
    }

    #[test]
    fn a_sample_comes_back_word_by_word() {
        let header = Header {
            tgid: 7,
            n_kernel: 1,
            n_user: 4,
            stop: StopReason::NoRule as u32,
            comm: *b"worker\0\0\0\0\0\0\0\0\0\0",
            ..Header::default()
        };
        let words = [
            0xffff_8000_0000_0001,
            UserWord::frame(0x1000, true),
            UserWord::CONTEXT_TAG,
            u64::MAX,
            0x2000,
        ];
        let bytes = record(&header, &words);
        let Some(Record::Sample(sample)) = parse(&bytes) else {
            panic!("not a sample")
        };
        assert_eq!(sample.stop, StopReason::NoRule);
        assert_eq!(sample.comm(), "worker");
        assert_eq!(sample.kernel().collect::<Vec<_>>(), [0xffff_8000_0000_0001]);
        assert_eq!(sample.user().collect::<Vec<_>>(), words[1..]);
    }

    #[test]
    fn records_that_promise_more_than_they_hold_are_refused() {
        let header = Header {
            n_kernel: 1,
            n_user: 1,
            ..Header::default()
        };
        let whole = record(&header, &[1, 2]);
        assert!(parse(&whole).is_some());
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_none(), "{len} bytes");
        }
        let lying = Header {
            n_user: u32::MAX,
            ..Header::default()
        };
        assert!(parse(&record(&lying, &[1])).is_none());
        let unknown = Header {
            kind: 99,
            ..Header::default()
        };
        assert!(parse(&record(&unknown, &[])).is_none());
    }
}
