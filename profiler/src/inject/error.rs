//! Why a process is left alone.

use std::io;
use std::time::Duration;

/// Why hooks cannot be honoured in a process. Nothing has been changed in it, or all has been undone, unless the
/// text says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is gone.
    #[error("process {pid} has ended")]
    Gone {
        /// Its id.
        pid: u32,
    },
    /// It executes another program now.
    #[error("process {pid} has executed another program in the meantime")]
    Replaced {
        /// Its id.
        pid: u32,
    },
    /// It runs in a sandbox.
    #[error(
        "thread {tid} of process {pid} runs under a seccomp filter, which may kill the process for a system call that \
         it does not expect"
    )]
    Seccomp {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
    },
    /// Return addresses are checked.
    #[error(
        "process {pid} runs with a shadow stack (x86_Thread_features: shstk), which a signal frame cannot be left by"
    )]
    ShadowStack {
        /// Its id.
        pid: u32,
    },
    /// A debugger has it.
    #[error(
        "process {pid} is traced by thread {tracer}, a debugger perhaps: a process has one tracer at most"
    )]
    Traced {
        /// Its id.
        pid: u32,
        /// The thread that traces it.
        tracer: u32,
    },
    /// Of another architecture or size.
    #[error("process {pid} is not a 64-bit x86 program")]
    NotX86_64 {
        /// Its id.
        pid: u32,
    },
    /// Nobody may trace anything on this machine.
    #[error(
        "kernel.yama.ptrace_scope is 3: no process can be traced on this machine until it is restarted with another value"
    )]
    Yama,
    /// We may not trace it.
    #[error("process {pid} may not be traced: run the profiler as root or with CAP_SYS_PTRACE")]
    NotPermitted {
        /// Its id.
        pid: u32,
    },
    /// Somebody stopped it.
    #[error("process {pid} is stopped: let it go on with `kill -CONT {pid}`")]
    Stopped {
        /// Its id.
        pid: u32,
    },
    /// All threads have something to do.
    #[error("no thread of process {pid} was idle in Go's scheduler within {waited:?}")]
    NoIdleThread {
        /// Its id.
        pid: u32,
        /// How long was waited.
        waited: Duration,
    },
    /// All signals are used.
    #[error("process {pid} uses every real-time signal: none is left for the profiler")]
    NoSignal {
        /// Its id.
        pid: u32,
    },
    /// Go's support for traceback hooks is not linked in.
    #[error(
        "process {pid} has no _cgo_callers: its Go runtime cannot call traceback hooks in a signal handler"
    )]
    NoCgoCallers {
        /// Its id.
        pid: u32,
    },
    /// Another profiler is there.
    #[error("another profiler is honouring the hooks of process {pid}")]
    InUse {
        /// Its id.
        pid: u32,
    },
    /// A copy of it would take too long to make.
    #[error(
        "process {pid} has {mib} MiB of private memory: a snapshot of more than {limit_mib} MiB would stop one of its \
         threads for too long"
    )]
    Large {
        /// Its id.
        pid: u32,
        /// What it has, in MiB.
        mib: u64,
        /// What it may have, in MiB.
        limit_mib: u64,
    },
    /// Its Go runtime is one that we do not know.
    #[error("{function} of process {pid} is not as in any release that this profiler knows")]
    UnknownShape {
        /// Its id.
        pid: u32,
        /// The function.
        function: &'static str,
    },
    /// A system call in the target was refused.
    #[error("process {pid} may not call {call}")]
    Call {
        /// Its id.
        pid: u32,
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Our own access to the target failed.
    #[error("cannot {what} of process {pid}")]
    Access {
        /// Its id.
        pid: u32,
        /// What could not be done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This program was built wrong.
    #[error("the helper that is built into this program is damaged: {0}")]
    Image(&'static str),
}
