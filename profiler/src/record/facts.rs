//! Facts of the host that matter when profiles are compared.

/// Name and value of each.
pub fn of_host() -> Vec<(String, String)> {
    let uname = rustix::system::uname();
    let mut facts = vec![
        (
            "kernel".to_owned(),
            uname.release().to_string_lossy().into_owned(),
        ),
        (
            "machine".to_owned(),
            uname.machine().to_string_lossy().into_owned(),
        ),
        (
            "cpus".to_owned(),
            std::thread::available_parallelism()
                .map_or(1, usize::from)
                .to_string(),
        ),
    ];
    if let Ok(info) = std::fs::read_to_string("/proc/cpuinfo")
        && let Some(model) = info.lines().find_map(|line| line.strip_prefix("model name"))
    {
        facts.push((
            "cpu".to_owned(),
            model.trim_start_matches(['\t', ' ', ':']).to_owned(),
        ));
    }
    facts
}
