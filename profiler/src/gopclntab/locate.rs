//! Where an object keeps its table of functions, and the `runtime.moduledata` that describes it.

use super::{Error, Image, Pclntab};
use crate::addr::Svma;
use crate::words::{u32_at, u64_at};
use bytes::Bytes;
use object::{Object, ObjectSection};

/// `abi.Go120PCLnTabMagic`, of Go 1.20–1.27.
pub(super) const MAGIC: u32 = 0xffff_fff1;
/// The magics of Go 1.2, 1.16 and 1.18.
const OLDER: [u32; 3] = [0xffff_fffb, 0xffff_fffa, 0xffff_fff0];
/// The first eight bytes: magic, two zeros, smallest instruction (1 byte), size of a pointer (8 bytes).
const START: u64 = MAGIC as u64 | 1 << 48 | 8 << 56;

/// Sections that hold nothing but the table, before and after the linker's relocation processing.
const OWN_SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Where external linkers put it in position-independent programs of Go 1.21–1.25.
const SHARED_SECTION: &str = ".data.rel.ro";

/// How many places that look like a table, or like a `moduledata`, are looked at before giving up.
const MAX_CANDIDATES: usize = 64;

// Offsets in `runtime.pcHeader`.
const HEADER_NFUNC: usize = 8;
const HEADER_OFFSETS: [usize; 5] = [32, 40, 48, 56, 64];
const HEADER_SIZE: usize = 72;

// Offsets in `runtime.moduledata` (runtime/symtab.go), the same in Go 1.21–1.27. Slices are pointer, length,
// capacity. `HEADER_OFFSETS` and `MODULE_SLICES` are in the same order.
const MODULE_SLICES: [usize; 5] = [8, 32, 56, 80, 104];
const MODULE_FTAB: usize = 128;
const MODULE_MINPC: usize = 160;
const MODULE_MAXPC: usize = 168;
const MODULE_TEXT: usize = 176;
const MODULE_AFTER_ETEXT: usize = 192;
/// The shortest `moduledata` of the known releases.
const MODULE_SIZE: usize = 560;

/// The last function with an id of its own before `abi.FuncIDWrapper` in every release from 1.21 to 1.27.
const BEFORE_WRAPPER: &str = "runtime.systemstack_switch";

pub(super) fn find(object: &object::File<'_>, image: &Image) -> Result<Option<Pclntab>, Error> {
    let own = OWN_SECTIONS.iter().find_map(|name| object.section_by_name(name));
    if let Some(section) = &own {
        let magic = image.bytes(section.address(), 4).and_then(|b| u32_at(&b, 0));
        if let Some(magic) = magic.filter(|magic| OLDER.contains(magic)) {
            return Err(Error::Format { magic });
        }
    }
    let mut orphan = None;
    for address in possible_headers(object, image, own.as_ref()).take(MAX_CANDIDATES) {
        let Some(header) = Header::read(image, address) else {
            continue;
        };
        match header.moduledata(image) {
            Some(module) => return Pclntab::new(image, &header, &module).map(Some),
            None => orphan = Some(Svma(address)),
        }
    }
    match (orphan, own) {
        (Some(table), _) => Err(Error::NoModuledata { table }),
        (None, Some(_)) => Err(Error::Damaged("its section holds no valid header")),
        (None, None) => Ok(None),
    }
}

/// Aligned addresses where a header may start: in the table's `own` section, else in that which it may share,
/// else, if the object has no sections at all, anywhere.
fn possible_headers<'a>(
    object: &object::File<'_>,
    image: &'a Image,
    own: Option<&object::Section<'_, '_>>,
) -> impl Iterator<Item = u64> + use<'a> {
    let shared = object.section_by_name(SHARED_SECTION);
    let section = own
        .or(shared.as_ref())
        .map(|s| s.address()..s.address().saturating_add(s.size()));
    let anywhere = section.is_none() && object.sections().next().is_none();
    let segments = image.ranges().filter(move |_| anywhere);
    section.into_iter().chain(segments).flat_map(|place| {
        let start = place.start.next_multiple_of(8);
        let bytes = image
            .bytes(start, place.end.saturating_sub(start))
            .unwrap_or_default();
        (0..bytes.len() / 8)
            .filter(move |i| u64_at(&bytes, i * 8) == Some(START))
            .map(move |i| start + 8 * i as u64)
    })
}

/// `runtime.pcHeader`.
struct Header {
    address: u64,
    nfunc: u64,
    /// Where `funcnametab`, `cutab`, `filetab`, `pctab` and `pclntable` are, as addresses.
    tables: [u64; 5],
}

