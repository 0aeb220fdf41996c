//! The tables of the module's documentation, case by case.

use super::{Code, MergedFrame, answered, chain};
use crate::addr::Avma;
use crate::hooks::answer::MAX_PCS;
use crate::hooks::{Answer, PcList};
use crate::profile::Origin;
use profiler_abi::sample::UserWord;

const LEAF: u64 = UserWord::frame(0x1000, true);
const CALLER: u64 = UserWord::frame(0x2000, false);

fn merged(kernel: &[u64], user: &[u64]) -> Vec<MergedFrame> {
    chain(kernel.iter().copied(), user.iter().copied()).collect()
}

fn walked(address: u64) -> MergedFrame {
    MergedFrame {
        address: Avma(address),
        origin: Origin::Walked,
    }
}

fn kernel(address: u64) -> MergedFrame {
    MergedFrame {
        address: Avma(address),
        origin: Origin::Kernel,
    }
}

#[test]
fn interrupted_user_code() {
    assert_eq!(merged(&[], &[LEAF, CALLER]), [walked(0x1000), walked(0x1fff)]);
}

#[test]
fn interrupted_kernel_code() {
    // The user stack stands after the instruction that entered the kernel.
    assert_eq!(
        merged(&[u64::MAX, u64::MAX - 1], &[LEAF, CALLER]),
        [
            kernel(u64::MAX),
            kernel(u64::MAX - 2),
            walked(0x1000),
            walked(0x1fff)
        ]
    );
}

#[test]
fn code_that_a_signal_interrupted() {
    assert_eq!(
        merged(&[], &[LEAF, CALLER, UserWord::frame(0x3000, true)]),
        [walked(0x1000), walked(0x1fff), walked(0x3000)]
    );
}

#[test]
fn without_an_answer_a_segment_with_a_context_is_taken_as_walked() {
    // The value looks like a tagged word and is none.
    assert_eq!(
        merged(&[], &[LEAF, UserWord::CONTEXT_TAG, CALLER, CALLER]),
        [walked(0x1000), walked(0x1fff)]
    );
}

#[test]
fn a_context_without_a_value_ends_the_chain() {
    let words = [LEAF, UserWord::CONTEXT_TAG];
    assert_eq!(merged(&[], &words), [walked(0x1000)]);
    assert_eq!(
        answered(words.into_iter(), &Answer::default(), code),
        [walked(0x1000)]
    );
}

#[test]
fn a_sample_without_frames() {
    assert_eq!(merged(&[], &[]), []);
    assert_eq!(merged(&[7], &[]), [kernel(7)]);
    assert_eq!(
        shown(&[], &answer(&[C + 1], &[])),
        [] as [&str; 0],
        "nothing was interrupted"
    );
}

// With an answer. A process in which Go text is between 0x10000 and 0x20000.

const GO: u64 = 0x10000;
const ASMCGOCALL: u64 = 0x11000;
const CGOCALLBACK: u64 = 0x12000;
const CROSSCALL2: u64 = 0x13000;
const SIGRETURN: u64 = 0x14000;
const C: u64 = 0x50000;

fn code(address: Avma) -> Code {
    match address.0 {
        ASMCGOCALL..0x11100 => Code::AsmCgoCall,
        GO..0x20000 => Code::Go,
        _ => Code::Native,
    }
}

fn exact(pc: u64) -> u64 {
    UserWord::frame(pc, true)
}

/// A caller whose call ends at `pc`.
fn caller(pc: u64) -> u64 {
    UserWord::frame(pc + 1, false)
}

fn list(pcs: &[u64]) -> PcList {
    PcList {
        pcs: pcs.to_vec(),
        full: pcs.len() == MAX_PCS,
    }
}

fn answer(leaf: &[u64], contexts: &[(u64, &[u64])]) -> Answer {
    Answer {
        leaf: list(leaf),
        contexts: contexts.iter().map(|(value, pcs)| (*value, list(pcs))).collect(),
        ..Default::default()
    }
}

