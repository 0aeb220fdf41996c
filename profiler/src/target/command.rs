//! Starting a command so that nothing of it is missed: it stands at its first instruction until told to go.

use super::sys;
use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, ExitStatus};

/// A command that has been started and stands at its first instruction. It is killed when this is dropped: let go, it would
/// run unseen.
#[derive(Debug)]
pub struct StoppedCommand {
    /// `None` once it runs.
    child: Option<Child>,
    pid: u32,
}

/// A command that runs.
#[derive(Debug)]
pub struct RunningCommand {
    child: Child,
}

impl StoppedCommand {
    /// Starts `program`. It inherits everything from us.
    ///
    /// # Errors
    /// The program cannot be started; the system's cause.
    pub fn start(program: &OsString, arguments: &[OsString]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        let child = sys::spawn_stopped(&mut command)?;
        Ok(Self {
            pid: child.id(),
            child: Some(child),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it run, without any tie to us that others have not.
    ///
    /// # Errors
    /// The kernel refused, because somebody killed it.
    pub fn resume(mut self) -> io::Result<RunningCommand> {
        sys::detach(self.pid)?;
        let child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        Ok(RunningCommand { child })
    }
}

impl Drop for StoppedCommand {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have been killed by others.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl RunningCommand {
    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        sys::terminate(self.child.id());
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It has been waited for already.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}
