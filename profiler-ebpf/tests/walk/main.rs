//! The walk against stacks laid out by hand: the code that runs in the kernel, on the host.
#![allow(clippy::unwrap_used, reason = "a test")]

use profiler_abi::go::{GoLayout, MAX_RUNTIMES};
use profiler_abi::rule::{ExtRule, GoSwitch, Rule};
use profiler_abi::sample::{Regs, UserWord};
use profiler_abi::stop::StopReason;
use profiler_ebpf::walk::{self, FETCH_WORDS, Machine, State};
use std::collections::BTreeMap;

mod go;

/// A process made of words and rules.
#[derive(Default)]
struct Host {
    memory: BTreeMap<u64, u64>,
    /// First address of each range → rule; ranges end where the next starts.
    rules: BTreeMap<u64, Result<Rule, StopReason>>,
    ext: Vec<ExtRule>,
    regs: [u64; Regs::WORDS],
    fetched: [u64; FETCH_WORDS],
    go: [GoLayout; MAX_RUNTIMES],
    limit: usize,
    words: Vec<u64>,
}

impl Machine for Host {
    fn stack_word(&mut self, _state: &State, address: u64) -> Option<u64> {
        self.word(address)
    }

    fn near_word(&self, address: u64) -> Option<u64> {
        self.memory.get(&address).copied()
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        self.memory.get(&address).copied()
    }

