//! What the hooks said.

use crate::addr::Avma;
use profiler_helper::shared::{
    Buffer, CONTEXTS_CUT, FREE, LEAF_ASKED, LEAF_OVERRUN, NO_HOOK, READY, SLOTS, Shared, Slot,
};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The answer to one signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `si_value` of the signal.
    pub cookie: u64,
    /// The thread: its thread pointer (the base of `fs`).
    pub thread_pointer: u64,
    /// The thread: its id in the process's own PID namespace; `None`: Go does not know the thread.
    pub tid: Option<u32>,
    /// The interrupted instruction.
    pub pc: Avma,
    /// The interrupted stack pointer.
    pub sp: Avma,
    /// What the traceback function said of the interrupted code, innermost first. `None`: Go would not have asked
    /// either, as the thread was not in C, or no hook is registered.
    pub leaf: Option<Vec<Avma>>,
    /// What it said of the contexts of callbacks, newest first.
    pub contexts: Vec<ContextAnswer>,
    /// There were more contexts than could be asked for.
    pub is_cut: bool,
    /// No traceback function is registered.
    pub no_hook: bool,
    /// The traceback function wrote behind the end of a buffer: it must not be called again.
    pub is_overrun: bool,
}

/// What the traceback function said of one context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextAnswer {
    /// The context, as the context function returned it.
    pub context: u64,
    /// Innermost first.
    pub pcs: Vec<Avma>,
}

/// Takes the answers that are there, in the order in which their questions came: the slots are claimed in turn.
pub fn take(shared: &Shared) -> Vec<Answer> {
    let next = shared.next.load(Relaxed) as usize % SLOTS;
    let (newer, older) = shared.slots.split_at(next);
    let ready = older
        .iter()
        .chain(newer)
        .filter(|slot| slot.state.load(Acquire) == READY);
    ready
        .map(|slot| {
            let answer = read(slot);
            slot.state.store(FREE, Release);
            answer
        })
        .collect()
}

fn read(slot: &Slot) -> Answer {
    let flags = slot.flags.load(Relaxed);
    let n_contexts = slot.n_contexts.load(Relaxed) as usize;
    let contexts = || slot.contexts.iter().take(n_contexts);
    let overrun_context = contexts().any(|context| context.overrun.load(Relaxed) != 0);
    Answer {
        cookie: slot.cookie.load(Relaxed),
        thread_pointer: slot.thread_pointer.load(Relaxed),
        tid: u32::try_from(slot.tid.load(Relaxed)).ok().filter(|&tid| tid != 0),
        pc: Avma(slot.pc.load(Relaxed)),
        sp: Avma(slot.sp.load(Relaxed)),
        leaf: (flags & LEAF_ASKED != 0).then(|| pcs(&slot.leaf)),
        contexts: contexts()
            .map(|context| ContextAnswer {
                context: context.value.load(Relaxed),
                pcs: pcs(&context.buffer),
            })
            .collect(),
        is_cut: flags & CONTEXTS_CUT != 0,
        no_hook: flags & NO_HOOK != 0,
        is_overrun: flags & LEAF_OVERRUN != 0 || overrun_context,
    }
}

fn pcs(buffer: &Buffer) -> Vec<Avma> {
    let words = buffer.pcs.iter().map(|pc| pc.load(Relaxed));
    words.take_while(|&pc| pc != 0).map(Avma).collect()
}
