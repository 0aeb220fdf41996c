//! From the bytes of a record to what they mean. Pure.

use profiler_abi::sample::{Header, LabelWords, RecordKind, UserWord};
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
    /// See [`LabelWords`].
    labels: &'r [u8],
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

    /// The labels of the goroutine, sorted by key; what is not UTF-8 is replaced.
    pub fn labels(&self) -> Vec<(String, String)> {
        let mut rest = self.labels;
        let mut labels = Vec::new();
        for _ in 0..self.header.n_labels.min(LabelWords::MAX) {
            let Some((lengths, after)) = rest.split_first_chunk() else {
                break;
            };
            let lengths = u64::from_le_bytes(*lengths);
            rest = after;
            let mut string = |len: u64| {
                let len = len as usize;
                let (filled, after) = rest.split_at_checked(len.checked_next_multiple_of(8)?)?;
                rest = after;
                Some(String::from_utf8_lossy(&filled[..len]).into_owned())
            };
            let key = string(lengths & u64::from(u32::MAX));
            let (Some(key), Some(value)) = (key, string(lengths >> 32)) else {
                break;
            };
            labels.push((key, value));
        }
        labels.sort();
        labels
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
            let (user, rest) = rest.split_at_checked(header.n_user as usize * 8)?;
            let labels = rest.get(..header.n_label_words as usize * 8)?;
            Record::Sample(RawSample {
                header,
                stop: StopReason::from_bits(header.stop)?,
                kernel,
                user,
                labels,
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
    fn labels_come_back_and_lengths_that_lie_end_them() {
        let header = |n_labels, n_label_words| Header {
            n_labels,
            n_label_words,
            ..Header::default()
        };
        let word = |text: &[u8; 8]| u64::from_le_bytes(*text);
        let labels = |header: &Header, words: &[u64]| match parse(&record(header, words)) {
            Some(Record::Sample(sample)) => sample.labels(),
            other => panic!("{other:?}"),
        };
        let words = [
            2 | 9 << 32,
            word(b"b2\0\0\0\0\0\0"),
            word(b"12345678"),
            word(b"9\0\0\0\0\0\0\0"),
            1,
            word(b"a\0\0\0\0\0\0\0"),
        ];
        let said = [("a", ""), ("b2", "123456789")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(labels(&header(2, 6), &words), said);
        assert_eq!(labels(&header(9, 6), &words), said);
        for lie in [7, u64::from(u32::MAX), u64::MAX, 9 << 32] {
            assert_eq!(labels(&header(1, 2), &[lie, 0]).len(), usize::from(lie == 7));
        }
        assert!(parse(&record(&header(1, 7), &words)).is_none());
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
