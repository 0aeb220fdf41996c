//! The only way out of the library besides results: what happens during a recording, for whoever shows it.

use std::time::Duration;

/// Hears what happens. Every method has an empty default: take what you need.
pub trait Observer: Send {
    /// Sampling has begun.
    fn started(&mut self) {}

    /// Called a few times per second during a recording.
    fn progress(&mut self, _elapsed: Duration, _samples: u64, _lost: u64) {}

    /// Something that the user should know, but that does not end the recording. A whole sentence, without the
    /// final stop; names from the target are not escaped.
    fn warning(&mut self, _message: &str) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
