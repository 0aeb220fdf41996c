//! Where the time of saved profiles went: by function, and by chain of calls.
//!
//! Samples look as [`crate::format::stack`] says, so totals are those of every other format: what stands for a stack
//! that is not whole is a row as well.

#[cfg(test)]
mod tests;
mod text;

pub use text::{functions, tree};

use crate::format::stack::Stack;
use crate::profile::{Frame, Kind, Measure, Profile};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

/// Which samples to look at. An empty one takes all.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Only those of threads whose name contains this.
    pub thread: Option<String>,
    /// Only those with a function on their stack whose name contains this.
    pub focus: Option<String>,
}

/// What functions are ordered by, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Samples of the function itself.
    Own,
    /// Samples of the function and what it called.
    Total,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A function: the same name in two objects is two functions.
    Function {
        /// Its name, not escaped.
        name: String,
        /// Its kind.
        kind: Kind,
        /// The file name of its object, not escaped.
        module: Option<String>,
    },
    /// What stands for missing frames.
    Note(String),
    /// A thread, by its name, not escaped.
    Thread(String),
}

impl Subject {
    fn of(profile: &Profile, frame: &Frame) -> Self {
        let module = frame.module.map(|id| &profile.modules[id.0 as usize].path);
        Self::Function {
            name: frame.function.clone(),
            kind: frame.kind,
            module: module.map(|path| path.rsplit('/').next().unwrap_or_default().to_owned()),
        }
    }

    /// What it is called, not escaped.
    pub fn name(&self) -> &str {
        match self {
            Self::Function { name, .. } | Self::Note(name) | Self::Thread(name) => name,
        }
    }
}

/// Samples of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    /// Those that interrupted it; of time off the CPU, nanoseconds.
    pub own: u64,
    /// Those, and those of what it called. A function that calls itself counts once.
    pub total: u64,
}

/// A file that was added.
#[derive(Clone, Debug)]
struct Source {
    label: String,
    program: String,
    duration: Duration,
    measure: Measure,
    frequency_hz: u64,
    samples: u64,
    complete: u64,
}

/// Time on a CPU and time off it are no sum.
#[derive(Debug, thiserror::Error)]
#[error("of it and of {first} one has time on a CPU and one time off it, which have no sum")]
pub struct OtherMeasure {
    /// The file that was added first.
    first: String,
}

/// A place in the tree of calls.
#[derive(Clone, Debug)]
struct Node {
    subject: u32,
    weight: Weight,
    callees: Vec<u32>,
}

/// The sums over all profiles that were added.
#[derive(Debug)]
pub struct Report {
    select: Select,
    sources: Vec<Source>,
    subjects: Vec<Subject>,
    places: HashMap<Subject, u32>,
    /// By subject.
    weights: Vec<Weight>,
    /// By subject, the last stack that it was counted for.
    counted: Vec<u64>,
    stacks: u64,
    /// The first has no subject: its callees are the threads.
    nodes: Vec<Node>,
    edges: HashMap<(u32, u32), u32>,
    samples: u64,
}

/// The node that all threads are beneath.
const ROOT: u32 = 0;

impl Report {
    /// A report that has nothing yet.
    pub fn new(select: Select) -> Self {
        Self {
            select,
            sources: Vec::new(),
            subjects: Vec::new(),
            places: HashMap::new(),
            weights: Vec::new(),
            counted: Vec::new(),
            stacks: 0,
            nodes: vec![Node {
                subject: 0,
                weight: Weight::default(),
                callees: Vec::new(),
            }],
            edges: HashMap::new(),
            samples: 0,
        }
    }

