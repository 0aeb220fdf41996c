//! The runs of both sides, as counts by function.

use super::count::{Counted, Counts, Function, FunctionId, Functions, Stack};
use crate::profile::Profile;
use foldhash::{HashMap, HashSet};
use std::collections::BTreeMap;
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
    pub(super) counts: Vec<Counts>,
}

impl Run {
    /// CPU time of the run in seconds, if the file says what a sample stands for.
    pub fn cpu_seconds(&self) -> Option<f64> {
        (self.frequency_hz > 0).then(|| self.samples as f64 / self.frequency_hz as f64)
    }

    /// A number that no other recording has.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
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
    functions: Functions,
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
    /// A profile is one of time off the CPU.
    #[error(
        "{name}: it measures time off the CPU, in which waits that nobody minds outweigh all others: only CPU profiles can be compared"
    )]
    OffCpu {
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
    /// [`Error::Empty`], [`Error::OffCpu`], and [`Error::MixedRates`] if it was not sampled like those before it.
    pub fn add(&mut self, side: Side, name: &str, profile: &Profile) -> Result<(), Error> {
        self.add_counted(side, Counted::of(name, profile, self.has_stacks())?)
    }

    /// Whether [`Counted::of`] has to keep stacks for this pair.
    pub fn has_stacks(&self) -> bool {
        self.stacks.is_some()
    }

    /// Adds a run.
    ///
    /// # Errors
    /// [`Error::MixedRates`] if it was not sampled like those before it.
    pub fn add_counted(&mut self, side: Side, counted: Counted) -> Result<(), Error> {
        let mut run = counted.run;
        if let Some(first) = self.runs.iter().flatten().next()
            && first.frequency_hz != run.frequency_hz
        {
            return Err(Error::MixedRates {
                name: run.name,
                found: run.frequency_hz,
                first: first.name.clone(),
                expected: first.frequency_hz,
            });
        }
        // Handles in that run, as handles here.
        let functions = counted.functions.into_entries();
        let ids: Vec<FunctionId> = functions
            .map(|function| self.functions.intern(function))
            .collect();
        let here = |id: FunctionId| ids[id.0 as usize];
        let mut counts = vec![Counts::default(); self.functions.entries().len()];
        for (id, run_counts) in ids.iter().zip(&run.counts) {
            counts[id.0 as usize] = *run_counts;
        }
        run.counts = counts;
        self.calls.extend(
            counted
                .calls
                .iter()
                .map(|&(caller, callee)| (here(caller), here(callee))),
        );
        if let (Some(stacks), Some(added)) = (&mut self.stacks, counted.stacks) {
            stacks.add(side, &added, here);
        }
        self.runs[side as usize].push(run);
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
        &self.functions.entries()[id.0 as usize]
    }

    /// All functions of both sides.
    pub fn ids(&self) -> impl Iterator<Item = FunctionId> + use<> {
        (0..self.functions.entries().len() as u32).map(FunctionId)
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
}

impl Stacks {
    fn add(&mut self, side: Side, added: &[Stack], here: impl Fn(FunctionId) -> FunctionId) {
        let mut nodes: Vec<u32> = Vec::with_capacity(added.len());
        for stack in added {
            let caller = stack.caller.map(|at| nodes[at as usize]);
            let node = self.intern(here(stack.function), caller);
            self.nodes[node as usize].own[side as usize] += stack.own;
            nodes.push(node);
        }
    }

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
