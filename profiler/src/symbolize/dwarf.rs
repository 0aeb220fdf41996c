//! What DWARF says about an address: the functions that the compiler put inside one another there, with files and
//! lines. `addr2line` finds them; here are its inputs, its limits, and the line where a function is declared.

use super::declaration::{Declaration, Declarations, language_of};
use super::elf::Elf;
use super::fuel::{Fuel, Metered};
use super::sections::{Sections, checked_units};
use super::{MAX_SYMBOL, demangle, text};
use addr2line::{Context, SplitDwarfLoad};
use gimli::{AbbreviationsCacheStrategy, DwLang, DwarfPackage};
use self_cell::self_cell;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use thiserror::Error;
use typed_arena::Arena;

/// The DWARF of one object, indexed by unit; the rest is read when an address asks for it, and only once.
pub(super) struct Dwarf(Loaded);

self_cell!(
    struct Loaded {
        owner: Store,
        #[not_covariant]
        dependent: Index,
    }
);

/// What is read.
struct Store {
    main: Sections,
    supplementary: Option<Sections>,
    /// Those of split units, which come while the others are in use.
    split: Arena<Sections>,
    fuel: Fuel,
}

struct Index<'a> {
    context: Context<Metered<'a>>,
    declarations: Declarations,
    package: OnceCell<DwarfPackage<Metered<'a>>>,
    /// Split units that no lookup has asked for yet, by id.
    split: RefCell<HashMap<u64, gimli::Dwarf<Metered<'a>>>>,
    fuel: &'a Fuel,
}

/// A unit whose DWARF is in a file of its own, but for what had to be linked (`-gsplit-dwarf`). The paths come from the
/// program and may hold anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SplitUnit {
    /// Tells it from other units and from other builds of the same.
    pub id: u64,
    /// The file, as the compiler was told to write it.
    pub path: String,
    /// The folder in which the compiler ran, if it says so.
    pub folder: Option<String>,
}

/// One function at an address.
#[derive(Debug)]
pub(super) struct Frame {
    /// The name for the linker if DWARF has one, else the one in the source.
    pub(super) name: Option<String>,
    pub(super) language: Option<DwLang>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) start_line: Option<u32>,
}

/// Why the DWARF of a file is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Problem {
    /// It contradicts itself.
    #[error("its DWARF is damaged: {0}")]
    Damaged(#[from] gimli::Error),
    /// It is built so that reading it would take more time or memory than a compiler's output of that size.
    #[error("its DWARF is too costly to read for its size")]
    TooCostly,
}

/// Functions that are reported for one address.
const MAX_INLINED: usize = 256;
/// How many times its size an index may cost to build. What compilers write costs a tenth of its size.
const INDEX_READS: u64 = 2;
/// How many times their size the sections may be read in all lookups together. What compilers write is read about
/// once, with names and paths that many entries share.
const LOOKUP_READS: u64 = 8;
/// Bytes that finding one declaration may take. What was found or not found is kept.
const DECLARATION_READS: u64 = 1 << 20;
/// Longest path of a source file, in bytes: `PATH_MAX`.
const MAX_PATH: usize = 4096;
/// Split units of one object, for each of which there is a file.
const MAX_SPLIT_UNITS: usize = 8192;
/// For files so small that proportions say nothing, in bytes.
const SMALL: u64 = 256 << 10;

impl Problem {
    /// The true problem when the input ended for lack of fuel.
    fn in_view_of(self, fuel: &Fuel) -> Self {
        if fuel.is_empty() { Self::TooCostly } else { self }
    }
}

