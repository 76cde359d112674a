//! Daemons that start, and go on, while what they need is away.

mod support;

use support::daemon::{Daemon, Lab};
use support::eventually;
use support::proxy::{Conditions, Count, Proxy};
use support::services::kafka_servers;
use support::web::Web;

fn sites(web: &Web, count: usize) -> String {
    let sites: Vec<String> = (0..count)
        .map(|n| format!("- {{name: s{n}, url: \"{}\", interval: 5}}\n", web.url(&format!("/{n}"))))
        .collect();
    format!("websites:\n{}", sites.concat())
}

fn metric(daemon: &Daemon, name: &str) -> f64 {
    let (_, text) = daemon.get("/metrics");
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(f64::NAN)
}

/// A lab whose database and broker are both behind proxies that are down.
fn cut_off(lab: &mut Lab) -> (Proxy, Proxy) {
    let database = Proxy::down(&format!("{}:{}", lab.database.host, lab.database.port));
    let broker = Proxy::down(&kafka_servers()[0]);
    lab.set("WEBMON_DATABASE_HOST", "127.0.0.1")
        .set("WEBMON_DATABASE_PORT", &database.address.port().to_string())
        .set("WEBMON_KAFKA_SERVERS", &broker.address.to_string());
    (database, broker)
}

#[test]
fn a_producer_starts_with_database_and_broker_away_and_heals() {
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("away");
    lab.config(&sites(&web, 30));
    // A first run, so that there is a site list to remember.
    let first = lab.start("producer", &[]);
    eventually("the first run checks", || match web.all_hits() {
        0 => Err("not yet"),
        _ => Ok(()),
    });
    first.stop();
    let before = web.all_hits();

    let (database, broker) = cut_off(&mut lab);
    let producer = lab.start("producer", &[]);
    producer.wait_for_log("using the site list last seen");
    eventually("sites are checked all the same", || match web.all_hits() - before {
        hits if hits >= 30 => Ok(()),
        hits => Err(hits),
    });
    eventually("both are reported", || {
        let (status, text) = producer.get("/readyz?verbose");
        if status == 503 && text.contains("kafka") && text.contains("database") {
            Ok(())
        } else {
            Err((status, text))
        }
    });
    assert_eq!(producer.get("/livez").0, 200);
    assert!(metric(&producer, "webmon_spool_records") >= 20.0, "results wait in the spool");
    assert!(database.refused() > 0 && broker.refused() > 0, "the fault was met");

    database.set_up();
    broker.set_up();
    let consumer = lab.start("consumer", &[]);
    eventually("it is ready again", || {
        let (status, text) = producer.get("/readyz?verbose");
        if status == 200 { Ok(()) } else { Err(text) }
    });
    eventually("the spool drains", || match metric(&producer, "webmon_spool_records") {
        records if records < 20.0 => Ok(()),
        records => Err(records),
    });
    producer.stop();
    lab.wait_for_every_check(&web);
    consumer.stop();
}

#[test]
fn a_consumer_starts_with_database_and_broker_away_and_heals() {
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("late");
    lab.config(&sites(&web, 10));
    let producer = lab.start("producer", &[]);
    let (database, broker) = cut_off(&mut lab);
    let consumer = lab.start("consumer", &[]);
    eventually("it met both faults", || {
        let met = (database.refused(), broker.refused());
        if met.0 > 0 && met.1 > 0 { Ok(()) } else { Err(met) }
    });
    assert_eq!(consumer.get("/readyz").0, 503);
    broker.set_up();
    database.set_up();
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", 20);
    eventually("it is ready", || {
        let (status, text) = consumer.get("/readyz?verbose");
        if status == 200 { Ok(()) } else { Err(text) }
    });
    producer.stop();
    consumer.stop();
}

