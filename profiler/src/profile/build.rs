//! Interning: one entry for each distinct frame, stack, thread and module.

use super::{Frame, FrameId, Meta, Module, ModuleId, Profile, Sample, StackId, Summary, Thread, ThreadId};
use foldhash::{HashMap, HashMapExt};
use profiler_abi::stop::StopReason;
use std::hash::Hash;

/// Builds a [`Profile`] sample by sample.
#[derive(Debug, Default)]
pub struct Builder {
    frames: Table<Frame>,
    stacks: Table<(FrameId, Option<StackId>)>,
    modules: Table<Module>,
    threads: Table<Thread>,
    samples: HashMap<(Option<StackId>, ThreadId, StopReason, bool), u64>,
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

    /// Counts `count` samples of a stack whose frames are given root first.
    pub fn sample(
        &mut self,
        thread: ThreadId,
        root_first: impl IntoIterator<Item = FrameId>,
        stop: StopReason,
        from_kernel: bool,
        count: u64,
    ) {
        let mut stack = None;
        for frame in root_first {
            stack = Some(StackId(self.stacks.intern((frame, stack))));
        }
        *self
            .samples
            .entry((stack, thread, stop, from_kernel))
            .or_default() += count;
    }

    /// How many distinct stacks and parts of stacks there are: what a reader of foreign profiles has to bound.
    pub fn stack_nodes(&self) -> usize {
        self.stacks.entries.len()
    }

    /// The finished profile. Samples are sorted, so that equal recordings make equal profiles.
    pub fn finish(self, meta: Meta, summary: Summary) -> Profile {
        let mut samples: Vec<Sample> = self
            .samples
            .into_iter()
            .map(|((stack, thread, stop, from_kernel), count)| Sample {
                stack,
                thread,
                stop,
                from_kernel,
                count,
            })
            .collect();
        samples.sort_by_key(|s| (s.thread, s.stack, s.stop, s.from_kernel));
        Profile {
            meta,
            frames: self.frames.entries,
            stacks: self.stacks.entries,
            modules: self.modules.entries,
            threads: self.threads.entries,
            samples,
            summary,
        }
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
