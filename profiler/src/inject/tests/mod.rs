mod death;
mod target;

use super::{Disposition, Installed, Mapped, Mapping};
use crate::addr::Avma;
use std::time::{Duration, Instant};
use target::{COOKIE, TOOLCHAINS, Target};

pub(super) use death::step;

fn install(target: &Target) -> Installed {
    let mapped = Mapped::new(target.process(), target.plan.clone()).expect("it can be mapped");
    mapped.install().expect("it can be installed")
}

/// Checks what has to be true of every answer of the program; returns whether it was in C, and how deep.
fn check(target: &Target, answer: &super::Answer) -> (bool, usize) {
    let tid = answer.tid.expect("a thread of Go's");
    assert_eq!(answer.cookie, COOKIE | u64::from(tid), "{answer:?}");
    let who = target.workers[&tid];
    if let Some(leaf) = &answer.leaf {
        assert_eq!(*leaf, [answer.pc, Avma(0x700_0000 + who)], "{answer:?}");
    }
    for (context, depth) in answer.contexts.iter().rev().zip(1..) {
        let value = who * 0x10_0000 + depth * 0x100;
        assert_eq!(context.context, value, "{answer:?}");
        assert_eq!(context.pcs, [Avma(value + 1), Avma(value + 2)], "{answer:?}");
    }
    assert!(
        !answer.is_cut && !answer.no_hook && !answer.is_overrun,
        "{answer:?}"
    );
    (answer.leaf.is_some(), answer.contexts.len())
}

/// Sends `n` signals to each worker and returns the answers.
fn ask(target: &Target, installed: &Installed, n: usize) -> Vec<super::Answer> {
    let mut answers = Vec::new();
    for _ in 0..n {
        for &tid in target.workers.keys() {
            target
                .send(tid, installed.signal(), COOKIE | u64::from(tid))
                .expect("a thread");
        }
        let goal = answers.len() + target.workers.len();
        let deadline = Instant::now() + Duration::from_secs(30);
        while answers.len() < goal {
            assert!(Instant::now() < deadline, "{} of {goal} answers", answers.len());
            answers.extend(installed.answers());
            std::thread::yield_now();
        }
    }
    answers
}

#[test]
fn hooks_answer_for_the_interrupted_code_and_for_each_context_with_every_toolchain() {
    for toolchain in TOOLCHAINS {
        let target = Target::start(toolchain);
        let before = target.state();
        let installed = install(&target);
        let answers = ask(&target, &installed, 200);
        let kinds: Vec<_> = answers.iter().map(|answer| check(&target, answer)).collect();
        let count = |kind| kinds.iter().filter(|&&k| k == kind).count();
        assert!(count((true, 2)) > 100, "{kinds:?}");
        let sent = answers.len() as u64;
        assert_eq!((installed.entered(), installed.without_room()), (sent, 0));
        let left = installed.leave(Some(sent)).expect("it can be left");
        assert_eq!(
            (left.disposition, left.mapping),
            (Disposition::Restored, Mapping::Unmapped)
        );
        target.assert_state(&before);
        assert!(target.finish() > 0);
    }
}
