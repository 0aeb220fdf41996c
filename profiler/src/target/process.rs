//! Facts about a process, from `/proc`.

use super::maps::{self, MapEntry};
use super::status::{Status, Syscall};
use nix::time::clock_getcpuclockid;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such process.
    #[error("there is no process {pid}")]
    Gone {
        /// Its id.
        pid: u32,
    },
    /// It has ended and waits for its parent to notice.
    #[error("process {pid} has ended; its parent has not taken notice yet (it is a zombie)")]
    Zombie {
        /// Its id.
        pid: u32,
    },
    /// It is part of the kernel.
    #[error("process {pid} ({name}) is a kernel thread: it has no user stack to record")]
    Kernel {
        /// Its id.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// Its program is for another kind of processor than what a recording understands.
    #[error("process {pid} ({name}) is a 32-bit program: only 64-bit ones, for x86-64, can be recorded")]
    Bits32 {
        /// Its id.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// Something about it cannot be read.
    #[error("cannot read /proc/{pid}/{file}")]
    Read {
        /// Its id.
        pid: u32,
        /// The file.
        file: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A thread, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id, as we see it.
    pub tid: u32,
    /// Its status.
    pub status: Status,
    /// The system call that it waits in.
    pub syscall: Option<Syscall>,
}

/// A process. The pidfd keeps the id from meaning another process later.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Readable when the process has ended.
    pub pidfd: OwnedFd,
}

/// The ids of all processes, the kernel's own among them.
pub fn all() -> Vec<u32> {
    ids("/proc")
}

/// The names in a directory of `/proc` that are ids; none if it cannot be read.
fn ids(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

impl Process {
    /// Opens a process that can be recorded.
    ///
    /// # Errors
    /// It does not exist, has ended, or is part of the kernel.
    pub fn open(pid: u32) -> Result<Self, Error> {
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Error::Gone { pid })?;
        // A thread that does not lead its process has no pidfd: for us it is no process.
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).or(Err(Error::Gone { pid }))?;
        let process = Self { pid, pidfd };
        if process.state()? == 'Z' {
            return Err(Error::Zombie { pid });
        }
        if !process.has_mappings()? {
            return Err(Error::Kernel {
                pid,
                name: process.name(),
            });
        }
        Ok(process)
    }

    /// Checks that its program is one for x86-64, as far as its file can be read.
    ///
    /// # Errors
    /// It is not.
    pub fn check_machine(&self) -> Result<(), Error> {
        match self.is_x86_64() {
            Some(false) => Err(Error::Bits32 {
                pid: self.pid,
                name: self.name(),
            }),
            Some(true) | None => Ok(()),
        }
    }

    /// Name of the main thread.
    pub fn name(&self) -> String {
        self.read("comm")
            .map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
            .unwrap_or_default()
    }

    /// Its mappings.
    ///
    /// # Errors
    /// The process has ended, or we may not look.
    pub fn maps(&self) -> Result<Vec<MapEntry>, Error> {
        Ok(maps::parse(&self.read("maps")?).0)
    }

    /// Time that its threads, those included that have ended, spent on a CPU so far, in nanoseconds. A hypervisor
    /// that takes the CPU away stops this clock (kernel/sched/core.c, `update_rq_clock_task`). `None` once the process
    /// has been waited for.
    pub fn on_cpu_ns(&self) -> Option<u64> {
        let clock = clock_getcpuclockid(nix::unistd::Pid::from_raw(self.pid.cast_signed())).ok()?;
        let time = clock.now().ok()?;
        u64::try_from(Duration::from(time).as_nanos()).ok()
    }

    /// The same of one of its threads, as of the last tick of the kernel's clock (Documentation/scheduler/sched-stats.rst);
    /// `None` if that has ended.
    pub fn thread_on_cpu_ns(&self, tid: u32) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/task/{tid}/schedstat", self.pid)).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// Reads `len` bytes of its memory at `address`; looking only, through `/proc/PID/mem`.
    ///
    /// # Errors
    /// The memory is not there, or we may not look.
    pub fn memory(&self, address: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(format!("/proc/{}/mem", self.pid))?.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }

    /// The ids of its threads. Some may have ended since.
    pub fn tids(&self) -> Vec<u32> {
        ids(&format!("/proc/{}/task", self.pid))
    }

    /// The status of one of its threads; `None` if that has ended.
    pub fn status(&self, tid: u32) -> Option<Status> {
        let text = fs::read(format!("/proc/{}/task/{tid}/status", self.pid)).ok()?;
        Some(Status::parse(&text))
    }

    /// Its threads, as far as they can be looked at; none if the process has ended.
    pub fn tasks(&self) -> Vec<Task> {
        self.tids().into_iter().filter_map(|tid| self.task(tid)).collect()
    }

    /// One of its threads; `None` if it has ended.
    pub fn task(&self, tid: u32) -> Option<Task> {
        let syscall = fs::read(format!("/proc/{}/task/{tid}/syscall", self.pid));
        Some(Task {
            tid,
            status: self.status(tid)?,
            // Ptrace rights are needed for this one.
            syscall: syscall.ok().and_then(|text| Syscall::parse(&text)),
        })
    }

    /// The path of its executable, as the process sees it.
    pub fn executable(&self) -> Option<String> {
        let path = fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// Whether its executable is a 64-bit one for x86-64 (`ELFCLASS64`, `EM_X86_64`, elf(5)); `None` if it cannot be read.
    pub fn is_x86_64(&self) -> Option<bool> {
        let mut header = [0; 20];
        let file = File::open(format!("/proc/{}/exe", self.pid)).ok()?;
        file.read_exact_at(&mut header, 0).ok()?;
        Some(header[..5] == *b"\x7fELF\x02" && header[18..] == [62, 0])
    }

    /// The state letter of `/proc/PID/stat` (proc_pid_stat(5)).
    fn state(&self) -> Result<char, Error> {
        let stat = self.read("stat")?;
        // The name, in parentheses, may hold anything, parentheses included.
        let after = stat.iter().rposition(|&byte| byte == b')').map_or(0, |at| at + 2);
        Ok(stat.get(after).copied().unwrap_or(b'?').into())
    }

    /// Whether it has memory of its own. The list can be long, and one byte of it is enough.
    fn has_mappings(&self) -> Result<bool, Error> {
        const FILE: &str = "maps";
        let read = File::open(format!("/proc/{}/{FILE}", self.pid)).and_then(|mut maps| maps.read(&mut [0]));
        Ok(read.map_err(|source| self.unreadable(FILE, source))? > 0)
    }

    fn read(&self, file: &'static str) -> Result<Vec<u8>, Error> {
        fs::read(format!("/proc/{}/{file}", self.pid)).map_err(|source| self.unreadable(file, source))
    }

    fn unreadable(&self, file: &'static str, source: io::Error) -> Error {
        let pid = self.pid;
        match source.kind() {
            io::ErrorKind::NotFound => Error::Gone { pid },
            // ESRCH: it ended between open and read.
            _ if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Error::Gone { pid },
            _ => Error::Read { pid, file, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Process};
    use std::process::{Command, Stdio};

    #[test]
    fn we_are_a_process() {
        let us = Process::open(std::process::id()).expect("we exist");
        assert!(us.maps().expect("maps").len() > 5);
        let word = 0x1122_3344_5566_7788_u64;
        let read = us.memory((&raw const word).addr() as u64, 8).expect("our memory");
        assert_eq!(read, word.to_le_bytes());
    }

    #[test]
    fn what_cannot_be_recorded_is_named() {
        assert!(matches!(Process::open(0), Err(Error::Gone { .. })));
        assert!(matches!(Process::open(u32::MAX), Err(Error::Gone { .. })));
        // 2 is kthreadd where this runs on a host; in a container it does not exist.
        assert!(matches!(
            Process::open(2),
            Err(Error::Kernel { .. } | Error::Gone { .. })
        ));
        let mut child = Command::new("true")
            .stdout(Stdio::null())
            .spawn()
            .expect("true can be started");
        // It becomes a zombie as soon as it ends; its pidfd says when.
        let pidfd = super::pidfd_open(
            super::Pid::from_raw(child.id() as i32).expect("a pid"),
            super::PidfdFlags::empty(),
        )
        .expect("a pidfd");
        let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut poll, None).expect("poll");
        assert!(matches!(Process::open(child.id()), Err(Error::Zombie { .. })));
        child.wait().expect("the zombie is ours");
    }
}
