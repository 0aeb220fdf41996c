//! Where and in which scope a function is declared, which `addr2line` does not say.
//!
//! The scope is for what GCC gives no name for the linker: in C++, lambdas in functions without external linkage
//! and functions in anonymous namespaces. Put inside of others they would be called `operator()` and nothing else.

use super::demangle;
use super::fuel::Metered;
use gimli::{
    Abbreviations, AttributeValue, DebugInfoOffset, DebuggingInformationEntry, Dwarf, UnitHeader, UnitOffset,
    UnitRef,
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
    known: RefCell<HashMap<(usize, usize), Declaration>>,
}

/// Entries from an inlined function to the one with its declaration.
const MAX_REFERENCES: usize = 16;
/// Scopes around a function.
const MAX_SCOPES: usize = 32;
/// Longest name of a scope, in bytes.
const MAX_SCOPE: usize = 1024;

/// An entry and what is needed to find others from it.
#[derive(Clone)]
struct Entry<'a> {
    header: UnitHeader<Metered<'a>>,
    abbreviations: Arc<Abbreviations>,
    entry: DebuggingInformationEntry<Metered<'a>>,
}

impl Declarations {
    pub(super) fn new(units: Vec<DebugInfoOffset>) -> Self {
        Self {
            units,
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
        let key = (unit.header.offset().0, offset.0);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let found = self.read(unit, offset, scoped).unwrap_or_default();
        self.known.borrow_mut().insert(key, found.clone());
        found
    }

    fn read(&self, unit: &UnitRef<'_, Metered<'_>>, offset: UnitOffset, scoped: bool) -> Option<Declaration> {
        let first = Entry::read(unit.header, Arc::clone(&unit.abbreviations), offset)?;
        let inlined = first.entry.tag() == gimli::DW_TAG_inlined_subroutine;
        let chain = self.chain(unit.dwarf, first);
        let line = chain.iter().find_map(Entry::line);
        if !inlined || !scoped {
            let scope = String::new();
            return Some(Declaration { line, scope });
        }
        let around = chain.last()?.around();
        // The call operator of a lambda has no line, but the type around it does.
        let line = line.or_else(|| around.last().and_then(Entry::line));
        let scope = self.scope(unit.dwarf, around);
        Some(Declaration { line, scope })
    }

    /// An entry and those it refers to for what it does not say itself. Never empty.
    fn chain<'a>(&self, dwarf: &Dwarf<Metered<'a>>, first: Entry<'a>) -> Vec<Entry<'a>> {
        let mut chain = vec![first];
        while chain.len() < MAX_REFERENCES
            && let Some(next) = chain.last().and_then(|last| self.origin(dwarf, last))
        {
            chain.push(next);
        }
        chain
    }

    fn origin<'a>(&self, dwarf: &Dwarf<Metered<'a>>, of: &Entry<'a>) -> Option<Entry<'a>> {
        let origin = of.entry.attr_value(gimli::DW_AT_abstract_origin);
        match origin.or_else(|| of.entry.attr_value(gimli::DW_AT_specification))? {
            AttributeValue::UnitRef(offset) => Entry::read(of.header, Arc::clone(&of.abbreviations), offset),
            AttributeValue::DebugInfoRef(offset) => {
                let at = self
                    .units
                    .partition_point(|unit| *unit <= offset)
                    .checked_sub(1)?;
                let header = dwarf.debug_info.header_from_offset(self.units[at]).ok()?;
                let abbreviations = dwarf.abbreviations(&header).ok()?;
                Entry::read(header, abbreviations, offset.to_unit_offset(&header)?)
            }
            _ => None,
        }
    }

    /// The names of scopes, given the outermost first.
    fn scope<'a>(&self, dwarf: &Dwarf<Metered<'a>>, mut around: Vec<Entry<'a>>) -> String {
        let mut names = Vec::new();
        while names.len() < MAX_SCOPES
            && let Some(scope) = around.pop()
        {
            match scope.entry.tag() {
                gimli::DW_TAG_namespace => names.push(scope.name_or(dwarf, "(anonymous namespace)")),
                gimli::DW_TAG_class_type | gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type => {
                    names.push(scope.name_or(dwarf, "{lambda}"));
                }
                gimli::DW_TAG_subprogram => {
                    let chain = self.chain(dwarf, scope);
                    let text = |name| chain.iter().find_map(|entry| entry.text(dwarf, name));
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

impl<'a> Entry<'a> {
    fn read(
        header: UnitHeader<Metered<'a>>,
        abbreviations: Arc<Abbreviations>,
        offset: UnitOffset,
    ) -> Option<Self> {
        let entry = header.entry(&abbreviations, offset).ok()?;
        Some(Self {
            header,
            abbreviations,
            entry,
        })
    }

    fn line(&self) -> Option<u32> {
        u32::try_from(self.entry.attr(gimli::DW_AT_decl_line)?.udata_value()?).ok()
    }

    fn name_or(&self, dwarf: &Dwarf<Metered<'a>>, otherwise: &str) -> String {
        self.text(dwarf, gimli::DW_AT_name)
            .unwrap_or_else(|| otherwise.to_owned())
    }

    fn text(&self, dwarf: &Dwarf<Metered<'a>>, name: gimli::DwAt) -> Option<String> {
        let text = match self.entry.attr_value(name)? {
            AttributeValue::String(text) => text,
            AttributeValue::DebugStrRef(offset) => dwarf.string(offset).ok()?,
            AttributeValue::DebugLineStrRef(offset) => dwarf.line_string(offset).ok()?,
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
                header: self.header,
                abbreviations: Arc::clone(&self.abbreviations),
            })
            .collect()
    }
}
