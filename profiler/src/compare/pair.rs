//! The runs of both sides, as counts by function.

use crate::format::folded;
use crate::profile::{Frame, Kind, Profile, StackId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

/// Which set of profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// What was before.
    Baseline,
    /// What is asked about.
    Candidate,
}

impl Side {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Baseline, Self::Candidate];

    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Candidate => "candidate",
        }
    }
}

/// Handle of a [`Function`] of a [`Pair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u32);

/// A function of either side. What has the same name is the same function, wherever its code lies: addresses
/// change with every build.
#[derive(Clone, Debug)]
pub struct Function {
    /// The name as in folded stacks; for code without a name, that of its module.
    pub name: String,
    /// Source file, if known.
    pub file: Option<String>,
    /// Where it starts in that file, or else the first line of it that was seen.
    pub line: Option<u32>,
}

/// How often a function was seen in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Samples whose innermost frame it is.
    pub(super) own: u64,
    /// Samples that it is in, recursion counted once.
    pub(super) total: u64,
}

/// One profile.
#[derive(Clone, Debug)]
pub struct Run {
    /// Name of the file, for people.
    pub name: String,
    /// Samples in it.
    pub samples: u64,
    /// Samples whose stacks are whole.
    pub complete: u64,
    /// Samples that were lost.
    pub lost: u64,
    /// Samples per second and CPU; 0 if unknown.
    pub frequency_hz: u64,
    /// When it was recorded; the epoch if unknown.
    pub start: SystemTime,
    /// For how long; zero if unknown.
    pub duration: Duration,
    /// Facts of host and program, by name.
    pub facts: BTreeMap<String, String>,
    /// Build ids by file name of the module.
    pub build_ids: BTreeMap<String, String>,
    /// Two runs with the same are the same recording.
    pub(super) fingerprint: u64,
    counts: Vec<Counts>,
}

impl Run {
    /// CPU time of the run in seconds, if the file says what a sample stands for.
    pub fn cpu_seconds(&self) -> Option<f64> {
        (self.frequency_hz > 0).then(|| self.samples as f64 / self.frequency_hz as f64)
    }

    pub(super) fn counts(&self, function: FunctionId) -> Counts {
        self.counts.get(function.0 as usize).copied().unwrap_or_default()
    }
}

/// A stack that was seen on either side: a node of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) function: FunctionId,
    pub(super) caller: Option<u32>,
    /// Samples that end here, by side.
    pub(super) own: [u64; 2],
}

/// Both sides.
#[derive(Debug, Default)]
pub struct Pair {
    functions: Vec<Function>,
    by_name: HashMap<String, FunctionId>,
    /// Who called whom, on either side.
    calls: HashSet<(FunctionId, FunctionId)>,
    runs: [Vec<Run>; 2],
    /// `None` if nobody asked for stacks.
    stacks: Option<Stacks>,
}

#[derive(Debug, Default)]
struct Stacks {
    nodes: Vec<Node>,
    index: HashMap<(FunctionId, Option<u32>), u32>,
}

/// Why two sides cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A side has no runs.
    #[error("the {0} has no profiles", side.label())]
    NoRuns {
        /// Which.
        side: Side,
    },
    /// A profile has no samples.
    #[error("{name}: the profile has no samples")]
    Empty {
        /// The file.
        name: String,
    },
    /// A profile was taken at another rate than the first.
    #[error(
        "{name}: it was sampled at {}, and {first} at {}: only profiles of one rate can be compared",
        rate(*found), rate(*expected)
    )]
    MixedRates {
        /// The file.
        name: String,
        /// Its rate; 0 if it does not say.
        found: u64,
        /// The first file.
        first: String,
        /// The rate of that.
        expected: u64,
    },
    /// The two sides are profiles of different programs.
    #[error(
        "the baseline ({baseline}, …) and the candidate ({candidate}, …) have no function in common: they are \
         profiles of different programs, or one of them has no symbols"
    )]
    NoOverlap {
        /// A file of the baseline.
        baseline: String,
        /// A file of the candidate.
        candidate: String,
    },
}

