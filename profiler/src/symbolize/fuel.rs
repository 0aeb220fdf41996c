//! A reader of DWARF that runs dry.
//!
//! `gimli` checks every read, but nothing says that what it reads is worth it: a few hostile kilobytes can point
//! at one another so that reading them all takes years and fills the memory, and `addr2line` follows inlined
//! functions down by recursion, one level for as little as one byte. The reader is the one place of ours that all
//! of this passes through. So it counts what is read and looks at how deep the stack is, and when either is too
//! much, the section ends there: to `gimli` an end of input like any other.

use gimli::{EndianSlice, Error, LittleEndian, Reader, ReaderOffsetId, Result, leb128};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What may still be read, and how deep. Used by one thread at a time; atomic so that it can move to another.
#[derive(Debug, Default)]
pub(super) struct Fuel {
    bytes: AtomicU64,
    lowest_stack: AtomicUsize,
}

/// Stack that a lookup may use. Threads of Rust have 2 MiB, and a level of `addr2line`'s recursion takes about
/// 1 KiB in a debug build; no compiler puts some hundred functions inside one another.
const STACK: usize = 512 << 10;

impl Fuel {
    /// Lets that many more bytes be read.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes
            .store(self.bytes.load(Relaxed).saturating_add(bytes), Relaxed);
    }

    /// Bytes that may still be read.
    #[cfg(test)]
    pub(super) fn left(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether something was refused for lack of fuel.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.load(Relaxed) == 0
    }

    /// Does something that has that many bytes of its own, whatever it takes.
    pub(super) fn apart<T>(&self, bytes: u64, something: impl FnOnce() -> T) -> T {
        let saved = self.bytes.swap(bytes, Relaxed);
        let result = something();
        self.bytes.store(saved, Relaxed);
        result
    }

    /// Measures the depth of the stack from here on.
    pub(super) fn start_here(&self) {
        self.lowest_stack
            .store(stack_pointer().saturating_sub(STACK), Relaxed);
    }

    fn burn(&self, bytes: usize) -> bool {
        let left = self.bytes.load(Relaxed);
        let enough = left.checked_sub(bytes as u64);
        self.bytes.store(enough.unwrap_or(0), Relaxed);
        enough.is_some()
    }

    fn too_deep(&self) -> bool {
        stack_pointer() < self.lowest_stack.load(Relaxed)
    }
}

/// About where the stack ends. The address of a local variable is only compared, never used.
fn stack_pointer() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

/// Reads a section for as long as there is [`Fuel`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Metered<'a> {
    section: EndianSlice<'a, LittleEndian>,
    fuel: &'a Fuel,
}

impl<'a> Metered<'a> {
    pub(super) fn new(section: &'a [u8], fuel: &'a Fuel) -> Self {
        Self {
            section: EndianSlice::new(section, LittleEndian),
            fuel,
        }
    }

    /// All of what it may still read, free of charge.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.section.slice()
    }

    fn burn(&self, bytes: usize) -> Result<()> {
        if self.fuel.burn(bytes) {
            Ok(())
        } else {
            Err(Error::UnexpectedEof(self.offset_id()))
        }
    }
}

impl Reader for Metered<'_> {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        self.section.len()
    }

    fn empty(&mut self) {
        self.section.empty();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.section.truncate(len)
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.section.offset_from(base.section)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        self.section.offset_id()
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        self.section.lookup_offset_id(id)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let found = Reader::find(&self.section, byte);
        self.burn(*found.as_ref().unwrap_or(&self.len()))?;
        found
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        self.section.skip(len)
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        Ok(Self {
            section: self.section.split(len)?,
            fuel: self.fuel,
        })
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        self.burn(self.len())?;
        self.section.to_slice()
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        self.burn(self.len())?;
        Reader::to_string(&self.section)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        self.burn(self.len())?;
        Reader::to_string_lossy(&self.section)
    }

    fn read_slice(&mut self, buf: &mut [u8]) -> Result<()> {
        self.burn(buf.len())?;
        Reader::read_slice(&mut self.section, buf)
    }

    fn read_u8(&mut self) -> Result<u8> {
        self.burn(1)?;
        self.section.read_u8()
    }

    /// Every entry of the tree of functions starts with such a number, so this is where its depth is seen.
    fn read_uleb128(&mut self) -> Result<u64> {
        if self.fuel.too_deep() {
            return Err(Error::UnexpectedEof(self.offset_id()));
        }
        leb128::read::unsigned(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_ends_when_the_fuel_does() {
        let fuel = Fuel::default();
        fuel.add(6);
        let mut reader = Metered::new(&[1, 2, 3, 4, 5, 6, 7, 8], &fuel);
        assert_eq!(reader.read_u32(), Ok(0x0403_0201));
        assert!(reader.read_u32().is_err());
        assert!(reader.read_u8().is_err(), "what was refused is not given back");
        fuel.add(1);
        assert_eq!(reader.read_u8(), Ok(5));
    }

    #[test]
    fn a_search_costs_what_it_looked_at() {
        let fuel = Fuel::default();
        fuel.add(4);
        let reader = Metered::new(b"abc\0", &fuel);
        assert_eq!(Reader::find(&reader, 0), Ok(3));
        assert_eq!(fuel.left(), 1);
        assert!(Reader::find(&reader, b'z').is_err());
        assert_eq!(fuel.left(), 0);
    }

    #[test]
    fn recursion_ends_before_the_stack_does() {
        fn descend(reader: &mut Metered<'_>, depth: usize) -> usize {
            let ballast = std::hint::black_box([0_u8; 1024]);
            match reader.read_uleb128() {
                Ok(_) => descend(reader, depth + 1).max(ballast.len().min(1)),
                Err(_) => depth,
            }
        }
        let section = vec![1; 1 << 20];
        let fuel = Fuel::default();
        fuel.add(1 << 20);
        fuel.start_here();
        let depth = descend(&mut Metered::new(&section, &fuel), 0);
        assert!((100..512).contains(&depth), "{depth}");
    }
}
