//! Installing the handler.

use super::answer;
use super::borrow;
use super::error::Error;
use super::leave::{Left, Region, take_out};
use super::map::Mapped;
use super::plan::Runtime;
use super::rescue::{self, Inside};
use super::thread::{Borrowed, Call, Fault};
use crate::addr::Avma;
use crate::target::preflight::{self, State};
use crate::target::status::Status;
use profiler_helper::shared::{Action, Actions};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

/// `sizeof(sigset_t)` in the kernel.
const SIGSET: u64 = 8;
/// `SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_RESTORER`.
const FLAGS: u64 = 0x0000_0004 | 0x0800_0000 | 0x1000_0000 | 0x0400_0000;
/// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV and SIGSYS, which report what the thread itself does: blocked, they would kill
/// the process where a hook that guards its loads expects to handle them.
pub(super) const SYNCHRONOUS: u64 = bit(4) | bit(5) | bit(7) | bit(8) | bit(11) | bit(31);
/// SIGKILL and SIGSTOP, which the kernel never blocks.
pub(super) const NEVER_BLOCKED: u64 = bit(9) | bit(19);
/// What is blocked in the handler: all that may come at any time.
pub(super) const MASK: u64 = !(SYNCHRONOUS | NEVER_BLOCKED);

/// Whether a thread is in the handler: from its first instruction to the end of its sigreturn it blocks what the handler
/// blocks. Signal handlers that block everything, as Go's do, are others.
pub(super) const fn is_handling(status: &Status) -> bool {
    status.blocked & MASK == MASK && status.blocked & SYNCHRONOUS != SYNCHRONOUS
}

pub(super) const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// A process whose hooks are honoured: it answers [`Installed::signal`].
#[derive(Debug)]
pub struct Installed {
    pub(super) mapped: Mapped,
    signal: u32,
    filters: u32,
}

impl Mapped {
    /// Installs the handler for a real-time signal whose disposition is Go's or the default. Signals that are not ours go
    /// on to Go's handler; if the disposition was the default they are ignored for as long as we are there.
    ///
    /// # Errors
    /// No signal is free, or no thread could be borrowed. The helper is taken out again.
    pub fn install(mut self) -> Result<Installed, Error> {
        let ours = &self.region.shared.actions.ours;
        ours.handler
            .store(self.region.base.wrapping_add(self.image.handler), Relaxed);
        ours.restorer
            .store(self.region.base.wrapping_add(self.image.restorer), Relaxed);
        ours.flags.store(FLAGS, Relaxed);
        ours.mask.store(MASK, Relaxed);
        self.region.shared.config.enabled.store(1, Release);

        let mut candidates = State::read(&self.process)
            .free_signals(matches!(self.plan.runtime, Runtime::Go(_)))
            .into_iter();
        let mut candidate = candidates.next();
        let installed = borrow(&self.process, &self.plan, |thread| {
            if !self.region.is_there(&self.process) {
                let pid = self.process.pid;
                return Err(Error::Replaced { pid }.into());
            }
            while let Some(signal) = candidate {
                if try_install(&self, thread, signal)? {
                    return Ok((signal, thread.filters()));
                }
                candidate = candidates.next();
            }
            Err(Error::refused(self.process.pid, preflight::no_signal()).into())
        });
        match installed {
            Ok(((signal, filters), stopped)) => {
                self.longest_stop = self.longest_stop.max(stopped);
                Ok(Installed {
                    mapped: self,
                    signal,
                    filters,
                })
            }
            Err(error) => {
                let _ = take_out(&self.process, &self.plan, &self.region, 0, Some(0));
                Err(error)
            }
        }
    }
}

/// Installs the handler for `signal`, unless somebody uses it.
fn try_install(mapped: &Mapped, thread: &mut Borrowed<'_>, signal: u32) -> Result<bool, Fault> {
    let Actions {
        ours,
        previous,
        found,
    } = &mapped.region.shared.actions;
    sigaction(thread, &mapped.region, signal, None)?;
    let handler = found.handler.load(Relaxed);
    if handler == ours.handler.load(Relaxed) {
        // We were interrupted before we could give back what had come in between: signals are passed on to that.
        return Ok(true);
    }
    let is_default = handler == 0;
    if !is_default && !mapped.plan.is_runtimes(Avma(handler)) {
        return Ok(false);
    }
    copy(found, previous);
    mapped.region.shared.config.signal.store(signal.into(), Relaxed);
    sigaction(thread, &mapped.region, signal, Some(ours))?;
    if is_same(found, previous) {
        return Ok(true);
    }
    // Somebody came in between: it is theirs.
    copy(found, previous);
    sigaction(thread, &mapped.region, signal, Some(previous))?;
    mapped.region.shared.config.signal.store(0, Relaxed);
    Ok(false)
}

