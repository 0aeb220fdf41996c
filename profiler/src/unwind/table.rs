//! Rows in the form that the BPF program reads: see [`profiler_abi::table`].

use profiler_abi::rule::Rule;
use profiler_abi::table::{BLOCK_INDEX_LEN, BLOCK_SHIFT, REGION_SHIFT};

use super::rows::Rows;

/// The most regions of one object: 4 GiB of code.
const MAX_REGIONS: usize = 1 << 16;

/// The most rows of one region: the block index counts them in 16 bits.
const MAX_ROWS: usize = u16::MAX as usize;

/// Bytes of code in a region.
const REGION_LEN: u64 = 1 << REGION_SHIFT;

/// Encodes the rows of an object as tables of regions: number of the region (an address shifted by
/// [`REGION_SHIFT`]) and its bytes, in ascending order. Regions in which no rule is in force are left out.
///
/// Code above 2^48, or beyond the first 4 GiB that have rules, gets none: no object has any.
pub fn encode(rows: &Rows) -> Vec<(u32, Vec<u8>)> {
    let mut regions = Vec::new();
    let mut open: Option<Region> = None;
    let rows = rows.as_slice();
    for (row, next) in rows.iter().zip(rows.iter().skip(1)) {
        let (mut start, end) = (row.start.0, next.start.0);
        while row.rule != Rule::NONE && start < end {
            let Ok(number) = u32::try_from(start >> REGION_SHIFT) else {
                break;
            };
            if open.as_ref().is_none_or(|region| region.number != number) {
                regions.extend(open.take().map(Region::encode));
                if regions.len() == MAX_REGIONS {
                    return regions;
                }
            }
            let region = open.get_or_insert_with(|| Region::new(number));
            let low = start % REGION_LEN;
            let len = (end - start).min(REGION_LEN - low);
            region.push(low as u32, (low + len) as u32, row.rule);
            start += len;
        }
    }
    regions.extend(open.map(Region::encode));
    regions
}

/// The rows of one region, in ascending order. They cover it from its start to `end`.
struct Region {
    number: u32,
    starts: Vec<u16>,
    rules: Vec<Rule>,
    end: u32,
}

impl Region {
    fn new(number: u32) -> Self {
        Self {
            number,
            starts: Vec::new(),
            rules: Vec::new(),
            end: 0,
        }
    }

    /// Adds a rule for addresses whose low 16 bits are in `start..end`.
    fn push(&mut self, start: u32, end: u32, rule: Rule) {
        if self.end < start {
            self.row(self.end, Rule::NONE);
        }
        self.row(start, rule);
        self.end = end;
    }

    fn row(&mut self, start: u32, rule: Rule) {
        self.starts.push(start as u16);
        self.rules.push(rule);
    }

