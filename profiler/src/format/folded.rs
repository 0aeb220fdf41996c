//! Folded stacks: one line `comm;frame;…;frame COUNT` for each distinct stack, root first, sorted by bytes.
//!
//! `comm` is the name of the thread; recordings of several processes have the name of the process before it where that
//! is another, and there may be labels before both. Functions that were inlined are frames of their own; kernel functions end in
//! `_[k]`, as `stackcollapse-perf.pl --kernel` writes them. What a stack that is not whole looks like is said in
//! [`super::stack`].
//!
//! The format has no quoting, so names are changed where they would break a line:
//! control characters and their like are made visible ([`super::escape`]); `;` becomes `:`; spaces at either end
//! are dropped; a name of which nothing is left becomes `[no name]`; `# ` at the start becomes `#_`, because
//! readers take such lines for comments; and the space before a number at the end becomes `_`, because readers
//! would take the number for a count.

use super::escape;
use super::stack::Stack;
use crate::profile::{Frame, Kind, Profile};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const KERNEL_SUFFIX: &str = "_[k]";

/// The whole file.
pub fn write(profile: &Profile) -> String {
    let mut lines = Stacks::of(profile).lines();
    lines.sort_unstable();
    let mut file = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        file.push_str(&line);
        file.push('\n');
    }
    file
}

/// Every distinct stack of names with its number of samples.
pub(super) struct Stacks {
    /// Sorted, so that the order of their numbers is the order of the names.
    names: Vec<String>,
    /// Root first.
    counts: BTreeMap<Vec<u32>, u64>,
    /// The names of threads and the like that stacks begin with.
    pub(super) roots: BTreeSet<String>,
    /// What stands for missing callers.
    pub(super) notes: BTreeSet<String>,
}

impl Stacks {
    pub(super) fn of(profile: &Profile) -> Self {
        let frames: Vec<String> = profile.frames.iter().map(frame_name).collect();
        let stacks = || {
            let sampled = profile.samples.iter().filter(|sample| sample.count > 0);
            sampled.map(|sample| (Stack::of(profile, sample), sample.count))
        };
        let mut names: BTreeSet<String> = frames.iter().cloned().collect();
        let (mut roots, mut notes) = (BTreeSet::new(), BTreeSet::new());
        for (stack, _) in stacks() {
            roots.extend(stack.roots.iter().map(|root| field(root)));
            notes.extend(stack.note);
        }
        names.extend(roots.iter().chain(&notes).cloned());
        let names: Vec<String> = names.into_iter().collect();
        // Every name asked for is there; a place is a number also if it were not.
        let number = |name: &String| names.binary_search(name).unwrap_or_else(|place| place) as u32;
        let frames: Vec<u32> = frames.iter().map(number).collect();
        let mut counts = BTreeMap::new();
        for (stack, n) in stacks() {
            let mut key = Vec::with_capacity(stack.frames.len() + 2);
            key.extend(stack.roots.iter().map(|root| number(&field(root))));
            key.extend(stack.note.iter().map(number));
            key.extend(stack.frames.iter().map(|id| frames[id.0 as usize]));
            let count: &mut u64 = counts.entry(key).or_default();
            *count = count.saturating_add(n);
        }
        Self {
            names,
            counts,
            roots,
            notes,
        }
    }

    /// The lines, without newlines. Stacks with a common beginning stand together. By bytes `a.b` comes between `a` and `a;c`; here
    /// it does not.
    pub(super) fn lines(&self) -> Vec<String> {
        self.counts
            .iter()
            .map(|(key, count)| {
                let mut line = String::new();
                for name in self.names_of(key) {
                    line.push_str(name);
                    line.push(';');
                }
                line.pop();
                line.push(' ');
                line.push_str(&count.to_string());
                line
            })
            .collect()
    }

    fn names_of<'a>(&'a self, key: &'a [u32]) -> impl Iterator<Item = &'a str> {
        key.iter().map(|&number| self.names[number as usize].as_str())
    }
}

/// How a frame is called in a line.
pub(crate) fn frame_name(frame: &Frame) -> String {
    let mut name = field(&frame.function);
    if frame.kind == Kind::Kernel {
        name.push_str(KERNEL_SUFFIX);
    }
    name
}

/// `name` as one field of a line.
fn field(name: &str) -> String {
    let visible = escape(name).replace(';', ":");
    let name = visible.trim();
    if name.is_empty() {
        return "[no name]".to_owned();
    }
    if let Some(rest) = name.strip_prefix("# ") {
        return field(&format!("#_{rest}"));
    }
    match name.rsplit_once(' ') {
        Some((words, last)) if last.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            format!("{words}_{last}")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{field, write};
    use crate::format::testing::{self, Recording};
    use crate::profile::Kind;
    use profiler_abi::stop::StopReason;

    #[test]
    fn stacks_are_lines_with_the_root_first() {
        assert_eq!(
            write(&testing::mixed()),
            "\
kworker/0:1;[incomplete: no-user-stack];worker_thread_[k];process_one_work_[k] 2
server;[incomplete: no-rule];[libz.so.1+0x1f30] 3
server;[no stack: no-mapping] 1
server;runtime.main;main.main;main.handle;runtime.cgocall;runtime.asmcgocall;compress;deflate 30
server;runtime.main;main.main;main.handle;runtime.cgocall;runtime.asmcgocall;compress;deflate;\
asm_exc_page_fault_[k];handle_mm_fault_[k] 4
server;runtime.main;main.main;main.handle;strings.Index;internal/bytealg.IndexByteString 60
"
        );
    }

    #[test]
    fn equal_stacks_of_different_threads_are_one_line() {
        let mut recording = Recording::new();
        let main = recording.frame("main", Kind::Native, false);
        for tid in [10, 11, 12] {
            recording.sample((10, tid, "worker"), &[main], StopReason::Root, false, 5);
        }
        assert_eq!(write(&recording.finish()), "worker;main 15\n");
    }

    #[test]
    fn no_name_can_break_a_line() {
        for (name, expected) in [
            ("<[u8; 4] as Ord>::cmp", "<[u8: 4] as Ord>::cmp"),
            ("operator new(unsigned long)", "operator new(unsigned long)"),
            ("a\nb;c 7", r"a\nb:c_7"),
            ("  padded\u{3000}", "padded"),
            ("", "[no name]"),
            (" \t", r"\t"),
            ("# comment", "#_comment"),
            ("# 12", "#_12"),
            ("worker 10.5", "worker_10.5"),
            ("a 1 2", "a 1_2"),
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0:title\u{7}"),
        ] {
            assert_eq!(field(name), expected, "{name:?}");
        }
    }

    #[test]
    fn hostile_names_leave_every_line_with_one_stack_and_one_count() {
        let mut recording = Recording::new();
        let names = ["x;y", "two\nlines", "ends in 12", "", "# remark", "\u{2028}"];
        let frames: Vec<_> = names
            .iter()
            .map(|name| recording.frame(name, Kind::Native, false))
            .collect();
        for (at, frame) in frames.iter().enumerate() {
            recording.sample((1, 1, names[at]), &[*frame], StopReason::Root, false, 3);
        }
        let text = write(&recording.finish());
        assert_eq!(text.lines().count(), names.len());
        for line in text.lines() {
            let (stack, count) = line.rsplit_once(' ').unwrap();
            assert_eq!((stack.split(';').count(), count), (2, "3"), "{line}");
            assert!(!line.starts_with("# "), "{line}");
        }
    }
}
