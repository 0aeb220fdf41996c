//! One object file as a source of names.

use super::demangle;
use super::dwarf::{Dwarf, Frame};
use super::elf::{Elf, Error, Section, Segment};
use super::symbols::{NameAt, Symbol, SymbolTable};
use super::{Name, Reason, plt, string_at};
use crate::addr::Svma;
use crate::profile::Kind;
use bytes::Bytes;
use flate2::Crc;
use object::LittleEndian as LE;
use object::elf::{self, Sym64};
use object::pod;
use object::read::elf::Sym;
use std::cell::OnceCell;
use std::fmt;

/// One ELF file, with its separate debug file if there is one.
///
/// Symbols are sorted when it is made; DWARF is read at the first lookup and then as far as lookups need it. It
/// is `Send` but not `Sync`: several objects can be asked on several threads.
///
/// # What a hostile file can cost
///
/// Memory and time grow with the size of the file and with nothing else: sections do not unpack to more than 64
/// times their size, all lookups together read the DWARF a fixed number of times, inlined functions go a limited
/// way down, and names are cut at 64 KiB.
pub struct Object {
    elf: Elf,
    debug: Option<Elf>,
    symbols: SymbolTable,
    /// There is no `.symtab`: `symbols` has what is exported and imported, if anything.
    stripped: bool,
    dwarf: OnceCell<Result<Option<Dwarf>, String>>,
}

/// What can name an address, in the order in which they are asked.
#[derive(Clone, Copy, Debug)]
enum Source {
    Dwarf,
    Symbols,
}

const SOURCES: [Source; 2] = [Source::Dwarf, Source::Symbols];

/// Granularity of mappings on x86-64, in bytes.
const PAGE: u64 = 4096;
/// `n_type` of the note of owner `GNU` that holds the build id.
const NT_GNU_BUILD_ID: u32 = 3;
/// `n_type` of the note of owner `Go` that holds the build id (cmd/link/internal/ld/elf.go).
const ELF_NOTE_GOBUILDID_TAG: u32 = 4;

impl Object {
    /// Reads a file and, if there is one, the file with its DWARF and symbols. The latter must belong to the same
    /// build, which is told by the GNU build id, or else by the checksum in `.gnu_debuglink`.
    ///
    /// Tables of symbols that are damaged count as absent: other sources may still name the addresses.
    pub fn parse(file: Bytes, debug: Option<Bytes>) -> Result<Self, Error> {
        let elf = Elf::parse(&file)?;
        let debug = match debug {
            Some(bytes) => {
                let debug = Elf::parse(&bytes)?;
                check_same_build(&elf, &debug, &bytes)?;
                Some(debug)
            }
            None => None,
        };
        let (symbols, stripped) = symbol_table(&elf, debug.as_ref());
        Ok(Self {
            stripped,
            elf,
            debug,
            symbols,
            dwarf: OnceCell::new(),
        })
    }

    /// The GNU build id, in hexadecimal; else that of Go, as it is.
    pub fn build_id(&self) -> Option<String> {
        gnu_build_id(&self.elf).or_else(|| self.go_build_id())
    }

    /// The build id that the Go linker writes: four words with slashes between them.
    pub fn go_build_id(&self) -> Option<String> {
        let note = self.elf.note(b"Go", ELF_NOTE_GOBUILDID_TAG)?;
        Some(String::from_utf8_lossy(&note).into_owned())
    }

    /// Name and checksum (CRC-32) of the debug file that the program asks for in `.gnu_debuglink`. A name, not a
    /// path; it comes from the file and may hold anything but a slash.
    pub fn debug_link(&self) -> Option<(String, u32)> {
        let (name, checksum) = debug_link(&self.elf)?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        (!name.is_empty() && !name.contains('/')).then_some((name, checksum))
    }

