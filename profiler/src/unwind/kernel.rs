//! Code that nothing calls but the kernel: where programs and threads begin, and what signal handlers return to.
//!
//! All of it is assembly, and C libraries have no call frame information for some: musl for none, glibc for where its dynamic
//! loader begins, and from the system call that begins a thread up to the return of it.

use super::asm::Function;
use super::rows::{Layer, Row};
use super::{ExtTable, Rows};
use crate::addr::Svma;
use iced_x86::FlowControl;
use profiler_abi::rule::{ExtRule, Rule};
use std::ops::Range;

/// `mov $15,%rax; syscall`, which is rt_sigreturn(2). Unwinders know a signal frame by these bytes (libgcc's
/// config/i386/linux-unwind.h), so C libraries use no others.
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];

/// So much code is searched at a time, in bytes.
const CHUNK: usize = 16 << 20;

/// The longest code that a program starts with, in bytes. glibc's loader has about 80.
const MAX_START: u64 = 256;

/// `mov $nr,%eax` before a `syscall` that begins a thread: clone(2), 56, and clone3(2), 435.
const BEGINS_THREAD: [[u8; 5]; 2] = [[0xb8, 0x38, 0, 0, 0], [0xb8, 0xb3, 0x01, 0, 0]];

/// The end of all of these, with the `syscall`.
const NEEDLE: [u8; 4] = [0x00, 0x00, 0x0f, 0x05];

/// The longest code that is looked at from a `syscall` to a return, in bytes. glibc has 10.
const MAX_RETURN: usize = 32;

/// System calls that are known by their bytes.
#[derive(Debug, Default)]
pub(super) struct SystemCalls {
    /// Rows of what signal handlers return to.
    pub(super) signal_returns: Layer,
    /// Code from each `syscall` that begins a thread up to the return of it.
    pub(super) clones: Vec<Range<Svma>>,
}

impl SystemCalls {
    /// Searches the sections `text`. `code` gives the bytes at stated addresses, and `release` is called when a part of them
    /// has been read.
    pub(super) fn find<'c>(
        text: &[Range<Svma>],
        code: impl Fn(Range<Svma>) -> Option<&'c [u8]>,
        release: impl Fn(),
    ) -> Self {
        let finder = memchr::memmem::Finder::new(&NEEDLE);
        let mut calls = Self::default();
        for section in text {
            let bytes = code(section.clone()).unwrap_or_default();
            for first in (0..bytes.len()).step_by(CHUNK) {
                // What begins in the chunk may end behind it.
                let end = bytes.len().min(first + CHUNK + NEEDLE.len() - 1);
                for at in finder.find_iter(&bytes[first..end]) {
                    calls.add(section.start, bytes, first + at + 2);
                }
                release();
            }
        }
        calls
    }

    /// Adds the `syscall` that is `at` bytes behind `start`, if it is one of these.
    fn add(&mut self, start: Svma, bytes: &[u8], at: usize) {
        let address = |at: usize| Svma(start.0.saturating_add(at as u64));
        let (before, after) = bytes.split_at(at);
        if bytes[..at + 2].ends_with(&SIGNAL_RETURN) {
            // It is a return address that no call precedes, and walks look those up less one.
            let from = Svma(address(at + 2 - SIGNAL_RETURN.len()).0.saturating_sub(1));
            let rule = Rule::SIG_FRAME;
            self.signal_returns
                .push(from..address(at + 2), [Row { start: from, rule }]);
        } else if BEGINS_THREAD.iter().any(|mov| before.ends_with(mov)) {
            let code = &after[..after.len().min(MAX_RETURN)];
            let instructions = Function::decode(address(at), code).instructions;
            let returns = instructions
                .iter()
                .find(|instruction| instruction.is_stack_instruction());
            if let Some(returns) = returns.filter(|found| found.flow_control() == FlowControl::Return) {
                self.clones.push(address(at)..Svma(returns.next_ip()));
            }
        }
    }
}

/// Rows of where threads begin and `rows` has none: that of the instruction before, for the thread that made the call.
pub(super) fn clones(clones: &[Range<Svma>], rows: &Rows, ext: &mut ExtTable) -> Layer {
    let mut layer = Layer::default();
    let is_bare = |clone: &&Range<Svma>| rows.rule_at(clone.start) == Rule::NONE;
    for clone in clones.iter().filter(is_bare) {
        let start = clone.start;
        let before = rows.rule_at(Svma(start.0.saturating_sub(1)));
        let rule = ext.flagged(before, ExtRule::BEGINS_THREADS);
        layer.push(clone.clone(), [Row { start, rule }]);
    }
    layer
}