fn rate(hz: u64) -> String {
    match hz {
        0 => "an unknown rate".to_owned(),
        hz => format!("{hz} Hz"),
    }
}

impl Pair {
    /// A pair that also keeps stacks, for [`super::Difference`].
    pub fn with_stacks() -> Self {
        Self {
            stacks: Some(Stacks::default()),
            ..Self::default()
        }
    }

    /// Adds a run. `name` is shown to people: that of the file.
    ///
    /// # Errors
    /// [`Error::Empty`], and [`Error::MixedRates`] if it was not sampled like those before it.
    pub fn add(&mut self, side: Side, name: &str, profile: &Profile) -> Result<(), Error> {
        let name = crate::format::escape(name).into_owned();
        let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
        if samples == 0 {
            return Err(Error::Empty { name });
        }
        if let Some(first) = self.runs.iter().flatten().next()
            && first.frequency_hz != profile.meta.frequency_hz
        {
            return Err(Error::MixedRates {
                name,
                found: profile.meta.frequency_hz,
                first: first.name.clone(),
                expected: first.frequency_hz,
            });
        }
        let counts = self.count(side, profile);
        let meta = &profile.meta;
        self.runs[side as usize].push(Run {
            name,
            samples,
            complete: profile.summary.complete(),
            lost: profile.summary.lost(),
            frequency_hz: meta.frequency_hz,
            start: meta.start,
            duration: meta.duration,
            facts: facts(profile),
            build_ids: build_ids(profile),
            fingerprint: fingerprint(profile),
            counts,
        });
        Ok(())
    }

    /// Whether the two sides can be compared at all.
    ///
    /// # Errors
    /// [`Error::NoRuns`] and [`Error::NoOverlap`].
    pub fn check(&self) -> Result<(), Error> {
        for side in Side::BOTH {
            if self.runs(side).is_empty() {
                return Err(Error::NoRuns { side });
            }
        }
        let seen = |side, id| self.runs(side).iter().any(|run| run.counts(id).total > 0);
        let common = self.ids().any(|id| {
            !self.function(id).name.starts_with('[') && Side::BOTH.iter().all(|&side| seen(side, id))
        });
        if common {
            return Ok(());
        }
        Err(Error::NoOverlap {
            baseline: self.runs(Side::Baseline)[0].name.clone(),
            candidate: self.runs(Side::Candidate)[0].name.clone(),
        })
    }

    /// The runs of a side, in the order in which they were added.
    pub fn runs(&self, side: Side) -> &[Run] {
        &self.runs[side as usize]
    }