    fn fetch<const N: usize>(&mut self, address: u64) -> bool {
        (0..N).all(|i| match self.word(address.wrapping_add(i as u64 * 8)) {
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
        *self
            .rules
            .range(..=pc)
            .next_back()
            .ok_or(StopReason::NoMapping)?
            .1
    }

    fn known_rule(&self, pc: u64) -> Option<Rule> {
        self.rules.range(..=pc).next_back()?.1.ok()
    }

    fn ext_rule(&mut self, index: u32) -> Option<ExtRule> {
        self.ext.get(index as usize).copied()
    }

    fn push(&mut self, state: &mut State, word: u64) -> bool {
        if self.words.len() >= self.limit {
            return false;
        }
        self.words.push(word);
        state.n_words += 1;
        true
    }

    fn reg(&self, index: u32) -> u64 {
        self.regs[index as usize]
    }

    fn set_reg(&mut self, index: u32, value: u64) {
        self.regs[index as usize] = value;
    }

    fn go(&self, runtime: usize) -> GoLayout {
        self.go[runtime]
    }
}

impl Host {
    fn new(pc: u64, sp: u64, bp: u64) -> Self {
        let mut host = Self {
            limit: 512,
            ..Self::default()
        };
        host.rules.insert(0, Err(StopReason::NoMapping));
        host.regs[Regs::RIP as usize] = pc;
        host.regs[Regs::RSP as usize] = sp;
        host.regs[Regs::RBP as usize] = bp;
        host.regs[Regs::ORIG_RAX as usize] = Regs::NO_SYSCALL;
        host
    }

    /// Puts words one after the other from `address` on.
    fn stack(&mut self, address: u64, words: &[u64]) {
        self.memory
            .extend((address..).step_by(8).zip(words.iter().copied()));
    }

    /// The code of a function: 0x100 bytes from `address` with one rule.
    fn code(&mut self, address: u64, rule: Rule) {
        self.rules.insert(address, Ok(rule));
        self.rules
            .entry(address + 0x100)
            .or_insert(Err(StopReason::NoMapping));
    }

    /// Walks to the end: step by step, and in strides, which makes no difference.
    fn run(&mut self) -> (Vec<UserWord>, StopReason) {
        let regs = self.regs;
        let steps = self.run_with(|_, _| {});
        self.regs = regs;
        let strides = self.run_with(walk::stride);
        assert_eq!(strides, steps);
        let (_, words, stop) = steps;
        (words, stop)
    }

    /// Walks to the end with something before each step.
    fn run_with(&mut self, before: fn(&mut State, &mut Self)) -> (State, Vec<UserWord>, StopReason) {
        self.words.clear();
        let mut state = State::default();
        walk::start(&mut state, self);
        if self.go[0].present != 0 {
            walk::find_g(&mut state, self, THREAD_POINTER);
        }
        for _ in 0..1000 {
            before(&mut state, self);
            if let Err(stop) = walk::step(&mut state, self) {
                let words = self.words.iter().map(|&word| UserWord::decode(word)).collect();
                return (state, words, stop);
            }
        }
        panic!("the walk does not end");
    }
}

const THREAD_POINTER: u64 = 0x9000;

const LEAF: u64 = 0x10000;
const MIDDLE: u64 = 0x10100;
const ROOT: u64 = 0x10200;

fn sp(offset: i64) -> Rule {
    Rule::sp(offset, None).unwrap()
}

use UserWord::{Exact, ReturnAddress};

#[test]
fn frames_without_frame_pointers_are_found_by_their_rules() {
    let mut host = Host::new(LEAF + 4, 0x7000, 0);
    host.code(LEAF, sp(16));
    host.code(MIDDLE, sp(32));
    host.code(ROOT, Rule::END);
    host.stack(0x7000, &[0, MIDDLE + 9, 1, 2, 3, ROOT + 7]);
    let (frames, stop) = host.run();
    assert_eq!(
        frames,
        [
            Exact(LEAF + 4),
            ReturnAddress(MIDDLE + 9),
            ReturnAddress(ROOT + 7)
        ]
    );
    assert_eq!(stop, StopReason::Root);
}

#[test]
fn a_saved_frame_pointer_is_restored_for_the_callers_that_need_it() {
    let mut host = Host::new(LEAF, 0x7000, 0xdead);
    host.code(LEAF, Rule::sp(24, Some(-16)).unwrap());
    host.code(MIDDLE, Rule::bp(16, Some(-16)).unwrap());
    host.code(ROOT, Rule::END);
    host.stack(0x7000, &[0, 0x7050, MIDDLE + 1]);
    host.stack(0x7050, &[0x7777, ROOT + 1]);
    let (frames, stop) = host.run();
    assert_eq!(
        frames,
        [Exact(LEAF), ReturnAddress(MIDDLE + 1), ReturnAddress(ROOT + 1)]
    );
    assert_eq!(stop, StopReason::Root);
}

#[test]
fn a_call_that_never_returns_belongs_to_its_caller_and_not_to_what_follows() {
    let mut host = Host::new(LEAF, 0x7000, 0);
    host.code(LEAF, sp(8));
    host.code(MIDDLE, sp(16));
    host.code(ROOT, Rule::END);
    // The call is the last instruction of MIDDLE: the return address is the first of ROOT.
    host.stack(0x7000, &[ROOT, 0, ROOT + 5]);
    assert_eq!(host.run().1, StopReason::Root);
    assert_eq!(host.words.len(), 3);
}

#[test]
fn a_signal_frame_leads_to_the_interrupted_instruction_with_all_its_registers() {
    const TRAMPOLINE: u64 = 0x20000;
    let mut host = Host::new(LEAF, 0x3000, 0);
    host.code(LEAF, sp(8));
    // Nothing calls it: the kernel puts its address on the stack. So its rule has to start one byte early.
    host.code(TRAMPOLINE - 1, Rule::SIG_FRAME);
    host.code(MIDDLE, Rule::ext(0));
    host.code(ROOT, Rule::END);
    // The interrupted function keeps its CFA in r10, which only an interrupted frame can say.
    host.ext.push(ExtRule {
        reg: Regs::R10,
        flags: 0,
        offset: 0,
        addend: 0,
        ra_offset: -8,
        bp_offset: ExtRule::BP_SAME,
    });
    host.stack(0x3000, &[TRAMPOLINE]);
    let mut context = [0u64; 5 + 17];
    context[5 + 2] = 0x7010; // r10
    context[5 + 15] = 0x6000; // rsp
    context[5 + 16] = MIDDLE; // rip: the very first instruction, so one byte before is another function
    host.stack(0x3008, &context);
    host.stack(0x7008, &[ROOT + 1]);
    let (frames, stop) = host.run();
    assert_eq!(
        frames,
        [
            Exact(LEAF),
            Exact(TRAMPOLINE),
            Exact(MIDDLE),
            ReturnAddress(ROOT + 1)
        ]
    );
    assert_eq!(stop, StopReason::Root);
}

#[test]
fn a_system_call_belongs_to_its_function_and_not_to_what_follows() {
    // The instruction after rt_sigreturn(2) is the first of another function.
    let mut host = Host::new(MIDDLE, 0x7000, 0);
    host.regs[Regs::ORIG_RAX as usize] = 15;
    host.code(LEAF, sp(8));
    host.code(MIDDLE, sp(16));
    host.code(ROOT, Rule::END);
    host.stack(0x7000, &[ROOT + 1]);
    let (frames, stop) = host.run();
    assert_eq!(frames, [Exact(MIDDLE - 2), ReturnAddress(ROOT + 1)]);
    assert_eq!(stop, StopReason::Root);
}

#[test]
fn a_handler_that_was_set_up_on_the_way_out_of_a_system_call_stands_at_its_first_instruction() {
    for (before, at) in [([0xcc, 0xcc], MIDDLE), ([0x0f, 0x05], MIDDLE - 2)] {
        let mut host = Host::new(MIDDLE, 0x7000, 0);
        host.regs[Regs::ORIG_RAX as usize] = 202;
        host.code(LEAF, sp(8));
        host.code(MIDDLE, sp(8));
        host.code(ROOT, Rule::END);
        let code = u64::from_le_bytes([0, 0, 0, 0, 0, 0, before[0], before[1]]);
        host.stack(MIDDLE - 8, &[code]);
        host.stack(0x7000, &[ROOT + 1]);
        let (frames, stop) = host.run();
        assert_eq!(frames, [Exact(at), ReturnAddress(ROOT + 1)]);
        assert_eq!(stop, StopReason::Root);
    }
}

/// The last 8 bytes of code before a return address, for a call with these last 6 bytes.
fn code_before(call: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = call;
    u64::from_le_bytes([0x90, 0x90, a, b, c, d, e, f])
}

/// The displacement from `next` to `target`.
fn displacement(next: u64, target: u64) -> [u8; 4] {
    (target.wrapping_sub(next) as u32).to_le_bytes()
}

#[test]
fn an_unwinder_that_replaces_its_frame_is_noticed_by_the_call_that_did_not_call_it() {
    const CALLER: u64 = MIDDLE + 0x40;
    const SLOT: u64 = 0x20000;
    const POINTER: u64 = 0x21000;
    let call = |target| {
        let [a, b, c, d] = displacement(CALLER, target);
        code_before([0x90, 0xe8, a, b, c, d])
    };
    let through_pointer = {
        let [a, b, c, d] = displacement(CALLER, POINTER);
        code_before([0xff, 0x15, a, b, c, d])
    };
    // A slot of a procedure linkage table whose jump has these bytes before its displacement, in all.
    let slot = |jump: &[u8]| {
        let mut bytes = jump.to_vec();
        bytes.extend(displacement(SLOT + jump.len() as u64 + 4, POINTER));
        bytes.resize(16, 0x90);
        bytes
    };
    let run = |call: u64, slot: &[u8], pointer: u64| {
        let mut host = Host::new(LEAF + 0x20, 0x7000, 0);
        host.code(LEAF, Rule::ext(0));
        host.code(MIDDLE, Rule::END);
        host.ext.push(on_sp(ExtRule::MAY_BE_REPLACED));
        host.stack(0x7000, &[CALLER]);
        host.memory.insert(CALLER - 8, call);
        for at in [0, 4] {
            if let Some(word) = slot.get(at..at + 8) {
                host.memory
                    .insert(SLOT + at as u64, u64::from_le_bytes(word.try_into().unwrap()));
            }
        }
        host.memory.insert(POINTER, pointer);
        host.run().1
    };
    const BND: [u8; 7] = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25];
    for (pointer, stop) in [(LEAF, StopReason::Root), (ROOT, StopReason::FramesReplaced)] {
        assert_eq!(run(call(pointer), &[], 0), stop);
        assert_eq!(run(through_pointer, &[], pointer), stop);
        for jump in [&BND[5..], &[&BND[..4], &BND[5..]].concat(), &BND] {
            assert_eq!(run(call(SLOT), &slot(jump), pointer), stop, "{jump:x?}");
        }
    }
    // A call through a register, and code that cannot be read.
    assert_eq!(
        run(code_before([0x90, 0x90, 0x90, 0x90, 0xff, 0xd0]), &[], 0),
        StopReason::FramesReplaced
    );
    assert_eq!(run(call(0x5_0000), &[], 0), StopReason::FramesReplaced);
}

#[test]
fn a_new_thread_has_no_caller_and_the_one_that_began_it_has() {
    for (rax, frames) in [(0, 1), (4711, 2)] {
        let mut host = Host::new(LEAF, 0x7000, 0);
        host.regs[Regs::RAX as usize] = rax;
        host.code(LEAF, Rule::ext(0));
        host.code(MIDDLE, Rule::END);
        host.ext.push(on_sp(ExtRule::BEGINS_THREADS));
        host.stack(0x7000, &[MIDDLE + 1]);
        let (words, stop) = host.run();
        assert_eq!((words.len(), stop), (frames, StopReason::Root));
    }
}

#[test]
fn a_register_that_callees_may_have_changed_is_not_trusted() {
    let mut host = Host::new(LEAF, 0x7000, 0);
    host.code(LEAF, sp(8));
    host.code(MIDDLE, Rule::ext(0));
    host.ext.push(ExtRule {
        reg: Regs::RBX,
        flags: 0,
        offset: 0,
        addend: 0,
        ra_offset: -8,
        bp_offset: -16,
    });
    host.stack(0x7000, &[MIDDLE + 1]);
    assert_eq!(host.run().1, StopReason::RegisterLost);
}

/// Nothing but the return address is on the stack.
fn on_sp(flags: u32) -> ExtRule {
    ExtRule {
        reg: Regs::RSP,
        flags,
        offset: 8,
        addend: 0,
        ra_offset: -8,
        bp_offset: ExtRule::BP_SAME,
    }
}

/// As in Go's `racecall`: the stack goes on at r12.
fn on_r12() -> ExtRule {
    ExtRule {
        reg: Regs::R12,
        flags: 0,
        offset: 8,
        addend: 0,
        ra_offset: -8,
        bp_offset: ExtRule::BP_LOST,
    }
}

#[test]
fn r12_is_followed_through_frames_that_save_it_and_others() {
    const CALLER: u64 = 0x10300;
    let mut host = Host::new(LEAF, 0x7000, 0);
    host.regs[Regs::R12 as usize] = 0xdead;
    host.code(LEAF, sp(16));
    host.code(MIDDLE, sp(32).saving_r12(-24));
    host.code(CALLER, Rule::ext(0));
    host.code(ROOT, Rule::END);
    host.ext.push(on_r12());
    host.stack(0x7000, &[0, MIDDLE + 1, 0, 0x9000, 0, CALLER + 1]);
    host.stack(0x9000, &[ROOT + 1]);
    let (frames, stop) = host.run();
    let returns = [MIDDLE + 1, CALLER + 1, ROOT + 1].map(ReturnAddress);
    assert_eq!(
        (frames[0], &frames[1..], stop),
        (Exact(LEAF), &returns[..], StopReason::Root)
    );
    // A frame that leaves it alone.
    host.regs[Regs::R12 as usize] = 0x9000;
    host.code(MIDDLE, sp(32));
    assert_eq!(host.run().1, StopReason::Root);
    // One of Go.
    host.code(MIDDLE, sp(32).losing_r12());
    assert_eq!(host.run().1, StopReason::RegisterLost);
}

#[test]
fn a_realigned_frame_is_found_behind_the_pointer_that_it_keeps() {
    // gcc: CFA = *(rbp − 8), caller's rbp at rbp.
    let mut host = Host::new(LEAF, 0x7000, 0x7040);
    host.code(LEAF, Rule::ext(0));
    host.code(ROOT, Rule::END);
    host.ext.push(ExtRule {
        reg: Regs::RBP,
        flags: ExtRule::DEREF | ExtRule::BP_AT_BP,
        offset: -8,
        addend: 0,
        ra_offset: -8,
        bp_offset: 0,
    });
    host.stack(0x7038, &[0x7070, 0x1234]);
    host.stack(0x7068, &[ROOT + 1]);
    assert_eq!(host.run().1, StopReason::Root);
}

#[test]
fn a_slot_of_the_linkage_table_has_one_or_two_words_on_the_stack() {
    for (offset, stack) in [(4, &[ROOT + 1, 0][..]), (11, &[7, ROOT + 1][..])] {
        let mut host = Host::new(LEAF + offset, 0x7000, 0);
        host.code(LEAF, Rule::PLT);
        host.code(ROOT, Rule::END);
        host.stack(0x7000, stack);
        assert_eq!(host.run().1, StopReason::Root, "at byte {offset}");
    }
}

#[test]
fn code_without_rules_is_crossed_by_its_frame_pointer() {
    let mut host = Host::new(LEAF, 0x7000, 0x7020);
    host.code(LEAF, Rule::NONE);
    host.code(MIDDLE, sp(24));
    host.code(ROOT, Rule::END);
    host.stack(0x7020, &[0x9999, MIDDLE + 1]);
    host.stack(0x7030, &[0, 0, ROOT + 1]);
    let (frames, stop) = host.run();
    assert_eq!(
        frames,
        [Exact(LEAF), ReturnAddress(MIDDLE + 1), ReturnAddress(ROOT + 1)]
    );
    assert_eq!(stop, StopReason::Root);
}

#[test]
fn a_function_without_rules_that_has_no_record_yet_or_no_more_keeps_its_caller() {
    let endbr_push = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5];
    let starts: [(&[u8], u64, u64); 5] = [
        (&[0x55, 0x48, 0x89, 0xe5], 0, 0),
        (&endbr_push, 0, 0),
        (&[0x55, 0x48, 0x89, 0xe5], 1, 8),
        (&[0x55, 0x48, 0x8b, 0xec], 1, 8),
        (&[0xc3], 0, 0),
    ];
    for (code, at, pushed) in starts {
        // The frame pointer is that of the caller, MIDDLE.
        let mut host = Host::new(LEAF + at, 0x7000, 0x7020);
        let byte = |address: u64| code.get((address - LEAF) as usize).copied().unwrap_or(0x90);
        for start in [LEAF, LEAF + at] {
            let word = std::array::from_fn(|i| byte(start + i as u64));
            host.memory.insert(start, u64::from_le_bytes(word));
        }
        host.code(LEAF, Rule::NONE);
        host.code(MIDDLE, Rule::NONE);
        host.code(ROOT, Rule::END);
        host.stack(0x7000, &[0x7020, 0, 0, 0, 0x9999, ROOT + 1]);
        host.stack(0x7000 + pushed, &[MIDDLE + 9]);
        let (frames, stop) = host.run();
        assert_eq!(
            frames,
            [
                Exact(LEAF + at),
                ReturnAddress(MIDDLE + 9),
                ReturnAddress(ROOT + 1)
            ],
            "{code:x?} at {at}"
        );
        assert_eq!(stop, StopReason::Root);
    }
}

