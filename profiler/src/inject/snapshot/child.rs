//! The copy of the process: ours to use, and gone with us.

use super::deadline::Watchdog;
use super::sandbox;
use crate::addr::Avma;
use crate::hooks::symbolizer::{ArgumentBlock, Memory};
use crate::inject::error::Error;
use crate::inject::install::MASK;
use crate::inject::sys;
use crate::inject::thread::{NO_CALL, SUSPEND_SECCOMP, SYSCALL_INSTRUCTION, TRACED, WALL, pid, step};
use crate::target::process::Process;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use rustix::fd::OwnedFd;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal, wait, waitpid,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use zerocopy::{FromBytes, IntoBytes};

/// wait4(2): children and tracees of this thread only.
const NOTHREAD: u32 = 0x2000_0000;
/// The stack that the symbolizer gets, in bytes: what a main thread has. The memory is not there before it is used.
const STACK: u64 = 8 << 20;
/// Nothing can be done in the page below it: a stack that grows too large ends there, and so does the symbolizer when it
/// returns.
const GUARD: u64 = 4096;
/// Where in the stack, from its end, the block is, and the return address.
const BLOCK: u64 = 64;
const RETURN: u64 = 128 + 8;
/// The direction and trap flags, of which the ABI says that the first is clear.
const DF_AND_TF: u64 = 0x400 | 0x100;

/// How it is traced.
const HELD: Options = TRACED.union(Options::PTRACE_O_EXITKILL);

const PROT_NONE: u64 = 0;
const PROT_READ_WRITE: u64 = 1 | 2;
/// `MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE`.
const MAP_FLAGS: u64 = 0x02 | 0x20 | 0x4000;

/// A snapshot. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Child<'p> {
    /// The process that it is a copy of.
    process: &'p Process,
    /// Its id as we see it.
    tid: u32,
    /// Its id as the process sees it.
    inner: u32,
    pidfd: OwnedFd,
    memory: ChildMemory,
    /// As it was born, in `runtime.futex` behind the system call.
    regs: user_regs_struct,
    /// The page below the stack that the symbolizer gets.
    guard: u64,
    watchdog: Watchdog,
    is_dead: bool,
}

/// How a call of the symbolizer ended.
pub(super) enum Ended {
    /// It returned and left this.
    Returned(ArgumentBlock),
    /// It crashed, ended the process, or took too long: the snapshot is of no use any more.
    Broken,
}

/// What a wait brought.
enum Stop {
    Signal(i32),
    Call,
    Event,
    Dead,
}

