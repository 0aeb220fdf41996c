//! Stacks written by hand, judged by the chains of real targets.

use super::{Spec, Symbols, Verdict};
use crate::folded::Folded;

const GO: (&str, &str) = ("go", include_str!("../../targets/common/go.chains.txt"));
const C: (&str, &str) = ("c", include_str!("../../targets/common/c.chains.txt"));
const GO_NESTED: (&str, &str) = ("go_nested", include_str!("../../targets/go_nested/chains.txt"));
const GO_MOVING: (&str, &str) = ("go_moving", include_str!("../../targets/go_moving/chains.txt"));
const C_DEEP: (&str, &str) = ("c_deep", include_str!("../../targets/c_deep/chains.txt"));
const SIGNAL_FRAMES: (&str, &str) = (
    "signal_frames",
    include_str!("../../targets/signal_frames/chains.txt"),
);

const GO_OUTER: &str = "runtime.goexit;runtime.main;main.main;main.work;main.round;main.goOuter";
const TO_C_OUTER: &str =
    "main._Cfunc_c_outer;runtime.cgocall;runtime.asmcgocall;_cgo_0123456789ab_Cfunc_c_outer";
const TO_C_MID: &str = "main._Cfunc_c_mid;runtime.cgocall;runtime.asmcgocall;_cgo_0123456789ab_Cfunc_c_mid";
const TO_C_INNER: &str =
    "main._Cfunc_c_inner;runtime.cgocall;runtime.asmcgocall;_cgo_0123456789ab_Cfunc_c_inner";
const C_OUTER: &str = "c_outer;c_outer_step;goMid";
const C_MID: &str = "c_mid;c_mid_step;goInner";
const BACK: &str = "crosscall2;runtime.cgocallback;runtime.cgocallbackg;runtime.cgocallbackg1";
const TO_GO_MID: &str = "_cgoexp_0123456789ab_goMid;main.goMid";
const TO_GO_INNER: &str = "_cgoexp_0123456789ab_goInner;main.goInner";
const C_INNER: &str = "c_inner;c_inner_step;c_leaf3";

/// The whole chain of go_nested, Go → C → Go → C → Go → C.
const WHOLE: [&str; 11] = [
    GO_OUTER,
    TO_C_OUTER,
    C_OUTER,
    BACK,
    TO_GO_MID,
    TO_C_MID,
    C_MID,
    BACK,
    TO_GO_INNER,
    TO_C_INNER,
    C_INNER,
];

fn stripped() -> Symbols {
    Symbols::Stripped {
        module: "go_nested".to_owned(),
    }
}

fn judge(files: &[(&str, &str)], symbols: Symbols, chain: &str) -> Verdict {
    let frames: Vec<&str> = chain.split(';').collect();
    Spec::parse(files.iter().copied())
        .unwrap()
        .checker(symbols)
        .unwrap()
        .verdict(&frames)
}

fn judge_nested(chain: &str) -> Verdict {
    judge(&[GO, GO_NESTED], Symbols::All, chain)
}

/// The frame at which a chain of go_nested is wrong.
#[track_caller]
fn wrong_at(chain: &str) -> String {
    match judge_nested(chain) {
        Verdict::Wrong { at, .. } => chain.split(';').nth(at).unwrap().to_owned(),
        Verdict::Exact => panic!("taken for a true chain: {chain}"),
    }
}

fn without(parts: &[&str], frame: &str) -> String {
    let chain = parts.join(";");
    let frames: Vec<&str> = chain.split(';').filter(|f| *f != frame).collect();
    assert!(
        frames.len() < chain.split(';').count(),
        "{frame} is not in the chain"
    );
    frames.join(";")
}

#[test]
fn a_chain_is_true_wherever_it_ends() {
    let whole = WHOLE.join(";");
    let frames: Vec<&str> = whole.split(';').collect();
    for n in 1..=frames.len() {
        assert_eq!(judge_nested(&frames[..n].join(";")), Verdict::Exact, "{n} frames");
    }
}