#[test]
fn a_frame_pointer_that_leads_nowhere_is_named_as_a_missing_rule() {
    for bp in [0, 0x6ff8, 0x7021, 0x7000 + (2 << 20), 0x7020] {
        let mut host = Host::new(LEAF, 0x7000, bp);
        host.code(LEAF, Rule::NONE);
        // A record, but its return address is in no mapping.
        host.stack(0x7020, &[0x7040, 0x55]);
        let (frames, stop) = host.run();
        assert_eq!(
            (frames, stop),
            (vec![Exact(LEAF)], StopReason::NoRule),
            "bp {bp:#x}"
        );
    }
}

#[test]
fn the_ends_that_are_not_good_say_what_they_are() {
    let mut host = Host::new(LEAF, 0x7000, 0);
    host.code(LEAF, sp(8));
    assert_eq!(host.run().1, StopReason::Unreadable);

    let mut host = Host::new(LEAF, 0x7000, 0);
    host.code(LEAF, sp(8));
    host.stack(0x7000, &[0]);
    assert_eq!(host.run().1, StopReason::NullReturn);

    let mut host = Host::new(LEAF, 0x7000, 0);
    host.code(LEAF, sp(8));
    host.stack(0x7000, &[0x55]);
    let (frames, stop) = host.run();
    assert_eq!(
        (frames, stop),
        (vec![Exact(LEAF)], StopReason::NoMapping),
        "not a frame: not in the stack"
    );

    let mut host = Host::new(0x55, 0x7000, 0);
    assert_eq!(host.run(), (vec![Exact(0x55)], StopReason::NoMapping));

    let mut host = Host::new(LEAF, 0x7000, 0);
    host.rules.insert(LEAF, Err(StopReason::TablesPending));
    assert_eq!(host.run(), (vec![Exact(LEAF)], StopReason::TablesPending));
}

