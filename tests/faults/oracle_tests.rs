//! The oracle itself: made-up histories with one fault each, which it must find.

use webmon::check::Identity;
use webmon::schedule::lattice;
use webmon::site::Interval;

use crate::history::{Ending, History, Life, Page, Request, Row, Site};
use crate::oracle::{LOSS_WINDOW_MS, PROBE_END_MS, RESPONSE_SLACK_MS, Verdict, judge, unstored};

const INTERVAL_MS: i64 = 5000;
const REGION: &str = "r";
const BEGIN_MS: i64 = 1_000_000;
const END_MS: i64 = BEGIN_MS + 100_000;
const PAGES: [Page; 4] = [Page::Plain, Page::Broken, Page::Slow, Page::Moved];

fn life(producer: &str, number: u32, began_ms: i64) -> Life {
    Life {
        producer: producer.to_owned(),
        name: format!("{producer}/{number}"),
        began_ms,
        ready_ms: Some(began_ms + 10),
        ended: None,
        gone_ms: None,
    }
}

fn identity(site: usize) -> Identity {
    Identity::new(i64::try_from(site).unwrap() + 1, REGION)
}

/// The due times of a site between two times.
fn due_times(site: usize, from_ms: i64, to_ms: i64) -> Vec<i64> {
    let offset = identity(site).offset_ms(Interval::from_secs(5).unwrap());
    let next = |after: &i64| Some(lattice::next_due(*after, offset, INTERVAL_MS));
    std::iter::successors(next(&from_ms), next).take_while(|due| *due < to_ms).collect()
}

/// A request of that life for that due time, and its row.
fn check(site: usize, due_ms: i64, life: &str) -> (Request, Row) {
    let page = PAGES[site];
    let delay_ms = if page == Page::Slow { 300 } else { 0 };
    let request = Request {
        site,
        life: life.to_owned(),
        token: format!("{site}-{due_ms}-{life}"),
        arrived_ms: due_ms + 3,
        answered_ms: Some(due_ms + 4 + i64::try_from(delay_ms).unwrap()),
        delay_ms,
        bytes: 20,
    };
    let is_broken = page == Page::Broken;
    let row = Row {
        website_id: i64::try_from(site).unwrap() + 1,
        due_ms,
        started_ms: Some(due_ms + 1),
        id: identity(site).check_entry_id(jiff::Timestamp::from_millisecond(due_ms).unwrap()),
        region: REGION.to_owned(),
        outcome: if is_broken { "down" } else { "up" }.to_owned(),
        failure_kind: is_broken.then(|| "status".to_owned()),
        http_status: Some(if is_broken { 503 } else { 200 }),
        body_bytes: Some(20),
        redirects: Some(i16::from(page == Page::Moved)),
        regex_match: Some(true),
        captures: vec![request.token.clone()],
        response_time: Some(0.004 + delay_ms as f64 / 1000.0),
    };
    (request, row)
}

/// All checks of that life between two times.
fn checks(history: &mut History, life: &str, from_ms: i64, to_ms: i64) {
    for site in 0..PAGES.len() {
        for due_ms in due_times(site, from_ms, to_ms) {
            let (request, row) = check(site, due_ms, life);
            history.requests.push(request);
            history.rows.push(row);
        }
    }
}

fn empty() -> History {
    let site = |n: usize| Site {
        website_id: i64::try_from(n).unwrap() + 1,
        interval_ms: INTERVAL_MS,
        page: PAGES[n],
    };
    History {
        region: REGION.to_owned(),
        sites: (0..PAGES.len()).map(site).collect(),
        session_ms: 6000,
        from_ms: BEGIN_MS + 1000,
        until_ms: END_MS - 1000,
        ..History::default()
    }
}

/// One producer, and nothing happened to it.
fn calm() -> History {
    let mut history = empty();
    history.lives.push(life("p", 0, BEGIN_MS));
    checks(&mut history, "p/0", BEGIN_MS + 10, END_MS);
    history
}

const KILL_MS: i64 = BEGIN_MS + 50_000;

/// The same, killed at [`KILL_MS`] and ready again `dead_ms` later. What was answered within the
/// window before has no row.
fn killed(dead_ms: i64) -> History {
    let mut history = empty();
    let mut first = life("p", 0, BEGIN_MS);
    first.ended = Some(Ending::Killed { from_ms: KILL_MS });
    first.gone_ms = Some(KILL_MS + 1);
    history.lives = vec![first, life("p", 1, KILL_MS + dead_ms - 10)];
    checks(&mut history, "p/0", BEGIN_MS + 10, KILL_MS);
    checks(&mut history, "p/1", KILL_MS + dead_ms, END_MS);
    history
}

