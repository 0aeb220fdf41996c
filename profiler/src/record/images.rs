//! Program images: what a process has mapped where. A process gets a new one by exec.

use super::objects::Object;
use crate::addr::{Avma, Bias, Svma};
use crate::sampler::{NewCode, ObjectTable, Slot};
use crate::target::maps::{FileId, MapEntry};
use profiler_abi::table::Mapping;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Handle of a [`Module`] in [`Modules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleIdx(pub u32);

/// A mapped piece of a file, or a named or anonymous area: where frames are. Addresses in a file's module are those
/// of the mapping that was first seen, wherever processes have it.
#[derive(Debug)]
pub struct Module {
    /// The mapping that was first seen.
    pub entry: MapEntry,
    /// A process that has it.
    pub pid: u32,
    /// What it holds.
    pub content: Content,
}

impl Module {
    /// How far `entry`, a mapping of the same, is above the one that was first seen. Wrapping.
    fn shift(&self, entry: &MapEntry) -> u64 {
        entry.start.wrapping_sub(self.entry.start)
    }

    /// Whether its object has to be read before walks can pass through it.
    pub fn has_to_be_read(&self) -> bool {
        match &self.content {
            Content::Pending => true,
            Content::Object(loaded, _) => loaded.is_freed(),
            Content::Bare(_) => false,
        }
    }

    /// The object in the module and its bias where `entry` maps it.
    pub fn object(&self, entry: &MapEntry) -> Option<(&Arc<Loaded>, Bias)> {
        match &self.content {
            Content::Object(loaded, bias) => Some((loaded, Bias(bias.0.wrapping_add(self.shift(entry))))),
            Content::Pending | Content::Bare(_) => None,
        }
    }
}

/// How long the mappings of an older generation are kept: samples come within a fraction of that.
const KEPT: Duration = Duration::from_secs(10);

/// What is known of a module's code.
#[derive(Clone, Debug)]
pub enum Content {
    /// The object is being read.
    Pending,
    /// The object, loaded with this bias in the mapping that was first seen, and its tables.
    Object(Arc<Loaded>, Bias),
    /// Code without an object: anonymous memory, or a file that is none or cannot be read; and why.
    Bare(String),
}

/// An object and where its tables are.
pub struct Loaded {
    /// What the file says.
    pub object: Mutex<Object>,
    /// Its place in the BPF maps.
    pub table: Mutex<Held>,
}

/// Whether the tables of an object are in the BPF maps.
#[derive(Debug)]
pub enum Held {
    /// They are, here; and since when no process has the object mapped.
    Here(ObjectTable, Option<Instant>),
    /// Not any more: no process had it mapped.
    Freed,
    /// There was no room.
    NoRoom,
}

impl Loaded {
    /// An object whose tables are, or are not, in the maps.
    pub fn new(object: Object, table: Held) -> Self {
        Self {
            object: Mutex::new(object),
            table: Mutex::new(table),
        }
    }

    /// The tables as a mapping names them: directory and number of regions.
    fn place(&self) -> (u32, u32) {
        match self.table.lock().as_deref() {
            Ok(Held::Here(table, _)) => (table.directory, table.n_regions),
            Ok(Held::Freed) => (Mapping::PENDING, 0),
            Ok(Held::NoRoom) | Err(_) => (Mapping::NO_TABLE, 0),
        }
    }

    /// Whether the tables were freed.
    pub fn is_freed(&self) -> bool {
        matches!(self.table.lock().as_deref(), Ok(Held::Freed))
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// What makes two mappings the same module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    file: FileId,
    name: String,
    offset: u64,
    /// Process and start: anonymous code at different places has nothing in common.
    place: Option<(u32, u64)>,
}

/// Every module of a recording.
#[derive(Debug, Default)]
pub struct Modules {
    modules: Vec<Module>,
    index: HashMap<Key, ModuleIdx>,
}

impl Modules {
    /// The module of a mapping of process `pid`; new ones are pending.
    pub fn intern(&mut self, pid: u32, entry: &MapEntry) -> ModuleIdx {
        let key = Key {
            file: entry.file,
            name: entry.name.clone(),
            offset: entry.offset,
            place: (!entry.is_shared()).then_some((pid, entry.start)),
        };
        *self.index.entry(key).or_insert_with(|| {
            self.modules.push(Module {
                entry: entry.clone(),
                pid,
                content: Content::Pending,
            });
            ModuleIdx(self.modules.len() as u32 - 1)
        })
    }

    /// A module.
    pub fn get(&self, at: ModuleIdx) -> &Module {
        &self.modules[at.0 as usize]
    }

    /// Says what a module holds.
    pub fn set(&mut self, at: ModuleIdx, content: Content) {
        self.modules[at.0 as usize].content = content;
    }

    /// All of them, with their handles.
    pub fn iter(&self) -> impl Iterator<Item = (ModuleIdx, &Module)> {
        self.modules
            .iter()
            .enumerate()
            .map(|(i, module)| (ModuleIdx(i as u32), module))
    }
}

/// A mapping of one generation.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// What is there.
    pub module: ModuleIdx,
    /// How far it is above where the module was first seen.
    shift: u64,
}

impl Mapped {
    /// The mapping `entry` of the module `at`.
    pub fn new(entry: &MapEntry, at: ModuleIdx, modules: &Modules) -> Self {
        Self {
            start: entry.start,
            end: entry.end,
            module: at,
            shift: modules.get(at).shift(entry),
        }
    }
}

/// A program image.
#[derive(Debug)]
pub struct Image {
    /// Its slot in the BPF maps.
    pub slot: Slot,
    /// A process that runs it.
    pub pid: u32,
    /// Name of the process.
    pub name: Arc<str>,
    /// The executable mappings as last read, for comparison.
    pub entries: Vec<MapEntry>,
    /// What each of them is.
    pub modules: Vec<ModuleIdx>,
    /// Samples in flight may be of older generations than the newest.
    generations: HashMap<u32, Generation>,
    /// The newest.
    generation: u32,
}

/// The mappings that walks used for a time.
#[derive(Debug)]
struct Generation {
    /// Ascending.
    mapped: Arc<[Mapped]>,
    /// When other code took the place of some of it, `CLOCK_MONOTONIC`, in nanoseconds.
    replaced: Option<u64>,
    /// When there was a newer one.
    superseded: Option<Instant>,
}

impl Image {
    /// An image without mappings.
    pub fn new(slot: Slot, pid: u32, name: Arc<str>) -> Self {
        Self {
            slot,
            pid,
            name,
            entries: Vec::new(),
            modules: Vec::new(),
            generations: HashMap::new(),
            generation: 0,
        }
    }

    /// Remembers what was mapped in a generation.
    pub fn add_generation(&mut self, generation: u32, mapped: Arc<[Mapped]>) {
        if let Some(newest) = self.generations.get_mut(&self.generation) {
            newest.superseded = Some(Instant::now());
        }
        // Programs can map code for ever.
        self.generations.retain(|_, old| {
            old.superseded
                .is_none_or(|superseded| superseded.elapsed() < KEPT)
        });
        self.generations.insert(
            generation,
            Generation {
                mapped,
                replaced: None,
                superseded: None,
            },
        );
        self.generation = generation;
    }

    /// Code was mapped: if there was other code, the newest generation holds until then only.
    pub fn new_code(&mut self, new: &NewCode) {
        if let Some(newest) = self.generations.get_mut(&self.generation)
            && newest
                .mapped
                .iter()
                .any(|mapped| mapped.start < new.end && new.start < mapped.end)
        {
            newest.replaced.get_or_insert(new.time_ns);
        }
    }

    /// It has been looked, and the mappings are what they were.
    pub fn is_up_to_date(&mut self) {
        if let Some(newest) = self.generations.get_mut(&self.generation) {
            newest.replaced = None;
        }
    }

    /// Whether a generation told of the right code at this time.
    pub fn was_valid(&self, generation: u32, time_ns: u64) -> bool {
        self.generations
            .get(&generation)
            .and_then(|generation| generation.replaced)
            .is_none_or(|replaced| time_ns < replaced)
    }

    /// What was mapped at an address in a generation, and the address as the module has it.
    pub fn find(&self, generation: u32, address: Avma) -> Option<(ModuleIdx, Avma)> {
        let mapped = &self.generations.get(&generation)?.mapped;
        let after = mapped.partition_point(|mapping| mapping.start <= address.0);
        let mapping = mapped.get(after.checked_sub(1)?)?;
        let in_module = Avma(address.0.wrapping_sub(mapping.shift));
        (address.0 < mapping.end).then_some((mapping.module, in_module))
    }
}

/// How the walk in BPF is to treat a mapping.
pub fn mapping(entry: &MapEntry, module: &Module) -> Mapping {
    let (bias, directory, n_regions) = match (module.object(entry), &module.content) {
        (Some((loaded, bias)), _) => {
            let (directory, n_regions) = loaded.place();
            (bias.0, directory, n_regions)
        }
        (None, Content::Pending) => (0, Mapping::PENDING, 0),
        (None, _) => (0, Mapping::NO_TABLE, 0),
    };
    Mapping {
        start: entry.start,
        end: entry.end,
        bias,
        directory,
        n_regions,
    }
}

/// The bias with which `entry` maps an object whose byte at the entry's file offset has the stated address `svma`.
pub fn bias(entry: &MapEntry, svma: Svma) -> Bias {
    Bias(entry.start.wrapping_sub(svma.0))
}
