//! Checks into the table and back.

use std::sync::Barrier;

use jiff::Timestamp;
use webmon::check::{Check, Failure, FailureKind, Identity, Outcome, Phases};
use webmon::store::{Rejected, StoredCheck};

use super::{check_at, checks, count, recently, with_site};

fn full(website_id: i64) -> Check<'static> {
    let due = recently();
    let identity = Identity::new(website_id, "eu-west");
    let base = Check::empty(&identity, website_id, "http://a/".into(), "eu-west".into(), due);
    Check {
        started_at: Some("2026-01-02T03:04:05.678901Z".parse().unwrap()),
        outcome: Outcome::Down,
        failure: Some(Failure::new(FailureKind::Regex, "not \"found\" in \\ {it} ä")),
        response_time: Some(0.123_456),
        phases: Phases {
            resolve: Some(0.01),
            connect: Some(0.000_002),
            tls: Some(0.3),
            processing: Some(12.345_678),
            transfer: Some(0.0),
        },
        http_status: Some(503),
        redirects: Some(3),
        body_bytes: Some(2_147_483_647),
        regex: Some("(a|b)\\d \"x\"".into()),
        regex_match: Some(false),
        regex_captures: Some(vec![
            "plain".into(),
            "".into(),
            "NULL".into(),
            "a \"quote\", a \\ and {braces}\nü".into(),
        ]),
        certificate_expires_at: Some("9999-12-30T00:00:00Z".parse().unwrap()),
        last_hop: Some(Phases {
            resolve: Some(0.000_001),
            connect: Some(0.000_2),
            tls: None,
            processing: Some(9.876_543),
            transfer: Some(0.0),
        }),
        tries: Some(255),
        unreachable_self: true,
        ..base
    }
}

fn expected(check: &Check<'_>) -> StoredCheck {
    let own = |text: &Option<std::borrow::Cow<'_, str>>| text.as_ref().map(ToString::to_string);
    StoredCheck {
        check_entry_id: check.check_entry_id,
        website_id: check.website_id,
        timestamp: check.scheduled_at,
        started_at: check.started_at,
        certificate_expires_at: check.certificate_expires_at,
        response_time: check.response_time,
        phases: check.phases,
        http_status: check.http_status.map(i32::from),
        body_bytes: check.body_bytes.map(|bytes| i32::try_from(bytes).unwrap()),
        redirects: check.redirects.map(|n| i16::try_from(n).unwrap()),
        outcome: check.outcome.as_str().to_owned(),
        failure_kind: check.failure.as_ref().map(|f| f.kind.as_str().to_owned()),
        region: check.region.to_string(),
        regex_match: check.regex_match,
        regex: own(&check.regex),
        failure_detail: check.failure.as_ref().map(|f| f.detail.to_string()),
        regex_captures: check
            .regex_captures
            .as_ref()
            .map(|all| all.iter().map(ToString::to_string).collect()),
        tries: check.tries.map(i16::from),
        last_hop: check.last_hop,
        unreachable_self: check.unreachable_self,
    }
}

#[test]
fn both_ways_in_keep_every_value() {
    let (_database, store, site) = with_site("values");
    // The second batch has a known row, so that it goes by arrays.
    let by_copy = [full(site), check_at(site, recently(), 60)];
    let mut later = full(site);
    later.check_entry_id = check_at(site, recently(), 120).check_entry_id;
    later.scheduled_at = check_at(site, recently(), 120).scheduled_at;
    let none = Check { regex_captures: Some(vec![]), ..check_at(site, recently(), 180) };
    let by_arrays = [by_copy[1].clone(), later, none, check_at(site, recently(), 240)];
    let saved = store.insert_checks(&by_copy).unwrap();
    assert_eq!((saved.inserted, saved.known, saved.refused.len()), (2, 0, 0));
    let saved = store.insert_checks(&by_arrays).unwrap();
    assert_eq!((saved.inserted, saved.known, saved.refused.len()), (3, 1, 0));
    for check in by_copy.iter().chain(&by_arrays) {
        let found = store.find_check(check.check_entry_id).unwrap();
        assert_eq!(found, Some(expected(check)));
    }
    assert_eq!(store.find_check(uuid::Uuid::nil()).unwrap(), None);
    assert_eq!(store.find_check(uuid::Uuid::max()).unwrap(), None);
}

