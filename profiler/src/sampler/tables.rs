//! Filling the tables that the walk reads; their layout is in `profiler_abi::table`.
//!
//! What a walk may be reading is never overwritten: a new list of mappings goes where no list is, and the place
//! of the old one stays taken until [`Tables::publish`] has been called once more for the same process, by which
//! time any walk that read the old list (they take microseconds) is over.

use super::Error;
use super::space::Space;
use super::sys::MappedArray;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData};
use profiler_abi::go::{GoLayout, MAX_RUNTIMES};
use profiler_abi::rule::ExtRule;
use profiler_abi::table::{Asking, Mapping, ProcSlot, RegionRef, SHARD_BYTES};
use zerocopy::{Immutable, IntoBytes};

/// The inner maps of the array of shards, as `profiler-ebpf` declares them.
type Shard = Array<MapData, [u8; SHARD_BYTES]>;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The tables of one object file.
#[derive(Debug)]
pub struct ObjectTable {
    /// Index in the directory of the region that holds the object's own address 0.
    pub directory: u32,
    /// How many regions the object has.
    pub n_regions: u32,
    /// Where its regions are: shard, first byte, length.
    regions: Vec<(usize, usize, usize)>,
}

/// How much of the tables is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Program images.
    pub slots: usize,
    /// Entries in lists of mappings.
    pub mappings: usize,
    /// Regions of code, those without rules included.
    pub directory: usize,
    /// Bytes of rules.
    pub rules: usize,
}

/// A slot for a program image, and the lists of mappings it has.
#[derive(Debug)]
pub struct Slot {
    /// Index of the slot.
    pub index: u32,
    /// Where the current list is and how long, and the one before it.
    lists: [Option<(usize, usize)>; 2],
}

/// The maps that tables are in.
#[derive(Debug)]
pub struct Tables {
    procs: HashMap<MapData, u32, u32>,
    slots: MappedArray<ProcSlot>,
    slot_space: Space,
    mappings: MappedArray<Mapping>,
    mapping_space: Space,
    directory: MappedArray<RegionRef>,
    directory_space: Space,
    /// The array of shards; viewed as what each use needs.
    shards: Map,
    open_shards: Vec<(MappedArray<[u8; SHARD_BYTES]>, Space)>,
    ext_rules: MappedArray<ExtRule>,
    n_ext_rules: usize,
    generation: u32,
}

/// How threads of a process are asked what its hooks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The signal that asks.
    pub signal: u32,
    /// Address of its handler: while the process has another, nobody is asked.
    pub handler: u64,
    /// How many threads may be asked in a tenth of a second.
    pub per_window: u32,
    /// How many filters of system calls a thread has that may be asked.
    pub filters: u32,
}

impl Tables {
    /// Takes the maps over from a loaded object.
    pub(super) fn new(bpf: &mut aya::Ebpf) -> Result<Self, Error> {
        let slots = mapped::<ProcSlot>(bpf, "SLOTS")?;
        let mappings = mapped::<Mapping>(bpf, "MAPPINGS")?;
        let directory = mapped::<RegionRef>(bpf, "DIRECTORY")?;
        Ok(Self {
            procs: HashMap::try_from(take(bpf, "PROCS")?).map_err(Error::map("PROCS"))?,
            slot_space: Space::new(slots.len()),
            slots,
            mapping_space: Space::new(mappings.len()),
            mappings,
            directory_space: Space::new(directory.len()),
            directory,
            shards: take(bpf, "SHARDS")?,
            open_shards: Vec::new(),
            ext_rules: mapped::<ExtRule>(bpf, "EXT_RULES")?,
            n_ext_rules: 0,
            generation: 0,
        })
    }

    /// Adds extended rules that were handed out since the last call; `all` is the whole list.
    pub fn add_ext_rules(&mut self, all: &[ExtRule]) -> Result<(), Error> {
        for (index, rule) in all.iter().enumerate().skip(self.n_ext_rules) {
            if !self.ext_rules.store(index, rule) {
                return Err(Error::Full {
                    what: "extended unwind rules",
                });
            }
        }
        self.n_ext_rules = all.len();
        Ok(())
    }