impl<'p> Child<'p> {
    /// The child that a thread of the process, our tracee until then, has cloned, and which the process calls `inner`.
    pub(super) fn born(process: &'p Process, inner: u32) -> Result<Self, Error> {
        const WHAT: &str = "hold a snapshot";
        // It is all that this thread traces. In a PID namespace the process has another name for it than we.
        let options = WaitOptions::from_bits_retain(WALL | NOTHREAD);
        let child = loop {
            match wait(options) {
                Ok(Some((id, status))) if status.stopping_signal().is_some() => break id,
                Ok(Some(_)) => return Err(error(process, WHAT, io::Error::other("it was killed"))),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(error(process, WHAT, errno.into())),
            }
        };
        step();
        let tid = child.as_raw_pid().cast_unsigned();
        let failed = |source| error(process, WHAT, source);
        // From here on it does not outlive us. Its filters of system calls, which it has from the process, are not for us.
        let unfiltered = ptrace::setoptions(pid(tid), HELD | SUSPEND_SECCOMP);
        unfiltered
            .or_else(|_| ptrace::setoptions(pid(tid), HELD))
            .map_err(|errno| failed(errno.into()))?;
        step();
        let pidfd = pidfd_open(child, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let regs = ptrace::getregs(pid(tid)).map_err(|errno| failed(errno.into()))?;
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{tid}/mem"))
            .map_err(failed)?;
        let watchdog = Watchdog::start(tid, &pidfd).map_err(failed)?;
        Ok(Self {
            process,
            tid,
            inner,
            pidfd,
            memory: ChildMemory(memory),
            regs,
            guard: 0,
            watchdog,
            is_dead: false,
        })
    }

    /// Its id, as we see it.
    pub(super) fn tid(&self) -> u32 {
        self.tid
    }

    /// Its memory.
    pub(super) fn memory(&mut self) -> &mut ChildMemory {
        &mut self.memory
    }

    /// Makes it ready for calls, and harmless.
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        // No handler of the process, nor one of ours, is to run in the copy: it would act for the process.
        sys::set_signal_mask(self.tid, MASK)
            .map_err(|source| self.error("block the signals of a snapshot", source))?;
        step();
        let len = GUARD + STACK;
        self.guard = self.system_call(9, "mmap", [0, len, PROT_READ_WRITE, MAP_FLAGS, u64::MAX, 0])?;
        self.system_call(10, "mprotect", [self.guard, GUARD, PROT_NONE, 0, 0, 0])?;
        // The stack is free until the first call.
        let scratch = self.guard + GUARD;
        let limits = sandbox::limits(self.tid).map_err(|source| self.error("limit a snapshot", source))?;
        for (resource, bytes) in limits {
            // `struct rlimit64`: what holds, and how far it may be raised.
            self.write(scratch, &[bytes.to_le_bytes(); 2].concat())?;
            self.system_call(302, "prlimit64", [0, resource, scratch, 0, 0, 0])?;
        }
        let (program, filter) = sandbox::filter(scratch);
        self.write(scratch, &program)?;
        let [new_privileges, seccomp] = sandbox::calls(filter);
        self.system_call(157, "prctl", new_privileges)?;
        self.system_call(317, "seccomp", seccomp)?;
        // From here on they are for the symbolizer, and so is ours.
        self.request("confine a snapshot", ptrace::setoptions(pid(self.tid), HELD))
    }

    /// Calls the symbolizer at `function`, which may take so long.
    pub(super) fn call(
        &mut self,
        function: Avma,
        block: &ArgumentBlock,
        limit: Duration,
    ) -> Result<Ended, Error> {
        let end = self.guard + GUARD + STACK;
        let (block_at, sp) = (end - BLOCK, end - BLOCK - RETURN);
        self.write(block_at, block.as_bytes())?;
        self.write(sp, &self.guard.to_le_bytes())?;
        let mut regs = self.regs;
        (regs.rip, regs.rsp, regs.rdi) = (function.0, sp, block_at);
        (regs.rax, regs.rbp, regs.orig_rax) = (0, 0, NO_CALL);
        regs.eflags &= !DF_AND_TF;
        let id = pid(self.tid);
        self.request("call a symbolizer", ptrace::setregs(id, regs))?;
        self.watchdog.begin(limit);
        let stop = loop {
            self.request("call a symbolizer", ptrace::cont(id, None))?;
            match self.wait()? {
                // What others send to the process, or to its whole group, is not for its copy.
                Stop::Signal(signal) if !sandbox::is_crash(signal) => {}
                Stop::Event | Stop::Call => {}
                stop => break stop,
            }
        };
        self.watchdog.end();
        if let Stop::Dead = stop {
            return Ok(Ended::Broken);
        }
        let regs = self.request("call a symbolizer", ptrace::getregs(id))?;
        if (regs.rip, regs.rsp) != (self.guard, sp + 8) {
            return Ok(Ended::Broken);
        }
        let mut block = [0; size_of::<ArgumentBlock>()];
        self.memory
            .0
            .read_exact_at(&mut block, block_at)
            .map_err(|source| self.error("read the memory of a snapshot", source))?;
        // A block has no invalid values.
        Ok(ArgumentBlock::read_from_bytes(&block).map_or(Ended::Broken, Ended::Returned))
    }

