use super::host::{Features, HELPERS, SYSCTLS};
use super::{Check, Host, State, Trial, can_record, checks, json, text};

/// A host on which everything is as it should be.
fn good() -> Host {
    Host {
        release: "6.12.41+deb13-amd64".to_owned(),
        capabilities: 0x1ff_ffff_ffff,
        seccomp: false,
        features: Ok(Features {
            missing_helpers: Vec::new(),
            send_signal_task: true,
        }),
        lockdown: Some("none".to_owned()),
        sysctls: SYSCTLS.into_iter().zip([100_000, 3, 2, 0, 1, 1]).collect(),
        kernel_symbols: Some(true),
        locked_memory: Some(8 << 20),
        cgroup2: Some("/sys/fs/cgroup"),
        clocksource: Some("tsc".to_owned()),
        timer_resolution_ns: 1,
        pmu: Some("cpu"),
        hosts_pids: Some(true),
        debuginfod: None,
        trial: Trial::Works,
    }
}

/// The checks that are neither good nor a note, after a change.
fn findings(change: impl FnOnce(&mut Host)) -> Vec<(&'static str, State)> {
    let mut host = good();
    change(&mut host);
    let found = checks(&host);
    for check in &found {
        let needs_remedy = matches!(check.state, State::Fails | State::Lacks);
        assert!(!needs_remedy || check.remedy.is_some(), "{check:?}");
    }
    found
        .iter()
        .filter(|check| !matches!(check.state, State::Good | State::Note))
        .map(|check| (check.name, check.state))
        .collect()
}

#[test]
fn a_good_host_has_nothing_to_complain_about() {
    assert_eq!(findings(|_| {}), []);
    assert!(can_record(&checks(&good())));
}

#[test]
fn what_recordings_need_fails_with_a_remedy() {
    let fails = |name| vec![(name, State::Fails)];
    assert_eq!(
        findings(|h| h.release = "5.10.0-32-amd64".to_owned()),
        fails("kernel")
    );
    assert_eq!(
        findings(|h| h.lockdown = Some("confidentiality".to_owned())),
        fails("lockdown")
    );
    assert_eq!(
        findings(|h| h.features = Ok(Features {
            missing_helpers: vec![HELPERS[5]],
            send_signal_task: true
        })),
        fails("bpf_helpers")
    );
    assert_eq!(
        findings(|h| {
            h.sysctls.insert("kernel.perf_event_max_sample_rate", 50);
        }),
        fails("sample_rate")
    );
    assert_eq!(
        findings(|h| h.trial = Trial::Fails("cannot load".to_owned())),
        fails("trial")
    );
    assert_eq!(
        findings(|h| h.features = Err("No such file or directory".to_owned())),
        [
            ("btf", State::Fails),
            ("bpf_helpers", State::Open),
            ("bpf_send_signal_task", State::Open)
        ]
    );
}

#[test]
fn what_makes_recordings_worse_does_not_prevent_them() {
    let lacks = |name| vec![(name, State::Lacks)];
    assert_eq!(
        findings(|h| h.kernel_symbols = Some(false)),
        lacks("kernel_symbols")
    );
    assert_eq!(
        findings(|h| h.clocksource = Some("hpet".to_owned())),
        lacks("clock")
    );
    assert_eq!(
        findings(|h| h.features = Ok(Features::default())),
        lacks("bpf_send_signal_task")
    );
    assert_eq!(findings(|h| h.cgroup2 = None), lacks("cgroup2"));
    assert_eq!(findings(|h| h.hosts_pids = Some(false)), lacks("pid_namespace"));
    assert_eq!(findings(|h| h.timer_resolution_ns = 4_000_000), lacks("timers"));
    for (sysctl, value, name) in [
        ("net.core.bpf_jit_enable", 0, "bpf_jit"),
        ("kernel.yama.ptrace_scope", 3, "ptrace_scope"),
    ] {
        let found = findings(|h| {
            h.sysctls.insert(sysctl, value);
        });
        assert_eq!(found, lacks(name));
    }
}

#[test]
fn an_ordinary_user_is_told_what_root_would_see() {
    let found = findings(|host| {
        host.capabilities = 0;
        host.trial = Trial::NotAllowed;
        host.sysctls.remove("net.core.bpf_jit_enable");
    });
    assert_eq!(
        found,
        [
            ("capabilities", State::Fails),
            ("trial", State::Open),
            ("bpf_jit", State::Open)
        ]
    );
}

fn three() -> Vec<Check> {
    let check = |name, state, remedy: Option<&str>| Check {
        name,
        state,
        found: "a\u{1b}b".to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    vec![
        check("kernel", State::Good, None),
        check("bpf_jit", State::Lacks, Some("turn it on")),
        check("trial", State::Fails, Some("try again")),
    ]
}

#[test]
fn the_text_has_a_line_for_each_check_and_remedy() {
    assert_eq!(
        text(&three()),
        "\
ok     kernel   a\\u{1b}b
lacks  bpf_jit  a\\u{1b}b
                → turn it on
FAILS  trial    a\\u{1b}b
                → try again

recordings do not work: see FAILS above
"
    );
    assert!(text(&three()[..2]).ends_with("\nrecordings work; 1 of the above could be better (lacks)\n"));
    assert!(text(&three()[..1]).ends_with("\nrecordings work\n"));
}

#[test]
fn the_json_has_the_documented_fields() {
    let document: serde_json::Value = serde_json::from_str(&json(&three()[..2])).unwrap();
    assert_eq!(
        document,
        serde_json::json!({
            "schema": 1,
            "can_record": true,
            "checks": [
                {"name": "kernel", "state": "ok", "found": "a\u{1b}b"},
                {"name": "bpf_jit", "state": "lacks", "found": "a\u{1b}b", "remedy": "turn it on"},
            ],
        })
    );
}