#[test]
fn a_database_that_goes_away_in_between_costs_nothing() {
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("gap");
    lab.config(&sites(&web, 50));
    let database = Proxy::down(&format!("{}:{}", lab.database.host, lab.database.port));
    database.set_up();
    let producer = lab.start("producer", &[]);
    lab.set("WEBMON_DATABASE_HOST", "127.0.0.1")
        .set("WEBMON_DATABASE_PORT", &database.address.port().to_string());
    let consumer = lab.start("consumer", &[]);
    lab.wait_for_count("rows before", "SELECT count(*) FROM check_entry", 50);
    database.set_down();
    let refused = database.refused();
    eventually("the consumer met the fault", || {
        let (status, text) = consumer.get("/readyz?verbose");
        if status == 503 && database.refused() > refused { Ok(()) } else { Err(text) }
    });
    let hits = web.all_hits();
    eventually("checks go on", || match web.all_hits() - hits {
        more if more >= 50 => Ok(()),
        more => Err(more),
    });
    database.set_up();
    producer.stop();
    lab.wait_for_every_check(&web);
    let rejected: i64 = lab.query("SELECT count(*) FROM rejected_message").unwrap();
    assert_eq!(rejected, 0, "an outage rejects nothing");
    consumer.stop();
}

#[test]
fn a_killed_producer_goes_on_from_its_spool() {
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("killed");
    lab.config(&sites(&web, 100));
    // Only the broker is away: results pile up in the spool.
    let broker = Proxy::down(&kafka_servers()[0]);
    lab.set("WEBMON_KAFKA_SERVERS", &broker.address.to_string());
    let producer = lab.start("producer", &[]);
    eventually("the spool holds results", || match metric(&producer, "webmon_spool_records") {
        records if records >= 100.0 => Ok(()),
        records => Err(records),
    });
    let kept = metric(&producer, "webmon_spool_records");
    // Two commits later all of these are on disk.
    let commits = metric(&producer, "webmon_spool_commits_total");
    eventually("they are committed", || match metric(&producer, "webmon_spool_commits_total") {
        now if now >= commits + 2.0 => Ok(()),
        now => Err(now),
    });
    producer.kill();
    let killed_ms = webmon::runtime::now().wall.as_millisecond();
    assert!(broker.refused() > 0);
    broker.set_up();
    let producer = lab.start("producer", &[]);
    let consumer = lab.start("consumer", &[]);
    lab.wait_for_count(
        "what was in the spool at the kill",
        &format!(
            "SELECT count(*) FROM check_entry WHERE timestamp < to_timestamp({killed_ms} / 1000.0)"
        ),
        kept as i64,
    );
    producer.stop();
    consumer.stop();
}

/// The table's thread is then stuck in a call, and the share comes from the copy.
#[test]
fn a_share_is_taken_up_while_the_database_does_not_answer() {
    const SITES: usize = 40;
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("stuck");
    lab.config(&sites(&web, SITES));
    let consumer = lab.start("consumer", &[]);
    let database = Proxy::down(&format!("{}:{}", lab.database.host, lab.database.port));
    database.set_up();
    lab.set("WEBMON_DATABASE_HOST", "127.0.0.1")
        .set("WEBMON_DATABASE_PORT", &database.address.port().to_string());
    let first = lab.start("producer", &[]);
    lab.set("WEBMON_PRODUCER_SPOOL_DIR", &lab.dir.path().join("spool2").display().to_string());
    let second = lab.start("producer", &[]);
    let shares = || (metric(&first, "webmon_sites"), metric(&second, "webmon_sites"));
    eventually("they share", || match shares() {
        (a, b) if a + b == SITES as f64 && a > 0.0 && b > 0.0 => Ok(()),
        other => Err(other),
    });
    let from_ms = webmon::runtime::now().wall.as_millisecond();
    let since =
        format!("SELECT count(*) FROM check_entry WHERE timestamp > to_timestamp({from_ms} / 1e3)");
    lab.wait_for_count("a round", &since, SITES as i64);

    database.set_both(&Conditions { black_hole: true, ..Conditions::default() });
    eventually("the fault is met", || match database.count(Count::Swallowed) {
        0 => Err("nothing swallowed"),
        _ => Ok(()),
    });
    second.stop();
    eventually("the one that is left has all", || match metric(&first, "webmon_sites") {
        sites if sites == SITES as f64 => Ok(()),
        sites => Err(sites),
    });
    lab.wait_for_count("two more rounds", &since, 4 * SITES as i64);
    first.stop();
    consumer.stop();
    let gaps: i64 = lab
        .query(
            "SELECT count(*) FROM (
                 SELECT timestamp - lag(timestamp) OVER
                     (PARTITION BY website_id ORDER BY timestamp) AS gap FROM check_entry) x
             WHERE gap <> interval '5 s'",
        )
        .unwrap();
    assert_eq!(gaps, 0, "due times that no producer took");
}
