//! Whether the traceback hooks of a process can be called from outside without harm: conditions, each with what was
//! found. [`Facts`] and their [`State`] are read, everything else here is pure.
//!
//! Nothing is tried: conditions are read from `/proc` and from the object files, and the process does not notice. Who
//! is about to touch a process reads its [`State`] again.

use super::calls::SystemCalls;
use super::go::Source;
use super::go::hooks::Hooks;
use super::go::threads::Thread;
use super::process::{Process, Task};
use super::status::Status;
use super::waiting;
use crate::addr::Avma;
use std::collections::HashSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};

mod conditions;
#[cfg(test)]
mod tests;

pub use conditions::{callers, filtered, no_idle_thread, no_signal, not_permitted, stopped};

/// Real-time signals that no C library keeps for itself: glibc and musl use 32–34.
pub const SIGNALS: RangeInclusive<u32> = 35..=63;
/// Number of the system call on x86-64.
const FUTEX: u64 = 202;
/// The operation without its flags (include/uapi/linux/futex.h).
const FUTEX_CMD_MASK: u64 = 0x7f;
const FUTEX_WAIT: u64 = 0;

/// Everything that the conditions depend on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What is known of its Go runtime.
    pub runtime: Runtime,
    /// Where it has code.
    pub code: Vec<Range<Avma>>,
    /// The code of `runtime.futex`.
    pub futex: Option<Range<Avma>>,
    /// Threads that a program without Go can spare for a moment ([`super::waiting`]).
    pub spare: Vec<u32>,
    /// What it is doing.
    pub state: State,
}

/// What there is to know of a process whatever hooks it has. All of it may change at any time.
#[derive(Clone, Debug)]
pub struct State {
    /// Whether it is a 64-bit program for x86-64; `None` if its executable cannot be read.
    pub is_x86_64: Option<bool>,
    /// Its threads.
    pub tasks: Vec<Task>,
    /// `kernel.yama.ptrace_scope`; `None` without Yama.
    pub ptrace_scope: Option<u32>,
    /// Ourselves: our capabilities and whether our system calls are filtered count.
    pub ours: Status,
    /// Whether the kernel was built with `CONFIG_CHECKPOINT_RESTORE`: it then shows filters of system calls to others.
    pub shows_filters: bool,
}

/// What is known of a process's Go runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// It has none.
    Absent,
    /// It has one; why that cannot be used, as a whole sentence without the final stop.
    NotUnderstood(String),
    /// Layout and hooks are certain.
    Understood {
        /// Whether the program was built with cgo.
        cgo: bool,
        /// Where the layout comes from.
        layout: Source,
        /// Its hooks; `None` if it has no function to register them.
        hooks: Option<Hooks>,
        /// Its threads (Ms); `None` if they cannot be read.
        threads: Option<Vec<Thread>>,
    },
    /// It has none, but publishes hooks in a table.
    Table {
        /// Its traceback function.
        traceback: Option<Avma>,
        /// Code with which its threads can make system calls.
        calls: Option<SystemCalls>,
    },
}

/// What a condition asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// A Go program with C in it.
    Cgo,
    /// A traceback function is registered.
    TracebackHook,
    /// Offsets and addresses in the Go runtime are certain.
    Layout,
    /// Code with which a thread makes any system call and comes back, where there is no Go runtime.
    SystemCalls,
    /// A 64-bit program.
    Bits64,
    /// It runs: nobody has stopped it.
    NotStopped,
    /// No filter of system calls, or one that can be looked at.
    Seccomp,
    /// No shadow stack.
    NoShadowStack,
    /// No debugger.
    NoTracer,
    /// The system allows ptrace.
    PtraceAllowed,
    /// We may trace other users' processes.
    Capability,
    /// A thread that has nothing to do.
    IdleThread,
    /// A real-time signal that nobody uses.
    FreeSignal,
}

impl Requirement {
    /// A stable name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgo => "cgo",
            Self::TracebackHook => "traceback-hook",
            Self::Layout => "layout",
            Self::SystemCalls => "system-calls",
            Self::Bits64 => "64-bit",
            Self::NotStopped => "not-stopped",
            Self::Seccomp => "seccomp",
            Self::NoShadowStack => "no-shadow-stack",
            Self::NoTracer => "no-tracer",
            Self::PtraceAllowed => "ptrace-allowed",
            Self::Capability => "capability",
            Self::IdleThread => "idle-thread",
            Self::FreeSignal => "free-signal",
        }
    }
}

/// How a condition came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As required.
    Holds,
    /// Not as required.
    Fails,
    /// Not as required at this moment, or not to be seen from outside; not a reason to refuse.
    Unknown,
}

/// One condition and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is required.
    pub requirement: Requirement,
    /// Whether it is so.
    pub outcome: Outcome,
    /// What was found: half a sentence, to stand alone or after "because".
    pub fact: String,
    /// What can be done about it, as an instruction.
    pub remedy: Option<&'static str>,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fact)?;
        match self.remedy {
            Some(remedy) => write!(f, " (remedy: {remedy})"),
            None => Ok(()),
        }
    }
}