    /// Adds the tables of an object: for each region that has one, its number and its bytes.
    pub fn add_object(&mut self, n_regions: u32, tables: &[(u32, Vec<u8>)]) -> Result<ObjectTable, Error> {
        let directory = self.directory_space.take(n_regions as usize).ok_or(Error::Full {
            what: "regions of code",
        })?;
        let mut object = ObjectTable {
            directory: directory as u32,
            n_regions,
            regions: Vec::with_capacity(tables.len()),
        };
        let written = self.write_object(&mut object, tables);
        if let Err(error) = written {
            self.remove_object(object);
            return Err(error);
        }
        Ok(object)
    }

    fn write_object(&mut self, object: &mut ObjectTable, tables: &[(u32, Vec<u8>)]) -> Result<(), Error> {
        let (directory, n_regions) = (object.directory as usize, object.n_regions);
        let mut next = 0;
        for (number, bytes) in tables {
            let (shard, start) = self.write_region(bytes)?;
            object
                .regions
                .push((shard, start, bytes.len().next_multiple_of(8)));
            for hole in next..*number {
                let _ = self.directory.store(directory + hole as usize, &RegionRef::NONE);
            }
            if *number >= n_regions
                || !self
                    .directory
                    .store(directory + *number as usize, &RegionRef::new(shard as u32, start))
            {
                return Err(Error::Full {
                    what: "regions of code",
                });
            }
            next = number + 1;
        }
        for hole in next..n_regions {
            let _ = self.directory.store(directory + hole as usize, &RegionRef::NONE);
        }
        Ok(())
    }

    /// Frees the tables of an object that no list of mappings has named for some time.
    pub fn remove_object(&mut self, object: ObjectTable) {
        for (shard, start, len) in object.regions {
            if let Some((_, space)) = self.open_shards.get_mut(shard) {
                space.give_back(start, len);
            }
        }
        self.directory_space
            .give_back(object.directory as usize, object.n_regions as usize);
    }

    /// How much of the tables is in use.
    pub fn usage(&self) -> Usage {
        Usage {
            slots: self.slot_space.used(),
            mappings: self.mapping_space.used(),
            directory: self.directory_space.used(),
            rules: self.open_shards.iter().map(|(_, space)| space.used()).sum(),
        }
    }

    fn write_region(&mut self, bytes: &[u8]) -> Result<(usize, usize), Error> {
        let len = bytes.len().next_multiple_of(8);
        for (number, (map, space)) in self.open_shards.iter_mut().enumerate() {
            if let Some(start) = space.take(len) {
                return if map.store_bytes(0, start, bytes) {
                    Ok((number, start))
                } else {
                    Err(Error::Full {
                        what: "unwind tables",
                    })
                };
            }
        }
        let (mut map, mut space) = self.add_shard()?;
        let start = space.take(len).ok_or(Error::Full {
            what: "unwind tables",
        })?;
        let stored = map.store_bytes(0, start, bytes);
        self.open_shards.push((map, space));
        if stored {
            Ok((self.open_shards.len() - 1, start))
        } else {
            Err(Error::Full {
                what: "unwind tables",
            })
        }
    }

    fn add_shard(&mut self) -> Result<(MappedArray<[u8; SHARD_BYTES]>, Space), Error> {
        let number = self.open_shards.len() as u32;
        let shard = Shard::create(1, BPF_F_MMAPABLE).map_err(Error::map("SHARDS"))?;
        ArrayOfMaps::<&mut MapData, Shard>::try_from(&mut self.shards)
            .and_then(|mut shards| shards.set(number, &shard, 0))
            .map_err(Error::map("SHARDS"))?;
        // The typed map keeps its descriptor to itself; asking the outer map for it gives another one.
        let shard = ArrayOfMaps::<&MapData, MapData>::try_from(&self.shards)
            .and_then(|shards| shards.get(&number, 0))
            .map_err(Error::map("SHARDS"))?;
        let map = MappedArray::new(shard.fd(), 1).map_err(|source| Error::MapMemory {
            map: "SHARDS",
            source,
        })?;
        Ok((map, Space::new(SHARD_BYTES)))
    }

    /// A slot for a new program image, without mappings yet.
    pub fn new_slot(&mut self) -> Result<Slot, Error> {
        let index = self.slot_space.take(1).ok_or(Error::Full { what: "processes" })?;
        if !self.slots.store(
            index,
            &ProcSlot {
                current: 0,
                go: [GoLayout::default(); MAX_RUNTIMES],
                asking: Asking::default(),
            },
        ) {
            return Err(Error::Full { what: "processes" });
        }
        Ok(Slot {
            index: index as u32,
            lists: [None; 2],
        })
    }

