//! Calling the symbolizer of a process in a copy of it.
//!
//! A symbolizer allocates, takes locks, reads files for a tenth of a second, and may crash. So it runs in a *snapshot*: a
//! child of the process that shares no memory with it but what was mapped as shared, made by clone(2) on a borrowed
//! thread, as fork(2) would, but with exit signal 0. Plain wait(2) does not see such a child, and its end sends no signal.
//!
//! | if we die | then |
//! |---|---|
//! | before the clone is made | nobody traces the child, which runs: the stack that it is given leads it straight to `runtime.exit`, or to exit_group(2) |
//! | before `PTRACE_O_EXITKILL` is set | likewise |
//! | later | the kernel kills the child; never the process itself, for which that option is not set |
//!
//! In any case the child is a zombie then, which the process does not know to be waited for: the next run does that
//! ([`super::leftovers`]). We do it by a second borrowed thread.
//!
//! Go 1.26 and later call a symbolizer through `x_cgo_call_symbolizer_function`, which only tells the thread sanitizer
//! of the call (runtime/cgo/gcc_traceback.c). The snapshot has one thread and nothing to race with.

mod child;
mod deadline;
mod sandbox;

use super::error::Error;
use super::thread::{Call, Fault, WALL};
use super::{Plan, Runtime, borrow, lend};
use crate::addr::Avma;
use crate::hooks::Symbolizer;
use crate::target::process::Process;
use child::{Child, Ended};
use std::time::{Duration, Instant};

/// How long the first call in a snapshot may take: symbolizers read the debug information of the whole program then,
/// which takes a tenth of a second for a small one.
const FIRST_CALL: Duration = Duration::from_secs(5);
/// How long each further call may take. It finds everything read.
const NEXT_CALL: Duration = Duration::from_secs(1);
/// How long a symbolizer may be busy for one [`ask`].
const BUDGET: Duration = Duration::from_secs(10);
/// How many snapshots are made for one [`ask`]: where one thread of the process happened to hold a lock that the
/// symbolizer needs, another moment is better; where the symbolizer is broken, no moment is.
const MAX_SNAPSHOTS: u32 = 3;
/// The most private memory of a process that is copied, in bytes. The kernel copies page tables while it keeps the
/// borrowed thread, which took 4 ms per 100 MiB where it was slow; a thread is not to be stopped for more than 20 ms.
const MAX_COPIED: u64 = 512 << 20;

/// `CLONE_PTRACE`: who traces the thread traces the child, too, from its first moment. In the lowest byte the exit
/// signal, none.
const CLONE_FLAGS: u64 = 0x2000;
/// `WNOHANG | __WALL`.
const REAP: u64 = 1 | WALL as u64;
/// What a snapshot exits with that nobody holds.
pub(super) const EXIT_CODE: u32 = 113;

/// `mov %eax,0x30(%rsp); ret`: what follows the system call of `runtime.futex` (runtime/sys_linux_amd64.s, Go 1.21–1.27).
const AFTER_FUTEX: [u8; 5] = [0x89, 0x44, 0x24, 0x30, 0xc3];
/// `mov 0x8(%rsp),%edi; mov $231,%eax; syscall`: `runtime.exit` (same file), which calls exit_group(2).
const EXIT: [u8; 11] = [0x8b, 0x7c, 0x24, 0x08, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05];

/// How asking went.
#[derive(Debug, Default)]
pub struct Asked {
    /// How many snapshots were made.
    pub snapshots: u32,
    /// The longest time that a thread of the process was stopped for one.
    pub longest_stop: Duration,
    /// How often the symbolizer was called.
    pub calls: u64,
    /// How long that took.
    pub calling: Duration,
    /// Why there are addresses left that were not asked for.
    pub refused: Option<Refused>,
}

/// Why addresses were not asked for.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There could be no snapshot.
    #[error(transparent)]
    Snapshot(#[from] Error),
    /// The symbolizer is broken.
    #[error("the symbolizer crashed or hung in each of {0} snapshots of process {1}")]
    Broken(u32, u32),
    /// It is slow.
    #[error("the symbolizer of process {pid} was not done within {budget:?}")]
    Slow {
        /// The process.
        pid: u32,
        /// How long it may take.
        budget: Duration,
    },
}

/// Asks the symbolizer at `function` all that is left to ask in `conversation`. `born` is told of each snapshot before it
/// runs: it is a process for all the system, and a child of the one that is watched.
pub fn ask(
    process: &Process,
    plan: &Plan,
    function: Avma,
    conversation: &mut Symbolizer,
    born: &(dyn Fn(u32) + Sync),
) -> Asked {
    let mut asked = Asked::default();
    let end = Instant::now() + BUDGET;
    while conversation.next_call().is_some() && asked.refused.is_none() {
        if asked.snapshots == MAX_SNAPSHOTS {
            asked.refused = Some(Refused::Broken(MAX_SNAPSHOTS, process.pid));
        } else if Instant::now() >= end {
            asked.refused = Some(Refused::Slow {
                pid: process.pid,
                budget: BUDGET,
            });
        } else if let Err(error) = one(process, plan, function, conversation, born, end, &mut asked) {
            asked.refused = Some(error.into());
        }
    }
    asked
}

