//! Offsets of fields from debug information.

use super::layout::Layout;
use gimli::{AttributeValue, EndianRcSlice, LittleEndian, SectionId};
use object::{Object, ObjectSection};
use std::collections::HashMap;
use std::rc::Rc;

type Slice = EndianRcSlice<LittleEndian>;
type Dwarf = gimli::Dwarf<Slice>;
type Entry = gimli::DebuggingInformationEntry<Slice>;

/// Go puts the types of the whole program into a compilation unit of this name.
const UNIT: &str = "runtime";
/// The structs that matter.
const STRUCTS: [&str; 4] = ["runtime.g", "runtime.m", "runtime.gobuf", "runtime.stack"];
/// Sections larger than this are not unpacked: the table of releases is nearly as good.
const MAX_SECTION: u64 = 1 << 29;

/// Offsets of members by struct and member: `("runtime.g", "sched")`.
type Members = HashMap<(&'static str, String), u32>;

impl Layout {
    /// What the debug information of `object` says. `None` if it has none, or not of the runtime.
    pub(super) fn of_dwarf(object: &object::File<'_>) -> Option<Self> {
        let dwarf = Dwarf::load(|id| section(object, id).ok_or(())).ok()?;
        let members = members(&dwarf)?;
        let member = |of: &'static str, name: &str| members.get(&(of, name.to_owned())).copied();
        Self::from_names(|name| match name.split('.').collect::<Vec<_>>()[..] {
            ["g", "stack", inner] => {
                member("runtime.g", "stack")?.checked_add(member("runtime.stack", inner)?)
            }
            ["g", "sched", inner] => {
                member("runtime.g", "sched")?.checked_add(member("runtime.gobuf", inner)?)
            }
            ["g", name] => member("runtime.g", name),
            ["m", name] => member("runtime.m", name),
            _ => None,
        })
    }
}

/// The sections that types and names are in; others are taken as empty.
fn section(object: &object::File<'_>, id: SectionId) -> Option<Slice> {
    let wanted = matches!(
        id,
        SectionId::DebugAbbrev | SectionId::DebugInfo | SectionId::DebugStr
    );
    let bytes = match object.section_by_name(id.name()).filter(|_| wanted) {
        None => Rc::from([]),
        Some(section) => {
            let data = section.compressed_data().ok()?;
            if data.uncompressed_size > MAX_SECTION {
                return None;
            }
            Rc::from(&*data.decompress().ok()?)
        }
    };
    Some(Slice::new(bytes, LittleEndian))
}

fn members(dwarf: &Dwarf) -> Option<Members> {
    let mut members = Members::new();
    let mut missing = STRUCTS.to_vec();
    let mut units = dwarf.units();
    while let Some(header) = units.next().ok()? {
        let Ok(abbreviations) = dwarf.abbreviations(&header) else {
            continue;
        };
        let mut entries = header.entries(&abbreviations);
        let unit = entries
            .next_dfs()
            .ok()
            .flatten()
            .and_then(|entry| name(dwarf, entry));
        if unit.as_deref() == Some(UNIT) {
            add_members(dwarf, entries, &mut members, &mut missing).ok()?;
        }
        if missing.is_empty() {
            return Some(members);
        }
    }
    None
}

/// Adds the members of those structs among `entries` that are still missing.
fn add_members(
    dwarf: &Dwarf,
    mut entries: gimli::EntriesCursor<'_, Slice>,
    members: &mut Members,
    missing: &mut Vec<&'static str>,
) -> gimli::Result<()> {
    let mut inside: Option<(&'static str, isize)> = None;
    while let Some(entry) = entries.next_dfs()? {
        if inside.is_some_and(|(_, depth)| entry.depth() <= depth) {
            inside = None;
            if missing.is_empty() {
                break;
            }
        }
        match (entry.tag(), inside) {
            (gimli::DW_TAG_structure_type, None) => {
                let name = name(dwarf, entry);
                let index = missing.iter().position(|&wanted| name.as_deref() == Some(wanted));
                inside = index.map(|index| (missing.swap_remove(index), entry.depth()));
            }
            (gimli::DW_TAG_member, Some((of, depth))) if entry.depth() == depth + 1 => {
                let offset = entry.attr_value(gimli::DW_AT_data_member_location);
                let offset = offset.and_then(|value| u32::try_from(value.udata_value()?).ok());
                if let (Some(name), Some(offset)) = (name(dwarf, entry), offset) {
                    members.insert((of, name), offset);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn name(dwarf: &Dwarf, entry: &Entry) -> Option<String> {
    let name = match entry.attr_value(gimli::DW_AT_name)? {
        // Go's linker writes names in place; tools that shrink debug information move them.
        AttributeValue::String(name) => name,
        AttributeValue::DebugStrRef(offset) => dwarf.string(offset).ok()?,
        _ => return None,
    };
    Some(String::from_utf8_lossy(name.bytes()).into_owned())
}
