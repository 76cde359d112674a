//! Checks counted by hour and day: the same as counting them all, whatever happens in between.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use webmon::check::{Check, FailureKind};
use webmon::consumer::{Maintenance, MaintenanceOptions};
use webmon::runtime::Stop;
use webmon::store::{Rolled, Rollups, Store};

use super::past::{DAY, HOUR, Seen, assert_rollup, end, in_may, lead, plain, roll, seen, start};
use super::support::eventually;
use super::support::services::TestDatabase;
use super::{check_at, count, migrated, recently, with_site};

fn up(site: i64, seconds: i64) -> Check<'static> {
    seen(site, "default", seconds, Seen::Up(123_456))
}

fn any_check() -> impl Strategy<Value = (bool, i64, Seen)> {
    let kind = proptest::sample::select(&FailureKind::ALL[..]);
    let what = prop_oneof![
        6 => (0_u32..60_000_000).prop_map(Seen::Up),
        1 => (0_u32..20).prop_map(Seen::Up),
        2 => kind.prop_map(Seen::Down),
        1 => Just(Seen::Unreachable),
        1 => Just(Seen::Missed),
    ];
    // Few hours, so that many checks share one; both sides of a day's end.
    (any::<bool>(), 79_200..93_600_i64, what)
}

/// A step of what may happen.
#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<(bool, i64, Seen)>),
    /// One of the batches before, again, and some of another.
    Replay(prop::sample::Index),
    Roll,
    /// Only hours, and of these so many.
    RollSome(usize),
    Thin,
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => vec(any_check(), 1..40).prop_map(Step::Insert),
        2 => any::<prop::sample::Index>().prop_map(Step::Replay),
        2 => Just(Step::Roll),
        2 => (0..4_usize).prop_map(Step::RollSome),
        1 => Just(Step::Thin),
    ];
    vec(step, 1..14)
}

/// Compares what the store answers with the checks themselves.
fn assert_answer(database: &TestDatabase, store: &Store, site: i64) {
    let expected = plain(&mut database.client(), start(), end(), 5 * DAY);
    let found = store.uptime(&[site], start(), end()).unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, ((_, _, region), counts)) in found.iter().zip(&expected) {
        assert_eq!(&found.region, region);
        let numbers = [found.up, found.down, found.missed, found.unreachable_self, found.hours]
            .map(|n| n as i32);
        let wanted = [counts.up, counts.down, counts.missed, counts.unreachable_self, counts.hours];
        assert_eq!(numbers, wanted);
    }
}

