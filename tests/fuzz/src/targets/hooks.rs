//! What traceback hooks and symbolizers say.

use crate::input::Input;
use crate::sys;
use profiler::addr::Avma;
use profiler::hooks::answer::MAX_PCS;
use profiler::hooks::symbolizer::{ArgumentBlock, MAX_CALLS, MAX_STRING, Memory};
use profiler::hooks::{Answer, PcList, Symbolizer, Table};
use profiler::inject::take_answers;
use profiler::merge::{self, Code};
use profiler_helper::shared::Shared;

/// Memory in which the input lies again and again.
struct Repeated<'d>(&'d [u8]);

impl Memory for Repeated<'_> {
    fn c_string(&mut self, address: u64, max: usize) -> Option<Vec<u8>> {
        if self.0.is_empty() || address >> 47 != 0 {
            return None;
        }
        let from = (address % self.0.len() as u64) as usize;
        let bytes = self.0.iter().cycle().skip(from).copied();
        Some(bytes.take_while(|byte| *byte != 0).take(max).collect())
    }
}

/// A symbolizer that leaves anything in its block.
pub fn symbolizer(data: &[u8]) {
    let mut input = Input(data);
    let mut conversation = Symbolizer::default();
    let n = usize::from(input.u8());
    for _ in 0..n {
        conversation.ask(input.u64());
    }
    let mut calls = 0;
    while let Some(block) = conversation.next_call() {
        calls += 1;
        assert!(calls <= n * (MAX_CALLS + 1), "it comes to an end");
        if input.u8() == 0xff {
            conversation.failed();
            continue;
        }
        let left = ArgumentBlock {
            pc: block.pc ^ u64::from(input.u8()),
            file: input.u64() & 0xffff_0000_ffff_ffff,
            lineno: input.u64(),
            func: input.u64() & 0xffff_0000_ffff_ffff,
            entry: input.u64(),
            more: u64::from(input.u8() & 1),
            data: block.data.wrapping_add(1),
        };
        conversation.returned(left, &mut Repeated(data));
    }
    for (_, named) in conversation.all() {
        for function in &named.functions {
            let longest = [&function.name, &function.file]
                .into_iter()
                .flatten()
                .map(String::len)
                .max();
            // A byte that is no character becomes one of three.
            assert!(longest.unwrap_or(0) <= 3 * MAX_STRING);
        }
    }
    let _ = conversation.oddities();
}

/// The memory that the helper shares, the chain of a sample with an answer from it.
pub fn answers(data: &[u8]) {
    let mut input = Input(data);
    let words: Vec<u64> = (0..usize::from(input.u8())).map(|_| input.u64()).collect();
    // What the profiler itself writes is in front.
    let head = std::mem::offset_of!(Shared, counters);
    let mut bytes = vec![0; head];
    bytes.extend(input.0);
    let shared = sys::shared(&bytes);
    let kind = |address: Avma| match address.0 >> 4 & 3 {
        0 => Code::Go,
        1 => Code::AsmCgoCall,
        _ => Code::Native,
    };
    let list = |pcs: &[Avma]| PcList {
        pcs: pcs.iter().map(|pc| pc.0).collect(),
        full: pcs.len() == MAX_PCS,
    };
    for answer in take_answers(&shared) {
        let mut contexts = Vec::new();
        for context in &answer.contexts {
            contexts.push((context.context, list(&context.pcs)));
        }
        let answer = Answer {
            thread: answer.thread_pointer,
            pc: answer.pc.0,
            cookie: answer.cookie,
            leaf: answer.leaf.as_deref().map(list).unwrap_or_default(),
            contexts,
        };
        let chain = merge::answered(words.iter().copied(), &answer, kind);
        // Each segment is as walked or as told.
        assert!(chain.len() <= words.len() * (MAX_PCS + 1) + MAX_PCS);
    }
    assert!(take_answers(&shared).is_empty(), "each is taken once");
}

/// The table by which programs publish hooks.
pub fn table(data: &[u8]) {
    let _ = Table::read(data);
    let _ = Table::find(data);
}