/// Frames as `hook 50001` or `50001`.
fn shown(words: &[u64], answer: &Answer) -> Vec<String> {
    let frames = answered(words.iter().copied(), answer, code).into_iter();
    frames
        .map(|frame| match frame.origin {
            Origin::Hook => format!("hook {:x}", frame.address.0),
            Origin::Walked | Origin::Kernel => format!("{:x}", frame.address.0),
        })
        .collect()
}

/// Go called C, which called Go, and so on: three C segments, the innermost interrupted, the others with the
/// contexts 2 and 1 (or without, for 0).
fn go_c_go_c_go_c(newer: u64, older: u64) -> Vec<u64> {
    let mut words = vec![exact(C), caller(C + 1), caller(ASMCGOCALL), caller(GO)];
    for (context, c) in [(newer, C + 0x10), (older, C + 0x20)] {
        words.push(caller(CGOCALLBACK));
        if context != 0 {
            words.extend([UserWord::CONTEXT_TAG, context]);
        }
        words.extend([caller(CROSSCALL2), caller(c), caller(c + 1)]);
        words.extend([caller(ASMCGOCALL), caller(GO + 1)]);
    }
    words
}

#[test]
fn each_c_segment_takes_what_the_hook_said_about_it() {
    let answer = answer(&[0xa0, 0xa1, 0xa2], &[(2, &[0x200, 0x201]), (1, &[0x100])]);
    assert_eq!(
        shown(&go_c_go_c_go_c(2, 1), &answer),
        [
            "hook a0", "hook a1", "hook a2", "11000", "10000", // Go, down to the newer callback
            "12000", "13000", "hook 200", "hook 201", "11000", "10001", // and to the older one
            "12000", "13000", "hook 100", "11000", "10001"
        ]
    );
}

#[test]
fn an_answer_that_says_nothing_leaves_the_walk() {
    let words = go_c_go_c_go_c(2, 1);
    let unanswered = merged(&[], &words);
    for answer in [
        answer(&[], &[]),
        answer(&[], &[(2, &[]), (1, &[])]),
        // Contexts of other callbacks.
        answer(&[], &[(7, &[0x700]), (0, &[0x100])]),
        // Go functions only.
        answer(&[GO], &[(2, &[ASMCGOCALL, C]), (1, &[CROSSCALL2])]),
    ] {
        let words = words.iter().copied();
        assert_eq!(answered(words, &answer, code), unanswered);
    }
}

#[test]
fn a_callback_without_a_context_is_walked_and_takes_none_of_another() {
    // Go's own profile gives the context of the older callback to the newer one.
    let answer = answer(&[], &[(1, &[0x100])]);
    assert_eq!(
        shown(&go_c_go_c_go_c(0, 1), &answer),
        [
            "50000", "50001", "11000", "10000", // as walked
            "12000", "13000", "50010", "50011", "11000", "10001", // the newer callback, likewise
            "12000", "13000", "hook 100", "11000", "10001"
        ]
    );
}

#[test]
fn fewer_contexts_than_segments_leave_the_others_as_walked() {
    // The newer callback has its context, but has not stored it where the hook's caller looks.
    let answer = answer(&[0xa0], &[(1, &[0x100])]);
    let shown = shown(&go_c_go_c_go_c(2, 1), &answer);
    assert_eq!(shown[5..8], ["50010", "50011", "11000"]);
    assert_eq!(shown[11], "hook 100");
}

#[test]
fn more_contexts_than_segments_are_not_in_the_chain() {
    let words = &go_c_go_c_go_c(2, 1)[..10];
    let answer = answer(&[], &[(2, &[0x200]), (1, &[0x100])]);
    assert_eq!(
        shown(words, &answer)[3..],
        ["10000", "12000", "13000", "hook 200"],
        "the walk ended in the newer callback"
    );
}

#[test]
fn equal_contexts_have_equal_frames() {
    let answer = answer(&[], &[(1, &[0x100])]);
    let shown = shown(&go_c_go_c_go_c(1, 1), &answer);
    assert_eq!((shown[6].as_str(), shown[11].as_str()), ("hook 100", "hook 100"));
}

