//! Interning: one entry for each distinct frame, stack, thread and module.

use super::{
    Frame, FrameId, Labels, LabelsId, Meta, Module, ModuleId, Profile, Sample, StackId, Summary, Thread,
    ThreadId,
};
use foldhash::{HashMap, HashMapExt};
use profiler_abi::stop::StopReason;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Everything of a [`Sample`] but its count.
type SampleKey = (Option<StackId>, ThreadId, StopReason, bool, Option<LabelsId>);

/// Builds a [`Profile`] sample by sample.
#[derive(Debug, Default)]
pub struct Builder {
    frames: Table<Frame>,
    stacks: Tree,
    modules: Table<Module>,
    threads: Table<Thread>,
    labels: Table<Labels>,
    samples: HashMap<SampleKey, u64>,
}

impl Builder {
    /// The handle of a frame.
    pub fn frame(&mut self, frame: Frame) -> FrameId {
        FrameId(self.frames.intern(frame))
    }

    /// The handle of a module.
    pub fn module(&mut self, module: Module) -> ModuleId {
        ModuleId(self.modules.intern(module))
    }

    /// The handle of a thread.
    pub fn thread(&mut self, thread: Thread) -> ThreadId {
        ThreadId(self.threads.intern(thread))
    }

    /// The handle of a set of labels, sorted by key; `None` if it is empty.
    pub fn labels(&mut self, labels: Labels) -> Option<LabelsId> {
        (!labels.is_empty()).then(|| LabelsId(self.labels.intern(labels)))
    }

    /// Counts `count` samples of a stack whose frames are given root first, without labels.
    pub fn sample(
        &mut self,
        thread: ThreadId,
        root_first: impl IntoIterator<Item = FrameId>,
        stop: StopReason,
        from_kernel: bool,
        count: u64,
    ) {
        self.labelled(thread, None, root_first, stop, from_kernel, count);
    }

    /// Counts `count` samples of a stack, with these labels, whose frames are given root first.
    pub fn labelled(
        &mut self,
        thread: ThreadId,
        labels: Option<LabelsId>,
        root_first: impl IntoIterator<Item = FrameId>,
        stop: StopReason,
        from_kernel: bool,
        count: u64,
    ) {
        let mut stack = None;
        for frame in root_first {
            stack = Some(self.stacks.callee(frame, stack));
        }
        *self
            .samples
            .entry((stack, thread, stop, from_kernel, labels))
            .or_default() += count;
    }

    /// How many distinct stacks and parts of stacks there are: what a reader of foreign profiles has to bound.
    pub fn stack_nodes(&self) -> usize {
        self.stacks.nodes.len()
    }

    /// The finished profile. Samples are sorted, so that equal recordings make equal profiles.
    pub fn finish(self, meta: Meta, summary: Summary) -> Profile {
        let mut samples: Vec<Sample> = self
            .samples
            .into_iter()
            .map(|((stack, thread, stop, from_kernel, labels), count)| Sample {
                stack,
                thread,
                stop,
                from_kernel,
                labels,
                count,
            })
            .collect();
        samples.sort_by_key(|s| (s.thread, s.stack, s.stop, s.from_kernel, s.labels));
        Profile {
            meta,
            frames: self.frames.entries,
            stacks: self.stacks.nodes,
            modules: self.modules.entries,
            threads: self.threads.entries,
            labels: self.labels.entries,
            samples,
            summary,
        }
    }
}

/// Stacks as a tree: each node is a frame and the node of its caller.
#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<(FrameId, Option<StackId>)>,
    /// Nodes that do not stand right behind their caller: where a stack leaves those before it. All others are
    /// found without hashing, and that is nearly all of them.
    branches: HashMap<(FrameId, Option<StackId>), StackId>,
}

impl Tree {
    /// The node of a frame that `caller` called.
    fn callee(&mut self, frame: FrameId, caller: Option<StackId>) -> StackId {
        let node = (frame, caller);
        let behind = caller.map_or(0, |caller| caller.0 as usize + 1);
        if self.nodes.get(behind) == Some(&node) {
            return StackId(behind as u32);
        }
        let new = StackId(self.nodes.len() as u32);
        // Behind the last node there is nothing yet that it called.
        if behind != self.nodes.len() {
            match self.branches.entry(node) {
                Entry::Occupied(known) => return *known.get(),
                Entry::Vacant(branch) => branch.insert(new),
            };
        }
        self.nodes.push(node);
        new
    }
}

#[derive(Debug)]
struct Table<T> {
    entries: Vec<T>,
    index: HashMap<T, u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            index: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Table<T> {
    fn intern(&mut self, entry: T) -> u32 {
        if let Some(&at) = self.index.get(&entry) {
            return at;
        }
        let at = self.entries.len() as u32;
        self.entries.push(entry.clone());
        self.index.insert(entry, at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameId, StackId, Tree};

    #[test]
    fn equal_stacks_are_one_node_wherever_they_part() {
        let mut tree = Tree::default();
        let mut leaf = |frames: &[u32]| {
            let leaf = frames
                .iter()
                .fold(None, |caller, &frame| Some(tree.callee(FrameId(frame), caller)));
            leaf.unwrap()
        };
        let stacks: [&[u32]; 7] = [
            &[1, 2, 3],
            &[1, 4],
            &[1, 2, 5, 3],
            &[2],
            &[1, 4, 4],
            &[1, 2, 5],
            &[2, 1, 2, 3],
        ];
        let leaves = stacks.map(&mut leaf);
        assert_eq!(leaves, [2, 3, 5, 6, 7, 4, 10].map(StackId));
        assert_eq!(stacks.map(leaf), leaves);
        assert_eq!(tree.nodes.len(), 11);
        // A caller has a smaller number than what it called.
        assert!(
            (0..)
                .zip(&tree.nodes)
                .all(|(at, (_, caller))| caller.is_none_or(|caller| caller.0 < at))
        );
    }
}
