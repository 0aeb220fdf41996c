//! Rows of one object: which rule is in force from which address on.
//!
//! Several sources describe code (frame information of compilers, tables of the Go linker, the machine code
//! itself). Each fills a [`Layer`]; [`Rows::overlay`] puts the layers on each other.

use std::iter::Peekable;
use std::ops::Range;
use std::slice;

use profiler_abi::rule::Rule;

use crate::addr::Svma;

/// `rule` is in force from `start` to the next row's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// First address.
    pub start: Svma,
    /// How to step from there.
    pub rule: Rule,
}

/// What one source says about code, function by function.
#[derive(Debug, Default)]
pub struct Layer {
    spans: Vec<Span>,
    rows: Vec<Row>,
}

/// The rows of one function: `rows[first..first + len]`, the last of which ends at `end`.
#[derive(Debug)]
struct Span {
    start: Svma,
    end: Svma,
    first: usize,
    len: usize,
}

/// A rule and the addresses that it is in force at; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: Svma,
    end: Svma,
    rule: Rule,
}

impl Layer {
    /// A layer that is about to have so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            spans: Vec::new(),
            rows: Vec::with_capacity(rows),
        }
    }

    /// Adds a function whose code is `range`. Its rows come in ascending order; those outside the range or out of
    /// order are left out, and of two with the same start the later one counts.
    ///
    /// A range that starts within another one ends the other one: glibc's and Go's signal trampolines are said to
    /// start one byte early, in the padding that may belong to the function before.
    pub fn push(&mut self, range: Range<Svma>, rows: impl IntoIterator<Item = Row>) {
        let first = self.rows.len();
        for row in rows {
            if !range.contains(&row.start) {
                continue;
            }
            match self.rows[first..].last() {
                Some(last) if row.start < last.start => continue,
                Some(last) if row.start == last.start => {
                    self.rows.pop();
                }
                _ => {}
            }
            self.rows.push(row);
        }
        if let Some(row) = self.rows.get(first) {
            self.spans.push(Span {
                start: row.start,
                end: range.end,
                first,
                len: self.rows.len() - first,
            });
        }
    }

    /// How many functions have rows.
    pub fn functions(&self) -> usize {
        self.spans.len()
    }

    /// The pieces in ascending order, disjoint. The functions have to be in that order.
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let nexts = self.spans.iter().skip(1).map(|next| next.start);
        let ends = nexts.chain([Svma(u64::MAX)]);
        self.spans.iter().zip(ends).flat_map(|(span, next)| {
            let end = span.end.min(next);
            let rows = &self.rows[span.first..span.first + span.len];
            let ends = rows.iter().skip(1).map(|row| row.start).chain([end]);
            let pieces = rows.iter().zip(ends).map(move |(row, until)| Piece {
                start: row.start,
                end: until.min(end),
                rule: row.rule,
            });
            pieces.filter(|piece| piece.start < piece.end)
        })
    }

    fn sort(&mut self) {
        self.spans.sort_by_key(|span| span.start);
    }
}

/// The rows of an object, in ascending order. No two neighbours have the same rule; before the first row and
/// after the last (whose rule is [`Rule::NONE`]) there is no code with a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    rows: Vec<Row>,
}

impl Rows {
    /// Puts `layers` on each other: where several cover an address, the first of them counts. What lies outside
    /// `text` (the executable ranges of the object, in any order) is cut off.
    pub fn overlay(layers: impl IntoIterator<Item = Layer>, text: &[Range<Svma>]) -> Self {
        let mut layers: Vec<_> = layers.into_iter().filter(|layer| layer.functions() > 0).collect();
        layers.iter_mut().for_each(Layer::sort);
        let len = layers.iter().map(|layer| layer.rows.len()).sum();
        // One by one through all steps: an object can have millions.
        let pieces = layers
            .iter()
            .map(|layer| -> Box<dyn Iterator<Item = Piece>> { Box::new(layer.pieces()) })
            .reduce(|above, below| Box::new(Merge::new(above, below)));
        match pieces {
            Some(pieces) => Self::from_pieces(Clip::new(pieces, &disjoint(text)), len),
            None => Self::default(),
        }
    }

    /// Where no rule is in force, those of `layer` are from now on, as far as they lie inside `text`.
    pub fn fill(&mut self, mut layer: Layer, text: &[Range<Svma>]) {
        if layer.functions() == 0 {
            return;
        }
        layer.sort();
        let text = disjoint(text);
        let below = Clip::new(layer.pieces(), &text);
        let len = self.rows.len() + layer.rows.len();
        *self = Self::from_pieces(Merge::new(self.pieces(), below), len);
    }

