//! The stack switches of the Go runtime: a goroutine that called C, which called back, three deep, on two stacks.

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
        text: ASMCGOCALL,
        text_size: GO_CODE + 0x1000 - ASMCGOCALL,
        g_labels: 0,
        label_form: GoLayout::LABEL_MAP,
    }
}

/// A thread that runs goroutine `G` on M, with TLS g = `tls`.
fn host(pc: u64, sp: u64, tls: u64) -> Host {
    let mut host = Host::new(pc, sp, 0xbad);
    host.go[0] = layout();
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
fn two_runtimes_that_call_each_other_have_lists_of_their_own() {
    // The code of the other runtime is as far above, and so are its goroutine, thread and stack.
    const OTHER: u64 = 0x10_0000;
    let mut host = host(C_CODE + 2, 0x7ac0, G0);
    let layout = layout();
    host.go[1] = GoLayout {
        tls_g: -16,
        crosscall2: CROSSCALL2 + OTHER,
        text: layout.text + OTHER,
        ..layout
    };
    let (g, g0, m, hi) = (G + OTHER, G0 + OTHER, M + OTHER, HI + OTHER);
    host.memory.extend([
        (THREAD_POINTER - 16, g0),
        (g + 48, m),
        (g0 + 48, m),
        (m, g0),
        (m + 184, g),
        (g + 8, hi),
    ]);
    host.code(GO_CODE + OTHER, sp(16));
    host.code(CROSSCALL2 + OTHER, sp(48));
    host.code(CROSSCALL2, sp(48));
    host.code(ASMCGOCALL + OTHER, Rule::go(GoSwitch::AsmCgoCall, 0));
    host.code(CGOCALLBACK + OTHER, Rule::go(GoSwitch::CgoCallback, 0));
    // From the leaf outwards: C, the other runtime, C, the first one, C, the other one again.
    host.stack(0x7ac0, &[0, ASMCGOCALL + OTHER + 1]);
    host.stack(0x7ad0, &[0x40, g]);
    host.stack(hi - 0x40, &[0, GO_CODE + OTHER + 1, 0, CGOCALLBACK + OTHER + 1]);
    host.memory.insert(g0 + 56, 0x7b00);
    host.stack(
        0x7b00,
        &[0x7d00, 0, 0, 0xb9, CROSSCALL2 + OTHER + 1, 0, 0, 0, 0, 0],
    );
    host.stack(0x7b00 + 40 + 40, &[ASMCGOCALL + 1]);
    let first = 0x7b00 + 40 + 48;
    asmcgocall(&mut host, first, HI - 0x40);
    host.stack(HI - 0x40, &[0, GO_CODE + 2, 0, CGOCALLBACK + 1]);
    host.memory.insert(G0 + 56, 0x7c00);
    host.stack(
        0x7c00,
        &[
            0,
            0,
            0,
            0xb9,
            CROSSCALL2 + 1,
            0,
            0,
            0,
            0,
            0,
            ASMCGOCALL + OTHER + 2,
        ],
    );
    host.stack(0x7c00 + 40 + 48, &[0x20, g]);
    host.stack(hi - 0x20, &[0, GO_CODE + OTHER + 3, 0, CGOCALLBACK + OTHER + 1]);
    host.stack(
        0x7d00,
        &[0, 0, 0, 0xb9, CROSSCALL2 + OTHER + 1, 0, 0, 0, 0, 0, GOEXIT + 1],
    );

    let (frames, stop) = host.run();
    let expected = [
        Exact(C_CODE + 2),
        ReturnAddress(ASMCGOCALL + OTHER + 1),
        ReturnAddress(GO_CODE + OTHER + 1),
        ReturnAddress(CGOCALLBACK + OTHER + 1),
        ReturnAddress(CROSSCALL2 + OTHER + 1),
        ReturnAddress(ASMCGOCALL + 1),
        ReturnAddress(GO_CODE + 2),
        ReturnAddress(CGOCALLBACK + 1),
        ReturnAddress(CROSSCALL2 + 1),
        ReturnAddress(ASMCGOCALL + OTHER + 2),
        ReturnAddress(GO_CODE + OTHER + 3),
        ReturnAddress(CGOCALLBACK + OTHER + 1),
        ReturnAddress(CROSSCALL2 + OTHER + 1),
        ReturnAddress(GOEXIT + 1),
    ];
    assert_eq!(frames, expected);
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
