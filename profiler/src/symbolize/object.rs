//! One object file as a source of names.

use super::demangle;
use super::dwarf::{Dwarf, Frame, SplitUnit};
use super::elf::{Elf, Error, Section, Segment};
use super::links::{self, AltLink};
use super::symbols::{NameAt, Symbol, SymbolTable};
use super::{Name, Reason, mini, plt};
use crate::addr::Svma;
use crate::profile::Kind;
use bytes::Bytes;
use object::LittleEndian as LE;
use object::elf::{self, Sym64};
use object::pod;
use object::read::elf::Sym;
use std::cell::OnceCell;
use std::fmt;

/// One ELF file, with the separate files that belong to it as far as the caller has found them.
///
/// What has to be found: a *debug file* if the file itself has no DWARF ([`Object::wants_debug_file`]); a
/// *supplementary file* if one of the two refers to it ([`Object::alt_link`]); and for an address whose unit is split
/// ([`Object::split_units`]) the package (`.dwp`) that all such units are in, or the file (`.dwo`) of the unit.
///
/// Symbols are sorted at the first lookup; DWARF is read then, and as far as lookups need it. It is `Send` but not
/// `Sync`: several objects can be asked on several threads.
///
/// # What a hostile file can cost
///
/// Memory and time grow with the size of the files and with nothing else: sections do not unpack to more than 64
/// times their size, all lookups together read the DWARF a fixed number of times, inlined functions go a limited
/// way down, and names are cut at 64 KiB.
pub struct Object {
    elf: Elf,
    debug: Option<Elf>,
    supplementary: Option<Elf>,
    symbols: OnceCell<Symbols>,
    dwarf: OnceCell<Result<Option<Dwarf>, String>>,
}

/// The names of functions that are not from DWARF.
struct Symbols {
    table: SymbolTable,
    /// There is no `.symtab`: `table` has what is exported and imported, if anything.
    stripped: bool,
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
/// The section that an object has if it has DWARF.
const DEBUG_INFO: &str = ".debug_info";

impl Object {
    /// Reads a file and, if it has been found, the file with its DWARF and symbols ([`Object::add_debug_file`]).
    ///
    /// Tables of symbols that are damaged count as absent: other sources may still name the addresses.
    pub fn parse(file: Bytes, debug: Option<Bytes>) -> Result<Self, Error> {
        let mut object = Self {
            elf: Elf::parse(&file)?,
            debug: None,
            supplementary: None,
            symbols: OnceCell::new(),
            dwarf: OnceCell::new(),
        };
        if let Some(debug) = debug {
            object.add_debug_file(debug)?;
        }
        Ok(object)
    }

    /// Whether a debug file would say more: the file has no DWARF of its own, and no debug file so far.
    pub fn wants_debug_file(&self) -> bool {
        self.debug.is_none() && self.elf.section(DEBUG_INFO).is_none()
    }

    /// Adds the file with its DWARF and symbols. It must be of the same build, which is told by the GNU build id, or else
    /// by the checksum in `.gnu_debuglink`.
    pub fn add_debug_file(&mut self, file: Bytes) -> Result<(), Error> {
        let debug = Elf::parse(&file)?;
        links::check_same_build(&self.elf, &debug, &file)?;
        self.debug = Some(debug);
        self.symbols.take();
        self.dwarf.take();
        Ok(())
    }

    /// The supplementary file that the DWARF refers to, unless it has been added.
    pub fn alt_link(&self) -> Option<AltLink> {
        if self.supplementary.is_some() {
            return None;
        }
        links::alt_link(self.with_dwarf()?)
    }

    /// Adds the supplementary file. It must have the build id that the DWARF asks for.
    pub fn add_supplementary_file(&mut self, file: &Bytes) -> Result<(), Error> {
        let supplementary = Elf::parse(file)?;
        if let Some(link) = self.with_dwarf().and_then(links::alt_link) {
            links::check_build_id(&link.build_id, links::gnu_build_id(&supplementary))?;
        }
        self.supplementary = Some(supplementary);
        self.dwarf.take();
        Ok(())
    }

    /// The units whose DWARF a lookup of the address would read, and that are in files of their own which have not been
    /// added. A lookup gives up those that are still missing for good.
    pub fn split_units(&self, address: Svma) -> Vec<SplitUnit> {
        self.dwarf()
            .map(|dwarf| dwarf.split_units(address.0))
            .unwrap_or_default()
    }

    /// Adds the package that holds all split units. Each is told by its id when it is looked for.
    pub fn add_package(&self, file: &Bytes) -> Result<(), Error> {
        let package = Elf::parse(file)?;
        let Some(dwarf) = self.dwarf() else { return Ok(()) };
        dwarf
            .add_package(&package)
            .map_err(|problem| Error::Damaged(problem.to_string()))
    }

