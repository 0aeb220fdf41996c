//! Starting a command so that nothing of it is missed: it stands at its first instruction until told to go.

use super::sys;
use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, ExitStatus};

/// A command that has been started and stands at its first instruction.
#[derive(Debug)]
pub struct StoppedCommand {
    child: Child,
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
        Ok(Self { child })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it run, without any tie to us that others have not.
    ///
    /// # Errors
    /// The kernel refused, because somebody killed it.
    pub fn resume(self) -> io::Result<RunningCommand> {
        sys::detach(self.child.id())?;
        Ok(RunningCommand { child: self.child })
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
