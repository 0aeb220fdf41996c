//! Results that are read in a pipe: a reader that has seen enough, as `head` has, is no error.

use anyhow::{Context, Result};
use std::io::{self, ErrorKind, Write};

/// Writes to standard output.
///
/// # Errors
/// It cannot be written, other than for want of a reader.
pub fn write(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
