//! Processes that are left alone.

use super::install;
use super::target::Target;
use crate::inject::{Error, Mapped};
use crate::target::preflight::{Condition, Requirement, State};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(super) fn refusal(target: &Target) -> Error {
    Mapped::new(target.process(), target.plan.clone()).expect_err("it has to be refused")
}

/// The only condition that does not hold.
pub(super) fn failing(target: &Target) -> Condition {
    match refusal(target) {
        Error::Refused { pid, failing } if pid == target.pid() => match &failing.0[..] {
            [only] => only.clone(),
            _ => panic!("{failing}"),
        },
        error => panic!("{error}"),
    }
}

#[test]
fn a_process_has_one_profiler_that_honours_its_hooks() {
    let target = Target::start("local");
    let before = target.state();
    let installed = install(&target);
    assert!(matches!(refusal(&target), Error::InUse { .. }));
    installed.leave(Some(0)).expect("it can be left");
    target.assert_state(&before);
    target.finish();
}

#[test]
fn a_traced_process_is_left_alone() {
    let target = Target::start("local");
    let pid = Pid::from_raw(target.pid() as i32);
    ptrace::seize(pid, Options::empty()).expect("it can be traced");
    let us = rustix::thread::gettid().as_raw_pid() as u32;
    let assert_refused = || {
        let found = failing(&target);
        assert_eq!(found.requirement, Requirement::NoTracer);
        assert!(found.fact.contains(&us.to_string()), "{found}");
    };
    assert_refused();
    // A signal stops the thread until its tracer lets it go on; Go's runtime sends this one to its threads at any time.
    target
        .send(target.pid(), Signal::SIGURG as u32, 0)
        .expect("it can be sent");
    let process = target.process();
    while !process
        .status(target.pid())
        .is_some_and(|status| status.is_stopped())
    {
        std::thread::yield_now();
    }
    assert_refused();
    drop(target);
}

#[test]
fn a_stopped_process_stays_stopped() {
    let target = Target::start("local");
    let before = target.state();
    let pid = Pid::from_raw(target.pid() as i32);
    kill(pid, Signal::SIGSTOP).expect("it can be stopped");
    let is_stopped = || {
        let state = State::read(&target.process());
        state.tasks.iter().all(|task| task.status.is_stopped())
    };
    while !is_stopped() {
        std::thread::yield_now();
    }
    assert_eq!(failing(&target).requirement, Requirement::NotStopped);
    assert!(is_stopped());
    kill(pid, Signal::SIGCONT).expect("it can go on");
    target.assert_state(&before);
    install(&target).leave(Some(0)).expect("it can be left");
    target.assert_state(&before);
    target.finish();
}

#[test]
fn a_program_without_callers_and_one_that_ended_are_refused() {
    let mut target = Target::start("local");
    let none = target.variable("hook_none");
    let callers = std::mem::replace(&mut target.go().callers, none);
    assert_eq!(failing(&target).requirement, Requirement::Cgo);
    target.go().callers = callers;
    let process = target.process();
    let plan = target.plan.clone();
    drop(target);
    assert!(matches!(Mapped::new(process, plan), Err(Error::Gone { .. })));
}
