//! What the BPF program sends: one record per sample, and requests.
//!
//! A record is a [`Header`] followed by `n_kernel` words of kernel frames, innermost first, and `n_user`
//! words of the user stack, innermost first. User words are tagged: see [`UserWord`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// A sample: header and words.
    Sample = 0,
    /// The walk met an address in no known mapping: the process has to be looked at again. Header only.
    Remap = 1,
    /// A watched process forked and the child is watched: `tgid` is the child, `cookie` the parent. Header only.
    Fork = 2,
    /// A watched process called exec. Header only.
    Exec = 3,
    /// Samples of all processes of a kind are wanted, and one was met that is not watched yet. Header only.
    Met = 4,
}

impl RecordKind {
    /// The kind with number `n`.
    pub const fn from_bits(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Sample),
            1 => Some(Self::Remap),
            2 => Some(Self::Fork),
            3 => Some(Self::Exec),
            4 => Some(Self::Met),
            _ => None,
        }
    }
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// A [`RecordKind`].
    pub kind: u32,
    /// Process id, as the initial PID namespace sees it.
    pub tgid: u32,
    /// Thread id, likewise.
    pub tid: u32,
    /// CPU that the sample was taken on.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub time_ns: u64,
    /// Generation of the process's tables that the walk used; see [`crate::table::ProcSlot`].
    pub generation: u32,
    /// A [`crate::stop::StopReason`].
    pub stop: u32,
    /// Bits: [`Header::FROM_KERNEL`], [`Header::ASKED`], [`Header::COOKIE`], [`Header::LABELS_CUT`].
    pub flags: u32,
    /// How many words of kernel frames follow.
    pub n_kernel: u32,
    /// How many words of user stack follow those.
    pub n_user: u32,
    /// The slot of the process; see [`crate::table::ProcSlot`].
    pub slot: u32,
    /// Id of the goroutine that the thread runs; 0 if it runs none or the program is not Go's.
    pub goid: u64,
    /// Where the walk stopped: the address whose step failed.
    pub stop_pc: u64,
    /// In a sample whose thread was asked: its thread pointer, by which the answer names it. In a sample of a thread that
    /// was off the CPU: for how long, in nanoseconds. In a fork record: the parent's tgid.
    pub cookie: u64,
    /// Name of the thread, padded with zeros (`task->comm`).
    pub comm: [u8; 16],
    /// How many labels of the goroutine follow the user stack: see [`LabelWords`].
    pub n_labels: u32,
    /// How many words they take.
    pub n_label_words: u32,
}

/// A label in a record: a word with the lengths of key (low half) and value (high half) in bytes, then the bytes of the key
/// and those of the value, each filled up to whole words. Of long ones only the beginning is there.
#[derive(Clone, Copy, Debug)]
pub struct LabelWords;

impl LabelWords {
    /// The most labels of a record.
    pub const MAX: u32 = 8;
    /// The most bytes of a key or value that are sent.
    pub const MAX_BYTES: u64 = 128;
}

impl Header {
    /// The sample interrupted kernel code.
    pub const FROM_KERNEL: u32 = 1;
    /// The thread was asked what its program's traceback hooks say: an answer may come.
    pub const ASKED: u32 = 2;
    /// The signal that asked it carried [`Header::time_ns`].
    pub const COOKIE: u32 = 4;
    /// The goroutine has more labels, or longer ones, than were read.
    pub const LABELS_CUT: u32 = 8;
}

/// One tagged word of the user stack.
///
/// User addresses have at most 47 bits on x86-64 (56 with five-level paging and an explicit `mmap` hint, which
/// no loader gives for code), so the top byte is free for a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserWord {
    /// The address of the next instruction after a call.
    ReturnAddress(u64),
    /// The address of the interrupted instruction itself: the leaf, and the frame below a signal handler.
    Exact(u64),
    /// The next word is the raw context value of the C segment whose frames follow, as
    /// `runtime.cgocallback` holds it for the callback that ended the segment.
    Context,
}

impl UserWord {
    const ADDRESS: u64 = (1 << 56) - 1;
    const EXACT: u64 = 1 << 56;
    const CONTEXT: u64 = 2 << 56;

    /// The tagged form of the frame at `pc`.
    #[inline(always)]
    pub const fn frame(pc: u64, exact: bool) -> u64 {
        (pc & Self::ADDRESS) | if exact { Self::EXACT } else { 0 }
    }

    /// The tag that announces a context value.
    pub const CONTEXT_TAG: u64 = Self::CONTEXT;

    /// Reads a tagged word.
    pub const fn decode(word: u64) -> Self {
        if word & Self::CONTEXT != 0 {
            Self::Context
        } else if word & Self::EXACT != 0 {
            Self::Exact(word & Self::ADDRESS)
        } else {
            Self::ReturnAddress(word)
        }
    }
}

/// Indices of the registers that a walk starts with, in the order of the kernel's `struct pt_regs`
/// (arch/x86/include/asm/ptrace.h), so that the BPF program can copy it as it is.
#[derive(Clone, Copy, Debug)]
pub struct Regs;

#[allow(missing_docs, reason = "they are the names of the registers")]
impl Regs {
    pub const R15: u32 = 0;
    pub const R14: u32 = 1;
    pub const R13: u32 = 2;
    pub const R12: u32 = 3;
    pub const RBP: u32 = 4;
    pub const RBX: u32 = 5;
    pub const R11: u32 = 6;
    pub const R10: u32 = 7;
    pub const R9: u32 = 8;
    pub const R8: u32 = 9;
    pub const RAX: u32 = 10;
    pub const RCX: u32 = 11;
    pub const RDX: u32 = 12;
    pub const RSI: u32 = 13;
    pub const RDI: u32 = 14;
    /// Number of the system call that the thread is in; [`Regs::NO_SYSCALL`] if it is in none.
    pub const ORIG_RAX: u32 = 15;
    pub const RIP: u32 = 16;
    pub const CS: u32 = 17;
    pub const RSP: u32 = 19;
    /// What entries to the kernel other than system calls store (arch/x86/entry/entry_64.S, `idtentry`).
    pub const NO_SYSCALL: u64 = u64::MAX;
    /// Words in `struct pt_regs`.
    pub const WORDS: usize = 21;

    /// The index of the register that DWARF numbers `n` (System V ABI, AMD64 supplement, figure 3.36).
    pub const fn from_dwarf(n: u16) -> Option<u32> {
        Some(match n {
            0 => Self::RAX,
            1 => Self::RDX,
            2 => Self::RCX,
            3 => Self::RBX,
            4 => Self::RSI,
            5 => Self::RDI,
            6 => Self::RBP,
            7 => Self::RSP,
            8 => Self::R8,
            9 => Self::R9,
            10 => Self::R10,
            11 => Self::R11,
            12 => Self::R12,
            13 => Self::R13,
            14 => Self::R14,
            15 => Self::R15,
            16 => Self::RIP,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::UserWord;

    #[test]
    fn tagged_words_come_back() {
        let pc = 0x7fff_ffff_f123;
        assert_eq!(UserWord::decode(UserWord::frame(pc, true)), UserWord::Exact(pc));
        assert_eq!(
            UserWord::decode(UserWord::frame(pc, false)),
            UserWord::ReturnAddress(pc)
        );
        assert_eq!(UserWord::decode(UserWord::CONTEXT_TAG), UserWord::Context);
    }
}
