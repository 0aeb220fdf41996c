//! Conversations with hooks that keep to the protocol, and with hooks that do not.

use super::{ArgumentBlock, Function, MAX_CALLS, MAX_STRING, Memory, Named, Oddity, Symbolizer};
use std::collections::BTreeMap;

/// Memory of a made-up process: strings at addresses. The rest cannot be read.
#[derive(Default)]
struct Strings(BTreeMap<u64, Vec<u8>>);

impl Strings {
    /// Puts a string somewhere.
    fn put(&mut self, text: impl AsRef<[u8]>) -> u64 {
        let address = 0x1000 + self.0.len() as u64 * 0x1000;
        self.set(address, text);
        address
    }

    fn set(&mut self, address: u64, text: impl AsRef<[u8]>) {
        self.0.insert(address, text.as_ref().to_vec());
    }
}

impl Memory for Strings {
    fn c_string(&mut self, address: u64, max: usize) -> Option<Vec<u8>> {
        let bytes = self.0.get(&address)?;
        Some(bytes[..bytes.len().min(max)].to_vec())
    }
}

type Block = ArgumentBlock;

/// Holds the conversation with `hook`, and returns the blocks that it was called with.
fn talk(
    symbolizer: &mut Symbolizer,
    memory: &mut Strings,
    mut hook: impl FnMut(&mut Block, &mut Strings),
) -> Vec<Block> {
    let mut calls = Vec::new();
    while let Some(mut block) = symbolizer.next_call() {
        calls.push(block);
        assert!(calls.len() < 10_000, "the conversation does not end");
        hook(&mut block, memory);
        symbolizer.returned(block, memory);
    }
    calls
}

/// Asks `hook` about one address.
fn ask(pc: u64, hook: impl FnMut(&mut Block, &mut Strings)) -> (Named, Vec<Block>) {
    let mut symbolizer = Symbolizer::default();
    symbolizer.ask(pc);
    let calls = talk(&mut symbolizer, &mut Strings::default(), hook);
    (symbolizer.named(pc).unwrap().clone(), calls)
}

fn pcs(calls: &[Block]) -> Vec<u64> {
    calls.iter().map(|block| block.pc).collect()
}

fn function(name: &str, file: &str, line: u32) -> Function {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Function {
        name: some(name),
        file: some(file),
        line: (line != 0).then_some(line),
        entry: None,
    }
}

fn odd(answer: &Named) -> Vec<Oddity> {
    answer.odd.iter().copied().collect()
}

/// `tcSymbolizer` of Go's runtime/testdata/testprogcgo/tracebackctxt_c.c: two lines for each address, the first when
/// `File` is still nil.
fn tc_symbolizer(block: &mut Block, memory: &mut Strings) {
    if block.pc == 0 {
        return;
    }
    block.more = u64::from(block.file == 0);
    block.file = memory.put("tracebackctxt.go");
    block.func = memory.put("cFunction");
    block.lineno = block.pc + (block.more << 16);
}

/// `cgoSymbolizer` of traceback_c.c in the same folder: expects one block for all addresses of a stack.
fn cgo_symbolizer(block: &mut Block, memory: &mut Strings) {
    block.file = memory.put(if block.pc == block.data.wrapping_add(1) {
        "cgo symbolizer"
    } else {
        "unexpected data"
    });
    block.lineno = block.data + 1;
    block.data += 1;
}

#[test]
fn a_hook_that_tells_calls_apart_by_file_gives_its_inlined_pair_for_each_address() {
    let mut symbolizer = Symbolizer::default();
    for pc in [0x200, 0x201] {
        symbolizer.ask(pc);
    }
    let calls = talk(&mut symbolizer, &mut Strings::default(), tc_symbolizer);
    assert_eq!(pcs(&calls), [0x200, 0x200, 0, 0x201, 0x201, 0]);
    for pc in [0x200, 0x201] {
        let line = pc as u32;
        assert_eq!(
            symbolizer.named(pc).unwrap().functions,
            [
                function("cFunction", "tracebackctxt.go", 0x10000 + line),
                function("cFunction", "tracebackctxt.go", line)
            ]
        );
    }
    assert!(symbolizer.oddities().is_empty());
}

