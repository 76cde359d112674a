//! `make bench`: what a check and a row cost, beside a reference taken in the same run.
//!
//! - Producer: the daemon's whole CPU time per check (schedule, probe, spool, publishing) at a
//!   given rate, with nginx and a 20 KB page, beside wrk's CPU time per request.
//! - Consumer: rows per second and CPU time per row from a full topic, beside `psql \copy` of the
//!   same rows into the same table.
//!
//! CPU times are the kernel's, in ticks of 10 ms; each run is long enough for two digits. Prints a
//! table in Markdown; decides nothing.

// A bench is a program for a person at a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::daemon::{Daemon, Lab};
use support::eventually_within;
use webmon::check::{Check, Identity, Outcome, Phases};
use webmon::kafka::{Compression, KafkaOptions, Publisher, Record, TopicSpec};
use webmon::runtime::{Stop, now};

/// The kernel's unit of CPU time (USER_HZ) is 1/100 s on every Linux.
const TICK_US: f64 = 10_000.0;

fn main() {
    // `cargo test --benches` must not start a measurement.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let rows = number("WEBMON_BENCH_ROWS", 1_000_000);
    let seconds = number("WEBMON_BENCH_SECONDS", 20);
    println!("| what | CPU µs each | rate | beside |\n|---|---|---|---|");
    // `cargo bench -- consumer` leaves the other out.
    let wants = |part: &str| {
        let others = ["producer", "consumer"].map(|p| std::env::args().any(|arg| arg == p));
        others == [false, false] || std::env::args().any(|arg| arg == part)
    };
    if wants("producer") {
        let nginx = Nginx::start();
        let reference = wrk(&nginx);
        producer(&nginx, 1_000, seconds, "producer, 200 checks/s", reference);
        producer(&nginx, 10_000, seconds, "producer, 2,000 checks/s", reference);
    }
    if wants("consumer") {
        consumer(rows);
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn pause(seconds: u64) {
    let _ = Stop::new().wait(Duration::from_secs(seconds));
}

/// User and system time of a process, in µs.
fn cpu_us(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    ticks(&stat, 11) * TICK_US
}

/// The same of all children of this process that have ended.
fn children_cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    ticks(&stat, 13) * TICK_US
}

/// The sum of two neighbouring fields, counted after the command's closing parenthesis.
fn ticks(stat: &str, field: usize) -> f64 {
    let rest = stat.rsplit(") ").next().expect("fields");
    rest.split(' ').skip(field).take(2).map(|f| f.parse::<f64>().expect("a number")).sum()
}

fn resident_mb(pid: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|l| l.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).expect("kB").parse::<f64>().expect("a number") / 1024.0
}

struct Nginx {
    _daemon: Daemon,
    _dir: tempfile::TempDir,
    url: String,
}

impl Nginx {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = dir.path().display();
        let mut page = "x".repeat(20_400);
        page.push_str("<p>webmon looks for this: needle-4711</p>");
        std::fs::write(dir.path().join("page.html"), page).unwrap();
        let conf = format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;
             events {{ worker_connections 4096; }}
             http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;
             fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
             server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }} }}"
        );
        std::fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        if rustix::process::geteuid().is_root() {
            // The worker runs as another user and must be able to enter.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path(), mode).unwrap();
        }
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.path().join("nginx.conf")).arg("-p").arg(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let daemon = Daemon::spawn("nginx", command);
        support::eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)));
        Self { _daemon: daemon, _dir: dir, url: format!("http://127.0.0.1:{port}/page.html") }
    }
}

/// CPU µs per request of wrk with a new connection each.
fn wrk(nginx: &Nginx) -> f64 {
    let before = children_cpu_us();
    let output = Command::new("wrk")
        .args(["-t1", "-c8", "-d10s", "-H", "Connection: close", &nginx.url])
        .output()
        .expect("wrk is installed");
    let used = children_cpu_us() - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|l| l.contains(" requests in ")).expect("wrk's summary");
    let requests: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
    println!("| wrk, `Connection: close` | {:.1} | {:.0}/s | |", used / requests, requests / 10.0);
    used / requests
}

fn metric(text: &str, name: &str) -> f64 {
    let values = text.lines().filter(|l| l.split([' ', '{']).next() == Some(name));
    values.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn producer(nginx: &Nginx, sites: usize, seconds: u64, what: &str, reference: f64) {
    let mut lab = Lab::new("bench");
    let mut config = "websites:\n".to_owned();
    for n in 0..sites {
        let url = &nginx.url;
        let _ = writeln!(
            config,
            "- {{name: s{n}, url: \"{url}?{n}\", interval: 5, regex: needle-\\d+}}"
        );
    }
    lab.config(&config);
    let producer = lab.start("producer", &[]);
    // All sites are seen once, and the caches are warm.
    eventually_within(Duration::from_secs(120), "all sites checked", || {
        let (_, text) = producer.get("/metrics");
        let checks = metric(&text, "webmon_checks_total");
        if checks > 2.0 * sites as f64 { Ok(()) } else { Err(checks) }
    });
    let look = || {
        let (_, text) = producer.get("/metrics");
        (metric(&text, "webmon_checks_total"), text, cpu_us(producer.pid()), now().mono)
    };
    let begin = look();
    pause(seconds);
    let end = look();
    let (checks, cpu) = (end.0 - begin.0, end.2 - begin.2);
    let rate = checks / (end.3 - begin.3).as_secs_f64();
    println!(
        "| {what} | {:.1} | {rate:.0}/s | {:.1} × wrk |",
        cpu / checks,
        cpu / checks / reference
    );
    println!(
        "| … resident MB | {:.1} | | p99 lateness {} |",
        resident_mb(producer.pid()),
        quantile(&begin.1, &end.1, "webmon_check_lateness_seconds", 0.99)
    );
    producer.stop();
}

/// The bucket in which the quantile of a histogram's growth lies.
fn quantile(before: &str, after: &str, name: &str, q: f64) -> String {
    let bucket = format!("{name}_bucket{{le=\"");
    let read = |text: &str| -> Vec<(String, f64)> {
        let lines = text.lines().filter_map(|l| l.strip_prefix(&bucket));
        lines
            .filter_map(|l| l.split_once("\"} "))
            .map(|(le, n)| (le.to_owned(), n.parse().unwrap()))
            .collect()
    };
    let (before, after) = (read(before), read(after));
    let grown: Vec<(String, f64)> = after
        .iter()
        .enumerate()
        .map(|(i, (le, n))| (le.clone(), n - before.get(i).map_or(0.0, |b| b.1)))
        .collect();
    let total = grown.last().map_or(0.0, |g| g.1);
    let at = grown.iter().find(|(_, n)| *n >= q * total);
    at.map_or_else(|| "none".to_owned(), |(le, _)| format!("≤ {le} s"))
}

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

fn consumer(rows: u64) {
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
    let bytes = fill_topic(&lab, rows, SITES);

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
    let (cpu, resident) = (cpu_us(consumer.pid()), resident_mb(consumer.pid()));
    consumer.stop();
    let stored: i64 = lab.query("SELECT count(*) FROM check_entry").unwrap();
    assert_eq!(stored as u64, rows, "every message is a row");

    let copy = copy_rate(&lab, rows);
    let rate = (rows as f64 - before) / took;
    println!("| `psql \\copy`, one connection | | {copy:.0} rows/s | |");
    println!(
        "| consumer, 4 threads, {rows} messages of {bytes} B | {:.2} | {rate:.0} rows/s | {:.2} × \\copy |",
        cpu / rows as f64,
        rate / copy
    );
    println!("| … resident MB | {resident:.1} | | |");
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
