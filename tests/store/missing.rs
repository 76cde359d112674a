//! Days that are missing: their checks are good, so none of them is refused.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use postgres::Client;
use webmon::check::Check;
use webmon::consumer::{MaintenanceOptions, maintain};
use webmon::runtime::now;
use webmon::store::{ErrorKind, Rejected, Store};

use super::support::services::TestDatabase;
use super::{check_at, checks, count, migrated, recently, with_site};

/// The lock of whoever makes or removes partitions, and of whoever changes the schema.
fn lock(client: &mut Client, name: &str) {
    client.execute("SELECT pg_advisory_lock(2003133037, hashtext($1))", &[&name]).unwrap();
}

fn partition(day: Date) -> String {
    format!("check_entry_y{:04}m{:02}d{:02}", day.year(), day.month(), day.day())
}

fn day_of(time: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(time).date()
}

fn remove(client: &mut Client, name: &str) {
    let statement = format!("ALTER TABLE check_entry DETACH PARTITION {name}; DROP TABLE {name}");
    client.batch_execute(&statement).unwrap();
}

fn days(database: &TestDatabase) -> Vec<String> {
    let question = "SELECT inhrelid::regclass::text FROM pg_inherits \
                    WHERE inhparent = 'check_entry'::regclass ORDER BY 1";
    database.client().query(question, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The batch is kept, with words that say why.
fn is_kept(store: &Store, batch: &[Check<'_>], cause: &str) {
    let error = store.insert_checks(batch).expect_err(cause);
    assert!(error.is_outage(), "{error}");
    let expected = format!("no partition for {}: maintenance has not made it", recent(batch));
    assert!(error.message().contains(&expected) && error.message().contains(cause), "{error}");
}

fn recent(batch: &[Check<'_>]) -> Timestamp {
    batch[0].scheduled_at
}

/// Due at the beginning of tomorrow: not in the oldest day, and no more than 24 h ahead.
fn tomorrow(site: i64) -> Check<'static> {
    let next = day_of(now().wall) + 1.day();
    check_at(site, next.to_zoned(TimeZone::UTC).unwrap().timestamp(), 0)
}

#[test]
fn a_missing_day_is_made_by_who_needs_it() {
    let (database, store, site) = with_site("missing_day");
    let mut client = database.client();
    let old = check_at(site, "2015-01-01T00:00:00Z".parse().unwrap(), 0);
    let batch = [tomorrow(site), old, check_at(site, recently(), 0)];
    // By COPY, and beside a known row by arrays.
    for (inserted, known) in [(2, 0), (1, 1)] {
        remove(&mut client, &partition(day_of(batch[0].scheduled_at)));
        if known == 0 {
            client.batch_execute("TRUNCATE check_entry").unwrap();
        }
        let saved = store.insert_checks(&batch).unwrap();
        assert_eq!((saved.inserted, saved.known), (inserted, known));
        let expected = "no partition for its time 2015-01-01T00:00:00Z".to_owned();
        assert_eq!(saved.refused, [(1, expected)]);
    }
    assert_eq!(count(&database, "check_entry"), 2);
}

#[test]
fn while_a_day_cannot_be_made_its_checks_wait() {
    let (database, store, site) = with_site("missing_lock");
    let mut client = database.client();
    let (mut holder, batch) = (database.client(), [tomorrow(site)]);
    let name = partition(day_of(recent(&batch)));
    remove(&mut client, &name);
    lock(&mut holder, "partitions");
    is_kept(&store, &batch, "another process makes or removes partitions");
    drop(holder);
    // Something else has its name.
    client.batch_execute(&format!("CREATE VIEW {name} AS SELECT 1 AS a")).unwrap();
    super::support::eventually("the lock is free", || {
        let error = store.insert_checks(&batch).expect_err("the name is taken");
        assert!(error.is_outage(), "{error}");
        if error.message().contains("42P07") { Ok(()) } else { Err(error) }
    });
    client.batch_execute(&format!("DROP VIEW {name}")).unwrap();
    assert_eq!(store.insert_checks(&batch).unwrap().inserted, 1);
}

#[test]
fn beside_partitions_of_others_only_what_is_old_is_refused() {
    let (database, store, site) = with_site("missing_odd");
    let mut client = database.client();
    let odd = "CREATE TABLE past PARTITION OF check_entry \
               FOR VALUES FROM (MINVALUE) TO ('2010-01-01')";
    client.batch_execute(odd).unwrap();
    let at = |time: &str| check_at(site, time.parse().unwrap(), 0);
    let batch = [at("2005-01-01T00:00:00Z"), at("2015-01-01T00:00:00Z"), tomorrow(site)];
    remove(&mut client, &partition(day_of(batch[2].scheduled_at)));
    is_kept(&store, &batch[2..], "maintenance has not made it");
    let saved = store.insert_checks(&batch[..2]).unwrap();
    assert_eq!((saved.inserted, saved.refused.len()), (1, 1));
    assert_eq!(saved.refused[0].0, 1);
}

#[test]
fn without_any_partition_all_wait() {
    let (_database, store, site) = with_site("missing_all");
    assert!(!store.drop_partitions_before(date(9000, 1, 1)).unwrap().is_empty());
    let batch = checks(site, 3);
    is_kept(&store, &batch[..1], "maintenance has not made it");
    // As in the moment between the first files and the first partitions.
    store.migrate().unwrap();
    assert_eq!(store.insert_checks(&batch).unwrap().inserted, 3);
}

#[test]
fn a_day_attached_meanwhile_is_tried_again() {
    let (database, store, site) = with_site("missing_then");
    database
        .client()
        .batch_execute(
            "CREATE SEQUENCE tries; \
             CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('tries') IN (1, 2, 4, 5, 6, 7, 8, 9) THEN RAISE 'no partition of relation' \
             USING ERRCODE = '23514', TABLE = 'check_entry'; END IF; RETURN NULL; END $$; \
             CREATE TRIGGER meddle BEFORE INSERT ON check_entry \
             FOR EACH STATEMENT EXECUTE FUNCTION meddle()",
        )
        .unwrap();
    let saved = store.insert_checks(&checks(site, 3)).unwrap();
    assert_eq!((saved.inserted, saved.refused.len()), (3, 0));
    // Not for ever.
    let error = store.insert_checks(&checks(site, 4)).unwrap_err();
    assert!(error.is_outage(), "{error}");
    let tries: i64 =
        database.client().query_one("SELECT last_value FROM tries", &[]).unwrap().get(0);
    assert_eq!(tries, 9);
}

#[test]
fn where_nothing_is_missing_nobody_waits_for_a_lock() {
    let (database, store) = migrated("unlocked");
    let mut holder = database.client();
    lock(&mut holder, "partitions");
    lock(&mut holder, "schema");
    assert!(store.migrate().unwrap().is_empty());
    let today = day_of(now().wall);
    assert!(store.ensure_partitions(today, 1, 3).unwrap().is_empty());
}

#[test]
fn a_table_that_stands_alone_is_attached_and_what_is_none_keeps_no_other() {
    let (database, store, site) = with_site("alone");
    let mut client = database.client();
    let batch = [tomorrow(site)];
    assert_eq!(store.insert_checks(&batch).unwrap().inserted, 1);
    let (name, today) = (partition(day_of(recent(&batch))), day_of(now().wall));
    let detach = format!("ALTER TABLE check_entry DETACH PARTITION {name}");
    client.batch_execute(&detach).unwrap();
    assert_eq!(count(&database, "check_entry"), 0);
    assert_eq!(store.ensure_partitions(today, 0, 5).unwrap(), [name.as_str()]);
    assert_eq!(count(&database, "check_entry"), 1);

    let (odd, after) = (partition(today + 4.days()), partition(today + 5.days()));
    remove(&mut client, &odd);
    remove(&mut client, &after);
    client.batch_execute(&format!("CREATE TABLE {odd} (a int)")).unwrap();
    let error = store.ensure_partitions(today, 0, 5).unwrap_err();
    assert!(error.message().contains(&format!("{odd} cannot be made: ")), "{error}");
    assert!(days(&database).contains(&after), "the next one is made");
    store.migrate().unwrap();
    client.batch_execute(&format!("DROP TABLE {odd}")).unwrap();
    assert_eq!(store.ensure_partitions(today, 0, 5).unwrap(), [odd]);
}

const OPTIONS: MaintenanceOptions = MaintenanceOptions {
    retention_days: 1,
    hourly_days: 1100,
    daily_days: 0,
    rejected_days: 90,
    days_ahead: 3,
};

/// A message that was put aside a year ago.
fn put_aside(database: &TestDatabase, store: &Store) {
    let message =
        Rejected { topic: "t", partition: 0, offset: 7, reason: "odd", payload: b"no json" };
    store.reject(&[message]).unwrap();
    let age = "UPDATE rejected_message SET rejected_at = now() - interval '1 year'";
    assert_eq!(database.client().execute(age, &[]).unwrap(), 1);
}

#[test]
fn a_wrong_clock_makes_and_removes_nothing() {
    let (database, store) = migrated("clock");
    put_aside(&database, &store);
    let (before, has_tables) = (days(&database), Default::default());
    for hours in [24 * 500, 2, -2, -24 * 500] {
        let here = now().wall + SignedDuration::from_hours(hours);
        let error = maintain(&store, OPTIONS, here, &has_tables).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.message().contains("this host's clock says"), "{error}");
        assert_eq!((days(&database), count(&database, "rejected_message")), (before.clone(), 1));
    }
    let here = now().wall + SignedDuration::from_mins(50);
    maintain(&store, OPTIONS, here, &has_tables).unwrap().unwrap();
    let after = days(&database);
    assert_eq!((after.as_slice(), count(&database, "rejected_message")), (&before[1..], 0));
    // What was removed is not made again each hour.
    store.migrate().unwrap();
    assert_eq!(days(&database), after);
}

#[test]
fn what_cannot_be_removed_keeps_nothing_else_from_it() {
    let (database, store) = migrated("unremoved");
    put_aside(&database, &store);
    let (before, has_tables) = (days(&database), Default::default());
    let view = format!("CREATE VIEW kept AS SELECT * FROM {}", before[0]);
    database.client().batch_execute(&view).unwrap();
    let error = maintain(&store, OPTIONS, now().wall, &has_tables).unwrap().unwrap_err();
    assert!(error.message().contains("2BP01"), "{error}");
    assert_eq!(count(&database, "rejected_message"), 0);
    database.client().batch_execute("DROP VIEW kept").unwrap();
    maintain(&store, OPTIONS, now().wall, &has_tables).unwrap().unwrap();
    assert_eq!(days(&database), before[1..]);
}
