//! Programs whose system calls are filtered.

use super::death::{come_and_go, name};
use super::refusals::failing;
use super::target::{self, Target};
use super::{ask, check, install, sys, table};
use crate::hooks::Symbolizer;
use crate::inject::filter::{
    ALLOW, ARGUMENTS, ERRNO, Instruction, KILL, LOG, NOTIFY, NUMBER, TRACE, TRAP, answer, has_bit, is_equal,
    load,
};
use crate::inject::snapshot;
use crate::target::preflight::Requirement;
use std::process::Command;

const RT_SIGRETURN: u32 = 15;
const CLONE: u32 = 56;
const WAIT4: u32 = 61;
const PRLIMIT64: u32 = 302;
const SECCOMP: u32 = 317;
const MEMFD_CREATE: u32 = 319;
/// `EPERM`, as filters return it.
const REFUSE: u32 = ERRNO | 1;

/// A filter that has this action for these calls.
fn filter(calls: &[u32], action: u32) -> Vec<Instruction> {
    let tests = calls
        .iter()
        .flat_map(|&call| [is_equal(call, 0, 1), answer(action)]);
    [load(NUMBER)]
        .into_iter()
        .chain(tests)
        .chain([answer(ALLOW)])
        .collect()
}

/// The Go program, with such a filter.
fn go(calls: &[u32], action: u32) -> Target {
    run(Command::new(target::program("local")), &filter(calls, action))
}

fn run(mut command: Command, filter: &[Instruction]) -> Target {
    sys::filter(&mut command, filter);
    Target::run(&mut command)
}

/// The Go program, whose filter refuses calls that it does not make itself, and we do.
pub(super) fn refused() -> Target {
    go(&[MEMFD_CREATE, WAIT4, PRLIMIT64, SECCOMP], REFUSE)
}

#[test]
fn calls_that_filters_let_fail_are_made_and_fail_for_the_program() {
    for target in [refused(), go(&[MEMFD_CREATE], TRACE)] {
        let before = target.state();
        let installed = install(&target);
        assert_eq!(installed.filters(), 1);
        let answers = ask(&target, &installed, 50);
        for answer in &answers {
            check(&target, answer);
        }
        let sent = answers.len() as u64;
        installed.leave(Some(sent)).expect("it can be left");
        name(&target);
        target.assert_state(&before);
        target.finish();
    }
    let mut command = Command::new(table::program());
    command.arg("futex");
    let target = run(command, &filter(&[MEMFD_CREATE], REFUSE));
    let before = target.state();
    come_and_go(&target);
    name(&target);
    target.assert_state(&before);
    target.finish();
}

#[test]
fn what_a_filter_only_writes_down_is_done() {
    let target = go(&[RT_SIGRETURN], LOG);
    install(&target).leave(Some(0)).expect("it can be left");
    target.finish();
}

#[test]
fn what_a_filter_ends_the_program_for_is_not_tried() {
    for (action, what) in [
        (KILL, "ends it for"),
        (0, "ends it for"),
        (TRAP, "sends SIGSYS for"),
        (NOTIFY, "lets another process decide on"),
    ] {
        let target = go(&[MEMFD_CREATE], action);
        let before = target.state();
        let found = failing(&target);
        assert_eq!(found.requirement, Requirement::Seccomp);
        assert_eq!(
            found.fact,
            format!("a filter of its system calls {what} memfd_create")
        );
        target.assert_state(&before);
        target.finish();
    }
}

#[test]
fn a_program_that_may_not_return_from_signal_handlers_is_left_alone() {
    for (action, what) in [(KILL, "ends it for"), (REFUSE, "refuses")] {
        let mut command = Command::new(table::program());
        command.arg("spin");
        let target = run(command, &filter(&[RT_SIGRETURN], action));
        let found = failing(&target);
        assert_eq!(
            found.fact,
            format!("a filter of its system calls {what} rt_sigreturn")
        );
        target.finish();
    }
}

#[test]
fn no_copy_is_made_of_a_program_that_a_filter_ends_for_that() {
    // Only our clone(2) has this flag, CLONE_PTRACE.
    let program = [
        load(NUMBER),
        is_equal(CLONE, 0, 3),
        load(ARGUMENTS),
        has_bit(0x2000, 0, 1),
        answer(KILL),
        answer(ALLOW),
    ];
    let target = run(Command::new(target::program("local")), &program);
    let before = target.state();
    come_and_go(&target);
    let mut conversation = Symbolizer::default();
    conversation.ask(0x100);
    let asked = snapshot::ask(
        &target.process(),
        &target.plan,
        target.variable("hook_symbolizer"),
        &mut conversation,
        &|_| (),
    );
    let refused = asked.refused.expect("it must be refused").to_string();
    assert!(
        refused.contains("a filter of its system calls ends it for clone"),
        "{refused}"
    );
    target.assert_state(&before);
    target.finish();
}
