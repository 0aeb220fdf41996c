//! An ELF file as its sections, segments and notes. The `object` crate knows the structures; what is kept is
//! slices of the file, so that nothing here borrows from anything.

use super::string_at;
use bytes::Bytes;
use object::LittleEndian as LE;
use object::elf::{self, CompressionHeader64, FileHeader64, SectionHeader64};
use object::pod;
use object::read::elf::{CompressionHeader, FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use object::read::{CompressedData, CompressionFormat};
use thiserror::Error;

/// Why the bytes are not an object file that we can use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The magic number is not there.
    #[error("no ELF file: it does not start with 7f 45 4c 46")]
    NotElf,
    /// Made for another kind of machine.
    #[error("an ELF file for another machine (class {class}, e_machine {machine}), not for x86-64")]
    Foreign {
        /// `e_ident[EI_CLASS]`: 1 for 32 bits, 2 for 64 bits.
        class: u8,
        /// `e_machine`; 62 is x86-64.
        machine: u16,
    },
    /// A table lies outside of the file, or has the wrong size.
    #[error("a damaged ELF file: {0}")]
    Damaged(String),
    /// The separate debug file was made from another build.
    #[error("the debug file belongs to another build: it has {found}, the program has {expected}")]
    DebugFileDiffers {
        /// Build id or checksum that the program states.
        expected: String,
        /// That of the debug file.
        found: String,
    },
}

/// More than this is no program: a section has at least a header and a purpose, and names are compared.
const MAX_SECTIONS: usize = 1 << 16;
/// No section that we look for has a longer name.
const MAX_SECTION_NAME: usize = 64;
/// Largest section after decompression, in bytes.
const MAX_SECTION: u64 = 4 << 30;
/// No compiler's output shrinks more than this; what claims to is made to exhaust our memory.
const MAX_RATIO: u64 = 64;

/// A file in memory, and where its parts are.
#[derive(Debug)]
pub(super) struct Elf {
    pub(super) sections: Vec<Section>,
    pub(super) segments: Vec<Segment>,
}

/// One section.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: Bytes,
    pub(super) kind: elf::SectionType,
    pub(super) address: u64,
    /// Size in memory, in bytes.
    pub(super) size: u64,
    pub(super) executable: bool,
    /// Index of a section that belongs to this one: the strings of symbols, the symbols of relocations.
    pub(super) link: usize,
    /// Size of one entry, if it has entries of equal size.
    pub(super) entry_size: u64,
    alignment: u64,
    compressed: bool,
    /// The bytes in the file; none if it has none there.
    pub(super) data: Bytes,
}

/// One `PT_LOAD` segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) file_size: u64,
    pub(super) address: u64,
    pub(super) executable: bool,
}

impl Elf {
    pub(super) fn parse(file: &Bytes) -> Result<Self, Error> {
        let header = file_header(file)?;
        let damaged = |cause: object::read::Error| Error::Damaged(cause.to_string());
        let headers = header.section_headers(LE, &file[..]).map_err(damaged)?;
        if headers.len() > MAX_SECTIONS {
            return Err(Error::Damaged(format!("{} sections", headers.len())));
        }
        let names = header
            .section_strings_index(LE, &file[..])
            .ok()
            .and_then(|index| headers.get(index.0))
            .map(|strings| bytes_of(file, strings))
            .unwrap_or_default();
        let sections = headers
            .iter()
            .map(|section| Section::new(file, &names, section))
            .collect();
        let segments = header
            .program_headers(LE, &file[..])
            .map_err(damaged)?
            .iter()
            .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
            .map(|segment| Segment {
                offset: segment.p_offset(LE),
                file_size: segment.p_filesz(LE),
                address: segment.p_vaddr(LE),
                executable: segment.p_flags(LE).contains(elf::PF_X),
            })
            .collect();
        Ok(Self { sections, segments })
    }

    /// The first section of that name.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name.as_bytes())
    }

    /// The first section of that type.
    pub(super) fn section_of(&self, kind: elf::SectionType) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    /// The bytes of the first section of that name, decompressed; `None` if it has none in this file, or if what
    /// it claims to be compressed from is out of proportion.
    pub(super) fn uncompressed(&self, name: &str) -> Option<Bytes> {
        let section = self.section(name)?;
        if section.compressed {
            section.decompress()
        } else {
            Some(section.data.clone()).filter(|data| !data.is_empty())
        }
    }

    /// The contents of the note of that owner and type.
    pub(super) fn note(&self, owner: &[u8], kind: u32) -> Option<Bytes> {
        let notes = self.sections.iter().filter(|s| s.kind == elf::SHT_NOTE);
        notes
            .filter_map(|section| {
                NoteIterator::<FileHeader64<LE>>::new(LE, section.alignment, &section.data).ok()
            })
            .flat_map(|notes| notes.map_while(Result::ok))
            .find(|note| note.name() == owner && note.n_type(LE).0 == kind)
            .map(|note| Bytes::copy_from_slice(note.desc()))
    }
}

impl Section {
    fn new(file: &Bytes, names: &Bytes, header: &SectionHeader64<LE>) -> Self {
        let flags = header.sh_flags(LE);
        let name = string_at(names, header.sh_name(LE).into(), MAX_SECTION_NAME).unwrap_or_default();
        Self {
            name: names.slice_ref(name),
            kind: header.sh_type(LE),
            address: header.sh_addr(LE),
            size: header.sh_size(LE),
            executable: flags.contains(elf::SHF_EXECINSTR),
            link: header.sh_link(LE) as usize,
            entry_size: header.sh_entsize(LE),
            alignment: header.sh_addralign(LE),
            compressed: flags.contains(elf::SHF_COMPRESSED),
            data: bytes_of(file, header),
        }
    }

    fn decompress(&self) -> Option<Bytes> {
        let (header, data) = pod::from_bytes::<CompressionHeader64<LE>>(&self.data).ok()?;
        let format = match header.ch_type(LE) {
            elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
            elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
            _ => return None,
        };
        let uncompressed_size = header.ch_size(LE);
        if uncompressed_size > MAX_SECTION || uncompressed_size / MAX_RATIO > data.len() as u64 {
            return None;
        }
        let compressed = CompressedData {
            format,
            data,
            uncompressed_size,
        };
        Some(Bytes::from(compressed.decompress().ok()?.into_owned()))
    }
}

fn file_header(file: &Bytes) -> Result<&FileHeader64<LE>, Error> {
    if file.get(..4) != Some(&elf::ELFMAG) {
        return Err(Error::NotElf);
    }
    let class = file.get(4).copied().unwrap_or_default();
    let machine = match file.get(18..20) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    };
    if class != elf::ELFCLASS64.0 || machine != elf::EM_X86_64.0 {
        return Err(Error::Foreign { class, machine });
    }
    let header = FileHeader64::<LE>::parse(&file[..]).map_err(|cause| Error::Damaged(cause.to_string()))?;
    header
        .endian()
        .map_err(|cause| Error::Damaged(cause.to_string()))?;
    Ok(header)
}

/// What the section has in the file; nothing if it claims to have it outside.
fn bytes_of(file: &Bytes, header: &SectionHeader64<LE>) -> Bytes {
    let Some((offset, size)) = header.file_range(LE) else {
        return Bytes::new();
    };
    let range = usize::try_from(offset)
        .ok()
        .zip(offset.checked_add(size).and_then(|end| usize::try_from(end).ok()));
    match range {
        Some((start, end)) if start <= end && end <= file.len() => file.slice(start..end),
        _ => Bytes::new(),
    }
}
