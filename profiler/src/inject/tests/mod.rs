mod death;
mod filters;
mod refusals;
mod snapshot;
mod sys;
mod table;
mod target;

use super::{Disposition, Error, Installed, Mapped, Mapping};
use crate::addr::Avma;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use target::{COOKIE, TOOLCHAINS, Target};

pub(super) use death::step;

/// The first number in the full test, `cargo xtask test --full`; else the second.
fn full([full, quick]: [u32; 2]) -> u32 {
    if std::env::var_os("PROFILER_TEST_FULL").is_some() {
        full
    } else {
        quick
    }
}

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
    ask_threads(
        target,
        installed,
        n,
        &target.workers.keys().copied().collect::<Vec<_>>(),
    )
}

/// Sends `n` signals to each of `tids` and returns the answers.
fn ask_threads(target: &Target, installed: &Installed, n: usize, tids: &[u32]) -> Vec<super::Answer> {
    let mut answers = Vec::new();
    for _ in 0..n {
        for &tid in tids {
            target
                .send(tid, installed.signal(), COOKIE | u64::from(tid))
                .expect("a thread");
        }
        let goal = answers.len() + tids.len();
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
        let asked = full([200, 80]) as usize;
        let answers = ask(&target, &installed, asked);
        let kinds: Vec<_> = answers.iter().map(|answer| check(&target, answer)).collect();
        let count = |kind| kinds.iter().filter(|&&k| k == kind).count();
        assert!(count((true, 2)) > asked / 2, "{kinds:?}");
        let sent = answers.len() as u64;
        assert_eq!((installed.entered(), installed.without_room()), (sent, 0));
        let left = installed.leave(Some(sent)).expect("it can be left");
        assert_eq!(
            (left.disposition, left.mapping),
            (Disposition::Restored, Mapping::Unmapped)
        );
        target.assert_state(&before);
        target.finish();
    }
}

#[test]
fn a_thread_that_go_does_not_know_answers_for_the_interrupted_code() {
    let target = Target::start("local");
    let installed = install(&target);
    let answers = ask_threads(&target, &installed, 50, &[target.stranger]);
    for answer in &answers {
        assert_eq!((answer.tid, answer.contexts.len()), (None, 0), "{answer:?}");
        let leaf = [answer.pc, Avma(0x700_0000 + target::STRANGER)];
        assert_eq!(answer.leaf.as_deref(), Some(leaf.as_slice()));
        assert_eq!(answer.cookie, COOKIE | u64::from(target.stranger));
        assert_eq!(answer.thread_pointer, answers[0].thread_pointer);
    }
    installed.leave(Some(50)).expect("it can be left");
    target.finish();
}

#[test]
fn signals_of_others_reach_the_handler_before_ours() {
    let mut target = Target::start("local");
    let installed = install(&target);
    assert_eq!(installed.signal(), 63);
    let tids: Vec<_> = target.workers.keys().copied().collect();
    for &tid in &tids {
        target.send(tid, 63, COOKIE ^ 1 << 63).expect("a thread");
        assert_eq!(target.line(), "received\n");
    }
    assert_eq!(installed.passed_on(), 4);
    ask(&target, &installed, 1);
    // Go would end the process.
    target.set("hook_without_info", 1);
    let counters = &installed.mapped.region.shared.counters;
    while counters.without_info.load(Relaxed) == 0 {
        std::thread::yield_now();
    }
    let left = installed.leave(Some(4)).expect("it can be left");
    assert_eq!(left.disposition, Disposition::Restored);
    target.send(tids[0], 63, COOKIE).expect("a thread");
    assert_eq!(target.line(), "received\n");
    target.finish();
}

#[test]
fn a_signal_of_go_s_that_comes_together_with_ours_is_handled_before() {
    let mut target = Target::start("local");
    let installed = install(&target);
    for _ in 0..20 {
        // What waits for a stopped process is delivered when it goes on, Go's signal for preemption first.
        target.stop();
        for &tid in target.workers.keys() {
            target.send(tid, 23, 0).expect("a thread");
        }
        let begun = std::thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&target, &installed, 1));
            while !target.all_have_pending(installed.signal()) {
                std::thread::yield_now();
            }
            target.go_on();
            asking.join().expect("answers")
        });
        for answer in &begun {
            let go = target.go();
            assert!(!go.signal_handlers.contains(&answer.pc), "{answer:?}");
            assert!(go.async_preempt != Some(answer.pc), "{answer:?}");
            check(&target, answer);
        }
    }
    installed.leave(Some(80)).expect("it can be left");
    target.finish();
}

#[test]
fn a_disposition_that_is_no_longer_ours_is_not_touched() {
    let mut target = Target::start("local");
    let mut before = target.state();
    let installed = install(&target);
    target.ignore();
    let left = installed.leave(Some(0)).expect("it can be left");
    assert_eq!(
        (left.disposition, left.mapping),
        (Disposition::Theirs, Mapping::Unmapped)
    );
    before.ignored |= 1 << 62;
    before.caught &= !(1 << 62);
    target.assert_state(&before);
    // What is ignored on purpose is not taken.
    let installed = install(&target);
    assert_eq!(installed.signal(), 62);
    installed.leave(Some(0)).expect("it can be left");
    target.assert_state(&before);
    target.finish();
}

#[test]
fn a_process_that_executes_another_program_is_touched_no_more() {
    let mut target = Target::start("local");
    let installed = install(&target);
    target.exec();
    let before = target.state();
    let left = installed.leave(Some(0)).expect("there is nothing to leave");
    assert_eq!(
        (left.disposition, left.mapping),
        (Disposition::Restored, Mapping::Unmapped)
    );
    target.assert_state(&before);

    let mapped = Mapped::new(target.process(), target.plan.clone()).expect("it can be mapped");
    target.exec();
    assert!(matches!(mapped.install(), Err(Error::Replaced { .. })));
    target.finish();
}