    /// The pieces that have a rule.
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let ends = self.rows.iter().skip(1).map(|row| row.start);
        let pieces = self.rows.iter().zip(ends).map(|(row, end)| Piece {
            start: row.start,
            end,
            rule: row.rule,
        });
        pieces.filter(|piece| piece.rule != Rule::NONE)
    }

    /// The rows of some pieces, about `len`.
    fn from_pieces(pieces: impl Iterator<Item = Piece>, len: usize) -> Self {
        let mut rows = Vec::with_capacity(len);
        let mut push = |start, rule| {
            let last = rows.last().map_or(Rule::NONE, |row: &Row| row.rule);
            if rule != last {
                rows.push(Row { start, rule });
            }
        };
        let mut end = None;
        for piece in pieces {
            if let Some(end) = end.filter(|&end| end < piece.start) {
                push(end, Rule::NONE);
            }
            push(piece.start, piece.rule);
            end = Some(piece.end);
        }
        if let Some(end) = end {
            push(end, Rule::NONE);
        }
        Self { rows }
    }

    /// Marks the rules in `zones` as those of a danger zone; see [`Rule::dangerous`]. Code without rules is not marked.
    pub fn mark(&mut self, zones: &[Range<Svma>]) {
        let zones = disjoint(zones);
        if zones.is_empty() {
            return;
        }
        let mut zones = zones.iter().peekable();
        let mut marked: Vec<Row> = Vec::with_capacity(self.rows.len());
        let mut push = |start, rule| {
            if marked.last().is_none_or(|last| last.rule != rule) {
                marked.push(Row { start, rule });
            }
        };
        let ends = self.rows.iter().skip(1).map(|row| row.start);
        for (row, end) in self.rows.iter().zip(ends.chain([Svma(u64::MAX)])) {
            let mut start = row.start;
            while start < end {
                while zones.next_if(|zone| zone.end <= start).is_some() {}
                let (next, rule) = match zones.peek() {
                    _ if row.rule == Rule::NONE => (end, row.rule),
                    Some(zone) if zone.start <= start => (zone.end, row.rule.dangerous()),
                    Some(zone) => (zone.start, row.rule),
                    None => (end, row.rule),
                };
                push(start, rule);
                start = next.min(end);
            }
        }
        self.rows = marked;
    }

    /// The rows.
    pub fn as_slice(&self) -> &[Row] {
        &self.rows
    }

    /// The rule in force at an address.
    pub fn rule_at(&self, address: Svma) -> Rule {
        let after = self.rows.partition_point(|row| row.start <= address);
        match after.checked_sub(1) {
            Some(i) => self.rows[i].rule,
            None => Rule::NONE,
        }
    }

    /// The rules in force at addresses that are asked for in ascending order.
    pub fn ascending(&self) -> Ascending<'_> {
        Ascending {
            rule: Rule::NONE,
            rows: self.rows.iter().peekable(),
        }
    }

    /// How many bytes of `text` have no rule.
    pub fn bytes_without_rule(&self, text: &[Range<Svma>]) -> u64 {
        let text = disjoint(text);
        let all: u64 = text.iter().map(|range| range.end.0 - range.start.0).sum();
        let with_rule: u64 = Clip::new(self.pieces(), &text)
            .map(|piece| piece.end.0 - piece.start.0)
            .sum();
        all - with_rule
    }
}

/// See [`Rows::ascending`].
#[derive(Debug)]
pub struct Ascending<'r> {
    rule: Rule,
    rows: Peekable<slice::Iter<'r, Row>>,
}

impl Ascending<'_> {
    /// The rule in force at an address, which is none before the one that was last asked for.
    pub fn rule_at(&mut self, address: Svma) -> Rule {
        while let Some(row) = self.rows.next_if(|row| row.start <= address) {
            self.rule = row.rule;
        }
        self.rule
    }
}

/// The ranges in ascending order, without empty ones, overlaps cut.
fn disjoint(ranges: &[Range<Svma>]) -> Vec<Range<Svma>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut end = Svma(0);
    sorted.retain_mut(|range| {
        range.start = range.start.max(end);
        end = end.max(range.end);
        range.start < range.end
    });
    sorted
}