#[test]
fn whatever_comes_in_rollups_are_what_the_checks_say() {
    let (database, store, site) = in_may("property");
    let rollups = RefCell::new(lead(&store));
    let config =
        ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&any_steps(), |steps| {
        let mut rollups = rollups.borrow_mut();
        let mut client = database.client();
        client
            .batch_execute(
                "TRUNCATE check_entry, check_hour, check_day, rollup_dirty, rollup_dirty_day",
            )
            .unwrap();
        let mut batches: Vec<Vec<Check<'static>>> = Vec::new();
        for step in &steps {
            match step {
                Step::Insert(checks) => {
                    let of = |(east, seconds, what): &(bool, i64, Seen)| {
                        seen(site, if *east { "east" } else { "west" }, *seconds, *what)
                    };
                    let batch: Vec<_> = checks.iter().map(of).collect();
                    store.insert_checks(&batch).unwrap();
                    batches.push(batch);
                }
                Step::Replay(index) if !batches.is_empty() => {
                    let mut batch = index.get(&batches).clone();
                    batch.extend_from_slice(&batches[0][..batches[0].len() / 2]);
                    assert_eq!(store.insert_checks(&batch).unwrap().inserted, 0);
                }
                Step::Replay(_) => {}
                Step::Roll => drop(roll(&mut rollups)),
                Step::RollSome(most) => {
                    for hour in rollups.waiting(end()).unwrap().hours.into_iter().take(*most) {
                        rollups.roll_hour(hour).unwrap();
                    }
                }
                Step::Thin => rollups.thin_marks(start()).unwrap(),
            }
            // At every moment, and not only once all is counted.
            assert_answer(&database, &store, site);
        }
        roll(&mut rollups);
        assert_rollup(&mut client, "check_hour");
        assert_rollup(&mut client, "check_day");
        assert_eq!(count(&database, "rollup_dirty"), 0);
        // Again, all of it: nothing changes.
        client
            .batch_execute(
                "INSERT INTO rollup_dirty SELECT DISTINCT hour FROM check_hour; \
                 INSERT INTO rollup_dirty_day SELECT DISTINCT day FROM check_day",
            )
            .unwrap();
        assert_eq!(roll(&mut rollups), 0);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn nothing_is_written_where_nothing_changed() {
    let (database, store, site) = in_may("unchanged");
    let mut rollups = lead(&store);
    store.insert_checks(&[up(site, 10), up(site, 20)]).unwrap();
    assert_eq!(roll(&mut rollups), 2);
    let places = |database: &TestDatabase| -> Vec<String> {
        let question = "SELECT ctid::text || xmin || ' ' || xmax FROM check_hour \
                        UNION ALL SELECT ctid::text || xmin || ' ' || xmax FROM check_day";
        database.client().query(question, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let before = places(&database);
    let mark = "INSERT INTO rollup_dirty SELECT hour FROM check_hour; \
                INSERT INTO rollup_dirty_day SELECT day FROM check_day";
    database.client().batch_execute(mark).unwrap();
    assert_eq!(roll(&mut rollups), 0);
    assert_eq!(places(&database), before);
    // A late one of another region leaves the first region's row alone.
    store.insert_checks(&[seen(site, "late", 30, Seen::Missed)]).unwrap();
    assert_eq!(roll(&mut rollups), 2);
    assert_eq!(places(&database)[..1], before[..1]);
}

#[test]
fn odd_response_times_do_not_stop_the_count() {
    let (database, store, site) = in_may("odd");
    let batch: Vec<Check<'_>> = [0.0, 1e-7, 1e-6, 1e-6_f64.next_up(), 86_400.0, 3.0, 4.0]
        .into_iter()
        .enumerate()
        .map(|(n, seconds)| Check { response_time: Some(seconds), ..up(site, n as i64) })
        .collect();
    assert_eq!(store.insert_checks(&batch).unwrap().inserted, 7);
    // Not through webmon, which refuses them.
    let by_hand = "UPDATE check_entry SET response_time = 1e300 WHERE response_time = 3; \
                   UPDATE check_entry SET response_time = 'NaN' WHERE response_time = 4";
    database.client().batch_execute(by_hand).unwrap();
    roll(&mut lead(&store));
    let row = database.client().query_one("SELECT buckets, counts FROM check_hour", &[]).unwrap();
    assert_eq!(row.get::<_, Vec<i16>>(0), [0, 1, 291]);
    assert_eq!(row.get::<_, Vec<i32>>(1), [3, 1, 3]);
}

/// A counting thread that stands after the count and before its commit, since a test holds a lock.
fn blocked_count<R>(
    database: &TestDatabase,
    mut rollups: Rollups,
    meanwhile: impl FnOnce() -> R,
) -> (R, Rollups, Result<Rolled, webmon::store::StoreError>) {
    let mut client = database.client();
    let mut holder = client.transaction().unwrap();
    holder.batch_execute("LOCK TABLE rollup_dirty_day IN EXCLUSIVE MODE").unwrap();
    std::thread::scope(|scope| {
        let counting = scope.spawn(move || {
            let rolled = rollups.roll_hour(start());
            (rollups, rolled)
        });
        let waits = "pg_locks WHERE NOT granted AND relation = 'rollup_dirty_day'::regclass";
        eventually("the count waits", || match count(database, waits) {
            0 => Err("not yet"),
            _ => Ok(()),
        });
        let result = meanwhile();
        holder.rollback().unwrap();
        let (rollups, rolled) = counting.join().unwrap();
        (result, rollups, rolled)
    })
}

#[test]
fn a_mark_that_comes_while_its_hour_is_counted_stays() {
    let (database, store, site) = in_may("race");
    store.insert_checks(&[up(site, 10)]).unwrap();
    let rollups = lead(&store);
    let (saved, mut rollups, rolled) =
        blocked_count(&database, rollups, || store.insert_checks(&[up(site, 20)]).unwrap());
    assert_eq!((saved.inserted, rolled.unwrap()), (1, Rolled::Written(1)));
    assert_eq!(rollups.waiting(end()).unwrap().hours, [start()]);
    assert_answer(&database, &store, site);
    roll(&mut rollups);
    assert_rollup(&mut database.client(), "check_hour");
    assert_rollup(&mut database.client(), "check_day");
}

#[test]
fn a_check_that_is_not_committed_yet_is_counted_later() {
    let (database, store, site) = in_may("uncommitted");
    store.insert_checks(&[up(site, 10)]).unwrap();
    let mut rollups = lead(&store);
    let mut client = database.client();
    let mut open = client.transaction().unwrap();
    open.batch_execute(
        "INSERT INTO check_entry (check_entry_id, website_id, \"timestamp\", outcome, region) \
         SELECT overlay(check_entry_id::text PLACING 'ff' FROM 35)::uuid, website_id, \
             \"timestamp\", 'missed', 'other' FROM check_entry; \
         INSERT INTO rollup_dirty SELECT hour FROM rollup_dirty",
    )
    .unwrap();
    assert_eq!(roll(&mut rollups), 2);
    open.commit().unwrap();
    assert_answer(&database, &store, site);
    assert_eq!(roll(&mut rollups), 2);
    assert_rollup(&mut database.client(), "check_hour");
}

#[test]
fn a_count_that_is_killed_leaves_nothing_and_another_takes_over() {
    let (database, store, site) = in_may("killed");
    store.insert_checks(&[up(site, 10)]).unwrap();
    let rollups = lead(&store);
    assert!(store.try_rollups().unwrap().is_none());
    let kill = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l \
                WHERE NOT granted AND relation = 'rollup_dirty_day'::regclass";
    let (killed, mut old, rolled) = blocked_count(&database, rollups, || {
        let killed: i64 = database.client().query_one(kill, &[]).unwrap().get(0);
        // Another process has the lead as soon as the connection is gone.
        (killed, lead(&store))
    });
    let (killed, mut next) = killed;
    assert_eq!(killed, 1);
    assert!(rolled.unwrap_err().is_outage());
    assert!(old.waiting(end()).unwrap_err().is_outage());
    assert_eq!((count(&database, "check_hour"), count(&database, "rollup_dirty")), (0, 1));
    roll(&mut next);
    assert_rollup(&mut database.client(), "check_hour");
    assert_rollup(&mut database.client(), "check_day");
}

#[test]
fn whoever_else_counts_is_waited_for() {
    let (database, store, site) = in_may("busy");
    store.insert_checks(&[up(site, 10)]).unwrap();
    let mut rollups = lead(&store);
    let mut other = database.client();
    other
        .batch_execute("SELECT pg_advisory_lock(x'7765626d'::integer, hashtext('rollup'))")
        .unwrap();
    assert_eq!(rollups.roll_hour(start()).unwrap(), Rolled::Busy);
    assert_eq!(rollups.roll_day(start()).unwrap(), Rolled::Busy);
    assert_eq!((count(&database, "check_hour"), count(&database, "rollup_dirty")), (0, 1));
    drop(other);
    let rolled = eventually("the lock is free", || match rollups.roll_hour(start()).unwrap() {
        Rolled::Busy => Err("busy"),
        rolled => Ok(rolled),
    });
    assert_eq!(rolled, Rolled::Written(1));
}

#[test]
fn counting_beside_writers_and_kills_misses_nothing() {
    let (database, store, site) = in_may("stress");
    let (is_over, counted) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut killed = 0;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_i64)
            .map(|writer| {
                let (store, counted) = (store.clone(), &counted);
                scope.spawn(move || {
                    // Until there was something to see; then the rest of what fits into the days.
                    for n in 0..5000_i64 {
                        if n > 60 && counted.load(Ordering::Relaxed) > 20 {
                            break;
                        }
                        let check = |k| seen(site, "x", writer + 3 * (k + 5 * n), Seen::Up(9));
                        let batch: Vec<_> = (0..5).map(check).collect();
                        eventually("stored", || store.insert_checks(&batch));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let Ok(Some(mut rollups)) = store.try_rollups() else { continue };
                while let Ok(waiting) = rollups.waiting(end()) {
                    for hour in waiting.hours {
                        let rolled = rollups.roll_hour(hour);
                        counted.fetch_add(usize::from(rolled.is_ok()), Ordering::Relaxed);
                    }
                    waiting.days.iter().for_each(|day| drop(rollups.roll_day(*day)));
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
        });
        let kill = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l \
                    JOIN pg_database d ON d.oid = l.database AND d.datname = current_database() \
                    WHERE locktype = 'advisory' AND granted";
        let mut client = database.client();
        let mut last = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            // Each lead gets to count something.
            let now = counted.load(Ordering::Relaxed);
            if now > last {
                killed += client.query_one(kill, &[]).unwrap().get::<_, i64>(0);
                last = now;
            }
            let _ = Stop::new().wait(std::time::Duration::from_millis(5));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let counted = counted.into_inner();
    assert!(counted > 20 && killed > 3, "{counted} counts, {killed} kills");
    roll(&mut lead(&store));
    assert_rollup(&mut database.client(), "check_hour");
    assert_rollup(&mut database.client(), "check_day");
}

#[test]
fn an_older_database_has_its_past_counted() {
    let database = TestDatabase::create("upgrade");
    let store = Store::new(database.options()).unwrap();
    store.migrate().unwrap();
    // As it was before: no rollups, and checks without marks.
    let site = store.sites().unwrap()[0].website_id;
    let checks: Vec<_> = (0..30).map(|n| check_at(site, recently(), n * 3600)).collect();
    assert_eq!(store.insert_checks(&checks).unwrap().inserted, 30);
    let mut client = database.client();
    client
        .batch_execute(
            "DROP TABLE check_hour, check_day, rollup_dirty, rollup_dirty_day, rollup_state; \
             DROP FUNCTION response_time_bucket, response_time_of_bucket; \
             DELETE FROM schema_migration WHERE version = 6",
        )
        .unwrap();
    assert_eq!(store.migrate().unwrap(), ["006_rollups.sql"]);
    let expected = "rollup_dirty WHERE hour IN (SELECT date_bin('1 hour', \"timestamp\", 'epoch') \
                    FROM check_entry)";
    assert_eq!(count(&database, expected), 30);
    // A consumer of the release before may go on for a while.
    assert!(count(&database, "rollup_dirty WHERE hour > now() + interval '22 hours'") >= 1);

    // The running thread does the rest: all hours that have ended.
    let stop = Stop::new();
    let options = MaintenanceOptions {
        retention_days: 30,
        hourly_days: 30,
        daily_days: 0,
        rejected_days: 90,
        days_ahead: 2,
    };
    let maintenance = Maintenance::start(store.clone(), options, &stop).unwrap();
    let counted = eventually("past hours are counted", || match count(&database, "check_hour") {
        rows if rows < 28 => Err(rows),
        rows => Ok(rows),
    });
    eventually("a past day is counted", || match count(&database, "check_day") {
        0 => Err("none"),
        rows => Ok(rows),
    });
    assert!(counted <= 30);
    stop.request();
    assert!(maintenance.join(std::time::Duration::from_secs(20)).is_empty());
    let uptime = &store.uptime(&[site], recently() - 2 * DAY, recently() + HOUR).unwrap()[0];
    assert_eq!((uptime.down, uptime.hours), (30, 30));
}

#[test]
fn every_kind_of_failure_has_its_column() {
    let (database, _) = migrated("kinds");
    for table in ["check_hour", "check_day"] {
        let mut columns: Vec<String> = database
            .client()
            .query(
                "SELECT column_name::text FROM information_schema.columns \
                 WHERE table_name = $1 AND column_name LIKE 'down\\_%'",
                &[&table],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        let mut expected = FailureKind::ALL.map(|kind| format!("down_{}", kind.as_str()));
        columns.sort();
        expected.sort();
        assert_eq!(columns, expected, "{table}");
    }
}

#[test]
fn marks_are_thinned_and_only_new_rows_mark() {
    let (database, store, site) = with_site("marks");
    let now = recently();
    database.client().batch_execute("TRUNCATE rollup_dirty").unwrap();
    for _ in 0..3 {
        store.insert_checks(&[check_at(site, now, 0)]).unwrap();
    }
    assert_eq!(count(&database, "rollup_dirty"), 1);
    store.insert_checks(&[check_at(site, now, 0), check_at(site, now, 1)]).unwrap();
    store.insert_checks(&[check_at(site, now, 7200), check_at(site, now, 2)]).unwrap();
    assert!(count(&database, "rollup_dirty") >= 4);
    lead(&store).thin_marks(start()).unwrap();
    let hours = count(&database, "(SELECT DISTINCT hour FROM rollup_dirty) AS hours");
    assert_eq!(count(&database, "rollup_dirty"), hours);
    assert!((2..=3).contains(&hours));
}
