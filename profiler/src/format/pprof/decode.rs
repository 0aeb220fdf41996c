//! From bytes to a profile. Everything in the file is hostile: ids and indexes are looked up, never trusted, and
//! memory is counted before it is taken.

use super::proto::{Function, Label, Location};
use super::sample::Sample;
use super::tables::{Budget, ENTRY, Limits, Tables, bounded, damaged, unpack};
use super::wire::{self, Value};
use super::{FORMAT, KINDS, ORIGINS, comment, label, value};
use crate::format::{Error, stack};
use crate::profile::{
    Builder, Frame, FrameId, Kind, LabelsId, Measure, Meta, Missing, Module, ModuleId, Origin, Profile,
    Roots, Summary, Thread, ThreadId,
};
use profiler_abi::stop::StopReason;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, UNIX_EPOCH};

/// The deepest stack that is read. A recorder of stacks has a limit of some hundreds.
const MAX_FRAMES: usize = 1 << 17;

/// The first format that we do not know.
const FORMAT_AFTER: u64 = FORMAT + 1;

/// Reads `bytes`.
pub(super) fn profile(bytes: &[u8], limits: Limits) -> Result<Profile, Error> {
    let bytes = unpack(bytes, limits.unpacked)?;
    let mut budget = Budget::new(limits.tables);
    let tables = Tables::read(&bytes, &mut budget)?;
    Decoder::new(tables, budget)?.run(&bytes)
}

/// Makes the profile, sample by sample.
struct Decoder<'a> {
    tables: Tables<'a>,
    budget: Budget,
    builder: Builder,
    modules: HashMap<u64, ModuleId>,
    paths: HashMap<ModuleId, Module>,
    /// By the slot of the location; `None` where no sample has used it yet.
    physical: Vec<Option<Physical>>,
    /// The frames of the sample at hand, root first.
    frames: Vec<FrameId>,
    threads: HashMap<(u32, u32, Option<i64>, Option<i64>), ThreadId>,
    /// By the indexes of their keys and values, as they come.
    labels: HashMap<Vec<(i64, i64)>, Option<LabelsId>>,
    pids: BTreeSet<u32>,
    summary: Summary,
    meta: Meta,
}

impl<'a> Decoder<'a> {
    fn new(tables: Tables<'a>, budget: Budget) -> Result<Self, Error> {
        let meta = Meta {
            program: String::new(),
            pids: Vec::new(),
            start: UNIX_EPOCH + Duration::from_nanos(u64::try_from(tables.time_nanos).unwrap_or(0)),
            duration: Duration::from_nanos(u64::try_from(tables.duration_nanos).unwrap_or(0)),
            frequency_hz: tables.frequency_hz()?,
            facts: Vec::new(),
            measure: Measure::default(),
            roots: Roots::default(),
        };
        Ok(Self {
            physical: std::iter::repeat_with(|| None)
                .take(tables.locations.len())
                .collect(),
            frames: Vec::new(),
            tables,
            budget,
            builder: Builder::default(),
            modules: HashMap::new(),
            paths: HashMap::new(),
            threads: HashMap::new(),
            labels: HashMap::new(),
            pids: BTreeSet::new(),
            summary: Summary::default(),
            meta,
        })
    }

    fn run(mut self, bytes: &[u8]) -> Result<Profile, Error> {
        let (measure, count_index) = self.tables.measured()?;
        self.meta.measure = measure;
        if !self.tables.has_samples {
            return Err(Error::NoSamples);
        }
        self.comments()?;
        self.mappings()?;
        let mut sample = Sample::default();
        for field in wire::fields(bytes) {
            if let (2, Value::Bytes(bytes)) = field.map_err(damaged)? {
                sample.read(bounded("sample", bytes)?)?;
                self.sample(&sample, count_index)?;
            }
        }
        if self.summary.kept == 0 {
            return Err(Error::NoSamples);
        }
        if self.meta.pids.is_empty() {
            self.meta.pids = self.pids.into_iter().collect();
        }
        Ok(self.builder.finish(self.meta, self.summary))
    }