#[test]
fn a_hook_that_expects_one_block_for_all_gets_a_new_one_for_each() {
    // As in Go's CPU profiles, where addresses 2 and 3 are "unexpected data".
    let mut symbolizer = Symbolizer::default();
    for pc in [1, 2, 3] {
        symbolizer.ask(pc);
    }
    talk(&mut symbolizer, &mut Strings::default(), cgo_symbolizer);
    let answers: Vec<_> = symbolizer
        .all()
        .map(|(pc, answer)| (pc, answer.functions.clone()))
        .collect();
    assert_eq!(
        answers,
        [
            (1, vec![function("", "cgo symbolizer", 1)]),
            (2, vec![function("", "unexpected data", 1)]),
            (3, vec![function("", "unexpected data", 1)])
        ]
    );
}

#[test]
fn every_address_begins_with_zeros_and_ends_with_a_call_for_0() {
    let mut symbolizer = Symbolizer::default();
    symbolizer.ask(0x10);
    symbolizer.ask(0x20);
    let calls = talk(&mut symbolizer, &mut Strings::default(), |block, memory| {
        block.func = memory.put("f");
        block.entry = 0xe;
        block.data = 0xd;
    });
    let zeros = Block::default();
    assert_eq!(calls[0], Block { pc: 0x10, ..zeros });
    assert_eq!(calls[2], Block { pc: 0x20, ..zeros });
    for last in [calls[1], calls[3]] {
        assert_eq!((last.pc, last.entry, last.data), (0, 0xe, 0xd));
        assert_ne!(last.func, 0);
    }
    assert_eq!(calls.len(), 4);
}

#[test]
fn what_the_hook_left_is_what_it_finds_in_the_next_call_for_the_same_address() {
    let mut left = Vec::new();
    let (answer, calls) = ask(0x10, |block, memory| {
        block.func = memory.put(format!("f{}", block.data));
        block.data += 1;
        block.more = 3 - block.data.min(3);
        // Not the hook's to change; "again with the same PC".
        block.pc = 0x666;
        left.push(*block);
    });
    assert_eq!(pcs(&calls), [0x10, 0x10, 0x10, 0]);
    for (left, found) in left.iter().zip(&calls[1..]) {
        assert_eq!(
            Block {
                pc: found.pc,
                ..*left
            },
            *found
        );
    }
    assert_eq!(
        answer.functions,
        [
            function("f0", "", 0),
            function("f1", "", 0),
            function("f2", "", 0)
        ]
    );
}

#[test]
fn a_hook_that_never_clears_more_is_cut_off_and_still_told_that_it_is_over() {
    let (answer, calls) = ask(0x10, |block, memory| {
        block.func = memory.put("again");
        block.more = u64::MAX;
    });
    assert_eq!(answer.functions.len(), MAX_CALLS);
    assert_eq!(odd(&answer), [Oddity::Capped]);
    assert_eq!(calls.len(), MAX_CALLS + 1);
    assert_eq!(pcs(&calls)[MAX_CALLS - 1..], [0x10, 0]);
}

#[test]
fn the_last_of_the_allowed_calls_is_not_too_many() {
    let mut n_calls = 0;
    let (answer, _) = ask(0x10, |block, memory| {
        n_calls += 1;
        block.func = memory.put("again");
        block.more = u64::from(n_calls < MAX_CALLS);
    });
    assert_eq!((answer.functions.len(), odd(&answer)), (MAX_CALLS, vec![]));
}

#[test]
fn an_answer_that_says_nothing_still_ends_with_a_call_for_0() {
    let (answer, calls) = ask(0x10, |_, _| ());
    assert_eq!(answer, Named::default());
    assert_eq!(pcs(&calls), [0x10, 0]);
}