    /// Says what the walk has to know of the Go runtimes of a slot's image.
    pub fn set_go(&mut self, slot: &Slot, go: &[GoLayout; MAX_RUNTIMES]) {
        // A slot that exists has a place; see `new_slot`.
        let _ = self.slots.store_bytes(
            slot.index as usize,
            std::mem::offset_of!(ProcSlot, go),
            go.as_bytes(),
        );
    }

    /// From now on threads of the process with this tgid, which has the slot, are asked what their hooks say; or not any
    /// more.
    pub fn ask(&mut self, slot: &Slot, tgid: u32, question: Option<&Question>) {
        let words = question.map_or(Asking::default(), |question| Asking {
            signal: question.signal,
            per_window: question.per_window,
            handler: question.handler,
            filters: question.filters,
            tgid,
            ..Asking::default()
        });
        let asking = std::mem::offset_of!(ProcSlot, asking);
        let mut store = |at: usize, len: usize| {
            // A slot that exists has a place; see `new_slot`.
            let _ = self
                .slots
                .store_bytes(slot.index as usize, asking + at, &words.as_bytes()[at..at + len]);
        };
        // Signal and rate in one store, and after what belongs to them.
        if question.is_some() {
            let rest = std::mem::offset_of!(Asking, handler);
            store(rest, std::mem::offset_of!(Asking, window_ns) - rest);
        }
        store(0, 8);
    }

    /// Makes `mappings`, ascending by address, the mappings of the slot. Returns the generation that samples will
    /// carry from now on.
    pub fn publish(&mut self, slot: &mut Slot, mappings: &[Mapping]) -> Result<u32, Error> {
        if let Some((start, len)) = slot.lists[1].take() {
            self.mapping_space.give_back(start, len);
        }
        let len = mappings.len() + 1;
        let at = self
            .mapping_space
            .take(len)
            .ok_or(Error::Full { what: "mappings" })?;
        slot.lists = [Some((at, len)), slot.lists[0]];
        let head = Mapping {
            start: mappings.len() as u64,
            ..Mapping::default()
        };
        for (i, mapping) in std::iter::once(&head).chain(mappings).enumerate() {
            if !self.mappings.store(at + i, mapping) {
                return Err(Error::Full { what: "mappings" });
            }
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        if !self.slots.publish(
            slot.index as usize,
            u64::from(self.generation) | (at as u64) << 32,
        ) {
            return Err(Error::Full { what: "processes" });
        }
        Ok(self.generation)
    }

    /// Frees a slot that no process uses.
    pub fn remove_slot(&mut self, slot: Slot) {
        for (start, len) in slot.lists.into_iter().flatten() {
            self.mapping_space.give_back(start, len);
        }
        self.slot_space.give_back(slot.index as usize, 1);
    }

    /// Samples of process `tgid` are wanted from now on.
    pub fn watch(&mut self, tgid: u32, slot: &Slot) -> Result<(), Error> {
        self.procs
            .insert(tgid, slot.index, 0)
            .map_err(Error::map("PROCS"))
    }

    /// There are no tables for process `tgid`: from now on its samples say why, by what stands for its slot, one of
    /// [`ProcSlot::NO_ROOM`] and [`ProcSlot::NOT_ALLOWED`].
    pub fn turn_away(&mut self, tgid: u32, why: u32) {
        // Where there is no room even for that, the BPF program says so by itself.
        let _ = self.procs.insert(tgid, why, 0);
    }

    /// Samples of process `tgid` are not wanted any more. It may be gone already.
    pub fn unwatch(&mut self, tgid: u32) {
        let _ = self.procs.remove(&tgid);
    }
}

pub(super) fn take(bpf: &mut aya::Ebpf, name: &'static str) -> Result<Map, Error> {
    bpf.take_map(name).ok_or(Error::NotOurs { what: name })
}

fn mapped<T: IntoBytes + Immutable>(
    bpf: &mut aya::Ebpf,
    name: &'static str,
) -> Result<MappedArray<T>, Error> {
    let Map::Array(data) = take(bpf, name)? else {
        return Err(Error::NotOurs { what: name });
    };
    let entries = data.info().map_err(Error::map(name))?.max_entries() as usize;
    MappedArray::new(data.fd(), entries).map_err(|source| Error::MapMemory { map: name, source })
}
