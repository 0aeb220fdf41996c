//! `/tmp/perf-PID.map`: functions that a JIT compiler made, as it lists them for perf.
//!
//! A line is `START SIZE name`, both numbers hexadecimal and without `0x`; the name is the rest of the line
//! (Linux, tools/perf/Documentation/jit-interface.txt). Compilers only append: when they use memory again, the
//! later line holds.

use super::kallsyms::hexadecimal;
use super::{MAX_SYMBOL, Name, Reason};
use crate::addr::Avma;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The functions of one process that a JIT compiler made.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// By start; they do not overlap.
    functions: BTreeMap<u64, Function>,
    garbage: u64,
}

#[derive(Debug)]
struct Function {
    end: u64,
    name: Bytes,
}

impl PerfMap {
    /// Reads the text of a map. Lines that make no sense are counted and skipped: the last one is often only
    /// half written.
    pub fn parse(text: &Bytes) -> Self {
        let mut map = Self::default();
        for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            match function(line) {
                Some((start, end, name)) => map.insert(start, end, text.slice_ref(name)),
                None => map.garbage += 1,
            }
        }
        map
    }

    /// How many lines made no sense.
    pub fn garbage(&self) -> u64 {
        self.garbage
    }

    /// The function at an address.
    pub fn lookup(&self, address: Avma) -> Result<Name, Reason> {
        match self.functions.range(..=address.0).next_back() {
            Some((_, function)) if address.0 < function.end => Ok(Name::of_symbol(&function.name)),
            _ => Err(Reason::NotInPerfMap),
        }
    }

    /// Adds a function and forgets those whose memory it uses now.
    fn insert(&mut self, start: u64, end: u64, name: Bytes) {
        while let Some((&gone, _)) = self
            .functions
            .range(..end)
            .next_back()
            .filter(|(_, function)| function.end > start)
        {
            self.functions.remove(&gone);
        }
        self.functions.insert(start, Function { end, name });
    }
}

/// Start, end and name of a line.
fn function(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let mut words = line.splitn(3, |&b| b == b' ');
    let mut number = || {
        let word = words.next()?;
        hexadecimal(word.strip_prefix(b"0x").unwrap_or(word))
    };
    let (start, size) = (number()?, number()?);
    let name = words.next()?.trim_ascii();
    let end = start.checked_add(size)?;
    (size > 0 && !name.is_empty()).then_some((start, end, &name[..name.len().min(MAX_SYMBOL)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &'static str) -> PerfMap {
        PerfMap::parse(&Bytes::from(text))
    }

    fn find(map: &PerfMap, address: u64) -> Option<String> {
        map.lookup(Avma(address)).ok().map(|name| name.function)
    }

    #[test]
    fn names_are_the_rest_of_the_line() {
        let map = map("7f0000001000 20 LazyCompile:*add /srv/a b.js:3\n0x2000 0x10 py::main:/srv/x.py\n");
        assert_eq!(
            find(&map, 0x7f00_0000_101f).as_deref(),
            Some("LazyCompile:*add /srv/a b.js:3")
        );
        assert_eq!(find(&map, 0x2000).as_deref(), Some("py::main:/srv/x.py"));
        assert_eq!(map.lookup(Avma(0x2010)), Err(Reason::NotInPerfMap));
        assert_eq!(map.lookup(Avma(0)), Err(Reason::NotInPerfMap));
        assert_eq!(map.garbage(), 0);
    }

    #[test]
    fn a_later_line_replaces_all_that_it_overlaps() {
        let map = map("1000 100 a\n1100 100 b\n1200 100 c\n1300 100 d\n1180 100 new\n");
        assert_eq!(find(&map, 0x10ff).as_deref(), Some("a"));
        assert_eq!(find(&map, 0x1100), None);
        assert_eq!(find(&map, 0x1180).as_deref(), Some("new"));
        assert_eq!(find(&map, 0x127f).as_deref(), Some("new"));
        assert_eq!(find(&map, 0x1280), None);
        assert_eq!(find(&map, 0x1300).as_deref(), Some("d"));
    }

    #[test]
    fn garbage_is_counted_and_harms_nothing() {
        let map = map(
            "\n1000 10 f\nhello\n2000 zz g\n3000 0 empty\nffffffffffffffff 10 wraps\n4000 10\n4000 10 \n5000 1",
        );
        assert_eq!(map.garbage(), 7);
        assert_eq!(find(&map, 0x1000).as_deref(), Some("f"));
    }
}