impl Dwarf {
    /// Indexes the DWARF of a file, which may refer to a supplementary file. An error if it makes no sense or would cost
    /// more than it can be worth.
    pub(super) fn load(elf: &Elf, supplementary: Option<&Elf>) -> Result<Self, Problem> {
        let store = Store {
            main: Sections::of(elf),
            supplementary: supplementary.map(Sections::of),
            split: Arena::new(),
            fuel: Fuel::default(),
        };
        let size = store.size();
        store.fuel.add(SMALL + INDEX_READS * size);
        store.fuel.start_here();
        let loaded = Loaded::try_new(store, |store| {
            Index::new(store).map_err(|problem| problem.in_view_of(&store.fuel))
        })?;
        loaded.borrow_owner().fuel.add(LOOKUP_READS * size);
        Ok(Self(loaded))
    }

    /// Adds the package of all split units.
    pub(super) fn add_package(&self, elf: &Elf) -> Result<(), Problem> {
        self.0.with_dependent(|store, index| {
            let sections = store.add_split(Sections::of_package(elf));
            let package = DwarfPackage::load(
                |id| Ok::<_, gimli::Error>(sections.reader(id, &store.fuel)),
                Metered::new(&[], &store.fuel),
            )?;
            // A second one would be of no use: no lookup would find out.
            let _ = index.package.set(package);
            Ok(())
        })
    }

    /// Adds the file of a split unit, if it has that id; says which it has.
    pub(super) fn add_split_unit(&self, id: u64, elf: &Elf) -> Result<Option<u64>, Problem> {
        self.0.with_dependent(|store, index| {
            if store.split.len() >= MAX_SPLIT_UNITS {
                return Err(Problem::TooCostly);
            }
            let sections = store.add_split(Sections::of_split_units(elf));
            let mut dwarf = sections.dwarf(&store.fuel)?;
            dwarf.file_type = gimli::DwarfFileType::Dwo;
            checked_units(&dwarf)?;
            let Some(header) = dwarf.units().next()? else {
                return Ok(None);
            };
            let found = dwarf.unit(header)?.dwo_id.map(|id| id.0);
            if found == Some(id) {
                index.split.borrow_mut().insert(id, dwarf);
            }
            Ok(found)
        })
    }

    /// The split units that say what is at an address, and that are still missing.
    pub(super) fn split_units(&self, address: u64) -> Vec<SplitUnit> {
        if address == u64::MAX {
            return Vec::new();
        }
        self.0.with_dependent(|store, index| {
            store.fuel.start_here();
            index.load_split_units(address)
        })
    }

    /// The functions at an address, the innermost first; none if DWARF does not know the address. A last frame
    /// without a name means that only the line is known.
    pub(super) fn frames(&self, address: u64) -> Result<Vec<Frame>, Problem> {
        // addr2line asks for the range from the address to the one after it.
        if address == u64::MAX {
            return Ok(Vec::new());
        }
        self.0.with_dependent(|sections, index| {
            sections.fuel.start_here();
            index
                .frames(address)
                .map_err(|problem| problem.in_view_of(&sections.fuel))
        })
    }

    /// Bytes that were read so far, and that could be read in all.
    #[cfg(test)]
    pub(super) fn reads(&self) -> (u64, u64) {
        let store = self.0.borrow_owner();
        let granted = SMALL + (INDEX_READS + LOOKUP_READS) * store.size();
        (granted - store.fuel.left(), granted)
    }
}

impl Store {
    /// Size of all that is there from the beginning, in bytes.
    fn size(&self) -> u64 {
        self.main.size() + self.supplementary.as_ref().map_or(0, Sections::size)
    }

    /// Keeps sections of split units.
    fn add_split(&self, sections: Sections) -> &Sections {
        self.fuel
            .add(SMALL + (INDEX_READS + LOOKUP_READS) * sections.size());
        self.split.alloc(sections)
    }
}

impl<'a> Index<'a> {
    fn new(store: &'a Store) -> Result<Self, Problem> {
        let mut dwarf = store.main.dwarf(&store.fuel)?;
        let units = checked_units(&dwarf)?;
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        let mut in_supplementary = Vec::new();
        if let Some(sections) = &store.supplementary {
            let mut supplementary = sections.dwarf(&store.fuel)?;
            in_supplementary = checked_units(&supplementary)?;
            supplementary.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
            dwarf.set_sup(supplementary);
        }
        let context = Context::from_dwarf(dwarf)?;
        Ok(Self {
            context,
            declarations: Declarations::new(units, in_supplementary),
            package: OnceCell::new(),
            split: RefCell::default(),
            fuel: &store.fuel,
        })
    }

