//! What we are allowed to do, found out before the kernel says no in a less helpful way.

use anyhow::{Result, bail};
use profiler::doctor::missing_capabilities;
use profiler::target::status::Status;

/// Checks our capabilities.
///
/// # Errors
/// Some are missing; the message names them.
pub fn capabilities() -> Result<()> {
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(Status::parse(&status).capabilities);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing
        .iter()
        .map(|(name, why)| format!("{name} (to {why})"))
        .collect();
    bail!(Missing(names.join(", ")));
}

/// Capabilities that are missing, in words.
#[derive(Debug, thiserror::Error)]
#[error("cannot record: this process lacks {0}")]
pub struct Missing(String);
