//! The frames of one sample as one chain of calls, innermost first.
//!
//! | interrupted | the chain |
//! |---|---|
//! | kernel code | the kernel's frames, then those of the user stack; the innermost kernel frame is exact |
//! | user code | the frames of the user stack; the innermost one is exact |
//! | a signal handler's caller | exact too: the handler did not return to it by a call |
//! | a C segment with a context | as walked: the context says something to a program's hooks only |
//! | a word after the context that is missing | the chain ends before it |

use crate::addr::Avma;
use crate::profile::Origin;
use profiler_abi::sample::UserWord;

/// One frame of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergedFrame {
    /// Where the frame stands: the interrupted instruction, or for a caller the last byte of its call. The return
    /// address itself can belong to another function, when the call is the last instruction of its own.
    pub address: Avma,
    /// How we know the frame.
    pub origin: Origin,
}

/// The chain of a sample with these kernel addresses and tagged user words ([`UserWord`]), both innermost first.
pub fn chain(
    kernel: impl Iterator<Item = u64>,
    mut user: impl Iterator<Item = u64>,
) -> impl Iterator<Item = MergedFrame> {
    let kernel = kernel.enumerate().map(|(i, address)| {
        let exact = i == 0;
        frame(address, exact, Origin::Kernel)
    });
    let user = std::iter::from_fn(move || {
        loop {
            return Some(match UserWord::decode(user.next()?) {
                UserWord::Exact(pc) => frame(pc, true, Origin::Walked),
                UserWord::ReturnAddress(pc) => frame(pc, false, Origin::Walked),
                UserWord::Context => {
                    let _context = user.next()?;
                    continue;
                }
            });
        }
    });
    kernel.chain(user)
}

fn frame(pc: u64, exact: bool, origin: Origin) -> MergedFrame {
    let address = Avma(if exact { pc } else { pc.wrapping_sub(1) });
    MergedFrame { address, origin }
}

#[cfg(test)]
mod tests {
    use super::{MergedFrame, chain};
    use crate::addr::Avma;
    use crate::profile::Origin;
    use profiler_abi::sample::UserWord;

    const LEAF: u64 = UserWord::frame(0x1000, true);
    const CALLER: u64 = UserWord::frame(0x2000, false);

    fn merged(kernel: &[u64], user: &[u64]) -> Vec<MergedFrame> {
        chain(kernel.iter().copied(), user.iter().copied()).collect()
    }

    fn walked(address: u64) -> MergedFrame {
        MergedFrame {
            address: Avma(address),
            origin: Origin::Walked,
        }
    }

    fn kernel(address: u64) -> MergedFrame {
        MergedFrame {
            address: Avma(address),
            origin: Origin::Kernel,
        }
    }

    #[test]
    fn interrupted_user_code() {
        assert_eq!(merged(&[], &[LEAF, CALLER]), [walked(0x1000), walked(0x1fff)]);
    }

    #[test]
    fn interrupted_kernel_code() {
        // The user stack stands after the instruction that entered the kernel.
        assert_eq!(
            merged(&[u64::MAX, u64::MAX - 1], &[LEAF, CALLER]),
            [
                kernel(u64::MAX),
                kernel(u64::MAX - 2),
                walked(0x1000),
                walked(0x1fff)
            ]
        );
    }

    #[test]
    fn code_that_a_signal_interrupted() {
        assert_eq!(
            merged(&[], &[LEAF, CALLER, UserWord::frame(0x3000, true)]),
            [walked(0x1000), walked(0x1fff), walked(0x3000)]
        );
    }

    #[test]
    fn a_segment_with_a_context_is_taken_as_walked() {
        // The value looks like a tagged word and is none.
        assert_eq!(
            merged(&[], &[LEAF, UserWord::CONTEXT_TAG, CALLER, CALLER]),
            [walked(0x1000), walked(0x1fff)]
        );
    }

    #[test]
    fn a_context_without_a_value_ends_the_chain() {
        assert_eq!(merged(&[], &[LEAF, UserWord::CONTEXT_TAG]), [walked(0x1000)]);
    }

    #[test]
    fn a_sample_without_frames() {
        assert_eq!(merged(&[], &[]), []);
        assert_eq!(merged(&[7], &[]), [kernel(7)]);
    }
}
