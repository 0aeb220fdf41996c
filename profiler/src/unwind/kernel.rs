//! Code that nothing calls but the kernel: where a program starts, and what signal handlers return to.
//!
//! Both are assembly, and some C libraries have no call frame information for it (musl), or none for the former (glibc's
//! dynamic loader).

use super::asm::Function;
use super::rows::{Layer, Row};
use crate::addr::Svma;
use iced_x86::FlowControl;
use profiler_abi::rule::Rule;
use std::ops::Range;

/// `mov $15,%rax; syscall`, which is rt_sigreturn(2). Unwinders know a signal frame by these bytes (libgcc's
/// config/i386/linux-unwind.h), so C libraries use no others.
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05];

/// So much code is searched at a time, in bytes.
const CHUNK: usize = 16 << 20;

/// The longest code that a program starts with, in bytes. glibc's loader has about 80.
const MAX_START: u64 = 256;

/// Rows of what signal handlers return to in the sections `text`. `code` gives the bytes at stated addresses, and `release`
/// is called when a part of them has been read.
pub(super) fn signal_returns<'c>(
    text: &[Range<Svma>],
    code: impl Fn(Range<Svma>) -> Option<&'c [u8]>,
    release: impl Fn(),
) -> Layer {
    let finder = memchr::memmem::Finder::new(&SIGNAL_RETURN);
    let mut layer = Layer::default();
    for section in text {
        let bytes = code(section.clone()).unwrap_or_default();
        for first in (0..bytes.len()).step_by(CHUNK) {
            // What begins in the chunk may end behind it.
            let end = bytes.len().min(first + CHUNK + SIGNAL_RETURN.len() - 1);
            for at in finder.find_iter(&bytes[first..end]) {
                // It is a return address that no call precedes, and walks look those up less one.
                let at = (first + at) as u64;
                let start = Svma(section.start.0.saturating_add(at).saturating_sub(1));
                let end = Svma(start.0.saturating_add(1 + SIGNAL_RETURN.len() as u64));
                let rule = Rule::SIG_FRAME;
                layer.push(start..end, [Row { start, rule }]);
            }
            release();
        }
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
    use super::{CHUNK, SIGNAL_RETURN, signal_returns, start};
    use crate::addr::Svma;
    use crate::unwind::Rows;
    use profiler_abi::rule::{Kind, Rule};
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
            [signal_returns(std::slice::from_ref(&text), reader(code), || ())],
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
        let layer = signal_returns(
            std::slice::from_ref(&text),
            |_| Some(&code[..]),
            || released.set(released.get() + 1),
        );
        assert_eq!((layer.functions(), released.get()), (4, 3));
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
