//! Our own death, at every moment.
#![allow(clippy::print_stdout, reason = "the figures are what these tests are for")]

use super::target::{COOKIE, Target};
use super::{filters, full, install, sys};
use crate::hooks::Symbolizer;
use crate::inject::{Mapped, snapshot};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Says to the test below that it has a process for itself.
const ALONE: &str = "PROFILER_TEST_ALONE";
/// How often we die at each step, in the full test and otherwise.
const DEATHS: [u32; 2] = [20, 1];
/// At each of so many steps we die.
const EACH: [u32; 2] = [1, 2];

/// The Go program, with filters of its system calls, which is all that the other one is and more; and in the full test the
/// other one.
fn targets() -> impl Iterator<Item = Target> {
    let kinds: [fn() -> Target; 2] = [filters::refused, || Target::start("local")];
    kinds.into_iter().take(full([2, 1]) as usize).map(|kind| kind())
}

/// Steps to go; 0: we live.
static TO_GO: AtomicU32 = AtomicU32::new(0);

/// Called after each request to the target: this may be the last thing that we do.
pub(in crate::inject) fn step() {
    if TO_GO.load(Relaxed) > 0 && TO_GO.fetch_sub(1, Relaxed) == 1 {
        raise(Signal::SIGKILL).expect("we can kill ourselves");
    }
}

#[test]
fn the_target_survives_our_death_at_every_step_and_the_next_run_clears_up() {
    alone(
        "death::the_target_survives_our_death_at_every_step_and_the_next_run_clears_up",
        || targets().for_each(|target| die_at_every_step(target, honour, |_| {}, (60, 20))),
    );
}

#[test]
fn the_target_survives_our_death_at_every_step_of_a_snapshot_and_the_next_run_buries_that() {
    alone(
        "death::the_target_survives_our_death_at_every_step_of_a_snapshot_and_the_next_run_buries_that",
        || targets().for_each(|target| die_at_every_step(target, name, |_| {}, (80, 60))),
    );
}

/// Does `work`, that of the test `test`, in a process that does nothing else: one that forks has to have no other threads
/// that hold locks, nor files of other tests.
pub(super) fn alone(test: &str, work: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return work();
    }
    let name = format!("inject::tests::{test}");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

/// Dies at every step of `act`, or every second one in the quick test. There have to be so many steps at least, of which so many leave something behind. After
/// each death the target has to be `well`.
pub(super) fn die_at_every_step(
    mut target: Target,
    act: fn(&Target),
    well: fn(&mut Target),
    (least_steps, least_remains): (u32, u32),
) {
    let before = target.state();
    let (mut deaths, mut remains, mut certain) = (0, 0, 0);
    let (times, each) = (full(DEATHS), full(EACH));
    for steps in (1..).step_by(each as usize) {
        let mut survived = 0;
        for _ in 0..times {
            if !dies(&target, act, steps) {
                survived += 1;
                continue;
            }
            deaths += 1;
            well(&mut target);
            remains += u32::from(target.state() != before);
            next_run(&target);
            if target.state() != before {
                // The system call that was begun for the dead was made only after the next run had looked.
                next_run(&target);
            }
            target.assert_state(&before);
        }
        // How many there are depends on how often a signal interrupts us.
        certain += u32::from(survived == 0);
        if survived == times {
            break;
        }
    }
    println!("{deaths} deaths, {times} at each of {certain} steps, {remains} left something");
    assert!(
        certain > least_steps / each && remains > least_remains * times / each,
        "{certain} steps, {remains} left something"
    );
    target.finish();
}

/// Honours the hooks of the target, and leaves it. On a busy machine it is tried again: a thread that has nothing to do is
/// not always found in time.
fn next_run(target: &Target) {
    let run = || {
        let mapped = Mapped::new(target.process(), target.plan.clone())?;
        mapped.install()?.leave(Some(0))
    };
    let mut left = run();
    for _ in 0..10 {
        if left.is_ok() {
            break;
        }
        left = run();
    }
    left.expect("it can be left");
}

/// Does `act` to the target in a child that dies after so many steps. False if it came to its end before.
fn dies(target: &Target, act: fn(&Target), steps: u32) -> bool {
    match sys::fork().expect("a child") {
        ForkResult::Parent { child } => match waitpid(child, None).expect("it is ours") {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => true,
            WaitStatus::Exited(_, 0) => false,
            status => panic!("{status:?}"),
        },
        ForkResult::Child => {
            TO_GO.store(steps, Relaxed);
            let acted = std::panic::catch_unwind(|| act(target));
            #[allow(clippy::exit, reason = "the target is not this process's to end")]
            std::process::exit(i32::from(acted.is_err()));
        }
    }
}

/// Honours the hooks of the target, and asks all of its threads.
pub(super) fn honour(target: &Target) {
    let installed = install(target);
    step();
    for &tid in target.workers.keys() {
        target
            .send(tid, installed.signal(), COOKIE | u64::from(tid))
            .expect("a thread");
        step();
    }
    installed.answers();
    step();
    installed
        .leave(Some(target.workers.len() as u64))
        .expect("it can be left");
}

/// Honours the hooks of the target, and asks nobody.
pub(super) fn come_and_go(target: &Target) {
    install(target).leave(Some(0)).expect("it can be left");
}

/// Has the symbolizer of the target name addresses.
pub(super) fn name(target: &Target) {
    let mut conversation = Symbolizer::default();
    (0x100..0x104).for_each(|pc| conversation.ask(pc));
    let function = target.variable("hook_symbolizer");
    let asked = snapshot::ask(
        &target.process(),
        &target.plan,
        function,
        &mut conversation,
        &|_| (),
    );
    assert!(asked.refused.is_none(), "{asked:?}");
    assert_eq!(conversation.named(0x103).expect("named").functions.len(), 2);
}
