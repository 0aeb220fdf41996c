//! The DWARF sections of a file, decompressed, and what may be read of them.

use super::dwarf::Problem;
use super::elf::Elf;
use super::fuel::{Fuel, Metered};
use bytes::Bytes;
use gimli::{DebugInfoOffset, Reader, Section, SectionId};

/// Units of one file. Each costs about 1 KiB of memory and at least 12 bytes of file.
const MAX_UNITS: usize = 1 << 18;
/// Attributes of one kind of entry. Compilers write some twenty; entries of no size can have any number.
const MAX_ATTRIBUTES: usize = 256;

/// The sections that frames are found with.
const SECTIONS: [SectionId; 12] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugCuIndex,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTuIndex,
];

/// Those that no frame is found with, but that must be there to read a package whose index has them.
const INDEXED: [SectionId; 5] = [
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
    SectionId::DebugMacinfo,
    SectionId::DebugMacro,
    SectionId::DebugTypes,
];

/// Sections of one file.
pub(super) struct Sections(Vec<(SectionId, Bytes)>);

impl Sections {
    /// Those of a program, or of a file that goes with it.
    pub(super) fn of(elf: &Elf) -> Self {
        Self::named(elf, &SECTIONS, |id| Some(id.name()))
    }

    /// Those of split units (`.debug_info.dwo` and so on).
    pub(super) fn of_split_units(elf: &Elf) -> Self {
        Self::named(elf, &SECTIONS, SectionId::dwo_name)
    }

    /// Those of a package of split units.
    pub(super) fn of_package(elf: &Elf) -> Self {
        Self::named(elf, &[&SECTIONS[..], &INDEXED].concat(), SectionId::dwo_name)
    }

    fn named(elf: &Elf, ids: &[SectionId], name: impl Fn(SectionId) -> Option<&'static str>) -> Self {
        let sections = ids
            .iter()
            .filter_map(|&id| Some((id, elf.uncompressed(name(id)?)?)));
        Self(sections.collect())
    }

    /// Their size together, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// One of them, nothing if the file does not have it.
    pub(super) fn reader<'a>(&'a self, id: SectionId, fuel: &'a Fuel) -> Metered<'a> {
        let found = self.0.iter().find(|(of, _)| *of == id);
        Metered::new(found.map_or(&[], |(_, bytes)| &bytes[..]), fuel)
    }

    /// All of them.
    pub(super) fn dwarf<'a>(&'a self, fuel: &'a Fuel) -> Result<gimli::Dwarf<Metered<'a>>, gimli::Error> {
        gimli::Dwarf::load(|id| Ok(self.reader(id, fuel)))
    }
}

/// The offsets of all units, if there are not too many, and if none has kinds of entries that would make entries
/// of a byte cost as much as entries of a megabyte: `gimli` walks over attributes of no size without reading.
pub(super) fn checked_units(dwarf: &gimli::Dwarf<Metered<'_>>) -> Result<Vec<DebugInfoOffset>, Problem> {
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
