//! The facts, as the kernel gives them.

use crate::sampler::{Btf, Event, Options, Sampler, Scope};
use crate::target::status::Status;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_getres};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Capabilities that a recording needs: bit in `CapEff`, name, and what for (capabilities(7)).
const NEEDED: [(u32, &str, &str); 3] = [
    (39, "CAP_BPF", "load the BPF program"),
    (38, "CAP_PERFMON", "sample other users' processes"),
    (
        CAP_SYS_PTRACE,
        "CAP_SYS_PTRACE",
        "read the memory maps of other users' processes",
    ),
];

const CAP_SYS_PTRACE: u32 = 19;

/// Includes the first two, as in kernels before 5.8, and more than the third.
const CAP_SYS_ADMIN: u32 = 21;

/// The capabilities that a process with these lacks for a recording: name, and what for.
pub fn missing_capabilities(effective: u64) -> Vec<(&'static str, &'static str)> {
    let has = |bit: u32| effective & 1 << bit != 0;
    NEEDED
        .iter()
        .filter(|(bit, ..)| !has(*bit) && (*bit == CAP_SYS_PTRACE || !has(CAP_SYS_ADMIN)))
        .map(|(_, name, why)| (*name, *why))
        .collect()
}

/// The settings that are looked at (Documentation/admin-guide/sysctl/).
pub(super) const SYSCTLS: [&str; 6] = [
    "kernel.perf_event_max_sample_rate",
    "kernel.perf_event_paranoid",
    "kernel.unprivileged_bpf_disabled",
    "kernel.kptr_restrict",
    "kernel.yama.ptrace_scope",
    "net.core.bpf_jit_enable",
];

/// Helpers that the BPF program calls, by their names in `enum bpf_func_id` (include/uapi/linux/bpf.h), and the
/// release that they came with.
pub(super) const HELPERS: [(&str, &str); 6] = [
    ("BPF_FUNC_probe_read_kernel", "5.5"),
    ("BPF_FUNC_send_signal_thread", "5.5"),
    ("BPF_FUNC_ringbuf_output", "5.8"),
    ("BPF_FUNC_get_current_task_btf", "5.11"),
    ("BPF_FUNC_task_pt_regs", "5.15"),
    ("BPF_FUNC_loop", "5.17"),
];

/// A function of the kernel that sends a signal with a value to any thread, since Linux 6.13.
const SEND_SIGNAL_TASK: &str = "bpf_send_signal_task";

/// What the kernel's type information says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Helpers that it does not have: name, and the release that they came with.
    pub missing_helpers: Vec<(&'static str, &'static str)>,
    /// It has `bpf_send_signal_task`.
    pub send_signal_task: bool,
}

/// Whether the sampler could be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Not tried: we lack capabilities.
    NotAllowed,
    /// It could.
    Works,
    /// It could not, for this reason.
    Fails(String),
}

/// Facts about the host. `None` is what it does not have or does not tell us.
#[derive(Clone, Debug)]
pub struct Host {
    /// `uname -r`.
    pub release: String,
    /// Our capabilities in effect.
    pub capabilities: u64,
    /// We are confined to a set of system calls.
    pub seccomp: bool,
    /// The kernel's type information, or why it cannot be read.
    pub features: Result<Features, String>,
    /// The mode of the lockdown security module.
    pub lockdown: Option<String>,
    /// Values of sysctls.
    pub sysctls: BTreeMap<&'static str, i64>,
    /// We see addresses of kernel symbols.
    pub kernel_symbols: Option<bool>,
    /// How much memory we may lock, in bytes; `None` if there is no limit.
    pub locked_memory: Option<u64>,
    /// Where cgroup v2 is mounted.
    pub cgroup2: Option<&'static str>,
    /// The kernel's clock.
    pub clocksource: Option<String>,
    /// Resolution of timers, in nanoseconds.
    pub timer_resolution_ns: u64,
    /// The processor's counters.
    pub pmu: Option<&'static str>,
    /// We are in the PID namespace of the host.
    pub hosts_pids: Option<bool>,
    /// `DEBUGINFOD_URLS`.
    pub debuginfod: Option<String>,
    /// The sampler.
    pub trial: Trial,
}

