//! The wall clock of producer and consumer steps, by an hour ahead and by an hour back.
//!
//! A due time is a time of the producer's own clock, so each setting of the clock is a frame of its
//! own: the rows of a frame are moved by its offset and then judged by the clock of the oracle.
//! Around a step a frame begins with what the new time leaves unseen (one late check and one missed
//! per site) and ends in mid-interval: these few due times are excused in it and looked at here.

use std::collections::BTreeMap;
use std::time::Duration;

use webmon::check::Identity;

use crate::history::History;
use crate::lab::{FaultLab, Plan, Who, now_ms};
use crate::oracle::{self, Verdict};
use crate::random;
use crate::report::Line;
use crate::support::clock::Clock;
use crate::support::eventually;
use crate::support::services::{TestDatabase, kafka_servers};

const HOUR_S: i64 = 3600;
const HOUR_MS: i64 = HOUR_S * 1000;
/// How late a step may be noticed, and what was due meanwhile be handed out, in ms.
const NOTICE_MS: i64 = 3000;
/// How far ahead of its own clock a broker takes a record, in seconds
/// (`message.timestamp.after.max.ms`), and some more.
const TOO_FAR_S: i64 = HOUR_S + 600;

const PRODUCER: Who = Who::Producer(0);
const CONSUMER: Who = Who::Consumer(0);

/// When a log line was written, by the clock of the process, in ms.
fn time_of(line: &str) -> i64 {
    let line: serde_json::Value = serde_json::from_str(line).expect("a JSON log line");
    let time: jiff::Timestamp = line["time"].as_str().expect("a time").parse().expect("a time");
    time.as_millisecond()
}

/// The clock's offset in ms, and when it was set, in ms of the right clock.
type Step = (i64, i64);

fn step(lab: &FaultLab, clock: &Clock, steps: &mut Vec<Step>, ahead_s: i64) {
    let seen = |who| lab.daemon(who).log().iter().filter(|l| l.contains("clock stepped")).count();
    let before = seen(PRODUCER);
    let by_s = ahead_s - steps.last().expect("a beginning").0 / 1000;
    steps.push((ahead_s * 1000, now_ms()));
    clock.set(ahead_s);
    eventually("the producer sees the step", || match seen(PRODUCER) {
        seen if seen > before => Ok(()),
        seen => Err(seen),
    });
    let log = lab.daemon(PRODUCER).log();
    let line = log.iter().rev().find(|line| line.contains("clock stepped")).expect("the line");
    let line: serde_json::Value = serde_json::from_str(line).expect("a JSON log line");
    let step_ms = line["step_ms"].as_i64().expect("step_ms");
    assert!((step_ms - by_s * 1000).abs() < 1000, "{line}");
}

