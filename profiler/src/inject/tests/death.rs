//! Our own death, at every moment.

use super::install;
use super::target::{Target, plan};
use crate::inject::Mapped;
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

/// Started by the next test as a process of its own; by itself it has nothing to do.
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

#[test]
fn the_target_survives_our_death_at_every_step_and_the_next_run_clears_up() {
    let mut target = Target::start("local");
    die_at_every_step(&mut target, |_| {});
    target.finish();
}

/// Has a child of ours die at each step of honouring the hooks of `target`, and after each death sees to it that the next
/// run leaves the target as it was, and that it is `well`.
pub(super) fn die_at_every_step(target: &mut Target, mut well: impl FnMut(&mut Target)) {
    let before = target.state();
    let mut deaths = 0;
    let mut remains = 0;
    for die_at in 1.. {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "inject::tests::death::the_child_that_dies"])
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
        if has_helper(target) {
            // The system call that was begun for the dead was made only after the next run had looked.
            install(target).leave(Some(0)).expect("it can be left");
        }
        target.assert_state(&before);
    }
    assert!(
        deaths > 50 && remains > 20,
        "{deaths} deaths, {remains} left something"
    );
}

/// Whether anything of ours is in the target.
fn has_helper(target: &Target) -> bool {
    format!("{:?}", target.state()).contains("profiler-hooks")
}
