//! `webmon status` of a whole pipeline, and of parts of it.

use serde_json::Value;

use crate::broker::OwnBroker;
use crate::support::cluster::Cluster;
use crate::support::daemon::{Daemon, Lab};
use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::services::{TestDatabase, kafka_servers};
use crate::support::web::Web;
use crate::{consumer, json, migrate, quiet, run};

const SITES: usize = 24;
const PARTITIONS: u64 = 8;

/// A configuration of sites at `web`.
fn sites(lab: &mut Lab, web: &Web) {
    let list: String = (0..SITES)
        .map(|n| {
            format!("  - {{name: site-{n}, url: \"{}\", interval: 5}}\n", web.url(&format!("/{n}")))
        })
        .collect();
    lab.config(&format!("websites:\n{list}"));
}

fn producer(lab: &mut Lab, number: usize) -> Daemon {
    let spool = lab.dir.path().join(format!("spool-{number}"));
    lab.set("WEBMON_PRODUCER_SPOOL_DIR", &spool.display().to_string());
    lab.start("producer", &[])
}

fn live<'a>(status: &'a Value, role: &'a str) -> impl Iterator<Item = &'a Value> {
    let rows = status["daemons"].as_array().expect("daemons");
    rows.iter().filter(move |row| row["role"] == role && row["is_late"] == false)
}

/// Partitions of the live producers and of the live consumers, as they tell themselves.
fn shares(status: &Value) -> (Vec<u64>, Vec<u64>) {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    (
        live(status, "producer").map(|row| number(&row["facts"]["share"][0])).collect(),
        live(status, "consumer").map(|row| number(&row["facts"]["partitions"])).collect(),
    )
}

fn findings(status: &Value) -> String {
    let found = status["findings"].as_array().expect("findings").iter();
    found.map(|f| format!("{} -> {}\n", f["what"], f["cure"])).collect()
}

fn add_up(shares: &[u64], count: usize) -> bool {
    shares.len() == count
        && shares.iter().all(|s| *s > 0)
        && shares.iter().sum::<u64>() == PARTITIONS
}

/// What `GET /status` has too has the same names and the same form.
#[track_caller]
fn has_the_names_of_the_api(status: &Value) {
    for time in ["last_minute", "last_5_minutes"] {
        let outcomes = &status["checks"][time];
        assert!(outcomes["up"].is_u64() && outcomes["missed"].is_u64(), "{time}: {status:#}");
    }
    let seen = &status["daemons"][0];
    let times = [&status["at"], &seen["started_at"], &seen["seen_at"], &seen["facts"]["clock"]];
    for time in times {
        let text = time.as_str().unwrap_or_default();
        assert!(text.len() == 24 && text.ends_with('Z'), "milliseconds: {time} in {status:#}");
    }
    let host = &status["kafka"]["consumers"]["members"][0]["host"];
    assert!(host.as_str().is_some_and(|host| !host.contains('/')), "{status:#}");
}

