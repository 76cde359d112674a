//! The schedule through simulated years, wrong clocks and a million sites. Time is a value here:
//! no test waits.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests too

#[path = "schedule/million.rs"]
mod million;
#[path = "schedule/simulation.rs"]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};

use simulation::{
    DAY_MS, Found, HOUR_MS, MINUTE_MS, Model, Rng, START_MS, TICK_MS, World, identity, interval,
    oracle, schedule_of,
};
use webmon::schedule::{Advance, REWIND_MIN_MS, Reading, SLEEP_MAX_MS, Schedule, lattice};

const INTERVALS: [u32; 8] = [5, 7, 30, 60, 61, 600, 3600, 86_400];

/// Runs the world as a caller would: sleeps as long as it is told, at least 1 ms.
fn follow(
    schedule: &mut Schedule,
    world: &mut World,
    ms: i64,
    mut see: impl FnMut(Reading, &Advance),
) {
    let end = world.reading().mono_ms + ms.unsigned_abs();
    let mut out = Advance::default();
    loop {
        schedule.advance(world.reading(), &mut out);
        see(world.reading(), &out);
        let left = end.saturating_sub(world.reading().mono_ms);
        if left == 0 {
            return;
        }
        let sleep = schedule.sleep_ms(world.reading()).unwrap_or(SLEEP_MAX_MS).clamp(1, left);
        world.run(sleep as i64);
    }
}

#[test]
fn a_perfect_clock_gives_exactly_the_lattice_on_time() {
    let sites: Vec<(i64, u32)> = (1..).zip(INTERVALS).collect();
    let mut world = World::new(START_MS + 4321);
    let start = world.reading().wall_ms;
    let mut schedule = schedule_of(&sites, world.reading());
    let mut seen: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    follow(&mut schedule, &mut world, 2 * DAY_MS, |now, out| {
        assert!(out.missed.is_empty() && out.unrecorded == 0 && out.step_ms.is_none());
        for due in &out.due {
            assert!((0..TICK_MS).contains(&(now.wall_ms - due.scheduled_ms)), "{now:?} {due:?}");
            seen.entry(due.website_id).or_default().push(due.scheduled_ms);
        }
    });
    let end = world.reading().wall_ms;
    for (id, seconds) in sites {
        // The last tick may have begun without being over.
        let expected: Vec<i64> = oracle(id, seconds, start, end - end % TICK_MS).collect();
        assert_eq!(seen[&id], expected, "interval {seconds} s");
    }
}

#[test]
fn five_years_of_slow_sites_are_the_lattice_whatever_the_steps() {
    let sites = [(1, 3600), (2, 5400), (3, 25_200), (4, 86_399), (5, 86_400)];
    let mut rng = Rng::new(5);
    let mut world = World::new(START_MS);
    let mut schedule = schedule_of(&sites, world.reading());
    let end = START_MS + 5 * 365 * DAY_MS;
    let (mut seen, mut out) = (Vec::new(), Advance::default());
    while world.reading().wall_ms < end {
        // Less than the shortest interval: nothing may be missed.
        world.run((1 + rng.below(HOUR_MS - 1)).min(end - world.reading().wall_ms));
        schedule.advance(world.reading(), &mut out);
        assert_eq!((out.missed.len(), out.unrecorded), (0, 0));
        seen.extend(out.due.iter().map(|due| (due.website_id, due.scheduled_ms)));
    }
    seen.sort_unstable();
    let expected: Vec<(i64, i64)> = sites
        .into_iter()
        .flat_map(|(id, seconds)| oracle(id, seconds, START_MS, end).map(move |ms| (id, ms)))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn five_years_of_stalls_account_for_every_due_time() {
    let sites: Vec<(i64, u32)> = (1..).zip(INTERVALS).collect();
    let mut rng = Rng::new(6);
    let mut world = World::new(START_MS);
    let mut schedule = schedule_of(&sites, world.reading());
    let end = START_MS + 5 * 365 * DAY_MS;
    let (mut counted, mut out) = (0, Advance::default());
    while world.reading().wall_ms < end {
        let longest = rng.pick(&[1000, MINUTE_MS, HOUR_MS, 40 * HOUR_MS]);
        world.run((1 + rng.below(longest)).min(end - world.reading().wall_ms));
        schedule.advance(world.reading(), &mut out);
        counted += (out.due.len() + out.missed.len()) as u64 + out.unrecorded;
        for missed in &out.missed {
            let next = out.due.iter().find(|due| due.key == missed.key).unwrap();
            let seconds = sites[missed.website_id as usize - 1].1;
            assert_eq!(next.scheduled_ms - missed.scheduled_ms, i64::from(seconds) * 1000);
        }
    }
    let expected: u64 = sites
        .iter()
        .map(|(id, seconds)| {
            let first = oracle(*id, *seconds, START_MS, end).next().unwrap();
            ((end - first) / (i64::from(*seconds) * 1000) + 1) as u64
        })
        .sum();
    assert_eq!(counted, expected);
}

/// One random disturbance of the clocks or of the caller; most of the time none.
fn disturb(rng: &mut Rng, world: &mut World) {
    let sign = rng.pick(&[-1, 1]);
    match rng.below(60) {
        0 => world.step(sign * 1000),
        1 => world.step(sign * rng.below(3000)),
        2 => world.step(sign * HOUR_MS),
        3 => world.step(sign * rng.below(3 * DAY_MS)),
        4 => world.suspend(rng.below(DAY_MS), rng.pick(&[true, false])),
        5 => world.slew_ppm = rng.pick(&[-500, 0, 500]),
        6 => world.run(rng.below(2 * HOUR_MS)),
        _ => {}
    }
}

#[test]
fn agrees_with_the_model_under_every_disturbance_and_change() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(START_MS + rng.below(DAY_MS));
        let mut schedule = Schedule::new(world.reading());
        let mut model = Model::new(world.reading().wall_ms);
        let mut out = Advance::default();
        for turn in 0..1500 {
            disturb(&mut rng, &mut world);
            let longest = rng.pick(&[12, 900, 4000, 70_000]);
            world.run(rng.below(longest));
            let (now, id) = (world.reading(), 1 + rng.below(30));
            match rng.below(8) {
                0 => {
                    let seconds = rng.pick(&INTERVALS);
                    schedule.insert(id, &identity(id), interval(seconds), now);
                    model.insert(id, seconds, now.wall_ms);
                }
                1 if rng.below(3) == 0 => assert_eq!(schedule.remove(id), model.remove(id)),
                _ => {
                    schedule.advance(now, &mut out);
                    assert_eq!(Found::from(&out), model.advance(now.wall_ms), "turn {turn}");
                }
            }
            assert_eq!(schedule.len(), model.len());
        }
    }
}

