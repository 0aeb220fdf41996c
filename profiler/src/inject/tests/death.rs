//! Our own death, at every moment.

use super::install;
use super::target::{Target, plan, symbol};
use crate::hooks::Symbolizer;
use crate::inject::{Mapped, snapshot};
use crate::target::process::Process;
use nix::sys::signal::{Signal, raise};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The process to inject into, in a child of this test.
const VICTIM: &str = "PROFILER_TEST_VICTIM";
/// The step at which the child dies.
const DIE_AT: &str = "PROFILER_TEST_DIE_AT";

fn variable(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// Called after each request to the target: this may be the last thing that we do.
pub(in crate::inject) fn step() {
    static STEPS: AtomicU32 = AtomicU32::new(0);
    static DIE: LazyLock<Option<u32>> = LazyLock::new(|| variable(DIE_AT));
    if let Some(die) = *DIE
        && STEPS.fetch_add(1, Ordering::Relaxed) + 1 == die
    {
        raise(Signal::SIGKILL).expect("we can kill ourselves");
    }
}

/// Started by a test below as a process of its own; by itself it has nothing to do.
#[test]
fn the_child_that_dies() {
    if let Some(pid) = variable(VICTIM) {
        let process = Process::open(pid).expect("it runs");
        let installed = Mapped::new(process, plan(pid))
            .expect("mapped")
            .install()
            .expect("installed");
        installed.leave(Some(0)).expect("left");
    }
}

/// Started as a process of its own, like the other.
#[test]
fn the_child_that_dies_with_a_snapshot() {
    if let Some(pid) = variable(VICTIM) {
        let process = Process::open(pid).expect("it runs");
        let mut conversation = Symbolizer::default();
        (0x100..0x104).for_each(|pc| conversation.ask(pc));
        let function = symbol(pid, "hook_symbolizer");
        let asked = snapshot::ask(&process, &plan(pid), function, &mut conversation, &|_| ());
        assert!(asked.refused.is_none(), "{asked:?}");
        assert_eq!(conversation.named(0x103).expect("named").functions.len(), 2);
    }
}

#[test]
fn the_target_survives_our_death_at_every_step_and_the_next_run_clears_up() {
    let mut target = Target::start("local");
    let (deaths, remains) = die_everywhere(&mut target, "the_child_that_dies", |_| {});
    assert!(
        deaths > 50 && remains > 20,
        "{deaths} deaths, {remains} left something"
    );
    target.finish();
}

#[test]
fn the_target_survives_our_death_at_every_step_of_a_snapshot_and_the_next_run_buries_that() {
    let mut target = Target::start("local");
    let (deaths, remains) = die_everywhere(&mut target, "the_child_that_dies_with_a_snapshot", |_| {});
    assert!(
        deaths > 50 && remains > 40,
        "{deaths} deaths, {remains} left something"
    );
    target.finish();
}

/// Runs `test` again and again, and has it die one step later each time, until it survives. After each death sees to it
/// that the target is `well`. Also how often it died, and how often that left something behind.
pub(super) fn die_everywhere(
    target: &mut Target,
    test: &str,
    mut well: impl FnMut(&mut Target),
) -> (u32, u32) {
    let before = target.state();
    let mut deaths = 0;
    let mut remains = 0;
    for die_at in 1.. {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", &format!("inject::tests::death::{test}")])
            .env(VICTIM, target.pid().to_string())
            .env(DIE_AT, die_at.to_string())
            .output()
            .expect("it starts")
            .status;
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
        deaths += 1;
        well(target);
        remains += u32::from(target.state() != before);
        install(target).leave(Some(0)).expect("it can be left");
        if target.state() != before {
            // The system call that was begun for the dead was made only after the next run had looked.
            install(target).leave(Some(0)).expect("it can be left");
        }
        target.assert_state(&before);
    }
    (deaths, remains)
}