/// The pieces of `above`, and those of `below` where `above` has nothing; both in ascending order and disjoint.
struct Merge<A: Iterator<Item = Piece>, B> {
    above: Peekable<A>,
    below: B,
    /// What is left of the piece of `below` that it is at.
    rest: Option<Piece>,
}

impl<A: Iterator<Item = Piece>, B: Iterator<Item = Piece>> Merge<A, B> {
    fn new(above: A, below: B) -> Self {
        Self {
            above: above.peekable(),
            below,
            rest: None,
        }
    }
}

impl<A: Iterator<Item = Piece>, B: Iterator<Item = Piece>> Iterator for Merge<A, B> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while let Some(piece) = self.rest.take().or_else(|| self.below.next()) {
            let Some(&over) = self.above.peek().filter(|over| over.start < piece.end) else {
                return Some(piece);
            };
            if piece.start < over.start {
                self.rest = Some(Piece {
                    start: over.start,
                    ..piece
                });
                return Some(Piece {
                    end: over.start,
                    ..piece
                });
            }
            if over.end < piece.end {
                self.rest = Some(Piece {
                    start: piece.start.max(over.end),
                    ..piece
                });
                return self.above.next();
            }
            // Covered; and so may be what comes after it.
        }
        self.above.next()
    }
}

/// What of pieces lies in ranges; both in ascending order and disjoint.
struct Clip<'r, P> {
    pieces: P,
    ranges: &'r [Range<Svma>],
    /// A piece that may go on in the next range.
    rest: Option<Piece>,
}

impl<'r, P: Iterator<Item = Piece>> Clip<'r, P> {
    fn new(pieces: P, ranges: &'r [Range<Svma>]) -> Self {
        Self {
            pieces,
            ranges,
            rest: None,
        }
    }
}

