//! What the scheduler gave a process.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// The time that the live threads of a process have spent on a CPU, by the scheduler's own account
/// (first field of `/proc/PID/task/TID/schedstat`, in nanoseconds; Documentation/scheduler/sched-stats.rst).
pub fn on_cpu(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        // A thread that has just ended takes its time with it.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let spent = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
        sum += spent.with_context(|| format!("{}: {text:?}", path.display()))?;
    }
    Ok(Duration::from_nanos(sum))
}
