//! One profile as counts by function: all that a comparison needs of it.

use super::Error;
use super::pair::Run;
use crate::format::folded;
use crate::profile::{Frame, Kind, Measure, Profile};
use foldhash::{HashMap, HashSet, HashSetExt};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

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

/// Functions by name.
#[derive(Debug, Default)]
pub(super) struct Functions {
    entries: Vec<Function>,
    by_name: HashMap<String, FunctionId>,
}

impl Functions {
    /// All of them, in the order of their handles.
    pub(super) fn entries(&self) -> &[Function] {
        &self.entries
    }

    /// The same, for good.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Function> {
        self.entries.into_iter()
    }

    /// The handle of a function; of two with one name, the place of the first that has one is kept.
    pub(super) fn intern(&mut self, function: Function) -> FunctionId {
        if let Some(&id) = self.by_name.get(&function.name) {
            let known = &mut self.entries[id.0 as usize];
            if known.file.is_none() {
                (known.file, known.line) = (function.file, function.line);
            }
            return id;
        }
        let id = FunctionId(self.entries.len() as u32);
        self.by_name.insert(function.name.clone(), id);
        self.entries.push(function);
        id
    }

    fn frame(&mut self, frame: &Frame) -> FunctionId {
        let name = match (frame.kind, frame.function.rsplit_once("+0x")) {
            // `[libz.so.1+0x1f30]`: the offset means nothing in another build.
            (Kind::Unknown, Some((module, _))) => format!("{module}]"),
            _ => without_hash(folded::frame_name(frame)),
        };
        self.intern(Function {
            name,
            file: frame.file.clone(),
            line: frame.start_line.or(frame.line),
        })
    }
}

/// `_cgo_Cfunc_f` for `_cgo_874f98faf12b_Cfunc_f`: the number is a digest of the package's source (`cPrefix` in
/// cmd/cgo/main.go), so it changes with every build that is worth a comparison.
fn without_hash(name: String) -> String {
    for prefix in ["_cgo_", "_cgoexp_"] {
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.split_once('_'));
        if let Some((hash, rest)) = rest
            && hash.len() == 12
            && hash.bytes().all(|c| c.is_ascii_hexdigit())
        {
            return format!("{prefix}{rest}");
        }
    }
    name
}

/// A profile, counted. It can be made on any thread, and takes much less memory than the profile.
#[derive(Debug)]
pub struct Counted {
    /// With counts by the handles of `functions`.
    pub(super) run: Run,
    pub(super) functions: Functions,
    /// Who called whom.
    pub(super) calls: HashSet<(FunctionId, FunctionId)>,
    /// `None` if nobody asked for stacks.
    pub(super) stacks: Option<Vec<Stack>>,
}

/// A stack, or part of one, and how many samples end there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    pub(super) function: FunctionId,
    /// An earlier one.
    pub(super) caller: Option<u32>,
    pub(super) own: u64,
}

impl Counted {
    /// Counts. `name` is shown to people: that of the file. Stacks are only needed for [`super::Difference`].
    ///
    /// # Errors
    /// [`Error::Empty`] and [`Error::OffCpu`].
    pub fn of(name: &str, profile: &Profile, with_stacks: bool) -> Result<Self, Error> {
        let name = crate::format::escape(name).into_owned();
        if profile.meta.measure == Measure::OffCpu {
            return Err(Error::OffCpu { name });
        }
        let samples: u64 = profile.samples.iter().map(|sample| sample.count).sum();
        if samples == 0 {
            return Err(Error::Empty { name });
        }
        let mut functions = Functions::default();
        let frames: Vec<FunctionId> = profile
            .frames
            .iter()
            .map(|frame| functions.frame(frame))
            .collect();
        let no_stack = functions.intern(Function {
            name: "[no stack]".to_owned(),
            file: None,
            line: None,
        });
        // A caller has a smaller number than what it called.
        let tree: Vec<(FunctionId, Option<u32>)> = profile
            .stacks
            .iter()
            .map(|&(frame, caller)| (frames[frame.0 as usize], caller.map(|caller| caller.0)))
            .collect();
        let mut calls = HashSet::new();
        for &(function, caller) in &tree {
            if let Some(caller) = caller {
                calls.insert((tree[caller as usize].0, function));
            }
        }
        let counts = counts(profile, &tree, no_stack, functions.entries().len());
        let stacks = with_stacks.then(|| stacks(profile, &tree, no_stack));
        let meta = &profile.meta;
        let run = Run {
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
        };
        Ok(Self {
            run,
            functions,
            calls,
            stacks,
        })
    }
}

fn counts(
    profile: &Profile,
    tree: &[(FunctionId, Option<u32>)],
    no_stack: FunctionId,
    functions: usize,
) -> Vec<Counts> {
    let mut counts = vec![Counts::default(); functions];
    // In which sample a function was seen last, so that recursion counts once.
    let mut seen = vec![u32::MAX; functions];
    for (number, sample) in (0..).zip(&profile.samples) {
        let Some(leaf) = sample.stack else {
            let counts = &mut counts[no_stack.0 as usize];
            counts.own += sample.count;
            counts.total += sample.count;
            continue;
        };
        counts[tree[leaf.0 as usize].0.0 as usize].own += sample.count;
        let mut next = Some(leaf.0);
        while let Some(at) = next {
            let (function, caller) = tree[at as usize];
            let at = function.0 as usize;
            if seen[at] != number {
                seen[at] = number;
                counts[at].total += sample.count;
            }
            next = caller;
        }
    }
    counts
}

fn stacks(profile: &Profile, tree: &[(FunctionId, Option<u32>)], no_stack: FunctionId) -> Vec<Stack> {
    let mut stacks: Vec<Stack> = tree
        .iter()
        .copied()
        .chain([(no_stack, None)])
        .map(|(function, caller)| Stack {
            function,
            caller,
            own: 0,
        })
        .collect();
    for sample in &profile.samples {
        let at = sample.stack.map_or(tree.len(), |stack| stack.0 as usize);
        stacks[at].own += sample.count;
    }
    stacks
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

#[cfg(test)]
mod tests {
    use super::without_hash;

    #[test]
    fn functions_that_cgo_makes_have_the_same_name_in_every_build() {
        for (name, expected) in [
            ("_cgo_874f98faf12b_Cfunc_c_hash", "_cgo_Cfunc_c_hash"),
            ("_cgo_ff218c37b246_Cfunc_c_hash", "_cgo_Cfunc_c_hash"),
            ("_cgo_topofstack", "_cgo_topofstack"),
            ("_cgo_wait_runtime_init_done", "_cgo_wait_runtime_init_done"),
            ("_cgoexp_874f98faf12b_goScore", "_cgoexp_goScore"),
            ("main.f", "main.f"),
        ] {
            assert_eq!(without_hash(name.to_owned()), expected);
        }
    }
}