/// The rows whose clock was `offset_ms` ahead, by the right clock; `None` when they are none.
fn frame(history: &History, steps: &[Step], offset_ms: i64) -> History {
    let ends = steps.iter().skip(1).map(|(_, at)| *at).chain([i64::MAX]);
    let spans: Vec<(i64, i64)> =
        steps.iter().zip(ends).filter(|(s, _)| s.0 == offset_ms).map(|(s, to)| (s.1, to)).collect();
    let middle_ms = steps[0].1;
    let mut frame = history.clone();
    // No run is as long as half of what lies between two frames.
    frame.rows.retain(|row| (row.due_ms - offset_ms - middle_ms).abs() < TOO_FAR_S * 1000 / 8);
    for row in &mut frame.rows {
        let identity = Identity::new(row.website_id, &history.region);
        let id_at = |ms: i64| {
            identity.check_entry_id(jiff::Timestamp::from_millisecond(ms).expect("a due time"))
        };
        assert_eq!(row.id, id_at(row.due_ms), "its id");
        row.due_ms -= offset_ms;
        // Handed out before a step and begun after it: the start is of the next frame.
        let of_start = |ms: i64| {
            let near = |step: &&Step| (ms - step.0 - row.due_ms).abs() < HOUR_MS / 8;
            let found = steps.iter().find(near).expect("a time of one of the frames").0;
            let is_at_a_step = spans.iter().any(|(_, to)| (to - row.due_ms).abs() < NOTICE_MS);
            assert!(found == offset_ms || is_at_a_step, "{row:?} {steps:?}");
            ms - found
        };
        row.started_ms = row.started_ms.map(of_start);
        row.id = id_at(row.due_ms);
    }
    let interval_ms = history.sites[0].interval_ms;
    if offset_ms != 0 {
        // By this clock the producer lived through the hour that was skipped.
        frame.lives.iter_mut().for_each(|life| life.began_ms -= 2 * interval_ms);
    }
    let tokens: Vec<&String> = frame.rows.iter().flat_map(|row| &row.captures).collect();
    let is_in = |ms: i64| spans.iter().any(|(from, to)| *from <= ms && ms < *to);
    let elsewhere: Vec<&String> = history.rows.iter().flat_map(|row| &row.captures).collect();
    frame.requests.retain(|request| {
        tokens.contains(&&request.token)
            || (is_in(request.arrived_ms) && !elsewhere.contains(&&request.token))
    });
    let mut at_ms = i64::MIN;
    for (from, to) in &spans {
        // The first frame begins in order, the last one ends so.
        let from = if *from == middle_ms { *from } else { from + NOTICE_MS };
        frame.excused.push((at_ms, from));
        frame.starved.push((from - NOTICE_MS - 2 * interval_ms, from));
        at_ms = to.saturating_sub(NOTICE_MS).max(from);
    }
    if at_ms < history.until_ms {
        frame.excused.push((at_ms, i64::MAX));
    }
    // What the new time left unseen: at most one late check and one missed due time per site.
    for site in &history.sites {
        let early: Vec<i64> = frame
            .rows
            .iter()
            .filter(|row| row.website_id == site.website_id && !is_in(row.due_ms))
            .map(|row| row.due_ms)
            .collect();
        let per_step = 2 * spans.len();
        assert!(early.len() <= per_step, "frame {offset_ms}, {site:?}: {early:?} of {spans:?}");
        let is_near = |ms: &i64| {
            spans.iter().any(|(from, to)| {
                (from - 2 * interval_ms..to.saturating_add(NOTICE_MS)).contains(ms)
            })
        };
        assert!(early.iter().all(is_near), "frame {offset_ms}, {site:?}: {early:?} of {spans:?}");
    }
    frame
}

fn add(sum: &mut Verdict, other: Verdict) {
    sum.due += other.due - other.excused;
    for (outcome, count) in other.outcomes {
        *sum.outcomes.entry(outcome).or_default() += count;
    }
    sum.requests += other.requests;
    sum.lost.extend(other.lost);
    sum.twice.extend(other.twice);
    sum.invented.extend(other.invented);
    sum.wrong.extend(other.wrong);
    sum.idle.extend(other.idle);
    sum.rejected = sum.rejected.take().or(other.rejected);
}

/// A site is asked no more often than its interval and one late check for each step explain, and
/// by two checks at once only when the late one meets the next in time.
fn assert_no_burst(history: &History, steps: &[Step]) {
    let ahead: Vec<i64> =
        steps.windows(2).filter(|pair| pair[1].0 > pair[0].0).map(|pair| pair[1].1).collect();
    let mut by_site: BTreeMap<usize, Vec<(i64, i64)>> = BTreeMap::new();
    for request in &history.requests {
        let end_ms = request.answered_ms.unwrap_or(request.arrived_ms);
        by_site.entry(request.site).or_default().push((request.arrived_ms, end_ms));
    }
    for (site, mut times) in by_site {
        let interval_ms = history.sites[site].interval_ms;
        times.sort_unstable();
        let both: Vec<i64> =
            times.windows(2).filter(|pair| pair[1].0 < pair[0].1).map(|pair| pair[1].0).collect();
        let after =
            |step: &i64| both.iter().filter(|ms| (0..interval_ms).contains(&(*ms - step))).count();
        let explained: Vec<usize> = ahead.iter().map(after).collect();
        assert!(explained.iter().all(|count| *count <= 1), "site {site}: {times:?} {steps:?}");
        assert_eq!(explained.iter().sum::<usize>(), both.len(), "site {site}: {times:?} {steps:?}");
        let span_ms = times[times.len() - 1].0 - times[0].0;
        let most = span_ms / interval_ms + 1 + steps.len() as i64;
        assert!(times.len() as i64 <= most, "site {site}: {} checks in {span_ms} ms", times.len());
    }
}

