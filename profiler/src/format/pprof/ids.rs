//! Entries by the ids that a file gives them.

use foldhash::{HashMap, HashMapExt};

/// Entries with the ids of a file. Writers number entries one after the other, so most ids lead to their entry
/// without hashing; any others will do too.
#[derive(Debug)]
pub(super) struct ById<T> {
    entries: Vec<T>,
    /// The id of the first entry; those behind it have the next ones until one is out of turn.
    first: u64,
    /// Slots of the entry that is out of turn and all behind it.
    others: HashMap<u64, usize>,
}

impl<T> Default for ById<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            first: 0,
            others: HashMap::new(),
        }
    }
}

impl<T> ById<T> {
    /// Adds an entry; false if there is one with that id.
    pub(super) fn insert(&mut self, id: u64, entry: T) -> bool {
        if self.slot(id).is_some() {
            return false;
        }
        let slot = self.entries.len();
        if slot == 0 {
            self.first = id;
        }
        if !self.others.is_empty() || id.wrapping_sub(self.first) != slot as u64 {
            self.others.insert(id, slot);
        }
        self.entries.push(entry);
        true
    }

    /// How many entries came before the one with this id.
    pub(super) fn slot(&self, id: u64) -> Option<usize> {
        let in_turn = self.entries.len() - self.others.len();
        match id.wrapping_sub(self.first) {
            at if at < in_turn as u64 => Some(at as usize),
            _ => self.others.get(&id).copied(),
        }
    }

    /// The entry with this id.
    pub(super) fn get(&self, id: u64) -> Option<&T> {
        self.slot(id).map(|slot| &self.entries[slot])
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::ById;

    #[test]
    fn entries_are_found_in_whatever_order_their_ids_come() {
        for ids in [
            &[1, 2, 3, 4][..],
            &[7, 8, 9],
            &[0, 1],
            &[3, 1, 2, 4],
            &[1, 3, 2, 4, u64::MAX],
            &[u64::MAX, 0, 1],
            &[5],
        ] {
            let mut entries = ById::default();
            for &id in ids {
                assert!(entries.insert(id, id), "{ids:?}");
            }
            for (slot, &id) in ids.iter().enumerate() {
                assert_eq!((entries.get(id), entries.slot(id)), (Some(&id), Some(slot)));
                assert!(!entries.insert(id, id), "{ids:?}");
            }
            assert_eq!(entries.get(77), None);
            assert_eq!(entries.len(), ids.len());
        }
    }
}
