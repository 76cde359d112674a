//! Old checks and old rollups go, each after what is made of it.

use std::time::Duration;

use jiff::civil::{Date, date};
use webmon::check::FailureKind;
use webmon::runtime::now;
use webmon::store::{Rolled, Store};

use super::count;
use super::past::{DAY, HOUR, Seen, assert_rollup, in_may, lead, roll, seen, start};
use super::support::eventually;
use super::support::services::TestDatabase;

const FIRST: &str = "check_entry_y2024m05d01";
/// After the first day.
const SECOND_DAY: Date = date(2024, 5, 2);

/// Two hours of the first day and one of the second, an up and a down check each.
fn insert(store: &Store, site: i64) {
    for second in [10, 7210, 86_410] {
        let batch = [
            seen(site, "x", second, Seen::Up(1000)),
            seen(site, "x", second + 60, Seen::Down(FailureKind::Dns)),
        ];
        assert_eq!(store.insert_checks(&batch).unwrap().inserted, 2);
    }
}

/// All of `check_hour`, as text.
fn hours(database: &TestDatabase) -> Vec<String> {
    let question = "SELECT h::text FROM check_hour h ORDER BY hour";
    database.client().query(question, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn checks_go_only_after_their_hours_are_counted() {
    let (database, store, site) = in_may("counted_first");
    insert(&store, site);
    // What it would be, had nothing been removed.
    roll(&mut lead(&store));
    assert_rollup(&mut database.client(), "check_hour");
    let expected = hours(&database);
    assert_eq!(expected.len(), 3);
    let back = "TRUNCATE check_hour, check_day, rollup_dirty_day; \
                INSERT INTO rollup_dirty SELECT date_bin('1 hour', \"timestamp\", 'epoch') \
                FROM check_entry";
    database.client().batch_execute(back).unwrap();
    assert_eq!(store.drop_partitions_before(SECOND_DAY).unwrap(), [format!("public.{FIRST}")]);
    assert_eq!(hours(&database), expected[..2]);
    roll(&mut lead(&store));
    assert_eq!(hours(&database), expected);
    let day = &store.uptime(&[site], start(), start() + DAY).unwrap()[0];
    assert_eq!((day.up, day.down, day.hours), (2, 2, 2));
}

#[test]
fn a_day_that_stands_alone_is_counted_before_it_goes() {
    let (database, store, site) = in_may("alone");
    insert(&store, site);
    // A process that ended between detach and drop.
    let detach = format!("ALTER TABLE check_entry DETACH PARTITION {FIRST}");
    database.client().batch_execute(&detach).unwrap();
    // Whoever counts first has it from the table itself …
    assert_eq!(lead(&store).roll_hour(start()).unwrap(), Rolled::Written(1));
    // … and the other hour is counted by whoever removes it.
    assert_eq!(store.drop_partitions_before(SECOND_DAY).unwrap(), [format!("public.{FIRST}")]);
    assert_eq!(hours(&database).len(), 2);
    assert_eq!(count(&database, "rollup_dirty"), 1);
}

#[test]
fn late_checks_of_a_day_that_is_gone_change_nothing() {
    let (database, store, site) = in_may("gone");
    insert(&store, site);
    let mut rollups = lead(&store);
    roll(&mut rollups);
    let expected = hours(&database);
    store.drop_partitions_before(SECOND_DAY).unwrap();
    // The day is not there: refused.
    let late = [seen(site, "x", 20, Seen::Missed), seen(site, "x", 4000, Seen::Missed)];
    let saved = store.insert_checks(&late).unwrap();
    assert_eq!((saved.inserted, saved.refused.len()), (0, 2));
    // A longer retention made it again, and it is empty.
    store.ensure_partitions(SECOND_DAY, 1, 0).unwrap();
    assert_eq!(store.insert_checks(&late).unwrap().inserted, 2);
    assert_eq!(count(&database, "rollup_dirty"), 2);
    for hour in rollups.waiting(start() + DAY).unwrap().hours {
        assert_eq!(rollups.roll_hour(hour).unwrap(), Rolled::Final);
    }
    assert_eq!((hours(&database), count(&database, "rollup_dirty")), (expected.clone(), 0));
    // Not when it goes again, either. And answers are from the rollup.
    database.client().execute("INSERT INTO rollup_dirty VALUES ($1)", &[&start()]).unwrap();
    let uptime = &store.uptime(&[site], start(), start() + HOUR).unwrap()[0];
    assert_eq!((uptime.up, uptime.down, uptime.missed), (1, 1, 0));
    store.drop_partitions_before(SECOND_DAY).unwrap();
    assert_eq!((hours(&database), count(&database, "rollup_dirty")), (expected, 0));
    // A mark of an hour without any table is no work either.
    assert_eq!(rollups.roll_hour(start() - DAY).unwrap(), Rolled::Final);
}

#[test]
fn days_removed_before_their_time_are_counted_when_it_comes() {
    let (database, store, site) = in_may("ahead");
    insert(&store, site);
    let mut rollups = lead(&store);
    // A clock that was years ahead for a moment.
    store.drop_partitions_before(date(2030, 1, 1)).unwrap();
    assert_eq!(hours(&database).len(), 3);
    store.ensure_partitions(date(2024, 5, 3), 2, 2).unwrap();
    let next = [seen(site, "x", 86_400 + 3600, Seen::Missed)];
    assert_eq!(store.insert_checks(&next).unwrap().inserted, 1);
    roll(&mut rollups);
    assert_eq!(hours(&database).len(), 4);
}

#[test]
fn hours_go_only_after_their_checks_and_days() {
    let (database, store, site) = in_may("hours");
    insert(&store, site);
    let mut rollups = lead(&store);
    let june = date(2024, 6, 1);
    // Checks are there; then days are not counted.
    assert!(store.drop_hours_before(june).unwrap().is_empty());
    store.drop_partitions_before(june).unwrap();
    assert!(store.drop_hours_before(june).unwrap().is_empty());
    roll(&mut rollups);
    // Not before the month's end.
    assert!(store.drop_hours_before(date(2024, 5, 31)).unwrap().is_empty());
    assert_eq!(store.drop_hours_before(june).unwrap(), ["public.check_hour_y2024m05"]);
    assert_eq!((count(&database, "check_hour"), count(&database, "check_day")), (0, 2));
    // Of a day whose hours are gone there is only the whole.
    let uptime = store.uptime(&[site], start() + 5 * HOUR, start() + 6 * HOUR).unwrap();
    assert_eq!((uptime[0].up, uptime[0].down, uptime[0].hours), (2, 2, 2));
    // Nor is it counted again from no hours.
    database.client().execute("INSERT INTO rollup_dirty_day VALUES ($1)", &[&start()]).unwrap();
    assert_eq!(rollups.roll_day(start()).unwrap(), Rolled::Final);
    assert_eq!(count(&database, "check_day"), 2);

    assert!(store.drop_days_before(date(2024, 12, 31)).unwrap().is_empty());
    assert_eq!(store.drop_days_before(date(2025, 1, 1)).unwrap(), ["public.check_day_y2024"]);
}

#[test]
fn days_go_only_after_their_hours() {
    let (database, store, site) = in_may("days");
    insert(&store, site);
    let mut rollups = lead(&store);
    let june = date(2024, 6, 1);
    let next_year = date(2025, 1, 1);
    // The hours are there.
    assert!(store.drop_days_before(next_year).unwrap().is_empty());
    store.drop_partitions_before(june).unwrap();
    // A day is still to be counted, though its year is old enough.
    database
        .client()
        .batch_execute("ALTER TABLE check_hour DETACH PARTITION check_hour_y2024m05")
        .unwrap();
    assert_eq!(count(&database, "rollup_dirty_day"), 2);
    assert!(store.drop_days_before(next_year).unwrap().is_empty());
    let back = "ALTER TABLE check_hour ATTACH PARTITION check_hour_y2024m05 \
                FOR VALUES FROM ('2024-05-01Z') TO ('2024-06-01Z')";
    database.client().batch_execute(back).unwrap();
    roll(&mut rollups);
    assert_eq!(count(&database, "check_day"), 2);
    assert!(store.drop_days_before(next_year).unwrap().is_empty());
    assert_eq!(store.drop_hours_before(june).unwrap().len(), 1);
    assert_eq!(store.drop_days_before(next_year).unwrap(), ["public.check_day_y2024"]);
}

#[test]
fn younger_hours_wait_for_older_ones() {
    let (database, store, site) = in_may("in_order");
    store.ensure_partitions(date(2024, 6, 2), 1, 1).unwrap();
    insert(&store, site);
    let june = [seen(site, "x", 32 * 86_400, Seen::Missed)];
    assert_eq!(store.insert_checks(&june).unwrap().inserted, 1);
    let mut rollups = lead(&store);
    for hour in rollups.waiting(start() + 40 * DAY).unwrap().hours {
        rollups.roll_hour(hour).unwrap();
    }
    let july = date(2024, 7, 1);
    store.drop_partitions_before(july).unwrap();
    // June's day is counted, those of May are not: with June's hours gone they never would be.
    assert_eq!(rollups.roll_day(start() + 32 * DAY).unwrap(), Rolled::Written(1));
    assert!(store.drop_hours_before(july).unwrap().is_empty());
    roll(&mut rollups);
    assert_eq!(count(&database, "check_day"), 3);
    let months = ["public.check_hour_y2024m05", "public.check_hour_y2024m06"];
    assert_eq!(store.drop_hours_before(july).unwrap(), months);
    // Not up to the month's end, but no later than what was removed.
    let question =
        "SELECT hours_from = raw_from AND raw_from = '2024-06-02 01:00Z' FROM rollup_state";
    assert!(database.client().query_one(question, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_long_reader_makes_no_insert_wait() {
    let (database, store, site) = in_may("reader");
    insert(&store, site);
    roll(&mut lead(&store));
    let mut reader = database.client();
    let mut old = reader.transaction().unwrap();
    let all = "SELECT count(*) FROM check_entry, check_hour, check_day";
    old.query(all, &[]).unwrap();
    std::thread::scope(|scope| {
        // Days, months and years are made while the reader reads.
        store.ensure_partitions(date(2024, 5, 9), 2, 2).unwrap();
        store.ensure_partitions(date(2025, 5, 9), 0, 2).unwrap();
        let dropping = scope.spawn(|| store.drop_partitions_before(SECOND_DAY));
        let waits = "pg_inherits WHERE inhdetachpending";
        eventually("the detach waits for the reader", || match count(&database, waits) {
            0 => Err("not yet"),
            _ => Ok(()),
        });
        let begin = now().mono;
        for second in 100..150 {
            let check = seen(site, "y", 2 * 86_400 + second, Seen::Missed);
            assert_eq!(store.insert_checks(&[check]).unwrap().inserted, 1);
        }
        // The detach gives up after 20 s: it still waited all the while.
        let took = now().mono - begin;
        assert_eq!(count(&database, waits), 1, "after {took:?}");
        assert!(took < Duration::from_secs(15), "{took:?}");
        old.rollback().unwrap();
        assert_eq!(dropping.join().unwrap().unwrap(), [format!("public.{FIRST}")]);
    });
}