/// What was seen of one site, to hold the promises against, without knowing how it is done.
#[derive(Default)]
struct Seen {
    last_ms: i64,
    /// The earliest wall-clock time since the last due time.
    low_ms: i64,
}

#[test]
fn the_promises_hold_under_every_disturbance() {
    let sites: Vec<(i64, u32)> = (1..=32).zip(INTERVALS.into_iter().cycle()).collect();
    for seed in 100..130 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(START_MS + rng.below(DAY_MS));
        let mut schedule = schedule_of(&sites, world.reading());
        let mut seen: BTreeMap<i64, Seen> = BTreeMap::new();
        let mut out = Advance::default();
        for _ in 0..3000 {
            disturb(&mut rng, &mut world);
            let longest = rng.pick(&[12, 900, 4000]);
            world.run(rng.below(longest));
            let now = world.reading();
            schedule.advance(now, &mut out);
            seen.values_mut().for_each(|site| site.low_ms = site.low_ms.min(now.wall_ms));
            let mut once = BTreeSet::new();
            for due in &out.due {
                let seconds = sites[due.website_id as usize - 1].1;
                let interval_ms = i64::from(seconds) * 1000;
                let offset_ms = identity(due.website_id).offset_ms(interval(seconds));
                assert!(lattice::is_due_time(due.scheduled_ms, offset_ms, interval_ms));
                assert!((0..interval_ms).contains(&(now.wall_ms - due.scheduled_ms)), "{due:?}");
                assert!(once.insert(due.website_id), "twice in one advance: {due:?}");
                let site = seen.entry(due.website_id).or_default();
                assert!(
                    due.scheduled_ms > site.last_ms || site.last_ms - site.low_ms > interval_ms,
                    "{due:?} after {} though the clock went back to {} only",
                    site.last_ms,
                    site.low_ms
                );
                *site = Seen { last_ms: due.scheduled_ms, low_ms: now.wall_ms };
            }
        }
    }
}