/// Calls rt_sigaction(2); what was the disposition is in [`Actions::found`]. `new` is part of the same memory.
pub(super) fn sigaction(
    thread: &mut Borrowed<'_>,
    region: &Region,
    signal: u32,
    new: Option<&Action>,
) -> Result<(), Fault> {
    let in_target = |part: &Action| {
        let offset = (&raw const *part)
            .addr()
            .wrapping_sub((&raw const *region.shared).addr());
        region.shared_at.wrapping_add(offset as u64)
    };
    let (new, old) = (new.map_or(0, in_target), in_target(&region.shared.actions.found));
    thread
        .call(Call::RtSigaction, [signal.into(), new, old, SIGSET, 0, 0])
        .map(|_| ())
}

fn copy(from: &Action, to: &Action) {
    to.handler.store(from.handler.load(Relaxed), Relaxed);
    to.flags.store(from.flags.load(Relaxed), Relaxed);
    to.restorer.store(from.restorer.load(Relaxed), Relaxed);
    to.mask.store(from.mask.load(Relaxed), Relaxed);
}

fn is_same(a: &Action, b: &Action) -> bool {
    a.handler.load(Relaxed) == b.handler.load(Relaxed) && a.flags.load(Relaxed) == b.flags.load(Relaxed)
}

impl Installed {
    /// The signal that the process answers.
    pub fn signal(&self) -> u32 {
        self.signal
    }

    /// How many filters of system calls a thread had of which it is certain that it may return from the handler.
    pub fn filters(&self) -> u32 {
        self.filters
    }

    /// Whether hooks may be called. While they may not, the handler returns at once.
    pub fn enable(&self, enabled: bool) {
        self.mapped
            .region
            .shared
            .config
            .enabled
            .store(enabled.into(), Release);
    }

    /// Takes the answers that are there.
    pub fn answers(&self) -> Vec<super::Answer> {
        answer::take(&self.mapped.region.shared)
    }

    /// Address of the handler.
    pub fn handler(&self) -> u64 {
        self.mapped.region.shared.actions.ours.handler.load(Relaxed)
    }

    /// The threads that are in the handler.
    pub fn inside(&self) -> Vec<Inside> {
        rescue::inside(&self.mapped.region)
    }

    /// Takes a thread out of the hook that it is in: it goes on where it was sampled. Hooks must not be enabled. False if
    /// it is not in a hook any more, or not for certain.
    ///
    /// # Errors
    /// It may not be traced.
    pub fn rescue(&self, inside: Inside) -> Result<bool, Error> {
        rescue::rescue(&self.mapped.process, &self.mapped.region, inside)
    }

    /// How many signals have reached the handler, those of others left out.
    pub fn entered(&self) -> u64 {
        self.mapped.region.shared.counters.entered.load(Relaxed)
    }

    /// How many signals found no room for their answer: answers were not fetched in time.
    pub fn without_room(&self) -> u64 {
        self.mapped.region.shared.counters.no_slot.load(Relaxed)
    }

    /// How many signals of others were passed on.
    pub fn passed_on(&self) -> u64 {
        self.mapped.region.shared.counters.passed_on.load(Relaxed)
    }

    /// The longest time that a thread has been stopped.
    pub fn longest_stop(&self) -> Duration {
        self.mapped.longest_stop
    }

    /// Restores the disposition and takes the helper out. `sent` is how many signals were sent, if that is known: only
    /// then it is certain that none is on its way into the handler.
    ///
    /// No signals may be sent any more.
    ///
    /// # Errors
    /// No thread could be borrowed: everything is left in place, does nothing, and is removed by the next run.
    pub fn leave(self, sent: Option<u64>) -> Result<Left, Error> {
        let Mapped {
            process,
            plan,
            region,
            longest_stop,
            ..
        } = &self.mapped;
        let left = take_out(process, plan, region, self.signal, sent)?;
        Ok(Left {
            longest_stop: left.longest_stop.max(*longest_stop),
            ..left
        })
    }
}
