//! Where and in which scope a function is declared, which `addr2line` does not say.
//!
//! The scope is for what GCC gives no name for the linker: in C++, lambdas in functions without external linkage
//! and functions in anonymous namespaces. Put inside of others they would be called `operator()` and nothing else.

use super::demangle;
use super::fuel::Metered;
use gimli::{
    Abbreviations, AttributeValue, DebugInfoOffset, DebugStrOffsetsBase, DebuggingInformationEntry, DwLang,
    Dwarf, DwarfFileType, UnitHeader, UnitOffset, UnitRef,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// What an entry and those it refers to say about a function.
#[derive(Clone, Debug, Default)]
pub(super) struct Declaration {
    pub(super) line: Option<u32>,
    /// The names of the scopes around the function, with `::` between them; nothing if it is in none or if they
    /// were not asked for.
    pub(super) scope: String,
}

/// The declarations of one object that were asked for.
#[derive(Debug)]
pub(super) struct Declarations {
    /// Where all units are, ascending.
    units: Vec<DebugInfoOffset>,
    /// Where those of the supplementary file are, likewise.
    in_supplementary: Vec<DebugInfoOffset>,
    known: RefCell<HashMap<Key, Declaration>>,
}

/// Where an entry is: the split unit if it is in one, the unit and the place in it.
type Key = (Option<u64>, usize, usize);

/// Entries from an inlined function to the one with its declaration.
const MAX_REFERENCES: usize = 16;
/// Scopes around a function.
const MAX_SCOPES: usize = 32;
/// Longest name of a scope, in bytes.
const MAX_SCOPE: usize = 1024;

/// An entry and what is needed to find others from it.
#[derive(Clone)]
struct Entry<'d, 'a> {
    dwarf: &'d Dwarf<Metered<'a>>,
    /// It is in the supplementary file.
    is_supplementary: bool,
    /// Where the offsets of the unit's strings begin, if that is known.
    strings: Option<DebugStrOffsetsBase>,
    header: UnitHeader<Metered<'a>>,
    abbreviations: Arc<Abbreviations>,
    entry: DebuggingInformationEntry<Metered<'a>>,
}

impl Declarations {
    pub(super) fn new(units: Vec<DebugInfoOffset>, in_supplementary: Vec<DebugInfoOffset>) -> Self {
        Self {
            units,
            in_supplementary,
            known: RefCell::default(),
        }
    }

    /// The declaration of the function whose entry is there, with its scope if it was put inside of another and
    /// `scoped` is set: that takes a walk over the unit.
    pub(super) fn of(
        &self,
        unit: &UnitRef<'_, Metered<'_>>,
        offset: UnitOffset,
        scoped: bool,
    ) -> Declaration {
        let split = unit.dwo_id.filter(|_| is_split(unit.dwarf)).map(|id| id.0);
        let key = (split, unit.header.offset().0, offset.0);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let found = self.read(unit, offset, scoped).unwrap_or_default();
        self.known.borrow_mut().insert(key, found.clone());
        found
    }

    fn read(&self, unit: &UnitRef<'_, Metered<'_>>, offset: UnitOffset, scoped: bool) -> Option<Declaration> {
        let first = Entry {
            dwarf: unit.dwarf,
            is_supplementary: false,
            strings: Some(unit.str_offsets_base),
            header: unit.header,
            abbreviations: Arc::clone(&unit.abbreviations),
            entry: unit.header.entry(&unit.abbreviations, offset).ok()?,
        };
        let inlined = first.entry.tag() == gimli::DW_TAG_inlined_subroutine;
        let chain = self.chain(first);
        let line = chain.iter().find_map(Entry::line);
        if !inlined || !scoped {
            let scope = String::new();
            return Some(Declaration { line, scope });
        }
        let around = chain.last()?.around();
        // The call operator of a lambda has no line, but the type around it does.
        let line = line.or_else(|| around.last().and_then(Entry::line));
        let scope = self.scope(around);
        Some(Declaration { line, scope })
    }

    /// An entry and those it refers to for what it does not say itself. Never empty.
    fn chain<'d, 'a>(&self, first: Entry<'d, 'a>) -> Vec<Entry<'d, 'a>> {
        let mut chain = vec![first];
        while chain.len() < MAX_REFERENCES
            && let Some(next) = chain.last().and_then(|last| self.origin(last))
        {
            chain.push(next);
        }
        chain
    }

    fn origin<'d, 'a>(&self, of: &Entry<'d, 'a>) -> Option<Entry<'d, 'a>> {
        let origin = of.entry.attr_value(gimli::DW_AT_abstract_origin);
        match origin.or_else(|| of.entry.attr_value(gimli::DW_AT_specification))? {
            AttributeValue::UnitRef(offset) => of.sibling(offset),
            AttributeValue::DebugInfoRef(offset) if is_split(of.dwarf) => {
                let mut units = of.dwarf.units();
                let header = std::iter::from_fn(|| units.next().ok().flatten())
                    .find(|header| offset.to_unit_offset(header).is_some())?;
                let base =
                    DebugStrOffsetsBase::default_for_encoding_and_file(header.encoding(), DwarfFileType::Dwo);
                Entry::at(of.dwarf, false, Some(base), header, offset)
            }
            AttributeValue::DebugInfoRef(offset) => {
                let units = if of.is_supplementary {
                    &self.in_supplementary
                } else {
                    &self.units
                };
                let header = unit_with(of.dwarf, units, offset)?;
                Entry::at(of.dwarf, of.is_supplementary, None, header, offset)
            }
            AttributeValue::DebugInfoRefSup(offset) => {
                let dwarf = of.dwarf.sup.as_deref()?;
                let header = unit_with(dwarf, &self.in_supplementary, offset)?;
                Entry::at(dwarf, true, None, header, offset)
            }
            _ => None,
        }
    }

    /// The names of scopes, given the outermost first.
    fn scope<'d, 'a>(&self, mut around: Vec<Entry<'d, 'a>>) -> String {
        let mut names = Vec::new();
        while names.len() < MAX_SCOPES
            && let Some(scope) = around.pop()
        {
            match scope.entry.tag() {
                gimli::DW_TAG_namespace => names.push(scope.name_or("(anonymous namespace)")),
                gimli::DW_TAG_class_type | gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => {
                    names.push(scope.name_or("{lambda}"));
                }
                gimli::DW_TAG_subprogram => {
                    let chain = self.chain(scope);
                    let text = |name| chain.iter().find_map(|entry| entry.text(name));
                    if let Some(symbol) = text(gimli::DW_AT_linkage_name) {
                        names.push(demangle::plain(&symbol).function);
                        break;
                    }
                    names.extend(text(gimli::DW_AT_name));
                    // A method that is defined outside of its class has its scopes where it is declared.
                    around = chain.last().map(Entry::around).unwrap_or_default();
                }
                _ => {}
            }
        }
        names.reverse();
        names.join("::")
    }
}

/// The unit that an offset in the whole section is in.
fn unit_with<'a>(
    dwarf: &Dwarf<Metered<'a>>,
    units: &[DebugInfoOffset],
    offset: DebugInfoOffset,
) -> Option<UnitHeader<Metered<'a>>> {
    let at = units.partition_point(|unit| *unit <= offset).checked_sub(1)?;
    dwarf.debug_info.header_from_offset(units[at]).ok()
}