#[test]
fn a_list_is_cut_where_it_runs_into_go() {
    let answer = answer(
        &[0xa0, ASMCGOCALL + 5, 0xa2],
        &[(2, &[0x200, GO + 7, C]), (1, &[0x100, CROSSCALL2])],
    );
    let hooks: Vec<_> = shown(&go_c_go_c_go_c(2, 1), &answer)
        .into_iter()
        .filter(|frame| frame.starts_with("hook"))
        .collect();
    assert_eq!(hooks, ["hook a0", "hook 200", "hook 100"]);
}

#[test]
fn wild_addresses_are_taken_as_they_are() {
    let answer = answer(&[1, u64::MAX, 1 << 63], &[]);
    assert_eq!(
        shown(&[exact(C), caller(ASMCGOCALL)], &answer),
        [
            "hook 1",
            "hook ffffffffffffffff",
            "hook 8000000000000000",
            "11000"
        ]
    );
}

#[test]
fn a_sample_without_c_has_nothing_that_a_hook_speaks_for() {
    let words = [exact(GO), caller(GO + 1), caller(GO + 2)];
    assert_eq!(
        shown(&words, &answer(&[C, C + 1], &[(1, &[C])])),
        ["10000", "10001", "10002"]
    );
}

#[test]
fn when_go_was_interrupted_only_the_contexts_are_the_hooks() {
    // Go asks the hook about its own system calls in a callback, and puts the answer on top.
    let mut words = vec![exact(GO)];
    words.extend(&go_c_go_c_go_c(2, 1)[4..11]);
    let answer = answer(&[C, C + 1], &[(2, &[0x200])]);
    assert_eq!(
        shown(&words, &answer),
        ["10000", "12000", "13000", "hook 200", "11000"]
    );
}

#[test]
fn a_program_without_go_is_one_segment() {
    let words = [exact(C), caller(C + 1), caller(C + 2)];
    assert_eq!(shown(&words, &answer(&[0xa0, 0xa1], &[])), ["hook a0", "hook a1"]);
}

#[test]
fn c_that_go_calls_without_cgo_is_as_walked() {
    // As the vDSO.
    let words = [exact(C), caller(C + 1), caller(GO), caller(GO + 1)];
    assert_eq!(
        shown(&words, &answer(&[0xa0], &[])),
        ["50000", "50001", "10000", "10001"]
    );
}

#[test]
fn a_signal_handler_of_c_belongs_to_the_segment_that_it_interrupted() {
    let words = [
        exact(C),
        exact(C + 0x30), // the trampoline of libc
        exact(C + 0x40),
        caller(C + 0x41),
        caller(ASMCGOCALL),
    ];
    assert_eq!(
        shown(&words, &answer(&[0xa0, 0xa1], &[])),
        ["hook a0", "hook a1", "11000"]
    );
    assert_eq!(
        shown(&words, &answer(&[], &[])),
        ["50000", "50030", "50040", "50041", "11000"]
    );
}

#[test]
fn c_below_a_signal_handler_of_go_was_not_what_the_hook_was_asked_about() {
    let words = [
        exact(GO),
        exact(SIGRETURN),
        exact(C),
        caller(C + 1),
        caller(ASMCGOCALL),
    ];
    assert_eq!(
        shown(&words, &answer(&[0xa0], &[])),
        ["10000", "14000", "50000", "50001", "11000"]
    );
}

#[test]
fn a_hook_speaks_for_c_in_which_the_walk_got_lost() {
    assert_eq!(
        shown(&[exact(C)], &answer(&[0xa0, 0xa1], &[])),
        ["hook a0", "hook a1"]
    );
    let callback = [
        exact(GO),
        caller(CGOCALLBACK),
        UserWord::CONTEXT_TAG,
        2,
        caller(CROSSCALL2),
    ];
    let answer = answer(&[], &[(2, &[0x200])]);
    for (words, expected) in [
        (&callback[..], &["10000", "12000", "13000", "hook 200"][..]),
        (&callback[..4], &["10000", "12000", "hook 200"]),
    ] {
        assert_eq!(shown(words, &answer), expected);
    }
}