#[test]
fn deep_recursion_is_cut_at_the_root() {
    let mut host = Host::new(LEAF, 0x7000, 0);
    host.code(LEAF, sp(8));
    host.stack(0x7000, &[LEAF + 1; 600]);
    let (frames, stop) = host.run();
    assert_eq!((frames.len(), stop), (512, StopReason::MaxFrames));
    assert_eq!(frames[0], Exact(LEAF));
}

#[test]
fn a_stride_makes_the_steps_that_need_nothing_new() {
    let mut host = Host::new(LEAF, 0x7000, 0);
    host.code(LEAF, sp(8));
    host.code(MIDDLE, sp(8));
    host.code(ROOT, Rule::END);
    let depth = u64::from(walk::STRIDE) + 2;
    let mut stack = vec![MIDDLE + 1; depth as usize];
    stack.push(ROOT + 1);
    host.stack(0x7000, &stack);
    let mut state = State::default();
    walk::start(&mut state, &mut host);
    // The interrupted instruction is looked at by a step.
    walk::stride(&mut state, &mut host);
    assert_eq!((state.pc, state.n_words), (LEAF, 0));
    assert_eq!(walk::step(&mut state, &mut host), Ok(()));
    walk::stride(&mut state, &mut host);
    assert_eq!(state.n_words, 1 + u64::from(walk::STRIDE));
    // The frame of another kind is left alone.
    walk::stride(&mut state, &mut host);
    assert_eq!((state.pc, state.n_words), (ROOT + 1, 1 + depth));
}
