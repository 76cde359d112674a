//! A hierarchical timer wheel whose lists run through the sites' own slots.
//!
//! Six levels of 256 buckets: a bucket of level 0 is one tick of 2 ms, of level 1 256 ticks
//! (0.5 s), of level 2 2.2 min, of level 3 9.3 h, of level 4 99 days, of level 5 70 years; from
//! 1970, so ticks are absolute and never wrap. An entry lies in the level of the highest base-256
//! digit in which its tick differs from the wheel's; when the wheel reaches its bucket, the entry
//! moves to a lower level (once per turn for an interval of a minute, twice for ten).
//!
//! Invariants:
//! - Between calls every entry's tick is after the wheel's tick, and every bucket of the wheel's
//!   own digits is empty.
//! - An entry's tick never begins before its due time: handing out a whole bucket is never early.
//! - A bucket's bit in `occupied` is set exactly when its list is not empty, so that empty time is
//!   skipped at a cost that doesn't depend on its length.
//! - A list's first slot has the bucket in `prev`, marked with [`HEAD`]; others the slot before.
//!   So insertion and removal touch two neighbours at most, whatever the number of entries.

/// Length of a tick in ms: as late as a due check may be handed out. Shorter ones wake the caller
/// more often at low rates.
pub(super) const TICK_MS: i64 = 2;
/// No slot.
pub(super) const NONE: u32 = u32::MAX;
/// Marks `prev` of a list's first slot: the rest is its bucket.
const HEAD: u32 = 1 << 31;
/// Most slots: what is left of 32 bits beside the mark.
pub(super) const SLOTS_MAX: usize = (HEAD - 1) as usize;

const LEVELS: usize = 6;
const DIGIT_BITS: usize = 8;
const DIGITS: usize = 1 << DIGIT_BITS;
const WORDS: usize = DIGITS / 64;
/// The last tick there is.
const TICK_MAX: u64 = (1 << (LEVELS * DIGIT_BITS)) - 1;

/// One site's state, half a cache line. A free slot has interval 0 and `next` for the free list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The site.
    pub(super) website_id: i64,
    /// Its next due time, ms on the wall clock. It lies on the lattice, so that the offset is its
    /// remainder and needn't be kept.
    pub(super) due_ms: i64,
    /// Its interval; at most 86,400,000.
    pub(super) interval_ms: u32,
    pub(super) prev: u32,
    pub(super) next: u32,
}

// 32 here, a quarter more of spare room at most, and 5 to 11 bytes of index: see `Schedule`.
const _: () = assert!(size_of::<Slot>() == 32);

impl Slot {
    /// A slot without a site.
    pub(super) const FREE: Self =
        Self { website_id: 0, due_ms: 0, interval_ms: 0, prev: NONE, next: NONE };
}

/// The tick in which `wall_ms` lies.
pub(super) fn tick_of(wall_ms: i64) -> u64 {
    (wall_ms.max(0) / TICK_MS).cast_unsigned().min(TICK_MAX)
}

/// The first tick that doesn't begin before `due_ms`.
fn tick_after(due_ms: i64) -> u64 {
    tick_of(due_ms.saturating_add(TICK_MS - 1))
}

/// The wheel. Every call gets the slots it runs through.
#[derive(Debug)]
pub(super) struct Wheel {
    tick: u64,
    occupied: [[u64; WORDS]; LEVELS],
    heads: Box<[u32]>,
}

impl Wheel {
    /// An empty wheel that stands at `tick`.
    pub(super) fn new(tick: u64) -> Self {
        let heads = vec![NONE; LEVELS * DIGITS].into_boxed_slice();
        Self { tick, occupied: [[0; WORDS]; LEVELS], heads }
    }

    /// Forgets every entry and stands at `tick`.
    pub(super) fn reset(&mut self, tick: u64) {
        self.tick = tick;
        self.occupied = [[0; WORDS]; LEVELS];
        self.heads.fill(NONE);
    }

    /// Where the wheel stands: everything up to this tick has been handed out.
    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    /// Puts the slot `key` where its due time belongs. One that the wheel has passed is next.
    pub(super) fn insert(&mut self, slots: &mut [Slot], key: u32) {
        self.place(slots, key, self.tick + 1);
    }

    /// Takes the slot `key`, which is in the wheel, out.
    pub(super) fn remove(&mut self, slots: &mut [Slot], key: u32) {
        let Slot { prev, next, .. } = slots[key as usize];
        if next != NONE {
            slots[next as usize].prev = prev;
        }
        if prev & HEAD == 0 {
            slots[prev as usize].next = next;
            return;
        }
        let bucket = (prev & !HEAD) as usize;
        self.heads[bucket] = next;
        if next == NONE {
            self.clear_bit(bucket);
        }
    }

    /// Takes out the next slot whose tick is not after `until`, or moves to `until` when there is
    /// none. Never moves back.
    pub(super) fn pop(&mut self, slots: &mut [Slot], until: u64) -> Option<u32> {
        loop {
            let head = self.heads[digit(self.tick, 0)];
            if head != NONE {
                self.remove(slots, head);
                return Some(head);
            }
            match self.next_stop() {
                Some((tick, bucket)) if tick <= until => {
                    self.tick = tick;
                    if bucket >= DIGITS {
                        self.cascade(slots, bucket);
                    }
                }
                _ => {
                    self.tick = self.tick.max(until);
                    return None;
                }
            }
        }
    }

    /// The first tick after the wheel's at which something may happen: an entry comes out, or
    /// entries move down.
    pub(super) fn next_tick(&self) -> Option<u64> {
        self.next_stop().map(|(tick, _)| tick)
    }