    /// Adds a profile, called `label` where it is named.
    ///
    /// # Errors
    /// It measures something else than those before it: nothing of it is added.
    pub fn add(&mut self, label: &str, profile: &Profile) -> Result<(), OtherMeasure> {
        if let Some(first) = self.sources.first()
            && first.measure != profile.meta.measure
        {
            return Err(OtherMeasure {
                first: first.label.clone(),
            });
        }
        let subjects: Vec<u32> = profile
            .frames
            .iter()
            .map(|frame| self.subject(Subject::of(profile, frame)))
            .collect();
        let has = |name: &str, part: &Option<String>| part.as_ref().is_none_or(|part| name.contains(part));
        let in_focus: Vec<bool> = profile
            .frames
            .iter()
            .map(|frame| has(&frame.function, &self.select.focus))
            .collect();
        for sample in &profile.samples {
            self.samples = self.samples.saturating_add(sample.count);
            let stack = Stack::of(profile, sample);
            let wanted = has(&stack.thread.name, &self.select.thread)
                && (self.select.focus.is_none()
                    || stack.frames.iter().any(|frame| in_focus[frame.0 as usize]));
            if !wanted || sample.count == 0 {
                continue;
            }
            let mut chain = vec![self.subject(Subject::Thread(stack.thread.name.clone()))];
            chain.extend(stack.note.map(|note| self.subject(Subject::Note(note))));
            chain.extend(stack.frames.iter().map(|frame| subjects[frame.0 as usize]));
            self.count(&chain, sample.count);
        }
        self.sources.push(Source {
            label: label.to_owned(),
            program: profile.meta.program.clone(),
            duration: profile.meta.duration,
            measure: profile.meta.measure,
            frequency_hz: profile.meta.frequency_hz,
            samples: profile.summary.kept,
            complete: profile.summary.complete(),
        });
        Ok(())
    }

    /// Counts a chain of subjects, root first.
    fn count(&mut self, chain: &[u32], n: u64) {
        self.stacks += 1;
        let mut node = ROOT;
        add(&mut self.nodes[ROOT as usize].weight.total, n);
        for &subject in chain {
            node = self.callee(node, subject);
            add(&mut self.nodes[node as usize].weight.total, n);
            let counted = &mut self.counted[subject as usize];
            if *counted != self.stacks {
                *counted = self.stacks;
                add(&mut self.weights[subject as usize].total, n);
            }
        }
        add(&mut self.nodes[node as usize].weight.own, n);
        if let Some(&leaf) = chain.last() {
            add(&mut self.weights[leaf as usize].own, n);
        }
    }

    fn callee(&mut self, caller: u32, subject: u32) -> u32 {
        if let Some(&node) = self.edges.get(&(caller, subject)) {
            return node;
        }
        let node = self.nodes.len() as u32;
        self.nodes.push(Node {
            subject,
            weight: Weight::default(),
            callees: Vec::new(),
        });
        self.nodes[caller as usize].callees.push(node);
        self.edges.insert((caller, subject), node);
        node
    }

    fn subject(&mut self, subject: Subject) -> u32 {
        if let Some(&at) = self.places.get(&subject) {
            return at;
        }
        let at = self.subjects.len() as u32;
        self.subjects.push(subject.clone());
        self.places.insert(subject, at);
        self.weights.push(Weight::default());
        self.counted.push(0);
        at
    }

    /// What the numbers of the rows are.
    fn measure(&self) -> Measure {
        self.sources.first().map_or(Measure::Cpu, |source| source.measure)
    }

    /// Samples in the files, also those that were not selected.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples that were selected.
    pub fn selected(&self) -> u64 {
        self.nodes[ROOT as usize].weight.total
    }

    /// Functions and notes with their samples.
    pub fn functions(&self, order: Order) -> Vec<(&Subject, Weight)> {
        let mut rows: Vec<_> = self
            .subjects
            .iter()
            .zip(self.weights.iter().copied())
            .filter(|(subject, weight)| weight.total > 0 && !matches!(subject, Subject::Thread(_)))
            .collect();
        rows.sort_by_key(|&(subject, Weight { own, total })| match order {
            Order::Own => (Reverse(own), Reverse(total), subject),
            Order::Total => (Reverse(total), Reverse(own), subject),
        });
        rows
    }

    /// The callees of a node, the largest first.
    fn callees(&self, node: u32) -> Vec<u32> {
        let mut callees = self.nodes[node as usize].callees.clone();
        callees.sort_by_key(|&node| {
            let node = &self.nodes[node as usize];
            (Reverse(node.weight.total), &self.subjects[node.subject as usize])
        });
        callees
    }
}

fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}
