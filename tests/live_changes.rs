//! What the operator's command changes is in force in all producers within 2 s: what is due later
//! than that after the change follows it, whoever checks the site.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests too

mod support;

use serde_json::Value;
use support::daemon::{Daemon, Lab};
use support::eventually;
use support::web::Web;
use webmon::check::Identity;
use webmon::runtime::now;
use webmon::schedule::lattice::{is_due_time, next_due};
use webmon::site::Interval;

/// Within that a change is in force.
const IN_FORCE_MS: i64 = 2000;
/// Sites at the beginning; both producers have some.
const SITES: usize = 16;
const INTERVAL_S: u32 = 5;
const CHANGED_S: u32 = 7;
/// So many due times are looked at after each change.
const ROUNDS: i64 = 2;

/// Two producers, a consumer, and a web server with a page a site.
struct Fleet {
    lab: Lab,
    web: Web,
    producers: Vec<Daemon>,
    consumer: Daemon,
}

fn sites_of(daemon: &Daemon) -> usize {
    support::topic::metric(daemon, "webmon_sites") as usize
}

impl Fleet {
    fn start() -> Self {
        let web = Web::start(|_| (200, "fine".to_owned()));
        let mut lab = Lab::new("live");
        assert!(lab.run(&["migrate"]).status.success());
        lab.database.client().batch_execute("DELETE FROM website").unwrap();
        let consumer = lab.start("consumer", &[]);
        let producers: Vec<Daemon> = (0..2)
            .map(|number| {
                let spool = lab.dir.path().join(format!("spool-{number}")).display().to_string();
                lab.set("WEBMON_PRODUCER_SPOOL_DIR", &spool);
                lab.start("producer", &[])
            })
            .collect();
        let fleet = Self { lab, web, producers, consumer };
        let names: Vec<String> = (0..SITES).map(|n| format!("site-{n}")).collect();
        for name in &names {
            fleet.add(name);
        }
        fleet.wait_until_shared(SITES);
        fleet
    }

    fn wait_until_shared(&self, sites: usize) {
        eventually("both have a share", || {
            let shares: Vec<usize> = self.producers.iter().map(sites_of).collect();
            let is_shared = shares.iter().sum::<usize>() == sites && shares.iter().all(|s| *s > 0);
            if is_shared { Ok(()) } else { Err(shares) }
        });
    }

