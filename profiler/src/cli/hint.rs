//! What can be done about an error: one table from causes to advice.

use super::preflight::Missing;
use profiler::sampler;
use profiler::target::process;
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
    if let Some(error) = cause.downcast_ref::<process::Error>() {
        return match error {
            process::Error::Gone { pid } if thread_of(*pid).is_some() => Some(format!(
                "{pid} is a thread of process {}: give that",
                thread_of(*pid)?
            )),
            process::Error::Gone { .. } => Some("see `ps -e` for the processes there are".into()),
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
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let tgid = status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())?;
    (tgid != tid).then_some(tgid)
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
        assert!(of(&anyhow::anyhow!("something else")).is_none());
    }
}