#[test]
fn duplicates_are_one_row() {
    let (database, store, site) = with_site("duplicates");
    let mut batch = checks(site, 100);
    batch.extend(checks(site, 10));
    let saved = store.insert_checks(&batch).unwrap();
    assert_eq!((saved.inserted, saved.known), (100, 10));
    let saved = store.insert_checks(&checks(site, 150)).unwrap();
    assert_eq!((saved.inserted, saved.known), (50, 100));
    assert_eq!(count(&database, "check_entry"), 150);
}

#[test]
fn bad_rows_are_refused_and_the_others_stay() {
    let (database, store, site) = with_site("bad");
    let mut batch = checks(site, 40);
    let at = |time: &str| -> Timestamp { time.parse().unwrap() };
    batch[3].regex = Some("a\0b".into());
    batch[7].response_time = Some(f64::NAN);
    batch[11].phases.connect = Some(f64::INFINITY);
    batch[13].scheduled_at = at("2015-01-01T00:00:00Z");
    batch[17].scheduled_at = at("9999-12-30T00:00:00Z");
    batch[19].started_at = Some(Timestamp::MIN);
    let saved = store.insert_checks(&batch).unwrap();
    assert_eq!((saved.inserted, saved.known), (34, 0));
    let reasons: Vec<String> =
        saved.refused.iter().map(|(index, reason)| format!("{index}: {reason}")).collect();
    assert_eq!(
        reasons,
        [
            "3: regex has a NUL character",
            "7: response_time is no number of seconds",
            "11: connect is no number of seconds",
            "13: no partition for its time 2015-01-01T00:00:00Z",
            "17: due at 9999-12-30T00:00:00Z, more than 24 h ahead",
            "19: started_at is before the year 1",
        ]
    );
    assert_eq!(count(&database, "check_entry"), 34);
}

#[test]
fn a_row_the_server_refuses_is_found_with_and_without_its_line() {
    let (database, store, site) = with_site("constraint");
    database
        .client()
        .batch_execute("ALTER TABLE check_entry ADD CHECK (regex <> 'poison')")
        .unwrap();
    let mut batch = checks(site, 100);
    for index in [20, 70] {
        batch[index].regex = Some("poison".into());
    }
    // First by COPY, which names the line; then among known rows, by arrays, which don't.
    for (expected, extra) in [((98, 0), 100), ((50, 98), 150)] {
        let more = checks(site, extra);
        batch.extend_from_slice(&more[batch.len().min(more.len())..]);
        let saved = store.insert_checks(&batch).unwrap();
        assert_eq!((saved.inserted, saved.known), expected);
        let refused: Vec<usize> = saved.refused.iter().map(|(index, _)| *index).collect();
        assert_eq!(refused, [20, 70]);
        assert!(saved.refused[0].1.contains("violates check constraint"), "{:?}", saved.refused);
    }
}

#[test]
fn checks_of_unknown_sites_are_refused_until_the_site_is_there() {
    let (database, store, site) = with_site("unknown");
    let batch = [check_at(site, recently(), 0), check_at(4711, recently(), 0)];
    let saved = store.insert_checks(&batch).unwrap();
    assert_eq!((saved.inserted, saved.known), (1, 0));
    assert_eq!(saved.refused, [(1, "unknown website".to_owned())]);
    database
        .client()
        .batch_execute(
            "INSERT INTO website (website_id, name, url, status) OVERRIDING SYSTEM VALUE \
             VALUES (4711, 'late', 'http://late/', 'paused')",
        )
        .unwrap();
    let saved = store.insert_checks(&batch).unwrap();
    assert_eq!((saved.inserted, saved.known), (1, 1));
    assert!(store.known_site_ids().unwrap().contains(&4711));
}