    /// The first occupied bucket after the wheel's tick, and the tick at which it begins. What
    /// lies in a lower level comes before all of a higher one.
    fn next_stop(&self) -> Option<(u64, usize)> {
        (0..LEVELS).find_map(|level| {
            let found = first_after(&self.occupied[level], digit(self.tick, level))?;
            let above = self.tick >> (DIGIT_BITS * (level + 1)) << (DIGIT_BITS * (level + 1));
            Some((above | (found as u64) << (DIGIT_BITS * level), level * DIGITS + found))
        })
    }

    /// Moves the entries of `bucket`, which begins at the wheel's tick, to lower levels.
    fn cascade(&mut self, slots: &mut [Slot], bucket: usize) {
        let mut key = std::mem::replace(&mut self.heads[bucket], NONE);
        self.clear_bit(bucket);
        while key != NONE {
            let next = slots[key as usize].next;
            self.place(slots, key, self.tick);
            key = next;
        }
    }

    /// Links the slot `key` into the bucket of its tick, which is at least `earliest`.
    fn place(&mut self, slots: &mut [Slot], key: u32, earliest: u64) {
        let tick = tick_after(slots[key as usize].due_ms).max(earliest).min(TICK_MAX);
        let level = (tick ^ self.tick | 1).ilog2() as usize / DIGIT_BITS;
        let digit = digit(tick, level);
        let bucket = level * DIGITS + digit;

        let head = std::mem::replace(&mut self.heads[bucket], key);
        if head != NONE {
            slots[head as usize].prev = key;
        }
        let slot = &mut slots[key as usize];
        slot.prev = HEAD | bucket as u32;
        slot.next = head;
        self.occupied[level][digit / 64] |= 1 << (digit % 64);
    }

    fn clear_bit(&mut self, bucket: usize) {
        let (level, digit) = (bucket / DIGITS, bucket % DIGITS);
        self.occupied[level][digit / 64] &= !(1 << (digit % 64));
    }
}

/// The base-256 digit of `tick` at `level`.
fn digit(tick: u64, level: usize) -> usize {
    (tick >> (DIGIT_BITS * level)) as usize & (DIGITS - 1)
}

/// The first set bit after `bit`.
fn first_after(words: &[u64; WORDS], bit: usize) -> Option<usize> {
    let from = bit + 1;
    let mut mask = u64::MAX << (from % 64);
    for (index, word) in words.iter().enumerate().skip(from / 64) {
        let set = word & mask;
        if set != 0 {
            return Some(index * 64 + set.trailing_zeros() as usize);
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wheel at `start` with one slot per due tick.
    fn filled(start: u64, ticks: &[u64]) -> (Wheel, Vec<Slot>) {
        let mut wheel = Wheel::new(start);
        let mut slots: Vec<Slot> = ticks
            .iter()
            .map(|tick| Slot { due_ms: *tick as i64 * TICK_MS, interval_ms: 1, ..Slot::FREE })
            .collect();
        for key in 0..slots.len() {
            wheel.insert(&mut slots, key as u32);
        }
        (wheel, slots)
    }

    #[test]
    fn every_distance_comes_out_at_its_tick() {
        // Around every level's border, from a tick whose digits are all about to carry.
        let start = 0x0012_ffff_fffe_u64;
        let mut ticks: Vec<u64> =
            (0..36).flat_map(|bit| [1 << bit, (1 << bit) + 1, (1 << bit) + 255]).collect();
        ticks.iter_mut().for_each(|tick| *tick += start);
        ticks.sort_unstable();
        ticks.dedup();
        let (mut wheel, mut slots) = filled(start, &ticks);
        for tick in ticks {
            assert_eq!(wheel.pop(&mut slots, tick - 1), None);
            assert_eq!(wheel.tick(), tick - 1);
            let key = wheel.pop(&mut slots, tick).unwrap();
            assert_eq!(slots[key as usize].due_ms, tick as i64 * TICK_MS);
        }
        assert_eq!(wheel.next_tick(), None);
        assert!(wheel.occupied.iter().flatten().all(|word| *word == 0));
    }

    #[test]
    fn a_due_time_within_a_tick_waits_for_the_next() {
        assert_eq!((tick_after(100), tick_after(101), tick_after(102)), (50, 51, 51));
        assert_eq!((tick_of(101), tick_of(-5), tick_of(i64::MAX)), (50, 0, TICK_MAX));
    }

    #[test]
    fn what_the_wheel_has_passed_comes_next() {
        for start in [0xff, 0xffff, 0x1_0000] {
            let (mut wheel, mut slots) = filled(start, &[start - 5]);
            assert_eq!(wheel.pop(&mut slots, start), None);
            assert_eq!(wheel.pop(&mut slots, start + 1), Some(0));
        }
    }

    #[test]
    fn removal_from_every_place_of_a_list_leaves_the_rest() {
        for removed in 0..3_u32 {
            let (mut wheel, mut slots) = filled(1000, &[1003, 1003, 1003]);
            wheel.remove(&mut slots, removed);
            let mut left: Vec<u32> = std::iter::from_fn(|| wheel.pop(&mut slots, 1003)).collect();
            left.sort_unstable();
            let expected: Vec<u32> = (0..3).filter(|key| *key != removed).collect();
            assert_eq!(left, expected);
        }
    }

    #[test]
    fn thousands_of_empty_years_cost_nothing() {
        let (mut wheel, mut slots) = filled(0, &[TICK_MAX]);
        assert_eq!(wheel.pop(&mut slots, TICK_MAX - 1), None);
        assert_eq!(wheel.pop(&mut slots, TICK_MAX), Some(0));
    }
}
