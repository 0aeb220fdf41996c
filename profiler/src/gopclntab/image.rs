//! What the loader makes of an object file before the program runs: segments at their stated addresses, with
//! relative relocations applied.

use crate::words::u64_at;
use bytes::Bytes;
use object::elf::{DT_RELA, DT_RELASZ, PF_W, PT_DYNAMIC, PT_LOAD, R_X86_64_RELATIVE};
use object::read::elf::ProgramHeader;
use object::{Architecture, Object};
use std::ops::Range;

/// Segments beyond this number are ignored: linkers make about five, and each may claim the whole file.
const MAX_SEGMENTS: usize = 64;
/// Size of an `Elf64_Rela`: offset, info, addend.
const RELA_SIZE: usize = 24;

/// The part of a loaded segment that the file holds.
#[derive(Clone, Debug)]
struct Segment {
    address: u64,
    writable: bool,
    bytes: Bytes,
}

/// An x86-64 ELF file as the loader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    segments: Vec<Segment>,
    /// The dynamic relocations with addends (`DT_RELA`). Those without (`DT_RELR`) have their addend in place.
    relocations: Bytes,
}

impl Image {
    /// `None` if the object is not a little-endian 64-bit x86 ELF. `data` is what it was parsed from.
    pub(crate) fn new(object: &object::File<'_>, data: &Bytes) -> Option<Self> {
        let object::File::Elf64(elf) = object else {
            return None;
        };
        if object.architecture() != Architecture::X86_64 || !object.is_little_endian() {
            return None;
        }
        let endian = elf.endian();
        let file_bytes = |header: &object::elf::ProgramHeader64<_>| {
            let (offset, size) = header.file_range(endian);
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(size).ok()?)?;
            (end <= data.len()).then(|| data.slice(start..end))
        };
        let mut segments = Vec::new();
        let mut dynamic = Bytes::new();
        for header in elf.elf_program_headers() {
            let p_type = header.p_type(endian);
            if p_type == PT_LOAD && segments.len() < MAX_SEGMENTS {
                segments.extend(file_bytes(header).map(|bytes| Segment {
                    address: header.p_vaddr(endian),
                    writable: header.p_flags(endian).contains(PF_W),
                    bytes,
                }));
            } else if p_type == PT_DYNAMIC {
                dynamic = file_bytes(header).unwrap_or_default();
            }
        }
        let mut image = Self {
            segments,
            relocations: Bytes::new(),
        };
        image.relocations = image.dynamic_relocations(&dynamic).unwrap_or_default();
        Some(image)
    }

    fn dynamic_relocations(&self, dynamic: &[u8]) -> Option<Bytes> {
        let value = |tag: object::elf::DynamicTag| {
            let entries = dynamic.as_chunks::<16>().0.iter();
            entries
                .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
                .find(|&(t, _)| t == tag.0.cast_unsigned())
                .map(|(_, value)| value)
        };
        self.bytes(value(DT_RELA)?, value(DT_RELASZ)?)
    }

    /// The bytes from `address` to the end of what the file holds of its segment.
    pub(crate) fn tail(&self, address: u64) -> Option<Bytes> {
        self.segments.iter().find_map(|segment| {
            let at = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            (at < segment.bytes.len()).then(|| segment.bytes.slice(at..))
        })
    }

    /// `len` bytes at `address`, as they are in the file.
    pub(crate) fn bytes(&self, address: u64, len: u64) -> Option<Bytes> {
        let tail = self.tail(address)?;
        let len = usize::try_from(len).ok()?;
        (len <= tail.len()).then(|| tail.slice(..len))
    }

    /// At most `len` bytes at `address`, with relative relocations applied.
    pub(crate) fn relocated(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let tail = self.tail(address)?;
        let mut bytes = tail[..len.min(tail.len())].to_vec();
        for (place, addend) in self.relative_relocations() {
            let word = place
                .checked_sub(address)
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| bytes.get_mut(at..)?.first_chunk_mut::<8>());
            if let Some(word) = word {
                *word = addend.to_le_bytes();
            }
        }
        Some(bytes)
    }

    /// Where a word that will be written to (or moved) at run time holds `value`: aligned words of writable
    /// segments, and words that a relocation will set to it.
    pub(crate) fn words_equal_to(&self, value: u64) -> impl Iterator<Item = u64> {
        let stated = self
            .segments
            .iter()
            .filter(|s| s.writable)
            .flat_map(move |segment| {
                let skip = segment.address.wrapping_neg() % 8;
                let words = segment.bytes.get(skip as usize..).unwrap_or_default();
                let found = (0..).zip(words.as_chunks::<8>().0);
                found
                    .filter(move |(_, word)| u64::from_le_bytes(**word) == value)
                    .map(move |(i, _)| segment.address.wrapping_add(skip + 8 * i))
            });
        let relocated = self
            .relative_relocations()
            .filter(move |&(_, addend)| addend == value)
            .map(|(place, _)| place);
        stated.chain(relocated)
    }

    /// The first place in a writable segment where `pattern` is at a multiple of `align`.
    pub(crate) fn find_aligned(&self, pattern: &[u8], align: usize) -> Option<u64> {
        self.segments.iter().filter(|s| s.writable).find_map(|segment| {
            let skip = segment.address.wrapping_neg() as usize % align;
            (skip..segment.bytes.len())
                .step_by(align)
                .find(|&at| segment.bytes[at..].starts_with(pattern))
                .map(|at| segment.address.wrapping_add(at as u64))
        })
    }

    /// The segments, whole.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.segments
            .iter()
            .map(|s| s.address..s.address.saturating_add(s.bytes.len() as u64))
    }

    fn relative_relocations(&self) -> impl Iterator<Item = (u64, u64)> {
        self.relocations
            .as_chunks::<RELA_SIZE>()
            .0
            .iter()
            .filter_map(|rela| {
                let r_type = u64_at(rela, 8)? & 0xffff_ffff;
                (r_type == u64::from(R_X86_64_RELATIVE.0)).then_some((u64_at(rela, 0)?, u64_at(rela, 16)?))
            })
    }
}
