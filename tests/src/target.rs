//! Runs a program to be profiled.
//!
//! Every program speaks the same few lines: `ready PID` once its work runs, and, when its standard input closes
//! or SIGTERM comes, `checksum VALUE ITERATIONS`. The value is that of one round of its work and does not depend
//! on how many there were, so it is the same in every run that nobody disturbed.

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    pid: u32,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The value of one round of its work.
    pub checksum: String,
    /// How many rounds there were.
    pub iterations: u64,
    /// Its exit status.
    pub status: ExitStatus,
}

impl Target {
    /// Starts a program and waits until its work runs. The command may also be one that starts the program.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("it has no standard output")?);
        let mut target = Self {
            child,
            stdin,
            stdout,
            pid: 0,
        };
        let line = target.read_line()?;
        let pid = line.strip_prefix("ready ").and_then(|pid| pid.parse().ok());
        let pid = pid.with_context(|| format!("{command:?} did not say that it is ready but {line:?}"))?;
        target.pid = outside(target.child.id(), pid).unwrap_or(pid);
        Ok(target)
    }

    /// The process id that the program gave, as it is seen here.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives the program a line of standard input.
    pub fn command(&mut self, line: &str) -> Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .context("the program's standard input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("the program does not read {line:?}"))
    }

    /// Waits for a line of the program's standard output.
    pub fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the program ended");
        Ok(line.trim_end().to_owned())
    }

    /// Lets the program work for a while; an error if it ends or says something.
    pub fn work_for(&mut self, time: Duration) -> Result<()> {
        let timeout = Timespec::try_from(time)?;
        let mut output = [PollFd::new(self.stdout.get_ref(), PollFlags::IN)];
        match poll(&mut output, Some(&timeout))? {
            0 => Ok(()),
            _ => bail!("the program stopped its work: {}", self.read_line()?),
        }
    }

    /// Sends the program SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill_process(self.id()?, Signal::TERM)?)
    }

    /// Ends the work by closing the program's standard input, and waits for the end.
    pub fn finish(mut self) -> Result<Finished> {
        self.stdin = None;
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> Result<Finished> {
        let line = self.read_line().context("there was no checksum")?;
        let status = self.child.wait()?;
        let mut words = line.split(' ');
        let (Some("checksum"), Some(checksum), Some(iterations)) = (words.next(), words.next(), words.next())
        else {
            bail!("not a checksum: {line:?} ({status})");
        };
        Ok(Finished {
            checksum: checksum.to_owned(),
            iterations: iterations.parse()?,
            status,
        })
    }

    fn id(&self) -> Result<Pid> {
        Pid::from_raw(self.pid.cast_signed()).context("the program has no process id")
    }
}

/// The process that calls itself `inside` in its PID namespace: `child`, or what that has started.
fn outside(child: u32, inside: u32) -> Option<u32> {
    let mut pids = vec![child];
    while let Some(pid) = pids.pop() {
        // `NSpid: OUTSIDE … INSIDE` (proc_pid_status(5)).
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        if ids.and_then(|ids| ids.split_ascii_whitespace().last()) == Some(&inside.to_string()) {
            return Some(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pids.extend(
            children
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    None
}

/// Ends a process, unless it has been waited for: only until then its id is its own.
pub fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::Target;
    use crate::{cpu_time, programs};
    use std::time::Duration;

    #[test]
    fn a_program_gives_the_same_checksum_however_it_is_ended() {
        let program = programs::native("c_deep/c_deep.c").unwrap();
        let closed = Target::start(program.command()).unwrap().finish().unwrap();
        let mut target = Target::start(program.command()).unwrap();
        target.terminate().unwrap();
        let terminated = target.wait().unwrap();
        assert!(closed.status.success() && terminated.status.success());
        assert_eq!(closed.checksum, terminated.checksum);
    }

    #[test]
    fn a_program_that_cannot_start_its_work_is_an_error() {
        // Without the library that it asks for.
        let program = programs::native("dlopen_late/dlopen_late.c").unwrap();
        assert!(Target::start(program.command()).is_err());
        let mut command = program.command();
        command.arg("/missing/library.so");
        let mut target = Target::start(command).unwrap();
        target.command("load").unwrap();
        assert!(target.work_for(Duration::from_secs(60)).is_err());
    }

    #[test]
    fn busy_threads_are_on_cpu_all_the_time() {
        let mut command = programs::native("busy_threads/busy_threads.c").unwrap().command();
        command.arg("2");
        let mut target = Target::start(command).unwrap();
        let before = cpu_time::on_cpu(target.pid()).unwrap();
        target.work_for(Duration::from_millis(200)).unwrap();
        let spent = cpu_time::on_cpu(target.pid()).unwrap() - before;
        // How much depends on what else runs; that it cannot be more than two CPUs gave does not.
        assert!(spent > Duration::ZERO);
        assert!(target.finish().unwrap().iterations > 0);
    }
}