    fn comments(&mut self) -> Result<(), Error> {
        for at in 0..self.tables.comments.len() {
            let text = self.tables.string(self.tables.comments[at])?;
            self.budget.take(ENTRY + 2 * text.len())?;
            let Some((name, value)) = text.split_once('=') else {
                continue;
            };
            match name {
                comment::FORMAT => {
                    if let Ok(found @ FORMAT_AFTER..) = value.parse() {
                        return Err(Error::Newer { found, known: FORMAT });
                    }
                }
                comment::PROGRAM => self.meta.program = value.to_owned(),
                comment::PIDS => self
                    .meta
                    .pids
                    .extend(value.split(',').filter_map(|pid| pid.parse::<u32>().ok())),
                comment::ROOTS if value == comment::PROCESS => self.meta.roots.process = true,
                comment::ROOTS if value == comment::PER_THREAD => self.meta.roots.per_thread = true,
                comment::TAG => self.meta.roots.tags.push(value.to_owned()),
                comment::LOST_RING_FULL => add(&mut self.summary.lost_ring_full, value),
                comment::LOST_TICKS => add(&mut self.summary.lost_ticks, value),
                comment::WITHHELD_TICKS => add(&mut self.summary.withheld_ticks, value),
                comment::MISSING => {
                    if let Ok((samples, module, reason)) = serde_json::from_str(value) {
                        self.summary.missing.push(Missing {
                            module,
                            samples,
                            reason,
                        });
                    }
                }
                name => {
                    if let Some(name) = name.strip_prefix(comment::FACT) {
                        self.meta.facts.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        Ok(())
    }

    fn mappings(&mut self) -> Result<(), Error> {
        for at in 0..self.tables.mappings.len() {
            let mapping = self.tables.mappings[at];
            let path = self.tables.string(mapping.filename)?;
            let build_id = self.tables.string(mapping.build_id)?;
            self.budget
                .take(4 * (size_of::<Module>() + path.len() + build_id.len()) + ENTRY)?;
            if self.meta.program.is_empty() && !path.starts_with('[') {
                // profile.proto: the first mapping is the main binary.
                self.meta.program = path.rsplit('/').next().unwrap_or_default().to_owned();
            }
            let module = Module {
                path: path.into_owned(),
                build_id: Some(build_id.into_owned()).filter(|id| !id.is_empty()),
                start: mapping.memory_start,
                end: mapping.memory_limit,
                file_offset: mapping.file_offset,
            };
            let id = self.builder.module(module.clone());
            self.paths.insert(id, module);
            if self.modules.insert(mapping.id, id).is_some() {
                return Err(damaged(format!("there are two mappings {}", mapping.id)));
            }
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample, count_index: usize) -> Result<(), Error> {
        if sample.values.len() != self.tables.sample_types.len() {
            return Err(damaged(format!(
                "a sample has {} values where there are {} sample types",
                sample.values.len(),
                self.tables.sample_types.len()
            )));
        }
        let count = u64::try_from(sample.values[count_index])
            .ok()
            .ok_or_else(|| damaged("a sample has a negative count, as in a difference of two profiles"))?;
        if count == 0 {
            return Ok(());
        }
        let labels = Labels::read(&self.tables, &sample.labels)?;
        let mut locations = sample.locations.as_slice();
        let mut noted = None;
        if let Some((&outermost, inner)) = locations.split_last() {
            noted = self.note(outermost)?;
            if noted.is_some() {
                locations = inner;
            }
        }
        self.frames.clear();
        let mut from_kernel = false;
        for &id in locations.iter().rev() {
            from_kernel = self.push(id)?;
            if self.frames.len() > MAX_FRAMES {
                return Err(damaged(format!("a stack of more than {MAX_FRAMES} frames")));
            }
        }
        // Not memory, but time: a few bytes can name a location of many lines.
        self.budget.take(self.frames.len())?;
        let from_kernel = from_kernel || labels.from_kernel;
        let stop = labels.stop.or(noted).unwrap_or(StopReason::Root);
        let thread = self.thread(&labels)?;
        let said = self.labels(labels.programs)?;

        let nodes = self.builder.stack_nodes();
        let root_first = self.frames.iter().copied();
        self.builder
            .labelled(thread, said, root_first, stop, from_kernel, count);
        self.budget
            .take(ENTRY * (1 + self.builder.stack_nodes() - nodes))?;
        self.account(stop, from_kernel, count)
    }

    fn account(&mut self, stop: StopReason, from_kernel: bool, count: u64) -> Result<(), Error> {
        let summary = &mut self.summary;
        // With room for the sign: the file could not hold a larger sum either.
        summary.kept = summary
            .kept
            .checked_add(count)
            .filter(|&kept| i64::try_from(kept).is_ok())
            .ok_or_else(|| damaged("the counts of its samples add up to more than 63 bits"))?;
        *summary.by_stop.entry(stop).or_default() += count;
        if from_kernel {
            summary.from_kernel += count;
        }
        Ok(())
    }

    fn thread(&mut self, labels: &Labels) -> Result<ThreadId, Error> {
        let key = (labels.pid, labels.tid, labels.thread, labels.process);
        if let Some(&id) = self.threads.get(&key) {
            return Ok(id);
        }
        let name = match labels.thread {
            Some(name) => self.tables.string(name)?.into_owned(),
            None => self.meta.program.clone(),
        };
        let process = labels.process.map(|name| self.tables.string(name)).transpose()?;
        let process = process.unwrap_or_default().into_owned();
        self.budget
            .take(3 * (size_of::<Thread>() + name.len() + process.len()) + ENTRY)?;
        let id = self.builder.thread(Thread {
            pid: labels.pid,
            tid: labels.tid,
            name,
            process,
        });
        self.threads.insert(key, id);
        if labels.pid != 0 {
            self.pids.insert(labels.pid);
        }
        Ok(id)
    }

    /// The set of a program's own labels with these indexes.
    fn labels(&mut self, indexes: Vec<(i64, i64)>) -> Result<Option<LabelsId>, Error> {
        if indexes.is_empty() {
            return Ok(None);
        }
        if let Some(&id) = self.labels.get(&indexes) {
            return Ok(id);
        }
        let mut labels = Vec::with_capacity(indexes.len());
        for &(key, value) in &indexes {
            let (key, value) = (self.tables.string(key)?, self.tables.string(value)?);
            self.budget.take(ENTRY + 2 * (key.len() + value.len()))?;
            let key = key.strip_prefix(label::PROGRAMS).unwrap_or(&key).to_owned();
            labels.push((key, value.into_owned()));
        }
        labels.sort();
        self.budget.take(2 * ENTRY * indexes.len())?;
        let id = self.builder.labels(labels);
        self.labels.insert(indexes, id);
        Ok(id)
    }

    fn find(&self, id: u64) -> Result<&Location, Error> {
        self.tables.locations.get(id).ok_or_else(|| no_location(id))
    }

    fn function(&self, id: u64) -> Result<Function, Error> {
        self.tables
            .functions
            .get(id)
            .copied()
            .ok_or_else(|| damaged(format!("there is no function {id}")))
    }

    /// The reason, if the location is a note instead of a frame.
    fn note(&self, id: u64) -> Result<Option<StopReason>, Error> {
        let location = self.find(id)?;
        let ([line], 0, 0) = (location.line.as_slice(), location.mapping_id, location.address) else {
            return Ok(None);
        };
        let name = self.tables.bytes(self.function(line.function_id)?.name)?;
        Ok(stack::stop_of_note(name))
    }

    /// Adds the frames of a location to those of the sample; whether they are in the kernel.
    fn push(&mut self, id: u64) -> Result<bool, Error> {
        let slot = self.tables.locations.slot(id).ok_or_else(|| no_location(id))?;
        if let Some(Some(physical)) = self.physical.get(slot) {
            self.frames.extend_from_slice(&physical.frames);
            return Ok(physical.kernel);
        }
        let location = self.find(id)?.clone();
        let physical = self.new_physical(&location)?;
        self.frames.extend_from_slice(&physical.frames);
        let kernel = physical.kernel;
        self.physical[slot] = Some(physical);
        Ok(kernel)
    }

    fn new_physical(&mut self, location: &Location) -> Result<Physical, Error> {
        let module = match location.mapping_id {
            0 => None,
            id => Some(
                *self
                    .modules
                    .get(&id)
                    .ok_or_else(|| damaged(format!("there is no mapping {id}")))?,
            ),
        };
        let mut lines = Vec::with_capacity(location.line.len().max(1));
        for line in &location.line {
            lines.push((self.function(line.function_id)?, line.line));
        }
        if lines.is_empty() {
            // An address that nobody has named is a frame too.
            lines.push((Function::default(), 0));
        }
        let mut frames = Vec::with_capacity(lines.len());
        let mut kernel = false;
        for (at, (function, line)) in lines.iter().enumerate() {
            let inlined = at + 1 < lines.len();
            let frame = self.frame(location, module, function, *line, inlined)?;
            kernel |= frame.kind == Kind::Kernel;
            frames.push(self.builder.frame(frame));
        }
        frames.reverse();
        self.budget
            .take(ENTRY + size_of::<Physical>() + frames.len() * size_of::<FrameId>())?;
        Ok(Physical { frames, kernel })
    }

    fn frame(
        &mut self,
        location: &Location,
        module: Option<ModuleId>,
        function: &Function,
        line: i64,
        inlined: bool,
    ) -> Result<Frame, Error> {
        let path = module.and_then(|id| self.paths.get(&id));
        let mut name = self.tables.string(function.name)?;
        let system_name = self.tables.string(function.system_name)?;
        let file = self.tables.string(function.filename)?;
        let kind =
            value(&KINDS, function.kind).unwrap_or_else(|| guess_kind(path, &name, &system_name, &file));
        if name.is_empty() {
            name = Cow::Owned(nameless(path, location.address));
        }
        self.budget
            .take(2 * (size_of::<Frame>() + name.len() + system_name.len() + file.len()) + ENTRY)?;
        let origin = match kind {
            Kind::Kernel => Origin::Kernel,
            _ => Origin::Walked,
        };
        Ok(Frame {
            system_name: Some(system_name.into_owned())
                .filter(|system| !system.is_empty() && *system != name),
            function: name.into_owned(),
            file: Some(file.into_owned()).filter(|file| !file.is_empty()),
            line: line_number(line),
            start_line: line_number(function.start_line),
            module,
            address: location.address,
            kind,
            origin: value(&ORIGINS, location.origin).unwrap_or(origin),
            inlined,
        })
    }
}

fn no_location(id: u64) -> Error {
    damaged(format!("there is no location {id}"))
}

/// A location as frames.
struct Physical {
    /// Root first.
    frames: Vec<FrameId>,
    /// It is in the kernel.
    kernel: bool,
}

/// What we know of the labels of a sample.
#[derive(Default)]
struct Labels {
    /// Index of the thread's name.
    thread: Option<i64>,
    tid: u32,
    pid: u32,
    /// Index of the process's name.
    process: Option<i64>,
    stop: Option<StopReason>,
    from_kernel: bool,
    /// Indexes of keys and values that are not ours.
    programs: Vec<(i64, i64)>,
}

impl Labels {
    fn read(tables: &Tables<'_>, labels: &[Label]) -> Result<Self, Error> {
        let mut read = Self::default();
        for entry in labels {
            let key = tables.bytes(entry.key)?;
            if key == label::THREAD.as_bytes() {
                read.thread = Some(entry.str);
            } else if key == label::TID.as_bytes() {
                read.tid = u32::try_from(entry.num).unwrap_or(0);
            } else if key == label::PID.as_bytes() {
                read.pid = u32::try_from(entry.num).unwrap_or(0);
            } else if key == label::PROCESS.as_bytes() {
                read.process = Some(entry.str);
            } else if key == label::STOP.as_bytes() {
                read.stop = stack::stop_of_label(tables.bytes(entry.str)?);
            } else if key == label::MODE.as_bytes() {
                read.from_kernel = tables.bytes(entry.str)? == label::KERNEL.as_bytes();
            } else if entry.str != 0 {
                read.programs.push((entry.key, entry.str));
            }
        }
        Ok(read)
    }
}

fn add(total: &mut u64, value: &str) {
    // Merged files keep the comments of both.
    *total = total.saturating_add(value.parse().unwrap_or(0));
}

fn line_number(line: i64) -> Option<u32> {
    u32::try_from(line).ok().filter(|&line| line > 0)
}

/// The kind of a function whose file does not say it.
fn guess_kind(module: Option<&Module>, name: &str, system_name: &str, file: &str) -> Kind {
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    if module.is_some_and(|module| module.path.starts_with("[kernel") || module.path.ends_with("/vmlinux")) {
        Kind::Kernel
    } else if name.is_empty() {
        Kind::Unknown
    } else if extension == "go" || (extension == "s" && name.contains('.')) {
        // Go's assembly names are `package.function`; those of C have no dot.
        Kind::Go
    } else if extension == "rs" || system_name.starts_with("_R") {
        Kind::Rust
    } else {
        Kind::Native
    }
}

fn nameless(module: Option<&Module>, address: u64) -> String {
    match module {
        Some(module) => {
            let name = module.path.rsplit('/').next().unwrap_or_default();
            let offset = address
                .wrapping_sub(module.start)
                .wrapping_add(module.file_offset);
            format!("[{name}+{offset:#x}]")
        }
        None => format!("[{address:#x}]"),
    }
}
