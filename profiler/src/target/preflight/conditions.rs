//! The conditions, one function each. Pure.

use super::{Condition, Facts, Outcome, Requirement, Runtime, SIGNALS, State};
use crate::addr::Avma;
use crate::target::calls::SystemCalls;
use crate::target::process::Task;
use std::time::Duration;

/// `YAMA_SCOPE_NO_ATTACH` (security/yama/yama_lsm.c).
const NO_PTRACE: u32 = 3;
/// Bit in `CapEff` (capabilities(7)).
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
/// `Seccomp` of a thread that may do nothing but read, write and end (`SECCOMP_MODE_STRICT`).
const STRICT: u32 = 1;

impl Facts {
    /// All conditions.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions = match &self.runtime {
            Runtime::Table { calls, .. } => vec![self.traceback_hook(), system_calls(*calls)],
            _ => vec![self.cgo(), self.traceback_hook(), self.layout()],
        };
        conditions.extend(self.state.conditions());
        conditions.extend([self.idle_thread(), self.state.free_signal(self.has_go())]);
        conditions
    }

    fn has_go(&self) -> bool {
        !matches!(self.runtime, Runtime::Absent | Runtime::Table { .. })
    }

    fn cgo(&self) -> Condition {
        let fails = |fact: &str| condition(Requirement::Cgo, Outcome::Fails, fact);
        match &self.runtime {
            Runtime::Absent | Runtime::Table { .. } => {
                fails("the process has no Go runtime, and no table of traceback hooks")
            }
            Runtime::NotUnderstood(_) => condition(
                Requirement::Cgo,
                Outcome::Unknown,
                "the Go runtime is not understood",
            ),
            Runtime::Understood { cgo: false, .. } => fails("the Go program is built without cgo"),
            Runtime::Understood { hooks: None, .. } => condition(
                Requirement::Cgo,
                Outcome::Holds,
                "the Go program is built with cgo",
            ),
            Runtime::Understood {
                hooks: Some(hooks), ..
            } => callers(hooks.callers, |callers| self.is_code(callers)),
        }
    }

    fn traceback_hook(&self) -> Condition {
        let of = |outcome, fact: &str| condition(Requirement::TracebackHook, outcome, fact);
        match &self.runtime {
            Runtime::Absent => of(Outcome::Unknown, "there is no Go runtime to register one with"),
            Runtime::Table { traceback, .. } => match traceback {
                Some(hook) if self.is_code(*hook) => of(Outcome::Holds, &format!("the table names {hook}")),
                Some(hook) => of(
                    Outcome::Fails,
                    &format!("the table names {hook}, where there is no code"),
                ),
                None => of(Outcome::Fails, "the table names none by now")
                    .with_remedy("look again once the program has set it"),
            },
            Runtime::NotUnderstood(_) => of(Outcome::Unknown, "the Go runtime is not understood"),
            Runtime::Understood { hooks: None, .. } => of(
                Outcome::Fails,
                "the program does not use runtime.SetCgoTraceback, so it cannot have hooks",
            )
            .with_remedy("none is needed: C frames are walked without hooks"),
            Runtime::Understood {
                hooks: Some(hooks), ..
            } => match hooks.traceback {
                Some(hook) if self.is_code(hook) => {
                    of(Outcome::Holds, &format!("runtime.cgoTraceback is {hook}"))
                }
                Some(hook) => of(
                    Outcome::Fails,
                    &format!("runtime.cgoTraceback is {hook}, where there is no code"),
                ),
                None => of(
                    Outcome::Fails,
                    "runtime.cgoTraceback is nil: none is registered by now",
                )
                .with_remedy("look again once the program has called runtime.SetCgoTraceback"),
            },
        }
    }

    fn layout(&self) -> Condition {
        match &self.runtime {
            Runtime::Absent | Runtime::Table { .. } => {
                condition(Requirement::Layout, Outcome::Unknown, "there is no Go runtime")
            }
            Runtime::NotUnderstood(why) => condition(Requirement::Layout, Outcome::Fails, why.clone()),
            Runtime::Understood { layout, .. } => condition(
                Requirement::Layout,
                Outcome::Holds,
                format!("by {layout}, and the code agrees"),
            ),
        }
    }

    fn idle_thread(&self) -> Condition {
        let requirement = Requirement::IdleThread;
        let n = self.state.tasks.len();
        let what = if let Runtime::Table { .. } = self.runtime {
            "waits without a limit of time, or runs"
        } else {
            "waits in runtime.futex with nothing to do"
        };
        match self.idle_threads()[..] {
            [first, ..] => condition(requirement, Outcome::Holds, format!("thread {first} {what}")),
            [] => condition(
                requirement,
                Outcome::Unknown,
                format!("none of {n} threads {what} at this moment"),
            )
            .with_remedy("none is needed: most programs have one now and then"),
        }
    }
}

