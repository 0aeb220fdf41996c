//! The frames of one sample as one chain of calls, innermost first.
//!
//! | interrupted | the chain |
//! |---|---|
//! | kernel code | the kernel's frames, then those of the user stack; the innermost kernel frame is exact |
//! | user code | the frames of the user stack; the innermost one is exact |
//! | a signal handler's caller | exact too: the handler did not return to it by a call |
//! | a word after the context that is missing | the chain ends before it |
//!
//! If the program's hooks were asked ([`answered`]), they speak for its *C segments*: the C functions between two
//! switches of stacks. One is innermost, if C was interrupted. The others follow `runtime.cgocallback`, and have a
//! context if the program's context hook gave one.
//!
//! | C segment | its frames |
//! |---|---|
//! | innermost, called by `runtime.asmcgocall`, or by nobody: on a thread of C, or where the walk got lost | those that the hook gave for the interrupted code |
//! | innermost, called otherwise: the vDSO by the Go runtime, a handler of C by Go's | as walked: C called through cgo is what the hook speaks of |
//! | with a context | those that the hook gave for a context of that value |
//! | without one (its value is 0), or with one that the hook was not asked for | as walked |
//! | for which the hook gave nothing, or Go functions only | as walked |
//! | for which the hook went on into Go functions | those before the first of them: Go's are in the walk |
//! | for which the hook gave the beginning of what was walked | those, then the rest as walked: a hook has room for 32, and some stop sooner. A context may begin with the frames of the context function and of its callers, which are gone |
//! | that the walk did not reach | not in the chain: what would stand between is not known |
//!
//! Everything else stays as walked, also when the hook names it: Go functions, and the assembly between the
//! segments (`runtime.asmcgocall`, `runtime.cgocallback`, `crosscall2`, `_cgoexp_…`), which is Go text. The stubs that
//! cgo writes in C are part of the segment, as in Go's own profile, which has them when the hook lists them.
//!
//! A sample that interrupted kernel code has no answer: the signal would come when the system call is over.

mod segment;

pub use segment::Code;

use crate::addr::Avma;
use crate::hooks::Answer;
use crate::profile::Origin;
use profiler_abi::sample::UserWord;

/// One frame of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergedFrame {
    /// Where the frame stands: the interrupted instruction, or for a caller the last byte of its call. The return
    /// address itself can belong to another function, when the call is the last instruction of its own. If a hook gave
    /// the frame, the address as it gave it, which its symbolizer knows.
    pub address: Avma,
    /// How we know the frame.
    pub origin: Origin,
}

/// The chain of a sample with these kernel addresses and tagged user words ([`UserWord`]), both innermost first.
pub fn chain(
    kernel: impl Iterator<Item = u64>,
    user: impl Iterator<Item = u64>,
) -> impl Iterator<Item = MergedFrame> {
    let kernel = kernel.enumerate().map(|(i, address)| {
        let exact = i == 0;
        frame(address, exact, Origin::Kernel)
    });
    let user = items(user).filter_map(|item| match item {
        Item::Frame(frame) => Some(frame),
        Item::Context(_) => None,
    });
    kernel.chain(user)
}

/// The chain of a sample that interrupted user code and for which the program's hooks gave `answer`. `code` says what
/// is at an address of the process.
pub fn answered(
    user: impl Iterator<Item = u64>,
    answer: &Answer,
    code: impl Fn(Avma) -> Code,
) -> Vec<MergedFrame> {
    segment::answered(&items(user).collect::<Vec<_>>(), answer, code)
}

/// A user word that has been understood.
#[derive(Clone, Copy, Debug)]
enum Item {
    Frame(MergedFrame),
    /// The context of the C segment whose frames follow.
    Context(u64),
}

fn items(mut words: impl Iterator<Item = u64>) -> impl Iterator<Item = Item> {
    std::iter::from_fn(move || {
        Some(match UserWord::decode(words.next()?) {
            UserWord::Exact(pc) => Item::Frame(frame(pc, true, Origin::Walked)),
            UserWord::ReturnAddress(pc) => Item::Frame(frame(pc, false, Origin::Walked)),
            UserWord::Context => Item::Context(words.next()?),
        })
    })
}

fn frame(pc: u64, exact: bool, origin: Origin) -> MergedFrame {
    let address = Avma(if exact { pc } else { pc.wrapping_sub(1) });
    MergedFrame { address, origin }
}

#[cfg(test)]
mod tests;
