//! The whole pipeline with real services: producer → Kafka → consumer → PostgreSQL, as processes.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::Signal;
use support::daemon::Lab;
use support::web::Web;
use support::{eventually, eventually_within};
use webmon::check::Identity;
use webmon::schedule::lattice;
use webmon::site::Interval;

const PAGE: &str = "<title>Example Domain</title> version 1.2 and version 3.4";

fn pages(path: &str) -> (u16, String) {
    match path {
        "/down" => (503, "broken".to_owned()),
        "/moved" => (302, "/ok".to_owned()),
        _ => (200, PAGE.to_owned()),
    }
}

/// `count` sites at 5 s intervals, as the configuration's `websites`.
fn many_sites(web: &Web, count: usize) -> String {
    let sites: Vec<String> = (0..count)
        .map(|n| {
            format!("  - {{name: site-{n}, url: \"{}\", interval: 5}}\n", web.url(&format!("/{n}")))
        })
        .collect();
    format!("websites:\n{}", sites.concat())
}

#[test]
fn rows_hold_what_the_server_did() {
    let web = Web::start(pages);
    let mut lab = Lab::new("values");
    lab.config(&format!(
        "websites:\n\
         - {{name: good, url: \"{good}\", interval: 5, regex: 'version (\\d\\.\\d)'}}\n\
         - {{name: bad, url: \"{bad}\", interval: 5}}\n\
         - {{name: moved, url: \"{moved}\", interval: 5, pattern: Example Domain}}\n\
         - {{name: wrong, url: \"{good}\", interval: 5, regex: no such text}}\n\
         - {{name: closed, url: 'http://127.0.0.1:9/', interval: 5}}\n",
        good = web.url("/ok"),
        bad = web.url("/down"),
        moved = web.url("/moved"),
    ));
    let consumer = lab.start("consumer", &[]);
    let producer = lab.start("producer", &[]);
    lab.wait_for_count(
        "a row of every site",
        "SELECT count(DISTINCT website_id) FROM check_entry",
        5,
    );
    let mut client = lab.database.client();
    let rows = client
        .query(
            "SELECT DISTINCT ON (w.name) w.name, c.outcome, c.failure_kind, c.failure_detail,
                    c.http_status, c.regex, c.regex_match, c.regex_captures, c.body_bytes,
                    c.redirects, c.response_time, c.connect, c.processing, c.tls,
                    c.check_entry_id, c.website_id, c.region,
                    (extract(epoch FROM c.timestamp) * 1000)::bigint,
                    (extract(epoch FROM c.started_at - c.timestamp))::float8
             FROM check_entry c JOIN website w USING (website_id) ORDER BY w.name, c.timestamp",
            &[],
        )
        .expect("rows");
    let by_name: BTreeMap<String, &postgres::Row> = rows.iter().map(|r| (r.get(0), r)).collect();
    let text = |name: &str, column: usize| by_name[name].get::<_, Option<String>>(column);
    let number = |name: &str, column: usize| by_name[name].get::<_, Option<i32>>(column);

    assert_eq!(text("good", 1).as_deref(), Some("up"));
    assert_eq!(number("good", 4), Some(200));
    assert_eq!(text("good", 5).as_deref(), Some("version (\\d\\.\\d)"));
    assert_eq!(by_name["good"].get::<_, Option<bool>>(6), Some(true));
    assert_eq!(by_name["good"].get::<_, Option<Vec<String>>>(7).unwrap(), ["1.2", "3.4"]);
    assert_eq!(number("good", 8), i32::try_from(PAGE.len()).ok());

    assert_eq!(
        (text("bad", 1).as_deref(), text("bad", 2).as_deref(), number("bad", 4)),
        (Some("down"), Some("status"), Some(503))
    );
    assert_eq!((text("moved", 1).as_deref(), number("moved", 4)), (Some("up"), Some(200)));
    assert_eq!(by_name["moved"].get::<_, Option<i16>>(9), Some(1));
    assert_eq!(
        (text("wrong", 1).as_deref(), text("wrong", 2).as_deref()),
        (Some("down"), Some("regex"))
    );
    assert_eq!(by_name["wrong"].get::<_, Option<bool>>(6), Some(false));
    assert_eq!(
        (text("closed", 1).as_deref(), text("closed", 2).as_deref()),
        (Some("down"), Some("connect"))
    );
    assert!(by_name["closed"].get::<_, Option<f32>>(12).is_none(), "no answer, no processing");

    let interval = Interval::from_secs(5).unwrap();
    for row in &rows {
        let (id, website_id): (uuid::Uuid, i64) = (row.get(14), row.get(15));
        let (region, scheduled_ms): (String, i64) = (row.get(16), row.get(17));
        assert_eq!(region, lab.topic);
        let identity = Identity::new(website_id, &region);
        let at = jiff::Timestamp::from_millisecond(scheduled_ms).unwrap();
        assert_eq!(id, identity.check_entry_id(at));
        assert!(lattice::is_due_time(
            scheduled_ms,
            identity.offset_ms(interval),
            interval.millis()
        ));
        assert!(row.get::<_, f64>(18) >= 0.0, "never early");
        assert!(row.get::<_, f64>(10) > 0.0, "a response time");
        assert!(row.get::<_, Option<f32>>(13).is_none(), "no TLS in http");
    }
    producer.stop();
    consumer.stop();
}