impl State {
    /// Those that do not depend on hooks, or on which signal and thread there are for them.
    pub fn conditions(&self) -> Vec<Condition> {
        vec![
            self.bits_64(),
            self.not_stopped(),
            self.seccomp(),
            self.no_shadow_stack(),
            self.no_tracer(),
            self.ptrace_allowed(),
            self.capability(),
        ]
    }

    fn bits_64(&self) -> Condition {
        let of = |outcome, fact: &str| condition(Requirement::Bits64, outcome, fact);
        match self.is_x86_64 {
            Some(true) => of(Outcome::Holds, "the executable is a 64-bit one for x86-64"),
            Some(false) => of(Outcome::Fails, "the executable is not a 64-bit one for x86-64"),
            None => of(Outcome::Unknown, "the executable cannot be read"),
        }
    }

    fn not_stopped(&self) -> Condition {
        if self.tasks.is_empty() {
            return unreadable(Requirement::NotStopped);
        }
        // Whom a debugger stops, at each signal for instance, only the debugger can let go on: that is `no_tracer`.
        let stopped_by_signal = |task: &&Task| task.status.is_stopped() && task.status.tracer == 0;
        match self.tasks.iter().find(stopped_by_signal) {
            None => condition(Requirement::NotStopped, Outcome::Holds, "it runs"),
            Some(task) => stopped(task.tid),
        }
    }

    /// Filters are looked at when a thread is borrowed. Who may do that is told by kernel/seccomp.c, `get_nth_filter`, and
    /// kernel/ptrace.c, `check_ptrace_options`.
    fn seccomp(&self) -> Condition {
        let requirement = Requirement::Seccomp;
        let filtered_tasks = self.tasks.iter().filter(|task| task.status.seccomp != 0);
        let Some(strictest) = filtered_tasks.min_by_key(|task| task.status.seccomp) else {
            return match self.tasks[..] {
                [] => unreadable(requirement),
                _ => condition(requirement, Outcome::Holds, "system calls are not filtered"),
            };
        };
        if strictest.status.seccomp == STRICT {
            return filtered(format!(
                "thread {} may make no system calls but read, write and exit",
                strictest.tid
            ));
        }
        let unseen = |why: &str| filtered(format!("system calls are filtered, and {why}"));
        if self.ours.capabilities & 1 << CAP_SYS_ADMIN == 0 {
            return unseen("we lack CAP_SYS_ADMIN to see by what");
        }
        if self.ours.seccomp != 0 {
            return unseen("so are ours: the kernel does not let us see by what");
        }
        if !self.shows_filters {
            return unseen("the kernel, without CONFIG_CHECKPOINT_RESTORE, does not show by what");
        }
        condition(
            requirement,
            Outcome::Unknown,
            "system calls are filtered; by what is seen when a thread is borrowed",
        )
    }

    fn no_shadow_stack(&self) -> Condition {
        let requirement = Requirement::NoShadowStack;
        if self.tasks.is_empty() {
            return unreadable(requirement);
        }
        match self.tasks.iter().find(|task| task.status.shadow_stack) {
            None => condition(requirement, Outcome::Holds, "no thread has one"),
            Some(task) => condition(
                requirement,
                Outcome::Fails,
                format!(
                    "thread {} has one, which a foreign signal frame would not fit",
                    task.tid
                ),
            )
            .with_remedy("run the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off"),
        }
    }

    fn no_tracer(&self) -> Condition {
        let requirement = Requirement::NoTracer;
        if self.tasks.is_empty() {
            return unreadable(requirement);
        }
        match self.tasks.iter().find(|task| task.status.tracer != 0) {
            None => condition(requirement, Outcome::Holds, "nobody traces it"),
            Some(task) => condition(
                requirement,
                Outcome::Fails,
                format!("process {} traces it (a debugger, strace)", task.status.tracer),
            )
            .with_remedy("end the debugger"),
        }
    }

    fn ptrace_allowed(&self) -> Condition {
        let requirement = Requirement::PtraceAllowed;
        match self.ptrace_scope {
            None => condition(requirement, Outcome::Holds, "the kernel is without Yama"),
            Some(NO_PTRACE) => condition(
                requirement,
                Outcome::Fails,
                "kernel.yama.ptrace_scope is 3: nobody may trace, root neither",
            )
            .with_remedy("set kernel.yama.ptrace_scope to 2 in /etc/sysctl.d and restart the machine"),
            Some(scope) => condition(
                requirement,
                Outcome::Holds,
                format!("kernel.yama.ptrace_scope is {scope}"),
            ),
        }
    }

