//! What we are allowed to do, found out before the kernel says no in a less helpful way.

use anyhow::{Result, bail};
use profiler::doctor::{hosts_pids, missing_capabilities};
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

/// Checks that the ids of processes that we see are those that the kernel samples them by.
///
/// # Errors
/// They are not.
pub fn pid_namespace() -> Result<()> {
    match hosts_pids() {
        Some(false) => bail!(OtherPids),
        Some(true) | None => Ok(()),
    }
}

/// We are in a PID namespace inside another.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot record: this is a PID namespace inside another, as in a container, and samples carry the ids that processes \
     have outside"
)]
pub struct OtherPids;

/// Capabilities that are missing, in words.
#[derive(Debug, thiserror::Error)]
#[error("cannot record: this process lacks {0}")]
pub struct Missing(String);