#[test]
fn glue_that_depends_on_the_release_may_be_there_or_not() {
    let new = WHOLE
        .join(";")
        .replace(
            "runtime.asmcgocall;_cgo",
            "runtime.asmcgocall;runtime.asmcgocall_landingpad;_cgo",
        )
        .replace(
            "runtime.cgocallbackg;",
            "runtime.cgocallbackg;runtime.cgocallbackg;",
        );
    assert_eq!(judge_nested(&new), Verdict::Exact);
    assert_eq!(
        judge_nested(&WHOLE.join(";").replace("runtime.goexit;", "")),
        Verdict::Exact
    );
}

#[test]
fn a_lost_caller_is_found() {
    let lost = |frame: &str| wrong_at(&without(&WHOLE, frame));
    assert_eq!(lost("main.round"), "main.goOuter");
    assert_eq!(lost("c_outer"), "c_outer_step");
    assert_eq!(lost("c_inner_step"), "c_leaf3");
    assert_eq!(lost("goInner"), "crosscall2");
    assert_eq!(lost("main.goMid"), "main._Cfunc_c_mid");
    assert_eq!(lost("crosscall2"), "runtime.cgocallback");
    assert_eq!(lost("main._Cfunc_c_inner"), "runtime.cgocall");
    // The one that walks by frame pointers lose: the caller of a function without a frame.
    assert_eq!(
        wrong_at(&format!("{GO_OUTER};main.goLeafNoFrame")),
        "main.goLeafNoFrame"
    );
    assert_eq!(
        judge_nested(&format!("{GO_OUTER};main.goLeafCaller;main.goLeafNoFrame")),
        Verdict::Exact
    );
}

#[test]
fn a_lost_segment_is_found() {
    // A walk that takes cgocallback's own frame for its caller goes past the C below it.
    let parts = [
        GO_OUTER,
        TO_C_OUTER.split(";_cgo").next().unwrap(),
        "runtime.cgocallback;runtime.cgocallbackg",
    ];
    assert_eq!(wrong_at(&parts.join(";")), "runtime.cgocallback");
    let parts = [GO_OUTER, TO_C_OUTER, C_OUTER, BACK, TO_GO_INNER];
    assert_eq!(wrong_at(&parts.join(";")), "_cgoexp_0123456789ab_goInner");
}

#[test]
fn a_lost_root_is_found() {
    assert_eq!(
        wrong_at("runtime.asmcgocall;_cgo_0123456789ab_Cfunc_c_outer;c_outer"),
        "runtime.asmcgocall"
    );
    assert_eq!(wrong_at("runtime.mallocgc"), "runtime.mallocgc");
    assert_eq!(wrong_at("main.work;main.round"), "main.work");
    assert_eq!(
        wrong_at(&format!("[incomplete: no-rule];{GO_OUTER}")),
        "[incomplete: no-rule]"
    );
    assert_eq!(wrong_at("runtime.goexit;runtime.mallocgc"), "runtime.mallocgc");
}

#[test]
fn a_segment_that_is_there_twice_is_found() {
    let twice = [
        GO_OUTER, TO_C_OUTER, C_OUTER, BACK, TO_GO_MID, TO_C_MID, TO_C_MID, C_MID,
    ];
    assert_eq!(wrong_at(&twice.join(";")), "main._Cfunc_c_mid");
    let twice = [GO_OUTER, TO_C_OUTER, C_OUTER, C_OUTER, BACK];
    assert_eq!(wrong_at(&twice.join(";")), "c_outer");
    assert_eq!(
        wrong_at(&[GO_OUTER, "main.goBurn;main.goBurn"].join(";")),
        "main.goBurn"
    );
}

