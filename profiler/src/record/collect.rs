//! Counting samples by distinct stack while they come, so that memory grows with what is different and not with
//! time.

use super::images::{Image, ModuleIdx};
use super::naming::{HookPc, ProgramIdx};
use crate::addr::Avma;
use crate::hooks::Answer;
use crate::merge::{self, Code, MergedFrame};
use crate::profile::{Labels, Measure, Origin};
use crate::sampler::RawSample;
use profiler_abi::sample::Header;
use profiler_abi::stop::StopReason;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A place that frames are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// What is mapped there.
    pub area: Area,
    /// The interrupted instruction; or for a caller the last byte of its call instruction. In a module, as
    /// [`super::images::Module`] counts.
    pub address: Avma,
    /// How we know that a frame is there.
    pub origin: Origin,
    /// If a hook says so: its own words, for its symbolizer.
    pub said: Option<HookPc>,
}

/// Where a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// The kernel.
    Kernel,
    /// A mapping of the process.
    Module(ModuleIdx),
    /// No mapping that we know.
    Nowhere,
}

/// Handle of a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceIdx(pub u32);

/// Whose stack it is, how its walk ended, and the stack: places, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Process id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the process; empty if it was not watched yet.
    pub process: Arc<str>,
    /// Name of the thread.
    pub comm: String,
    /// How the walk ended.
    pub stop: StopReason,
    /// The sample interrupted kernel code.
    pub from_kernel: bool,
    /// What the program said that it was doing.
    pub labels: Labels,
    /// Places, innermost first.
    pub stack: Box<[PlaceIdx]>,
}

/// The samples of a recording so far.
#[derive(Debug, Default)]
pub struct Collected {
    /// Every place.
    pub places: Vec<Place>,
    index: HashMap<Place, PlaceIdx>,
    /// Every module that a place is in.
    pub modules: HashSet<ModuleIdx>,
    /// How much of each stack was seen.
    pub counts: HashMap<Key, u64>,
    /// All samples.
    pub total: u64,
    /// Samples whose labels are not all there, or cut.
    pub labels_cut: u64,
    /// What is counted.
    pub measure: Measure,
}

impl Collected {
    /// No samples yet.
    pub fn new(measure: Measure) -> Self {
        Self {
            measure,
            ..Self::default()
        }
    }

    /// Counts a sample; `image` is the program image that the process ran, if we know it.
    pub fn add(&mut self, sample: &RawSample<'_>, image: Option<&Image>) {
        let chain = merge::chain(sample.kernel(), sample.user());
        self.count(sample, image, None, chain);
    }

    /// Counts a sample of user code for which the hooks of `program` gave `answer`. `code` says what is at an address.
    pub fn add_answered(
        &mut self,
        sample: &RawSample<'_>,
        image: Option<&Image>,
        program: Option<ProgramIdx>,
        answer: &Answer,
        code: impl Fn(Avma) -> Code,
    ) {
        let chain = merge::answered(sample.user(), answer, code);
        self.count(sample, image, program, chain.into_iter());
    }

    fn count(
        &mut self,
        sample: &RawSample<'_>,
        image: Option<&Image>,
        program: Option<ProgramIdx>,
        chain: impl Iterator<Item = MergedFrame>,
    ) {
        let mut stack = Vec::with_capacity(sample.header.n_kernel as usize + sample.header.n_user as usize);
        for MergedFrame { address, origin } in chain {
            let said = program.filter(|_| origin == Origin::Hook).map(|program| HookPc {
                program,
                pc: address.0,
            });
            let (area, address) = match origin {
                Origin::Kernel => (Area::Kernel, address),
                Origin::Walked | Origin::Hook => image
                    .and_then(|image| image.find(sample.header.generation, address))
                    .map_or((Area::Nowhere, address), |(at, address)| {
                        (Area::Module(at), address)
                    }),
            };
            stack.push(self.place(Place {
                area,
                address,
                origin,
                said,
            }));
        }
        let time = sample.header.time_ns;
        let stop = if image.is_none_or(|image| image.was_valid(sample.header.generation, time)) {
            sample.stop
        } else {
            StopReason::TablesChanging
        };
        let key = Key {
            tgid: sample.header.tgid,
            tid: sample.header.tid,
            process: image.map_or_else(Arc::default, |image| Arc::clone(&image.name)),
            comm: sample.comm(),
            stop,
            from_kernel: sample.header.flags & Header::FROM_KERNEL != 0,
            labels: sample.labels(),
            stack: stack.into(),
        };
        self.labels_cut += u64::from(sample.header.flags & Header::LABELS_CUT != 0);
        let much = match self.measure {
            Measure::Cpu => 1,
            Measure::OffCpu => sample.header.cookie,
        };
        *self.counts.entry(key).or_default() += much;
        self.total += much;
    }

    fn place(&mut self, place: Place) -> PlaceIdx {
        *self.index.entry(place).or_insert_with(|| {
            self.places.push(place);
            if let Area::Module(at) = place.area {
                self.modules.insert(at);
            }
            PlaceIdx(self.places.len() as u32 - 1)
        })
    }
}