    /// Which stated address has the byte at that offset of the file. Loaders map whole pages, so a segment begins
    /// where its first page does, and bytes can be loaded twice, where two segments share a page: then the one with
    /// code counts.
    pub fn svma_of_offset(&self, offset: u64) -> Option<Svma> {
        let holds = |segment: &&Segment| {
            let first_page = segment.offset & !(PAGE - 1);
            offset >= first_page && offset < segment.offset.saturating_add(segment.file_size)
        };
        let segment = self.elf.segments.iter().filter(holds);
        let segment = segment.max_by_key(|segment| segment.executable)?;
        // Wrapping: the page may begin before the segment.
        let distance = offset.wrapping_sub(segment.offset);
        Some(Svma(segment.address.wrapping_add(distance)))
    }

    /// At which offset of the file the byte with that stated address is.
    pub fn offset_of_svma(&self, address: Svma) -> Option<u64> {
        let segment = self
            .elf
            .segments
            .iter()
            .find(|s| address.0 >= s.address && address.0 - s.address < s.file_size)?;
        segment.offset.checked_add(address.0 - segment.address)
    }

    /// The functions at an address, the innermost first; the last one is the function whose code it is, the ones
    /// before it were put inside. Never empty.
    pub fn lookup(&self, address: Svma) -> Result<Vec<Name>, Reason> {
        SOURCES
            .into_iter()
            .find_map(|source| match source {
                Source::Dwarf => self.by_dwarf(address),
                Source::Symbols => self.by_symbols(address),
            })
            .ok_or_else(|| self.reason(address))
    }

    /// Why lookups do without the DWARF that is there, if they do: a whole sentence without the final stop.
    pub fn dwarf_problem(&self) -> Option<&str> {
        self.dwarf.get()?.as_ref().err().map(String::as_str)
    }

    fn by_dwarf(&self, address: Svma) -> Option<Vec<Name>> {
        let frames = self.dwarf()?.frames(address.0).ok()?;
        let last = frames.len().checked_sub(1)?;
        frames
            .into_iter()
            .enumerate()
            .map(|(i, frame)| {
                let symbol = if i == last {
                    self.symbols.lookup(address.0)
                } else {
                    None
                };
                name_of(frame, symbol.as_deref(), i < last)
            })
            .collect()
    }

    fn by_symbols(&self, address: Svma) -> Option<Vec<Name>> {
        let symbol = self.symbols.lookup(address.0).filter(|name| !name.is_empty())?;
        Some(vec![Name::of_symbol(&symbol)])
    }

    fn reason(&self, address: Svma) -> Reason {
        let in_code =
            |section: &Section| section.executable && address.0.wrapping_sub(section.address) < section.size;
        let sections = &self.elf.sections;
        if !sections.is_empty() && !sections.iter().any(in_code) {
            Reason::NotCode
        } else if self.stripped {
            Reason::NoSymbols
        } else {
            Reason::BetweenSymbols
        }
    }

    fn dwarf(&self) -> Option<&Dwarf> {
        let loaded = self.dwarf.get_or_init(|| {
            for elf in [Some(&self.elf), self.debug.as_ref()].into_iter().flatten() {
                if let Some(dwarf) = Dwarf::load(elf).map_err(|problem| problem.to_string())? {
                    return Ok(Some(dwarf));
                }
            }
            Ok(None)
        });
        loaded.as_ref().ok()?.as_ref()
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("build_id", &self.build_id())
            .field("separate_debug_file", &self.debug.is_some())
            .finish_non_exhaustive()
    }
}

/// The name of a frame. DWARF knows code that was written in assembly by its lines only, and functions with
/// internal linkage by the last part of their names: then the symbol, if there is one, says more.
fn name_of(frame: Frame, symbol: Option<&[u8]>, inlined: bool) -> Option<Name> {
    let plain = match (frame.name, symbol) {
        (Some(name), Some(symbol))
            if !demangle::is_mangled(name.as_bytes()) && demangle::is_mangled(symbol) =>
        {
            demangle::plain(&String::from_utf8_lossy(symbol))
        }
        (Some(name), _) => demangle::plain(&name),
        (None, Some(symbol)) => demangle::plain(&String::from_utf8_lossy(symbol)),
        (None, None) => return None,
    };
    let kind = match frame.language {
        Some(gimli::DW_LANG_Go) => Kind::Go,
        Some(gimli::DW_LANG_Rust) => Kind::Rust,
        _ => plain.kind,
    };
    Some(Name {
        function: plain.function,
        system_name: plain.system_name,
        file: frame.file,
        line: frame.line,
        start_line: frame.start_line,
        kind,
        inlined,
    })
}

