//! Counting where something stands in its way.

use std::time::Duration;

use webmon::consumer::{Maintenance, MaintenanceOptions};
use webmon::runtime::Stop;
use webmon::store::{Limits, Rolled, Store};
use webmon::telemetry::health;

use super::past::{HOUR, Seen, in_may, lead, seen, start};
use super::support::eventually;
use super::{check_at, count, migrated, recently, with_site};

#[test]
fn an_hour_that_cannot_be_counted_stops_no_other() {
    let (database, store, site) = with_site("uncountable");
    let checks: Vec<_> = (2..12).map(|n| check_at(site, recently(), n * 3600)).collect();
    assert_eq!(store.insert_checks(&checks).unwrap().inserted, 10);
    let mut client = database.client();
    // The newest of them, which is the first to be counted; and marks to be thinned.
    let bad = "date_bin('1 hour', $1, 'epoch')";
    let due = checks[0].scheduled_at;
    let bad: String = client.query_one(&format!("SELECT {bad}::text"), &[&due]).unwrap().get(0);
    client
        .batch_execute(&format!(
            "ALTER TABLE check_hour ADD CONSTRAINT bad_hour CHECK (hour <> '{bad}'); \
             INSERT INTO rollup_dirty SELECT date_bin('1 hour', now(), 'epoch') + interval '3 hours' \
             FROM generate_series(1, 5)"
        ))
        .unwrap();
    let stop = Stop::new();
    let options = MaintenanceOptions {
        retention_days: 30,
        hourly_days: 30,
        daily_days: 0,
        rejected_days: 90,
        days_ahead: 2,
    };
    let maintenance = Maintenance::start(store.clone(), options, &stop).unwrap();
    let becomes = |what: &str, table: &str, expected: i64| {
        eventually(what, || match count(&database, table) {
            rows if rows == expected => Ok(()),
            rows => Err(rows),
        });
    };
    becomes("the others are counted", "check_hour", 9);
    let ahead = "rollup_dirty WHERE hour > now() + interval '2 hours' \
                 AND hour <= now() + interval '3 hours'";
    becomes("marks are thinned", ahead, 1);
    let reason = || {
        let parts = health().parts();
        parts.into_iter().find(|(part, _)| *part == "rollups").and_then(|(_, reason)| reason)
    };
    let said = eventually("it is told", || reason().ok_or("well"));
    assert!(said.contains("bad_hour"), "{said}");
    // Who does not lead knows what waits, too.
    let waiting = store.rollups_waiting(recently() - HOUR).unwrap();
    assert_eq!(waiting.hours.iter().map(ToString::to_string).count(), 1, "{waiting:?}");

    client.batch_execute("ALTER TABLE check_hour DROP CONSTRAINT bad_hour").unwrap();
    becomes("it is counted as well", "check_hour", 10);
    eventually("all is well", || reason().map_or(Ok(()), Err));
    stop.request();
    assert!(maintenance.join(Duration::from_secs(20)).is_empty());
}

#[test]
fn the_server_gives_up_before_the_caller() {
    let (database, store, site) = in_may("limits");
    store.insert_checks(&[seen(site, "x", 10, Seen::Missed)]).unwrap();
    let limits = Limits { schema: Duration::from_secs(4), ..Limits::default() };
    let store = Store::with_limits(database.options(), limits).unwrap();
    let mut rollups = lead(&store);
    let mut client = database.client();
    let mut holder = client.transaction().unwrap();
    holder.batch_execute("LOCK TABLE rollup_dirty_day IN EXCLUSIVE MODE").unwrap();
    let said = rollups.roll_hour(start()).unwrap_err().to_string();
    assert!(said.contains("statement timeout"), "{said}");
    holder.rollback().unwrap();
    // So it still has its connection, and with it the lead.
    assert_eq!(rollups.roll_hour(start()).unwrap(), Rolled::Written(1));
}

#[test]
fn marks_are_whole_hours_and_days() {
    let (database, _) = migrated("whole");
    let mut client = database.client();
    for (table, time) in [
        ("rollup_dirty", "2024-05-01 10:30Z"),
        ("rollup_dirty", "2024-05-01 10:00:00.000001Z"),
        ("rollup_dirty", "-infinity"),
        ("rollup_dirty_day", "2024-05-01 12:00Z"),
        ("rollup_dirty_day", "infinity"),
    ] {
        let refused = client.batch_execute(&format!("INSERT INTO {table} VALUES ('{time}')"));
        assert_eq!(refused.unwrap_err().code().unwrap().code(), "23514", "{table} {time}");
    }
}
