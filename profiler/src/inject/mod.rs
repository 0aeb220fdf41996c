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
mod image;
mod install;
mod leave;
mod leftovers;
mod map;
mod rescue;
pub mod snapshot;
mod sys;
mod thread;

#[cfg(test)]
mod tests;

pub use answer::{Answer, ContextAnswer};
pub use error::{Error, Failing};
pub use install::Installed;
pub use leave::{Disposition, Left, Mapping};
pub use map::Mapped;
pub use rescue::Inside;

use crate::addr::{Avma, Bias};
use crate::target::go::Layout;
use crate::target::go::threads::Threads;
use crate::target::preflight::{self, Outcome, State};
use crate::target::process::Process;
use profiler_helper::shared::Config;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use thread::{Borrowed, Fault, Seized};

/// What has to be known of a process before its hooks can be honoured. Addresses are the process's, offsets in bytes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The code of `runtime.futex`.
    pub futex: Range<Avma>,
    /// Address of g relative to the thread pointer.
    pub tls_g: i64,
    /// Where fields of g and m are.
    pub layout: Layout,
    /// `g.stack.lo`.
    pub g_stack_lo: u32,
    /// `m.procid`.
    pub m_procid: u32,
    /// `m.lockedg`.
    pub m_lockedg: u32,
    /// Address of the variable `runtime.cgoTraceback`, which points to the traceback function once there is one.
    pub traceback: Avma,
    /// Address of the variable `runtime.cgoSymbolizer`, which points to the symbolizer function once there is one.
    pub symbolizer: Avma,
    /// Address of the function `runtime.exit`, which ends the process that calls it.
    pub exit: Avma,
    /// Address of the variable `_cgo_callers`, which points to `x_cgo_callers`.
    pub callers: Avma,
    /// Address of the function `x_cgo_call_traceback_function`; Go 1.26 and later have it.
    pub call_traceback: Option<Avma>,
    /// Address of libc's function `__errno_location`, if the process has it.
    pub errno_location: Option<Avma>,
    /// The functions that Go installs as signal handlers: `runtime.cgoSigtramp` and `runtime.sigtramp`.
    pub go_handlers: Vec<Avma>,
    /// Address of the function `runtime.asyncPreempt`.
    pub async_preempt: Option<Avma>,
    /// The list of the runtime's threads, if it was found, and by how much the program is shifted.
    pub threads: Option<(Threads, Bias)>,
    /// Which signals are ours.
    pub accept: Accept,
}

/// Which signals the handler takes for ours; it passes all others on to the handler before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// `si_code`.
    pub si_code: i32,
    /// The bits of `si_value` that are the same in all of ours; 0: none.
    pub cookie_mask: u64,
    /// Their value.
    pub cookie: u64,
}

impl Accept {
    /// Signals that the kernel sent, as `bpf_send_signal_thread` makes it: no process can.
    pub const KERNEL: Self = Self {
        si_code: 0x80,
        cookie_mask: 0,
        cookie: 0,
    };
}

impl Plan {
    fn write_to(&self, config: &Config) {
        let offset = |word: &std::sync::atomic::AtomicU64, value: u32| word.store(value.into(), Relaxed);
        config
            .si_code
            .store(u64::from(self.accept.si_code.cast_unsigned()), Relaxed);
        config.cookie_mask.store(self.accept.cookie_mask, Relaxed);
        config
            .cookie_magic
            .store(self.accept.cookie & self.accept.cookie_mask, Relaxed);
        config.traceback.store(self.traceback.0, Relaxed);
        config.callers.store(self.callers.0, Relaxed);
        config
            .call_traceback
            .store(self.call_traceback.map_or(0, |address| address.0), Relaxed);
        config
            .errno_location
            .store(self.errno_location.map_or(0, |address| address.0), Relaxed);
        config.go.store(1, Relaxed);
        config.tls_g.store(self.tls_g.cast_unsigned(), Relaxed);
        offset(&config.g_m, self.layout.g_m);
        offset(&config.g_syscallsp, self.layout.g_syscallsp);
        offset(&config.g_cgo_ctxt, self.layout.g_cgo_ctxt);
        offset(&config.m_curg, self.layout.m_curg);
        offset(&config.m_ncgo, self.layout.m_ncgo);
        offset(&config.m_cgo_callers_use, self.layout.m_cgo_callers_use);
        offset(&config.m_procid, self.m_procid);
        config
            .async_preempt
            .store(self.async_preempt.map_or(0, |address| address.0), Relaxed);
    }
}

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
    while start.elapsed() < PATIENCE {
        let state = State::read(process);
        if state.has_ended() {
            return Err(Error::Gone { pid });
        }
        let no_seccomp = state.no_seccomp();
        if no_seccomp.outcome == Outcome::Fails {
            return Err(Error::refused(pid, no_seccomp));
        }
        for tid in thread::idle(process, plan) {
            let mut borrowed = match Seized::stop(process, tid).and_then(|seized| seized.borrow(plan)) {
                Ok(borrowed) => borrowed,
                Err(Fault::Failed(error)) => return Err(error),
                Err(_) => continue,
            };
            let result = work(&mut borrowed);
            longest = longest.max(borrowed.stopped());
            drop(borrowed);
            match result {
                Ok(value) => return Ok((value, longest)),
                Err(Fault::Failed(error)) => return Err(error),
                Err(_) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::refused(pid, preflight::no_idle_thread(PATIENCE)))
}
