//! One recording, from the first look at the targets to a finished profile.
//!
//! ```text
//! objects   files that targets have mapped: names, tables of unwind rules
//! loader    reads those files on a thread of its own
//! images    program images: which object is where, generation by generation
//! targets   keeps the tables in step with the processes
//! collect   samples as they come: counted by distinct stack of places in objects
//! finish    places get names, once each; counts become a profile
//! ```

mod collect;
mod facts;
mod finish;
mod images;
mod loader;
mod objects;
mod session;
mod targets;

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
    /// Waiting for the BPF side failed.
    #[error("cannot wait for samples")]
    Wait(#[source] std::io::Error),
}