/// Every row on the lattice, none missing between a site's first and last, none twice; and the
/// web server was asked exactly as often as there are rows. Some seconds long; for longer,
/// `WEBMON_TEST_LATTICE_SECONDS=600`.
#[test]
fn every_due_time_is_one_row_until_a_stop_under_load() {
    const SITES: usize = 200;
    const INTERVALS: [u32; 4] = [5, 6, 7, 11];
    let web = Web::start(pages);
    let mut lab = Lab::new("lattice");
    let sites: String = (0..SITES)
        .map(|n| {
            let (url, interval) = (web.url(&format!("/{n}")), INTERVALS[n % INTERVALS.len()]);
            format!("  - {{name: site-{n}, url: \"{url}\", interval: {interval}}}\n")
        })
        .collect();
    lab.config(&format!("websites:\n{sites}"));
    let consumer = lab.start("consumer", &[]);
    let producer = lab.start("producer", &[]);
    // About three rounds, at 30 checks a second; the stop comes in the middle of the next.
    let long = std::env::var("WEBMON_TEST_LATTICE_SECONDS").ok().and_then(|s| s.parse().ok());
    let cap = Duration::from_secs(60 + long.unwrap_or(0));
    let begin = webmon::runtime::now().mono;
    eventually_within(cap, "three rounds", || {
        let took = webmon::runtime::now().mono - begin;
        let rows: i64 = lab.query("SELECT count(*) FROM check_entry").unwrap_or(0);
        let is_enough = long.is_none_or(|seconds| took >= Duration::from_secs(seconds));
        if is_enough && rows >= 3 * SITES as i64 { Ok(()) } else { Err(rows) }
    });
    producer.stop();
    let asked = i64::try_from(web.all_hits()).unwrap();
    lab.wait_for_count(
        "what was under way at the stop",
        "SELECT count(*) FROM check_entry WHERE outcome <> 'missed'",
        asked,
    );
    consumer.stop();

    let rows = lab
        .database
        .client()
        .query(
            "SELECT website_id, (extract(epoch FROM timestamp) * 1000)::bigint, outcome
             FROM check_entry ORDER BY 1, 2",
            &[],
        )
        .expect("rows");
    let mut due: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        due.entry(row.get(0)).or_default().push(row.get(1));
    }
    assert_eq!(due.len(), SITES);
    let intervals: BTreeMap<i64, i32> = lab
        .database
        .client()
        .query("SELECT website_id, interval_seconds FROM website", &[])
        .expect("sites")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (website_id, times) in &due {
        let interval = Interval::from_secs(intervals[website_id].unsigned_abs()).unwrap();
        let offset = Identity::new(*website_id, &lab.topic).offset_ms(interval);
        assert!(lattice::is_due_time(times[0], offset, interval.millis()));
        let gaps: BTreeSet<i64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|gap| *gap == interval.millis()), "site {website_id}: {times:?}");
    }
    let checked = rows.iter().filter(|r| r.get::<_, String>(2) != "missed").count();
    assert_eq!(checked as i64, asked, "a row for each request, a request for each row");
    for n in 0..SITES {
        assert!(web.hits(&format!("/{n}")) >= 1, "site {n} was checked");
    }
}

