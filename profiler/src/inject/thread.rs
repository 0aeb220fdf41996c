//! Borrowing a thread of the target to make system calls.
//!
//! Which threads may be borrowed, and how they make a call that harms nobody should we die in the middle of it, depends
//! on who has registered the hooks: [`idle_m`] in a Go program, [`detour`] in others. No byte of code is changed, and no
//! byte of data that is in use.

mod detour;
mod idle_m;

use super::error::Error;
use super::filter::{Filter, Filters, SystemCall, Verdict};
use super::plan::{Plan, Runtime};
use super::sys;
use crate::target::calls::SystemCalls;
use crate::target::preflight::{self, Condition, waits_in};
use crate::target::process::{Process, Task};
use crate::target::status::Status;
use crate::target::waiting;
use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// `syscall`.
pub(super) const SYSCALL_INSTRUCTION: [u8; 2] = [0x0f, 0x05];
/// `orig_rax` of a thread that is not in a system call: the kernel then restarts none.
pub(super) const NO_CALL: u64 = u64::MAX;
/// `-ERESTARTSYS` to `-ERESTART_RESTARTBLOCK` (include/linux/errno.h).
const RESTARTED_FIRST: i64 = -512;
const RESTARTED_LAST: i64 = -516;
/// Number of rt_sigreturn(2) on x86-64.
const SIGRETURN: u64 = 15;
/// How threads are traced: stops at system calls say what they are.
pub(super) const TRACED: Options = Options::PTRACE_O_TRACESYSGOOD;
/// `PTRACE_O_SUSPEND_SECCOMP` (include/uapi/linux/ptrace.h): no filters of system calls for as long as it is traced. For
/// tracers with CAP_SYS_ADMIN that have no filters themselves, in kernels with `CONFIG_CHECKPOINT_RESTORE`.
pub(super) const SUSPEND_SECCOMP: Options = Options::from_bits_retain(1 << 21);
/// wait4(2): children and tracees that were cloned, too.
pub(super) const WALL: u32 = 0x4000_0000;
/// `PTRACE_EVENT_STOP`.
const EVENT_STOP: i32 = 128;
/// After how long a thread makes no more calls for us: the scheduler may wait for it.
const LONG: Duration = Duration::from_millis(2);
/// How many calls it makes however long that takes: those that have to follow each other.
const AT_LEAST: u32 = 2;

/// Why a borrowed thread cannot be used for more calls.
#[derive(Debug)]
pub(super) enum Fault {
    /// A signal came for it, which it has been let go to handle, or it has been stopped for long: borrow again.
    Interrupted,
    /// It is not what we look for.
    Unfit,
    /// Its filters of system calls are in the way. Other threads may have others.
    Filtered(Condition),
    /// All is over.
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Fault {
    /// How filters of system calls are in the way, if they are.
    pub(super) fn filtered(self) -> Option<Condition> {
        match self {
            Self::Filtered(condition) => Some(condition),
            Self::Interrupted | Self::Unfit | Self::Failed(_) => None,
        }
    }
}

/// A thread that we trace and have stopped. Dropping it lets it go on as if nothing had happened.
#[derive(Debug)]
pub(super) struct Seized<'p> {
    process: &'p Process,
    tid: u32,
    since: Instant,
    /// Whether its filters of system calls are suspended as long as we trace it. Should we die they are not any more.
    is_unfiltered: bool,
    /// ptrace(2) knows a tracer by its thread.
    _this_thread: PhantomData<*const ()>,
}

/// What a wait brought.
enum Stop {
    /// On our request, or a stop of the whole process.
    Event(i32),
    /// Before or after a system call.
    Call,
    /// Before this signal is delivered.
    Signal(i32),
}