#[test]
fn shares_add_up_and_a_killed_producer_is_told() {
    let web = Web::start(|_| (200, "fine".to_owned()));
    let mut lab = quiet(Lab::new("status"));
    sites(&mut lab, &web);
    lab.set("WEBMON_KAFKA_CONSUMER_SESSION_TIMEOUT", "6");
    let (one, other) = (producer(&mut lab, 1), producer(&mut lab, 2));
    let (first, second) = (lab.start("consumer", &[]), lab.start("consumer", &[]));
    let status = eventually("two producers and two consumers share all", || {
        let (status, code) = json(&lab, &["status"]);
        let (producers, consumers) =
            if status["daemons"].is_array() { shares(&status) } else { Default::default() };
        let is_shared = add_up(&producers, 2) && add_up(&consumers, 2);
        if is_shared && code == Some(0) { Ok(status) } else { Err((code, status.to_string())) }
    });
    assert_eq!(status["is_well"], true, "{status}");
    has_the_names_of_the_api(&status);
    assert_eq!(status["sites"]["active"], SITES);
    let partitions = status["kafka"]["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len() as u64, PARTITIONS);
    assert!(partitions.iter().all(|partition| partition["consumer"].is_string()), "{status}");
    let members = |group: &Value| -> usize {
        let members = group["members"].as_array().expect("members").iter();
        members.map(|member| member["partitions"].as_array().expect("partitions").len()).sum()
    };
    assert_eq!(members(&status["kafka"]["consumers"]) as u64, PARTITIONS);
    assert_eq!(members(&status["kafka"]["producers"][0]) as u64, PARTITIONS);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", SITES as i64);
    let said = run(&lab, &["status"], 0);
    for part in ["all is well", "rows a minute", "members: 2 (4 + 4)", "PARTITION"] {
        assert!(said.contains(part), "'{part}' in:\n{said}");
    }

    let pid = other.pid();
    other.kill();
    let status = eventually("the killed producer is told", || {
        let (status, code) = json(&lab, &["status"]);
        let found = findings(&status);
        let is_told = found.contains(&format!("(pid {pid}) was not seen for"));
        if is_told && code == Some(1) { Ok(status) } else { Err((code, found)) }
    });
    assert!(findings(&status).contains("start it again"), "{status}");
    eventually("the other has all", || {
        let (status, _) = json(&lab, &["status"]);
        let (producers, _) = shares(&status);
        if add_up(&producers, 1) { Ok(()) } else { Err(status.to_string()) }
    });
    // An orderly stop leaves nothing behind.
    one.stop();
    first.stop();
    second.stop();
    let (status, code) = json(&lab, &["status"]);
    assert_eq!(code, Some(1));
    assert_eq!(status["daemons"].as_array().expect("daemons").len(), 1, "{status}");
    let found = findings(&status);
    assert!(found.contains(&format!("no producer checks the {SITES} active sites")), "{found}");
    assert!(found.contains("has no consumer"), "{found}");
}

#[test]
fn without_the_database_kafka_and_this_hosts_daemons_are_shown() {
    let cluster = Cluster::start(&[], &[], &[]);
    let database = TestDatabase::create_at(&cluster.url(), "status_database");
    let mut lab = quiet(Lab::at(database, &kafka_servers().join(","), "status_database"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let consumer = consumer(&lab);
    consumer.wait_for_log("tables are up to date");
    lab.set("WEBMON_CONSUMER_LISTEN", &consumer.address());
    cluster.stop_at_once();
    let status = eventually("the consumer is unwell", || {
        let (status, code) = json(&lab, &["status"]);
        assert_eq!(code, Some(4), "{status}");
        assert_eq!(status["is_well"], false);
        assert!(status["database"]["error"].is_string(), "{status}");
        let local = status["local"].as_array().expect("local").clone();
        let parts = &local[1]["parts"];
        let is_unwell = parts.as_object().is_some_and(|p| p.values().any(|why| !why.is_null()));
        if is_unwell { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(status["kafka"]["partitions"].as_array().map(Vec::len), Some(PARTITIONS as usize));
    assert!(findings(&status).contains("consumer on this host: "), "{status}");
    let said = run(&lab, &["status"], 4);
    assert!(said.contains("PostgreSQL is away") && said.contains("Topic "), "{said}");
    let first = &status["findings"][0];
    let is_first = |key: &str, part| first[key].as_str().is_some_and(|t| t.contains(part));
    assert!(is_first("what", "PostgreSQL is away: "), "{status:#}");
    assert!(is_first("cure", "listen_addresses"), "{status:#}");
    assert!(said.contains("unwell; PostgreSQL is away\n"), "the head has both:\n{said}");
}

#[test]
fn without_the_broker_the_database_is_shown() {
    let mut broker = OwnBroker::start(&[], &[], &[]);
    let database = TestDatabase::create("status_broker");
    let web = Web::start(|_| (200, "fine".to_owned()));
    let mut lab = quiet(Lab::at(database, &broker.address("LOCAL"), "status_broker"));
    sites(&mut lab, &web);
    let _producer = producer(&mut lab, 1);
    eventually("the producer has a share", || {
        let (status, _) = json(&lab, &["status"]);
        match status["daemons"].as_array().is_some_and(|rows| !rows.is_empty()) {
            true if shares(&status).0 == [PARTITIONS] => Ok(()),
            _ => Err(status.to_string()),
        }
    });
    broker.kill();
    let status = eventually("the producer's spool does not drain", || {
        let (status, code) = json(&lab, &["status"]);
        assert_eq!(code, Some(4), "{status}");
        let found = findings(&status);
        let is_told = found.contains(": kafka: ") && found.contains("results wait in its spool");
        if is_told { Ok(status) } else { Err(found) }
    });
    assert!(status["kafka"]["error"].is_string(), "{status}");
    assert_eq!(status["sites"]["active"], SITES);
    assert!(findings(&status).contains("'webmon doctor' there"), "{status}");
}

#[test]
fn a_watch_looks_again_until_a_signal() {
    let lab = quiet(Lab::new("status_watch"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let mut watch = lab.start("webmon", &["status", "--watch", "1"]);
    eventually("two looks", || {
        let said = watch.output();
        let looks = said.iter().filter(|line| line.starts_with("webmon at ")).count();
        if looks > 1 { Ok(()) } else { Err(said) }
    });
    watch.signal(rustix::process::Signal::INT);
    // Nobody checks anything, so nothing but the clock changes.
    assert_eq!(watch.wait().code(), Some(0), "{:?}", watch.output());
}

#[test]
fn without_tables_it_says_so() {
    let lab = quiet(Lab::new("status_empty"));
    let said = run(&lab, &["status"], 2);
    assert!(said.contains("webmon migrate"), "{said}");
    assert!(said.contains("! the tables are not up to date: "), "{said}");
    assert!(!said.contains("away"), "{said}");
}

#[test]
fn what_cannot_be_asked_is_the_first_finding_with_its_cure() {
    let mut lab = quiet(Lab::new("status_cures"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let check = |lab: &Lab, code, what: &str, cure: &str| {
        let (status, ended) = json(lab, &["status"]);
        let first = &status["findings"][0];
        let has = |key: &str, part: &str| first[key].as_str().is_some_and(|t| t.contains(part));
        assert!(has("what", what) && has("cure", cure), "'{what}', '{cure}' in {status:#}");
        assert_eq!(ended, Some(code), "{status:#}");
        assert_eq!(status["is_well"], false);
        let said = run(lab, &["status"], code);
        assert!(said.contains(&format!("! {what}")), "{said}");
    };
    let closed = free_port().to_string();
    let set = |lab: &mut Lab, key: &str, value: &str| {
        let key = key.to_owned();
        lab.env.insert(key.clone(), value.to_owned()).map(|old| (key, old))
    };
    for (key, value, code, what, cure) in [
        (
            "WEBMON_DATABASE_PORT",
            closed.as_str(),
            4,
            "PostgreSQL is away: ",
            "PostgreSQL runs there",
        ),
        (
            "WEBMON_DATABASE_DB",
            "nowhere",
            2,
            "PostgreSQL can't be asked: ",
            "CREATE DATABASE \"nowhere\" OWNER",
        ),
        (
            "WEBMON_KAFKA_SERVERS",
            &format!("127.0.0.1:{closed}"),
            4,
            "Kafka is away: ",
            "see that the broker runs",
        ),
    ] {
        let old = set(&mut lab, key, value);
        check(&lab, code, what, cure);
        lab.env.remove(key);
        lab.env.extend(old);
    }
    lab.env.remove("WEBMON_DATABASE_PASSWORD");
    check(&lab, 2, "PostgreSQL can't be asked: ", "WEBMON_DATABASE_PASSWORD_FILE");
    let said = run(&lab, &["rejected", "list"], 2);
    assert!(said.contains("set WEBMON_DATABASE_PASSWORD, or"), "{said}");
}

#[test]
fn a_watch_writes_nothing_but_json() {
    let mut lab = quiet(Lab::new("status_json"));
    lab.set("WEBMON_DATABASE_PORT", &free_port().to_string());
    lab.set("WEBMON_KAFKA_SERVERS", &format!("127.0.0.1:{}", free_port()));
    let mut watch = lab.start("webmon", &["status", "--watch", "1", "--json"]);
    let said = eventually("three lines", || {
        let said = watch.output();
        if said.len() > 2 { Ok(said) } else { Err(said) }
    });
    for line in said {
        let status: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(status["findings"].as_array().map(Vec::len), Some(2), "{status:#}");
    }
    watch.signal(rustix::process::Signal::INT);
    assert_eq!(watch.wait().code(), Some(4));
}
