//! The record of one function (`runtime._func`).

use super::Pclntab;
use super::pcvalue::PcValues;
use crate::addr::Svma;
use crate::words::u32_at;
use std::fmt;
use std::ops::Range;

// Offsets in `runtime._func` (runtime/runtime2.go), the same in Go 1.21–1.27.
const ENTRY_OFF: usize = 0;
const NAME_OFF: usize = 4;
const PCSP: usize = 16;
const PCFILE: usize = 20;
const PCLN: usize = 24;
const NPCDATA: usize = 28;
const CU_OFFSET: usize = 32;
const START_LINE: usize = 36;
const FUNC_ID: usize = 40;
const FLAG: usize = 41;
const NFUNCDATA: usize = 43;
/// The tables of a function follow its record: `npcdata` and then `nfuncdata` words.
const SIZE: usize = 44;

// abi.FuncFlag.
const TOP_FRAME: u8 = 1;
const SP_WRITE: u8 = 2;
const ASM: u8 = 4;

/// One function of a Go program, in the machine's sense: what was inlined into it is part of it.
#[derive(Clone, Copy)]
pub struct Function<'a> {
    table: &'a Pclntab,
    /// From the record on to the end of the table.
    record: &'a [u8],
    /// Offsets from `moduledata.text`.
    start: u32,
    end: u32,
}

impl<'a> Function<'a> {
    pub(super) fn new(table: &'a Pclntab, index: usize) -> Option<Self> {
        if index >= table.len {
            return None;
        }
        let start = table.entry_offset(index)?;
        let end = table.entry_offset(index + 1)?;
        let at = u32_at(&table.records, index * 8 + 4)? as usize;
        let record = table.records.get(at..)?;
        // The record repeats the entry: if it does not, it is another's or none.
        let sound = record.len() >= SIZE && u32_at(record, ENTRY_OFF) == Some(start) && start <= end;
        sound.then_some(Self {
            table,
            record,
            start,
            end,
        })
    }

    /// Address of the first instruction.
    pub fn entry(&self) -> Svma {
        Svma(self.table.text.wrapping_add(u64::from(self.start)))
    }

    /// Address of the next function in the table, which may be a few bytes of padding after the last instruction.
    pub fn end(&self) -> Svma {
        Svma(self.table.text.wrapping_add(u64::from(self.end)))
    }

    /// The name, with all type arguments (`main.Map[go.shape.int]`), as Go's own profiles have it; stack traces
    /// leave the arguments out. Cut where it is not UTF-8.
    pub fn name(&self) -> &'a str {
        self.table.name_at(self.word(NAME_OFF).cast_signed())
    }

    /// What the runtime calls special functions; 0 for ordinary ones. The numbers differ between releases.
    pub fn func_id(&self) -> u8 {
        self.record[FUNC_ID]
    }

    /// Whether the linker or the compiler made the function up.
    pub fn is_wrapper(&self) -> bool {
        self.table.is_wrapper(self.func_id())
    }

    /// Whether a stack ends here (`abi.FuncFlagTopFrame`).
    pub fn is_top_frame(&self) -> bool {
        self.record[FLAG] & TOP_FRAME != 0
    }

    /// Whether the function writes the stack pointer in ways that [`Function::sp_deltas`] does not tell
    /// (`abi.FuncFlagSPWrite`).
    pub fn writes_sp(&self) -> bool {
        self.record[FLAG] & SP_WRITE != 0
    }

    /// Whether the function was written in assembly (`abi.FuncFlagAsm`).
    pub fn is_asm(&self) -> bool {
        self.record[FLAG] & ASM != 0
    }

    /// Line of the `func` keyword.
    pub fn start_line(&self) -> u32 {
        self.word(START_LINE)
    }

    /// How many bytes the stack pointer is below where it was at the entry (`pcsp`), for each run of
    /// instructions. The return address is that far above the stack pointer. Ranges ascend and touch.
    pub fn sp_deltas(&self) -> impl Iterator<Item = (Range<Svma>, i32)> + use<'a> {
        let entry = self.entry().0;
        let address = move |offset: u32| Svma(entry.wrapping_add(u64::from(offset)));
        self.values(self.word(PCSP))
            .map(move |(run, delta)| (address(run.start)..address(run.end), delta))
    }

    /// Whether [`Function::name`] is `name`.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let found = self.table.names.get(self.word(NAME_OFF) as usize..);
        found.is_some_and(|n| n.starts_with(name.as_bytes()) && n.get(name.len()) == Some(&0))
    }

    /// In bytes.
    pub(super) fn size(&self) -> u32 {
        self.end - self.start
    }

    /// Which file the instruction at `offset` comes from, and which line.
    pub(super) fn source(&self, offset: u32, budget: &mut u32) -> Option<(&'a str, u32)> {
        let line = self.values(self.word(PCLN)).find_at(offset, budget)?;
        let file = self.values(self.word(PCFILE)).find_at(offset, budget);
        let name = file
            .and_then(|file| self.word(CU_OFFSET).checked_add_signed(file))
            .and_then(|index| u32_at(&self.table.units, (index as usize).checked_mul(4)?))
            .map(|at| super::string_at(&self.table.files, at as usize));
        Some((name.unwrap_or(""), u32::try_from(line).unwrap_or(0)))
    }

    /// The value of table `index` (`abi.PCDATA_*`) for the instruction at `offset`.
    pub(super) fn pcdata(&self, index: u32, offset: u32, budget: &mut u32) -> Option<i32> {
        if index >= self.word(NPCDATA) {
            return None;
        }
        let table = u32_at(self.record, SIZE + 4 * index as usize)?;
        self.values(table).find_at(offset, budget)
    }

    /// Where datum `index` (`abi.FUNCDATA_*`) starts, counted from `moduledata.gofunc`.
    pub(super) fn funcdata(&self, index: u8) -> Option<usize> {
        if index >= self.record[NFUNCDATA] {
            return None;
        }
        let words = (self.word(NPCDATA) as usize).checked_add(usize::from(index))?;
        let offset = u32_at(self.record, words.checked_mul(4)?.checked_add(SIZE)?)?;
        (offset != u32::MAX).then_some(offset as usize)
    }

    fn values(&self, offset: u32) -> PcValues<'a> {
        PcValues::new(&self.table.values, offset, self.size())
    }

    /// A field of the record, which is known to be whole.
    fn word(&self, at: usize) -> u32 {
        u32_at(self.record, at).unwrap_or(0)
    }
}

impl fmt::Debug for Function<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name())
            .field("entry", &self.entry())
            .field("end", &self.end())
            .field("func_id", &self.func_id())
            .finish_non_exhaustive()
    }
}

/// All functions of a table; see [`Pclntab::functions`].
#[derive(Clone, Debug)]
pub struct Functions<'a> {
    table: &'a Pclntab,
    next: usize,
}

impl<'a> Functions<'a> {
    pub(super) fn new(table: &'a Pclntab) -> Self {
        Self { table, next: 0 }
    }
}

impl<'a> Iterator for Functions<'a> {
    type Item = Function<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.table.len {
            let index = self.next;
            self.next += 1;
            if let Some(function) = Function::new(self.table, index) {
                return Some(function);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.table.len - self.next))
    }
}
