//! When which site is due: the lattice and a timer wheel, pure. Time is handed in as a
//! [`Reading`]; nothing here sleeps, and nothing fails.
//!
//! The wheel stands on the wall clock, not on the monotonic one. The due times lie there, so
//! slewing (43 s a day at the kernel's 500 ppm) needs no correction and no due time is ever early;
//! a forward step, a suspended machine and a stalled caller are all the same thing, time that
//! passed unseen; and only a step backwards, which is rare, costs a walk over all sites. The
//! monotonic clock only tells whether a step happened.
//!
//! Invariants:
//! - A site's due times lie on its lattice, and one [`Schedule::advance`] hands out at most one.
//! - No due time is handed out before its time by the wall clock of that reading, nor, while the
//!   wall clock runs without steps and the caller follows [`Schedule::sleep_ms`], more than 2 ms
//!   and the caller's own delay after it.
//! - A site's due times are strictly increasing unless the wall clock went back by more than its
//!   interval. Then the site goes on from the new time, and may repeat due times (and so ids) that
//!   it had before.
//! - Of due times that passed unseen the last is handed out, though late; the one before it is
//!   missed, since it wasn't started before its next due time; older ones are only counted.
//! - One interval after a disturbance of any kind every due time is handed out on time again.
//!
//! A site takes 32 bytes in a slot, at most 8 more of spare room, and 5 to 11 in the index from
//! ids to slots.

mod index;
pub mod lattice;
mod wheel;

use crate::check::Identity;
use crate::site::Interval;

use self::index::Index;
use self::wheel::{NONE, SLOTS_MAX, Slot, TICK_MS, Wheel, tick_of};

/// The longest sleep [`Schedule::sleep_ms`] asks for, so that clock steps are seen: 1 s.
pub const SLEEP_MAX_MS: u64 = 1000;
/// The wall clock may go back this far (a leap second, NTP's smaller steps) without a walk over
/// all sites: those whose due time has passed just wait. So a site whose interval is `i` may be
/// without a due time for 2 × `i` and this long after a step backwards, never longer.
pub const REWIND_MIN_MS: i64 = 1000;
/// Smallest step of the wall clock that is reported.
const STEP_MIN_MS: i64 = 250;
/// Of the time between two readings, this part may be slewing: twice the kernel's 500 ppm.
const SLEW_PART: i64 = 1000;
/// Slots grow by a quarter, so that at most that much is spare.
const GROWTH_PART: usize = 4;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Wall clock, ms since 1970 UTC. Times outside 1970 to 2318 count as the nearer end.
    pub wall_ms: i64,
    /// Monotonic clock, ms since an arbitrary start.
    pub mono_ms: u64,
}

/// One due time of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Due {
    /// The site's slot, as [`Schedule::insert`] returned it: small numbers, each used again only
    /// after its site was removed.
    pub key: u32,
    /// The site.
    pub website_id: i64,
    /// The due time, ms since 1970 UTC.
    pub scheduled_ms: i64,
}

/// What one [`Schedule::advance`] found. Kept by the caller, so that its memory is used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// What is due now, at most once per site, roughly in the order of time.
    pub due: Vec<Due>,
    /// Due times that passed unseen, each directly before one in `due`.
    pub missed: Vec<Due>,
    /// How many older ones passed unseen.
    pub unrecorded: u64,
    /// How far the wall clock jumped ahead (or back, below 0) of the monotonic one since the last
    /// advance, if that is more than slewing explains. A suspended machine looks like a step where
    /// its monotonic clock stands still meanwhile.
    pub step_ms: Option<i64>,
}

impl Advance {
    fn clear(&mut self) {
        self.due.clear();
        self.missed.clear();
        self.unrecorded = 0;
        self.step_ms = None;
    }
}

/// The sites and when each is due next.
#[derive(Debug)]
pub struct Schedule {
    slots: Vec<Slot>,
    /// First free slot; the others follow through `next`.
    free: u32,
    index: Index,
    wheel: Wheel,
    last: Reading,
}