fn is_split(dwarf: &Dwarf<Metered<'_>>) -> bool {
    dwarf.file_type == DwarfFileType::Dwo
}

/// The language that the source of a unit is written in.
pub(super) fn language_of(unit: &UnitRef<'_, Metered<'_>>) -> Option<DwLang> {
    let mut units = unit.entries();
    match units.next_dfs().ok()??.attr_value(gimli::DW_AT_language)? {
        AttributeValue::Language(language) => Some(language),
        _ => None,
    }
}

impl<'d, 'a> Entry<'d, 'a> {
    fn at(
        dwarf: &'d Dwarf<Metered<'a>>,
        is_supplementary: bool,
        strings: Option<DebugStrOffsetsBase>,
        header: UnitHeader<Metered<'a>>,
        offset: DebugInfoOffset,
    ) -> Option<Self> {
        let abbreviations = dwarf.abbreviations(&header).ok()?;
        let entry = header
            .entry(&abbreviations, offset.to_unit_offset(&header)?)
            .ok()?;
        Some(Self {
            dwarf,
            is_supplementary,
            strings,
            header,
            abbreviations,
            entry,
        })
    }

    /// Another entry of its unit.
    fn sibling(&self, offset: UnitOffset) -> Option<Self> {
        let entry = self.header.entry(&self.abbreviations, offset).ok()?;
        Some(Self {
            entry,
            ..self.clone()
        })
    }

    fn line(&self) -> Option<u32> {
        u32::try_from(self.entry.attr(gimli::DW_AT_decl_line)?.udata_value()?).ok()
    }

    fn name_or(&self, otherwise: &str) -> String {
        self.text(gimli::DW_AT_name)
            .unwrap_or_else(|| otherwise.to_owned())
    }

    fn text(&self, name: gimli::DwAt) -> Option<String> {
        let dwarf = self.dwarf;
        let text = match self.entry.attr_value(name)? {
            AttributeValue::String(text) => text,
            AttributeValue::DebugStrRef(offset) => dwarf.string(offset).ok()?,
            AttributeValue::DebugStrRefSup(offset) => dwarf.sup_string(offset).ok()?,
            AttributeValue::DebugLineStrRef(offset) => dwarf.line_string(offset).ok()?,
            AttributeValue::DebugStrOffsetsIndex(index) => {
                let offset = dwarf
                    .debug_str_offsets
                    .get_str_offset(self.header.format(), self.strings?, index)
                    .ok()?;
                dwarf.string(offset).ok()?
            }
            _ => return None,
        };
        Some(super::text(text.bytes(), MAX_SCOPE))
    }

    /// The entries around this one, the outermost first. Subtrees that end before it are skipped where the
    /// compiler says where they end, which GCC does.
    fn around(&self) -> Vec<Self> {
        let mut around: Vec<(isize, DebuggingInformationEntry<_>)> = Vec::new();
        let target = self.entry.offset();
        let mut depth_of_start = 0;
        let mut entry = DebuggingInformationEntry::null();
        let Ok(mut entries) = self.header.entries_raw(&self.abbreviations, None) else {
            return Vec::new();
        };
        while entries.next_offset() < target {
            let depth = depth_of_start + entries.next_depth();
            match entries.read_entry(&mut entry) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) => return Vec::new(),
            }
            while around.last().is_some_and(|(of, _)| *of >= depth) {
                around.pop();
            }
            match entry.attr_value(gimli::DW_AT_sibling) {
                Some(AttributeValue::UnitRef(next)) if next > entry.offset() && next <= target => {
                    match self.header.entries_raw(&self.abbreviations, Some(next)) {
                        Ok(rest) => entries = rest,
                        Err(_) => return Vec::new(),
                    }
                    depth_of_start = depth;
                }
                _ if entry.has_children() => around.push((depth, entry.clone())),
                _ => {}
            }
        }
        let depth = depth_of_start + entries.next_depth();
        around
            .into_iter()
            .filter(|(of, _)| *of < depth)
            .map(|(_, entry)| Self {
                entry,
                ..self.clone()
            })
            .collect()
    }
}
