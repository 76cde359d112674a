//! Rejected messages: pages, filters, replay, removal.

use jiff::{SignedDuration, Timestamp};
use webmon::check::Outcome;
use webmon::consumer::{Ingest, Message, Sinks, replay};
use webmon::runtime::now;
use webmon::store::{RejectedFilter, RejectedKey, Store};

use super::{check_at, count, recently, with_site};

const SINKS: Sinks = Sinks { postgres: true, console: false };

fn key(offset: i64) -> RejectedKey {
    RejectedKey { topic: "t".to_owned(), partition: 1, offset }
}

fn encoded(site: i64, seconds: i64) -> Vec<u8> {
    let mut message = Vec::new();
    let mut check = check_at(site, recently(), seconds);
    check.url = "http://a/".into();
    check.outcome = Outcome::Missed;
    webmon::wire::encode(&check, &mut message);
    message
}

/// Saves `payloads` as the consumer does, at offsets from 0.
fn consume(store: &Store, payloads: &[Vec<u8>]) {
    let messages: Vec<Message<'_>> = (0..)
        .zip(payloads)
        .map(|(offset, payload)| Message { partition: 1, offset, payload, fault: None })
        .collect();
    Ingest::new(SINKS, store.clone(), "t").save(&messages).unwrap();
}

fn reasons(store: &Store) -> Vec<(i64, String)> {
    let rows = store.read_rejected(&RejectedFilter::default(), None, 100).unwrap();
    rows.into_iter().map(|row| (row.key.offset, row.reason)).collect()
}

#[test]
fn a_site_that_is_added_later_gets_its_checks_back() {
    let (database, store, site) = with_site("late_site");
    let late = site + 1000;
    let payloads: Vec<Vec<u8>> = (0..10)
        .map(|n| match n {
            3 => b"no json".to_vec(),
            n if n % 2 == 0 => encoded(late, n),
            n => encoded(site, n),
        })
        .collect();
    consume(&store, &payloads);
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (4, 6));
    let filter = RejectedFilter { reason: Some("UNKNOWN".to_owned()), ..RejectedFilter::default() };
    assert_eq!(store.count_rejected(&filter).unwrap(), 5);

    // Too early: nothing changes.
    let rows = store.read_rejected(&RejectedFilter::default(), None, 100).unwrap();
    let first = replay(&store, &rows, false).unwrap();
    assert_eq!((first.stored, first.known, first.rejected.len()), (0, 0, 6));
    assert_eq!(count(&database, "rejected_message"), 6);

    let statement = "INSERT INTO website (website_id, name, url) OVERRIDING SYSTEM VALUE \
                     VALUES ($1, 'late', 'http://late/')";
    database.client().execute(statement, &[&late]).unwrap();
    let dry = replay(&store, &rows, true).unwrap();
    assert_eq!((dry.stored, dry.known, dry.rejected.len()), (5, 0, 1));
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (4, 6));

    let second = replay(&store, &rows, false).unwrap();
    assert_eq!((second.stored, second.known), (5, 0));
    assert_eq!(second.rejected.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key(3)]);
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (9, 1));
    // The same rows once more, as after an answer that got lost.
    let third = replay(&store, &rows, false).unwrap();
    assert_eq!((third.stored, third.known, third.rejected.len()), (0, 5, 1));
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (9, 1));
}

#[test]
fn what_still_fails_stays_with_the_reason_of_today() {
    let (database, store, site) = with_site("again");
    consume(&store, &[encoded(site + 1000, 0), encoded(site + 1000, 60)]);
    let mut client = database.client();
    client
        .execute(
            "INSERT INTO website (website_id, name, url) OVERRIDING SYSTEM VALUE \
             VALUES ($1, 'late', 'http://late/')",
            &[&(site + 1000)],
        )
        .unwrap();
    let poison = format!(
        "ALTER TABLE check_entry ADD CONSTRAINT odd CHECK (\"timestamp\" <> '{}')",
        recently()
    );
    client.batch_execute(&poison).unwrap();
    let rows = store.read_rejected(&RejectedFilter::default(), None, 100).unwrap();
    let replayed = replay(&store, &rows, false).unwrap();
    assert_eq!((replayed.stored, replayed.rejected.len()), (1, 1));
    let left = reasons(&store);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].0, 0);
    assert!(left[0].1.contains("violates check constraint"), "{left:?}");
}

/// Stored and taken out of the list together, or neither.
#[test]
fn a_replay_that_is_cut_off_changes_nothing() {
    let (database, store, site) = with_site("atomic");
    consume(&store, &[encoded(site + 1000, 0)]);
    let mut client = database.client();
    client
        .execute(
            "INSERT INTO website (website_id, name, url) OVERRIDING SYSTEM VALUE \
             VALUES ($1, 'late', 'http://late/')",
            &[&(site + 1000)],
        )
        .unwrap();
    // The removal, which comes after the insert, ends the connection.
    client
        .batch_execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM pg_terminate_backend(pg_backend_pid()); RETURN OLD; END $$; \
             CREATE TRIGGER cut BEFORE DELETE ON rejected_message FOR EACH ROW EXECUTE FUNCTION cut()",
        )
        .unwrap();
    let rows = store.read_rejected(&RejectedFilter::default(), None, 100).unwrap();
    let error = replay(&store, &rows, false).unwrap_err();
    assert!(error.is_outage(), "{error}");
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (0, 1));
    client.batch_execute("DROP TRIGGER cut ON rejected_message").unwrap();
    assert_eq!(replay(&store, &rows, false).unwrap().stored, 1);
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (1, 0));
}