    /// Lets lookups of an address use the split units that are there. Those that are not:
    fn load_split_units(&self, address: u64) -> Vec<SplitUnit> {
        let mut missing = Vec::new();
        for (wanted, put) in self.context.preload_units(address) {
            match self.split_unit(&wanted) {
                // Damaged units are left out when their functions are looked for.
                Some(dwarf) => drop(put(Some(dwarf))),
                None => missing.push(SplitUnit::new(&wanted)),
            }
        }
        missing
    }

    fn split_unit(&self, wanted: &SplitDwarfLoad<Metered<'a>>) -> Option<Arc<gimli::Dwarf<Metered<'a>>>> {
        let mut dwarf = self.split.borrow_mut().remove(&wanted.dwo_id.0).or_else(|| {
            let found = self
                .package
                .get()?
                .find_cu(wanted.dwo_id, &wanted.parent)
                .ok()??;
            checked_units(&found).ok()?;
            Some(found)
        })?;
        dwarf.make_dwo(&wanted.parent);
        Some(Arc::new(dwarf))
    }

    fn frames(&self, address: u64) -> Result<Vec<Frame>, Problem> {
        self.load_split_units(address);
        let mut found = self.context.find_frames(address).skip_all_loads()?;
        let unit = self.context.find_dwarf_and_unit(address).skip_all_loads();
        let mut frames: Vec<Frame> = Vec::new();
        while let Some(frame) = found.next()? {
            // The last one is the function that all others were put into: it is never the one to leave out.
            frames.truncate(MAX_INLINED - 1);
            let (file, line) = frame.location.map_or((None, None), |at| (at.file, at.line));
            let (name, language) = frame.function.map_or((None, None), |function| {
                (Some(text(function.name.bytes(), MAX_SYMBOL)), function.language)
            });
            let name = name.filter(|name| !name.is_empty());
            // What is left of a split unit in the program may not say it.
            let language = language.or_else(|| language_of(unit.as_ref()?));
            let scoped = is_cpp(language)
                && name
                    .as_ref()
                    .is_some_and(|name| !demangle::is_mangled(name.as_bytes()));
            let declaration = unit.as_ref().zip(frame.dw_die_offset).map(|(unit, entry)| {
                self.fuel
                    .apart(DECLARATION_READS, || self.declarations.of(unit, entry, scoped))
            });
            let Declaration {
                line: start_line,
                scope,
            } = declaration.unwrap_or_default();
            let name = match name {
                Some(name) if !scope.is_empty() => Some(format!("{scope}::{name}")),
                name => name,
            };
            frames.push(Frame {
                name,
                language,
                file: file.map(|path| text(path.as_bytes(), MAX_PATH)),
                line,
                start_line,
            });
        }
        Ok(frames)
    }
}

impl SplitUnit {
    fn new(load: &SplitDwarfLoad<Metered<'_>>) -> Self {
        let path = |path: Option<&Metered<'_>>| path.map(|path| text(path.bytes(), MAX_PATH));
        Self {
            id: load.dwo_id.0,
            path: path(load.path.as_ref()).unwrap_or_default(),
            folder: path(load.comp_dir.as_ref()),
        }
    }
}

fn is_cpp(language: Option<DwLang>) -> bool {
    const CPP: [DwLang; 6] = [
        gimli::DW_LANG_C_plus_plus,
        gimli::DW_LANG_C_plus_plus_03,
        gimli::DW_LANG_C_plus_plus_11,
        gimli::DW_LANG_C_plus_plus_14,
        gimli::DW_LANG_C_plus_plus_17,
        gimli::DW_LANG_C_plus_plus_20,
    ];
    language.is_some_and(|language| CPP.contains(&language))
}
