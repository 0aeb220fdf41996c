//! The tables from program counters to values in `pctab` (`pcvalue`, `step` and `readvarint` in
//! runtime/symtab.go).
//!
//! A table is a sequence of pairs: change of the value (zig-zag), length of the run of instructions that have
//! it. The value starts at −1, and a change of 0 that is not the first ends the table.

use std::ops::Range;

/// The runs of one table, as offsets from the entry of the function.
#[derive(Clone, Debug)]
pub(super) struct PcValues<'a> {
    rest: &'a [u8],
    at: u32,
    end: u32,
    value: i32,
}

impl<'a> PcValues<'a> {
    /// The table at `offset` of `pctab`, for a function of `size` bytes. Offset 0 means that there is none.
    pub(super) fn new(pctab: &'a [u8], offset: u32, size: u32) -> Self {
        let rest = match offset {
            0 => &[],
            _ => pctab.get(offset as usize..).unwrap_or_default(),
        };
        Self {
            rest,
            at: 0,
            end: size,
            value: -1,
        }
    }

    /// The value of the instruction at `offset`. Each run that it takes to find out costs one of `budget`.
    pub(super) fn find_at(mut self, offset: u32, budget: &mut u32) -> Option<i32> {
        self.find_map(|(run, value)| match budget.checked_sub(1) {
            None => Some(None),
            Some(left) => {
                *budget = left;
                run.contains(&offset).then_some(Some(value))
            }
        })
        .flatten()
    }

    fn varint(&mut self) -> Option<u32> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        if first < 0x80 {
            return Some(u32::from(first));
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for PcValues<'_> {
    type Item = (Range<u32>, i32);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let change = self.varint()?;
        if change == 0 && self.at != 0 {
            self.rest = &[];
            return None;
        }
        // No run is empty in a sound table; this makes the size of the function bound the number of runs.
        let length = self.varint().filter(|&length| length != 0)?;
        let start = self.at;
        self.at = start.saturating_add(length).min(self.end);
        let zigzag = (change >> 1).cast_signed() ^ -(change & 1).cast_signed();
        self.value = self.value.wrapping_add(zigzag);
        Some((start..self.at, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::PcValues;

    fn runs(table: &[u8], size: u32) -> Vec<(u32, u32, i32)> {
        let pctab = [&[0], table].concat();
        PcValues::new(&pctab, 1, size)
            .map(|(run, value)| (run.start, run.end, value))
            .collect()
    }

    #[test]
    fn runs_follow_each_other_until_a_change_of_nothing() {
        // +1 for 4 bytes, +8 for 300, −8 for 2, end.
        assert_eq!(
            runs(&[2, 4, 16, 0xac, 2, 15, 2, 0, 2, 9], 400),
            [(0, 4, 0), (4, 304, 8), (304, 306, 0)]
        );
    }

    #[test]
    fn a_first_change_of_nothing_is_a_run_of_minus_one() {
        assert_eq!(runs(&[0, 3, 2, 5, 0], 8), [(0, 3, -1), (3, 8, 0)]);
    }

    #[test]
    fn runs_end_where_the_function_ends() {
        assert_eq!(runs(&[2, 4, 16, 9, 16, 9, 0], 6), [(0, 4, 0), (4, 6, 8)]);
    }

    #[test]
    fn a_table_at_offset_nought_is_none() {
        assert_eq!(PcValues::new(&[2, 4, 0], 0, 4).next(), None);
    }

    #[test]
    fn truncated_and_oversized_numbers_end_the_table() {
        assert_eq!(runs(&[2], 4), []);
        assert_eq!(runs(&[2, 0x80], 4), []);
        assert_eq!(runs(&[2, 0x80, 0x80, 0x80, 0x80, 0x80, 1], 4), []);
        assert_eq!(runs(&[2, 0, 2, 4], 4), []);
    }

    #[test]
    fn a_search_gives_up_when_its_budget_is_spent() {
        let pctab = [0, 2, 1, 2, 1, 2, 1, 0];
        let find = |budget: &mut u32| PcValues::new(&pctab, 1, 3).find_at(2, budget);
        assert_eq!(find(&mut 3), Some(2));
        assert_eq!(find(&mut 2), None);
    }
}
