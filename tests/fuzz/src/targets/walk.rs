//! The walk over any memory and any tables, and the records that it sends.

use crate::input::Input;
use profiler::merge;
use profiler::sampler::{Record, parse};
use profiler_abi::go::{GoLayout, MAX_RUNTIMES};
use profiler_abi::rule::{ExtRule, Rule};
use profiler_abi::sample::Regs;
use profiler_abi::stop::StopReason;
use profiler_ebpf::walk::{self, FETCH_WORDS, Machine, State};
use zerocopy::FromBytes;

/// A record of the ring buffer.
pub fn sample(data: &[u8]) {
    if let Some(Record::Sample(sample)) = parse(data) {
        let n = merge::chain(sample.kernel(), sample.user()).count();
        assert!(n * 8 <= data.len());
        let _ = (sample.comm(), sample.leaf());
    }
}

/// The kernel lets a walk take no more steps than frames are wanted.
const MAX_FRAMES: usize = 512;

/// A process of words: memory at the addresses that have words in the input, rules for each 16 bytes of code.
#[derive(Clone)]
struct Process<'d> {
    memory: &'d [[u8; 8]],
    rules: Vec<Result<Rule, StopReason>>,
    ext: Vec<ExtRule>,
    regs: [u64; Regs::WORDS],
    fetched: [u64; FETCH_WORDS],
    go: [GoLayout; MAX_RUNTIMES],
    words: Vec<u64>,
}

/// Where its memory begins.
const BASE: u64 = 0x7f00_0000_0000;

/// An address that has memory if the input is not too short.
fn near(number: u64) -> u64 {
    BASE + number % 1024
}

impl Process<'_> {
    /// Every other word points into the memory.
    fn read(&self, address: u64) -> Option<u64> {
        let word = self.raw(address)?;
        Some(if word >> 56 & 1 == 0 { word } else { near(word) })
    }

    fn rule_of(&self, pc: u64) -> Result<Rule, StopReason> {
        let n = self.rules.len() as u64;
        if n == 0 {
            return Err(StopReason::NoMapping);
        }
        self.rules[(pc / 16 % n) as usize]
    }

    fn raw(&self, address: u64) -> Option<u64> {
        let at = address.checked_sub(BASE)?;
        let word = |index: u64| {
            Some(u64::from_le_bytes(
                *self.memory.get(usize::try_from(index).ok()?)?,
            ))
        };
        let (index, shift) = (at / 8, at % 8 * 8);
        let low = word(index)? >> shift;
        Some(if shift == 0 {
            low
        } else {
            low | word(index + 1)? << (64 - shift)
        })
    }
}

impl Machine for Process<'_> {
    fn stack_word(&mut self, _state: &State, address: u64) -> Option<u64> {
        self.read(address)
    }

    fn near_word(&self, address: u64) -> Option<u64> {
        if address & 64 == 0 {
            self.read(address)
        } else {
            None
        }
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        self.read(address)
    }

    fn fetch<const N: usize>(&mut self, address: u64) -> bool {
        (0..N).all(|i| match self.read(address.wrapping_add(i as u64 * 8)) {
            Some(word) => {
                self.fetched[i] = word;
                true
            }
            None => false,
        })
    }

    fn fetched(&self, index: usize) -> u64 {
        self.fetched[index]
    }

    fn rule(&mut self, pc: u64) -> Result<Rule, StopReason> {
        self.rule_of(pc)
    }

    fn known_rule(&self, pc: u64) -> Option<Rule> {
        if pc & 64 == 0 { self.rule_of(pc).ok() } else { None }
    }

    fn ext_rule(&mut self, index: u32) -> Option<ExtRule> {
        self.ext.get(index as usize).copied()
    }

    fn push(&mut self, state: &mut State, word: u64) -> bool {
        if state.n_words as usize >= MAX_FRAMES {
            return false;
        }
        state.n_words += 1;
        self.words.push(word);
        true
    }

    fn reg(&self, index: u32) -> u64 {
        self.regs[index as usize % Regs::WORDS]
    }

    fn set_reg(&mut self, index: u32, value: u64) {
        self.regs[index as usize % Regs::WORDS] = value;
    }

    fn go(&self, runtime: usize) -> GoLayout {
        self.go[runtime]
    }
}