/// After `disturbance` every site must be regular within one interval: each due time from then on
/// exactly once and on time.
fn check_regular_after(name: &str, disturbance: impl Fn(&mut World)) {
    let sites: Vec<(i64, u32)> =
        (1..=28).zip([5, 7, 30, 60, 61, 600, 3600].into_iter().cycle()).collect();
    let mut world = World::new(START_MS);
    let mut schedule = schedule_of(&sites, world.reading());
    follow(&mut schedule, &mut world, 3 * HOUR_MS + 777, |_, _| ());
    disturbance(&mut world);
    let disturbed = world.reading().wall_ms;
    let mut seen: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    follow(&mut schedule, &mut world, 3 * HOUR_MS, |now, out| {
        for due in &out.due {
            let late = now.wall_ms - due.scheduled_ms;
            seen.entry(due.website_id).or_default().push((due.scheduled_ms, late));
        }
    });
    let end = world.reading().wall_ms;
    for (id, seconds) in sites {
        let from = disturbed + i64::from(seconds) * 1000;
        let expected: Vec<i64> = oracle(id, seconds, from, end - end % TICK_MS).collect();
        let after = || seen[&id].iter().filter(|(ms, _)| *ms > from);
        assert_eq!(after().map(|(ms, _)| *ms).collect::<Vec<_>>(), expected, "{name}, {seconds} s");
        // One tick, and one ms of rounding where the clocks run at different rates.
        assert!(after().all(|(_, late)| (0..=TICK_MS).contains(late)), "{name}, {seconds} s");
        assert!(expected.len() >= 2);
    }
}

#[test]
fn everything_is_regular_one_interval_after_a_disturbance() {
    check_regular_after("nothing", |_| ());
    for step in [1, 17, 1000, 5000, 6500, 59_000, MINUTE_MS, HOUR_MS, 30 * HOUR_MS] {
        check_regular_after("step ahead", |world| world.step(step));
        check_regular_after("step back", |world| world.step(-step));
        check_regular_after("stalled caller", |world| world.run(step));
        check_regular_after("suspended, both clocks run", |world| world.suspend(step, false));
        check_regular_after("suspended, monotonic stands", |world| world.suspend(step, true));
    }
    check_regular_after("wall clock fast", |world| world.slew_ppm = 500);
    check_regular_after("wall clock slow", |world| world.slew_ppm = -500);
}

#[test]
fn a_leap_second_changes_nothing_but_a_second_of_waiting() {
    let sites = [(1, 5), (2, 60)];
    let mut world = World::new(START_MS);
    let mut schedule = schedule_of(&sites, world.reading());
    let (mut seen, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        follow(&mut schedule, &mut world, MINUTE_MS, |_, out| {
            seen.extend(out.due.iter().map(|due| (due.website_id, due.scheduled_ms)));
            steps.extend(out.step_ms);
        });
        world.step(-1000);
    }
    world.step(1000);
    seen.sort_unstable();
    let end = world.reading().wall_ms;
    let expected: Vec<(i64, i64)> = sites
        .into_iter()
        .flat_map(|(id, s)| oracle(id, s, START_MS, end - TICK_MS).map(move |ms| (id, ms)))
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(steps, [-1000; 19]);
}

#[test]
fn a_day_of_slewing_is_neither_early_nor_late() {
    for slew_ppm in [-500, 500] {
        let mut world = World::new(START_MS);
        world.slew_ppm = slew_ppm;
        let mut schedule = schedule_of(&[(1, 86_400), (2, 3600)], world.reading());
        let mut count = 0;
        follow(&mut schedule, &mut world, 2 * DAY_MS + MINUTE_MS, |now, out| {
            for due in &out.due {
                assert!((0..=TICK_MS).contains(&(now.wall_ms - due.scheduled_ms)));
            }
            count += out.due.len();
            assert_eq!(out.step_ms, None);
        });
        assert_eq!(count, 2 + 48);
    }
}

/// A site with an interval of 60 s whose due time was just handed out, and that due time.
fn just_due() -> (Schedule, World, i64) {
    let first = oracle(1, 60, START_MS, i64::MAX).next().unwrap();
    let mut world = World::new(START_MS);
    let mut schedule = schedule_of(&[(1, 60)], world.reading());
    world.run(first + TICK_MS - START_MS);
    let mut out = Advance::default();
    schedule.advance(world.reading(), &mut out);
    assert_eq!(out.due[0].scheduled_ms, first);
    (schedule, world, first)
}

fn next_after(schedule: &mut Schedule, world: &mut World) -> i64 {
    let mut next = None;
    follow(schedule, world, 3 * MINUTE_MS + REWIND_MIN_MS, |_, out| {
        next = next.or(out.due.first().map(|due| due.scheduled_ms));
    });
    next.unwrap()
}

#[test]
fn after_a_step_back_within_the_interval_the_site_waits() {
    for step in [1, 999, 1000, 1001, 5000, 59_000] {
        let (mut schedule, mut world, first) = just_due();
        world.step(-step);
        assert_eq!(next_after(&mut schedule, &mut world), first + MINUTE_MS, "{step}");
    }
}

