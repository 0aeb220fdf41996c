//! From facts to findings. Pure.

use super::host::{Host, Trial, missing_capabilities};
use super::{Check, State};

/// The first release with everything that the BPF program needs: `bpf_loop`.
const OLDEST_KERNEL: (u32, u32) = (5, 17);

/// Samples per second that a recording takes if nothing else is asked for.
const DEFAULT_HZ: i64 = 99;

/// Tracing other processes is off until the next boot (Documentation/admin-guide/LSM/Yama.rst).
const NO_ATTACH: i64 = 3;

/// Clocks that are read without leaving the processor.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen"];

/// Everything that was looked at, what recordings need first.
pub fn checks(host: &Host) -> Vec<Check> {
    vec![
        kernel(host),
        capabilities(host),
        type_information(host),
        helpers(host),
        lockdown(host),
        sample_rate(host),
        trial(host),
        kernel_symbols(host),
        ptrace_scope(host),
        pids(host),
        jit(host),
        clock(host),
        timers(host),
        cgroup2(host),
        seccomp(host),
        send_signal_task(host),
        sysctl_note(host, "perf_event_paranoid", "kernel.perf_event_paranoid"),
        sysctl_note(
            host,
            "unprivileged_bpf_disabled",
            "kernel.unprivileged_bpf_disabled",
        ),
        locked_memory(host),
        pmu(host),
        debuginfod(host),
    ]
}

fn check(name: &'static str, state: State, found: impl Into<String>) -> Check {
    Check {
        name,
        state,
        found: found.into(),
        remedy: None,
    }
}

