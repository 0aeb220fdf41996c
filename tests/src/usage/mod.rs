//! What a program needed: time, and memory at its peak.

mod sys;

use crate::profiler::drain;
use anyhow::{Context, Result};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A finished program.
#[derive(Debug)]
pub struct Usage {
    /// Its exit status.
    pub status: ExitStatus,
    /// From start to end.
    pub wall: Duration,
    /// On CPUs, in user and kernel mode.
    pub cpu: Duration,
    /// The most memory that was resident, in bytes.
    pub peak_memory: u64,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

/// Runs a program to its end, without standard input.
pub fn of(command: &mut Command) -> Result<Usage> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let stdout = child.stdout.take().map(|pipe| thread::spawn(move || drain(pipe)));
    let stderr = child.stderr.take().map_or_else(|| Ok(String::new()), drain)?;
    let stdout = match stdout.map(thread::JoinHandle::join) {
        Some(Ok(text)) => text?,
        _ => String::new(),
    };
    let (status, usage) = sys::wait(child.id()).with_context(|| format!("cannot wait for {command:?}"))?;
    let time = |time: nix::libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(Usage {
        status: ExitStatus::from_raw(status),
        wall: start.elapsed(),
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        // getrusage(2): in kilobytes.
        peak_memory: usage.ru_maxrss.unsigned_abs() * 1024,
        stdout,
        stderr,
    })
}

#[cfg(test)]
mod tests {
    use super::of;
    use std::process::Command;

    #[test]
    fn the_memory_of_a_child_is_its_own() {
        let small = of(&mut Command::new("true")).unwrap();
        let script = "x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo ${#x}; exit 3";
        let large = of(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!((large.status.code(), large.stdout.trim()), (Some(3), "50000000"));
        assert!(small.peak_memory < 20_000_000, "{small:?}");
        assert!(large.peak_memory > 50_000_000, "{large:?}");
        assert!(large.cpu > small.cpu && large.wall > small.wall);
    }
}
