//! Killing a snapshot whose symbolizer does not come back.

use rustix::fd::OwnedFd;
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked.
const TICK: Duration = Duration::from_millis(10);
/// futex(2), as `/proc/PID/syscall` begins.
const FUTEX: &str = "202 ";
/// No call is under way.
const NEVER: u64 = u64::MAX;

/// A thread that watches a snapshot: whoever traces it waits in the kernel and cannot look at a clock.
#[derive(Debug)]
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// When the call has to be over, in nanoseconds after `start`.
    deadline: AtomicU64,
    is_over: AtomicBool,
}

impl Watchdog {
    /// Watches the process `tid`, which `pidfd` is of.
    ///
    /// # Errors
    /// The system does not give another thread or descriptor.
    pub(super) fn start(tid: u32, pidfd: &OwnedFd) -> io::Result<Self> {
        let pidfd = pidfd.try_clone()?;
        let shared = Arc::new(Shared {
            start: Instant::now(),
            deadline: AtomicU64::new(NEVER),
            is_over: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || theirs.watch(tid, &pidfd))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// A call begins that may take so long.
    pub(super) fn begin(&self, limit: Duration) {
        let deadline = self.shared.start.elapsed().saturating_add(limit);
        let nanos = u64::try_from(deadline.as_nanos()).unwrap_or(NEVER);
        self.shared.deadline.store(nanos, Relaxed);
    }

    /// It is over.
    pub(super) fn end(&self) {
        self.shared.deadline.store(NEVER, Relaxed);
    }
}

impl Shared {
    fn watch(&self, tid: u32, pidfd: &OwnedFd) {
        let mut waited_at = None;
        while !self.is_over.load(Relaxed) {
            std::thread::park_timeout(TICK);
            let deadline = self.deadline.load(Relaxed);
            // A copy has one thread: if that waits for another one to leave a lock, it waits for ever. Looked at twice, as
            // a wait can have a timeout.
            let waits = std::fs::read_to_string(format!("/proc/{tid}/syscall"))
                .is_ok_and(|call| call.starts_with(FUTEX));
            let is_stuck = waits && deadline != NEVER && waited_at == Some(deadline);
            waited_at = waits.then_some(deadline);
            if is_stuck || self.start.elapsed().as_nanos() > u128::from(deadline) {
                // Whoever waits for it is told by the kernel.
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
                return;
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does not panic.
            let _ = thread.join();
        }
    }
}
