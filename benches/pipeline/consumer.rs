//! The consumer's part: from a full topic into the table, beside `psql \copy`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use webmon::check::{Check, Identity, Outcome, Phases};
use webmon::kafka::{Compression, KafkaOptions, Publisher, Record, TopicSpec};
use webmon::runtime::{Stop, now};

use crate::process::{cpu_us, metric, resident_mb};
use crate::report::{row, say};
use crate::support;
use crate::support::daemon::Lab;
use crate::support::eventually_within;

/// A check as most are: 350 bytes as a message.
fn typical(n: u64, sites: u64, first_ms: i64) -> Check<'static> {
    let (site, round) = ((n % sites) as i64 + 1, (n / sites) as i64);
    let at = jiff::Timestamp::from_millisecond(first_ms + round * 60_000 + site).unwrap();
    let url = format!("https://www.site-{site}.example.com/health");
    let identity = Identity::new(site, "default");
    Check {
        started_at: Some(at),
        outcome: Outcome::Up,
        response_time: Some(0.123_456),
        phases: Phases {
            resolve: Some(0.001_234),
            connect: Some(0.012_345),
            processing: Some(0.098_765),
            transfer: Some(0.004_321),
            tls: None,
        },
        http_status: Some(200),
        body_bytes: Some(20_480),
        ..Check::empty(&identity, site, url, "default".to_owned(), at)
    }
}

/// Rows per second and CPU per row from a full topic.
pub(crate) fn consumer(rows: u64) {
    const SITES: u64 = 1000;
    let mut lab = Lab::new("bench");
    assert!(lab.run(&["migrate"]).status.success());
    let mut client = lab.database.client();
    client
        .execute(
            "INSERT INTO website (name, url)
             SELECT 's' || n, 'https://www.site-' || n || '.example.com/' FROM generate_series(1, 1000) n",
            &[],
        )
        .unwrap();
    say(&format!("consumer: {rows} messages into the topic"));
    let bytes = fill_topic(&lab, rows, SITES);
    say("consumer: from the topic into the table");

    lab.set("WEBMON_CONSUMER_THREADS", "4");
    let consumer = lab.start("consumer", &[]);
    let inserted = || metric(&consumer.get("/metrics").1, "webmon_rows_inserted_total");
    // From the first row: starting and joining the group is not what is measured.
    eventually_within(Duration::from_secs(60), "a first row", || match inserted() {
        0.0 => Err("none"),
        _ => Ok(()),
    });
    let (begin, before) = (now().mono, inserted());
    while inserted() < rows as f64 {
        let _ = Stop::new().wait(Duration::from_millis(200));
    }
    let took = (now().mono - begin).as_secs_f64();
    let (cpu, (_, resident)) = (cpu_us(consumer.pid()), resident_mb(consumer.pid()));
    consumer.stop();
    let stored: i64 = lab.query("SELECT count(*) FROM check_entry").unwrap();
    assert_eq!(stored as u64, rows, "every message is a row");

    say("psql \\copy of the same rows");
    let copy = copy_rate(&lab, rows);
    let rate = (rows as f64 - before) / took;
    row(
        "`psql \\copy`, one connection, the same rows into the same table",
        "",
        &format!("{copy:.0} rows/s"),
        "",
        "",
        "173,000 to 204,000 rows/s",
    );
    row(
        &format!("consumer, 4 threads, {rows} messages of {bytes} B"),
        &format!("{:.2} µs a row", cpu / rows as f64),
        &format!("{rate:.0} rows/s"),
        &format!("{:.2} × `\\copy`", rate / copy),
        "",
        "telegraf 12 µs, 95,000 rows/s",
    );
    row("… most memory", &format!("{resident:.1} MB"), "", "", "", "");
}

/// Publishes the messages; their mean size.
fn fill_topic(lab: &Lab, rows: u64, sites: u64) -> u64 {
    let options = KafkaOptions {
        servers: support::services::kafka_servers(),
        client_id: "bench".to_owned(),
        tls: None,
        sasl: None,
        compression: Compression::Zstd,
    };
    let topic = TopicSpec { name: lab.topic.clone(), partitions: 8, replication_factor: 1 };
    let mut publisher = Publisher::new(options, topic);
    let day_ms = 86_400_000;
    let first_ms = now().wall.as_millisecond() / day_ms * day_ms - day_ms;
    let mut bytes = 0;
    let mut n = 0;
    while n < rows {
        let batch: Vec<(String, Vec<u8>)> = (n..rows.min(n + 5000))
            .map(|n| {
                let check = typical(n, sites, first_ms);
                let mut message = Vec::new();
                webmon::wire::encode(&check, &mut message);
                (check.website_id.to_string(), message)
            })
            .collect();
        let mut left: Vec<Record<'_>> =
            batch.iter().map(|(k, v)| Record { key: k.as_bytes(), value: v }).collect();
        // A topic made a moment ago may not have all its leaders yet.
        support::eventually("published", || match publisher.publish(&left) {
            Ok(_) => Ok(()),
            Err(error) => {
                left = error.unacknowledged.iter().map(|i| left[*i]).collect();
                Err(error.cause)
            }
        });
        bytes += batch.iter().map(|(_, v)| v.len() as u64).sum::<u64>();
        n += batch.len() as u64;
    }
    bytes / rows
}

/// Rows per second of `psql \copy` of the same rows into the same table.
fn copy_rate(lab: &Lab, rows: u64) -> f64 {
    let file = lab.dir.path().join("rows.tsv");
    psql(lab, &format!("\\copy (SELECT * FROM check_entry) TO '{}'", file.display()));
    lab.database.client().batch_execute("TRUNCATE check_entry").unwrap();
    let begin = now().mono;
    psql(lab, &format!("\\copy check_entry FROM '{}'", file.display()));
    rows as f64 / (now().mono - begin).as_secs_f64()
}

fn psql(lab: &Lab, command: &str) {
    let database = &lab.database;
    let program = std::env::var("WEBMON_TEST_PG_BIN").map_or_else(
        |_| "psql".to_owned(),
        |bin| Path::new(&bin).join("psql").display().to_string(),
    );
    let output = Command::new(program)
        .args([
            "-XAtq",
            "-h",
            &database.host,
            "-p",
            &database.port.to_string(),
            "-U",
            &database.user,
        ])
        .args(["-d", &database.name, "-c", command])
        .env("PGPASSWORD", &database.password)
        .output()
        .expect("psql runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