#[test]
fn two_consumers_share_and_one_takes_over() {
    let web = Web::start(pages);
    let mut lab = Lab::new("share");
    lab.config(&many_sites(&web, 100));
    let first = lab.start("consumer", &[]);
    let second = lab.start("consumer", &[]);
    let producer = lab.start("producer", &[]);
    let share = |log: Vec<String>| -> usize {
        let joined: Option<serde_json::Value> = log
            .iter()
            .rev()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(|line: &serde_json::Value| line["event"] == "group joined");
        joined.and_then(|line| line["partitions"].as_u64()).unwrap_or(0) as usize
    };
    eventually("both have a share", || {
        let shares = (share(first.log()), share(second.log()));
        if shares == (4, 4) { Ok(()) } else { Err(shares) }
    });
    lab.wait_for_count("rows from both", "SELECT count(*) FROM check_entry", 100);
    second.kill();
    eventually("the other takes over", || match share(first.log()) {
        8 => Ok(()),
        other => Err(other),
    });
    producer.stop();
    let asked = i64::try_from(web.all_hits()).unwrap();
    lab.wait_for_count(
        "nothing is lost with the killed one",
        "SELECT count(*) FROM check_entry WHERE outcome <> 'missed'",
        asked,
    );
    first.stop();
}

#[test]
fn two_producers_share_the_sites() {
    let web = Web::start(pages);
    let mut lab = Lab::new("producers");
    lab.config(&many_sites(&web, 60));
    let consumer = lab.start("consumer", &[]);
    let first = lab.start("producer", &[]);
    lab.set("WEBMON_PRODUCER_SPOOL_DIR", &lab.dir.path().join("spool2").display().to_string());
    let second = lab.start("producer", &[]);
    let sites = |daemon: &support::daemon::Daemon| -> u64 {
        let (_, text) = daemon.get("/metrics");
        let line = text.lines().find(|l| l.starts_with("webmon_sites "));
        line.and_then(|l| l.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
    };
    eventually("they share", || {
        let shares = (sites(&first), sites(&second));
        if shares.0 + shares.1 == 60 && shares.0 > 0 && shares.1 > 0 { Ok(()) } else { Err(shares) }
    });
    // Two rounds, so that a due time lost when the second took its share would show as a gap.
    let shared_ms = webmon::runtime::now().wall.as_millisecond();
    lab.wait_for_count(
        "two rounds",
        &format!(
            "SELECT count(*) FROM check_entry WHERE timestamp > to_timestamp({shared_ms} / 1000.0)"
        ),
        120,
    );
    let stopped_ms = webmon::runtime::now().wall.as_millisecond();
    let log = second.stop();
    assert!(log.iter().any(|line| line.contains("handing the sites over")), "{log:?}");
    eventually("the one that is left has all", || match sites(&first) {
        60 => Ok(()),
        other => Err(other),
    });
    lab.wait_for_count(
        "all sites checked by the one that is left",
        &format!(
            "SELECT count(DISTINCT website_id) FROM check_entry
             WHERE timestamp > to_timestamp({stopped_ms} / 1000.0 + 5)"
        ),
        60,
    );
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
    assert_eq!(gaps, 0, "due times that no producer took, when one came or when one left");
}

#[test]
fn changes_of_the_table_are_live() {
    let web = Web::start(pages);
    let mut lab = Lab::new("live");
    lab.config("websites: []\n");
    let consumer = lab.start("consumer", &[]);
    let producer = lab.start("producer", &[]);
    producer.wait_for_log("site list loaded");
    let mut client = lab.database.client();
    // The sample sites point to the internet: a test has none.
    client.execute("DELETE FROM website", &[]).unwrap();
    client
        .execute(
            "INSERT INTO website (name, url, interval_seconds) VALUES ('new', $1, 5)",
            &[&web.url("/new")],
        )
        .unwrap();
    eventually("the new site is checked", || match web.hits("/new") {
        0 => Err("not yet"),
        _ => Ok(()),
    });
    client.execute("UPDATE website SET url = $1", &[&web.url("/other")]).unwrap();
    eventually("its new URL is checked", || match web.hits("/other") {
        0 => Err("not yet"),
        _ => Ok(()),
    });
    client.execute("UPDATE website SET status = 'paused'", &[]).unwrap();
    eventually("a paused site is not held any more", || {
        let (_, text) = producer.get("/metrics");
        if text.contains("webmon_sites 0\n") { Ok(()) } else { Err(text.len()) }
    });
    producer.stop();
    consumer.stop();
}

#[test]
fn an_undecodable_message_is_kept_and_the_rest_goes_on() {
    use webmon::kafka::{Compression, KafkaOptions, Publisher, Record, TopicSpec};
    let web = Web::start(pages);
    let mut lab = Lab::new("reject");
    lab.config(&many_sites(&web, 10));
    let options = KafkaOptions {
        servers: support::services::kafka_servers(),
        client_id: "test".to_owned(),
        tls: None,
        sasl: None,
        compression: Compression::None,
    };
    let topic = TopicSpec { name: lab.topic.clone(), partitions: 8, replication_factor: 1 };
    let mut publisher = Publisher::new(options, topic);
    for junk in [&b"no json"[..], br#"{"v":9}"#, b"", b"\xff\xfe"] {
        // A topic made a moment ago may not have its leaders yet.
        eventually("junk is published", || publisher.publish(&[Record { key: b"1", value: junk }]));
    }
    let consumer = lab.start("consumer", &[]);
    let producer = lab.start("producer", &[]);
    lab.wait_for_count("rejects", "SELECT count(*) FROM rejected_message", 4);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", 10);
    let payload: Vec<u8> =
        lab.query("SELECT payload FROM rejected_message ORDER BY \"offset\" LIMIT 1").unwrap();
    assert_eq!(payload, b"no json");
    producer.stop();
    consumer.stop();
}

#[test]
fn the_console_sink_prints_messages() {
    let web = Web::start(pages);
    let mut lab = Lab::new("console");
    lab.config(&many_sites(&web, 3));
    let consumer = lab.start("consumer", &["--sink", "postgres,console"]);
    let producer = lab.start("producer", &[]);
    let line = eventually("a line", || consumer.output().first().cloned().ok_or("none yet"));
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["v"], 1);
    assert!(value["url"].as_str().unwrap().starts_with("http://127.0.0.1"));
    producer.stop();
    consumer.stop();
}

