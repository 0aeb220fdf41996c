//! Folded stacks: one line for each distinct stack, `comm;root;…;leaf COUNT`.

use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// What a kernel frame's name ends with.
const KERNEL: &str = "_[k]";

/// What the first frame of an incomplete stack starts with, and the only one of a stack that has none.
const INCOMPLETE: [&str; 2] = ["[incomplete", "[no stack"];

/// A recording in folded form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// The distinct stacks.
    pub stacks: Vec<Stack>,
}

/// One stack, and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Name of the thread.
    pub comm: String,
    /// The frames, root first, kernel frames last.
    pub frames: Vec<String>,
    /// How many samples.
    pub count: u64,
}

impl Folded {
    /// Reads the text of a folded file.
    pub fn parse(text: &str) -> Result<Self> {
        let stacks = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(Stack::parse)
            .collect::<Result<_>>()?;
        Ok(Self { stacks })
    }

    /// All samples.
    pub fn total(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.count).sum()
    }

    /// Samples with a frame called `name`.
    pub fn with_frame(&self, name: &str) -> u64 {
        self.stacks
            .iter()
            .filter(|stack| stack.frames.iter().any(|f| f == name))
            .map(|stack| stack.count)
            .sum()
    }

    /// Samples of each innermost user function, under the name that `name` gives a stack.
    pub fn self_time(&self, name: impl Fn(&Stack) -> String) -> BTreeMap<String, u64> {
        let mut functions = BTreeMap::new();
        for stack in &self.stacks {
            *functions.entry(name(stack)).or_default() += stack.count;
        }
        functions
    }
}

impl Stack {
    fn parse(line: &str) -> Result<Self> {
        let place = || format!("not a folded stack: {line:?}");
        // Names of C++ and Go functions have spaces in them; the count has none.
        let (names, count) = line.rsplit_once(' ').with_context(place)?;
        let mut names = names.split(';').map(str::to_owned);
        let comm = names.next().with_context(place)?;
        Ok(Self {
            comm,
            frames: names.collect(),
            count: count.parse().with_context(place)?,
        })
    }

    /// The user frames, root first.
    pub fn user(&self) -> &[String] {
        let user = self
            .frames
            .iter()
            .position(|f| f.ends_with(KERNEL))
            .unwrap_or(self.frames.len());
        &self.frames[..user]
    }

    /// Whether the sample was taken in the kernel, as far as kernel frames were recorded.
    pub fn from_kernel(&self) -> bool {
        self.frames.last().is_some_and(|f| f.ends_with(KERNEL))
    }

    /// Whether the recording says that outer frames are missing.
    pub fn is_incomplete(&self) -> bool {
        let first = self.frames.first();
        first.is_some_and(|frame| INCOMPLETE.iter().any(|mark| frame.starts_with(mark)))
    }
}

#[cfg(test)]
mod tests {
    use super::Folded;

    #[test]
    fn names_keep_their_spaces_and_kernel_frames_are_told_apart() {
        let folded =
            Folded::parse("tgt;main;ns::f<int, long>;do_syscall_64_[k] 7\ntgt;[incomplete: no-rule];f 2\n")
                .unwrap();
        let [whole, cut] = &folded.stacks[..] else {
            panic!("{folded:?}")
        };
        assert_eq!(whole.comm, "tgt");
        assert_eq!(whole.user(), ["main", "ns::f<int, long>"]);
        assert!(whole.from_kernel() && !whole.is_incomplete());
        assert!(cut.is_incomplete() && !cut.from_kernel());
        assert_eq!((folded.total(), folded.with_frame("main")), (9, 7));
    }

    #[test]
    fn a_line_without_a_count_is_refused() {
        assert!(Folded::parse("tgt;main;f").is_err());
        assert!(Folded::parse("tgt;main;f many").is_err());
    }
}