#[test]
fn phantom_frames_of_a_callback_are_found() {
    let phantom = [
        GO_OUTER,
        TO_C_OUTER,
        C_OUTER,
        "runtime.cgocall;runtime.systemstack_switch",
        BACK,
    ];
    assert_eq!(wrong_at(&phantom.join(";")), "runtime.cgocall");
    let phantom = [
        GO_OUTER,
        "main._Cfunc_c_outer;runtime.cgocall;runtime.systemstack_switch",
    ];
    assert_eq!(wrong_at(&phantom.join(";")), "runtime.systemstack_switch");
}

#[test]
fn frames_of_another_goroutine_are_found() {
    assert_eq!(
        wrong_at("runtime.goexit;runtime.main;main.main;main.second;main.work"),
        "main.second"
    );
    assert_eq!(
        wrong_at(&[GO_OUTER, "runtime.gcBgMarkWorker"].join(";")),
        "runtime.gcBgMarkWorker"
    );
    assert_eq!(
        wrong_at(&[GO_OUTER, "runtime.schedule"].join(";")),
        "runtime.schedule"
    );
    let moved = "runtime.goexit;main.fillerA;main.fillA;main.fillB;runtime.asmcgocall;\
        _cgo_0123456789ab_Cfunc_c_outer;c_outer";
    assert!(matches!(
        judge(&[GO, GO_MOVING], Symbols::All, moved),
        Verdict::Wrong { at: 4, .. }
    ));
}

#[test]
fn a_frame_without_a_name_is_wrong() {
    assert_eq!(
        wrong_at(&[GO_OUTER, TO_C_OUTER, "[go_nested+0x1234]"].join(";")),
        "[go_nested+0x1234]"
    );
}

#[test]
fn the_runtime_may_work_below_any_go_function() {
    for below in [
        "main.goAlloc;runtime.makeslice;runtime.mallocgc;runtime.systemstack;runtime.(*mcache).nextFree.func1",
        "main.goAlloc;gcWriteBarrier;runtime.wbBufFlush",
        "main.goOuter;main._Cfunc_c_outer;runtime.cgocall;runtime.exitsyscall;runtime.casgstatus",
        "main.goOuter;main._Cfunc_c_outer;runtime.cgocall;runtime.asmcgocall;gosave_systemstack_switch",
        "main.goOuter;main.goBurn;gotarget.Step",
        "main.goOuter;main.goBurn;runtime.asyncPreempt;runtime.asyncPreempt2",
        "main.goOuter;main.goBurn;runtime.sigreturn__sigaction;runtime.sigtramp;runtime.sigtrampgo",
        "main.goOuter;main.goBurn;runtime.morestack;runtime.newstack;runtime.copystack",
    ] {
        let chain = format!("runtime.goexit;main.second;main.work;main.round;{below}");
        assert_eq!(judge_nested(&chain), Verdict::Exact, "{chain}");
    }
}

#[test]
fn threads_of_the_runtime_are_true_chains() {
    for chain in [
        "runtime.mcall;runtime.park_m;runtime.schedule;runtime.findRunnable;runtime.nanotime1;__vdso_clock_gettime",
        "runtime.mstart;runtime.mstart0;runtime.mstart1;runtime.sysmon;runtime.usleep",
        "clone3;start_thread;threadentry;crosscall1;runtime.mstart;runtime.mstart0;runtime.mstart1;runtime.schedule",
        "[libc.so.6+0x10ec2b];[libc.so.6+0x891c4];threadentry;crosscall1;runtime.mstart",
        "_start;__libc_start_main_impl;__libc_start_call_main;main;runtime.rt0_go;runtime.mstart;runtime.mstart0",
        "runtime.goexit;runtime.gcBgMarkStartWorkers.gowrap1;runtime.gcBgMarkWorker;runtime.systemstack;runtime.gcDrain",
        "runtime.goexit;runtime.bgsweep;runtime.sweepone",
    ] {
        assert_eq!(judge_nested(chain), Verdict::Exact, "{chain}");
    }
}

