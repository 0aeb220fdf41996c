//! Who has which part of a table: first fit over a list of free ranges.

use std::collections::BTreeMap;

/// The free ranges of something with a fixed number of places.
#[derive(Debug)]
pub struct Space {
    /// Start → length; never adjacent, never empty.
    free: BTreeMap<usize, usize>,
    used: usize,
}

impl Space {
    /// All of `len` places are free.
    pub fn new(len: usize) -> Self {
        Self {
            free: if len == 0 {
                BTreeMap::new()
            } else {
                BTreeMap::from([(0, len)])
            },
            used: 0,
        }
    }

    /// How many places are taken.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Takes `len` places; `None` if no free range is that long.
    pub fn take(&mut self, len: usize) -> Option<usize> {
        let (&start, &found) = self.free.iter().find(|&(_, &free)| free >= len)?;
        self.free.remove(&start);
        if found > len {
            self.free.insert(start + len, found - len);
        }
        self.used += len;
        Some(start)
    }

    /// Gives back what [`Space::take`] gave for the same `len`.
    pub fn give_back(&mut self, mut start: usize, mut len: usize) {
        if len == 0 {
            return;
        }
        self.used -= len;
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.free.remove(&before);
            (start, len) = (before, before_len + len);
        }
        if let Some(after_len) = self.free.remove(&(start + len)) {
            len += after_len;
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::Space;

    #[test]
    fn what_was_given_back_is_whole_again() {
        let mut space = Space::new(100);
        let a = space.take(30).expect("room");
        let b = space.take(30).expect("room");
        let c = space.take(40).expect("room");
        assert_eq!((a, b, c), (0, 30, 60));
        assert_eq!((space.take(1), space.used()), (None, 100));
        for (start, len) in [(a, 30), (c, 40), (b, 30)] {
            space.give_back(start, len);
        }
        assert_eq!(space.used(), 0);
        assert_eq!(space.take(100), Some(0));
    }

    #[test]
    fn nothing_has_no_places() {
        assert_eq!(Space::new(0).take(1), None);
    }
}