/// Who only looks takes nothing from those that store, and doesn't go on when nobody sees it.
#[test]
fn a_lone_console_that_is_full_ends_its_consumer_and_loses_nothing() {
    let web = Web::start(pages);
    let mut lab = Lab::new("full");
    lab.config(&many_sites(&web, 10));
    let mut looker = lab.start_into("/dev/full", "consumer", &["--sink", "console"]);
    let producer = lab.start("producer", &[]);
    assert_eq!(looker.wait().code(), Some(1), "{:?}", looker.log());
    looker.wait_for_log("cannot write to standard output");
    let consumer = lab.start("consumer", &[]);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", 10);
    producer.stop();
    lab.wait_for_every_check(&web);
    consumer.stop();
}

#[test]
fn without_a_broker_the_spool_goes_straight_to_the_table() {
    let web = Web::start(pages);
    let mut lab = Lab::new("local");
    lab.config(&many_sites(&web, 20)).set("WEBMON_KAFKA_SERVERS", "127.0.0.1:1");
    let all = lab.start("webmon", &["run", "--bus", "local"]);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", 40);
    let (status, text) = all.get("/readyz?verbose");
    assert_eq!(status, 200, "{text}");
    all.stop();
    let rows: i64 =
        lab.query("SELECT count(*) FROM check_entry WHERE outcome <> 'missed'").unwrap();
    assert_eq!(rows, i64::try_from(web.all_hits()).unwrap());
}

#[test]
fn one_process_through_kafka() {
    let web = Web::start(pages);
    let mut lab = Lab::new("run");
    lab.config(&many_sites(&web, 20));
    let all = lab.start("webmon", &["run"]);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", 40);
    all.stop();
    // What the consumer did not get to before its stop is in the topic.
    let consumer = lab.start("consumer", &[]);
    // Nothing may be left, and it has to be up before it can stop in order.
    assert_eq!(consumer.get("/livez").0, 200);
    lab.wait_for_every_check(&web);
    consumer.stop();
}

#[test]
fn a_second_signal_ends_at_once() {
    // A server that never answers keeps a check, and with it the orderly stop, busy.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let mut lab = Lab::new("signal");
    lab.config(&format!("websites:\n- {{name: silent, url: '{url}', interval: 5, timeout: 4}}\n"));
    let mut producer = lab.start("producer", &[]);
    silent.accept().expect("the check is under way");
    producer.signal(Signal::INT);
    producer.wait_for_log("stopping");
    producer.signal(Signal::INT);
    assert_eq!(producer.wait().code(), Some(128 + 2));
}
