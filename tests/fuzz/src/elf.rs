//! Object files around some sections: so that a fuzzer spends its time on those.
//!
//! The parts of an input are, one after the other: the number of a name in [`NAMES`] (1 byte), the address (8), the length (4)
//! and the content. All that has an address is also a segment.

use crate::input::Input;
use object::{Object, ObjectSection};

/// The sections that targets are about.
const NAMES: [&str; 18] = [
    ".text",
    ".eh_frame",
    ".debug_frame",
    ".gopclntab",
    ".noptrdata",
    ".data",
    ".rodata",
    ".go.buildinfo",
    ".go.module",
    ".go.func",
    ".debug_abbrev",
    ".debug_info",
    ".debug_line",
    ".debug_str",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_aranges",
];

/// More make no other cases.
const MAX_PARTS: usize = 32;

const EHDR: u64 = 64;
const PHDR: u64 = 56;
const SHDR: u64 = 64;

/// The parts that `elf` has of these sections, in their order: the input that [`file`] makes an object file of. A section can be
/// named together with a range of addresses, of which it is cut to.
pub fn parts_of(
    elf: &[u8],
    wanted: &[&str],
    text: &[std::ops::Range<u64>],
) -> Result<Vec<u8>, object::Error> {
    let file = object::File::parse(elf)?;
    let mut parts = Vec::new();
    let mut add = |name: &str, address: u64, content: &[u8]| {
        if let Some(number) = NAMES.iter().position(|known| *known == name) {
            parts.push(number as u8);
            parts.extend(address.to_le_bytes());
            parts.extend((content.len() as u32).to_le_bytes());
            parts.extend(content);
        }
    };
    for name in wanted {
        if let Some(section) = file.section_by_name(name) {
            add(name, section.address(), &section.uncompressed_data()?);
        }
    }
    if let Some(section) = file.section_by_name(".text") {
        let data = section.data()?;
        for range in text {
            let (from, to) = (
                range.start.wrapping_sub(section.address()),
                range.end.wrapping_sub(section.address()),
            );
            add(
                ".text",
                range.start,
                data.get(from as usize..to as usize).unwrap_or_default(),
            );
        }
    }
    Ok(parts)
}

/// An object file with the parts of `input`, and addresses of its code to ask for.
pub fn file(input: &[u8]) -> (Vec<u8>, Vec<u64>) {
    let mut input = Input(input);
    let mut parts = Vec::new();
    while !input.is_empty() && parts.len() < MAX_PARTS {
        let name = NAMES[usize::from(input.u8()) % NAMES.len()];
        let address = input.u64();
        let len = input.u32() as usize;
        parts.push((name, address, input.bytes(len)));
    }
    let names = parts.iter().map(|(name, ..)| *name).chain([".shstrtab"]);
    let mut strings = vec![0];
    let mut name_at = Vec::new();
    for name in names {
        name_at.push(strings.len() as u32);
        strings.extend(name.bytes().chain([0]));
    }
    let n_segments = parts.iter().filter(|(_, address, _)| *address != 0).count();
    let mut at = EHDR + PHDR * n_segments as u64;
    let mut segments = Vec::new();
    let mut sections = vec![[0_u64; 6]];
    let mut contents = Vec::new();
    let mut addresses = Vec::new();
    for ((name, address, content), &name_at) in parts.iter().zip(&name_at) {
        let len = content.len() as u64;
        let is_code = *name == ".text";
        if *address != 0 {
            // PT_LOAD; readable, and executable.
            segments.push([
                1 | (4 | u64::from(is_code)) << 32,
                at,
                *address,
                *address,
                len,
                len,
                1,
            ]);
        }
        if is_code {
            addresses.extend((0..16).map(|i| address.wrapping_add(len * i / 16)));
        }
        // SHF_ALLOC, SHF_EXECINSTR.
        let flags = if *address != 0 { 2 } else { 0 } | if is_code { 4 } else { 0 };
        sections.push([u64::from(name_at) | 1 << 32, flags, *address, at, len, 0]);
        contents.extend_from_slice(content);
        at += len;
    }
    let name = name_at.last().copied().unwrap_or(0);
    sections.push([u64::from(name) | 3 << 32, 0, 0, at, strings.len() as u64, 0]);
    contents.extend(&strings);
    at += strings.len() as u64;

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_X86_64.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [addresses.first().copied().unwrap_or(0), EHDR, at] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    let n_sections = sections.len() as u16;
    for half in [
        EHDR as u16,
        PHDR as u16,
        n_segments as u16,
        SHDR as u16,
        n_sections,
        n_sections - 1,
    ] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(segments.iter().flatten().flat_map(|word| word.to_le_bytes()));
    elf.extend(contents);
    for [name_and_kind, flags, address, offset, size, link] in sections {
        for word in [name_and_kind, flags, address, offset, size, link, 1, 0] {
            elf.extend(word.to_le_bytes());
        }
    }
    addresses.extend([0, u64::MAX]);
    (elf, addresses)
}
