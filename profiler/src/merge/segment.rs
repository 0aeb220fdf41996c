//! C segments: where they begin and end in the walked stack, and who speaks for them.

use super::{Item, MergedFrame};
use crate::addr::Avma;
use crate::hooks::{Answer, PcList};
use crate::profile::Origin;

/// What is at an address, as far as merging has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No Go function, or nothing.
    Native,
    /// A Go function, or one of the assembly functions that Go's linker puts among them.
    Go,
    /// `runtime.asmcgocall`, by which Go calls C.
    AsmCgoCall,
}

/// The frames of a context that were others when the context function was called than they are in the callback: that
/// function itself, `_cgo_wait_runtime_init_done`, and the stub that called it before it called `crosscall2`
/// (runtime/cgo/gcc_libinit.c and cmd/cgo/out.go, Go 1.21–1.27).
const CONTEXT_FRAMES: usize = 3;

/// The walked stack with the hook's frames in place of those that it speaks for.
pub(super) fn answered(mut rest: &[Item], answer: &Answer, code: impl Fn(Avma) -> Code) -> Vec<MergedFrame> {
    let code = &code;
    let mut chain = Vec::with_capacity(rest.len());

    let innermost = take_segment(&mut rest, code);
    let called_by_cgo = match rest.first() {
        None => true,
        Some(Item::Frame(caller)) => code(caller.address) == Code::AsmCgoCall,
        Some(Item::Context(_)) => false,
    };
    let list = (called_by_cgo && !innermost.is_empty()).then_some(&answer.leaf);
    extend(&mut chain, &innermost, list, 0, code);

    while let Some((item, others)) = rest.split_first() {
        rest = others;
        match *item {
            Item::Frame(frame) => chain.push(frame),
            Item::Context(value) => {
                // The walk goes from `runtime.cgocallback` to `crosscall2`, always, and from there to C.
                if let Some((Item::Frame(frame), others)) = rest.split_first()
                    && code(frame.address) == Code::Go
                {
                    chain.push(*frame);
                    rest = others;
                }
                let walked = take_segment(&mut rest, code);
                extend(&mut chain, &walked, answer.context(value), CONTEXT_FRAMES, code);
            }
        }
    }
    chain
}

/// Takes the C frames at the start of a stack.
fn take_segment(rest: &mut &[Item], code: impl Fn(Avma) -> Code) -> Vec<MergedFrame> {
    let segment: Vec<_> = rest
        .iter()
        .map_while(|item| match item {
            Item::Frame(frame) if code(frame.address) == Code::Native => Some(*frame),
            Item::Frame(_) | Item::Context(_) => None,
        })
        .collect();
    *rest = &rest[segment.len()..];
    segment
}

/// Appends the frames of a segment: the hook's, if it has something to say about it. Up to `others` of its innermost frames
/// may not be in the walk.
fn extend(
    chain: &mut Vec<MergedFrame>,
    walked: &[MergedFrame],
    list: Option<&PcList>,
    others: usize,
    code: impl Fn(Avma) -> Code,
) {
    let pcs = list.map_or(&[][..], |list| list.pcs.as_slice());
    let in_go = pcs.iter().position(|&pc| code(Avma(pc)) != Code::Native);
    let said = &pcs[..in_go.unwrap_or(pcs.len())];
    if said.is_empty() {
        chain.extend(walked);
        return;
    }
    chain.extend(said.iter().map(|&pc| MergedFrame {
        address: Avma(pc),
        origin: Origin::Hook,
    }));
    // A hook that has reached Go has said everything.
    if in_go.is_none() {
        chain.extend(what_follows(walked, said, others));
    }
}

/// The walked frames that come after those that the hook gave, if it gave just some of them. It may have left out the
/// innermost ones, as it does where its own functions or a stub of cgo stand; or it may have up to `others` more.
fn what_follows<'a>(walked: &'a [MergedFrame], said: &[u64], others: usize) -> &'a [MergedFrame] {
    let after = |said: &[u64]| {
        let is_said = |frames: &[MergedFrame]| {
            frames
                .iter()
                .zip(said)
                .all(|(frame, &pc)| is_same(frame.address, pc))
        };
        let at = walked.windows(said.len()).position(is_said)?;
        Some(&walked[at + said.len()..])
    };
    (0..=others.min(said.len() - 1))
        .find_map(|others| after(&said[others..]))
        .unwrap_or_default()
}

/// Whether a hook means the frame at `address`. Against the protocol, some hooks give the return address.
fn is_same(address: Avma, pc: u64) -> bool {
    pc == address.0 || pc.checked_sub(1) == Some(address.0)
}
