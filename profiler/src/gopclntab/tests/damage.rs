//! What a hostile object can do: nothing but be refused or give wrong answers, in bounded time.

use crate::addr::Svma;
use crate::gopclntab::fixtures::{Build, FORMS};
use crate::gopclntab::locate::MAGIC;
use crate::gopclntab::{Error, Pclntab};
use crate::words::{u32_at, u64_at};
use bytes::Bytes;
use std::ops::Range;

/// Functions that are left in the table, so that thousands of variants can be walked whole.
const FUNCTIONS: usize = 40;

/// A program, and where in the file are the parts of its table that are in use.
struct Subject {
    file: Vec<u8>,
    header: usize,
    moduledata: usize,
    /// Records of functions, program counter tables, inline trees.
    tables: Vec<Range<usize>>,
    /// Where the sizes of segments in the file are stated.
    segment_sizes: Vec<usize>,
}

fn find(file: &[u8]) -> Result<Option<Pclntab>, Error> {
    let data = Bytes::copy_from_slice(file);
    match object::File::parse(&*data) {
        Ok(object) => Pclntab::find(&object, &data),
        Err(_) => Ok(None),
    }
}

fn put(file: &mut [u8], at: usize, word: u64) {
    file[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

/// An executable of the fixtures is not relocated and keeps addresses and offsets of a segment in step.
fn subject() -> Subject {
    let stripped = FORMS
        .into_iter()
        .find(|form| form.mode == "exe" && form.is_stripped());
    let build: Build = stripped.expect("a stripped executable");
    let mut file = build.bytes().to_vec();
    let (phoff, phnum) = (
        u64_at(&file, 0x20).expect("e_phoff") as usize,
        usize::from(file[0x38]),
    );
    let segments = (0..phnum)
        .map(|i| phoff + 56 * i)
        .filter(|&at| u32_at(&file, at) == Some(1));
    let segments: Vec<_> = segments
        .map(|at| [8, 16, 32].map(|field| u64_at(&file, at + field).expect("a program header") as usize))
        .collect();
    let segment_sizes = (0..phnum).map(|i| phoff + 56 * i + 32).collect();
    let offset_of = |address: u64| {
        let [offset, start, _] = *segments
            .iter()
            .find(|[_, start, size]| (*start..start + size).contains(&(address as usize)))
            .expect("a segment");
        offset + address as usize - start
    };
    let address_of = |at: usize| {
        let [offset, start, _] = *segments
            .iter()
            .find(|[offset, _, size]| (*offset..offset + size).contains(&at))
            .expect("a segment");
        (start + at - offset) as u64
    };

    let magic = [&MAGIC.to_le_bytes()[..], &[0, 0, 1, 8]].concat();
    let header = file
        .windows(8)
        .position(|window| window == magic)
        .expect("a header");
    let pointer = address_of(header).to_le_bytes();
    let moduledata = (0..file.len() - 8)
        .step_by(8)
        .find(|&at| file[at..at + 8] == pointer && u64_at(&file, at + 8) > Some(0x40_0000))
        .expect("a moduledata");

    let field = |file: &[u8], at: usize| u64_at(file, moduledata + at).expect("a field");
    let (values, records) = (offset_of(field(&file, 80)), offset_of(field(&file, 104)));
    let whole = find(&file).expect("no error").expect("a table");
    let trees = offset_of_bytes(&file, &whole.trees);
    let end_of_records = u32_at(&file, records + 8 * FUNCTIONS + 4).expect("an entry") as usize;
    let end_of_text =
        field(&file, 176) + u64::from(u32_at(&file, records + 8 * FUNCTIONS).expect("an entry"));
    put(&mut file, header + 8, FUNCTIONS as u64);
    put(&mut file, moduledata + 136, FUNCTIONS as u64 + 1);
    put(&mut file, moduledata + 168, end_of_text);
    let first_record = u32_at(&file, records + 4).expect("an entry") as usize;
    Subject {
        file,
        header,
        moduledata,
        tables: vec![
            records..records + 8 * FUNCTIONS + 4,
            records + first_record..records + end_of_records,
            values..values + 4096,
            trees..trees + 4096,
        ],
        segment_sizes,
    }
}

fn offset_of_bytes(file: &[u8], part: &[u8]) -> usize {
    let probe = &part[..256];
    file.windows(256)
        .position(|window| window == probe)
        .expect("the part is in the file")
}

/// Uses everything that a table offers. Returns how many functions and runs there were.
fn walk(table: &Pclntab) -> (usize, u64) {
    let text = table.text_range();
    let (mut functions, mut runs) = (0, 0);
    for function in table.functions() {
        functions += 1;
        let mut end = function.entry();
        for (run, _) in function.sp_deltas() {
            assert!(run.start == end && run.end > run.start && run.end <= function.end());
            end = run.end;
            runs += 1;
        }
        assert!(text.start <= function.entry() && function.end() <= text.end);
        let middle = function.entry().0.midpoint(function.end().0);
        for pc in [function.entry().0, middle, function.end().0.wrapping_sub(1)] {
            let stack = table.inline_stack(Svma(pc));
            assert!(stack.len() <= 1000);
        }
        assert!(function.name().len() <= 1 << 17);
    }
    // Each run has an instruction of its own.
    assert!(runs <= text.end.0 - text.start.0);
    (functions, runs)
}

/// A sequence that is the same in every run (Knuth's MMIX multiplier).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn a_shortened_table_is_still_a_table() {
    let subject = subject();
    let table = find(&subject.file).expect("no error").expect("a table");
    let (functions, runs) = walk(&table);
    assert!(functions == FUNCTIONS && runs > 100 && table.has_inline_trees());
}

#[test]
fn flipped_bits_neither_panic_nor_add_work() {
    let subject = subject();
    let mut numbers = Numbers(1);
    let small = [
        subject.header..subject.header + 72,
        subject.moduledata..subject.moduledata + 560,
    ];
    let places: Vec<_> = small.into_iter().chain(subject.tables).collect();
    let mut file = subject.file;
    let (mut refused, mut walked) = (0, 0);
    for _ in 0..6000 {
        let mut undo = Vec::new();
        for _ in 0..1 + numbers.below(4) {
            let place = places[numbers.below(places.len())].clone();
            let at = place.start + numbers.below(place.len());
            undo.push((at, file[at]));
            file[at] ^= match numbers.below(3) {
                0 => 0xff,
                _ => 1 << numbers.below(8),
            };
        }
        match find(&file) {
            Ok(Some(table)) => {
                walk(&table);
                walked += 1;
            }
            Ok(None) | Err(_) => refused += 1,
        }
        for (at, byte) in undo.into_iter().rev() {
            file[at] = byte;
        }
    }
    assert!(
        refused > 500 && walked > 500,
        "{refused} refused, {walked} walked"
    );
}

#[test]
fn segments_that_end_early_are_refused_or_walked() {
    let subject = subject();
    let mut file = subject.file;
    let mut numbers = Numbers(2);
    for &at in &subject.segment_sizes {
        let size = u64_at(&file, at).expect("a program header");
        for _ in 0..200 {
            put(&mut file, at, numbers.below(size as usize + 1) as u64);
            if let Ok(Some(table)) = find(&file) {
                walk(&table);
            }
        }
        put(&mut file, at, size);
    }
}

#[test]
fn truncated_files_are_refused_or_walked() {
    let subject = subject();
    // Without section headers, which come last, a truncated file is still an ELF file.
    let mut file = subject.file;
    put(&mut file, 0x28, 0);
    file[0x3a..0x40].fill(0);
    assert!(find(&file).expect("no error").is_some());
    let mut numbers = Numbers(3);
    for _ in 0..500 {
        let len = numbers.below(file.len());
        if let Ok(Some(table)) = find(&file[..len]) {
            walk(&table);
        }
    }
}

#[test]
fn an_older_format_is_named() {
    let subject = subject();
    let mut file = subject.file;
    file[subject.header] = 0xf0;
    let error = find(&file).expect_err("Go 1.18 is too old");
    assert_eq!(error, Error::Format { magic: 0xffff_fff0 });
}

#[test]
fn a_table_without_moduledata_is_an_error() {
    let subject = subject();
    let mut file = subject.file;
    put(&mut file, subject.moduledata, 0);
    assert!(matches!(find(&file), Err(Error::NoModuledata { .. })));
}

#[test]
fn functions_out_of_order_are_an_error() {
    let subject = subject();
    let mut file = subject.file;
    let ftab = subject.tables[0].start;
    file.copy_within(ftab + 8 * 9..ftab + 8 * 9 + 4, ftab + 8 * 3);
    assert!(matches!(find(&file), Err(Error::Damaged(_))));
}