/// The row of the code from `entry` on, where the kernel starts a program or its loader, up to where it goes elsewhere.
pub(super) fn start<'c>(
    entry: Svma,
    text: &[Range<Svma>],
    code: impl Fn(Range<Svma>) -> Option<&'c [u8]>,
) -> Layer {
    let mut layer = Layer::default();
    let section = text.iter().find(|section| section.contains(&entry));
    let end = section.map(|section| section.end.min(Svma(entry.0.saturating_add(MAX_START))));
    let Some(code) = end.and_then(|end| code(entry..end)) else {
        return layer;
    };
    let instructions = Function::decode(entry, code).instructions;
    let last = instructions.iter().find(|instruction| {
        matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Exception
        ) || instruction.mnemonic() == iced_x86::Mnemonic::Hlt
    });
    if let Some(last) = last {
        let row = Row {
            start: entry,
            rule: Rule::END,
        };
        layer.push(entry..Svma(last.next_ip()), [row]);
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, SIGNAL_RETURN, SystemCalls, clones, start};
    use crate::addr::Svma;
    use crate::unwind::testing::{layer_from, words};
    use crate::unwind::{ExtTable, Rows};
    use profiler_abi::rule::{ExtRule, Kind, Rule};
    use std::cell::Cell;
    use std::ops::Range;

    const BASE: u64 = 0x1000;

    fn text(code: &[u8]) -> Range<Svma> {
        Svma(BASE)..Svma(BASE + code.len() as u64)
    }

    fn reader(code: &'static [u8]) -> impl Fn(Range<Svma>) -> Option<&'static [u8]> {
        |range| code.get((range.start.0 - BASE) as usize..(range.end.0 - BASE) as usize)
    }

    #[test]
    fn a_signal_trampoline_is_known_by_its_bytes() {
        let code = b"\xc3\x90\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05\x48\xc7\xc0\x0f\x00\x00\x00\xc3";
        let text = text(code);
        let rows = Rows::overlay(
            [SystemCalls::find(std::slice::from_ref(&text), reader(code), || ()).signal_returns],
            &[text],
        );
        for (at, kind) in [
            (0, Kind::None),
            (1, Kind::SigFrame),
            (10, Kind::SigFrame),
            (11, Kind::None),
        ] {
            assert_eq!(rows.rule_at(Svma(BASE + at)).kind(), kind, "at {at}");
        }
    }

    #[test]
    fn trampolines_are_found_wherever_pieces_meet() {
        let mut code = vec![0x90; 2 * CHUNK + 20];
        for at in [CHUNK - 5, CHUNK + 4, 2 * CHUNK, 2 * CHUNK + 11] {
            code[at..][..SIGNAL_RETURN.len()].copy_from_slice(&SIGNAL_RETURN);
        }
        let text = text(&code);
        let released = Cell::new(0);
        let calls = SystemCalls::find(
            std::slice::from_ref(&text),
            |_| Some(&code[..]),
            || released.set(released.get() + 1),
        );
        assert_eq!((calls.signal_returns.functions(), released.get()), (4, 3));
    }

    #[test]
    fn where_threads_begin_the_rule_is_that_of_the_code_before() {
        // glibc's clone3, from `mov $435,%eax` on; then the same with something pushed, which is no code of glibc.
        let code = b"\xb8\xb3\x01\x00\x00\x0f\x05\x48\x85\xc0\x7c\x10\x74\x01\xc3\x31\xed\
            \xb8\x38\x00\x00\x00\x0f\x05\x50\xc3";
        let text = text(code);
        let calls = SystemCalls::find(std::slice::from_ref(&text), reader(code), || ());
        assert_eq!(calls.clones, [Svma(BASE + 5)..Svma(BASE + 15)]);
        let mut ext = ExtTable::default();
        let before = Rule::sp(8, None).unwrap();
        let mut rows = Rows::overlay(
            [layer_from(&[(BASE..BASE + 5, before)])],
            std::slice::from_ref(&text),
        );
        rows.fill(clones(&calls.clones, &rows, &mut ext), &[text]);
        for at in 5..15 {
            let rule = rows.rule_at(Svma(BASE + at));
            assert_eq!(words(rule, &ext), words(before, &ext), "at {at}");
            assert_eq!(
                ext.rules()[rule.ext_index() as usize].flags,
                ExtRule::BEGINS_THREADS
            );
        }
        assert_eq!(rows.rule_at(Svma(BASE + 15)), Rule::NONE);
    }

    #[test]
    fn nothing_is_above_where_a_program_starts() {
        // What glibc's loader starts with: `mov %rsp,%rdi; call +0; mov %rax,%r12; jmp *%r12`, then something else.
        let code = b"\x48\x89\xe7\xe8\x00\x00\x00\x00\x49\x89\xc4\x41\xff\xe4\x90\xc3";
        let text = text(code);
        let rows = Rows::overlay(
            [start(Svma(BASE), std::slice::from_ref(&text), reader(code))],
            &[text],
        );
        assert_eq!(rows.rule_at(Svma(BASE + 7)), Rule::END);
        assert_eq!(rows.rule_at(Svma(BASE + 14)), Rule::NONE);
    }

    #[test]
    fn an_entry_without_code_has_no_rows() {
        let code = b"\x90";
        let text = [text(code)];
        for entry in [0, BASE, BASE + 1, u64::MAX] {
            assert_eq!(
                start(Svma(entry), &text, reader(code)).functions(),
                0,
                "{entry:#x}"
            );
        }
    }
}
