//! What has to hold before a process is touched. Looking only.

use super::Plan;
use super::error::Error;
use super::thread::tids;
use crate::target::process::Process;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Checks that the process may be touched at all.
///
/// # Errors
/// The first condition that does not hold.
pub fn check(process: &Process, plan: &Plan) -> Result<(), Error> {
    let pid = process.pid;
    gone(process)?;
    if fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() == "3") {
        return Err(Error::Yama);
    }
    if !is_x86_64(pid) {
        return Err(Error::NotX86_64 { pid });
    }
    let status = status(process, pid);
    if field(&status, "State").is_some_and(|state| state.starts_with('T')) {
        return Err(Error::Stopped { pid });
    }
    let tracer = field(&status, "TracerPid")
        .and_then(|tracer| tracer.parse().ok())
        .unwrap_or(0);
    if tracer != 0 {
        return Err(Error::Traced { pid, tracer });
    }
    if field(&status, "x86_Thread_features").is_some_and(|features| features.contains("shstk")) {
        return Err(Error::ShadowStack { pid });
    }
    for tid in tids(process) {
        seccomp(process, tid)?;
    }
    let callers = process.memory(plan.callers.0, 8);
    let callers = callers.map_err(|source| Error::Access {
        pid,
        what: "read the memory",
        source,
    })?;
    if callers.iter().all(|&byte| byte == 0) {
        return Err(Error::NoCgoCallers { pid });
    }
    Ok(())
}

/// Checks that a thread may make system calls of all kinds.
pub(super) fn seccomp(process: &Process, tid: u32) -> Result<(), Error> {
    match field(&status(process, tid), "Seccomp") {
        None | Some("0") => Ok(()),
        Some(_) => Err(Error::Seccomp {
            pid: process.pid,
            tid,
        }),
    }
}

/// Checks that the process has not ended.
pub(super) fn gone(process: &Process) -> Result<(), Error> {
    let status = status(process, process.pid);
    match field(&status, "State") {
        Some(state) if !state.starts_with(['Z', 'X']) => Ok(()),
        _ => Err(Error::Gone { pid: process.pid }),
    }
}

/// `/proc/PID/task/TID/status`; empty if the thread has ended.
pub(super) fn status(process: &Process, tid: u32) -> String {
    let bytes = fs::read(format!("/proc/{}/task/{tid}/status", process.pid)).unwrap_or_default();
    // The name of a thread may hold anything.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A field of [`status`].
pub(super) fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// A set of signals in [`status`]: bit n-1 for signal n.
pub(super) fn signals(status: &str, name: &str) -> u64 {
    field(status, name)
        .and_then(|set| u64::from_str_radix(set, 16).ok())
        .unwrap_or(0)
}

/// By the header of the program: `ELFCLASS64`, `EM_X86_64`.
fn is_x86_64(pid: u32) -> bool {
    let mut header = [0; 20];
    let read = File::open(format!("/proc/{pid}/exe")).and_then(|exe| exe.read_exact_at(&mut header, 0));
    read.is_ok() && header[4] == 2 && header[18..20] == [62, 0]
}

#[cfg(test)]
mod tests {
    use super::{field, signals};

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Name:\tSeccomp: 2\nSigBlk:\t8000000000000001\nSeccomp:\t0\nSeccomp_filters:\t3\n";
        assert_eq!(field(status, "Seccomp"), Some("0"));
        assert_eq!(field(status, "Sig"), None);
        assert_eq!(signals(status, "SigBlk"), 1 << 63 | 1);
        assert_eq!(signals(status, "SigPnd"), 0);
    }
}
