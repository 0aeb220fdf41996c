//! What can be done about an error: one table from causes to advice.

use super::preflight::{Missing, OtherPids};
use profiler::target::process;
use profiler::{record, sampler};
use std::io::ErrorKind;

/// Advice for the error or one of its causes.
pub fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(of_cause)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if cause.is::<Missing>() {
        return Some(
            "run it with sudo, or give the binary the capabilities: \
             sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep PATH"
                .into(),
        );
    }
    match cause.downcast_ref::<record::Error>() {
        Some(record::Error::Target(error)) => return of_cause(error),
        Some(record::Error::Sampler(error)) => return of_cause(error),
        _ => {}
    }
    if cause.is::<OtherPids>() {
        return Some("run it on the host, or the container with --pid=host".into());
    }
    if let Some(error) = cause.downcast_ref::<process::Error>() {
        return match error {
            process::Error::Gone { pid } if thread_of(*pid).is_some() => Some(format!(
                "{pid} is a thread of process {}: give that",
                thread_of(*pid)?
            )),
            process::Error::Gone { pid } => Some(match namesake(*pid) {
                Some((here, name)) => format!(
                    "a process ({name}) of another PID namespace, as containers have, is called {pid} there; here it is {here}: give that"
                ),
                None => "see `ps -e` for the processes there are".into(),
            }),
            process::Error::Zombie { pid } => Some(match parent(*pid) {
                Some((parent, name)) => format!(
                    "nothing of it is left to record; its parent, process {parent} ({name}), has to wait for it"
                ),
                None => "nothing of it is left to record".into(),
            }),
            process::Error::Kernel { .. } => Some(
                "what the kernel does for a program is in the recording of that: its kernel frames".into(),
            ),
            process::Error::Bits32 { .. } => {
                Some("build it for x86-64; with frame pointers, `perf record -g` follows it as it is".into())
            }
            process::Error::Read { source, .. } if source.kind() == ErrorKind::PermissionDenied => Some(
                "run it with sudo: to look at other users' processes takes root or CAP_SYS_PTRACE".into(),
            ),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<sampler::Error>() {
        return match error {
            sampler::Error::Btf(_) | sampler::Error::BtfField { .. } => {
                Some("the kernel has to be built with CONFIG_DEBUG_INFO_BTF=y, as distributions do".into())
            }
            _ => Some("`sudo profiler doctor` says what this host allows".into()),
        };
    }
    None
}

/// The process that thread `tid` belongs to, if it is a thread other than the first.
fn thread_of(tid: u32) -> Option<u32> {
    let tgid = field(&status(tid)?, "Tgid")?.parse().ok()?;
    (tgid != tid).then_some(tgid)
}

/// The parent of process `pid`: its id and its name.
fn parent(pid: u32) -> Option<(u32, String)> {
    let parent = field(&status(pid)?, "PPid")?.parse().ok()?;
    Some((parent, field(&status(parent)?, "Name")?.to_owned()))
}

/// A process that has the id `pid` in another PID namespace: its id here, and its name.
fn namesake(pid: u32) -> Option<(u32, String)> {
    let pids = process::all().into_iter();
    pids.filter_map(|here| Some((here, status(here)?)))
        .find(|(_, status)| {
            // From ours to the innermost (proc_pid_status(5)).
            let ids = field(status, "NSpid").unwrap_or_default().split_whitespace();
            ids.skip(1).any(|id| id.parse() == Ok(pid))
        })
        .and_then(|(here, status)| Some((here, field(&status, "Name")?.to_owned())))
}

fn status(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    let of_line = |line: &'s str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(of_line).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::of;
    use profiler::sampler;

    #[test]
    fn whoever_cannot_sample_is_sent_to_the_doctor() {
        let error = anyhow::Error::from(sampler::Error::NotOurs { what: "map" }).context("cannot record");
        assert!(of(&error).is_some_and(|hint| hint.contains("profiler doctor")));
        let btf = sampler::Error::Btf(std::io::ErrorKind::NotFound.into());
        assert!(of(&btf.into()).is_some_and(|hint| hint.contains("CONFIG_DEBUG_INFO_BTF")));
        let inside = profiler::record::Error::Sampler(sampler::Error::NotOurs { what: "map" });
        assert!(of(&inside.into()).is_some_and(|hint| hint.contains("profiler doctor")));
        assert!(of(&anyhow::anyhow!("something else")).is_none());
    }
}
