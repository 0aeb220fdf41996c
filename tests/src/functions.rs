//! Where the functions of a shared library are, by its unwind tables: stripped libraries have those.

use anyhow::{Context, Result};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};
use object::{Object, ObjectSection, ObjectSegment};
use std::fs;
use std::ops::Range;
use std::path::Path;

/// The functions of one library. Parts of one function that are apart are functions here.
#[derive(Clone, Debug)]
pub struct Functions {
    /// By address, as in the file.
    functions: Vec<Range<u64>>,
    /// What the segments hold: offsets in the file, and the address of the first byte.
    segments: Vec<(Range<u64>, u64)>,
}

impl Functions {
    /// Reads a library.
    pub fn read(path: &Path) -> Result<Self> {
        let place = || format!("cannot read {}", path.display());
        let bytes = fs::read(path).with_context(place)?;
        let file = object::File::parse(&bytes[..]).with_context(place)?;
        let section = file.section_by_name(".eh_frame").with_context(place)?;
        let data = section.uncompressed_data()?;
        let frames = EhFrame::new(&data, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(section.address());
        let mut functions = Vec::new();
        let mut entries = frames.entries(&bases);
        while let Some(entry) = entries.next()? {
            if let CieOrFde::Fde(partial) = entry {
                let fde = partial.parse(EhFrame::cie_from_offset)?;
                functions.push(fde.initial_address()..fde.end_address());
            }
        }
        functions.sort_by_key(|function| function.start);
        let segments = file
            .segments()
            .map(|segment| {
                let (offset, size) = segment.file_range();
                (offset..offset + size, segment.address())
            })
            .collect();
        Ok(Self { functions, segments })
    }

    /// Where the function with the code at this offset in the file starts.
    pub fn start(&self, offset: u64) -> Option<u64> {
        let (segment, address) = self
            .segments
            .iter()
            .find(|(segment, _)| segment.contains(&offset))?;
        let address = offset - segment.start + address;
        let at = self
            .functions
            .partition_point(|function| function.start <= address);
        let function = self.functions.get(at.checked_sub(1)?)?;
        function.contains(&address).then_some(function.start)
    }
}

#[cfg(test)]
mod tests {
    use super::Functions;
    use crate::programs;
    use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

    #[test]
    fn functions_of_a_library_start_where_its_symbols_say() {
        let path = programs::native_library("dlopen_late/plugin.c").unwrap().path;
        let functions = Functions::read(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = object::File::parse(&bytes[..]).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let (offset, _) = text.file_range().unwrap();
        let known: Vec<_> = file
            .dynamic_symbols()
            .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text && symbol.size() > 0)
            .collect();
        assert!(!known.is_empty());
        for symbol in known {
            let last = symbol.address() + symbol.size() - 1 - text.address() + offset;
            assert_eq!(functions.start(last), Some(symbol.address()), "{symbol:?}");
        }
        assert_eq!(functions.start(0), None);
    }
}
