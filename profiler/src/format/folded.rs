//! Folded stacks: one line `comm;frame;…;frame COUNT` for each distinct stack, root first, sorted by bytes.
//!
//! `comm` is the name of the thread. Functions that were inlined are frames of their own; kernel functions end in
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
use std::collections::HashMap;

const KERNEL_SUFFIX: &str = "_[k]";

/// The whole file.
pub fn write(profile: &Profile) -> String {
    let mut lines: Vec<String> = stacks(profile)
        .into_iter()
        .map(|(stack, count)| format!("{stack} {count}\n"))
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// Every distinct stack with its number of samples, in no particular order.
pub(super) fn stacks(profile: &Profile) -> HashMap<String, u64> {
    let names: Vec<String> = profile.frames.iter().map(frame_name).collect();
    let mut stacks = HashMap::new();
    for sample in profile.samples.iter().filter(|sample| sample.count > 0) {
        let stack = Stack::of(profile, sample);
        let mut line = thread_name(&stack.thread.name);
        for name in stack
            .note
            .iter()
            .chain(stack.frames.iter().map(|id| &names[id.0 as usize]))
        {
            line.push(';');
            line.push_str(name);
        }
        let count: &mut u64 = stacks.entry(line).or_default();
        *count = count.saturating_add(sample.count);
    }
    stacks
}

/// How a frame is called in a line.
pub(super) fn frame_name(frame: &Frame) -> String {
    let mut name = field(&frame.function);
    if frame.kind == Kind::Kernel {
        name.push_str(KERNEL_SUFFIX);
    }
    name
}

/// How a thread is called in a line.
pub(super) fn thread_name(comm: &str) -> String {
    field(comm)
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