impl<'p> Seized<'p> {
    /// Stops thread `tid`. PTRACE_SEIZE changes nothing in it; and without PTRACE_O_EXITKILL it goes on should we die.
    pub(super) fn stop(process: &'p Process, tid: u32) -> Result<Self, Fault> {
        let since = Instant::now();
        let id = pid(tid);
        let unfiltered = ptrace::seize(id, TRACED | SUSPEND_SECCOMP);
        // Not everybody may do that, and not every kernel can.
        let seized = unfiltered.or_else(|_| ptrace::seize(id, TRACED));
        match seized {
            Ok(()) => step(),
            Err(Errno::EPERM) if may_be_traced(process, tid) => {
                let condition = preflight::not_permitted("the system does not let us trace it");
                return Err(Error::refused(process.pid, condition).into());
            }
            // It has ended, or another tracer came first: others are left.
            Err(_) => return Err(Fault::Unfit),
        }
        let seized = Self {
            process,
            tid,
            since,
            is_unfiltered: unfiltered.is_ok(),
            _this_thread: PhantomData,
        };
        seized.request(ptrace::interrupt(pid(tid)))?;
        match seized.wait()? {
            Stop::Event(signal) if signal == nix::libc::SIGTRAP => Ok(seized),
            Stop::Event(_) => Err(seized.stopped()),
            Stop::Signal(signal) => Err(seized.pass_on(signal)),
            Stop::Call => Err(Fault::Unfit),
        }
    }

    /// Makes sure that the thread may be borrowed.
    pub(super) fn borrow(self, plan: &Plan) -> Result<Borrowed<'p>, Fault> {
        let status = self.process.status(self.tid).ok_or(Fault::Unfit)?;
        let filters = self.filters(&status)?;
        match &plan.runtime {
            Runtime::Go(go) => self.borrow_idle_m(go, filters),
            Runtime::Table(calls) => self.borrow_for_detours(calls, &status, filters),
        }
    }

    /// The filters of its system calls, if it may return from signal handlers: the end of ours is that call, and so is the
    /// way back from a detour.
    fn filters(&self, status: &Status) -> Result<Filters, Fault> {
        if status.seccomp == 0 {
            return Ok(Filters::default());
        }
        let mut filters = Vec::new();
        let unseen = |error| {
            Fault::Filtered(preflight::filtered(format!(
                "its filters cannot be seen: {error}"
            )))
        };
        while let Some(program) = sys::seccomp_filter(self.tid, filters.len() as u64).map_err(unseen)? {
            filters.push(Filter::parse(&program));
        }
        let filters = Filters::new(filters);
        let call = SystemCall {
            number: SIGRETURN,
            arguments: [0; 6],
            pc: 0,
        };
        match filters.judge(&call).objection() {
            None => Ok(filters),
            Some(how) => Err(filtered(how, "rt_sigreturn")),
        }
    }

    /// Somebody has stopped the process.
    fn stopped(&self) -> Fault {
        Error::refused(self.process.pid, preflight::stopped(self.tid)).into()
    }

    /// Lets the thread go, to handle `signal`.
    fn pass_on(self, signal: i32) -> Fault {
        let _ = sys::detach(self.tid, signal);
        step();
        std::mem::forget(self);
        Fault::Interrupted
    }

    /// Waits for the next stop. It comes at once, as the thread sleeps in the kernel or is about to make a short system
    /// call. Blocking: on a busy machine, looking again and again would make the stop longer.
    fn wait(&self) -> Result<Stop, Fault> {
        let tid = rustix::process::Pid::from_raw(self.tid.cast_signed());
        loop {
            match waitpid(tid, WaitOptions::from_bits_retain(WALL)) {
                Ok(Some((_, status))) => {
                    let Some(signal) = status.stopping_signal() else {
                        // It has ended; its successors, if any, can be borrowed.
                        return Err(Fault::Unfit);
                    };
                    step();
                    return Ok(match status.as_raw() >> 16 {
                        EVENT_STOP => Stop::Event(signal),
                        0 if signal == nix::libc::SIGTRAP | 0x80 => Stop::Call,
                        _ => Stop::Signal(signal),
                    });
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Fault::Unfit),
            }
        }
    }

    fn request<T>(&self, result: nix::Result<T>) -> Result<T, Fault> {
        step();
        result.map_err(|errno| match errno {
            // Killed, or its process has executed another program.
            Errno::ESRCH => Fault::Unfit,
            errno => Error::Access {
                pid: self.process.pid,
                what: "trace a thread",
                source: errno.into(),
            }
            .into(),
        })
    }

    fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, Fault> {
        // Unreadable memory is that of a process that ends, or is not what we take it for.
        self.process.memory(address, len).or(Err(Fault::Unfit))
    }

    fn word(&self, address: u64) -> Result<u64, Fault> {
        let bytes = self.read(address, 8)?;
        Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let path = format!("/proc/{}/mem", self.process.pid);
        let memory = File::options().write(true).open(path);
        let written = memory.and_then(|memory| memory.write_all_at(bytes, address));
        step();
        let failed = |source| Error::Access {
            pid: self.process.pid,
            what: "write to the stack of a thread",
            source,
        };
        written.map_err(|source| failed(source).into())
    }
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        // A thread that has ended needs no detaching, and one that runs is let go when our own thread ends.
        let _ = sys::detach(self.tid, 0);
        step();
    }
}