#[test]
fn an_answer_that_says_nothing_but_more_is_asked_on() {
    let (answer, calls) = ask(0x10, |block, memory| {
        block.data += 1;
        block.more = u64::from(block.data == 1);
        if block.data == 2 {
            block.func = memory.put("late");
        }
    });
    assert_eq!(answer.functions, [function("late", "", 0)]);
    assert_eq!(pcs(&calls), [0x10, 0x10, 0]);
}

#[test]
fn an_address_is_asked_for_once() {
    let mut symbolizer = Symbolizer::default();
    let mut memory = Strings::default();
    for pc in [0x10, 0x20, 0x10, 0] {
        symbolizer.ask(pc);
    }
    let calls = talk(&mut symbolizer, &mut memory, tc_symbolizer);
    assert_eq!(pcs(&calls), [0x10, 0x10, 0, 0x20, 0x20, 0]);
    symbolizer.ask(0x20);
    assert_eq!(symbolizer.next_call(), None);
}

#[test]
fn names_are_those_of_the_moment_though_the_hook_writes_over_them() {
    let mut memory = Strings::default();
    let buffer = memory.put("");
    let mut symbolizer = Symbolizer::default();
    symbolizer.ask(0x10);
    symbolizer.ask(0x20);
    talk(&mut symbolizer, &mut memory, |block, memory| {
        memory.set(buffer, format!("name of {:#x}", block.pc));
        block.func = buffer;
    });
    let name = |pc| symbolizer.named(pc).unwrap().functions[0].name.clone();
    assert_eq!(name(0x10).as_deref(), Some("name of 0x10"));
    assert_eq!(name(0x20).as_deref(), Some("name of 0x20"));
}

#[test]
fn a_name_in_unreadable_memory_is_absent_and_reported() {
    let (answer, calls) = ask(0x10, |block, memory| {
        block.func = 0xdead_beef_dead_beef;
        block.file = memory.put("known.c");
        block.lineno = 5;
    });
    assert_eq!(answer.functions, [function("", "known.c", 5)]);
    assert_eq!(odd(&answer), [Oddity::UnreadableString]);
    assert_eq!(pcs(&calls), [0x10, 0]);

    let (answer, _) = ask(0x10, |block, _| {
        block.func = 1;
        block.file = u64::MAX;
    });
    assert_eq!(answer.functions, []);
    assert_eq!(odd(&answer), [Oddity::UnreadableString]);
}

#[test]
fn a_name_without_an_end_is_absent_and_reported() {
    for length in [MAX_STRING + 1, 1 << 20] {
        let (answer, _) = ask(0x10, |block, memory| {
            block.func = memory.put(vec![b'x'; length]);
            block.file = memory.put("known.c");
        });
        assert_eq!(answer.functions, [function("", "known.c", 0)]);
        assert_eq!(odd(&answer), [Oddity::UnterminatedString]);
    }
}

#[test]
fn the_longest_name_is_whole() {
    let longest = "x".repeat(MAX_STRING);
    let (answer, _) = ask(0x10, |block, memory| block.func = memory.put(&longest));
    assert_eq!(answer.functions, [function(&longest, "", 0)]);
    assert_eq!(odd(&answer), []);
}

#[test]
fn an_empty_name_names_nothing() {
    let (answer, _) = ask(0x10, |block, memory| block.func = memory.put(""));
    assert_eq!(answer, Named::default());
}

#[test]
fn names_that_are_no_text_or_try_to_be_more_than_text_are_kept_for_the_formats_to_escape() {
    let (answer, _) = ask(0x10, |block, memory| {
        block.func = memory.put(b"caf\xe9\x1b[2J\n;\"<script>&");
        block.file = memory.put("</text>]]>");
    });
    assert_eq!(
        answer.functions,
        [function("caf\u{fffd}\u{1b}[2J\n;\"<script>&", "</text>]]>", 0)]
    );
    assert_eq!(odd(&answer), []);
}