#[test]
fn a_context_speaks_for_what_follows_whatever_that_is() {
    let answer = answer(&[], &[(2, &[0x200])]);
    let callback = [exact(GO), caller(CGOCALLBACK), UserWord::CONTEXT_TAG, 2];
    for (rest, expected) in [
        (&[caller(C), caller(ASMCGOCALL)][..], &["hook 200", "11000"][..]),
        (&[caller(ASMCGOCALL), caller(GO)], &["hook 200", "11000", "10000"]),
        (
            &[caller(CROSSCALL2), caller(ASMCGOCALL)],
            &["13000", "hook 200", "11000"],
        ),
    ] {
        assert_eq!(shown(&[&callback, rest].concat(), &answer)[2..], *expected);
    }
}

/// The addresses of a C stack that is `n` frames deep.
fn stack(n: u64) -> Vec<u64> {
    (0..n).map(|i| C + 0x10 * i).collect()
}

/// The words of a walk over a C stack.
fn walk(stack: &[u64]) -> Vec<u64> {
    let mut words: Vec<_> = stack.iter().map(|&pc| caller(pc)).collect();
    words[0] = exact(stack[0]);
    words.push(caller(ASMCGOCALL));
    words
}

#[test]
fn a_list_that_had_no_more_room_is_completed_by_the_walk() {
    let stack = stack(35);
    let shown = shown(&walk(&stack), &answer(&stack[..MAX_PCS], &[]));
    assert_eq!(
        shown[MAX_PCS - 1..],
        ["hook 501f0", "50200", "50210", "50220", "11000"]
    );
}

#[test]
fn a_list_that_stops_sooner_than_the_stack_is_completed_by_the_walk() {
    let stack = stack(4);
    assert_eq!(
        shown(&walk(&stack), &answer(&stack[..2], &[])),
        ["hook 50000", "hook 50010", "50020", "50030", "11000"]
    );
    // Without the innermost frame, and with return addresses, against the protocol.
    assert_eq!(
        shown(&walk(&stack), &answer(&[stack[1] + 1, stack[2] + 1], &[])),
        ["hook 50011", "hook 50021", "50030", "11000"]
    );
}

#[test]
fn recursion_is_completed_at_the_right_depth() {
    let stack = [[C].as_slice(), &[C + 0x10; 5], &[C + 0x20]].concat();
    assert_eq!(
        shown(&walk(&stack), &answer(&stack[..4], &[])),
        [
            "hook 50000",
            "hook 50010",
            "hook 50010",
            "hook 50010",
            "50010",
            "50010",
            "50020",
            "11000"
        ]
    );
}

#[test]
fn a_context_is_completed_though_its_innermost_frames_were_others_when_it_began() {
    let stack = [vec![C, C + 8], vec![C + 0x10; 40], vec![C + 0x20]].concat();
    let mut words = vec![
        exact(GO),
        caller(CGOCALLBACK),
        UserWord::CONTEXT_TAG,
        2,
        caller(CROSSCALL2),
    ];
    words.extend(stack.iter().map(|&pc| caller(pc)));
    words.push(caller(ASMCGOCALL));
    let hook_and_wait = [0xa0, 0xa1];
    // Just before, the stub called something else.
    let stub = [C - 0x10];
    for others in [
        &stub[..],
        &[hook_and_wait[1], stub[0]],
        &[hook_and_wait[0], hook_and_wait[1], stub[0]],
    ] {
        let mut said = [others, &stack[1..]].concat();
        said.truncate(MAX_PCS);
        let shown = shown(&words, &answer(&[], &[(2, &said)]));
        // The stub is there once, and the recursion as often as it was walked.
        assert_eq!(shown.len(), 3 + others.len() + stack.len() - 1 + 1, "{shown:?}");
        assert_eq!(shown[shown.len() - 3..], ["50010", "50020", "11000"]);
    }
}

#[test]
fn frames_that_only_the_hook_knows_are_not_mixed_with_walked_ones() {
    let stack = stack(5);
    assert_eq!(
        shown(&walk(&stack), &answer(&[stack[0], 0xa1, stack[2]], &[])),
        ["hook 50000", "hook a1", "hook 50020", "11000"]
    );
}

#[test]
fn a_list_that_reached_go_is_complete() {
    let stack = stack(4);
    assert_eq!(
        shown(&walk(&stack), &answer(&[stack[0], stack[1], ASMCGOCALL], &[])),
        ["hook 50000", "hook 50010", "11000"],
        "the hook came to the end of the stack, by its own reckoning"
    );
}