/// Two producers, one of which is killed for good; the other has its sites `later_ms` after.
fn taken_over(later_ms: i64) -> History {
    let mut history = empty();
    let mut dead = life("a", 0, BEGIN_MS);
    dead.ended = Some(Ending::Killed { from_ms: KILL_MS });
    dead.gone_ms = Some(KILL_MS + 1);
    history.lives = vec![dead, life("b", 0, BEGIN_MS)];
    let mut all = empty();
    checks(&mut all, "a/0", BEGIN_MS + 10, KILL_MS);
    all.requests.retain(|request| request.site < 2);
    all.rows.retain(|row| row.website_id <= 2);
    history.requests.append(&mut all.requests);
    history.rows.append(&mut all.rows);
    checks(&mut all, "b/0", BEGIN_MS + 10, END_MS);
    let is_b = |site: usize, ms: i64| site >= 2 || ms > KILL_MS + later_ms;
    all.requests.retain(|request| is_b(request.site, request.arrived_ms));
    all.rows.retain(|row| is_b(usize::try_from(row.website_id).unwrap() - 1, row.due_ms + 3));
    history.requests.append(&mut all.requests);
    history.rows.append(&mut all.rows);
    history
}

#[track_caller]
fn assert_clean(history: &History) -> Verdict {
    let verdict = judge(history);
    assert!(verdict.faults().is_empty(), "{verdict:#?}");
    verdict
}

/// Expects faults whose texts hold each of `expected`, and no others.
#[track_caller]
fn assert_faults(history: &History, expected: &[&str]) {
    let verdict = judge(history);
    let faults = verdict.faults();
    for text in expected {
        assert!(faults.iter().any(|fault| fault.contains(text)), "no '{text}' in {faults:#?}");
    }
    let is_expected = |fault: &String| expected.iter().any(|text| fault.contains(text));
    assert!(faults.iter().all(is_expected), "more than {expected:?}: {faults:#?}");
}

#[test]
fn a_calm_history_is_clean() {
    let verdict = assert_clean(&calm());
    assert_eq!(verdict.due, 4 * 20 - 2, "{verdict:?}");
    let none = (verdict.cut, verdict.uncovered, verdict.orphaned, verdict.overlaps);
    assert_eq!(none, (0, 0, 0, 0));
    assert!(unstored(&calm(), i64::MAX).is_empty());
}

#[test]
fn a_lost_row_is_found() {
    let mut history = calm();
    let lost = history.rows.remove(17);
    assert_faults(&history, &["no row of Request", "no row of site 0"]);
    assert_eq!(unstored(&history, i64::MAX).len(), 1);
    assert!(unstored(&history, lost.due_ms).is_empty(), "it came later");
    // Also when nobody was ever asked.
    history.requests.remove(17);
    assert_faults(&history, &["no row of site 0"]);
}

#[test]
fn a_second_row_is_found() {
    let mut history = calm();
    let mut again = history.rows[3].clone();
    again.id = uuid::Uuid::nil();
    history.rows.push(again);
    assert_faults(&history, &["twice", "not its id"]);
    let mut history = calm();
    let mut next = history.rows[4].clone();
    next.captures.clone_from(&history.rows[3].captures);
    history.rows[4] = next;
    assert_faults(&history, &["one request, two rows", "no row of Request", "request before"]);
}

#[test]
fn an_invented_row_is_found() {
    let mut history = calm();
    history.rows[3].captures = vec!["0-no-such".to_owned()];
    assert_faults(&history, &["no such token", "no row of Request"]);
    let mut history = calm();
    let (request, mut row) = check(0, due_times(0, END_MS, END_MS + 10_000)[0], "p/0");
    row.due_ms += 1;
    row.id = identity(0).check_entry_id(jiff::Timestamp::from_millisecond(row.due_ms).unwrap());
    history.requests.push(request);
    history.rows.push(row);
    assert_faults(&history, &["was not due"]);
    let mut history = calm();
    history.rows[3].website_id = 99;
    assert_faults(&history, &["unknown site", "no row of"]);
}

#[test]
fn a_row_from_when_nobody_lived_is_invented() {
    let mut history = killed(20_000);
    let due_ms = due_times(0, KILL_MS + 5000, END_MS)[0];
    let (request, row) = check(0, due_ms, "p/0");
    history.requests.push(request);
    history.rows.push(row);
    assert_faults(&history, &["was not due"]);
}