#[test]
fn lines_that_no_compiler_counts_are_unknown() {
    for (lineno, line, oddities) in [
        (0, None, vec![]),
        (1, Some(1), vec![]),
        (i32::MAX as u64, Some(i32::MAX as u32), vec![]),
        (i32::MAX as u64 + 1, None, vec![Oddity::BadLine]),
        (u64::MAX, None, vec![Oddity::BadLine]),
    ] {
        let (answer, _) = ask(0x10, |block, memory| {
            block.func = memory.put("f");
            block.lineno = lineno;
        });
        assert_eq!((answer.functions[0].line, odd(&answer)), (line, oddities));
    }
}

#[test]
fn any_entry_is_only_a_number() {
    for entry in [1, 0x10, u64::MAX] {
        let (answer, _) = ask(0x10, |block, memory| {
            block.func = memory.put("f");
            block.entry = entry;
        });
        assert_eq!(answer.functions[0].entry, Some(entry));
        assert_eq!(odd(&answer), []);
    }
}

#[test]
fn a_hook_that_does_not_come_back_loses_its_address_and_no_other() {
    let mut symbolizer = Symbolizer::default();
    let mut memory = Strings::default();
    symbolizer.ask(0x10);
    symbolizer.ask(0x20);
    let mut block = symbolizer.next_call().unwrap();
    block.func = memory.put("before");
    block.more = 1;
    symbolizer.returned(block, &mut memory);
    assert_eq!(symbolizer.next_call().unwrap().pc, 0x10);
    symbolizer.failed();
    // Not 0: a new process knows nothing of the conversation.
    assert_eq!(symbolizer.next_call().unwrap().pc, 0x20);
    talk(&mut symbolizer, &mut memory, tc_symbolizer);

    let answer = symbolizer.named(0x10).unwrap();
    assert_eq!(answer.functions, [function("before", "", 0)]);
    assert_eq!(odd(answer), [Oddity::Failed]);
    assert_eq!(symbolizer.named(0x20).unwrap().functions.len(), 2);
}

#[test]
fn a_hook_that_fails_in_its_last_call_has_said_everything() {
    let mut symbolizer = Symbolizer::default();
    let mut memory = Strings::default();
    symbolizer.ask(0x10);
    let mut block = symbolizer.next_call().unwrap();
    block.func = memory.put("f");
    symbolizer.returned(block, &mut memory);
    assert_eq!(symbolizer.next_call().unwrap().pc, 0);
    assert_eq!(symbolizer.named(0x10), None, "the conversation is not over");
    symbolizer.failed();
    let answer = symbolizer.named(0x10).unwrap();
    assert_eq!(answer.functions, [function("f", "", 0)]);
    assert_eq!(odd(answer), [Oddity::Failed]);
    assert_eq!(symbolizer.next_call(), None);
}

#[test]
fn a_call_is_the_same_until_it_has_come_back_and_nothing_comes_back_without_a_call() {
    let mut symbolizer = Symbolizer::default();
    let mut memory = Strings::default();
    symbolizer.returned(Block::default(), &mut memory);
    symbolizer.failed();
    assert_eq!(symbolizer.next_call(), None);
    symbolizer.ask(0x10);
    assert_eq!(symbolizer.next_call(), symbolizer.next_call());
    assert_eq!(symbolizer.all().count(), 0);
}

#[test]
fn names_that_would_fill_the_memory_are_not_asked_for() {
    let mut memory = Strings::default();
    // Bytes that are no text take three times their room.
    let long = memory.put(vec![0xff; MAX_STRING]);
    let mut symbolizer = Symbolizer::default();
    for pc in 1..=100 {
        symbolizer.ask(pc);
    }
    talk(&mut symbolizer, &mut memory, |block, _| {
        (block.func, block.file, block.more) = (long, long, 1);
    });
    let named = symbolizer
        .all()
        .take_while(|(_, answer)| !answer.functions.is_empty())
        .count();
    let per_address = MAX_CALLS * 2 * 3 * MAX_STRING;
    assert_eq!(named, super::MAX_KEPT.div_ceil(per_address));
    assert_eq!(
        symbolizer.oddities(),
        BTreeMap::from([
            (Oddity::Capped, named as u64),
            (Oddity::OutOfSpace, 100 - named as u64)
        ])
    );
}
