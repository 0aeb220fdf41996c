//! Our own death, at every moment.
#![allow(clippy::print_stdout, reason = "the figures are what these tests are for")]

use super::target::{COOKIE, Target};
use super::{full, install};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Says to the test below that it has a process for itself.
const ALONE: &str = "PROFILER_TEST_ALONE";
/// How often we die at each step, in the full test and otherwise.
const DEATHS: [u32; 2] = [20, 4];

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
    // A process that forks has to have no other threads that hold locks, nor files of other tests.
    if std::env::var_os(ALONE).is_some() {
        return die_at_every_step();
    }
    let name = "inject::tests::death::the_target_survives_our_death_at_every_step_and_the_next_run_clears_up";
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

fn die_at_every_step() {
    let target = Target::start("local");
    let before = target.state();
    let (mut deaths, mut remains, mut certain) = (0, 0, 0);
    let times = full(DEATHS);
    for steps in 1.. {
        let mut survived = 0;
        for _ in 0..times {
            if !dies(&target, steps) {
                survived += 1;
                continue;
            }
            deaths += 1;
            remains += u32::from(target.state() != before);
            install(&target).leave(Some(0)).expect("it can be left");
            if has_helper(&target) {
                // The system call that was begun for the dead was made only after the next run had looked.
                install(&target).leave(Some(0)).expect("it can be left");
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
        certain > 60 && remains > 20 * times,
        "{certain} steps, {remains} left something"
    );
    target.finish();
}

/// Honours the hooks of the target, and asks all of its threads, in a child that dies after so many steps. False if it
/// came to its end before.
fn dies(target: &Target, steps: u32) -> bool {
    // SAFETY: the thread that waits for this test is the only other one, and it holds no lock.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => match waitpid(child, None).expect("it is ours") {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => true,
            WaitStatus::Exited(_, 0) => false,
            status => panic!("{status:?}"),
        },
        ForkResult::Child => {
            TO_GO.store(steps, Relaxed);
            let honoured = std::panic::catch_unwind(|| honour(target));
            #[allow(clippy::exit, reason = "the target is not this process's to end")]
            std::process::exit(i32::from(honoured.is_err()));
        }
    }
}

fn honour(target: &Target) {
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

/// Whether anything of ours is in the target.
fn has_helper(target: &Target) -> bool {
    format!("{:?}", target.state()).contains("profiler-hooks")
}