#[test]
fn every_wrong_value_is_found() {
    type Spoil = fn(&mut Row);
    let wrong: [(&str, Spoil); 13] = [
        ("outcome", |row| row.outcome = "down".to_owned()),
        ("failure_kind", |row| row.failure_kind = Some("status".to_owned())),
        ("http_status", |row| row.http_status = Some(204)),
        ("body_bytes", |row| row.body_bytes = Some(19)),
        ("redirects", |row| row.redirects = None),
        ("regex_match", |row| row.regex_match = Some(false)),
        ("response_time", |row| row.response_time = Some(0.0)),
        ("response_time", |row| row.response_time = None),
        ("early start", |row| row.started_ms = Some(row.due_ms - 1)),
        ("request before the start", |row| row.started_ms = Some(row.due_ms + 100)),
        ("past the next due time", |row| row.started_ms = Some(row.due_ms + INTERVAL_MS)),
        ("not our region", |row| row.region = "s".to_owned()),
        ("two tokens", |row| row.captures.push("x".to_owned())),
    ];
    for (what, spoil) in wrong {
        let mut history = calm();
        spoil(&mut history.rows[3]);
        let faults = judge(&history).faults();
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
    }
    let mut history = calm();
    let slow = history.rows.iter_mut().find(|row| row.website_id == 3).unwrap();
    slow.response_time = Some(0.2);
    assert_faults(&history, &["response_time"]);
}

/// Lateness of the check, or of its result, is no part of the response time.
#[test]
fn a_response_time_with_something_else_in_it_is_found() {
    let mut history = calm();
    let slow = history.requests.iter().position(|request| request.site == 2).unwrap();
    let took_ms = history.requests[slow].answered_ms.unwrap() - history.requests[slow].arrived_ms;
    let most_ms = took_ms + RESPONSE_SLACK_MS;
    history.rows[slow].response_time = Some(most_ms as f64 / 1000.0);
    assert_clean(&history);
    history.rows[slow].response_time = Some((most_ms + 1) as f64 / 1000.0);
    assert_faults(&history, &["a long response_time"]);
}

#[test]
fn a_missed_row_holds_nothing_and_a_failure_must_be_explained() {
    let mut history = calm();
    let asked = history.requests.remove(3);
    let row = &mut history.rows[3];
    row.captures.clear();
    row.outcome = "down".to_owned();
    row.failure_kind = Some("timeout".to_owned());
    assert_faults(&history, &["no token"]);
    history.tolerated = vec!["timeout"];
    assert_eq!(assert_clean(&history).troubled, 1);
    history.rows[3].outcome = "missed".to_owned();
    assert_faults(&history, &["missed, yet checked", "missed for no reason"]);
    let row = &mut history.rows[3];
    (row.http_status, row.response_time, row.started_ms) = (None, None, None);
    let due_ms = row.due_ms;
    // Nothing was done to the producer: it has no reason to miss anything.
    assert_faults(&history, &["missed for no reason"]);
    history.starved.push((due_ms, due_ms));
    assert_clean(&history);
    history.tolerated.clear();
    history.requests.push(asked);
    assert_faults(&history, &["no row of Request"]);
}

#[test]
fn a_kill_takes_only_what_was_answered_within_the_window() {
    let mut history = killed(300);
    let last = history.requests.iter().position(|request| request.life == "p/1").unwrap() - 1;
    let token = history.requests[last].token.clone();
    history.rows.retain(|row| row.captures != [token.clone()]);
    history.requests[last].answered_ms = Some(KILL_MS - LOSS_WINDOW_MS - PROBE_END_MS);
    let verdict = assert_clean(&history);
    assert_eq!((verdict.cut, verdict.cut_oldest_ms), (1, LOSS_WINDOW_MS + PROBE_END_MS));
    history.requests[last].answered_ms = Some(KILL_MS - LOSS_WINDOW_MS - PROBE_END_MS - 1);
    assert!(judge(&history).faults().iter().any(|fault| fault.contains("no row of Request")));
    // Without a kill nothing is cut.
    history.requests[last].answered_ms = Some(KILL_MS - 1);
    history.lives[0].ended = Some(Ending::Stopped { from_ms: KILL_MS });
    assert!(judge(&history).faults().iter().any(|fault| fault.contains("no row of Request")));
}

#[test]
fn due_times_without_a_producer_are_counted_and_those_after_it_demanded() {
    let verdict = assert_clean(&killed(12_000));
    assert!((8..=10).contains(&verdict.uncovered), "{verdict:?}");
    // One that is back has to check.
    let mut history = killed(12_000);
    history.lives[1].ready_ms = Some(KILL_MS + 1000);
    assert_faults(&history, &["no row of site"]);
}

