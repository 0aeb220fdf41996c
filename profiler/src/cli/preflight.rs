//! What we are allowed to do, found out before the kernel says no in a less helpful way.

use anyhow::{Result, bail};
use profiler::target::status::Status;

/// Capabilities that a recording needs: bit in `CapEff`, name, and what for (capabilities(7)).
const NEEDED: [(u32, &str, &str); 3] = [
    (39, "CAP_BPF", "load the BPF program"),
    (38, "CAP_PERFMON", "sample other users' processes"),
    (
        19,
        "CAP_SYS_PTRACE",
        "read the memory maps of other users' processes",
    ),
];

/// `CAP_SYS_ADMIN` includes the first two, as in kernels before 5.8, and more than the third.
const CAP_SYS_ADMIN: u32 = 21;

/// Checks our capabilities.
///
/// # Errors
/// Some are missing; the message names them.
pub fn capabilities() -> Result<()> {
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    let missing = missing(Status::parse(&status).capabilities);
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

fn missing(effective: u64) -> Vec<(&'static str, &'static str)> {
    let has = |bit: u32| effective & 1 << bit != 0;
    NEEDED
        .iter()
        .filter(|(bit, ..)| !has(*bit) && (*bit == 19 || !has(CAP_SYS_ADMIN)))
        .map(|(_, name, why)| (*name, *why))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn nothing_is_missing_for_root() {
        assert!(missing(0x1ff_ffff_ffff).is_empty());
    }

    #[test]
    fn an_ordinary_user_lacks_all_three() {
        let names: Vec<_> = missing(0).iter().map(|m| m.0).collect();
        assert_eq!(names, ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
    }

    #[test]
    fn the_old_capability_for_everything_does_except_for_memory() {
        let names: Vec<_> = missing(1 << 21).iter().map(|m| m.0).collect();
        assert_eq!(names, ["CAP_SYS_PTRACE"]);
    }
}