impl Schedule {
    /// A schedule without sites.
    #[must_use]
    pub fn new(now: Reading) -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            index: Index::default(),
            wheel: Wheel::new(tick_of(now.wall_ms)),
            last: now,
        }
    }

    /// Adds a site, or changes it. A new or changed one is due strictly after `now`, on its
    /// (new) lattice; an unchanged one keeps its place. Returns the site's key.
    ///
    /// Advance to `now` first: due times of a changed site that passed unseen are forgotten. A
    /// site beyond 2³¹ - 1 would not be taken; it would need 64 GiB before.
    pub fn insert(
        &mut self,
        website_id: i64,
        identity: &Identity,
        interval: Interval,
        now: Reading,
    ) -> u32 {
        let interval_ms = interval.millis();
        let offset_ms = identity.offset_ms(interval);
        let mut after_ms = in_range(now.wall_ms);
        let found = self.index.find(website_id, &self.slots);
        if let Some(key) = found {
            let slot = &self.slots[key as usize];
            let old_ms = i64::from(slot.interval_ms);
            if old_ms == interval_ms && lattice::is_due_time(slot.due_ms, offset_ms, interval_ms) {
                return key;
            }
            // After a small step back the last due time still lies ahead: stay behind it.
            let last_ms = slot.due_ms - old_ms;
            if !is_stale(last_ms, interval_ms, after_ms) {
                after_ms = after_ms.max(last_ms);
            }
            self.wheel.remove(&mut self.slots, key);
        }
        let Some(key) = found.or_else(|| self.take_slot()) else { return NONE };
        let slot = &mut self.slots[key as usize];
        slot.website_id = website_id;
        // At most 86,400,000.
        slot.interval_ms = interval_ms as u32;
        slot.due_ms = lattice::next_due(after_ms, offset_ms, interval_ms);
        if found.is_none() {
            self.index.insert(key, &self.slots);
        }
        self.wheel.insert(&mut self.slots, key);
        key
    }

    /// Takes a site out; whether it was there.
    pub fn remove(&mut self, website_id: i64) -> bool {
        let Some(key) = self.index.remove(website_id, &self.slots) else { return false };
        self.wheel.remove(&mut self.slots, key);
        self.slots[key as usize] = Slot { next: self.free, ..Slot::FREE };
        self.free = key;
        true
    }

    /// How many sites there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no site.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything due up to `now`, into `out`, whose former content goes.
    pub fn advance(&mut self, now: Reading, out: &mut Advance) {
        out.clear();
        out.step_ms = step(self.last, now);
        self.last = now;
        let wall_ms = in_range(now.wall_ms);
        let tick = tick_of(wall_ms);
        if tick + tick_of(REWIND_MIN_MS) < self.wheel.tick() {
            self.rewind(wall_ms);
            return;
        }
        while let Some(key) = self.wheel.pop(&mut self.slots, tick) {
            let slot = &mut self.slots[key as usize];
            let interval_ms = i64::from(slot.interval_ms);
            let later = (wall_ms - slot.due_ms).max(0) / interval_ms;
            let scheduled_ms = slot.due_ms + later * interval_ms;
            slot.due_ms = scheduled_ms + interval_ms;
            let due = Due { key, website_id: slot.website_id, scheduled_ms };
            self.wheel.insert(&mut self.slots, key);
            out.due.push(due);
            if later > 0 {
                out.missed.push(Due { scheduled_ms: scheduled_ms - interval_ms, ..due });
                out.unrecorded += (later - 1).cast_unsigned();
            }
        }
    }

    /// How long the next advance will surely find nothing, in ms, at most [`SLEEP_MAX_MS`]; `None`
    /// without sites.
    #[must_use]
    pub fn sleep_ms(&self, now: Reading) -> Option<u64> {
        let due_ms = self.wheel.next_tick()?.cast_signed() * TICK_MS;
        let wait_ms = due_ms.saturating_sub(now.wall_ms).max(0).cast_unsigned();
        Some(wait_ms.min(SLEEP_MAX_MS))
    }

    /// Bytes held: at most 64 per site from a thousand sites on, while none were removed.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.index.memory_bytes()
    }

    /// A free slot, or a new one.
    fn take_slot(&mut self) -> Option<u32> {
        if self.free != NONE {
            let key = self.free;
            self.free = self.slots[key as usize].next;
            return Some(key);
        }
        let key = u32::try_from(self.slots.len()).ok().filter(|_| self.slots.len() < SLOTS_MAX)?;
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len() / GROWTH_PART + 16);
        }
        self.slots.push(Slot::FREE);
        Some(key)
    }

    /// Puts every site where it belongs after the wall clock went back to `wall_ms`.
    fn rewind(&mut self, wall_ms: i64) {
        self.wheel.reset(tick_of(wall_ms));
        for key in 0..self.slots.len() {
            let slot = &mut self.slots[key];
            if slot.interval_ms == 0 {
                continue;
            }
            let interval_ms = i64::from(slot.interval_ms);
            if is_stale(slot.due_ms - interval_ms, interval_ms, wall_ms) {
                slot.due_ms = lattice::next_due(wall_ms, slot.due_ms, interval_ms);
            }
            // There are at most 2³¹ - 1.
            self.wheel.insert(&mut self.slots, key as u32);
        }
    }
}

/// Whether a site's last due time belongs to a clock that was wrong: it lies more than one
/// interval ahead. The site doesn't wait for it, it goes on from the time now.
fn is_stale(last_ms: i64, interval_ms: i64, wall_ms: i64) -> bool {
    last_ms - wall_ms > interval_ms
}

/// `wall_ms` within what the wheel can hold, with room for two intervals at the end.
fn in_range(wall_ms: i64) -> i64 {
    /// In the year 2318, well before the wheel's own end and that of a `Timestamp`.
    const END_MS: i64 = 10_995_000_000_000;
    wall_ms.clamp(0, END_MS)
}

/// How far the wall clock jumped between two readings.
fn step(last: Reading, now: Reading) -> Option<i64> {
    let wall_ms = now.wall_ms.saturating_sub(last.wall_ms);
    let mono_ms = i64::try_from(now.mono_ms.saturating_sub(last.mono_ms)).unwrap_or(i64::MAX);
    let step_ms = wall_ms.saturating_sub(mono_ms);
    (step_ms.saturating_abs() > STEP_MIN_MS.saturating_add(mono_ms / SLEW_PART)).then_some(step_ms)
}