    fn encode(mut self) -> (u32, Vec<u8>) {
        if u64::from(self.end) < REGION_LEN {
            self.row(self.end, Rule::NONE);
        }
        if self.starts.len() > MAX_ROWS {
            self.starts.truncate(MAX_ROWS);
            self.rules.truncate(MAX_ROWS);
            // Not the last rule for all the rest: no rule is better than a wrong one.
            self.rules[MAX_ROWS - 1] = Rule::NONE;
        }
        let n = self.starts.len();
        let mut bytes = Vec::with_capacity((BLOCK_INDEX_LEN + n + 1) * 2 + n * 4);
        let mut before = 0;
        for block in 0..BLOCK_INDEX_LEN {
            let block_start = block << BLOCK_SHIFT;
            while self
                .starts
                .get(before)
                .is_some_and(|&start| usize::from(start) < block_start)
            {
                before += 1;
            }
            bytes.extend((before as u16).to_le_bytes());
        }
        for start in &self.starts {
            bytes.extend(start.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        for rule in &self.rules {
            bytes.extend(rule.0.to_le_bytes());
        }
        (self.number, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_ROWS, encode};
    use crate::addr::Svma;
    use crate::unwind::testing::{Random, rows_from};
    use profiler_abi::rule::Rule;
    use profiler_abi::table::BLOCK_INDEX_LEN;

    fn word(bytes: &[u8], index: usize) -> usize {
        u16::from_le_bytes(bytes[index * 2..][..2].try_into().unwrap()).into()
    }

    /// The look-up as profiler_abi::table describes it.
    fn lookup(bytes: &[u8], low: u16) -> Rule {
        let n = word(bytes, BLOCK_INDEX_LEN - 1);
        let block = usize::from(low >> 8);
        let (first, end) = (word(bytes, block), word(bytes, block + 1));
        let started = (first..end)
            .take_while(|&i| word(bytes, BLOCK_INDEX_LEN + i) <= low.into())
            .count();
        let row = first + started - 1;
        let rules = ((BLOCK_INDEX_LEN + n) * 2).next_multiple_of(4);
        Rule(u32::from_le_bytes(
            bytes[rules + row * 4..][..4].try_into().unwrap(),
        ))
    }

    #[test]
    fn every_address_finds_the_rule_of_a_naive_search() {
        let mut random = Random::new(1);
        for round in 0..10 {
            let mut ranges = Vec::new();
            let mut address = random.below(1 << 17);
            // From sparse (rules over many regions) to one rule per byte.
            let step = [40_000, 3_000, 200, 20, 2][round % 5];
            while ranges.is_empty() || address < 0x2_8000 && ranges.len() < 20_000 {
                let end = address + 1 + random.below(step);
                ranges.push((address..end, Rule(random.below(4) as u32 * 8 + 1)));
                address = end
                    + if random.below(4) == 0 {
                        random.below(step * 4)
                    } else {
                        0
                    };
            }
            let rows = rows_from(&ranges);
            let regions = encode(&rows);
            assert!(regions.is_sorted_by(|a, b| a.0 < b.0), "round {round}");
            let last = ranges.last().unwrap().0.end >> 16;
            for number in 0..=last as u32 + 1 {
                let region = regions.iter().find(|(n, _)| *n == number);
                if let Some((_, bytes)) = region {
                    assert_eq!(word(bytes, BLOCK_INDEX_LEN), 0, "the first row starts at 0");
                }
                let mut some = false;
                for low in 0..=u16::MAX {
                    let expected = rows.rule_at(Svma(u64::from(number) << 16 | u64::from(low)));
                    some |= expected != Rule::NONE;
                    let found = region.map_or(Rule::NONE, |(_, bytes)| lookup(bytes, low));
                    assert_eq!(found, expected, "round {round}, {number:#x}:{low:04x}");
                }
                assert_eq!(some, region.is_some(), "round {round}, region {number}");
            }
        }
    }

    #[test]
    fn a_region_with_too_many_rows_loses_the_last_and_guesses_nothing() {
        let ranges: Vec<_> = (0..0x1_0000)
            .map(|a| (a..a + 1, Rule::sp(8 + 8 * (a as i64 % 7), None).unwrap()))
            .collect();
        let rows = rows_from(&ranges);
        let [(0, bytes)] = &encode(&rows)[..] else {
            panic!("one region");
        };
        for low in 0..MAX_ROWS - 1 {
            assert_eq!(lookup(bytes, low as u16), rows.rule_at(Svma(low as u64)));
        }
        assert_eq!(lookup(bytes, 0xfffe), Rule::NONE);
        assert_eq!(lookup(bytes, 0xffff), Rule::NONE);
    }

    #[test]
    fn a_hostile_range_makes_no_endless_table() {
        let all = rows_from(&[(0..u64::MAX, Rule::END)]);
        assert_eq!(encode(&all).len(), 1 << 16);
        let high = rows_from(&[(1 << 48..1 << 49, Rule::END)]);
        assert_eq!(encode(&high), []);
    }
}