#[test]
fn a_stripped_program_has_as_many_c_frames_without_names() {
    let named = ["_cgo_0123456789ab_Cfunc_c_outer", "c_outer", "c_outer_step"];
    let chain = [GO_OUTER, TO_C_OUTER, C_OUTER, BACK, TO_GO_MID].join(";");
    let nameless = named.iter().fold(chain, |chain, name| {
        chain
            .split(';')
            .map(|f| if f == *name { "[go_nested+0x9d3a0]" } else { f })
            .collect::<Vec<_>>()
            .join(";")
    });
    let judge = |chain: &str| judge(&[GO, GO_NESTED], stripped(), chain);
    assert_eq!(judge(&nameless), Verdict::Exact);
    assert_ne!(
        judge(&nameless.replacen("[go_nested+0x9d3a0];", "", 1)),
        Verdict::Exact
    );
    assert_ne!(
        judge(&nameless.replacen("[go_nested+0x9d3a0];", "[go_nested+0x1];[go_nested+0x2];", 1)),
        Verdict::Exact
    );
}

#[test]
fn three_hundred_frames_are_counted() {
    let judge = |chain: &str| judge(&[C, C_DEEP], Symbols::All, chain);
    let root = "clone3;start_thread;run_thread";
    let deep = |cycles: usize| {
        format!(
            "{root};{};c_leaf;burn;target_step",
            vec!["f0;f1;f2"; cycles].join(";")
        )
    };
    assert_eq!(judge(&deep(100)), Verdict::Exact);
    for cycles in [99, 101] {
        assert_ne!(judge(&deep(cycles)), Verdict::Exact, "{cycles}");
    }
    assert_eq!(
        judge(&format!("{root};f0;f1;f2;f0;burn_here;target_step")),
        Verdict::Exact
    );
    assert_ne!(judge(&format!("{root};f0;f2")), Verdict::Exact);
}

#[test]
fn a_signal_handler_is_above_what_it_interrupted() {
    let judge = |chain: &str| judge(&[C, SIGNAL_FRAMES], Symbols::All, chain);
    let interrupted = "_start;__libc_start_main_impl;__libc_start_call_main;main;run;step;leaf;target_step";
    let handler = "on_prof;handler_step;handler_leaf";
    assert_eq!(
        judge(&format!("{interrupted};__restore_rt;{handler}")),
        Verdict::Exact
    );
    assert_ne!(judge(&format!("{interrupted};{handler}")), Verdict::Exact);
    assert_ne!(judge(&format!("__restore_rt;{handler}")), Verdict::Exact);
}

#[test]
fn a_report_counts_samples_of_user_and_kernel_apart() {
    let folded = Folded::parse(&format!(
        "t;{GO_OUTER} 6\nt;{GO_OUTER};main.goLeafNoFrame 2\nt;{GO_OUTER};do_syscall_64_[k] 3\nt;do_exit_[k] 1\n"
    ));
    let checker = Spec::parse([GO, GO_NESTED])
        .unwrap()
        .checker(Symbols::All)
        .unwrap();
    let report = checker.report(&folded.unwrap());
    assert_eq!((report.user.exact, report.user.wrong), (6, 2));
    assert_eq!((report.kernel.exact, report.kernel.wrong), (3, 1));
    assert_eq!(report.user.percent(), 75.0);
    assert!(
        report.to_string().contains(">>>main.goLeafNoFrame<<<"),
        "{report}"
    );
}

#[test]
fn mistakes_in_a_specification_are_named() {
    for (text, complaint) in [
        ("start:\n  @nowhere\n", "nowhere"),
        (
            "start:\n  main.main\n      main.work\n",
            "nothing for it to be below",
        ),
        ("  main.main\n", "nothing for it to be below"),
        (
            "start:\n  @x\n    main.main\nx:\n  main.y\n",
            "nothing for it to be below",
        ),
        ("start:\n  <strange>\n", "no class <strange>"),
        ("roots:\n  main.main\n", "`start`"),
    ] {
        let error = Spec::parse([("spec", text)])
            .and_then(|spec| spec.checker(Symbols::All))
            .unwrap_err();
        assert!(format!("{error:#}").contains(complaint), "{text:?}: {error:#}");
    }
}