/// Goes on with `conversation` in one snapshot, until it is over or broken off.
fn one(
    process: &Process,
    plan: &Plan,
    function: Avma,
    conversation: &mut Symbolizer,
    born: &(dyn Fn(u32) + Sync),
    end: Instant,
    asked: &mut Asked,
) -> Result<(), Error> {
    check(process, plan)?;
    // ptrace(2) knows a tracer by its thread, and when that ends it kills the child.
    let tracer = || {
        let (mut child, stopped) = copy(process, plan)?;
        asked.snapshots += 1;
        asked.longest_stop = asked.longest_stop.max(stopped);
        born(child.tid());
        let begun = Instant::now();
        let result = child
            .prepare()
            .and_then(|()| converse(&mut child, function, conversation, end, &mut asked.calls));
        asked.calling += begun.elapsed();
        let inner = child.kill();
        let (_, stopped) = reap(process, plan, inner)?;
        asked.longest_stop = asked.longest_stop.max(stopped);
        result
    };
    std::thread::scope(|scope| {
        let tracer = scope.spawn(tracer);
        tracer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Calls the symbolizer until there is nothing left to ask, or it is broken, or `end` has come. Counts the calls.
fn converse(
    child: &mut Child<'_>,
    function: Avma,
    conversation: &mut Symbolizer,
    end: Instant,
    calls: &mut u64,
) -> Result<(), Error> {
    let mut limit = FIRST_CALL;
    while let Some(block) = conversation.next_call() {
        let left = end.saturating_duration_since(Instant::now());
        *calls += 1;
        let ended = if left.is_zero() {
            Ok(Ended::Broken)
        } else {
            child.call(function, &block, limit.min(left))
        };
        match ended {
            Ok(Ended::Returned(block)) => conversation.returned(block, child.memory()),
            // What the symbolizer keeps for this address goes with the snapshot.
            Ok(Ended::Broken) => {
                conversation.failed();
                return Ok(());
            }
            Err(error) => {
                conversation.failed();
                return Err(error);
            }
        }
        limit = NEXT_CALL;
    }
    Ok(())
}

/// What has to hold of the process beside the conditions for hooks.
fn check(process: &Process, plan: &Plan) -> Result<(), Error> {
    let pid = process.pid;
    // Pages of files and shared ones are found anew by whoever needs them.
    let copied = process.status(pid).map_or(0, |status| status.anonymous);
    if copied > MAX_COPIED {
        return Err(Error::Large {
            pid,
            mib: copied >> 20,
            limit_mib: MAX_COPIED >> 20,
        });
    }
    let Runtime::Go(go) = &plan.runtime else {
        return Ok(());
    };
    let exit = process.memory(go.exit.0, EXIT.len());
    if exit.or(Err(Error::Gone { pid }))? == EXIT {
        Ok(())
    } else {
        Err(Error::UnknownShape {
            pid,
            function: "runtime.exit",
        })
    }
}

/// Makes a copy of the process, stopped.
fn copy<'p>(process: &'p Process, plan: &Plan) -> Result<(Child<'p>, Duration), Error> {
    let (inner, stopped) = lend(process, plan, |thread| {
        let stack = match &plan.runtime {
            Runtime::Go(go) => {
                if thread.code_after_call(AFTER_FUTEX.len())? != AFTER_FUTEX {
                    return Err(Error::UnknownShape {
                        pid: process.pid,
                        function: "runtime.futex",
                    }
                    .into());
                }
                // If nobody holds the child it returns from `runtime.futex` to `runtime.exit`, which has its argument behind
                // the return address that it does not need. `runtime.futex` stores its result in the last word.
                let mut stack = [0; 7];
                (stack[0], stack[2]) = (go.exit.0, u64::from(EXIT_CODE));
                stack.iter().flat_map(|word| word.to_le_bytes()).collect()
            }
            Runtime::Table(calls) => thread.stack_to_exit(calls, EXIT_CODE),
        };
        let stack = thread.scratch(&stack)?;
        thread.call(Call::Clone, [CLONE_FLAGS, stack, 0, 0, 0, 0])
    })?;
    Ok((Child::born(process, inner as u32)?, stopped))
}

/// Has the process wait for its child `inner`, as it calls it, which has ended.
pub(super) fn reap(process: &Process, plan: &Plan, inner: u32) -> Result<((), Duration), Error> {
    borrow(process, plan, |thread| {
        match thread.call(Call::Wait4, [inner.into(), 0, REAP, 0, 0, 0]) {
            // The process has waited for all its children, clones included.
            Err(Fault::Failed(Error::Call { source, .. }))
                if source.raw_os_error() == Some(nix::libc::ECHILD) =>
            {
                Ok(())
            }
            result => result.map(|_| ()),
        }
    })
}