impl Check {
    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

fn kernel(host: &Host) -> Check {
    let found = format!("Linux {}", host.release);
    match version(&host.release) {
        Some(version) if version < OLDEST_KERNEL => check("kernel", State::Fails, found).remedy(format!(
            "a kernel of at least {}.{}; Debian 12 has 6.1",
            OLDEST_KERNEL.0, OLDEST_KERNEL.1
        )),
        Some(_) => check("kernel", State::Good, found),
        None => check("kernel", State::Open, found),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn capabilities(host: &Host) -> Check {
    let missing = missing_capabilities(host.capabilities);
    if missing.is_empty() {
        return check("capabilities", State::Good, "all that are needed");
    }
    let names: Vec<String> = missing
        .iter()
        .map(|(name, why)| format!("{name} (to {why})"))
        .collect();
    check("capabilities", State::Fails, format!("without {}", names.join(", "))).remedy(
        "run profiler with sudo, or once: sudo setcap \
         cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep PATH-OF-PROFILER; in a container: --privileged, or \
         --cap-add for each",
    )
}

fn type_information(host: &Host) -> Check {
    match &host.features {
        Ok(_) => check("btf", State::Good, "the kernel describes its types"),
        Err(problem) => check(
            "btf",
            State::Fails,
            format!("/sys/kernel/btf/vmlinux cannot be read: {problem}"),
        )
        .remedy(
            "a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build them; in a container: mount /sys",
        ),
    }
}

fn helpers(host: &Host) -> Check {
    let Ok(features) = &host.features else {
        return check("bpf_helpers", State::Open, "not known without BTF");
    };
    if features.missing_helpers.is_empty() {
        return check(
            "bpf_helpers",
            State::Good,
            "ring buffer, bpf_loop and all others that are called",
        );
    }
    let names: Vec<String> = features
        .missing_helpers
        .iter()
        .map(|(name, since)| format!("{} (Linux {since})", name.replacen("BPF_FUNC_", "bpf_", 1)))
        .collect();
    check(
        "bpf_helpers",
        State::Fails,
        format!("without {}", names.join(", ")),
    )
    .remedy("a newer kernel")
}

fn lockdown(host: &Host) -> Check {
    match host.lockdown.as_deref() {
        Some("confidentiality") => check(
            "lockdown",
            State::Fails,
            "confidentiality: BPF may not read memory",
        )
        .remedy("boot with lockdown=integrity, or without lockdown= and Secure Boot"),
        Some(mode) => check("lockdown", State::Good, format!("{mode}: does not matter")),
        None => check("lockdown", State::Good, "none"),
    }
}

fn sample_rate(host: &Host) -> Check {
    const NAME: &str = "kernel.perf_event_max_sample_rate";
    match host.sysctls.get(NAME) {
        Some(&hz) if hz < DEFAULT_HZ => check("sample_rate", State::Fails, format!("at most {hz} Hz"))
            .remedy(format!("sysctl -w {NAME}=100000")),
        Some(hz) => check("sample_rate", State::Good, format!("up to {hz} Hz")),
        None => check("sample_rate", State::Fails, "the kernel has no perf events")
            .remedy("a kernel with CONFIG_PERF_EVENTS=y"),
    }
}

fn trial(host: &Host) -> Check {
    match &host.trial {
        Trial::Works => check(
            "trial",
            State::Good,
            "the BPF program was loaded and the sampling clock started",
        ),
        Trial::Fails(problem) => {
            let trial = check("trial", State::Fails, problem);
            if host.seccomp {
                trial.remedy("this process has a filter for system calls: in a container, --security-opt seccomp=unconfined")
            } else {
                trial.remedy("see what else fails here; if nothing does, please report it with this output")
            }
        }
        Trial::NotAllowed => {
            check("trial", State::Open, "not tried without the capabilities").remedy("sudo profiler doctor")
        }
    }
}

fn kernel_symbols(host: &Host) -> Check {
    let restrict = host.sysctls.get("kernel.kptr_restrict");
    match host.kernel_symbols {
        Some(true) => check("kernel_symbols", State::Good, "kernel functions have names"),
        Some(false) => {
            let setting = restrict.map_or_else(String::new, |n| format!(" (kernel.kptr_restrict is {n})"));
            check(
                "kernel_symbols",
                State::Lacks,
                format!("kernel functions have no names: their addresses are hidden{setting}"),
            )
            .remedy(match restrict {
                Some(2..) => "sudo sysctl -w kernel.kptr_restrict=1, and run profiler with sudo",
                _ => "run profiler with sudo, or give it CAP_SYSLOG",
            })
        }
        None => check("kernel_symbols", State::Lacks, "/proc/kallsyms cannot be read")
            .remedy("a kernel with CONFIG_KALLSYMS=y"),
    }
}

fn ptrace_scope(host: &Host) -> Check {
    match host.sysctls.get("kernel.yama.ptrace_scope") {
        Some(&scope) if scope >= NO_ATTACH => check(
            "ptrace_scope",
            State::Lacks,
            format!(
                "kernel.yama.ptrace_scope is {scope}: no process may read another's memory, so the Go runtime in it \
                 cannot be seen and its hooks cannot be asked"
            ),
        )
        .remedy("set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d and reboot: it cannot be lowered"),
        Some(scope) => check(
            "ptrace_scope",
            State::Good,
            format!("{scope}: CAP_SYS_PTRACE is enough"),
        ),
        None => check("ptrace_scope", State::Good, "not restricted"),
    }
}

fn pids(host: &Host) -> Check {
    match host.hosts_pids {
        Some(false) => check(
            "pid_namespace",
            State::Lacks,
            "this is a PID namespace inside another: processes outside of it cannot be named",
        )
        .remedy("run profiler on the host, or the container with --pid=host"),
        Some(true) => check("pid_namespace", State::Good, "that of the host"),
        None => check("pid_namespace", State::Open, "/proc/self/ns cannot be read"),
    }
}

fn jit(host: &Host) -> Check {
    const NAME: &str = "net.core.bpf_jit_enable";
    match host.sysctls.get(NAME) {
        Some(0) => check(
            "bpf_jit",
            State::Lacks,
            "off: the BPF program is interpreted, and each sample costs many times as much",
        )
        .remedy(format!("sudo sysctl -w {NAME}=1")),
        Some(_) => check("bpf_jit", State::Good, "on"),
        None => check("bpf_jit", State::Open, format!("{NAME} can be read by root only")),
    }
}

fn clock(host: &Host) -> Check {
    match host.clocksource.as_deref() {
        Some(clock) if FAST_CLOCKS.contains(&clock) => check("clock", State::Good, clock),
        Some(clock) => check(
            "clock",
            State::Lacks,
            format!("{clock}, which is slow to read: samples cost more"),
        )
        .remedy(
            "see `dmesg | grep -i tsc` for why the kernel does not use the processor's clock; tsc=reliable on its \
             command line, if you know that it is",
        ),
        None => check("clock", State::Open, "not known"),
    }
}

fn timers(host: &Host) -> Check {
    let found = format!("resolution {} ns", host.timer_resolution_ns);
    // Documentation/timers/highres.rst: without high resolution it is that of the tick.
    if host.timer_resolution_ns <= 1 {
        check("timers", State::Good, found)
    } else {
        check(
            "timers",
            State::Lacks,
            format!("{found}: samples are taken at the kernel's tick"),
        )
        .remedy("boot without highres=off, with a kernel with CONFIG_HIGH_RES_TIMERS=y")
    }
}

fn cgroup2(host: &Host) -> Check {
    match host.cgroup2 {
        Some(path) => check("cgroup2", State::Good, format!("mounted at {path}")),
        None => check(
            "cgroup2",
            State::Lacks,
            "not mounted: control groups cannot be recorded",
        )
        .remedy("sudo mkdir -p /sys/fs/cgroup/unified && sudo mount -t cgroup2 none /sys/fs/cgroup/unified"),
    }
}

fn seccomp(host: &Host) -> Check {
    let found = if host.seccomp {
        "this process has a filter for system calls, as in a container; it may refuse some that recordings need"
    } else {
        "no filter for system calls"
    };
    check("seccomp", State::Note, found)
}

fn send_signal_task(host: &Host) -> Check {
    const NAME: &str = "bpf_send_signal_task";
    match &host.features {
        Err(_) => check(NAME, State::Open, "not known without BTF"),
        Ok(features) if features.send_signal_task => check(
            NAME,
            State::Good,
            "an answer of a hook says which sample it is for",
        ),
        Ok(_) => check(
            NAME,
            State::Lacks,
            "none: which sample an answer of a hook is for is told by its thread and instruction",
        )
        .remedy("Linux 6.13, if hooks are asked"),
    }
}

fn sysctl_note(host: &Host, name: &'static str, sysctl: &'static str) -> Check {
    match host.sysctls.get(sysctl) {
        Some(value) => check(
            name,
            State::Note,
            format!("{value}: does not matter to those with the capabilities"),
        ),
        None => check(name, State::Note, "the kernel does not have this setting"),
    }
}

fn locked_memory(host: &Host) -> Check {
    let limit = match host.locked_memory {
        Some(bytes) => format!("{} KiB", bytes / 1024),
        None => "no limit".to_owned(),
    };
    // include/linux/bpf.h since Linux 5.11: the memory of BPF counts for its control group.
    check(
        "locked_memory",
        State::Note,
        format!("{limit}: does not matter since Linux 5.11"),
    )
}

fn pmu(host: &Host) -> Check {
    let found = match host.pmu {
        Some(name) => format!("the processor's counters are there ({name}); samples are taken by the kernel's clock"),
        None => "no counters of the processor, as in most virtual machines; samples are taken by the kernel's clock"
            .to_owned(),
    };
    check("pmu", State::Note, found)
}

fn debuginfod(host: &Host) -> Check {
    let found = match &host.debuginfod {
        Some(urls) => format!("DEBUGINFOD_URLS is {urls}"),
        None => "DEBUGINFOD_URLS is not set: debug information comes from this host only".to_owned(),
    };
    check("debuginfod", State::Note, found)
}
