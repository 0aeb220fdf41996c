//! Names for the slots of the procedure linkage table, `name@plt`, which no symbol table has.
//!
//! A slot jumps through a word of the global offset table, and a relocation says which function the linker puts
//! into that word. So each slot is decoded rather than counted: that also holds for `.plt.sec` and `.plt.got`,
//! which number their slots differently.

use super::elf::{Elf, Section};
use super::symbols::{NameAt, Symbol};
use object::LittleEndian as LE;
use object::elf::{self, Rela64, Sym64};
use object::pod;
use object::read::elf::{Rela, Sym};
use std::collections::HashMap;

/// The instruction `jmp *disp32(%rip)`.
const JMP_RIP: [u8; 2] = [0xff, 0x25];

/// One symbol for each slot whose function is known.
pub(super) fn slots(elf: &Elf) -> Vec<Symbol> {
    let functions = functions_by_got_word(elf);
    if functions.is_empty() {
        return Vec::new();
    }
    [".plt", ".plt.sec", ".plt.got"]
        .iter()
        .filter_map(|name| elf.section(name))
        .flat_map(|section| section_slots(section, &functions))
        .collect()
}

/// From the address of a word in the global offset table to the name of the function in it.
fn functions_by_got_word(elf: &Elf) -> HashMap<u64, u32> {
    let Some((index, dynsym)) = elf
        .sections
        .iter()
        .enumerate()
        .find(|(_, section)| section.kind == elf::SHT_DYNSYM)
    else {
        return HashMap::new();
    };
    let symbols = pod::slice_from_all_bytes::<Sym64<LE>>(&dynsym.data).unwrap_or_default();
    let tables = elf
        .sections
        .iter()
        .filter(|section| section.kind == elf::SHT_RELA && section.link == index);
    tables
        .flat_map(|section| pod::slice_from_all_bytes::<Rela64<LE>>(&section.data).unwrap_or_default())
        .filter(|rela| {
            let kind = rela.r_type(LE, false);
            kind == elf::R_X86_64_JUMP_SLOT || kind == elf::R_X86_64_GLOB_DAT
        })
        .filter_map(|rela| {
            let symbol = symbols.get(rela.r_sym(LE, false) as usize)?;
            Some((rela.r_offset(LE), symbol.st_name(LE)))
        })
        .filter(|&(_, name)| name != 0)
        .collect()
}

fn section_slots<'a>(
    section: &'a Section,
    functions: &'a HashMap<u64, u32>,
) -> impl Iterator<Item = Symbol> + 'a {
    let size = if section.entry_size == 8 { 8 } else { 16 };
    section
        .data
        .chunks_exact(size)
        .enumerate()
        .filter_map(move |(i, slot)| {
            let address = section.address.wrapping_add((i * size) as u64);
            let jump = slot.windows(2).position(|bytes| bytes == JMP_RIP)?;
            let displacement = slot.get(jump + 2..jump + 6)?;
            let displacement = i32::from_le_bytes(displacement.try_into().ok()?);
            let word = address
                .wrapping_add(jump as u64 + 6)
                .wrapping_add_signed(displacement.into());
            Some(Symbol {
                address,
                size: size as u64,
                name: NameAt::Plt(*functions.get(&word)?),
                local: false,
            })
        })
}