    /// What is known of a function.
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.0 as usize]
    }

    /// All functions of both sides.
    pub fn ids(&self) -> impl Iterator<Item = FunctionId> + use<> {
        (0..self.functions.len() as u32).map(FunctionId)
    }

    /// Who called whom, on either side.
    pub(super) fn calls(&self) -> &HashSet<(FunctionId, FunctionId)> {
        &self.calls
    }

    /// Every stack and part of a stack of both sides; a caller stands before what it called. Empty if nobody asked for
    /// stacks.
    pub(super) fn nodes(&self) -> &[Node] {
        self.stacks.as_ref().map_or(&[], |stacks| &stacks.nodes)
    }

    fn count(&mut self, side: Side, profile: &Profile) -> Vec<Counts> {
        let frames: Vec<FunctionId> = profile.frames.iter().map(|frame| self.intern(frame)).collect();
        // Most calls are part of many stacks: sorting is cheaper than hashing each of them.
        let mut calls: Vec<(FunctionId, FunctionId)> = profile
            .stacks
            .iter()
            .filter_map(|&(frame, caller)| {
                let (caller, _) = profile.stacks[caller?.0 as usize];
                Some((frames[caller.0 as usize], frames[frame.0 as usize]))
            })
            .collect();
        calls.sort_unstable();
        calls.dedup();
        self.calls.extend(calls);
        let nodes: Vec<u32> = match &mut self.stacks {
            // A caller has a smaller number than what it called.
            Some(stacks) => profile
                .stacks
                .iter()
                .fold(Vec::new(), |mut nodes, &(frame, caller)| {
                    let caller = caller.map(|StackId(at)| nodes[at as usize]);
                    nodes.push(stacks.intern(frames[frame.0 as usize], caller));
                    nodes
                }),
            None => Vec::new(),
        };
        let no_stack = self.intern_name("[no stack]", None, None);
        let mut counts = vec![Counts::default(); self.functions.len()];
        // In which sample a function was seen last, so that recursion counts once.
        let mut seen = vec![u32::MAX; self.functions.len()];
        for (number, sample) in (0..).zip(&profile.samples) {
            let leaf = sample.stack.map_or(no_stack, |stack| {
                frames[profile.stacks[stack.0 as usize].0.0 as usize]
            });
            counts[leaf.0 as usize].own += sample.count;
            if sample.stack.is_none() {
                counts[leaf.0 as usize].total += sample.count;
            }
            for (_, frame) in profile.walk_ids(sample.stack) {
                let at = frames[frame.0 as usize].0 as usize;
                if seen[at] != number {
                    seen[at] = number;
                    counts[at].total += sample.count;
                }
            }
            if let Some(stacks) = &mut self.stacks {
                let node = match sample.stack {
                    Some(stack) => nodes[stack.0 as usize],
                    None => stacks.intern(no_stack, None),
                };
                stacks.nodes[node as usize].own[side as usize] += sample.count;
            }
        }
        counts
    }

    fn intern(&mut self, frame: &Frame) -> FunctionId {
        let name = match (frame.kind, frame.function.rsplit_once("+0x")) {
            // `[libz.so.1+0x1f30]`: the offset means nothing in another build.
            (Kind::Unknown, Some((module, _))) => format!("{module}]"),
            _ => folded::frame_name(frame),
        };
        self.intern_name(&name, frame.file.as_deref(), frame.start_line.or(frame.line))
    }

    fn intern_name(&mut self, name: &str, file: Option<&str>, line: Option<u32>) -> FunctionId {
        if let Some(&id) = self.by_name.get(name) {
            let function = &mut self.functions[id.0 as usize];
            if function.file.is_none() && file.is_some() {
                (function.file, function.line) = (file.map(str::to_owned), line);
            }
            return id;
        }
        let id = FunctionId(self.functions.len() as u32);
        self.functions.push(Function {
            name: name.to_owned(),
            file: file.map(str::to_owned),
            line,
        });
        self.by_name.insert(name.to_owned(), id);
        id
    }
}

impl Stacks {
    fn intern(&mut self, function: FunctionId, caller: Option<u32>) -> u32 {
        *self.index.entry((function, caller)).or_insert_with(|| {
            self.nodes.push(Node {
                function,
                caller,
                own: [0, 0],
            });
            (self.nodes.len() - 1) as u32
        })
    }
}

fn build_ids(profile: &Profile) -> BTreeMap<String, String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    profile
        .modules
        .iter()
        .filter_map(|module| Some((name(&module.path), module.build_id.clone()?)))
        .collect()
}

/// Covers what no two recordings can share: the time, and every count.
fn fingerprint(profile: &Profile) -> u64 {
    let mut hasher = DefaultHasher::new();
    profile.meta.start.hash(&mut hasher);
    profile.meta.duration.hash(&mut hasher);
    let names: BTreeSet<&str> = profile.frames.iter().map(|frame| &*frame.function).collect();
    names.hash(&mut hasher);
    for sample in &profile.samples {
        (sample.thread, sample.stack, sample.stop, sample.count).hash(&mut hasher);
    }
    hasher.finish()
}

fn facts(profile: &Profile) -> BTreeMap<String, String> {
    let mut facts: BTreeMap<_, _> = profile.meta.facts.iter().cloned().collect();
    if !profile.meta.program.is_empty() {
        facts.insert("program".to_owned(), profile.meta.program.clone());
    }
    facts
}