    fn sites(&self, args: &[&str]) -> Value {
        let output = self.lab.run(&[&["sites"], args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn add(&self, name: &str) -> i64 {
        let url = self.web.url(&format!("/{name}"));
        let interval = INTERVAL_S.to_string();
        let site = self.sites(&["add", name, &url, "--interval", &interval]);
        site["website_id"].as_i64().unwrap()
    }

    fn ids(&self) -> Vec<i64> {
        let list = self.sites(&["list"]);
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["website_id"].as_i64().unwrap()).collect()
    }

    fn offset_ms(&self, website_id: i64, interval_s: u32) -> i64 {
        let interval = Interval::from_secs(interval_s).unwrap();
        Identity::new(website_id, &self.lab.topic).offset_ms(interval)
    }

    /// Due times of a site's rows after `from_ms`.
    fn due_after(&self, website_id: i64, from_ms: i64) -> Vec<i64> {
        let rows = self.lab.database.client().query(
            "SELECT (extract(epoch FROM timestamp) * 1000)::bigint FROM check_entry \
             WHERE website_id = $1 AND timestamp > to_timestamp($2::bigint / 1000.0) ORDER BY 1",
            &[&website_id, &from_ms],
        );
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Waits until each of these sites has a row that was due after `ms`.
    fn wait_past(&self, ids: &[i64], ms: i64) {
        let question = format!(
            "SELECT count(DISTINCT website_id) FROM check_entry \
             WHERE timestamp > to_timestamp({ms} / 1000.0) AND website_id = ANY(ARRAY{ids:?}::bigint[])"
        );
        self.lab.wait_for_count("later rows of the others", &question, ids.len() as i64);
    }

    /// The rows of a site are those of the lattice of `interval_s` from 2 s after the change on,
    /// each once, and the first came when it was due.
    fn assert_on_lattice(&self, what: &str, website_id: i64, interval_s: u32, changed_ms: i64) {
        let (offset, step) = (self.offset_ms(website_id, interval_s), i64::from(interval_s) * 1000);
        let begin = changed_ms + IN_FORCE_MS;
        let first = next_due(begin, offset, step);
        let expect: Vec<i64> = (0..ROUNDS).map(|k| first + k * step).collect();
        let due = eventually(what, || {
            let due = self.due_after(website_id, begin);
            if due.len() >= expect.len() { Ok(due) } else { Err(due) }
        });
        assert_eq!(due[..expect.len()], expect, "{what}: site {website_id}");
        let first = self.due_after(website_id, changed_ms);
        let first = first.iter().find(|ms| is_due_time(**ms, offset, step)).unwrap();
        let possible = next_due(changed_ms, offset, step);
        println!("{what}: site {website_id}: {} ms after the first possible", first - possible);
    }

    fn stop(self) -> Lab {
        for producer in self.producers {
            producer.stop();
        }
        self.consumer.stop();
        self.lab
    }
}

fn now_ms() -> i64 {
    now().wall.as_millisecond()
}

#[test]
fn changes_are_in_force_in_all_producers_within_two_seconds() {
    let fleet = Fleet::start();
    let ids = fleet.ids();
    let (changed, rest) = ids.split_at(SITES / 2);
    let (stopped, others) = rest.split_at(SITES / 4);
    fleet.wait_past(&ids, now_ms());

    // Added: on their lattice.
    let added_ms = now_ms();
    let new: Vec<i64> = (0..4).map(|n| fleet.add(&format!("new-{n}"))).collect();
    let done_ms = now_ms();
    fleet.wait_until_shared(SITES + 4);
    for id in &new {
        fleet.assert_on_lattice("added", *id, INTERVAL_S, done_ms);
        assert!(fleet.due_after(*id, 0).iter().all(|due| *due > added_ms), "none before it was");
    }

    // Another interval, paused, removed.
    let words: Vec<String> = stopped.iter().map(ToString::to_string).collect();
    let (paused, removed) = words.split_at(words.len() / 2);
    let args = |verb: &str, words: &[String], more: &[&str]| {
        let args = [verb].into_iter().chain(words.iter().map(String::as_str));
        fleet.sites(&args.chain(more.iter().copied()).collect::<Vec<_>>())
    };
    for id in changed {
        fleet.sites(&["update", &id.to_string(), "--interval", &CHANGED_S.to_string()]);
    }
    args("pause", paused, &[]);
    args("remove", removed, &["--yes"]);
    let done_ms = now_ms();
    // On the new lattice, and on none of the old one.
    for id in changed {
        fleet.assert_on_lattice("another interval", *id, CHANGED_S, done_ms);
    }
    // No row is due 2 s later or after that, while the others go on.
    fleet.wait_past(others, done_ms + IN_FORCE_MS + ROUNDS * i64::from(INTERVAL_S) * 1000);
    for id in stopped {
        assert!(!fleet.due_after(*id, 0).is_empty(), "site {id} was checked before");
        let late = fleet.due_after(*id, done_ms + IN_FORCE_MS);
        assert!(late.is_empty(), "site {id}: {late:?} after {done_ms}");
    }
    // Nor is it asked for any more.
    let hits = |id: &i64| {
        let at = ids.iter().position(|other| other == id).unwrap();
        fleet.web.hits(&format!("/site-{at}"))
    };
    let before: Vec<u64> = stopped.iter().map(hits).collect();
    fleet.wait_past(others, now_ms() + i64::from(INTERVAL_S) * 1000);
    assert_eq!(stopped.iter().map(hits).collect::<Vec<_>>(), before);

    // Resumed: on the lattice again, and with no row for the time between.
    args("resume", paused, &[]);
    let resumed_ms = now_ms();
    for word in paused {
        let id: i64 = word.parse().unwrap();
        fleet.assert_on_lattice("resumed", id, INTERVAL_S, resumed_ms);
        let between = fleet.due_after(id, done_ms + IN_FORCE_MS);
        assert!(between.iter().all(|due| *due > resumed_ms - IN_FORCE_MS), "{id}: {between:?}");
    }
    // By now whatever was on its way has come: rows of the others that were due much later have.
    let lab = fleet.stop();
    for id in removed {
        let question = format!(
            "SELECT count(*) FROM check_entry WHERE website_id = {id} \
             AND timestamp >= to_timestamp({} / 1000.0)",
            done_ms + IN_FORCE_MS
        );
        assert_eq!(lab.query::<i64>(&question).unwrap(), 0, "site {id}");
    }
}