#[test]
fn rejected_messages_are_kept_once_and_with_their_batch() {
    let (database, store, site) = with_site("rejected");
    let payload = vec![0xff; 5 << 20];
    let rejected = |offset, reason| Rejected {
        topic: "webmon",
        partition: 3,
        offset,
        reason,
        payload: &payload[..],
    };
    let long = "x".repeat(1000);
    // 15 MiB: more than one statement takes.
    let all = [rejected(7, "bad"), rejected(8, "a\0b"), rejected(9, &long), rejected(7, "twice")];
    let saved = store.save_batch(&checks(site, 2), &all).unwrap();
    assert_eq!(saved.inserted, 2);
    store.save_batch(&checks(site, 2), &all).unwrap();
    store.reject(&all).unwrap();
    let rows = database
        .client()
        .query(
            "SELECT topic, \"partition\", \"offset\", reason, length(payload) \
                FROM rejected_message ORDER BY 3",
            &[],
        )
        .unwrap();
    let row = |i: usize| -> (String, i32, i64, String, i32) {
        (rows[i].get(0), rows[i].get(1), rows[i].get(2), rows[i].get(3), rows[i].get(4))
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(row(0), ("webmon".to_owned(), 3, 7, "bad".to_owned(), 5 << 20));
    assert_eq!(row(1).3, "a b");
    assert_eq!(row(2).3.len(), 500);
    assert_eq!(store.save_batch(&[], &[]).unwrap(), webmon::store::Saved::default());
}

#[test]
fn overlapping_writers_neither_deadlock_nor_double() {
    let (database, store, site) = with_site("overlap");
    let (all, barrier) = (checks(site, 6000), Barrier::new(4));
    let inserted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_usize)
            .map(|thread| {
                let (store, all, barrier) = (store.clone(), &all, &barrier);
                scope.spawn(move || {
                    let mut sum = 0;
                    for round in 0..5 {
                        let mut batch = all[round * 1000..round * 1000 + 2000].to_vec();
                        // Each in an order of its own.
                        batch.rotate_left(thread * 300);
                        barrier.wait();
                        sum += store.insert_checks(&batch).unwrap().inserted;
                    }
                    sum
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(inserted, 6000);
    assert_eq!(count(&database, "check_entry"), 6000);
}

#[test]
fn recent_checks_go_on_where_they_ended() {
    let (_database, store, site) = with_site("recent");
    assert!(store.recent_checks(None, 10).unwrap().is_empty());
    let all = checks(site, 30);
    store.insert_checks(&all).unwrap();
    let newest = store.recent_checks(None, 10).unwrap();
    let times: Vec<Timestamp> = newest.iter().map(|check| check.timestamp).collect();
    let expected: Vec<Timestamp> = all[..10].iter().rev().map(|c| c.scheduled_at).collect();
    assert_eq!(times, expected);
    let after = &all[20];
    let rest = store.recent_checks(Some((after.scheduled_at, after.check_entry_id)), 5).unwrap();
    let times: Vec<Timestamp> = rest.iter().map(|check| check.timestamp).collect();
    let expected: Vec<Timestamp> = all[15..20].iter().rev().map(|c| c.scheduled_at).collect();
    assert_eq!(times, expected);
    let latest = store.latest_checks(site, all[29].scheduled_at, 2).unwrap();
    assert_eq!(latest[0].timestamp, all[0].scheduled_at);
    assert_eq!(latest.len(), 2);
}

/// Rows that are bad in three ways: found here, by the server in a row, and by the table.
fn spoil(check: &mut Check<'_>, way: usize) -> &'static str {
    match way % 3 {
        0 => {
            check.phases.tls = Some(f64::NAN);
            "tls is no number of seconds"
        }
        1 => {
            check.regex = Some("poison".into());
            "violates check constraint"
        }
        _ => {
            check.scheduled_at = "2015-01-01T00:00:00Z".parse().unwrap();
            "no partition for its time"
        }
    }
}

#[test]
fn only_the_bad_rows_are_refused_wherever_they_stand() {
    let (database, store, site) = with_site("positions");
    let mut client = database.client();
    client.batch_execute("ALTER TABLE check_entry ADD CHECK (regex <> 'poison')").unwrap();
    const ROWS: usize = 40;
    let positions: [&[usize]; 7] =
        [&[0], &[ROWS - 1], &[17], &[0, ROWS - 1], &[5, 6, 7, 8], &[1, 13, 14, 25, 39], &[]];
    let all: Vec<usize> = (0..ROWS).collect();
    // As new rows; among known ones, so that they go by arrays; and only known ones beside them.
    for known in [0, 3, ROWS] {
        for bad in positions.into_iter().chain([all.as_slice()]) {
            client.batch_execute("TRUNCATE check_entry").unwrap();
            let mut batch = checks(site, ROWS as i64);
            let is_good = |index: &usize| !bad.contains(index);
            let good: Vec<usize> = all.iter().copied().filter(is_good).collect();
            let before: Vec<_> = good.iter().take(known).map(|i| batch[*i].clone()).collect();
            assert_eq!(store.insert_checks(&before).unwrap().inserted, before.len());
            let reasons: Vec<&str> =
                bad.iter().map(|index| spoil(&mut batch[*index], *index)).collect();
            let saved = store.insert_checks(&batch).unwrap();
            let refused: Vec<usize> = saved.refused.iter().map(|(index, _)| *index).collect();
            assert_eq!(refused, bad, "{known} known: {:?}", saved.refused);
            for ((_, reason), expected) in saved.refused.iter().zip(reasons) {
                assert!(reason.contains(expected), "{reason}: {expected}");
            }
            assert_eq!((saved.inserted, saved.known), (good.len() - before.len(), before.len()));
            for index in good {
                let id = batch[index].check_entry_id;
                assert!(store.find_check(id).unwrap().is_some(), "row {index} of {bad:?}");
            }
        }
    }
}

#[test]
fn a_clock_may_be_off_by_an_hour_but_not_by_days() {
    let (database, store, site) = with_site("clocks");
    let hours = [-24, -1, 1, 23, 25, 24 * 10];
    let batch: Vec<_> = hours.map(|h| check_at(site, recently(), -h * 3600)).into();
    let saved = store.insert_checks(&batch).unwrap();
    assert_eq!(saved.inserted, 4);
    let refused: Vec<usize> = saved.refused.iter().map(|(index, _)| *index).collect();
    assert_eq!(refused, [4, 5], "there are partitions for both: {:?}", saved.refused);
    assert!(saved.refused.iter().all(|(_, reason)| reason.ends_with("more than 24 h ahead")));
    assert_eq!(count(&database, "check_entry WHERE \"timestamp\" > now() + interval '1 day'"), 0);
    let days = count(&database, "pg_inherits WHERE inhparent = 'check_entry'::regclass");
    assert!(days > 12, "a day without a partition would prove nothing");
}

#[test]
fn checks_of_a_deleted_site_are_stored_as_long_as_its_row_is_there() {
    let (database, store, site) = with_site("removed");
    let all = checks(site, 40);
    let mut client = database.client();
    assert_eq!(store.insert_checks(&all[..10]).unwrap().inserted, 10);
    client
        .execute("UPDATE website SET status = 'deleted' WHERE website_id = $1", &[&site])
        .unwrap();
    // What was still on its way when somebody deleted the site.
    assert_eq!(store.insert_checks(&all[10..20]).unwrap().inserted, 10);
    // Once more, so that the store has seen the site since that change.
    assert_eq!(store.insert_checks(&all[10..20]).unwrap().known, 10);
    client.execute("DELETE FROM website WHERE website_id = $1", &[&site]).unwrap();
    let saved = store.insert_checks(&all[20..30]).unwrap();
    assert_eq!((saved.inserted, saved.refused.len()), (0, 10));
    assert!(saved.refused.iter().all(|(_, reason)| reason == "unknown website"));
    assert_eq!(count(&database, "check_entry"), 20, "what is stored stays");
    // Somebody puts it back under the same id.
    client
        .execute(
            "INSERT INTO website (website_id, name, url) OVERRIDING SYSTEM VALUE \
             VALUES ($1, 'back', 'http://back/')",
            &[&site],
        )
        .unwrap();
    assert_eq!(store.insert_checks(&all[20..30]).unwrap().inserted, 10);
}

#[test]
fn a_reason_that_cannot_be_kept_is_kept_plain() {
    let (database, store, site) = with_site("plain");
    // As a database says that has no such letters.
    let rule = "ALTER TABLE rejected_message ADD CHECK (reason !~ '[^ -~]')";
    database.client().batch_execute(rule).unwrap();
    let message = |offset, reason| Rejected {
        topic: "webmon",
        partition: 3,
        offset,
        reason,
        payload: "ä".as_bytes(),
    };
    let messages = [message(1, "no \"ä\" here"), message(2, "plain")];
    let saved = store.save_batch(&checks(site, 3), &messages).unwrap();
    assert_eq!((saved.inserted, saved.refused.len()), (3, 0));
    store.reject(&[message(3, "€\n")]).unwrap();
    let rows = database.client().query("SELECT reason FROM rejected_message ORDER BY 1", &[]);
    let reasons: Vec<String> = rows.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(reasons, ["??", "no \"?\" here", "plain"]);
}