/// Whether hooks can be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// No condition fails.
    Yes,
    /// These do.
    No(Vec<&'a Condition>),
}

/// What all conditions together say.
pub fn verdict(conditions: &[Condition]) -> Verdict<'_> {
    let failing: Vec<_> = conditions
        .iter()
        .filter(|condition| condition.outcome == Outcome::Fails)
        .collect();
    if failing.is_empty() {
        Verdict::Yes
    } else {
        Verdict::No(failing)
    }
}

impl State {
    /// Looks at `process`, and at what we may do.
    pub fn read(process: &Process) -> Self {
        let ours = std::fs::read("/proc/self/status").unwrap_or_default();
        Self {
            is_x86_64: process.is_x86_64(),
            tasks: process.tasks(),
            ptrace_scope: std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
                .ok()
                .and_then(|scope| scope.trim().parse().ok()),
            ours: Status::parse(&ours),
            // There with that option only (kernel/pid_namespace.c).
            shows_filters: std::fs::exists("/proc/sys/kernel/ns_last_pid").unwrap_or(false),
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.tasks.iter().all(|task| task.status.has_ended())
    }

    /// Real-time signals that nobody uses, the best first. Where the process has handlers for all of them, and
    /// `with_go`, those are the Go runtime's, which does nothing about most; else only those without a handler.
    pub fn free_signals(&self, with_go: bool) -> Vec<u32> {
        let all =
            |mask: &dyn Fn(&Status) -> u64| self.tasks.iter().fold(0, |all, task| all | mask(&task.status));
        let (ignored, pending, caught) = (all(&|s| s.ignored), all(&|s| s.pending), all(&|s| s.caught));
        let blocked_everywhere = self
            .tasks
            .iter()
            .fold(u64::MAX, |all, task| all & task.status.blocked);
        // A thread that blocks what nobody catches waits for it otherwise: by sigwait(3) or signalfd(2), perhaps. One that
        // blocks all of them wants to be left alone: Go has such a thread, and so have many libraries.
        let range = SIGNALS.fold(0, |range, signal| range | 1 << (signal - 1));
        let chosen = |s: &Status| if s.blocked & range == range { 0 } else { s.blocked };
        let waited_for = all(&chosen) & !caught;
        let taken = ignored | pending | blocked_everywhere | waited_for;
        let has = |mask: u64, signal: u32| mask & 1 << (signal - 1) != 0;
        let available = SIGNALS.rev().filter(|&signal| !has(taken, signal));
        // A program's own handler would be for one or two of them.
        let by_runtime = SIGNALS
            .filter(|&signal| !has(ignored, signal))
            .all(|signal| has(caught, signal));
        let (with_handler, without): (Vec<u32>, Vec<u32>) =
            available.partition(|&signal| has(caught, signal));
        if without.is_empty() && by_runtime && with_go {
            with_handler
        } else {
            without
        }
    }
}

impl Facts {
    /// Reads what there is to know of `process` beside its Go runtime, whose idle threads wait in `futex`.
    pub fn read(process: &Process, runtime: Runtime, futex: Option<Range<Avma>>) -> Self {
        let state = State::read(process);
        Self {
            runtime,
            spare: waiting::candidates(process, state.tasks.iter()),
            code: process
                .maps()
                .unwrap_or_default()
                .iter()
                .filter(|entry| entry.executable)
                .map(|entry| Avma(entry.start)..Avma(entry.end))
                .collect(),
            futex,
            state,
        }
    }

    /// Whether the process has code at an address.
    fn is_code(&self, address: Avma) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Threads that can be borrowed. In a Go program they have nothing to do: they wait in `runtime.futex`, and the runtime
    /// agrees where it can be asked.
    pub fn idle_threads(&self) -> Vec<u32> {
        if let Runtime::Table { .. } = self.runtime {
            return self.spare.clone();
        }
        let Some(futex) = &self.futex else {
            return Vec::new();
        };
        let idle: Option<HashSet<u64>> = match &self.runtime {
            Runtime::Understood {
                threads: Some(threads),
                ..
            } => Some(threads.iter().filter(|m| m.is_idle()).map(|m| m.tid).collect()),
            _ => None,
        };
        let agrees = |task: &&Task| {
            idle.as_ref()
                .is_none_or(|idle| idle.contains(&task.status.id_inside.into()))
        };
        let tasks = self.state.tasks.iter();
        let found = tasks.filter(|task| waits_in(task, futex)).filter(agrees);
        found.map(|task| task.tid).collect()
    }
}

/// Whether a thread waits in futex(2) to be woken, called from this code.
pub fn waits_in(task: &Task, code: &Range<Avma>) -> bool {
    task.syscall.is_some_and(|call| {
        call.number == FUTEX
            && call.arguments[1] & FUTEX_CMD_MASK == FUTEX_WAIT
            && code.contains(&Avma(call.pc))
    })
}
