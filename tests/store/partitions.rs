//! Days of `check_entry`, and who takes care of them.

use jiff::civil::{Date, date};
use webmon::store::Store;

use super::support::eventually;
use super::support::services::TestDatabase;
use super::{checks, count, migrated, with_site};

fn names(database: &TestDatabase) -> Vec<String> {
    let question = "SELECT inhrelid::regclass::text FROM pg_inherits \
                    WHERE inhparent = 'check_entry'::regclass ORDER BY 1";
    database.client().query(question, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// A store whose partitions are only those of the first days of 2020.
fn in_2020(prefix: &str) -> (TestDatabase, Store, Date) {
    let (database, store) = migrated(prefix);
    store.drop_partitions_before(date(9000, 1, 1)).unwrap();
    let today = date(2020, 1, 10);
    assert_eq!(store.ensure_partitions(today, 2, 1).unwrap().len(), 4);
    (database, store, today)
}

#[test]
fn missing_days_and_gaps_are_made() {
    let (database, store, today) = in_2020("ensure");
    let expect = [
        "check_entry_y2020m01d08",
        "check_entry_y2020m01d09",
        "check_entry_y2020m01d10",
        "check_entry_y2020m01d11",
    ];
    assert_eq!(names(&database), expect);
    assert!(store.ensure_partitions(today, 2, 1).unwrap().is_empty());
    // Nobody was there for ten days: the days between are made too.
    let made = store.ensure_partitions(date(2020, 1, 21), 2, 1).unwrap();
    assert_eq!(made.len(), 11);
    assert_eq!(made[0], "check_entry_y2020m01d12");
    // Rows go in, and nothing is outside by a time zone.
    database
        .client()
        .batch_execute(
            "INSERT INTO check_entry (check_entry_id, website_id, \"timestamp\", outcome, region) \
             SELECT gen_random_uuid(), 1, t, 'up', 'x' FROM unnest(ARRAY['2020-01-08 00:00+00', \
             '2020-01-22 23:59:59.999+00']::timestamptz[]) AS t",
        )
        .unwrap();
    assert_eq!(count(&database, "check_entry_y2020m01d08"), 1);
}

#[test]
fn old_days_go_the_oldest_first_and_leftovers_too() {
    let (database, store, _) = in_2020("retention");
    // A process that ended between detach and drop.
    let detach = "ALTER TABLE check_entry DETACH PARTITION check_entry_y2020m01d08";
    database.client().batch_execute(detach).unwrap();
    let dropped = store.drop_partitions_before(date(2020, 1, 10)).unwrap();
    assert_eq!(dropped, ["public.check_entry_y2020m01d08", "public.check_entry_y2020m01d09"]);
    assert_eq!(names(&database), ["check_entry_y2020m01d10", "check_entry_y2020m01d11"]);
    assert_eq!(count(&database, "pg_class WHERE relname ~ '^check_entry_y2020m01d0'"), 0);
    assert!(store.drop_partitions_before(date(2020, 1, 10)).unwrap().is_empty());
}

#[test]
fn a_detach_that_was_cut_off_is_finished() {
    let (database, store, _) = in_2020("pending");
    let mut reader = database.client();
    let mut old = reader.transaction().unwrap();
    old.query("SELECT count(*) FROM check_entry", &[]).unwrap();
    let mut client = database.client();
    client.batch_execute("SET statement_timeout = 200").unwrap();
    let cut = client.batch_execute(
        "ALTER TABLE check_entry DETACH PARTITION check_entry_y2020m01d08 CONCURRENTLY",
    );
    assert_eq!(cut.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(count(&database, "pg_inherits WHERE inhdetachpending"), 1);
    old.rollback().unwrap();
    let dropped = store.drop_partitions_before(date(2020, 1, 9)).unwrap();
    assert_eq!(dropped, ["public.check_entry_y2020m01d08"]);
}

#[test]
fn inserts_go_on_beside_maintenance() {
    let (_database, store, site) = with_site("maintenance");
    let batch = checks(site, 200);
    std::thread::scope(|scope| {
        let maintenance = scope.spawn(|| {
            store.ensure_partitions(date(2010, 1, 20), 19, 0).unwrap();
            store.drop_partitions_before(date(2010, 1, 15)).unwrap()
        });
        for check in &batch {
            assert_eq!(store.insert_checks(std::slice::from_ref(check)).unwrap().inserted, 1);
        }
        assert_eq!(maintenance.join().unwrap().len(), 14);
    });
}

#[test]
fn one_leads_until_it_is_gone() {
    let (database, store) = migrated("lead");
    let mut lead = store.try_lead("maintenance").unwrap().expect("nobody else leads");
    assert!(lead.is_held());
    assert!(store.try_lead("maintenance").unwrap().is_none());
    assert!(store.try_lead("other").unwrap().is_some());

    // Of this database: other tests hold such locks in theirs.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    database.client().query(kill, &[]).unwrap();
    assert!(!lead.is_held());
    let next = eventually("the lead is free", || store.try_lead("maintenance").unwrap().ok_or(()));
    drop(next);
    eventually("the lead is given back", || store.try_lead("maintenance").unwrap().ok_or(()));
}