/// A walk from any registers.
pub fn walk(data: &[u8]) {
    let mut input = Input(data);
    let n_rules = usize::from(input.u8()) % 64;
    let rules = (0..n_rules).map(|_| rule(&mut input)).collect();
    let n_ext = usize::from(input.u8()) % 8;
    let ext = (0..n_ext).map(|_| ext_rule(&mut input)).collect();
    let mut regs = [0; Regs::WORDS];
    for reg in &mut regs {
        *reg = near(u64::from(input.u16()));
    }
    regs[Regs::ORIG_RAX as usize] = if input.u8() & 1 == 0 { Regs::NO_SYSCALL } else { 1 };
    let go = std::array::from_fn(|_| go_layout(&mut input));
    let thread_pointer = near(u64::from(input.u16()));
    let (memory, _) = input.0.as_chunks();
    let process = Process {
        memory,
        rules,
        ext,
        regs,
        fetched: [0; FETCH_WORDS],
        go,
        words: Vec::new(),
    };
    let steps = walk_with(process.clone(), thread_pointer, |_, _| {});
    let strides = walk_with(process, thread_pointer, walk::stride);
    assert_eq!(strides, steps, "strides only save time");
}

/// Walks to the end with something before each step: where the walk stands then, the stack, and why it is over.
fn walk_with<'d>(
    mut process: Process<'d>,
    thread_pointer: u64,
    before: fn(&mut State, &mut Process<'d>),
) -> (State, Vec<u64>, StopReason) {
    let mut state = State::default();
    walk::start(&mut state, &mut process);
    walk::find_g(&mut state, &mut process, thread_pointer);
    let _ = walk::curg(&state, &mut process);
    let stop = (0..=MAX_FRAMES).find_map(|_| {
        before(&mut state, &mut process);
        walk::step(&mut state, &mut process).err()
    });
    assert_eq!(process.words.len(), state.n_words as usize);
    let stop = stop.expect("each step adds a frame, and there is a limit of them");
    (state, process.words, stop)
}

/// Offsets below 256, so that there is something.
fn go_layout(input: &mut Input<'_>) -> GoLayout {
    let mut bytes = [0; size_of::<GoLayout>()];
    bytes.iter_mut().step_by(4).for_each(|byte| *byte = input.u8());
    let mut go = GoLayout::read_from_bytes(&bytes).unwrap_or_default();
    go.present &= 1;
    go.tls_g = (go.tls_g & 0xff) - 128;
    go.crosscall2 = near(go.crosscall2);
    go.crosscall2_size &= 0xfff;
    go
}

fn rule(input: &mut Input<'_>) -> Result<Rule, StopReason> {
    let word = input.u32();
    match word >> 27 {
        0 => Err(StopReason::NoMapping),
        1 => Err(StopReason::NoRule),
        // Small offsets lead to places that exist; the bits above them are for r12.
        2..16 => Ok(Rule(word & 0xf000_ffff)),
        _ => Ok(Rule(word)),
    }
}

fn ext_rule(input: &mut Input<'_>) -> ExtRule {
    let offset = |input: &mut Input<'_>| i32::from(input.u16().cast_signed());
    ExtRule {
        reg: u32::from(input.u8()) % 24,
        flags: u32::from(input.u8()),
        offset: offset(input),
        addend: offset(input),
        ra_offset: offset(input),
        bp_offset: match input.u8() & 3 {
            0 => ExtRule::BP_SAME,
            1 => ExtRule::BP_LOST,
            _ => offset(input),
        },
    }
}