impl Host {
    /// Looks at the host that this process runs on.
    pub fn look() -> Self {
        let status = Status::parse(&fs::read("/proc/self/status").unwrap_or_default());
        let capabilities = status.capabilities;
        let resolution = clock_getres(ClockId::Monotonic);
        Self {
            release: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            capabilities,
            seccomp: status.seccomp != 0,
            features: features().map_err(|error| error.to_string()),
            lockdown: line("/sys/kernel/security/lockdown").and_then(|modes| selected(&modes)),
            sysctls: SYSCTLS
                .into_iter()
                .filter_map(|name| Some((name, sysctl(name)?)))
                .collect(),
            kernel_symbols: kernel_symbols(),
            locked_memory: getrlimit(Resource::Memlock).current,
            // As systemd mounts it alone, and beside version 1.
            cgroup2: ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
                .into_iter()
                .find(|path| Path::new(path).join("cgroup.controllers").exists()),
            clocksource: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            timer_resolution_ns: (resolution.tv_sec as u64)
                .saturating_mul(1_000_000_000)
                .saturating_add(resolution.tv_nsec as u64),
            // Processors with two kinds of cores have cpu_core and cpu_atom instead.
            pmu: ["cpu", "cpu_core"]
                .into_iter()
                .find(|name| Path::new("/sys/bus/event_source/devices").join(name).exists()),
            hosts_pids: hosts_pids(),
            debuginfod: std::env::var("DEBUGINFOD_URLS")
                .ok()
                .filter(|urls| !urls.trim().is_empty()),
            trial: if missing_capabilities(capabilities).is_empty() {
                trial()
            } else {
                Trial::NotAllowed
            },
        }
    }
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|line| !line.is_empty())
}

fn sysctl(name: &str) -> Option<i64> {
    line(&format!("/proc/sys/{}", name.replace('.', "/")))?
        .parse()
        .ok()
}

/// The word in brackets of `none [integrity] confidentiality`.
fn selected(modes: &str) -> Option<String> {
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn features() -> io::Result<Features> {
    let btf = Btf::of_kernel()?;
    Ok(Features {
        missing_helpers: HELPERS
            .into_iter()
            .filter(|(helper, _)| !btf.has_enumerator(helper))
            .collect(),
        send_signal_task: btf.function(SEND_SIGNAL_TASK).is_some(),
    })
}

/// The kernel writes zeros to those who shall not know (kernel.kptr_restrict). Before Linux 6.15 the list begins with variables
/// of CPUs, which are at 0 and a little above for everybody.
fn kernel_symbols() -> Option<bool> {
    let file = fs::File::open("/proc/kallsyms").ok()?;
    shows_addresses(BufReader::new(file))
}

/// `None` if there is no function in the list.
fn shows_addresses(list: impl BufRead) -> Option<bool> {
    let mut lines = list.lines().map_while(Result::ok);
    // `ADDRESS TYPE NAME`; t and T are code (nm(1)).
    lines.find_map(|line| {
        let (address, rest) = line.split_once(' ')?;
        rest.starts_with(['t', 'T'])
            .then(|| address.bytes().any(|digit| digit != b'0'))
    })
}

/// Whether we are in the PID namespace of the host; `None` if that cannot be seen.
///
/// The inode of the first PID namespace is fixed (include/linux/proc_ns.h, `PROC_PID_INIT_INO`).
pub fn hosts_pids() -> Option<bool> {
    const PROC_PID_INIT_INO: u64 = 0xefff_fffc;
    let namespace = fs::metadata("/proc/self/ns/pid").ok()?;
    Some(namespace.ino() == PROC_PID_INIT_INO)
}

/// Starts a sampler that watches no process, and stops it.
fn trial() -> Trial {
    let options = Options {
        frequency_hz: 99,
        max_frames: 512,
        kernel_frames: true,
        follow_children: false,
        scope: Scope::Listed,
        event: Event::Tick,
    };
    let started = Sampler::load(options).and_then(|(mut sampler, _tables)| {
        sampler.follow()?;
        sampler.start()
    });
    match started {
        Ok(()) => Trial::Works,
        Err(error) => Trial::Fails(with_causes(&error)),
    }
}

fn with_causes(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_causes(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{missing_capabilities, selected, shows_addresses};

    #[test]
    fn only_addresses_of_functions_say_whether_addresses_are_shown() {
        let shown = "0000000000000000 A fixed_percpu_data\nffffffffa8a00000 T startup_64\n";
        assert_eq!(shows_addresses(shown.as_bytes()), Some(true));
        let hidden = "0000000000000000 A fixed_percpu_data\n0000000000000000 T startup_64\n";
        assert_eq!(shows_addresses(hidden.as_bytes()), Some(false));
        assert_eq!(shows_addresses("".as_bytes()), None);
    }

    #[test]
    fn nothing_is_missing_for_root() {
        assert!(missing_capabilities(0x1ff_ffff_ffff).is_empty());
    }

    #[test]
    fn an_ordinary_user_lacks_all_three() {
        let names: Vec<_> = missing_capabilities(0).iter().map(|m| m.0).collect();
        assert_eq!(names, ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
    }

    #[test]
    fn the_old_capability_for_everything_does_except_for_memory() {
        let names: Vec<_> = missing_capabilities(1 << 21).iter().map(|m| m.0).collect();
        assert_eq!(names, ["CAP_SYS_PTRACE"]);
    }

    #[test]
    fn the_mode_of_lockdown_is_the_word_in_brackets() {
        let mode = selected("none [integrity] confidentiality");
        assert_eq!(mode.as_deref(), Some("integrity"));
        assert_eq!(selected("none"), None);
    }
}
