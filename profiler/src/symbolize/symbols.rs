//! The functions that a symbol table names, as ranges that do not overlap.
//!
//! Symbols may be aliases, lie inside one another, or have no size. That is settled once, at load, so that a
//! lookup is one search by halving. Names stay in the string table until somebody asks for one.

use super::{MAX_SYMBOL, string_at};
use bytes::Bytes;
use std::cmp::Reverse;

/// A symbol as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub(super) address: u64,
    /// Size in bytes; 0 if whoever wrote the assembly did not state it.
    pub(super) size: u64,
    pub(super) name: NameAt,
    /// Not visible outside of its source file.
    pub(super) local: bool,
}

/// Where a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NameAt {
    /// Offset in the strings of the symbol table.
    Symbols(u32),
    /// Offset in the strings of the dynamic symbol table.
    Dynamic(u32),
    /// Likewise; the code is the slot that jumps to that function.
    Plt(u32),
}

/// Ranges of addresses and their names.
#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    ranges: Vec<Range>,
    strings: Bytes,
    dynamic_strings: Bytes,
}

/// Addresses whose innermost symbol has that name.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    name: NameAt,
}

/// How much of two aliases is compared.
const MAX_COMPARED: usize = 256;

impl SymbolTable {
    /// `code` are the sections with code, as start and end: symbols elsewhere are left out, and no symbol
    /// without a size goes beyond its section.
    pub(super) fn new(
        mut symbols: Vec<Symbol>,
        code: &[(u64, u64)],
        strings: Bytes,
        dynamic_strings: Bytes,
    ) -> Self {
        let mut table = Self {
            ranges: Vec::new(),
            strings,
            dynamic_strings,
        };
        symbols.retain(|symbol| section_end(code, symbol.address).is_some());
        // At one address, the largest first: what is inside of another comes after it.
        symbols.sort_unstable_by(|a, b| {
            let place = |s: &Symbol| (s.address, Reverse(s.size));
            place(a)
                .cmp(&place(b))
                .then_with(|| table.rank(a).cmp(&table.rank(b)))
        });
        symbols.dedup_by_key(|s| (s.address, s.size));
        table.ranges = flatten(&with_sizes(symbols, code));
        table
    }

    /// The name of the innermost symbol that covers the address, as the linker knows it.
    pub(super) fn lookup(&self, address: u64) -> Option<Vec<u8>> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        if address >= range.end {
            return None;
        }
        let mut name = self.name(range.name, MAX_SYMBOL).to_vec();
        if let NameAt::Plt(_) = range.name {
            name.extend_from_slice(b"@plt");
        }
        Some(name)
    }

    fn name(&self, at: NameAt, longest: usize) -> &[u8] {
        let (table, offset) = match at {
            NameAt::Symbols(offset) => (&self.strings, offset),
            NameAt::Dynamic(offset) | NameAt::Plt(offset) => (&self.dynamic_strings, offset),
        };
        string_at(table, offset.into(), longest).unwrap_or_default()
    }

    /// Of aliases, the least wins: the public one, then the one that looks least like an internal one.
    fn rank(&self, symbol: &Symbol) -> (bool, usize, usize, &[u8], NameAt) {
        let name = self.name(symbol.name, MAX_COMPARED);
        let underscores = name.iter().take_while(|&&b| b == b'_').count();
        (symbol.local, underscores, name.len(), name, symbol.name)
    }
}

/// The end of the section with code that the address is in. `code` is sorted.
fn section_end(code: &[(u64, u64)], address: u64) -> Option<u64> {
    let after = code.partition_point(|&(start, _)| start <= address);
    let &(_, end) = code.get(after.checked_sub(1)?)?;
    (address < end).then_some(end)
}

/// Drops the labels inside of functions, and lets every other symbol without a size reach to the next symbol or
/// to the end of its section. Takes and gives symbols sorted by address.
fn with_sizes(symbols: Vec<Symbol>, code: &[(u64, u64)]) -> Vec<Symbol> {
    let mut covered_until = 0;
    let mut kept: Vec<Symbol> = Vec::with_capacity(symbols.len());
    for symbol in symbols {
        if symbol.size > 0 || symbol.address >= covered_until {
            covered_until = covered_until.max(symbol.address.saturating_add(symbol.size));
            kept.push(symbol);
        }
    }
    let mut next = u64::MAX;
    for i in (0..kept.len()).rev() {
        let address = kept[i].address;
        if kept[i].size == 0 {
            let end = section_end(code, address).unwrap_or(address).min(next);
            kept[i].size = end - address;
        }
        next = address;
    }
    kept
}