#[test]
fn a_clock_that_steps_costs_no_row_and_makes_no_burst() {
    let plan = Plan { session: 10, ..Plan::new("clock") };
    let mut lab = FaultLab::new(plan, TestDatabase::create(plan.name), &kafka_servers().join(","));
    let clock = Clock::new();
    lab.producer_env.extend(clock.variables());
    lab.consumer_env.extend(clock.variables());
    lab.start_all();
    // Longer than the interval: what was checked before a detour to another time is otherwise the
    // last due time that passed unseen, and is checked again (one row, but two requests).
    let time = Duration::from_secs(if random::is_full() { 20 } else { 8 });
    let mut steps = vec![(0, lab.history.from_ms)];
    let all = [HOUR_S, 0, TOO_FAR_S, 0, -HOUR_S, 0];
    // From one hour on straight to where the broker takes nothing: one way back less.
    let some = [HOUR_S, TOO_FAR_S, 0, -HOUR_S, 0];
    for ahead_s in if random::is_full() { &all[..] } else { &some } {
        let ahead_s = *ahead_s;
        step(&lab, &clock, &mut steps, ahead_s);
        if ahead_s == HOUR_S {
            let log = lab.stop(CONSUMER);
            let time = time_of(log.last().expect("a log line"));
            assert!((time - now_ms() - HOUR_MS).abs() < 60_000, "the consumer saw it: {log:?}");
            lab.start(CONSUMER);
        }
        lab.let_run(time);
        if ahead_s == TOO_FAR_S {
            // What the broker doesn't take waits until the clock is right.
            let line = lab.daemon(PRODUCER).wait_for_log("results wait in the spool");
            assert!(line.contains("InvalidTimestamp"), "{line}");
        }
    }
    let healed_ms = now_ms();
    lab.lab.wait_for_count(
        "new checks pass",
        &format!(
            "SELECT count(*) FROM check_entry WHERE outcome <> 'missed'
             AND timestamp > to_timestamp({healed_ms} / 1000.0)
             AND timestamp < to_timestamp({healed_ms} / 1000.0 + 600)"
        ),
        20,
    );
    let unrecorded = lab.metric(PRODUCER, "webmon_checks_unrecorded_total").unwrap_or(0.0);
    // Of the due times that a step ahead skips two are recorded: one late, one missed.
    let skipped_s: i64 = steps.windows(2).map(|pair| (pair[1].0 - pair[0].0).max(0) / 1000).sum();
    let sites = plan.sites as i64;
    let ahead = steps.windows(2).filter(|pair| pair[1].0 > pair[0].0).count() as i64;
    let wanted = sites * (skipped_s / i64::from(plan.interval) - 2 * ahead);
    assert!((unrecorded as i64 - wanted).abs() <= ahead * sites, "{unrecorded}, not {wanted}");

    let recovery = lab.settle();
    let mut verdict = Verdict::default();
    let mut rows = 0;
    for offset_ms in [0, HOUR_MS, TOO_FAR_S * 1000, -HOUR_MS] {
        let frame = frame(&lab.history, &steps, offset_ms);
        assert!(frame.rows.len() >= plan.sites, "the processes saw this time: {offset_ms}");
        rows += frame.rows.len();
        let found = oracle::judge(&frame);
        assert_eq!(found.faults(), Vec::<String>::new(), "frame {offset_ms}: {steps:?}");
        add(&mut verdict, found);
    }
    assert_eq!(rows, lab.history.rows.len(), "each row is of one of these times");
    assert_no_burst(&lab.history, &steps);
    let fault = "Clock of producer and consumer stepped by ±1 h";
    let injected = format!(
        "{} steps, once too far for the broker; each seen in the producer's log; {unrecorded} due times skipped by the clock",
        steps.len() - 1,
    );
    Line { place: 210, fault, injected: &injected, verdict: &verdict, recovery }.write();
}