/// A thread of the target that makes system calls for us. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Borrowed<'p> {
    thread: Seized<'p>,
    /// As it was when it was stopped.
    regs: user_regs_struct,
    /// As it goes on, when it has made a call.
    after: user_regs_struct,
    /// As it goes on with a signal, likewise.
    after_signal: user_regs_struct,
    /// What makes the calls: the address of a `syscall` instruction and the stack pointer for what follows it.
    call: (u64, u64),
    /// Where [`Self::SCRATCH`] bytes are of no use to anybody.
    scratch: u64,
    is_changed: bool,
    /// What may become of its calls.
    filters: Filters,
    /// How many calls it has made.
    calls: u32,
}

impl Borrowed<'_> {
    /// How many bytes can be put into its memory.
    const SCRATCH: u64 = 512;

    /// Makes the thread call the kernel. The result is as the kernel returned it: an error is between -4095 and -1.
    fn call_raw(&mut self, number: u64, arguments: [u64; 6]) -> Result<u64, Fault> {
        let mut regs = self.regs;
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) = (rdi, rsi, rdx, r10, r8, r9);
        (regs.rip, regs.rsp) = self.call;
        (regs.rax, regs.orig_rax) = (number, NO_CALL);
        self.is_changed = true;
        let id = pid(self.thread.tid);
        self.thread.request(ptrace::setregs(id, regs))?;
        // To the entry of the call, and to its exit.
        for _ in 0..2 {
            self.thread.request(ptrace::syscall(id, None))?;
            match self.thread.wait()? {
                Stop::Call => {}
                // Signals come before the entry only: our call has not been made.
                Stop::Signal(signal) => return Err(self.pass_on(signal)),
                Stop::Event(_) => return Err(self.thread.stopped()),
            }
        }
        Ok(self.thread.request(ptrace::getregs(id))?.rax)
    }

    /// Makes the thread call the kernel.
    pub(super) fn call(&mut self, call: Call, arguments: [u64; 6]) -> Result<u64, Fault> {
        if self.calls >= AT_LEAST && self.stopped() > LONG {
            self.give_back(self.after);
            return Err(Fault::Interrupted);
        }
        self.calls += 1;
        let (name, number) = call.name_and_number();
        self.pass_filters(name, number, arguments)?;
        let result = self.call_raw(number, arguments)?;
        match result.cast_signed() {
            // A signal came before the call had done anything; the kernel would begin it again.
            RESTARTED_LAST..=RESTARTED_FIRST => {
                self.give_back(self.after);
                Err(Fault::Interrupted)
            }
            error @ -4095..=-1 => Err(Fault::Failed(Error::Call {
                pid: self.thread.process.pid,
                call: name,
                source: io::Error::from_raw_os_error(-error as i32),
            })),
            _ => Ok(result),
        }
    }

    /// Makes sure that a call is made, and that nothing happens but that it fails should we die before it is made.
    fn pass_filters(&self, name: &str, number: u64, arguments: [u64; 6]) -> Result<(), Fault> {
        let pc = self.call.0.wrapping_add(SYSCALL_INSTRUCTION.len() as u64);
        let call = SystemCall {
            number,
            arguments,
            pc,
        };
        match self.filters.judge(&call) {
            Verdict::Refused if self.thread.is_unfiltered => Ok(()),
            verdict => match verdict.objection() {
                None => Ok(()),
                Some(how) => Err(filtered(how, name)),
            },
        }
    }

    /// How many filters of system calls it has, with which it may return from signal handlers.
    pub(super) fn filters(&self) -> u32 {
        self.filters.len() as u32
    }

    /// Puts bytes into memory that nobody uses; returns their address. Only good for calls
    /// that follow at once.
    pub(super) fn scratch(&mut self, bytes: &[u8]) -> Result<u64, Fault> {
        debug_assert!(bytes.len() as u64 <= Self::SCRATCH);
        self.thread.write(self.scratch, bytes)?;
        Ok(self.scratch)
    }

    /// The code that follows its system call.
    pub(super) fn code_after_call(&self, len: usize) -> Result<Vec<u8>, Fault> {
        self.thread.read(self.regs.rip, len)
    }

    /// A stack for a copy of it that nobody holds; see [`detour::stack_to_exit`].
    pub(super) fn stack_to_exit(&self, calls: &SystemCalls, code: u32) -> Vec<u8> {
        detour::stack_to_exit(calls, &self.regs, code)
    }

    /// How long the thread has been stopped.
    pub(super) fn stopped(&self) -> Duration {
        self.thread.since.elapsed()
    }

    /// Makes it go on from here.
    fn give_back(&mut self, regs: user_regs_struct) {
        if std::mem::take(&mut self.is_changed) {
            // If the thread is no more, there is nothing to restore.
            let _ = ptrace::setregs(pid(self.thread.tid), regs);
            step();
        }
    }

    fn pass_on(&mut self, signal: i32) -> Fault {
        self.give_back(self.after_signal);
        let _ = sys::detach(self.thread.tid, signal);
        step();
        Fault::Interrupted
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.give_back(self.after);
    }
}

