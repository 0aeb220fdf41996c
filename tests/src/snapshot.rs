//! What a process looks like from outside, to prove that it was left alone.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// What a program does for a moment does not take longer.
const MOMENT: Duration = Duration::from_millis(300);
/// Nor does it, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a program may change by itself while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freedom {
    /// Nothing: the program has no allocation, thread or descriptor that is not there from the start.
    None,
    /// What the Go runtime does: it maps anonymous memory that is never executable, starts and ends threads (with the
    /// name of the program), and blocks signals of a thread for moments.
    GoRuntime,
}

/// A process at one moment. Compare two with [`Snapshot::differences`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Mappings in the order of their addresses, without the columns that the kernel may change.
    mappings: Vec<Mapping>,
    threads: BTreeMap<u32, Thread>,
    /// Links of the open descriptors, by number.
    descriptors: BTreeMap<u32, String>,
    /// Signals of the whole process: ignored, caught, pending for it (`SigIgn`, `SigCgt`, `ShdPnd`).
    signals: BTreeMap<String, String>,
    /// Child processes, by the thread that started them.
    children: BTreeMap<u32, String>,
    /// What holds for the process as long as it does not change it: limits, and how the kernel is to treat it.
    settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mapping {
    range: String,
    permissions: String,
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Thread {
    name: String,
    tracer: String,
    /// Bit n-1 is signal n.
    blocked: u64,
    pending: u64,
}

impl Snapshot {
    /// Takes down a process.
    pub fn take(pid: u32) -> Result<Self> {
        let proc = format!("/proc/{pid}");
        let read = |path: String| fs::read_to_string(&path).with_context(|| format!("cannot read {path}"));
        let mappings = read(format!("{proc}/maps"))?
            .lines()
            .filter_map(Mapping::parse)
            .collect();
        let mut threads = BTreeMap::new();
        for tid in numbers(&format!("{proc}/task"))? {
            // A thread may end while we look.
            let Ok(status) = fs::read_to_string(format!("{proc}/task/{tid}/status")) else {
                continue;
            };
            let field = |name: &str| field(&status, name);
            let thread = Thread {
                name: field("Name"),
                tracer: field("TracerPid"),
                blocked: u64::from_str_radix(&field("SigBlk"), 16)?,
                pending: u64::from_str_radix(&field("SigPnd"), 16)?,
            };
            threads.insert(tid, thread);
        }
        // Without CONFIG_PROC_CHILDREN there is no such file.
        let children = threads
            .keys()
            .filter_map(|tid| {
                Some((
                    *tid,
                    fs::read_to_string(format!("{proc}/task/{tid}/children")).ok()?,
                ))
            })
            .filter(|(_, children)| !children.is_empty())
            .collect();
        let mut descriptors = BTreeMap::new();
        for fd in numbers(&format!("{proc}/fd"))? {
            let Ok(link) = fs::read_link(format!("{proc}/fd/{fd}")) else {
                continue;
            };
            descriptors.insert(fd, link.to_string_lossy().into_owned());
        }
        let status = read(format!("{proc}/status"))?;
        let signals = ["SigIgn", "SigCgt", "ShdPnd"]
            .map(|name| (name.to_owned(), field(&status, name)))
            .into_iter()
            .collect();
        let mut settings: BTreeMap<_, _> = ["Seccomp", "NoNewPrivs", "CapEff", "Umask"]
            .map(|name| (name.to_owned(), field(&status, name)))
            .into_iter()
            .collect();
        for name in ["limits", "oom_score_adj", "coredump_filter", "personality"] {
            // The kernel may have been built without some of them.
            let text = fs::read_to_string(format!("{proc}/{name}")).unwrap_or_default();
            settings.insert(name.to_owned(), text);
        }
        let timers = fs::read_to_string(format!("{proc}/timers")).unwrap_or_default();
        settings.insert("timers".to_owned(), without_profilers(&timers));
        Ok(Self {
            mappings,
            threads,
            descriptors,
            signals,
            children,
            settings,
        })
    }

    /// Takes down a process several times. Signals that a thread has blocked, or waiting for it, for a moment only are
    /// left out.
    pub fn at_rest(pid: u32) -> Result<Self> {
        let begun = Instant::now();
        let mut taken = Self::take(pid)?;
        while begun.elapsed() < MOMENT {
            let mut next = Self::take(pid)?;
            next.leave_out_moments(&taken);
            taken = next;
        }
        Ok(taken)
    }

    /// How the process `pid` differs from what it was, in sentences, apart from what the program may change by itself, and
    /// from what it changes for moments. Sentences with one of `own` are left out.
    pub fn lasting_differences(&self, pid: u32, freedom: Freedom, own: &[&str]) -> Result<Vec<String>> {
        let begun = Instant::now();
        let mut later = Self::take(pid)?;
        loop {
            let mut differences = self.differences(&later, freedom);
            differences.retain(|difference| !own.iter().any(|own| difference.contains(own)));
            if differences.is_empty() || begun.elapsed() > PATIENCE {
                return Ok(differences);
            }
            let mut next = Self::take(pid)?;
            next.leave_out_moments(&later);
            later = next;
        }
    }

    fn leave_out_moments(&mut self, earlier: &Self) {
        for (tid, thread) in &mut self.threads {
            if let Some(earlier) = earlier.threads.get(tid) {
                thread.blocked &= earlier.blocked;
                thread.pending &= earlier.pending;
            }
        }
    }

    /// How `later` differs from `self`, in sentences, apart from what the program may change by itself.
    pub fn differences(&self, later: &Self, freedom: Freedom) -> Vec<String> {
        let mut found = Vec::new();
        let of = |s: &Self| {
            s.mappings
                .iter()
                .filter(|m| m.counts(freedom))
                .cloned()
                .collect::<BTreeSet<_>>()
        };
        let (before, after) = (of(self), of(later));
        found.extend(
            before
                .difference(&after)
                .map(|m| format!("the mapping is gone: {m:?}")),
        );
        found.extend(
            after
                .difference(&before)
                .map(|m| format!("the mapping is new: {m:?}")),
        );
        compare("descriptor", &self.descriptors, &later.descriptors, &mut found);
        compare("signal set", &self.signals, &later.signals, &mut found);
        compare("child of thread", &self.children, &later.children, &mut found);
        compare("setting", &self.settings, &later.settings, &mut found);
        match freedom {
            Freedom::None => compare("thread", &self.threads, &later.threads, &mut found),
            Freedom::GoRuntime => {
                let names: BTreeSet<_> = self.threads.values().map(|thread| &thread.name).collect();
                let strange = later
                    .threads
                    .iter()
                    .filter(|(_, thread)| !names.contains(&thread.name));
                found.extend(strange.map(|(tid, thread)| format!("the thread {tid} is new: {thread:?}")));
                let both = self
                    .threads
                    .iter()
                    .filter_map(|(tid, old)| Some((tid, old, later.threads.get(tid)?)));
                let changed = both.filter(|(_, old, new)| old != new);
                found.extend(
                    changed.map(|(tid, old, new)| format!("the thread {tid} was {old:?} and is {new:?}")),
                );
            }
        }
        let traced = later.threads.iter().filter(|(_, thread)| thread.tracer != "0");
        found.extend(traced.map(|(tid, thread)| format!("the thread {tid} is traced by {}", thread.tracer)));
        found
    }
}

impl Mapping {
    /// Reads a line of `/proc/PID/maps` (proc_pid_maps(5)).
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (range, permissions) = (fields.next()?, fields.next()?);
        let path = fields.skip(3).collect::<Vec<_>>().join(" ");
        // A stack grows when a function needs more of it.
        let range = if path == "[stack]" {
            range.split('-').nth(1)?
        } else {
            range
        };
        Some(Self {
            range: range.to_owned(),
            permissions: permissions.to_owned(),
            path,
        })
    }

    /// Whether only somebody else could have changed it.
    fn counts(&self, freedom: Freedom) -> bool {
        let anonymous = self.path.is_empty() || self.path == "[heap]" || self.path.starts_with("[anon:");
        freedom == Freedom::None || !anonymous || self.permissions.contains('x')
    }
}