impl<P: Iterator<Item = Piece>> Iterator for Clip<'_, P> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while let Some((range, ranges)) = self.ranges.split_first() {
            let piece = self.rest.take().or_else(|| self.pieces.next())?;
            if piece.end > range.end {
                self.rest = Some(piece);
                self.ranges = ranges;
            }
            let start = piece.start.max(range.start);
            let end = piece.end.min(range.end);
            if start < end {
                return Some(Piece { start, end, ..piece });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Layer, Row, Rows};
    use crate::addr::Svma;
    use crate::unwind::testing::{Random, layer_from, rows_from};
    use profiler_abi::rule::Rule;
    use std::ops::Range;

    const A: Rule = Rule(1 << 8 | 1);
    const B: Rule = Rule(2 << 8 | 1);
    const C: Rule = Rule(3 << 8 | 1);

    fn row(start: u64, rule: Rule) -> Row {
        Row {
            start: Svma(start),
            rule,
        }
    }

    fn range(range: Range<u64>) -> Range<Svma> {
        Svma(range.start)..Svma(range.end)
    }

    #[test]
    fn zones_cut_rows_and_leave_gaps_alone() {
        let mut rows = rows_from(&[(10..20, A), (20..30, B), (40..50, A)]);
        rows.mark(&[range(45..60), range(15..25), range(0..5), range(24..26)]);
        assert_eq!(
            rows.as_slice(),
            [
                row(10, A),
                row(15, A.dangerous()),
                row(20, B.dangerous()),
                row(26, B),
                row(30, Rule::NONE),
                row(40, A),
                row(45, A.dangerous()),
                row(50, Rule::NONE)
            ]
        );
    }

    #[test]
    fn marked_rows_are_what_a_naive_search_finds() {
        let mut random = Random::new(7);
        for round in 0..200 {
            let mut ranges = Vec::new();
            let mut at = 0;
            for _ in 0..random.below(20) {
                let start = at + random.below(5);
                at = start + 1 + random.below(9);
                ranges.push((start..at, [A, B, C][random.below(3) as usize]));
            }
            let zones: Vec<_> = (0..random.below(6))
                .map(|_| {
                    let start = random.below(200);
                    range(start..start + random.below(30))
                })
                .collect();
            let plain = rows_from(&ranges);
            let mut marked = plain.clone();
            marked.mark(&zones);
            for address in 0..260 {
                let rule = plain.rule_at(Svma(address));
                let in_zone = zones.iter().any(|zone| zone.contains(&Svma(address)));
                let expected = if in_zone && rule != Rule::NONE {
                    rule.dangerous()
                } else {
                    rule
                };
                assert_eq!(
                    marked.rule_at(Svma(address)),
                    expected,
                    "round {round}, {address}"
                );
            }
        }
    }

    #[test]
    fn gaps_have_no_rule_and_equal_neighbours_are_one_row() {
        let rows = rows_from(&[(10..20, A), (20..30, A), (40..50, B)]);
        assert_eq!(
            rows.as_slice(),
            [row(10, A), row(30, Rule::NONE), row(40, B), row(50, Rule::NONE)]
        );
    }

    #[test]
    fn the_first_layer_wins_also_where_it_says_that_there_is_no_rule() {
        let above = layer_from(&[(10..20, B), (20..30, Rule::NONE)]);
        let below = layer_from(&[(0..25, A), (28..40, C)]);
        let rows = Rows::overlay([above, below], &[range(0..100)]);
        assert_eq!(
            rows.as_slice(),
            [
                row(0, A),
                row(10, B),
                row(20, Rule::NONE),
                row(30, C),
                row(40, Rule::NONE)
            ]
        );
    }

    #[test]
    fn a_range_that_starts_within_another_ends_it() {
        let rows = rows_from(&[(9..20, B), (0..10, A)]);
        assert_eq!(rows.as_slice(), [row(0, A), row(9, B), row(20, Rule::NONE)]);
    }

    #[test]
    fn rows_out_of_range_or_order_are_left_out() {
        let mut layer = Layer::default();
        layer.push(
            range(10..20),
            [
                row(5, C),
                row(12, A),
                row(11, C),
                row(15, C),
                row(15, B),
                row(20, C),
            ],
        );
        assert_eq!(layer.functions(), 1);
        let rows = Rows::overlay([layer], &[range(0..100)]);
        assert_eq!(rows.as_slice(), [row(12, A), row(15, B), row(20, Rule::NONE)]);
    }

    #[test]
    fn what_lies_outside_the_text_is_cut_off() {
        let layer = layer_from(&[(0..100, A), (100..200, B)]);
        let text = [range(150..160), range(50..60), range(55..58), range(90..120)];
        let rows = Rows::overlay([layer], &text);
        assert_eq!(
            rows.as_slice(),
            [
                row(50, A),
                row(60, Rule::NONE),
                row(90, A),
                row(100, B),
                row(120, Rule::NONE),
                row(150, B),
                row(160, Rule::NONE)
            ]
        );
        assert_eq!(rows.bytes_without_rule(&text), 0);
        assert_eq!(rows.bytes_without_rule(&[range(40..100)]), 40);
    }

    #[test]
    fn what_has_no_rule_is_filled_and_nothing_else() {
        let mut rows = rows_from(&[(10..20, A), (30..40, C)]);
        rows.fill(layer_from(&[(15..35, B)]), &[range(0..100)]);
        assert_eq!(rows, rows_from(&[(10..20, A), (20..30, B), (30..40, C)]));
    }

    #[test]
    fn an_overlay_is_what_a_naive_search_finds() {
        let mut random = Random::new(7);
        for round in 0..300 {
            let layers: [Vec<(Range<u64>, Rule)>; 3] = std::array::from_fn(|_| {
                let mut address = 0;
                let mut ranges = Vec::new();
                for _ in 0..random.below(12) {
                    let start = address + random.below(12);
                    address = start + 1 + random.below(12);
                    ranges.push((start..address, [Rule::NONE, A, B, C][random.below(4) as usize]));
                }
                ranges
            });
            let text = [range(5..60), range(80..150)];
            let rows = Rows::overlay(layers.iter().map(|ranges| layer_from(ranges)), &text);
            let mut ascending = rows.ascending();
            for address in 0..300 {
                let naive = layers
                    .iter()
                    .flatten()
                    .find(|(range, _)| range.contains(&address))
                    .filter(|_| text.iter().any(|text| text.contains(&Svma(address))))
                    .map_or(Rule::NONE, |(_, rule)| *rule);
                assert_eq!(rows.rule_at(Svma(address)), naive, "round {round}, {address}");
                assert_eq!(
                    ascending.rule_at(Svma(address)),
                    naive,
                    "round {round}, {address}"
                );
            }
            assert!(rows.as_slice().is_sorted_by(|a, b| a.start < b.start));
            assert!(
                rows.as_slice()
                    .windows(2)
                    .all(|pair| pair[0].rule != pair[1].rule)
            );
        }
    }
}