#[test]
fn a_helper_that_signals_may_still_be_on_their_way_to_stays_until_the_next_run() {
    let target = Target::start("local");
    let before = target.state();
    for sent in [None, Some(1)] {
        let left = install(&target).leave(sent).expect("it can be left");
        assert_eq!(
            (left.disposition, left.mapping),
            (Disposition::Restored, Mapping::Kept)
        );
        let with_helper = target.state();
        assert!(with_helper != before);
        install(&target).leave(Some(0)).expect("it can be left");
        target.assert_state(&before);
    }
    target.finish();
}

#[test]
fn a_hook_that_writes_behind_the_end_is_found_out_and_harms_nobody() {
    let target = Target::start("local");
    let installed = install(&target);
    target.set("hook_words", 32);
    assert!(
        ask(&target, &installed, 5)
            .iter()
            .all(|answer| !answer.is_overrun)
    );
    target.set("hook_words", 40);
    for answer in ask(&target, &installed, 5) {
        let was_asked = answer.leaf.is_some() || !answer.contexts.is_empty();
        assert_eq!(answer.is_overrun, was_asked, "{answer:?}");
        assert!(answer.leaf.is_none_or(|leaf| leaf.len() == 32));
    }
    target.set("hook_words", 2);
    ask(&target, &installed, 5)
        .iter()
        .for_each(|answer| _ = check(&target, answer));
    installed.leave(Some(60)).expect("it can be left");
    target.finish();
}

#[test]
fn hooks_that_unwind_from_themselves_find_the_frames_that_they_expect() {
    for toolchain in TOOLCHAINS {
        let target = Target::start(toolchain);
        let installed = install(&target);
        target.set("hook_unwinds", 1);
        let answers = ask(&target, &installed, 50);
        let leaves: Vec<_> = answers
            .iter()
            .filter_map(|answer| Some((answer.pc, answer.leaf.as_ref()?)))
            .collect();
        // Where Go's own code was interrupted, there is no unwind information for it.
        let unwound = leaves.iter().filter(|(_, leaf)| leaf.len() > 2);
        assert!(unwound.clone().count() * 10 > leaves.len() * 9 && leaves.len() > 20);
        assert!(unwound.clone().all(|(pc, leaf)| leaf[2..] == [*pc]), "{leaves:?}");
        installed.leave(Some(200)).expect("it can be left");
        target.finish();
    }
}

#[test]
fn without_a_hook_or_while_disabled_nothing_is_called() {
    let target = Target::start("local");
    let mut plan = target.plan.clone();
    plan.traceback = target.variable("hook_none");
    let mapped = Mapped::new(target.process(), plan).expect("it can be mapped");
    let installed = mapped.install().expect("it can be installed");
    for answer in ask(&target, &installed, 2) {
        assert!(
            answer.no_hook && answer.leaf.is_none() && answer.contexts.is_empty(),
            "{answer:?}"
        );
    }
    installed.enable(false);
    let tid = target.stranger;
    target.send(tid, installed.signal(), COOKIE).expect("a thread");
    while installed.entered() < 9 {
        std::thread::yield_now();
    }
    installed.enable(true);
    assert_eq!(ask_threads(&target, &installed, 1, &[tid]).len(), 1);
    installed.leave(Some(10)).expect("it can be left");
    target.finish();
}

#[test]
fn cycles_leave_nothing_while_signals_rain_on_every_thread() {
    let target = Target::start("local");
    let before = target.state();
    let (is_over, showers) = (AtomicBool::new(false), AtomicU64::new(0));
    let cycles = full([2000, 50]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Go has a handler for all signals and does nothing about this one, but on threads that it does not know.
            const RAIN: u32 = 50;
            let process = target.process();
            let tids = || process.tids().into_iter().filter(|&tid| tid != target.stranger);
            let rain_of = |mask: u64| mask & 1 << (RAIN - 1) != 0;
            let has_rain = |tid| process.status(tid).is_some_and(|now| rain_of(now.pending));
            let is_wet = |tid| {
                let status = process.status(tid);
                status.is_some_and(|now| rain_of(now.pending & !now.blocked))
            };
            while !is_over.load(Relaxed) {
                let begun = Instant::now();
                // Signals that wait take room that all processes of a user share: no more than one waits for each thread.
                for tid in tids().filter(|&tid| !has_rain(tid)) {
                    let _ = target.send(tid, RAIN, 0);
                }
                while tids().any(is_wet) && !is_over.load(Relaxed) {
                    std::thread::yield_now();
                }
                showers.fetch_add(1, Relaxed);
                // It is dry for as long as it was wet: on a busy machine threads take long to handle what they received, and
                // nobody gets in where each of them always has a signal to handle.
                std::thread::sleep(begun.elapsed().max(Duration::from_micros(500)));
            }
        });
        let _ends = OnDrop(|| is_over.store(true, Relaxed));
        for _ in 0..cycles {
            let installed = install(&target);
            let answers = ask(&target, &installed, 1);
            answers.iter().for_each(|answer| _ = check(&target, answer));
            let left = installed.leave(Some(4)).expect("it can be left");
            assert_eq!(
                (left.disposition, left.mapping),
                (Disposition::Restored, Mapping::Unmapped)
            );
        }
    });
    let showers = showers.into_inner();
    assert!(showers >= u64::from(cycles) / 10, "only {showers} showers");
    target.assert_state(&before);
    target.finish();
}

/// Does something when it is dropped, by a panic as well.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