#[test]
fn lists_have_pages_and_filters() {
    let (database, store, _) = with_site("pages");
    let mut client = database.client();
    client
        .batch_execute(
            "INSERT INTO rejected_message (topic, \"partition\", \"offset\", reason, payload, rejected_at) \
             SELECT 't', 1, n, CASE WHEN n % 3 = 0 THEN 'no JSON object' ELSE 'unknown website' END, \
                    'x', now() - (n / 10) * interval '1 hour' FROM generate_series(0, 99) n",
        )
        .unwrap();
    let all = RejectedFilter::default();
    let (mut offsets, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_rejected(&all, after, 7).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.windows(2).all(|w| w[0].rejected_at >= w[1].rejected_at));
        after = Some((last.rejected_at, last.key.clone()));
        offsets.extend(page.iter().map(|row| row.key.offset));
    }
    // Hours newest first; in an hour, of one transaction, by key.
    let expected: Vec<i64> = (0..10).flat_map(|h| (h * 10..h * 10 + 10).rev()).collect();
    assert_eq!(offsets, expected);
    let filter = RejectedFilter {
        reason: Some("json".to_owned()),
        since: Some(now().wall - SignedDuration::from_mins(150)),
        before: Some(now().wall - SignedDuration::from_mins(30)),
        keys: Vec::new(),
    };
    let found = store.list_rejected(&filter, None, 100).unwrap();
    let found: Vec<i64> = found.iter().map(|row| row.key.offset).collect();
    assert_eq!(found, [18, 15, 12, 27, 24, 21]);
    let filter = RejectedFilter { keys: vec![key(5), key(500), key(7)], ..all.clone() };
    assert_eq!(store.count_rejected(&filter).unwrap(), 2);
    let read = store.read_rejected(&all, Some(&key(95)), 3).unwrap();
    let read: Vec<i64> = read.iter().map(|row| row.key.offset).collect();
    assert_eq!(read, [96, 97, 98]);

    assert_eq!(store.delete_rejected(&filter).unwrap(), 2);
    let long_ago: Timestamp = now().wall - SignedDuration::from_mins(270);
    assert_eq!(store.delete_rejected_before(long_ago).unwrap(), 50);
    assert_eq!(count(&database, "rejected_message"), 48);
}

#[test]
fn pages_are_bounded_in_bytes_and_removal_goes_on_to_the_end() {
    let (database, store, _) = with_site("sizes");
    let mut client = database.client();
    client
        .batch_execute(
            "INSERT INTO rejected_message (topic, \"partition\", \"offset\", reason, payload) \
             SELECT 't', 1, n, 'x', convert_to(repeat('x', CASE n WHEN 3 THEN 6000000 ELSE 1500000 END), 'UTF8') \
             FROM generate_series(0, 6) n",
        )
        .unwrap();
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = store.read_rejected(&RejectedFilter::default(), after.as_ref(), 100).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        pages.push(page.iter().map(|row| row.key.offset).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![0, 1], vec![2], vec![3], vec![4, 5], vec![6]]);
    client
        .batch_execute(
            "INSERT INTO rejected_message (topic, \"partition\", \"offset\", reason, payload) \
             SELECT 'u', 1, n, 'x', 'x' FROM generate_series(1, 12000) n",
        )
        .unwrap();
    assert_eq!(store.delete_rejected(&RejectedFilter::default()).unwrap(), 12_007);
    assert_eq!(count(&database, "rejected_message"), 0);
}

#[test]
fn removal_goes_on_past_rows_that_somebody_touches() {
    let (database, store, _) = with_site("touched");
    // As a replay that gives some rows another reason meanwhile: the statement leaves them out.
    database
        .client()
        .batch_execute(
            "INSERT INTO rejected_message (topic, \"partition\", \"offset\", reason, payload) \
             SELECT 't', 1, n, 'x', 'x' FROM generate_series(1, 6000) n; \
             CREATE SEQUENCE deletes; \
             CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('deletes') <= 10 THEN RETURN NULL; END IF; RETURN OLD; END $$; \
             CREATE TRIGGER skip BEFORE DELETE ON rejected_message \
             FOR EACH ROW EXECUTE FUNCTION skip()",
        )
        .unwrap();
    assert_eq!(store.delete_rejected(&RejectedFilter::default()).unwrap(), 6000);
    assert_eq!(count(&database, "rejected_message"), 0);
}