fn compare<K: Ord + std::fmt::Display, V: PartialEq + std::fmt::Debug>(
    what: &str,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    found: &mut Vec<String>,
) {
    for (key, old) in before {
        match after.get(key) {
            None => found.push(format!("the {what} {key} is gone: {old:?}")),
            Some(new) if new != old => found.push(format!("the {what} {key} was {old:?} and is {new:?}")),
            Some(_) => {}
        }
    }
    found.extend(
        after
            .iter()
            .filter(|(key, _)| !before.contains_key(key))
            .map(|(key, new)| format!("the {what} {key} is new: {new:?}")),
    );
}

fn field(status: &str, name: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map_or_else(String::new, |value| value.trim().to_owned())
}

fn numbers(folder: &str) -> Result<Vec<u32>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// The timers in `/proc/PID/timers`, but those by which a Go program profiles itself: one for each thread that has run
/// since, and taken down when the thread runs next (runtime/os_linux.go, `setThreadCPUProfiler`).
fn without_profilers(text: &str) -> String {
    let mut timers: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("ID: ") {
            timers.push(String::new());
        }
        if let Some(timer) = timers.last_mut() {
            *timer += line;
            *timer += "\n";
        }
    }
    // SIGPROF.
    timers.retain(|timer| !timer.contains("\nsignal: 27/"));
    timers.concat()
}

#[cfg(test)]
mod tests {
    use super::{Freedom, Snapshot};
    use crate::programs;
    use crate::target::Target;

    #[test]
    fn timers_by_which_go_profiles_itself_are_left_out() {
        let own = "ID: 1\nsignal: 14/0000000000000000\nnotify: signal/pid.9\nClockID: 0\n";
        let profiler = "ID: 5\nsignal: 27/0000000000000000\nnotify: signal/tid.9\nClockID: -2\n";
        assert_eq!(
            super::without_profilers(&format!("{profiler}{own}{profiler}")),
            own
        );
        assert_eq!(super::without_profilers(""), "");
    }

    #[test]
    fn a_process_that_nobody_touches_does_not_change() {
        let target = Target::start(programs::native("c_deep/c_deep.c").unwrap().command()).unwrap();
        let before = Snapshot::at_rest(target.pid()).unwrap();
        let after = Snapshot::at_rest(target.pid()).unwrap();
        assert_eq!(before.differences(&after, Freedom::None), [""; 0]);
        assert_eq!(before.threads.len(), 2);
        assert!(before.descriptors.len() >= 3 && before.signals["SigCgt"] != "0000000000000000");
    }

    #[test]
    fn a_library_that_came_is_seen_whatever_the_program_may_do() {
        let library = programs::native_library("dlopen_late/plugin.c").unwrap();
        let mut command = programs::native("dlopen_late/dlopen_late.c").unwrap().command();
        command.arg(&library.path);
        let mut target = Target::start(command).unwrap();
        let before = Snapshot::take(target.pid()).unwrap();
        target.command("load").unwrap();
        assert!(target.read_line().unwrap().starts_with("loaded "));
        let after = Snapshot::take(target.pid()).unwrap();
        for freedom in [Freedom::None, Freedom::GoRuntime] {
            let differences = before.differences(&after, freedom);
            assert!(
                differences.iter().any(|d| d.contains("plugin")),
                "{differences:?}"
            );
        }
    }
}