impl Header {
    /// `None` if what is at `address` cannot be a header.
    fn read(image: &Image, address: u64) -> Option<Self> {
        let bytes = image.bytes(address, HEADER_SIZE as u64)?;
        let mut tables = [0; 5];
        for (table, at) in tables.iter_mut().zip(HEADER_OFFSETS) {
            *table = address.checked_add(u64_at(&bytes, at)?)?;
        }
        let nfunc = u64_at(&bytes, HEADER_NFUNC)?;
        (nfunc != 0 && tables.is_sorted()).then_some(Self {
            address,
            nfunc,
            tables,
        })
    }

    /// The `moduledata` that points to this header and to each of its tables.
    fn moduledata(&self, image: &Image) -> Option<Vec<u8>> {
        image
            .words_equal_to(self.address)
            .take(MAX_CANDIDATES)
            .filter_map(|at| image.relocated(at, MODULE_SIZE))
            .find(|module| {
                let tables_agree = MODULE_SLICES
                    .iter()
                    .zip(self.tables)
                    .all(|(&at, table)| u64_at(module, at) == Some(table));
                tables_agree
                    && u64_at(module, MODULE_FTAB) == Some(self.tables[4])
                    && u64_at(module, MODULE_FTAB + 8) == self.nfunc.checked_add(1)
            })
    }
}

impl Pclntab {
    fn new(image: &Image, header: &Header, module: &[u8]) -> Result<Self, Error> {
        let word = |at| u64_at(module, at).ok_or(Error::Damaged("its moduledata is cut off"));
        let slice = |at, item_size: u64| -> Result<Bytes, Error> {
            word(at + 8)?
                .checked_mul(item_size)
                .and_then(|len| {
                    if len == 0 {
                        Some(Bytes::new())
                    } else {
                        image.bytes(word(at).ok()?, len)
                    }
                })
                .ok_or(Error::Damaged("a table reaches beyond its segment"))
        };
        let [names, units, files, values, records] = MODULE_SLICES;
        let mut table = Self {
            text: word(MODULE_TEXT)?,
            range: word(MODULE_MINPC)?..word(MODULE_MAXPC)?,
            len: usize::try_from(header.nfunc).unwrap_or(usize::MAX),
            names: slice(names, 1)?,
            units: slice(units, 4)?,
            files: slice(files, 1)?,
            values: slice(values, 1)?,
            records: slice(records, 1)?,
            trees: Bytes::new(),
            wrapper: None,
        };
        table.verify(image)?;
        let before = table.functions_named(BEFORE_WRAPPER).next().map(|f| f.func_id());
        table.wrapper = before.and_then(|id| id.checked_add(1));
        table.trees = table.find_trees(image, module);
        Ok(table)
    }

    /// What `moduledataverify1` in runtime/symtab.go checks, and that the functions are in the file: their sizes
    /// bound the work of everything that walks a table.
    fn verify(&self, image: &Image) -> Result<(), Error> {
        let size = self
            .len
            .checked_mul(8)
            .and_then(|n| n.checked_add(4))
            .filter(|&size| size <= self.records.len())
            .ok_or(Error::Damaged("it is shorter than its number of functions"))?;
        let entries = self.records[..size]
            .chunks(8)
            .filter_map(|entry| u32_at(entry, 0));
        if !entries.is_sorted() {
            return Err(Error::Damaged(
                "its functions are not in the order of their addresses",
            ));
        }
        // With several text sections (which the linker makes on other machines only) this does not hold.
        let address = |index| self.text.checked_add(u64::from(self.entry_offset(index)?));
        if address(0) != Some(self.range.start) || address(self.len) != Some(self.range.end) {
            return Err(Error::Damaged(
                "its first and last function are not where its moduledata says",
            ));
        }
        match image.bytes(self.range.start, self.range.end - self.range.start) {
            Some(_) => Ok(()),
            None => Err(Error::Damaged("its functions are not in the file")),
        }
    }

    /// `moduledata.gofunc` has moved before (offset 320 until Go 1.26, 344 in 1.27): it is the word that the
    /// trees make sense from.
    fn find_trees(&self, image: &Image, module: &[u8]) -> Bytes {
        (MODULE_AFTER_ETEXT..MODULE_SIZE)
            .step_by(8)
            .filter_map(|at| image.tail(u64_at(module, at)?))
            .find(|trees| self.trees_fit(trees))
            .unwrap_or_default()
    }
}
