//! What the tests of several files here need.

use std::ops::Range;

use profiler_abi::rule::Rule;

use super::rows::{Layer, Row, Rows};
use crate::addr::Svma;

/// Numbers that look random and are the same in each run (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A layer with one function per range.
pub(super) fn layer_from(ranges: &[(Range<u64>, Rule)]) -> Layer {
    let mut layer = Layer::default();
    for (range, rule) in ranges {
        let start = Svma(range.start);
        layer.push(start..Svma(range.end), [Row { start, rule: *rule }]);
    }
    layer
}

/// Rows with the given rules, for all of the address space.
pub(super) fn rows_from(ranges: &[(Range<u64>, Rule)]) -> Rows {
    Rows::overlay([layer_from(ranges)], &[Svma(0)..Svma(u64::MAX)])
}
