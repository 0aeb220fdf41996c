//! What the traceback hooks of a program said about one interrupted thread, as the helper in the program reports it.
//!
//! The helper calls the traceback function in its signal handler, first for the interrupted code, then for each context
//! that is live. The program can write to the memory that carries the answer as well as the helper can, so an address
//! in it is only a number.

/// The most addresses that one call of a traceback function gives: what the Go runtime asks for (`cgoCallers` in
/// runtime/symtab.go and `tracebackPCs` in runtime/traceback.go, Go 1.21–1.27).
pub const MAX_PCS: usize = 32;
/// The stacks of one interrupted thread as its program sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The thread: its thread pointer (the base of `fs`), which both sides know, in whatever PID namespace.
    pub thread: u64,
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

impl Answer {
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
    use super::{Answer, MAX_PCS, PcList};

    #[test]
    fn a_list_ends_at_its_first_zero() {
        let mut buffer = [0; MAX_PCS];
        buffer[..4].copy_from_slice(&[5, u64::MAX, 0, 7]);
        let list = PcList::new(&buffer);
        assert_eq!((list.pcs, list.full), (vec![5, u64::MAX], false));
    }

    #[test]
    fn a_list_without_a_zero_is_full() {
        let list = PcList::new(&[9; MAX_PCS]);
        assert_eq!((list.pcs.len(), list.full), (MAX_PCS, true));
    }

    #[test]
    fn equal_contexts_share_an_answer() {
        let list = |pc| PcList {
            pcs: vec![pc],
            full: false,
        };
        let answer = Answer {
            contexts: vec![(3, list(30)), (4, list(40)), (3, list(31))],
            ..Answer::default()
        };
        assert_eq!(answer.context(3), Some(&list(30)));
        assert_eq!(answer.context(4), Some(&list(40)));
        assert_eq!(answer.context(5), None);
    }
}
