//! Where things are, by their hashes.

use hashbrown::HashTable;

/// How many parts an index has.
const PARTS: usize = 256;

/// Places by hash, in parts that grow each by itself: to move a million places at once would keep
/// all who ask waiting for as long. Nothing iterates over it, so its order decides nothing.
#[derive(Debug)]
pub(super) struct Index {
    parts: Vec<HashTable<u32>>,
    len: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { parts: vec![HashTable::new(); PARTS], len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The place with this hash for which `is_it` holds.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.parts[part(hash)].find(hash, |place| is_it(*place)).copied()
    }

    /// Adds a place that is not there. `hash_of` gives the hashes of others.
    pub(super) fn add(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        self.parts[part(hash)].insert_unique(hash, place, |place| hash_of(*place));
        self.len += 1;
    }

    /// Removes the place with this hash for which `is_it` holds.
    pub(super) fn remove(&mut self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let found = self.parts[part(hash)].find_entry(hash, |place| is_it(*place)).ok()?;
        self.len -= 1;
        Some(found.remove().0)
    }
}

/// Within a part the lowest and the highest bits count.
const fn part(hash: u64) -> usize {
    (hash >> 48) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash, as good as any.
    fn hash_of(place: u32) -> u64 {
        (u64::from(place) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    }

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let mut index = Index::new();
        (0..10_000).for_each(|place| index.add(hash_of(place), place, hash_of));
        for odd in (1..10_000).step_by(2) {
            assert_eq!(index.remove(hash_of(odd), |it| it == odd), Some(odd));
            assert_eq!(index.remove(hash_of(odd), |it| it == odd), None);
        }
        assert_eq!(index.len(), 5000);
        for place in 0..10_000 {
            let found = index.find(hash_of(place), |it| it == place);
            assert_eq!(found, Some(place).filter(|place| place % 2 == 0));
        }
    }

    #[test]
    fn no_part_holds_much_more_than_others() {
        let mut index = Index::new();
        (0..100_000).for_each(|place| index.add(hash_of(place), place, hash_of));
        let most = index.parts.iter().map(HashTable::len).max();
        assert!(most.is_some_and(|most| most < 2 * 100_000 / PARTS), "{most:?}");
    }
}