    /// Adds the file of a split unit. It must have the id that the unit asks for.
    pub fn add_split_unit(&self, unit: &SplitUnit, file: &Bytes) -> Result<(), Error> {
        let split = Elf::parse(file)?;
        let Some(dwarf) = self.dwarf() else { return Ok(()) };
        let found = dwarf
            .add_split_unit(unit.id, &split)
            .map_err(|problem| Error::Damaged(problem.to_string()))?;
        if found == Some(unit.id) {
            return Ok(());
        }
        let shown = |id| format!("unit id {id:016x}");
        Err(Error::DebugFileDiffers {
            expected: shown(unit.id),
            found: found.map_or_else(|| "no unit id".to_owned(), shown),
        })
    }

    /// The GNU build id, in hexadecimal; else that of Go, as it is.
    pub fn build_id(&self) -> Option<String> {
        self.gnu_build_id().or_else(|| self.go_build_id())
    }

    /// The GNU build id, in hexadecimal.
    pub fn gnu_build_id(&self) -> Option<String> {
        links::gnu_build_id(&self.elf)
    }

    /// The build id that the Go linker writes: four words with slashes between them.
    pub fn go_build_id(&self) -> Option<String> {
        links::go_build_id(&self.elf)
    }

    /// Name and checksum (CRC-32) of the debug file that the program asks for in `.gnu_debuglink`. A name, not a
    /// path; it comes from the file and may hold anything but a slash.
    pub fn debug_link(&self) -> Option<(String, u32)> {
        let (name, checksum) = links::debug_link(&self.elf)?;
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
                    self.symbols().table.lookup(address.0)
                } else {
                    None
                };
                name_of(frame, symbol.as_deref(), i < last)
            })
            .collect()
    }

    fn by_symbols(&self, address: Svma) -> Option<Vec<Name>> {
        let symbol = self
            .symbols()
            .table
            .lookup(address.0)
            .filter(|name| !name.is_empty())?;
        Some(vec![Name::of_symbol(&symbol)])
    }

    fn reason(&self, address: Svma) -> Reason {
        let in_code =
            |section: &Section| section.executable && address.0.wrapping_sub(section.address) < section.size;
        let sections = &self.elf.sections;
        if !sections.is_empty() && !sections.iter().any(in_code) {
            Reason::NotCode
        } else if self.symbols().stripped {
            Reason::NoSymbols
        } else {
            Reason::BetweenSymbols
        }
    }

    fn symbols(&self) -> &Symbols {
        self.symbols
            .get_or_init(|| symbols_of(&self.elf, self.debug.as_ref()))
    }

    /// The file that has the DWARF.
    fn with_dwarf(&self) -> Option<&Elf> {
        [Some(&self.elf), self.debug.as_ref()]
            .into_iter()
            .flatten()
            .find(|elf| elf.section(DEBUG_INFO).is_some())
    }

    fn dwarf(&self) -> Option<&Dwarf> {
        let loaded = self.dwarf.get_or_init(|| {
            let Some(elf) = self.with_dwarf() else {
                return Ok(None);
            };
            let dwarf = Dwarf::load(elf, self.supplementary.as_ref());
            dwarf.map(Some).map_err(|problem| problem.to_string())
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

/// The functions of `.symtab`, from whichever file has one, else of `.dynsym` and of the mini-debuginfo; and the slots of
/// the linkage table.
fn symbols_of(elf: &Elf, debug: Option<&Elf>) -> Symbols {
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
        .find_map(|elf| functions(elf, elf::SHT_SYMTAB, NameAt::Symbols));
    let stripped = static_symbols.is_none();
    let (mut symbols, strings) = static_symbols.unwrap_or_else(|| {
        let exported = functions(elf, elf::SHT_DYNSYM, NameAt::Dynamic).unwrap_or_default();
        let mini = mini::unpack(elf)
            .and_then(|mini| functions(&mini, elf::SHT_SYMTAB, NameAt::Symbols))
            .unwrap_or_default();
        ([exported.0, mini.0].concat(), mini.1)
    });
    symbols.extend(plt::slots(elf));
    let dynamic_strings = strings_of(elf, elf::SHT_DYNSYM).unwrap_or_default();
    Symbols {
        table: SymbolTable::new(symbols, &code, strings, dynamic_strings),
        stripped,
    }
}

/// The functions and labels of a table of symbols, and its strings. `None` if there is no table with functions.
fn functions(
    elf: &Elf,
    table: elf::SectionType,
    name: impl Fn(u32) -> NameAt,
) -> Option<(Vec<Symbol>, Bytes)> {
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
            name: name(symbol.st_name(LE)),
            local: symbol.st_bind() == elf::STB_LOCAL,
        })
        .collect();
    (!symbols.is_empty()).then_some((symbols, strings))
}

fn strings_of(elf: &Elf, table: elf::SectionType) -> Option<Bytes> {
    let section = elf.section_of(table)?;
    Some(elf.sections.get(section.link)?.data.clone())
}
