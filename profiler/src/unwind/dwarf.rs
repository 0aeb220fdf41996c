//! Rows from the call frame information of an ELF object: `.eh_frame` and `.debug_frame`.

use std::collections::HashMap;
use std::ops::Range;

use gimli::{
    BaseAddresses, CommonInformationEntry, DebugFrame, EhFrame, LittleEndian, UnwindContext, UnwindSection,
};
use object::{Architecture, Object, ObjectSection, SectionFlags, elf};
use profiler_abi::rule::Rule;

use super::cfi::{self, Bytes, Meaning};
use super::coverage::Coverage;
use super::eh_return;
use super::ext::ExtTable;
use super::rows::{Layer, Row};
use crate::addr::Svma;

/// The largest section that is decompressed, in bytes. A compressed section may claim any size.
const MAX_DECOMPRESSED: u64 = 1 << 30;

/// Bytes of a section for each row, in real ones, or fewer. Wrong numbers cost time, and nothing else.
const BYTES_PER_ROW: usize = 3;

/// The most rows that room is made for before they are read: 64 MiB of room.
const MAX_ROOM: usize = 1 << 22;

/// The longest common information entry that is evaluated, in bytes. Its instructions are run for each function
/// that names it, and real ones have fewer than 100 bytes.
const MAX_CIE: usize = 4096;

/// The largest procedure linkage table, in bytes, whose slots get rows of their own.
const MAX_PLT: u64 = 1 << 20;

/// The call frame information of one object. `eh_frame` is what the program itself unwinds by and wins where
/// both say something.
#[derive(Debug, Default)]
pub struct CallFrames {
    /// From `.eh_frame`.
    pub eh_frame: Layer,
    /// From `.debug_frame`, which a file of separate debug information may have alone.
    pub debug_frame: Layer,
}

impl CallFrames {
    /// Reads what `file` has: an x86-64 executable, shared library, vDSO image or file of debug information.
    ///
    /// A section that is missing or cannot be read (compressed with an unknown method, cut off, larger than a
    /// gibibyte when decompressed) gives no rows; an entry that is malformed is skipped and counted.
    pub fn read<'d>(file: &object::File<'d>, ext: &mut ExtTable, coverage: &mut Coverage) -> Self {
        if file.architecture() != Architecture::X86_64 {
            return Self::default();
        }
        let mut bases = BaseAddresses::default();
        if let Some(text) = file.section_by_name(".text") {
            bases = bases.set_text(text.address());
        }
        if let Some(got) = file.section_by_name(".got") {
            bases = bases.set_got(got.address());
        }
        let mut reader = Reader {
            code: &|range| code_of(file, range),
            ext,
            coverage,
        };
        let mut frames = Self::default();
        if let Some((section, data)) = section(file, ".eh_frame") {
            let bases = bases.clone().set_eh_frame(section.address());
            frames.eh_frame = reader.eh_frame(&data, &bases);
        }
        if let Some((_, data)) = section(file, ".debug_frame") {
            frames.debug_frame = reader.debug_frame(&data, &bases);
        }
        frames
    }
}

/// Whether a file describes the frames of any of its code.
pub fn has_call_frames(file: &object::File<'_>) -> bool {
    [".eh_frame", ".debug_frame"]
        .into_iter()
        .filter_map(|name| section(file, name))
        .any(|(_, data)| !data.is_empty())
}

/// The executable sections of `file`: what [`super::Rows::overlay`] keeps.
pub fn text(file: &object::File<'_>) -> Vec<Range<Svma>> {
    file.sections()
        .filter(|section| match section.flags() {
            SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(elf::SHF_EXECINSTR),
            _ => false,
        })
        .filter_map(|section| {
            let end = section.address().checked_add(section.size())?;
            Some(Svma(section.address())..Svma(end))
        })
        .collect()
}

/// A section's content, decompressed.
fn section<'d, 'f>(
    file: &'f object::File<'d>,
    name: &str,
) -> Option<(object::Section<'d, 'f>, std::borrow::Cow<'d, [u8]>)> {
    let section = file.section_by_name(name)?;
    let data = section.compressed_data().ok()?;
    if data.uncompressed_size > MAX_DECOMPRESSED {
        return None;
    }
    Some((section, data.decompress().ok()?))
}

type Cie<'a> = CommonInformationEntry<Bytes<'a>>;

struct Reader<'e, 'd> {
    /// Machine code at stated addresses.
    code: &'e dyn Fn(Range<Svma>) -> Option<&'d [u8]>,
    ext: &'e mut ExtTable,
    coverage: &'e mut Coverage,
}

impl Reader<'_, '_> {
    fn eh_frame(&mut self, data: &[u8], bases: &BaseAddresses) -> Layer {
        // A length of 0 ends .eh_frame (Linux Standard Base, "The .eh_frame section").
        let entries = Entries { data, offset: 0 }.take_while(|entry| entry.length != 0);
        self.read(
            &EhFrame::new(data, LittleEndian),
            bases,
            data.len(),
            entries.filter(|entry| entry.id != Some(0)),
        )
    }

    fn debug_frame(&mut self, data: &[u8], bases: &BaseAddresses) -> Layer {
        let mut section = DebugFrame::new(data, LittleEndian);
        section.set_address_size(8);
        let entries = Entries { data, offset: 0 }.filter(|entry| entry.length != 0);
        self.read(
            &section,
            bases,
            data.len(),
            entries.filter(|entry| entry.id != Some(u32::MAX)),
        )
    }