/// Cuts symbols, sorted by address and the outer one first, so that each address belongs to the innermost.
fn flatten(symbols: &[Symbol]) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(symbols.len());
    let mut open: Vec<(u64, NameAt)> = Vec::new();
    let mut done_until = 0;
    let mut close_before = |start: u64, open: &mut Vec<(u64, NameAt)>| {
        while let Some(&(end, name)) = open.last() {
            let until = end.min(start);
            if done_until < until {
                ranges.push(Range {
                    start: done_until,
                    end: until,
                    name,
                });
                done_until = until;
            }
            if end > start {
                break;
            }
            open.pop();
        }
        done_until = start;
    };
    for symbol in symbols {
        close_before(symbol.address, &mut open);
        open.push((symbol.address.saturating_add(symbol.size), symbol.name));
    }
    close_before(u64::MAX, &mut open);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &[(u64, u64)] = &[(0x1000, 0x2000), (0x3000, 0x4000)];

    /// A table of `(address, size, name, local)`.
    fn table(symbols: &[(u64, u64, &str, bool)]) -> SymbolTable {
        let mut strings = vec![0];
        let symbols = symbols
            .iter()
            .map(|&(address, size, name, local)| {
                let at = NameAt::Symbols(strings.len() as u32);
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
                Symbol {
                    address,
                    size,
                    name: at,
                    local,
                }
            })
            .collect();
        SymbolTable::new(symbols, CODE, strings.into(), Bytes::new())
    }

    fn name(table: &SymbolTable, address: u64) -> Option<String> {
        Some(String::from_utf8(table.lookup(address)?).unwrap())
    }

    #[test]
    fn a_symbol_covers_its_size_and_no_more() {
        let table = table(&[(0x1010, 0x10, "f", false), (0x1040, 8, "g", false)]);
        assert_eq!(name(&table, 0x100f), None);
        assert_eq!(name(&table, 0x1010).as_deref(), Some("f"));
        assert_eq!(name(&table, 0x101f).as_deref(), Some("f"));
        assert_eq!(name(&table, 0x1020), None);
        assert_eq!(name(&table, 0x1047).as_deref(), Some("g"));
        assert_eq!(name(&table, 0x1048), None);
        assert_eq!(name(&table, u64::MAX), None);
    }

    #[test]
    fn a_symbol_without_a_size_reaches_to_the_next_one_or_to_the_end_of_its_section() {
        let table = table(&[
            (0x1010, 0, "label", true),
            (0x1100, 0, "last", true),
            (0x3000, 4, "f", false),
        ]);
        assert_eq!(name(&table, 0x10ff).as_deref(), Some("label"));
        assert_eq!(name(&table, 0x1fff).as_deref(), Some("last"));
        assert_eq!(name(&table, 0x2000), None);
    }

    #[test]
    fn a_label_inside_a_function_does_not_hide_it() {
        let table = table(&[
            (0x1000, 0x100, "f", false),
            (0x1040, 0, "loop", false),
            (0x1000, 0, "start", false),
        ]);
        assert_eq!(name(&table, 0x1000).as_deref(), Some("f"));
        assert_eq!(name(&table, 0x1050).as_deref(), Some("f"));
    }

    #[test]
    fn a_function_inside_a_function_hides_it_only_there() {
        let table = table(&[(0x1000, 0x100, "outer", false), (0x1040, 0x10, "inner", true)]);
        assert_eq!(name(&table, 0x103f).as_deref(), Some("outer"));
        assert_eq!(name(&table, 0x1040).as_deref(), Some("inner"));
        assert_eq!(name(&table, 0x1050).as_deref(), Some("outer"));
        assert_eq!(name(&table, 0x10ff).as_deref(), Some("outer"));
    }

    #[test]
    fn functions_that_overlap_share_no_address() {
        let table = table(&[
            (0x1000, 0x20, "a", false),
            (0x1010, 0x20, "b", false),
            (0x1038, 8, "c", false),
        ]);
        assert_eq!(name(&table, 0x100f).as_deref(), Some("a"));
        assert_eq!(name(&table, 0x1010).as_deref(), Some("b"));
        assert_eq!(name(&table, 0x1025).as_deref(), Some("b"));
        assert_eq!(name(&table, 0x1030), None);
        assert_eq!(name(&table, 0x1038).as_deref(), Some("c"));
    }

    #[test]
    fn of_aliases_the_public_and_plain_one_wins_in_whatever_order_they_come() {
        let mut aliases = [
            (0x1000, 8, "open_local", true),
            (0x1000, 8, "__open64", false),
            (0x1000, 8, "open64", false),
            (0x1000, 8, "open", false),
            (0x1000, 8, "_open", false),
        ];
        for _ in 0..aliases.len() {
            aliases.rotate_left(1);
            assert_eq!(name(&table(&aliases), 0x1000).as_deref(), Some("open"));
        }
    }

    #[test]
    fn symbols_outside_of_code_are_left_out() {
        let table = table(&[(0x2800, 0x100, "data", false), (0x2000, 0, "_etext", false)]);
        assert!(table.ranges.is_empty());
    }

    #[test]
    fn sizes_that_wrap_around_end_at_the_end_of_addresses() {
        let table = table(&[(0x1000, u64::MAX, "huge", false), (0x1800, 1, "f", false)]);
        assert_eq!(name(&table, 0x1800).as_deref(), Some("f"));
        assert_eq!(name(&table, 0x1801).as_deref(), Some("huge"));
    }
}
