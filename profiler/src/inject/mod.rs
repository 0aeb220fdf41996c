//! Honouring the traceback hooks of a process from outside. This is the only module that stops or changes a process.
//!
//! A signal handler of ours is put into the process ([`Mapped`]), installed for a real-time signal that the process does
//! not use ([`Installed`]), and taken out again ([`Left`]). Whoever samples sends that signal to the sampled thread, while
//! it is in user mode; the handler then calls the process's own traceback function for the interrupted code and for each
//! live context of a callback, as Go's runtime does, and the answers are fetched here.
//!
//! Its symbolizer is called in a copy of the process ([`snapshot`]), in which it may do what it likes.
//!
//! The process survives our death at any moment, and whoever comes next finds what we left and removes it.

mod answer;
mod error;
mod filter;
mod image;
mod install;
mod leave;
mod leftovers;
mod lock;
mod map;
mod plan;
mod rescue;
pub mod snapshot;
mod sys;
mod thread;

#[cfg(test)]
mod tests;

pub use answer::{Answer, ContextAnswer, take as take_answers};
pub use error::{Error, Failing};
pub use image::object;
pub use install::Installed;
pub use leave::{Disposition, Left, Mapping};
pub use map::Mapped;
pub use plan::{Accept, GoPlan, Plan, Runtime};
pub use rescue::Inside;

use crate::target::preflight::{self, Outcome, State};
use crate::target::process::Process;
use std::time::{Duration, Instant};
use thread::{Borrowed, Fault, Seized};

/// Checks that the process may be touched at all.
///
/// # Errors
/// It has ended, or the conditions that do not hold.
pub fn check(process: &Process) -> Result<(), Error> {
    let pid = process.pid;
    let state = State::read(process);
    if state.has_ended() {
        return Err(Error::Gone { pid });
    }
    let mut failing = state.conditions();
    failing.retain(|condition| condition.outcome == Outcome::Fails);
    if failing.is_empty() {
        Ok(())
    } else {
        Err(Error::Refused {
            pid,
            failing: Failing(failing),
        })
    }
}

/// How long to look for an idle thread.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often to look at least: a machine that stood still for that time has not been looked at.
const LOOKS: u32 = 10;

/// Runs `work` on a borrowed thread, as [`lend`] does.
///
/// All of it happens on a thread of its own: when that ends, the kernel lets go of whatever it may still trace.
fn borrow<T: Send>(
    process: &Process,
    plan: &Plan,
    work: impl FnMut(&mut Borrowed<'_>) -> Result<T, Fault> + Send,
) -> Result<(T, Duration), Error> {
    std::thread::scope(|scope| {
        let lender = scope.spawn(|| lend(process, plan, work));
        lender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `work` on a borrowed thread; where a signal interrupts it, again on the next one, until it is done. So `work` has
/// to keep in mind what it has done. Also returns the longest time that a thread was stopped.
fn lend<T>(
    process: &Process,
    plan: &Plan,
    mut work: impl FnMut(&mut Borrowed<'_>) -> Result<T, Fault>,
) -> Result<(T, Duration), Error> {
    let pid = process.pid;
    check(process)?;
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    let mut looks = 0;
    while start.elapsed() < PATIENCE || looks < LOOKS {
        looks += 1;
        let state = State::read(process);
        if state.has_ended() {
            return Err(Error::Gone { pid });
        }
        let mut filtered = None;
        for tid in thread::candidates(process, plan) {
            let mut borrowed = match Seized::stop(process, tid).and_then(|seized| seized.borrow(plan)) {
                Ok(borrowed) => borrowed,
                Err(Fault::Failed(error)) => return Err(error),
                Err(fault) => {
                    filtered = fault.filtered().or(filtered);
                    continue;
                }
            };
            let result = work(&mut borrowed);
            longest = longest.max(borrowed.stopped());
            drop(borrowed);
            match result {
                Ok(value) => return Ok((value, longest)),
                Err(Fault::Failed(error)) => return Err(error),
                Err(fault) => filtered = fault.filtered().or(filtered),
            }
        }
        if let Some(filtered) = filtered {
            return Err(Error::refused(pid, filtered));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::refused(pid, preflight::no_idle_thread(PATIENCE)))
}
