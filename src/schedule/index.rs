//! From a site's id to its slot, in 4 bytes per entry.
//!
//! An open-addressed table of slot numbers: the id itself stands in the slot, so the table needn't
//! repeat it (a `HashMap<i64, u32>` takes 17 bytes per bucket). Collisions go to the next place;
//! a removal moves later entries back, so there are no tombstones and look-ups never get slower.
//!
//! Invariants: the table's length is 0 or a power of two; at least a quarter of it is empty, so
//! every search ends; between an entry's home and its place no place is empty.

use super::wheel::{NONE, Slot};

/// Smallest table.
const LENGTH_MIN: usize = 16;

/// The table. Every call gets the slots it points into.
#[derive(Debug, Default)]
pub(super) struct Index {
    table: Vec<u32>,
    len: usize,
}

impl Index {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.table.capacity() * size_of::<u32>()
    }

    /// The slot of `website_id`.
    pub(super) fn find(&self, website_id: i64, slots: &[Slot]) -> Option<u32> {
        self.place_of(website_id, slots).map(|place| self.table[place])
    }

    /// Adds the slot `key`, whose id isn't there yet.
    pub(super) fn insert(&mut self, key: u32, slots: &[Slot]) {
        if (self.len + 1) * 4 > self.table.len() * 3 {
            let length = (self.table.len() * 2).max(LENGTH_MIN);
            let old = std::mem::replace(&mut self.table, vec![NONE; length]);
            for key in old.into_iter().filter(|key| *key != NONE) {
                self.put(key, slots);
            }
        }
        self.put(key, slots);
        self.len += 1;
    }

    /// Takes the entry of `website_id` out.
    pub(super) fn remove(&mut self, website_id: i64, slots: &[Slot]) -> Option<u32> {
        let mut gap = self.place_of(website_id, slots)?;
        let removed = self.table[gap];
        let mask = self.table.len() - 1;
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let key = self.table[place];
            if key == NONE {
                break;
            }
            // An entry may fill the gap if that is no further back than its home.
            let home = self.home(slots[key as usize].website_id);
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(gap) & mask {
                self.table[gap] = key;
                gap = place;
            }
        }
        self.table[gap] = NONE;
        self.len -= 1;
        Some(removed)
    }

    fn place_of(&self, website_id: i64, slots: &[Slot]) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let mut place = self.home(website_id);
        loop {
            match self.table[place] {
                NONE => return None,
                key if slots[key as usize].website_id == website_id => return Some(place),
                _ => place = (place + 1) & (self.table.len() - 1),
            }
        }
    }

    fn put(&mut self, key: u32, slots: &[Slot]) {
        let mut place = self.home(slots[key as usize].website_id);
        while self.table[place] != NONE {
            place = (place + 1) & (self.table.len() - 1);
        }
        self.table[place] = key;
    }

    /// Where an id belongs. Fibonacci hashing: ids come from a sequence in our own table, and it
    /// spreads sequences evenly.
    fn home(&self, website_id: i64) -> usize {
        let hash = website_id.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> (64 - self.table.len().trailing_zeros())) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    use super::*;

    #[test]
    fn agrees_with_a_map_through_inserts_and_removals() {
        let mut slots: Vec<Slot> = Vec::new();
        let (mut index, mut map) = (Index::default(), BTreeMap::new());
        let mut random = 88_172_645_463_325_252_u64;
        for _ in 0..40_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Few distinct ids, some negative, so that most exist and collide.
            let id = (random >> 40) as i64 % 700 - 50;
            if random & 1 == 0 {
                assert_eq!(index.remove(id, &slots), map.remove(&id));
            } else if let Entry::Vacant(entry) = map.entry(id) {
                let key = slots.len() as u32;
                slots.push(Slot { website_id: id, ..Slot::FREE });
                index.insert(key, &slots);
                entry.insert(key);
            }
            assert_eq!(index.len(), map.len());
            assert_eq!(index.find(id, &slots), map.get(&id).copied());
        }
        for id in -50..650 {
            assert_eq!(index.find(id, &slots), map.get(&id).copied(), "{id}");
        }
    }
}
