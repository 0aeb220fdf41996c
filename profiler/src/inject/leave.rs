//! Leaving a process as it was.

use super::error::Error;
use super::install::{bit, is_handling, sigaction};
use super::leftovers;
use super::rescue;
use super::sys::SharedMap;
use super::thread::{Borrowed, Call, Fault};
use super::{Plan, borrow};
use crate::target::maps::MapEntry;
use crate::target::preflight::SIGNALS;
use crate::target::process::Process;
use crate::target::status::Status;
use profiler_helper::shared::{Action, Actions, BUSY, Shared};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// How long to wait for signals that are on their way, and for threads that are inside.
const PATIENCE: Duration = Duration::from_millis(500);

/// No handler, as rt_sigaction(2) has it.
const SIG_DFL: u64 = 0;

/// What was left of us in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// What became of the signal.
    pub disposition: Disposition,
    /// What became of the helper.
    pub mapping: Mapping,
    /// The longest time that a thread of the process was stopped, from the beginning on.
    pub longest_stop: Duration,
    /// Threads that did not come back from a hook, and were taken out of it.
    pub rescued: u32,
}

/// What became of the disposition of the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is as it was, or the process has executed another program.
    Restored,
    /// The process has set another since, which was not touched.
    Theirs,
    /// Signals are still pending or may be on their way, which would do what they were not sent for: the handler stays, and
    /// passes on.
    StillPending,
}

/// What became of the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// It is out of the process's memory.
    Unmapped,
    /// It stays in the process's memory, as it is not certain that no thread is, or will be, in it. It does nothing.
    Kept,
}

/// Where a helper is in the target.
#[derive(Debug)]
pub(super) struct Region {
    /// Address of its first byte.
    pub(super) base: u64,
    /// Its size, in bytes.
    pub(super) len: u64,
    /// Address of its shared memory.
    pub(super) shared_at: u64,
    /// Its shared memory in our address space.
    pub(super) shared: SharedMap,
}

impl Region {
    /// Whether it still is there: it is not after the process has executed another program, and then something else may
    /// be at its address. To be asked while a thread is borrowed, which such a process takes from us.
    pub(super) fn is_there(&self, process: &Process) -> bool {
        let maps = process.maps().unwrap_or_default();
        let is_part = |map: &MapEntry| leftovers::is_name(&map.name);
        let is_at = |address| maps.iter().any(|map| map.start == address && is_part(map));
        is_at(self.base) && is_at(self.shared_at)
    }
}

/// Takes out a helper that is installed for `signal`, or for none, 0. `sent`: see [`super::Installed::leave`].
pub(super) fn take_out(
    process: &Process,
    plan: &Plan,
    region: &Region,
    signal: u32,
    sent: Option<u64>,
) -> Result<Left, Error> {
    let shared = &*region.shared;
    shared.config.enabled.store(0, Release);
    let mut longest_stop = Duration::ZERO;
    let has_arrived = || sent.is_some_and(|sent| sent <= shared.counters.entered.load(Acquire));
    // Where the process had no handler, a signal that comes late would end it.
    let may_be_late = || shared.actions.previous.handler.load(Relaxed) == SIG_DFL && !has_arrived();
    let (disposition, leads_here) = if !SIGNALS.contains(&signal) {
        (Disposition::Restored, false)
    } else if !wait_until(|| !is_pending(process, signal) && !may_be_late()) {
        (Disposition::StillPending, true)
    } else {
        let (restored, stopped) = borrow(process, plan, |thread| {
            if region.is_there(process) {
                restore(thread, region, signal)
            } else {
                Ok((Disposition::Restored, false))
            }
        })?;
        longest_stop = stopped;
        restored
    };
    let is_quiet = || has_arrived() && !is_inside(process, shared);
    let (mut mapping, mut rescued) = (Mapping::Kept, 0);
    if !leads_here && !wait_until(is_quiet) {
        for inside in rescue::inside(region) {
            rescued += u32::from(rescue::rescue(process, region, inside)?);
        }
    }
    if !leads_here && wait_until(is_quiet) {
        let ((), stopped) = borrow(process, plan, |thread| {
            if region.is_there(process) {
                thread.call(Call::Munmap, [region.base, region.len, 0, 0, 0, 0])?;
            }
            Ok(())
        })?;
        longest_stop = longest_stop.max(stopped);
        mapping = Mapping::Unmapped;
    }
    Ok(Left {
        disposition,
        mapping,
        longest_stop,
        rescued,
    })
}

/// Restores the disposition of `signal`, if it is ours. Also says whether what is there may lead to us: a handler that
/// came after ours may call ours, as ours calls the one before it.
fn restore(thread: &mut Borrowed<'_>, region: &Region, signal: u32) -> Result<(Disposition, bool), Fault> {
    let Actions {
        ours,
        previous,
        found,
    } = &region.shared.actions;
    let handler = |action: &Action| action.handler.load(Relaxed);
    // SIG_DFL and SIG_IGN call nobody.
    let theirs = || (Disposition::Theirs, handler(found) > 1);
    sigaction(thread, region, signal, None)?;
    if handler(found) == handler(previous) {
        return Ok((Disposition::Restored, false));
    }
    if handler(found) != handler(ours) {
        return Ok(theirs());
    }
    sigaction(thread, region, signal, Some(previous))?;
    if handler(found) == handler(ours) {
        return Ok((Disposition::Restored, false));
    }
    // Somebody came in between: it is theirs.
    let theirs = theirs();
    sigaction(thread, region, signal, Some(found))?;
    Ok(theirs)
}

fn wait_until(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The status of each thread.
fn statuses(process: &Process) -> impl Iterator<Item = Status> {
    let tids = process.tids().into_iter();
    tids.filter_map(|tid| process.status(tid))
}

/// Whether `signal` waits to be delivered to any thread.
fn is_pending(process: &Process, signal: u32) -> bool {
    statuses(process).any(|status| status.pending & bit(signal) != 0)
}

/// Whether a thread is in the handler.
fn is_inside(process: &Process, shared: &Shared) -> bool {
    let has_slot = shared.slots.iter().any(|slot| slot.state.load(Acquire) == BUSY);
    has_slot || statuses(process).any(|status| is_handling(&status))
}