#[test]
fn sites_go_on_within_the_session_timeout_and_one_interval() {
    let verdict = assert_clean(&taken_over(8000));
    assert!((2..=4).contains(&verdict.orphaned), "{verdict:?}");
    assert!((0..=8000).contains(&verdict.orphaned_ms), "{verdict:?}");
    assert_faults(&taken_over(17_000), &["no row of site"]);
    // A broker that is away meanwhile explains more.
    let mut history = taken_over(17_000);
    history.kafka_away.push((KILL_MS + 2000, KILL_MS + 7000));
    assert_clean(&history);
}

/// A row that says only that a due time of the site passed.
fn miss(history: &mut History, site: usize, due_ms: i64) {
    let identity = identity(site);
    let is_it = |row: &&mut Row| {
        (row.id, row.due_ms)
            == (identity.check_entry_id(jiff::Timestamp::from_millisecond(due_ms).unwrap()), due_ms)
    };
    let row = history.rows.iter_mut().find(is_it).unwrap();
    row.outcome = "missed".to_owned();
    let token = row.captures.pop().unwrap();
    (row.http_status, row.response_time, row.started_ms) = (None, None, None);
    (row.failure_kind, row.body_bytes, row.redirects, row.regex_match) = (None, None, None, None);
    history.requests.retain(|request| request.token != token);
}

#[test]
fn a_missed_row_needs_a_stop_or_a_new_share() {
    // Two producers, one of which dies: shares change, and not before.
    let after_ms = due_times(3, KILL_MS + 1000, END_MS)[0];
    let mut history = taken_over(8000);
    miss(&mut history, 3, after_ms);
    assert_clean(&history);
    miss(&mut history, 3, due_times(3, KILL_MS - 20_000, END_MS)[0]);
    assert_faults(&history, &["missed for no reason"]);
    // Alone, nobody deals; a kill leaves nothing behind that could say so.
    let mut history = killed(300);
    miss(&mut history, 3, after_ms);
    assert_faults(&history, &["missed for no reason"]);
    // A stop records what waits.
    let mut history = killed(300);
    history.lives[0].ended = Some(Ending::Stopped { from_ms: KILL_MS });
    let before_ms = *due_times(3, BEGIN_MS, KILL_MS).last().unwrap();
    miss(&mut history, 3, before_ms);
    assert_clean(&history);
}

/// Who stops in order hands its sites over; only without a broker it can't.
#[test]
fn a_stop_of_one_of_two_leaves_no_gap() {
    let stopped = |later_ms| {
        let mut history = taken_over(later_ms);
        history.lives[0].ended = Some(Ending::Stopped { from_ms: KILL_MS });
        history.lives[0].gone_ms = Some(KILL_MS + 100);
        history
    };
    assert_clean(&stopped(0));
    assert_faults(&stopped(5000), &["no row of site"]);
    let mut history = stopped(5000);
    history.kafka_away.push((KILL_MS - 1000, KILL_MS + 1000));
    assert!(assert_clean(&history).orphaned > 0);
}

#[test]
fn the_sites_of_who_lives_have_no_gap() {
    let mut history = taken_over(8000);
    let due_ms = due_times(3, KILL_MS, END_MS)[0];
    history.rows.retain(|row| (row.website_id, row.due_ms) != (4, due_ms));
    history.requests.retain(|request| request.token != format!("3-{due_ms}-b/0"));
    assert_faults(&history, &["no row of site 3"]);
}

#[test]
fn a_due_time_checked_by_two_is_one_row() {
    let mut history = calm();
    history.lives.push(life("q", 0, BEGIN_MS));
    let (request, row) = check(1, due_times(1, BEGIN_MS + 20_000, END_MS)[0], "q/0");
    history.requests.push(request.clone());
    assert_eq!(assert_clean(&history).overlaps, 1);
    history.rows.push(row);
    assert_faults(&history, &["twice"]);
    // A request of its own is no excuse for a producer that lost another one's row.
    history.rows.retain(|row| !(row.website_id == 2 && row.due_ms == request.arrived_ms - 3));
    assert!(judge(&history).lost.len() >= 2, "{:?}", judge(&history));
}

#[test]
fn rejected_messages_are_counted() {
    let mut history = calm();
    history.rejected = 1;
    assert_faults(&history, &["1 rejected"]);
    history.rejected_wanted = 1;
    assert_clean(&history);
}