fn gnu_build_id(elf: &Elf) -> Option<String> {
    let note = elf.note(b"GNU", NT_GNU_BUILD_ID)?;
    Some(note.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `.gnu_debuglink`: a name, zeros up to a multiple of four, a CRC-32.
fn debug_link(elf: &Elf) -> Option<(&[u8], u32)> {
    let data = &elf.section(".gnu_debuglink")?.data;
    let name = string_at(data, 0, data.len())?;
    let at = (name.len() + 1).next_multiple_of(4);
    let checksum = data.get(at..at + 4)?.try_into().ok()?;
    Some((name, u32::from_le_bytes(checksum)))
}

fn check_same_build(elf: &Elf, debug: &Elf, debug_bytes: &[u8]) -> Result<(), Error> {
    let differ = |expected, found| Error::DebugFileDiffers { expected, found };
    match (gnu_build_id(elf), gnu_build_id(debug)) {
        (Some(expected), Some(found)) if expected == found => Ok(()),
        (Some(expected), Some(found)) => Err(differ(
            format!("build id {expected}"),
            format!("build id {found}"),
        )),
        _ => {
            let mut checksum = Crc::new();
            checksum.update(debug_bytes);
            match debug_link(elf) {
                Some((_, expected)) if expected != checksum.sum() => Err(differ(
                    format!("checksum {expected:08x}"),
                    format!("checksum {:08x}", checksum.sum()),
                )),
                _ => Ok(()),
            }
        }
    }
}

/// The functions of `.symtab`, from whichever file has one, else of `.dynsym`, and the slots of the linkage table;
/// and whether there is no `.symtab`.
fn symbol_table(elf: &Elf, debug: Option<&Elf>) -> (SymbolTable, bool) {
    let mut code: Vec<_> = elf
        .sections
        .iter()
        .filter(|section| section.executable)
        .map(|section| (section.address, section.address.saturating_add(section.size)))
        .collect();
    code.sort_unstable();
    let static_symbols = [Some(elf), debug]
        .into_iter()
        .flatten()
        .find_map(|elf| functions(elf, elf::SHT_SYMTAB));
    let stripped = static_symbols.is_none();
    let (mut symbols, strings) = static_symbols
        .or_else(|| functions(elf, elf::SHT_DYNSYM))
        .unwrap_or_default();
    symbols.extend(plt::slots(elf));
    let dynamic_strings = strings_of(elf, elf::SHT_DYNSYM).unwrap_or_default();
    let table = SymbolTable::new(symbols, &code, strings, dynamic_strings);
    (table, stripped)
}

/// The functions and labels of a table of symbols, and its strings. `None` if there is no table with functions.
fn functions(elf: &Elf, table: elf::SectionType) -> Option<(Vec<Symbol>, Bytes)> {
    let strings = strings_of(elf, table)?;
    let section = elf.section_of(table)?;
    let symbols: Vec<_> = pod::slice_from_all_bytes::<Sym64<LE>>(&section.data)
        .ok()?
        .iter()
        .filter(|symbol| {
            let kind = symbol.st_type();
            let section = symbol.st_shndx(LE);
            [elf::STT_FUNC, elf::STT_GNU_IFUNC, elf::STT_NOTYPE].contains(&kind)
                && section != elf::SHN_UNDEF
                && section != elf::SHN_ABS
                && symbol.st_name(LE) != 0
        })
        .map(|symbol| Symbol {
            address: symbol.st_value(LE),
            size: symbol.st_size(LE),
            name: NameAt::Symbols(symbol.st_name(LE)),
            local: symbol.st_bind() == elf::STB_LOCAL,
        })
        .collect();
    (!symbols.is_empty()).then_some((symbols, strings))
}

fn strings_of(elf: &Elf, table: elf::SectionType) -> Option<Bytes> {
    let section = elf.section_of(table)?;
    Some(elf.sections.get(section.link)?.data.clone())
}
