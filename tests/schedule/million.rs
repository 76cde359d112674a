//! A million sites through every disturbance, each due time accounted for. How long it takes is
//! printed and decides nothing.

use std::time::Duration;

use webmon::runtime::now;
use webmon::schedule::{Advance, Due, Schedule};

use super::simulation::{DAY_MS, HOUR_MS, MINUTE_MS, START_MS, TICK_MS, World, identity, interval};

const SITES: i64 = 1_000_000;
/// Added while it runs, beside the first million.
const ADDED: i64 = 50_000;
/// Half of the sites are checked every few minutes, half every few hours.
const INTERVALS: [u32; 4] = [60, 300, 7200, 86_400];
/// How often the caller looks.
const LOOK_MS: i64 = 100;

/// One site as the ledger has it. Interval 0: not there.
#[derive(Clone, Copy, Default)]
struct Account {
    interval_ms: i64,
    /// Due times up to here are accounted for. Always on the site's lattice.
    last_ms: i64,
}

/// Schedule, clocks, and a ledger that knows no more than: the due times of a site are its lattice.
struct Million {
    schedule: Schedule,
    world: World,
    ledger: Vec<Account>,
    sites: i64,
    out: Advance,
    /// The wall clock at the look before.
    seen_ms: i64,
    /// Most due in one look, since it was last set to 0.
    most: usize,
    due: u64,
    missed: u64,
    unrecorded: u64,
    spent: Duration,
}

impl Million {
    fn new() -> Self {
        let world = World::new(START_MS + 4321);
        Self {
            schedule: Schedule::new(world.reading()),
            seen_ms: world.reading().wall_ms,
            world,
            ledger: vec![Account::default(); (SITES + ADDED + 1) as usize],
            sites: 0,
            out: Advance::default(),
            most: 0,
            due: 0,
            missed: 0,
            unrecorded: 0,
            spent: Duration::ZERO,
        }
    }

    /// Adds or changes a site.
    fn set(&mut self, id: i64, seconds: u32) {
        let reading = self.world.reading();
        let (identity, interval) = (identity(id), interval(seconds));
        let begin = now().mono;
        self.schedule.insert(id, &identity, interval, reading);
        self.spent += now().mono - begin;
        let account = &mut self.ledger[id as usize];
        self.sites += i64::from(account.interval_ms == 0);
        let interval_ms = interval.millis();
        let phase = (reading.wall_ms - identity.offset_ms(interval)).rem_euclid(interval_ms);
        *account = Account { interval_ms, last_ms: reading.wall_ms - phase };
    }

    fn remove(&mut self, id: i64) {
        assert!(self.schedule.remove(id));
        self.ledger[id as usize] = Account::default();
        self.sites -= 1;
    }

    /// Looks once, and holds what comes against the ledger.
    fn look(&mut self) {
        let reading = self.world.reading();
        let begin = now().mono;
        self.schedule.advance(reading, &mut self.out);
        self.spent += now().mono - begin;
        let mut skipped = 0;
        for Due { website_id, scheduled_ms, .. } in self.out.missed.iter().chain(&self.out.due) {
            let account = &mut self.ledger[*website_id as usize];
            let passed_ms = scheduled_ms - account.last_ms;
            // No double, nobody who was removed, nothing beside the lattice.
            assert!(
                passed_ms > 0 && passed_ms % account.interval_ms == 0,
                "site {website_id}: {scheduled_ms} after {}",
                account.last_ms
            );
            skipped += (passed_ms / account.interval_ms - 1).unsigned_abs();
            account.last_ms = *scheduled_ms;
        }
        assert_eq!(skipped, self.out.unrecorded);
        // Late by no more than passed since the look before, and never early.
        let late_most = TICK_MS + (reading.wall_ms - self.seen_ms).max(0);
        for due in &self.out.due {
            let late = reading.wall_ms - due.scheduled_ms;
            assert!((0..late_most).contains(&late), "{due:?} is late by {late}");
        }
        self.seen_ms = reading.wall_ms;
        self.most = self.most.max(self.out.due.len());
        self.due += self.out.due.len() as u64;
        self.missed += self.out.missed.len() as u64;
        self.unrecorded += skipped;
    }

    /// Time passes without anything unusual: nothing is missed, and no tenth of a second has twice
    /// its share.
    fn run(&mut self, ms: i64) {
        self.most = 0;
        for _ in 0..ms / LOOK_MS {
            self.world.run(LOOK_MS);
            self.look();
            assert_eq!((self.out.missed.len(), self.out.unrecorded), (0, 0));
            assert_eq!(self.out.step_ms, None);
        }
        let rates = self.ledger.iter().filter(|account| account.interval_ms > 0);
        let share: f64 = rates.map(|account| LOOK_MS as f64 / account.interval_ms as f64).sum();
        assert!((self.most as f64) < 2.0 * share + 10.0, "{} where {share} are usual", self.most);
        self.check_none_is_forgotten();
    }

    /// No gap is open: the next due time of each site is still to come.
    fn check_none_is_forgotten(&self) {
        assert_eq!(self.schedule.len() as i64, self.sites);
        for (id, Account { interval_ms, last_ms }) in self.ledger.iter().enumerate() {
            let is_seen = last_ms + interval_ms > self.seen_ms - TICK_MS;
            assert!(*interval_ms == 0 || is_seen, "site {id}: nothing after {last_ms}");
        }
    }