#[test]
fn after_a_larger_step_back_the_site_goes_on_from_the_new_time() {
    for minutes in [2, 60, 100_000] {
        let (mut schedule, mut world, first) = just_due();
        world.step(-minutes * MINUTE_MS);
        let next = next_after(&mut schedule, &mut world);
        assert_eq!(next, first - (minutes - 1) * MINUTE_MS, "{minutes}");
    }
}

#[test]
fn steps_back_that_add_up_never_silence_a_site() {
    let mut rng = Rng::new(9);
    let mut world = World::new(START_MS);
    let mut schedule = schedule_of(&[(1, 5)], world.reading());
    let (mut quiet_ms, mut longest) = (0, 0);
    for _ in 0..5000 {
        // Back by as much as time passes, on average: the wall clock gets nowhere.
        world.step(-rng.below(2000));
        follow(&mut schedule, &mut world, 1000, |_, out| {
            quiet_ms = if out.due.is_empty() { quiet_ms } else { 0 };
        });
        quiet_ms += 1000;
        longest = longest.max(quiet_ms);
    }
    // Without progress of the wall clock a due time only comes with a rewind: now and then.
    assert!(longest < 5 * MINUTE_MS, "{longest}");
}

#[test]
fn stalls_hand_out_one_and_tell_of_the_rest() {
    for (intervals, missed, unrecorded) in [(1, 0, 0), (2, 1, 0), (3, 1, 1), (60, 1, 58)] {
        let (mut schedule, mut world, first) = just_due();
        world.run(intervals * MINUTE_MS);
        let mut out = Advance::default();
        schedule.advance(world.reading(), &mut out);
        let last = first + intervals * MINUTE_MS;
        assert_eq!(out.due.iter().map(|due| due.scheduled_ms).collect::<Vec<_>>(), [last]);
        let before: Vec<i64> = out.missed.iter().map(|due| due.scheduled_ms).collect();
        assert_eq!(before, vec![last - MINUTE_MS; missed]);
        assert_eq!((out.unrecorded, out.step_ms), (unrecorded, None));
        // Nothing is left over: the next one comes at its time.
        schedule.advance(world.reading(), &mut out);
        assert!(out.due.is_empty());
        assert_eq!(next_after(&mut schedule, &mut world), last + MINUTE_MS);
    }
}

#[test]
fn a_change_moves_to_the_new_lattice_and_an_unchanged_site_keeps_its_place() {
    let (mut schedule, mut world, first) = just_due();
    let now = world.reading();
    let key = schedule.insert(1, &identity(1), interval(60), now);
    world.run(30_000);
    assert_eq!(schedule.insert(1, &identity(1), interval(60), world.reading()), key);
    assert_eq!(next_after(&mut schedule, &mut world), first + MINUTE_MS);

    let now = world.reading();
    assert_eq!(schedule.insert(1, &identity(1), interval(90), now), key);
    assert_eq!(schedule.len(), 1);
    let expected = oracle(1, 90, now.wall_ms, i64::MAX).next().unwrap();
    assert_eq!(next_after(&mut schedule, &mut world), expected);
}

#[test]
fn removed_sites_are_gone_and_their_keys_used_again() {
    let now = World::new(START_MS).reading();
    let mut schedule = Schedule::new(now);
    assert_eq!((schedule.len(), schedule.sleep_ms(now)), (0, None));
    let keys: Vec<u32> =
        (1..=100).map(|id| schedule.insert(id, &identity(id), interval(5), now)).collect();
    assert!((1..=50).all(|id| schedule.remove(id)));
    assert!(!schedule.remove(1) && !schedule.remove(101));
    let mut out = Advance::default();
    schedule.advance(Reading { wall_ms: now.wall_ms + 5010, ..now }, &mut out);
    let due: BTreeSet<i64> = out.due.iter().map(|due| due.website_id).collect();
    assert_eq!(due, (51..=100).collect());
    let again: BTreeSet<u32> =
        (201..=250).map(|id| schedule.insert(id, &identity(id), interval(5), now)).collect();
    assert_eq!(again, keys[..50].iter().copied().collect());
    assert_eq!(schedule.len(), 100);
}

#[test]
fn strange_readings_do_no_harm() {
    let mut out = Advance::default();
    for wall_ms in [i64::MIN, -1, 0, i64::MAX] {
        let mut schedule = schedule_of(&[(1, 5), (2, 86_400)], World::new(START_MS).reading());
        for wall_ms in [wall_ms, START_MS, wall_ms] {
            let now = Reading { wall_ms, mono_ms: u64::MAX };
            schedule.advance(now, &mut out);
            assert!(schedule.sleep_ms(now).unwrap() <= SLEEP_MAX_MS);
            schedule.insert(3, &identity(3), interval(60), now);
        }
        assert_eq!(schedule.len(), 3);
    }
}
