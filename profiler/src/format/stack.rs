//! The one rule for what a sample looks like, in every format.
//!
//! A whole stack is its frames. One that ended early keeps its frames and gets a *note* where its missing callers
//! would be, outermost: `[incomplete: no-rule]`. So it is seen, and cannot be taken for a chain that begins with
//! the frame where the walk happened to end. A sample without a single frame is only a note,
//! `[no stack: no-user-stack]`, so that it still counts.

use crate::profile::{FrameId, Profile, Roots, Sample, Thread};
use profiler_abi::stop::StopReason;

const INCOMPLETE: &str = "[incomplete: ";
const NO_STACK: &str = "[no stack: ";

/// A sample as the formats show it.
pub(crate) struct Stack<'a> {
    /// The thread.
    pub(crate) thread: &'a Thread,
    /// What stands outside of everything: the name of the thread, and what the recording wants beside it.
    pub(crate) roots: Vec<String>,
    /// What stands between the thread and the frames, if something is missing.
    pub(crate) note: Option<String>,
    /// The frames, root first.
    pub(crate) frames: Vec<FrameId>,
}

impl<'a> Stack<'a> {
    /// What `sample` looks like.
    pub(crate) fn of(profile: &'a Profile, sample: &Sample) -> Self {
        let mut frames: Vec<FrameId> = profile.walk_ids(sample.stack).map(|(_, frame)| frame).collect();
        frames.reverse();
        let thread = &profile.threads[sample.thread.0 as usize];
        let labels = sample.labels.and_then(|at| profile.labels.get(at.0 as usize));
        Self {
            thread,
            roots: roots(&profile.meta.roots, thread, labels.map_or(&[], Vec::as_slice)),
            note: note(sample.stop, frames.is_empty()),
            frames,
        }
    }
}

fn roots(wanted: &Roots, thread: &Thread, labels: &[(String, String)]) -> Vec<String> {
    let tag = |tag: &String| match labels.iter().find(|(key, _)| key == tag) {
        Some((_, value)) => value.clone(),
        None => format!("[no {tag}]"),
    };
    let mut roots: Vec<String> = wanted.tags.iter().map(tag).collect();
    let process = match thread.process.as_str() {
        "" => &thread.name,
        process => process,
    };
    if wanted.per_thread {
        roots.extend([process.to_owned(), format!("{} ({})", thread.name, thread.tid)]);
    } else {
        roots.extend((wanted.process && *process != thread.name).then(|| process.to_owned()));
        roots.push(thread.name.clone());
    }
    roots
}

fn note(stop: StopReason, empty: bool) -> Option<String> {
    match (empty, stop.is_complete()) {
        (true, _) => Some(format!("{NO_STACK}{}]", stop.label())),
        (false, false) => Some(format!("{INCOMPLETE}{}]", stop.label())),
        (false, true) => None,
    }
}

/// The reason that a note gives, if `name` is one.
pub(super) fn stop_of_note(name: &[u8]) -> Option<StopReason> {
    let label = name
        .strip_prefix(INCOMPLETE.as_bytes())
        .or_else(|| name.strip_prefix(NO_STACK.as_bytes()))?
        .strip_suffix(b"]")?;
    stop_of_label(label)
}

/// The reason with this label.
pub(super) fn stop_of_label(label: &[u8]) -> Option<StopReason> {
    StopReason::ALL
        .iter()
        .copied()
        .find(|stop| stop.label().as_bytes() == label)
}

#[cfg(test)]
mod tests {
    use super::{note, roots, stop_of_note};
    use crate::profile::{Roots, Thread};
    use profiler_abi::stop::StopReason;

    #[test]
    fn only_whole_stacks_go_without_a_note() {
        assert_eq!(note(StopReason::Root, false), None);
        assert_eq!(note(StopReason::NoRule, false).unwrap(), "[incomplete: no-rule]");
        assert_eq!(
            note(StopReason::NoUserStack, true).unwrap(),
            "[no stack: no-user-stack]"
        );
        assert_eq!(note(StopReason::Root, true).unwrap(), "[no stack: root]");
    }

    #[test]
    fn what_stands_outside_is_as_wanted() {
        let thread = |name: &str, process: &str| Thread {
            pid: 7,
            tid: 8,
            name: name.to_owned(),
            process: process.to_owned(),
        };
        let labels = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
        let of = |wanted: &Roots, thread| roots(wanted, &thread, &labels);
        let plain = Roots::default();
        assert_eq!(of(&plain, thread("worker", "server")), ["worker"]);
        let process = Roots {
            process: true,
            ..Roots::default()
        };
        assert_eq!(of(&process, thread("worker", "server")), ["server", "worker"]);
        assert_eq!(of(&process, thread("server", "server")), ["server"]);
        assert_eq!(of(&process, thread("server", "")), ["server"]);
        let all = Roots {
            tags: ["b", "c"].map(str::to_owned).to_vec(),
            process: true,
            per_thread: true,
        };
        assert_eq!(
            of(&all, thread("server", "server")),
            ["2", "[no c]", "server", "server (8)"]
        );
    }

    #[test]
    fn a_note_leads_back_to_its_reason() {
        for &stop in StopReason::ALL {
            for empty in [true, false] {
                if let Some(note) = note(stop, empty) {
                    assert_eq!(stop_of_note(note.as_bytes()), Some(stop));
                }
            }
        }
        for name in [
            "main",
            "[incomplete: ]",
            "[incomplete: no-rule",
            "[no stack: because]",
            "",
        ] {
            assert_eq!(stop_of_note(name.as_bytes()), None, "{name}");
        }
    }
}
