//! The walk against stacks laid out by hand: the code that runs in the kernel, on the host.
#![allow(clippy::unwrap_used, reason = "a test")]

use profiler_abi::go::GoLayout;
use profiler_abi::rule::{ExtRule, GoSwitch, Rule};
use profiler_abi::sample::{Regs, UserWord};
use profiler_abi::stop::StopReason;
use profiler_ebpf::walk::{self, FETCH_WORDS, Machine, State};
use std::collections::BTreeMap;

/// A process made of words and rules.
#[derive(Default)]
struct Host {
    memory: BTreeMap<u64, u64>,
    /// First address of each range → rule; ranges end where the next starts.
    rules: BTreeMap<u64, Result<Rule, StopReason>>,
    ext: Vec<ExtRule>,
    regs: [u64; Regs::WORDS],
    fetched: [u64; FETCH_WORDS],
    go: GoLayout,
    limit: usize,
    words: Vec<u64>,
}

impl Machine for Host {
    fn stack_word(&mut self, _state: &State, address: u64) -> Option<u64> {
        self.word(address)
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

    fn go(&self) -> GoLayout {
        self.go
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

    /// Walks to the end.
    fn run(&mut self) -> (Vec<UserWord>, StopReason) {
        let mut state = State::default();
        walk::start(&mut state, self);
        if self.go.present != 0 {
            walk::find_g(&mut state, self, THREAD_POINTER);
        }
        for _ in 0..1000 {
            if let Err(stop) = walk::step(&mut state, self) {
                return (
                    self.words.iter().map(|&word| UserWord::decode(word)).collect(),
                    stop,
                );
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
        host.ext.push(ExtRule {
            reg: Regs::RSP,
            flags: ExtRule::MAY_BE_REPLACED,
            offset: 8,
            addend: 0,
            ra_offset: -8,
            bp_offset: ExtRule::BP_SAME,
        });
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

mod go {
    //! A goroutine that called C, which called back, three deep, on two stacks.

    use super::*;

    const G: u64 = 0x9100;
    const G0: u64 = 0x9200;
    const M: u64 = 0x9300;

    const C_CODE: u64 = 0x20000;
    const ASMCGOCALL: u64 = 0x30000;
    const CGOCALLBACK: u64 = 0x30100;
    const CROSSCALL2: u64 = 0x30200;
    const GOEXIT: u64 = 0x30300;
    const SYSTEMSTACK: u64 = 0x30400;
    const MORESTACK: u64 = 0x30500;
    const GOGO: u64 = 0x30600;
    const GO_CODE: u64 = 0x40000;

    /// Top of the goroutine's stack.
    const HI: u64 = 0xc000;

    fn layout() -> GoLayout {
        GoLayout {
            present: 1,
            g_m: 48,
            tls_g: -8,
            g_stack_hi: 8,
            g_sched_sp: 56,
            g_sched_pc: 64,
            g_goid: 152,
            m_g0: 0,
            m_curg: 184,
            crosscall2: CROSSCALL2,
            crosscall2_size: 0x100,
        }
    }

    /// A thread that runs goroutine `G` on M, with TLS g = `tls`.
    fn host(pc: u64, sp: u64, tls: u64) -> Host {
        let mut host = Host::new(pc, sp, 0xbad);
        host.go = layout();
        host.memory.extend([
            (THREAD_POINTER - 8, tls),
            (G + 48, M),
            (G0 + 48, M),
            (M, G0),
            (M + 184, G),
            (G + 8, HI),
        ]);
        host.code(C_CODE, super::sp(16));
        host.code(GO_CODE, super::sp(16));
        host.code(CROSSCALL2, super::sp(16));
        host.code(ASMCGOCALL, Rule::go(GoSwitch::AsmCgoCall, 0));
        host.code(CGOCALLBACK, Rule::go(GoSwitch::CgoCallback, 0));
        host.code(SYSTEMSTACK, Rule::go(GoSwitch::SystemStack, 0));
        host.code(MORESTACK, Rule::go(GoSwitch::MoreStack, 0));
        host.code(GOGO, Rule::go(GoSwitch::Gogo, 0));
        host.code(GOEXIT, Rule::END);
        host
    }

    /// The system stack's end of `asmcgocall` at `sp`, for a goroutine whose stack pointer is `go_sp`.
    fn asmcgocall(host: &mut Host, sp: u64, go_sp: u64) {
        host.stack(sp, &[HI - go_sp, G]);
    }

    /// The frame of `cgocallback` at `at`: the older one, and the context.
    fn cgocallback(host: &mut Host, at: u64, older: u64, context: u64) {
        host.stack(at, &[older, 0, 0, 0xb9, CROSSCALL2 + 1, 0, 0, context]);
    }

    #[test]
    fn three_callbacks_deep_every_frame_stands_in_its_place() {
        // System stack, from high to low; goroutine's stack likewise:
        //   0x7f00 asmcgocall of the outer call      0xbfe0 record under the outer cgocall
        //   0x7e00 cgocallback frame (context 0x11)  0xbf80 record under the inner cgocall
        //   0x7d00 asmcgocall of the inner call
        //   0x7c00 cgocallback frame (no context), 0x7b00 asmcgocall of the innermost call
        let mut host = host(C_CODE + 2, 0x7af0, G0);
        host.memory.insert(G0 + 56, 0x7bf0);
        // Innermost C, called by asmcgocall at 0x7b00: returns to it.
        host.stack(0x7af0, &[0, ASMCGOCALL + 1]);
        asmcgocall(&mut host, 0x7b00, 0xbf00);
        // The goroutine's part of the inner callback: asmcgocall's record, a Go frame, cgocallback.
        host.stack(0xbf00, &[0xb1, GO_CODE + 1, 0, CGOCALLBACK + 1]);
        // Its frame is where g0.sched.sp pointed when asmcgocall started: within the gap above 0x7b00.
        cgocallback(&mut host, 0x7bf0, 0x7df0, 0);
        // crosscall2 (CFA = sp + 16), its C caller, then asmcgocall of the next segment.
        host.stack(0x7bf0 + 40, &[0, C_CODE + 3]);
        // That overlaps words 5.. of the frame above: as on a real stack, they are its arguments.
        host.stack(0x7bf0 + 40 + 16, &[0, ASMCGOCALL + 1]);
        let segment = 0x7bf0 + 40 + 32;
        asmcgocall(&mut host, segment, 0xbf80);
        host.stack(0xbf80, &[0xb2, GO_CODE + 2, 0, CGOCALLBACK + 1]);
        let outer = segment + 0x20;
        host.memory.insert(0x7bf0, outer);
        cgocallback(&mut host, outer, 0xdead, 0x11);
        // Word 7 of the frame is the context; crosscall2's frame starts at word 5, so give it a larger one.
        host.code(CROSSCALL2, sp(16));
        host.stack(outer + 40, &[0, C_CODE + 5]);
        host.memory.insert(outer + 56, 0x11);
        host.code(C_CODE, sp(16));
        host.stack(outer + 64, &[ASMCGOCALL + 1]);
        let last = outer + 72;
        asmcgocall(&mut host, last, 0xbfe0);
        host.stack(0xbfe0, &[0xb3, GO_CODE + 3, 0, GOEXIT + 1]);

        let (frames, stop) = host.run();
        let expected = [
            Exact(C_CODE + 2),
            ReturnAddress(ASMCGOCALL + 1),
            ReturnAddress(GO_CODE + 1),
            ReturnAddress(CGOCALLBACK + 1),
            ReturnAddress(CROSSCALL2 + 1),
            ReturnAddress(C_CODE + 3),
            ReturnAddress(ASMCGOCALL + 1),
            ReturnAddress(GO_CODE + 2),
            ReturnAddress(CGOCALLBACK + 1),
            UserWord::Context,
        ];
        assert_eq!(frames[..expected.len()], expected);
        assert_eq!(
            host.words[expected.len()],
            0x11,
            "the raw context follows its tag"
        );
        assert_eq!(
            frames[frames.len() - 2..],
            [ReturnAddress(GO_CODE + 3), ReturnAddress(GOEXIT + 1)]
        );
        assert_eq!(stop, StopReason::Root);
    }

    #[test]
    fn a_callback_that_is_just_being_entered_is_not_taken_for_the_older_one() {
        // g0.sched.sp names the newest frame already (0x7a00), but the walk has passed it on the system stack: the
        // callback on the goroutine is the one before.
        let mut host = host(C_CODE + 2, 0x7af0, G0);
        host.memory.insert(G0 + 56, 0x7a00);
        cgocallback(&mut host, 0x7a00, 0x7b10, 0);
        host.stack(0x7af0, &[0, ASMCGOCALL + 1]);
        asmcgocall(&mut host, 0x7b00, 0xbf00);
        host.stack(0xbf00, &[0xb1, GO_CODE + 1, 0, CGOCALLBACK + 1]);
        cgocallback(&mut host, 0x7b10, 0, 0);
        host.stack(0x7b10 + 40, &[0, GOEXIT + 1]);
        assert_eq!(host.run().1, StopReason::Root);
    }

    #[test]
    fn a_list_without_the_callback_is_refused() {
        let mut host = host(GO_CODE, 0xbf00, G);
        host.memory.insert(G0 + 56, 0x7a00);
        host.stack(0xbf00, &[0, CGOCALLBACK + 1]);
        host.stack(0x7a00, &[0, 0, 0, 0, GO_CODE + 1, 0, 0, 0]);
        assert_eq!(host.run().1, StopReason::BadCgoCallback);
    }

    #[test]
    fn the_runtime_on_the_system_stack_leads_back_to_the_goroutine() {
        let mut host = host(GO_CODE, 0x7f00, G0);
        host.stack(0x7f00, &[0, SYSTEMSTACK + 1]);
        host.memory.insert(G + 56, 0xbf00);
        host.stack(0xbf00, &[0xb1, GO_CODE + 9, 0, GOEXIT + 1]);
        let (frames, stop) = host.run();
        assert_eq!(
            frames,
            [
                Exact(GO_CODE),
                ReturnAddress(SYSTEMSTACK + 1),
                ReturnAddress(GO_CODE + 9),
                ReturnAddress(GOEXIT + 1)
            ]
        );
        assert_eq!(stop, StopReason::Root);
    }

    #[test]
    fn growing_a_stack_leads_back_to_the_function_that_needed_it() {
        const PROLOGUE: u64 = 0x50000;
        let mut host = host(GO_CODE, 0x7f00, G0);
        host.code(PROLOGUE, sp(8));
        host.stack(0x7f00, &[0, MORESTACK + 1]);
        host.memory.extend([(G + 56, 0xbf00), (G + 64, PROLOGUE + 3)]);
        host.stack(0xbf00, &[GOEXIT + 1]);
        let (frames, stop) = host.run();
        assert_eq!(
            frames[2..],
            [ReturnAddress(PROLOGUE + 3), ReturnAddress(GOEXIT + 1)]
        );
        assert_eq!(stop, StopReason::Root);
    }

    #[test]
    fn a_goroutine_that_left_the_thread_is_not_its_caller() {
        let mut host = host(GO_CODE, 0x7f00, G0);
        host.memory.insert(M + 184, 0);
        host.stack(0x7f00, &[0, MORESTACK + 1]);
        let (frames, stop) = host.run();
        assert_eq!(frames, [Exact(GO_CODE), ReturnAddress(MORESTACK + 1)]);
        assert_eq!(stop, StopReason::Root);
    }

    #[test]
    fn a_goroutine_about_to_start_stands_at_its_first_instruction() {
        let mut host = host(GOGO + 8, 0xbf00, G);
        host.code(GO_CODE, sp(8));
        host.memory.insert(G + 64, GO_CODE);
        host.stack(0xbf00, &[GOEXIT + 1]);
        let (frames, stop) = host.run();
        assert_eq!(
            frames,
            [Exact(GOGO + 8), Exact(GO_CODE), ReturnAddress(GOEXIT + 1)]
        );
        assert_eq!(stop, StopReason::Root);
    }

    #[test]
    fn nonsense_on_the_system_stack_is_refused_and_not_followed() {
        for words in [[0, G], [8, 0], [1 << 40, G], [12, G]] {
            let mut host = host(C_CODE, 0x7af0, G0);
            host.stack(0x7af0, &[0, ASMCGOCALL + 1]);
            host.stack(0x7b00, &words);
            assert_eq!(host.run().1, StopReason::BadCgoCall, "{words:x?}");
        }
    }

    #[test]
    fn without_g_no_switch_is_followed() {
        for code in [SYSTEMSTACK, MORESTACK, CGOCALLBACK, GOGO] {
            let mut host = host(code, 0x7af0, 0);
            assert_eq!(host.run().1, StopReason::NoG, "{code:#x}");
        }
    }
}