    /// Reads the frame description entries of a section of so many bytes.
    fn read<'a, S: UnwindSection<Bytes<'a>>>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        len: usize,
        descriptions: impl Iterator<Item = Entry>,
    ) -> Layer {
        let mut layer = Layer::with_capacity((len / BYTES_PER_ROW).min(MAX_ROOM));
        let mut cies = HashMap::new();
        let mut context = UnwindContext::new();
        let mut rows = Vec::new();
        for entry in descriptions {
            rows.clear();
            match self.function(section, bases, entry, &mut cies, &mut context, &mut rows) {
                Ok(range) => {
                    self.coverage.functions += 1;
                    layer.push(range, rows.iter().copied());
                }
                Err(Malformed) => self.coverage.malformed += 1,
            }
        }
        layer
    }

    /// Evaluates one frame description entry.
    fn function<'a, S: UnwindSection<Bytes<'a>>>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        entry: Entry,
        cies: &mut HashMap<usize, Option<Cie<'a>>>,
        context: &mut UnwindContext<usize>,
        rows: &mut Vec<Row>,
    ) -> Result<Range<Svma>, Malformed> {
        let fde = section.fde_from_offset(bases, entry.offset.into(), |section, bases, offset| {
            cies.entry(gimli::UnwindOffset::into(offset))
                .or_insert_with(|| {
                    let cie = section.cie_from_offset(bases, offset).ok();
                    cie.filter(|cie| cie.entry_len() <= MAX_CIE && cie.address_size() == 8)
                })
                .clone()
                .ok_or(gimli::Error::NotCieId(0))
        })?;
        let start = fde.initial_address();
        let end = start.checked_add(fde.len()).ok_or(Malformed)?;
        let range = Svma(start)..Svma(end);
        if fde.is_signal_trampoline() {
            self.coverage.rows += 1;
            rows.push(Row {
                start: range.start,
                rule: Rule::SIG_FRAME,
            });
            return Ok(range);
        }
        let return_address = fde.cie().return_address_register();
        let mut replaced = None;
        let mut table = fde.rows(section, bases, context)?;
        while let Some(row) = table.next_row()? {
            let start = row.start_address();
            let end = row.end_address().min(end);
            if start >= end {
                continue;
            }
            self.coverage.rows += 1;
            if replaced.is_none() && eh_return::leaves(row) {
                replaced = eh_return::replaced(range.start, Svma(start), self.code);
            }
            let rule = match cfi::meaning(section, row, return_address, self.ext) {
                Ok(Meaning::Rule {
                    rule,
                    frame_pointer_lost,
                }) => {
                    self.coverage.frame_pointer_lost += u64::from(frame_pointer_lost);
                    rule
                }
                // What the rule itself says.
                Ok(Meaning::Plt { pushed: 11 }) => Rule::PLT,
                Ok(Meaning::Plt { pushed }) => {
                    linkage_table(start..end, pushed, rows);
                    continue;
                }
                Err(cause) => {
                    self.coverage.count(cause);
                    Rule::NONE
                }
            };
            rows.push(Row {
                start: Svma(start),
                rule,
            });
        }
        if let Some(replaced) = replaced {
            eh_return::guard(rows, replaced, self.ext);
        }
        Ok(range)
    }
}

/// The bytes of the code at stated addresses `range`.
pub fn code_of<'d>(file: &object::File<'d>, range: Range<Svma>) -> Option<&'d [u8]> {
    let len = range.end.0.checked_sub(range.start.0)?;
    file.sections()
        .find_map(|section| section.data_range(range.start.0, len).ok().flatten())
}

/// Rows for each slot of a procedure linkage table whose slots push their index before byte `pushed`.
fn linkage_table(range: Range<u64>, pushed: u8, rows: &mut Vec<Row>) {
    let end = range.end.min(range.start.saturating_add(MAX_PLT));
    let rule = |after_push| Rule::sp(if after_push { 16 } else { 8 }, None).unwrap_or(Rule::NONE);
    let mut start = range.start;
    while start < end {
        let slot = start & !15;
        let boundary = slot.saturating_add(pushed.into());
        let after_push = start >= boundary;
        rows.push(Row {
            start: Svma(start),
            rule: rule(after_push),
        });
        start = if after_push {
            slot.saturating_add(16)
        } else {
            boundary
        };
    }
    if end < range.end {
        rows.push(Row {
            start: Svma(end),
            rule: Rule::NONE,
        });
    }
}

/// An entry that does not follow the format.
#[derive(Debug)]
struct Malformed;

impl From<gimli::Error> for Malformed {
    fn from(_: gimli::Error) -> Self {
        Self
    }
}

/// The place of an entry of a frame section.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: usize,
    length: u64,
    /// What tells a common information entry from a frame description entry, if the section goes on so far.
    id: Option<u32>,
}

/// The entries of a frame section, by their lengths alone, so that a malformed one does not hide those after it.
struct Entries<'a> {
    data: &'a [u8],
    offset: usize,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let offset = self.offset;
        let word = |at: usize| {
            let bytes = self.data.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let (length, body) = match word(offset)? {
            // The 64-bit format, which no producer for x86-64 uses in practice: the id is 64 bits wide in
            // .debug_frame and 32 bits wide in .eh_frame. Its low half tells the two kinds apart in both.
            u32::MAX => {
                let high = u64::from(word(offset.checked_add(8)?)?);
                (high << 32 | u64::from(word(offset + 4)?), offset + 12)
            }
            length => (length.into(), offset + 4),
        };
        let length_in_memory = usize::try_from(length).unwrap_or(usize::MAX);
        self.offset = body.saturating_add(length_in_memory);
        Some(Entry {
            offset,
            length,
            id: word(body),
        })
    }
}

#[cfg(test)]
mod tests;
