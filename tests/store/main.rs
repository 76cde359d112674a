//! The store against a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod examples;
mod faults;
mod history;
mod missing;
mod outages;
mod partitions;
mod past;
mod rejected;
mod retention;
mod rollup;
mod schema;
mod sites;
mod uncountable;
mod websites;

use jiff::{SignedDuration, Timestamp};
use webmon::check::{Check, Identity};
use webmon::runtime::now;
use webmon::site::SiteSpec;
use webmon::store::Store;

use support::services::TestDatabase;

/// A database of its own with the schema, and a store for it.
fn migrated(prefix: &str) -> (TestDatabase, Store) {
    let database = TestDatabase::create(prefix);
    let store = Store::new(database.options()).unwrap();
    store.migrate().unwrap();
    (database, store)
}

/// As [`migrated`], with one more site; its id.
fn with_site(prefix: &str) -> (TestDatabase, Store, i64) {
    let (database, store) = migrated(prefix);
    let spec = SiteSpec {
        name: "mine".to_owned(),
        url: "https://mine.test/".to_owned(),
        ..SiteSpec::default()
    };
    assert_eq!(store.add_missing_sites(&[spec]).unwrap(), ["mine"]);
    let id = store.sites().unwrap().iter().find(|row| row.spec.name == "mine").unwrap().website_id;
    (database, store, id)
}

/// The last whole minute, so that it is a time of today's or yesterday's partition.
fn recently() -> Timestamp {
    let ms = now().wall.as_millisecond();
    Timestamp::from_millisecond(ms - ms % 60_000).unwrap()
}

/// A check of `website_id`, due `seconds` before `recently()`.
fn check_at(website_id: i64, due: Timestamp, seconds: i64) -> Check<'static> {
    let identity = Identity::new(website_id, "default");
    let due = due - SignedDuration::from_secs(seconds);
    Check::empty(&identity, website_id, String::new(), "default".to_owned(), due)
}

/// `count` checks of `website_id`, one per second.
fn checks(website_id: i64, count: i64) -> Vec<Check<'static>> {
    let due = recently();
    (0..count).map(|second| check_at(website_id, due, second)).collect()
}

fn count(database: &TestDatabase, table: &str) -> i64 {
    let question = format!("SELECT count(*) FROM {table}");
    database.client().query_one(&question, &[]).unwrap().get(0)
}