/// A filter of system calls does something about one.
fn filtered(how: &str, call: &str) -> Fault {
    Fault::Filtered(preflight::filtered(format!(
        "a filter of its system calls {how} {call}"
    )))
}

/// The system calls that are made in the target.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Close,
    Mmap,
    Munmap,
    MemfdCreate,
    RtSigaction,
    Clone,
    Wait4,
}

impl Call {
    /// By arch/x86/entry/syscalls/syscall_64.tbl.
    fn name_and_number(self) -> (&'static str, u64) {
        match self {
            Self::Close => ("close", 3),
            Self::Mmap => ("mmap", 9),
            Self::Munmap => ("munmap", 11),
            Self::RtSigaction => ("rt_sigaction", 13),
            Self::Clone => ("clone", 56),
            Self::Wait4 => ("wait4", 61),
            Self::MemfdCreate => ("memfd_create", 319),
        }
    }
}

/// The threads that may be fit to be borrowed, the best first. Looking only, and at those of Go each when it is its turn: in a
/// process with many threads one may have found work by the time that all have been looked at.
pub(super) fn candidates<'a>(process: &'a Process, plan: &'a Plan) -> Box<dyn Iterator<Item = u32> + 'a> {
    let tasks = process.tids().into_iter().filter_map(|tid| process.task(tid));
    // One of a frozen cgroup would not stop.
    let tasks = tasks.filter(|task| !task.status.is_uninterruptible());
    match &plan.runtime {
        Runtime::Go(go) => {
            // A thread that is reserved for a goroutine waits in the same way; there may be many, to be stopped for nothing.
            let idle = idle_m::ids(process, go);
            let may_be_idle = move |task: &Task| {
                idle.as_ref()
                    .is_none_or(|idle| idle.contains(&task.status.id_inside.into()))
            };
            Box::new(
                tasks
                    .filter(move |task| waits_in(task, &go.futex) && may_be_idle(task))
                    .map(|task| task.tid),
            )
        }
        Runtime::Table(_) => {
            let tasks: Vec<_> = tasks.collect();
            Box::new(waiting::candidates(process, tasks.iter()).into_iter())
        }
    }
}

/// Whether nothing is in the way of tracing a thread but permission: it has not ended, and nobody traces it.
fn may_be_traced(process: &Process, tid: u32) -> bool {
    let status = process.status(tid);
    status.is_some_and(|status| !status.has_ended() && status.tracer == 0)
}

pub(super) fn pid(tid: u32) -> Pid {
    Pid::from_raw(tid.cast_signed())
}

/// A point at which we may die. Tests make us.
#[cfg(not(test))]
pub(super) fn step() {}

#[cfg(test)]
pub(super) use super::tests::step;
