//! Why a process is left alone.

use crate::target::preflight::Condition;
use std::fmt;
use std::io;

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
    /// It must not be touched.
    #[error("process {pid} is left alone, because {failing}")]
    Refused {
        /// Its id.
        pid: u32,
        /// What is not as it has to be.
        failing: Failing,
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

/// Conditions that do not hold, one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing(pub Vec<Condition>);

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, condition) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{condition}")?;
        }
        Ok(())
    }
}

impl Error {
    /// Process `pid` is refused for one condition.
    pub(super) fn refused(pid: u32, condition: Condition) -> Self {
        Self::Refused {
            pid,
            failing: Failing(vec![condition]),
        }
    }
}
