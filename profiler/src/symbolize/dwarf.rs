//! What DWARF says about an address: the functions that the compiler put inside one another there, with files and
//! lines. `addr2line` finds them; here are its inputs, its limits, and the line where a function is declared.

use super::declaration::{Declaration, Declarations};
use super::elf::Elf;
use super::fuel::{Fuel, Metered};
use super::{MAX_SYMBOL, demangle, text};
use addr2line::Context;
use bytes::Bytes;
use gimli::{AbbreviationsCacheStrategy, DebugInfoOffset, DwLang, Reader, Section, SectionId};
use self_cell::self_cell;
use thiserror::Error;

/// The DWARF of one object, indexed by unit; the rest is read when an address asks for it, and only once.
pub(super) struct Dwarf(Loaded);

self_cell!(
    struct Loaded {
        owner: Sections,
        #[not_covariant]
        dependent: Index,
    }
);

/// The sections that frames are found with, decompressed.
struct Sections {
    bytes: Vec<(SectionId, Bytes)>,
    fuel: Fuel,
}

struct Index<'a> {
    context: Context<Metered<'a>>,
    declarations: Declarations,
    fuel: &'a Fuel,
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

const SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// Units of one object. Each costs about 1 KiB of memory and at least 12 bytes of file.
const MAX_UNITS: usize = 1 << 18;
/// Attributes of one kind of entry. Compilers write some twenty; entries of no size can have any number.
const MAX_ATTRIBUTES: usize = 256;
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
/// For files so small that proportions say nothing, in bytes.
const SMALL: u64 = 256 << 10;

impl Problem {
    /// The true problem when the input ended for lack of fuel.
    fn in_view_of(self, fuel: &Fuel) -> Self {
        if fuel.is_empty() { Self::TooCostly } else { self }
    }
}

impl Dwarf {
    /// Indexes the DWARF of a file. `Ok(None)` if it has none, an error if it makes no sense or would cost more
    /// than it can be worth.
    pub(super) fn load(elf: &Elf) -> Result<Option<Self>, Problem> {
        if elf.section(SectionId::DebugInfo.name()).is_none() {
            return Ok(None);
        }
        let bytes: Vec<_> = SECTIONS
            .into_iter()
            .filter_map(|id| Some((id, elf.uncompressed(id.name())?)))
            .collect();
        let size: u64 = bytes.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let sections = Sections {
            bytes,
            fuel: Fuel::default(),
        };
        sections.fuel.add(SMALL + INDEX_READS * size);
        sections.fuel.start_here();
        let loaded = Loaded::try_new(sections, |sections| {
            Index::new(sections).map_err(|problem| problem.in_view_of(&sections.fuel))
        })?;
        loaded.borrow_owner().fuel.add(LOOKUP_READS * size);
        Ok(Some(Self(loaded)))
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
        let sections = self.0.borrow_owner();
        let size: u64 = sections.bytes.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let granted = SMALL + (INDEX_READS + LOOKUP_READS) * size;
        (granted - sections.fuel.left(), granted)
    }
}

impl<'a> Index<'a> {
    fn new(sections: &'a Sections) -> Result<Self, Problem> {
        let section = |id: SectionId| {
            let found = sections.bytes.iter().find(|(of, _)| *of == id);
            Metered::new(found.map_or(&[], |(_, bytes)| &bytes[..]), &sections.fuel)
        };
        let mut dwarf = gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(section(id)))?;
        let units = checked_units(&dwarf)?;
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        let context = Context::from_dwarf(dwarf)?;
        Ok(Self {
            context,
            declarations: Declarations::new(units),
            fuel: &sections.fuel,
        })
    }

    fn frames(&self, address: u64) -> Result<Vec<Frame>, Problem> {
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

/// The offsets of all units, if there are not too many, and if none has kinds of entries that would make entries
/// of a byte cost as much as entries of a megabyte: `gimli` walks over attributes of no size without reading.
fn checked_units(dwarf: &gimli::Dwarf<Metered<'_>>) -> Result<Vec<DebugInfoOffset>, Problem> {
    let mut offsets = Vec::new();
    let mut tables = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        if offsets.len() == MAX_UNITS {
            return Err(Problem::TooCostly);
        }
        offsets.extend(header.debug_info_offset());
        tables.push(header.debug_abbrev_offset().0);
    }
    tables.sort_unstable();
    tables.dedup();
    for table in tables {
        let mut reader = *dwarf.debug_abbrev.reader();
        reader.skip(table)?;
        check_abbreviations(reader)?;
    }
    Ok(offsets)
}

fn check_abbreviations(mut table: Metered<'_>) -> Result<(), Problem> {
    while !table.is_empty() && table.read_uleb128()? != 0 {
        let _tag = table.read_uleb128()?;
        let _has_children = table.read_u8()?;
        let mut attributes = 0;
        loop {
            let (name, form) = (table.read_uleb128()?, table.read_uleb128()?);
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                table.read_sleb128()?;
            }
            if (name, form) == (0, 0) {
                break;
            }
            attributes += 1;
            if attributes > MAX_ATTRIBUTES {
                return Err(Problem::TooCostly);
            }
        }
    }
    Ok(())
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
