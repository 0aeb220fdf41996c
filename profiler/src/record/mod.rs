//! One recording, from the first look at the targets to a finished profile.
//!
//! ```text
//! objects   files that targets have mapped: names, tables of unwind rules
//! loader    reads those files on a thread of its own
//! images    program images: which object is where, generation by generation
//! targets   keeps the tables in step with the processes
//! collect   samples as they come: counted by distinct stack of places in objects
//! breaker   when hooks of a process are not called any more
//! hooks     honours the traceback hooks of processes: samples wait for their answers
//! naming    asks the symbolizers of programs for the names of what their hooks gave
//! fetching  gets debug files from servers, if the user names any
//! finish    places get names, once each; counts become a profile
//! ```

mod breaker;
mod collect;
mod facts;
mod fetching;
mod finish;
mod hooks;
mod images;
mod loader;
mod naming;
mod objects;
mod session;
mod targets;

pub use hooks::Mode as HookMode;
pub use session::{Ended, Options, Session};

use crate::{sampler, target};

/// Why a recording could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can be sampled here.
    #[error(transparent)]
    Sampler(#[from] sampler::Error),
    /// A target cannot be looked at.
    #[error(transparent)]
    Target(#[from] target::process::Error),
    /// Hooks were to be honoured, and cannot be.
    #[error("the traceback hooks of process {pid} cannot be honoured: {reason}")]
    Hooks {
        /// The process.
        pid: u32,
        /// Why.
        reason: String,
    },
    /// Waiting for the BPF side failed.
    #[error("cannot wait for samples")]
    Wait(#[source] std::io::Error),
}
