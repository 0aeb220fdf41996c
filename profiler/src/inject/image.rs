//! The helper as built: bytes in, addresses out.

use super::error::Error;
use super::leftovers;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, elf};
use profiler_helper::shared::Shared;
use std::sync::LazyLock;

/// What the build script made of `profiler/helper`.
static BUILT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/helper.so"));

/// The object that a mapping with this name is of, if it is the helper: in a process it has no headers.
pub fn object(name: &str) -> Option<&'static [u8]> {
    leftovers::is_name(name).then_some(BUILT)
}

/// Size of a page on x86-64, in bytes.
pub(super) const PAGE: u64 = 4096;

/// The helper, as it lies in memory: code, and behind it the memory that it shares with us. It runs wherever it is
/// mapped, if only the distance of the two stays the same.
#[derive(Debug)]
pub(super) struct Image {
    /// The first pages, which the target may read and execute.
    pub(super) code: Vec<u8>,
    /// Offset of the [`Shared`] pages, which the target may read and write.
    pub(super) shared: u64,
    /// Offset of the signal handler.
    pub(super) handler: u64,
    /// Offset of the code that ends it.
    pub(super) restorer: u64,
}

impl Image {
    /// The helper of this program.
    pub(super) fn built() -> Result<&'static Self, Error> {
        static IMAGE: LazyLock<Result<Image, &'static str>> = LazyLock::new(|| Image::parse(BUILT));
        IMAGE.as_ref().map_err(|what| Error::Image(what))
    }

    /// Size of everything, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.shared + size_of::<Shared>() as u64
    }

    fn parse(data: &[u8]) -> Result<Self, &'static str> {
        let header = elf::FileHeader64::<Endianness>::parse(data).or(Err("not an ELF file"))?;
        let endian = header.endian().or(Err("no byte order"))?;
        let segments = header.program_headers(endian, data).or(Err("no segments"))?;
        let file = object::File::parse(data).or(Err("not an ELF file"))?;
        let symbol = |name| {
            let mut all = file.dynamic_symbols();
            all.find(|symbol| symbol.name() == Ok(name))
                .map(|symbol| symbol.address())
                .ok_or("a symbol is missing")
        };
        let shared = symbol("profiler_helper_shared")?;
        if shared % PAGE != 0 {
            return Err("the shared memory does not begin at a page");
        }
        let mut code = Vec::new();
        for segment in segments {
            // The writable segments hold what is for a loader, and the shared memory, which begins as zeros.
            if segment.p_type(endian) != elf::PT_LOAD || segment.p_flags(endian).contains(elf::PF_W) {
                continue;
            }
            let bytes = segment.data(endian, data).or(Err("a segment is cut off"))?;
            let start = segment.p_vaddr(endian) as usize;
            let end = start.checked_add(bytes.len()).filter(|&end| end as u64 <= shared);
            let end = end.ok_or("a segment lies behind the shared memory")?;
            code.resize(code.len().max(end), 0);
            code[start..end].copy_from_slice(bytes);
        }
        Ok(Self {
            code,
            shared,
            handler: symbol("profiler_helper_handler")?,
            restorer: symbol("profiler_helper_restorer")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BUILT, Image};
    use crate::addr::Svma;
    use crate::unwind::{ExtTable, ObjectRows};
    use iced_x86::{Code, Decoder, DecoderOptions, FlowControl};
    use object::{Object, ObjectSection, ObjectSymbol};
    use profiler_abi::rule::Kind;

    #[test]
    fn the_helper_needs_nothing_from_anybody() {
        let file = object::File::parse(BUILT).expect("an ELF file");
        assert_eq!(file.dynamic_relocations().into_iter().flatten().count(), 0);
        assert!(file.dynamic_symbols().all(|symbol| !symbol.is_undefined()));
        // Nothing is written but the shared memory, and that begins as zeros.
        let names: Vec<_> = file
            .sections()
            .filter_map(|s| s.name().ok().map(str::to_owned))
            .collect();
        let written = [".data", ".got", ".got.plt"];
        assert!(
            !names.iter().any(|name| written.contains(&name.as_str())),
            "{names:?}"
        );
        assert!(names.iter().any(|name| name == ".bss"), "{names:?}");
    }

    #[test]
    fn the_helper_makes_no_system_call_but_sigreturn() {
        let file = object::File::parse(BUILT).expect("an ELF file");
        let text = file.section_by_name(".text").expect("code");
        let code = text.data().expect("bytes");
        let restorer = Image::built().expect("a good image").restorer;
        let decoder = Decoder::with_ip(64, code, text.address(), DecoderOptions::NONE);
        let kernel: Vec<_> = decoder
            .into_iter()
            .filter(|i| {
                matches!(i.code(), Code::Syscall | Code::Sysenter)
                    || i.flow_control() == FlowControl::Interrupt
            })
            .map(|i| i.ip())
            .collect();
        assert_eq!(kernel, [restorer + 7]);
    }

    #[test]
    fn unwinders_know_the_end_of_the_handler_by_its_bytes() {
        let image = Image::built().expect("a good image");
        let at = image.restorer as usize;
        assert_eq!(image.code[at..at + 9], *b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05");
        assert!(image.code.len() < 16 * 1024, "{} bytes", image.code.len());
    }

    #[test]
    fn walks_go_through_the_helper() {
        let file = object::File::parse(BUILT).expect("an ELF file");
        let read = ObjectRows::read(&file, None, None, &mut ExtTable::default(), || ());
        let image = Image::built().expect("a good image");
        let kind = |address| read.rows.rule_at(Svma(address)).kind();
        assert_eq!(kind(image.handler), Kind::Sp);
        // A return address that nothing called, and walks look those up less one.
        assert_eq!(kind(image.restorer - 1), Kind::SigFrame);
    }

    #[test]
    fn a_damaged_helper_is_refused() {
        assert!(Image::parse(b"").is_err());
        assert!(Image::parse(&BUILT[..BUILT.len() / 4]).is_err());
    }
}