    /// Ends it. What remains is a zombie of the process, which calls it as is returned.
    pub(super) fn kill(mut self) -> u32 {
        self.end();
        self.inner
    }

    fn end(&mut self) {
        // One that is dead cannot be killed.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        step();
        while !self.is_dead {
            if self.wait().is_err() {
                return;
            }
        }
    }

    /// Makes the child call the kernel. Only what [`Self::prepare`] needs.
    fn system_call(&mut self, number: u64, name: &'static str, arguments: [u64; 6]) -> Result<u64, Error> {
        const WHAT: &str = "prepare a snapshot";
        let mut regs = self.regs;
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9) = (rdi, rsi, rdx, r10, r8, r9);
        regs.rip = regs.rip.wrapping_sub(SYSCALL_INSTRUCTION.len() as u64);
        (regs.rax, regs.orig_rax) = (number, NO_CALL);
        let id = pid(self.tid);
        self.request(WHAT, ptrace::setregs(id, regs))?;
        // To the entry of the call, and to its exit.
        let mut calls = 0;
        while calls < 2 {
            self.request(WHAT, ptrace::syscall(id, None))?;
            match self.wait()? {
                Stop::Call => calls += 1,
                Stop::Signal(_) | Stop::Event => {}
                Stop::Dead => return Err(self.error(WHAT, io::Error::other("it was killed"))),
            }
        }
        let result = self.request(WHAT, ptrace::getregs(id))?.rax;
        match result.cast_signed() {
            error @ -4095..=-1 => Err(Error::Call {
                pid: self.process.pid,
                call: name,
                source: io::Error::from_raw_os_error(-error as i32),
            }),
            _ => Ok(result),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = self.memory.0.write_all_at(bytes, address);
        step();
        written.map_err(|source| self.error("write to the memory of a snapshot", source))
    }

    fn wait(&mut self) -> Result<Stop, Error> {
        let options = WaitOptions::from_bits_retain(WALL);
        let status: WaitStatus = loop {
            match waitpid(Pid::from_raw(self.tid.cast_signed()), options) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(self.error("wait for a snapshot", errno.into())),
            }
        };
        step();
        let Some(signal) = status.stopping_signal() else {
            self.is_dead = true;
            return Ok(Stop::Dead);
        };
        Ok(match status.as_raw() >> 16 {
            0 if signal == nix::libc::SIGTRAP | 0x80 => Stop::Call,
            0 => Stop::Signal(signal),
            _ => Stop::Event,
        })
    }

    fn request<T>(&self, what: &'static str, result: nix::Result<T>) -> Result<T, Error> {
        step();
        result.map_err(|errno| self.error(what, errno.into()))
    }

    fn error(&self, what: &'static str, source: io::Error) -> Error {
        error(self.process, what, source)
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        if !self.is_dead {
            self.end();
        }
    }
}

fn error(process: &Process, what: &'static str, source: io::Error) -> Error {
    Error::Access {
        pid: process.pid,
        what,
        source,
    }
}

/// The memory of a snapshot.
#[derive(Debug)]
pub(super) struct ChildMemory(File);

impl Memory for ChildMemory {
    fn c_string(&mut self, address: u64, max: usize) -> Option<Vec<u8>> {
        const PAGE: usize = 4096;
        let mut string = Vec::new();
        while string.len() < max {
            let at = address.checked_add(string.len() as u64)?;
            // Not across the end of a page: the next one may not be there.
            let room = PAGE - (at as usize & (PAGE - 1));
            let mut piece = vec![0; room.min(max - string.len())];
            let read = self.0.read_at(&mut piece, at).ok().filter(|&read| read > 0)?;
            let piece = &piece[..read];
            if let Some(end) = piece.iter().position(|&byte| byte == 0) {
                string.extend_from_slice(&piece[..end]);
                return Some(string);
            }
            string.extend_from_slice(piece);
        }
        Some(string)
    }
}