    fn capability(&self) -> Condition {
        let requirement = Requirement::Capability;
        if self.ours.capabilities & 1 << CAP_SYS_PTRACE != 0 {
            return condition(requirement, Outcome::Holds, "we have CAP_SYS_PTRACE");
        }
        not_permitted("we lack CAP_SYS_PTRACE")
    }

    /// A real-time signal that nobody uses; see [`State::free_signals`].
    pub fn free_signal(&self, with_go: bool) -> Condition {
        let requirement = Requirement::FreeSignal;
        if self.tasks.is_empty() {
            return unreadable(requirement);
        }
        let caught = |signal: u32| {
            self.tasks
                .iter()
                .any(|task| task.status.caught & 1 << (signal - 1) != 0)
        };
        match self.free_signals(with_go)[..] {
            [] => no_signal(),
            [first, ..] if caught(first) => condition(
                requirement,
                Outcome::Holds,
                format!("signal {first} has the handler that the Go runtime gives to all"),
            ),
            [first, ..] => condition(
                requirement,
                Outcome::Holds,
                format!("signal {first} has no handler"),
            ),
        }
    }
}

/// Whether threads of a program without Go can make system calls for us.
fn system_calls(calls: Option<SystemCalls>) -> Condition {
    match calls {
        Some(calls) => condition(
            Requirement::SystemCalls,
            Outcome::Holds,
            format!("there is code for that at {}", calls.call),
        ),
        None => condition(
            Requirement::SystemCalls,
            Outcome::Fails,
            "no file that it has mapped has code that makes any system call and returns",
        ),
    }
}

/// Whether there is a function that calls a traceback hook in a signal handler, by the value of Go's `_cgo_callers`.
pub fn callers(callers: Option<Avma>, is_code: impl Fn(Avma) -> bool) -> Condition {
    match callers {
        Some(callers) if is_code(callers) => condition(
            Requirement::Cgo,
            Outcome::Holds,
            format!("_cgo_callers leads to {callers}"),
        ),
        Some(callers) => condition(
            Requirement::Cgo,
            Outcome::Fails,
            format!("_cgo_callers is {callers}, where there is no code"),
        ),
        None => condition(
            Requirement::Cgo,
            Outcome::Fails,
            "_cgo_callers is nil: nothing calls a traceback function in a signal handler",
        ),
    }
}

/// Its filters of system calls are in the way, as `fact` says.
pub fn filtered(fact: String) -> Condition {
    condition(Requirement::Seccomp, Outcome::Fails, fact)
        .with_remedy("run the program without the filter (docker: --security-opt seccomp=unconfined)")
}

/// Somebody has stopped thread `tid`.
pub fn stopped(tid: u32) -> Condition {
    condition(
        Requirement::NotStopped,
        Outcome::Fails,
        format!("thread {tid} has been stopped"),
    )
    .with_remedy("let it go on with kill -CONT")
}

/// We may not trace the process, for this reason.
pub fn not_permitted(why: &str) -> Condition {
    condition(Requirement::Capability, Outcome::Fails, why)
        .with_remedy("run the profiler as root, or with cap_sys_ptrace")
}

/// Every signal is used.
pub fn no_signal() -> Condition {
    let (first, last) = (SIGNALS.start(), SIGNALS.end());
    condition(
        Requirement::FreeSignal,
        Outcome::Fails,
        format!("every signal from {first} to {last} is in use"),
    )
}

/// All threads had something to do, for as long as one was looked for.
pub fn no_idle_thread(waited: Duration) -> Condition {
    condition(
        Requirement::IdleThread,
        Outcome::Fails,
        format!("none of its threads had nothing to do within {waited:?}"),
    )
    .with_remedy("try again when it is less busy")
}

impl Condition {
    fn with_remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = Some(remedy);
        self
    }
}

fn condition(requirement: Requirement, outcome: Outcome, fact: impl Into<String>) -> Condition {
    Condition {
        requirement,
        outcome,
        fact: fact.into(),
        remedy: None,
    }
}

fn unreadable(requirement: Requirement) -> Condition {
    condition(
        requirement,
        Outcome::Fails,
        "the status of its threads cannot be read",
    )
    .with_remedy("run the profiler as root, and while the process still runs")
}
