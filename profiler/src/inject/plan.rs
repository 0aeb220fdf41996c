//! What has to be known of a process before its hooks can be honoured.

use crate::addr::{Avma, Bias};
use crate::target::calls::SystemCalls;
use crate::target::go::Layout;
use crate::target::go::threads::Threads;
use profiler_helper::shared::Config;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What has to be known. Addresses are the process's.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Address of the variable that points to the traceback function once there is one.
    pub traceback: Avma,
    /// Address of the variable that points to the symbolizer function once there is one.
    pub symbolizer: Avma,
    /// Address of libc's function `__errno_location`, if the process has it.
    pub errno_location: Option<Avma>,
    /// Which signals are ours.
    pub accept: Accept,
    /// Who has registered the hooks.
    pub runtime: Runtime,
}

/// Who has registered hooks, and so, on which terms they are called and which thread makes system calls for us.
#[derive(Clone, Debug)]
pub enum Runtime {
    /// A Go program, with `runtime.SetCgoTraceback`.
    Go(Box<GoPlan>),
    /// Another program, with a table ([`crate::hooks::table`]). It has this code.
    Table(SystemCalls),
}

/// What has to be known of a Go runtime. Offsets are in bytes.
#[derive(Clone, Debug)]
pub struct GoPlan {
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
    /// Address of the function `runtime.exit`, which ends the process that calls it.
    pub exit: Avma,
    /// Address of the variable `_cgo_callers`, which points to `x_cgo_callers`.
    pub callers: Avma,
    /// Address of the function `x_cgo_call_traceback_function`; Go 1.26 and later have it.
    pub call_traceback: Option<Avma>,
    /// The functions that Go installs as signal handlers: `runtime.cgoSigtramp` and `runtime.sigtramp`.
    pub signal_handlers: Vec<Avma>,
    /// Address of the function `runtime.asyncPreempt`.
    pub async_preempt: Option<Avma>,
    /// The list of the runtime's threads, if it was found, and by how much the program is shifted.
    pub threads: Option<(Threads, Bias)>,
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
    pub(super) fn write_to(&self, config: &Config) {
        config
            .si_code
            .store(u64::from(self.accept.si_code.cast_unsigned()), Relaxed);
        config.cookie_mask.store(self.accept.cookie_mask, Relaxed);
        config
            .cookie_magic
            .store(self.accept.cookie & self.accept.cookie_mask, Relaxed);
        config.traceback.store(self.traceback.0, Relaxed);
        optional(&config.errno_location, self.errno_location);
        if let Runtime::Go(go) = &self.runtime {
            go.write_to(config);
        }
    }

    /// Whether `handler` is one that the runtime installs for all signals, and that does nothing about most.
    pub(super) fn is_runtimes(&self, handler: Avma) -> bool {
        matches!(&self.runtime, Runtime::Go(go) if go.signal_handlers.contains(&handler))
    }
}

impl GoPlan {
    fn write_to(&self, config: &Config) {
        let offset = |word: &AtomicU64, value: u32| word.store(value.into(), Relaxed);
        config.callers.store(self.callers.0, Relaxed);
        optional(&config.call_traceback, self.call_traceback);
        config.go.store(1, Relaxed);
        config.tls_g.store(self.tls_g.cast_unsigned(), Relaxed);
        offset(&config.g_m, self.layout.g_m);
        offset(&config.g_syscallsp, self.layout.g_syscallsp);
        offset(&config.g_cgo_ctxt, self.layout.g_cgo_ctxt);
        offset(&config.m_curg, self.layout.m_curg);
        offset(&config.m_ncgo, self.layout.m_ncgo);
        offset(&config.m_cgo_callers_use, self.layout.m_cgo_callers_use);
        offset(&config.m_procid, self.m_procid);
        optional(&config.async_preempt, self.async_preempt);
    }
}

fn optional(word: &AtomicU64, address: Option<Avma>) {
    word.store(address.map_or(0, |address| address.0), Relaxed);
}
