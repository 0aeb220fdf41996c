//! In a Go program: a thread that waits for work in Go's scheduler, in the FUTEX_WAIT of `runtime.futex`, on its system
//! stack, with no goroutine and no callback beneath.
//!
//! It holds no lock, and its wait may end for no reason: Go looks at its
//! condition again. `runtime.futex` is assembly of Go's oldest calling convention, in which a caller expects nothing of
//! any register but the stack and frame pointers (runtime/sys_linux_amd64.s and runtime/os_linux.go, `futexsleep`, Go
//! 1.21–1.27). So whatever system call its own `syscall` instruction makes instead, and whenever we die in between, all
//! that happens to the thread is that it wakes up too early.

use super::{Borrowed, Fault, NO_CALL, SYSCALL_INSTRUCTION, Seized, pid};
use crate::inject::filter::Filters;
use crate::inject::plan::GoPlan;
use crate::target::go::threads::Thread;
use crate::target::process::Process;
use nix::sys::ptrace;
use std::collections::HashSet;

/// futex(2) on x86-64.
const SYS_FUTEX: u64 = 202;
/// `FUTEX_WAIT`, which is 0, without the flag `FUTEX_PRIVATE_FLAG`.
const FUTEX_OPERATION: u64 = 0x7f;

impl<'p> Seized<'p> {
    /// Makes sure that the thread waits for work in the scheduler.
    pub(super) fn borrow_idle_m(self, plan: &GoPlan, filters: Filters) -> Result<Borrowed<'p>, Fault> {
        let regs = self.request(ptrace::getregs(pid(self.tid)))?;
        let call = regs.rip.wrapping_sub(SYSCALL_INSTRUCTION.len() as u64);
        let is_wait = regs.orig_rax == SYS_FUTEX && regs.rsi & FUTEX_OPERATION == 0;
        let in_futex = plan.futex.start.0 <= call && regs.rip < plan.futex.end.0;
        if !is_wait || !in_futex || self.read(call, 2)? != SYSCALL_INSTRUCTION {
            return Err(Fault::Unfit);
        }
        let layout = &plan.layout;
        let word = |base: u64, offset: u32| self.word(base.wrapping_add(offset.into()));
        let g = self.word(regs.fs_base.wrapping_add_signed(plan.tls_g))?;
        if g == 0 {
            return Err(Fault::Unfit);
        }
        let m = word(g, layout.g_m)?;
        if m == 0 {
            return Err(Fault::Unfit);
        }
        let low = word(g, plan.g_stack_lo)?;
        let high = word(g, layout.g_stack_hi)?;
        let is_idle = word(m, layout.m_g0)? == g
            && word(m, layout.m_curg)? == 0
            && word(m, plan.m_lockedg)? == 0
            && word(m, layout.m_ncgo)? as u32 == 0
            && word(m, plan.m_procid)? != 0;
        // Below the stack pointer there has to be room for a name.
        let has_room = low
            .checked_add(2 * Borrowed::SCRATCH)
            .is_some_and(|low| low < regs.rsp)
            && regs.rsp < high;
        if is_idle && has_room {
            // As a signal ends it: FUTEX_WAIT returns EINTR.
            let mut after = regs;
            after.rax = (-nix::libc::EINTR as i64).cast_unsigned();
            after.orig_rax = NO_CALL;
            Ok(Borrowed {
                thread: self,
                regs,
                after,
                after_signal: after,
                call: (call, regs.rsp),
                scratch: regs.rsp.wrapping_sub(Borrowed::SCRATCH),
                is_changed: false,
                filters,
                calls: 0,
            })
        } else {
            Err(Fault::Unfit)
        }
    }
}

/// The threads with nothing to do, by the ids that the process knows, as the Go runtime has them at this moment; `None` if
/// that cannot be read.
pub(super) fn ids(process: &Process, go: &GoPlan) -> Option<HashSet<u64>> {
    let (threads, bias) = go.threads?;
    let threads = threads.read(bias, &|address, len| process.memory(address.0, len));
    let idle = threads.ok()?.into_iter().filter(Thread::is_idle);
    Some(idle.map(|thread| thread.tid).collect())
}
