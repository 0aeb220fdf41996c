//! Files of code that targets have mapped. Each is read once, whoever maps it.

use crate::addr::Svma;
use crate::debuginfo::{Places, Symbols};
use crate::gopclntab::Pclntab;
use crate::hooks::table as hooks;
use crate::target::Mapped;
use crate::target::go::GoRuntime;
use crate::target::go::sites::HookSites;
use crate::unwind::{ExtTable, ObjectRows, danger, table};
use object::{Object as _, ObjectSymbol};
use profiler_abi::table::REGION_SHIFT;

/// What an object file says about its code.
pub struct Object {
    /// Names and segments, from the file and from those that belong to it.
    pub symbols: Symbols,
    /// Go's table of functions.
    pub pclntab: Option<Pclntab>,
    /// The Go runtime, if the object has one.
    pub go: Option<GoRuntime>,
    /// What honouring its traceback hooks takes; or why that is not known, as a whole sentence without the final stop.
    pub hooks: Result<Option<HookSites>, String>,
    /// Its table of traceback hooks; or why that is not known, likewise.
    pub hook_table: Result<Option<Svma>, String>,
    /// libc's `__errno_location`.
    pub errno_location: Option<Svma>,
    /// For each 64 KiB region of code with rules: its number and its table.
    pub regions: Vec<(u32, Vec<u8>)>,
    /// One more than the highest number of a region.
    pub n_regions: u32,
    /// What is not understood about it: whole sentences without the final stop.
    pub problems: Vec<String>,
}

/// Objects state addresses; a table of rules for addresses beyond this is not made. 64 GiB: more than any real
/// object spans, and few enough regions for the directory.
const MAX_REGIONS: u32 = 1 << 20;

impl Object {
    /// Reads the object file that processes with these places have at `path`. Extended rules go to `ext`, which all objects of a recording share.
    ///
    /// # Errors
    /// The bytes are not an ELF file for this machine, or damaged beyond use.
    pub fn read(path: &str, contents: &Mapped, places: Places, ext: &mut ExtTable) -> Result<Self, String> {
        let bytes = &contents.bytes;
        let file = object::File::parse(&bytes[..]).map_err(|error| error.to_string())?;
        let symbols = Symbols::open(bytes.clone(), path, places).map_err(|error| error.to_string())?;
        let mut problems = Vec::new();
        let mut note = |what: &str, error: &dyn std::fmt::Display| problems.push(format!("{what}: {error}"));
        let pclntab = Pclntab::find(&file, bytes)
            .inspect_err(|error| note("its table of Go functions cannot be used", error))
            .unwrap_or(None);
        let go = match &pclntab {
            Some(pclntab) => GoRuntime::find(&file, bytes, pclntab)
                .inspect_err(|error| note("its Go runtime is not understood", error))
                .unwrap_or(None),
            None => None,
        };

        let hooks = match (&pclntab, &go) {
            (Some(pclntab), Some(go)) => {
                HookSites::find(&file, bytes, pclntab, go).map_err(|error| error.to_string())
            }
            _ => Ok(None),
        };
        let hook_table = hooks::Table::find(bytes).map_err(|error| error.to_string());
        let errno_location = file
            .dynamic_symbols()
            .chain(file.symbols())
            .find(|symbol| symbol.is_definition() && symbol.name_bytes() == Ok(b"__errno_location"))
            .map(|symbol| Svma(symbol.address()));

        let debug = symbols
            .debug_file()
            .and_then(|bytes| object::File::parse(&bytes[..]).ok());
        let release = || contents.release();
        let mut rows = ObjectRows::read(&file, debug.as_ref(), pclntab.as_ref(), ext, release);
        for shape in &rows.unknown_shapes {
            note("chains may break in its Go runtime", shape);
        }
        let zones = if danger::is_zone(path) {
            rows.text.clone()
        } else {
            danger::zones(&file)
        };
        // Most of it is not looked at again: names are wanted of few, and at the end.
        release();
        rows.rows.mark(&zones);
        let regions = table::encode(&rows.rows);
        let n_regions = regions.last().map_or(0, |(number, _)| number + 1);
        if n_regions > MAX_REGIONS {
            return Err(format!(
                "it states code at addresses beyond {:#x}",
                u64::from(MAX_REGIONS) << REGION_SHIFT
            ));
        }
        Ok(Self {
            symbols,
            pclntab,
            go,
            hooks,
            hook_table,
            errno_location,
            regions,
            n_regions,
            problems,
        })
    }
}
