//! One look at a running process: what is in it, which traceback hooks it has, and whether they can be honoured.
//!
//! ```text
//! objects  the files that it has mapped: names, Go tables, how much of their code has unwind rules
//! hooks    the Go runtime in one of them: hooks by name, threads with live contexts
//! table    or a table by which a program without Go publishes hooks
//! text     all that for a terminal
//! json     all that for programs
//! ```
//!
//! The process is only looked at, and does not notice.

mod hooks;
pub mod json;
mod objects;
mod table;
pub mod text;

#[cfg(test)]
mod testing;

pub use hooks::{GoProgram, NamedHooks};
pub use objects::{Code, Covered, Place};
pub use table::{PublishedHooks, PublishedTable};

use crate::target::calls::SystemCalls;
use crate::target::preflight::{Condition, Facts, Runtime, Verdict, verdict};
use crate::target::process::{self, Process};
use objects::Objects;

/// What was seen.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The process.
    pub pid: u32,
    /// Name of its main thread.
    pub program: String,
    /// Path of its executable, as the process sees it.
    pub executable: Option<String>,
    /// How many threads it has.
    pub threads: usize,
    /// Its Go runtime.
    pub go: Go,
    /// The table by which it publishes hooks, if it has no Go runtime.
    pub table: Option<PublishedTable>,
    /// Its code, in the order of its mappings.
    pub code: Vec<Code>,
    /// What honouring hooks depends on.
    pub conditions: Vec<Condition>,
}

/// The Go runtime of a process.
#[derive(Clone, Debug)]
pub enum Go {
    /// It has none.
    Absent,
    /// It has one that cannot be used.
    NotUnderstood {
        /// The object that it is in.
        object: String,
        /// Why: a whole sentence without the final stop.
        problem: String,
    },
    /// It has one.
    Found(Box<GoProgram>),
}

impl Inspection {
    /// Looks at a process.
    ///
    /// # Errors
    /// It has ended, or we may not look.
    pub fn of(process: &Process) -> Result<Self, process::Error> {
        let mut objects = Objects::read(process)?;
        let (go, futex) = hooks::find(process, &mut objects);
        let table = match go {
            Go::Absent => table::find(process, &objects),
            Go::NotUnderstood { .. } | Go::Found(_) => None,
        };
        let facts = Facts::read(process, runtime(process, &go, table.as_ref()), futex);
        Ok(Self {
            pid: process.pid,
            program: process.name(),
            executable: process.executable(),
            threads: facts.state.tasks.len(),
            conditions: facts.conditions(),
            go,
            table,
            code: objects.into_code(),
        })
    }

    /// Whether hooks can be honoured.
    pub fn verdict(&self) -> Verdict<'_> {
        verdict(&self.conditions)
    }
}

/// What the conditions need to know.
fn runtime(process: &Process, go: &Go, table: Option<&PublishedTable>) -> Runtime {
    let found = match go {
        Go::Absent => {
            return match table.map(|table| &table.hooks) {
                None => Runtime::Absent,
                Some(Err(problem)) => Runtime::NotUnderstood(problem.clone()),
                Some(Ok(hooks)) => Runtime::Table {
                    traceback: hooks.traceback.as_ref().map(|place| place.address),
                    calls: SystemCalls::find(process),
                },
            };
        }
        Go::NotUnderstood { problem, .. } => return Runtime::NotUnderstood(problem.clone()),
        Go::Found(found) => found,
    };
    match &found.hooks {
        Err(problem) => Runtime::NotUnderstood(problem.clone()),
        Ok(hooks) => Runtime::Understood {
            cgo: found.cgo,
            layout: found.layout_source,
            hooks: hooks.as_ref().map(NamedHooks::addresses),
            threads: found.threads.as_ref().ok().cloned(),
        },
    }
}