    /// The rest of the promise after a larger step back: a site whose last due time lies more than
    /// an interval ahead goes on from the new time.
    fn expect_rewind(&mut self) {
        let wall_ms = self.world.reading().wall_ms;
        for account in self.ledger.iter_mut().filter(|account| account.interval_ms > 0) {
            let ahead_ms = account.last_ms - wall_ms;
            if ahead_ms > account.interval_ms {
                account.last_ms -= (ahead_ms + account.interval_ms - 1) / account.interval_ms
                    * account.interval_ms;
            }
        }
        self.seen_ms = wall_ms;
    }

    /// One look after a disturbance. The ledger takes a site's due times in order only, so each is
    /// handed out once at most, however many passed.
    fn look_after(&mut self, what: &str) {
        let before = self.spent;
        self.look();
        assert!(self.out.due.len() as i64 <= self.sites, "{what}");
        self.check_none_is_forgotten();
        let Advance { due, missed, unrecorded, step_ms } = &self.out;
        println!(
            "{what}: {:?}; due {}, missed {}, no data {unrecorded}, step {step_ms:?}",
            self.spent - before,
            due.len(),
            missed.len()
        );
    }
}

fn seconds_of(id: i64) -> u32 {
    INTERVALS[id.unsigned_abs() as usize % INTERVALS.len()]
}

#[test]
fn a_million_sites_through_changes_wrong_clocks_and_years() {
    let mut all = Million::new();
    (1..=SITES).for_each(|id| all.set(id, seconds_of(id)));
    println!("insert: {:?} per site", all.spent / SITES as u32);
    assert!(all.schedule.memory_bytes() <= 64 * SITES as usize, "{}", all.schedule.memory_bytes());

    all.spent = Duration::ZERO;
    all.run(MINUTE_MS);
    println!("advance: {:?} per due check of {}", all.spent / all.due as u32, all.due);

    // A tenth goes, a tenth gets another interval, and some are new.
    (1..=SITES).step_by(10).for_each(|id| all.remove(id));
    (2..=SITES).step_by(10).for_each(|id| all.set(id, seconds_of(id + 1)));
    (SITES + 1..=SITES + ADDED).for_each(|id| all.set(id, seconds_of(id)));
    assert!(all.schedule.memory_bytes() <= 64 * SITES as usize);
    all.run(MINUTE_MS);

    all.world.step(1000);
    all.look_after("1 s ahead");
    assert_eq!(all.out.step_ms, Some(1000));
    all.run(MINUTE_MS / 3);
    all.world.step(-1000);
    all.look_after("1 s back");
    assert_eq!((all.out.step_ms, all.out.due.len()), (Some(-1000), 0));
    all.run(MINUTE_MS / 3);

    all.world.step(HOUR_MS);
    all.look_after("1 h ahead");
    assert_eq!(all.out.step_ms, Some(HOUR_MS));
    all.run(MINUTE_MS);
    all.world.step(-HOUR_MS);
    all.expect_rewind();
    all.look_after("1 h back");
    assert_eq!((all.out.step_ms, all.out.due.len()), (Some(-HOUR_MS), 0));
    all.run(MINUTE_MS);

    for slew_ppm in [500, -500] {
        all.world.slew_ppm = slew_ppm;
        all.run(MINUTE_MS / 2);
    }
    all.world.slew_ppm = 0;
    all.world.suspend(3 * MINUTE_MS + 77, true);
    all.look_after("suspended for 3 min");
    all.run(MINUTE_MS / 3);
    all.world.run(7_000);
    all.look_after("held up for 7 s");
    assert_eq!((all.out.missed.len(), all.out.unrecorded), (0, 0));
    all.run(MINUTE_MS / 3);

    // Three years unseen: what is not handed out is missed, or counted as no data.
    let before = all.due + all.missed + all.unrecorded;
    let sum = |all: &Million| {
        let there = all.ledger.iter().filter(|account| account.interval_ms > 0);
        there.map(|account| account.last_ms / account.interval_ms).sum::<i64>()
    };
    let expected = sum(&all);
    all.world.run(3 * 365 * DAY_MS + 12_345_678);
    all.look_after("held up for three years");
    let counted = all.due + all.missed + all.unrecorded - before;
    assert_eq!(counted as i64, sum(&all) - expected);

    // And two years without a gap: a few hundred stay, checked every hour or day.
    (1..=SITES).filter(|id| id % 10 != 1 && id % 2000 != 4).for_each(|id| all.remove(id));
    (SITES + 1..=SITES + ADDED).for_each(|id| all.remove(id));
    (4..=SITES).step_by(2000).for_each(|id| all.set(id, if id < 40_000 { 3600 } else { 86_400 }));
    assert_eq!(all.sites, 500);
    let (begin_ms, before) = (all.seen_ms, all.due);
    while all.seen_ms < begin_ms + 2 * 365 * DAY_MS {
        all.world.run(HOUR_MS / 2);
        all.look();
        assert_eq!((all.out.missed.len(), all.out.unrecorded), (0, 0));
    }
    all.check_none_is_forgotten();
    // 20 sites 24 times a day and 480 once; each may have one more or less at the ends.
    let due = all.due - before;
    assert!(due.abs_diff((20 * 24 + 480) * 730) <= 1000, "{due}");
    println!("{} due, {} missed, {} no data", all.due, all.missed, all.unrecorded);
}
