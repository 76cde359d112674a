//! A site's past: how fast checks are counted, what they and their counts take on the disk, and how
//! soon questions are answered, beside one that asks for nothing. The API is asked about the same.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use webmon::runtime::now;
use webmon::store::{Bucket, Rolled, Store};

use crate::report::{Plan, say};
use crate::support::eventually;
use crate::support::services::TestDatabase;

/// A check a minute, for three months and a day: the longest of the questions and a bit.
const CHECKS_A_DAY: u64 = 1440;
const DAYS: u64 = 91;
/// The largest question is about so many sites.
const SITES_MIN: u64 = 100;
/// How often each question is asked.
const ASKED: usize = 300;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Makes `rows` rows in a database of their own, counts them and asks about them.
pub(crate) fn history(plan: &Plan, parts: &[&str]) {
    let rows = plan.history_rows;
    let sites = (rows / CHECKS_A_DAY / DAYS).max(SITES_MIN);
    let days = (rows / CHECKS_A_DAY / sites).clamp(1, DAYS);
    let database = TestDatabase::create("bench_history");
    let store = Store::new(database.options()).expect("a store");
    store.migrate().expect("migrated");
    let today = TimeZone::UTC.to_datetime(now().wall).date();
    let back = u16::try_from(days).expect("few days");
    store.ensure_partitions(today, back, 1).expect("partitions");
    println!("\n{sites} sites, a check a minute, {days} days.\n");

    say(&format!("history: {} rows into the table", sites * days * CHECKS_A_DAY));
    let stored = fill(&database, sites, days);
    say("history: counting");
    count(&store, stored);
    database.client().batch_execute("VACUUM ANALYZE").expect("vacuumed");
    sizes(&database);
    if parts.contains(&"history") {
        say("history: asking");
        ask(&store, sites, days);
    }
    if parts.contains(&"api") {
        super::api::api(plan, database, sites);
    }
}

/// Rows as most are, an hour at a time and in order of their due times, as they come in.
fn fill(database: &TestDatabase, sites: u64, days: u64) -> u64 {
    let end = now().wall;
    let midnight = end.as_second().div_euclid(86_400) * 86_400;
    let first = Timestamp::from_second(midnight).expect("a time") - DAY * days as i32;
    let hours = end.duration_since(first).as_hours();
    let mut client = database.client();
    let mut stored = 0;
    for hour in 0..=hours {
        let (from, to) = (first + HOUR * hour as i32, (first + HOUR * (hour + 1) as i32).min(end));
        let statement = format!(
            "INSERT INTO check_entry (check_entry_id, website_id, \"timestamp\", started_at, \
                 response_time, resolve, connect, processing, transfer, http_status, body_bytes, \
                 redirects, outcome, failure_kind, region, failure_detail, tries) \
             SELECT (lpad(to_hex((extract(epoch FROM due) * 1000)::bigint), 12, '0') || '7' || \
                     substr(md5(site::text), 1, 19))::uuid, site, due, \
                 due + interval '2 ms', took, 0.001234, 0.012345, 0.098765, 0.004321, 200, 20480, 0, \
                 CASE WHEN is_down THEN 'down' ELSE 'up' END, CASE WHEN is_down THEN 'timeout' END, \
                 'default', CASE WHEN is_down THEN 'in processing, after 10.000 s' END, 1 \
             FROM (SELECT site, minute + site * interval '50 ms' AS due, random() < 0.002 AS is_down, \
                     (0.03 + (site % 50) * 0.01) * exp(random() + random() * random()) AS took \
                 FROM generate_series(timestamptz '{from}', timestamptz '{to}' - interval '1 us', \
                     interval '1 min') AS minute, generate_series(1, {sites}) AS site) AS made"
        );
        stored += client.execute(&statement, &[]).expect("inserted");
        let mark = "INSERT INTO rollup_dirty VALUES ($1)";
        client.execute(mark, &[&from]).expect("marked");
    }
    client.batch_execute("ANALYZE check_entry").expect("analysed");
    stored
}

fn count(store: &Store, rows: u64) {
    let mut rollups = eventually("the lead", || store.try_rollups().expect("asked").ok_or(()));
    // All but the hour that has not ended.
    let end = now().wall;
    let (begin, mut written) = (now().mono, 0);
    let waiting = rollups.waiting(end).expect("asked");
    let mut add = |rolled: Rolled| match rolled {
        Rolled::Written(rows) => written += rows,
        other => panic!("{other:?}"),
    };
    for hour in &waiting.hours {
        add(rollups.roll_hour(*hour).expect("counted"));
    }
    let (hours, by_hour) = (waiting.hours.len(), (now().mono - begin).as_secs_f64());
    let (begin, days) = (now().mono, rollups.waiting(end).expect("asked").days);
    for day in &days {
        add(rollups.roll_day(*day).expect("counted"));
    }
    let by_day = (now().mono - begin).as_secs_f64();
    let begin = now().mono;
    for hour in waiting.hours.iter().take(24) {
        // Nothing has changed.
        rollups.roll_hour(*hour).expect("counted");
    }
    let again = (now().mono - begin).as_secs_f64() / 24.0;
    println!("| counting | figure |\n|---|---|");
    println!(
        "| {hours} hours from {rows} checks | {:.2} µs a check | ",
        by_hour * 1e6 / rows as f64
    );
    println!("| the same | {:.0} checks/s |", rows as f64 / by_hour);
    println!(
        "| {} days from hours | {:.1} ms a day |",
        days.len(),
        by_day * 1e3 / days.len() as f64
    );
    println!("| an hour again, nothing changed | {:.1} ms |", again * 1e3);
    println!("| rows written | {written} |");
}

fn sizes(database: &TestDatabase) {
    println!("\n| table | rows | bytes a row, indexes included | in all |\n|---|---|---|---|");
    for table in ["check_entry", "check_hour", "check_day"] {
        let question = format!(
            "SELECT (SELECT count(*) FROM {table}), sum(pg_total_relation_size(relid))::bigint \
             FROM pg_partition_tree('{table}') WHERE isleaf"
        );
        let row = database.client().query_one(&question, &[]).expect("asked");
        let (rows, bytes): (i64, i64) = (row.get(0), row.get(1));
        let each = bytes as f64 / rows.max(1) as f64;
        println!("| `{table}` | {rows} | {each:.0} | {:.1} MB |", bytes as f64 / 1e6);
    }
}

fn ask(store: &Store, sites: u64, days: u64) {
    println!("\n| question | p50 | p99 |\n|---|---|---|");
    let end = now().wall;
    let sites = i64::try_from(sites).expect("few sites");
    let hundred: Vec<i64> = (1..=100).collect();
    let site = |n: usize| (n as i64 * 37) % sites + 1;
    let ago = |days: i32| end - DAY * days;
    measure("nothing (an empty statement through the same pool)", |_| store.ping().expect("asked"));
    measure("the last 100 checks of a site, of at most 400 days", |n| {
        let found = store.checks_of(site(n), ago(400), end, 100, None).expect("asked");
        assert_eq!(found.len(), 100);
    });
    measure("a day of a site, deep in the past (1,440 checks)", |n| {
        let day = ago((days / 2) as i32 + (n as u64 % (days / 3).max(1)) as i32);
        let found = store.checks_of(site(n), day - DAY, day, 2000, None).expect("asked");
        assert!(!found.is_empty());
    });
    for days in [1, 7, 30, 90] {
        measure(&format!("uptime of a site, {days} d"), |n| {
            let found = store.uptime(&[site(n)], ago(days), end).expect("asked");
            assert!(found.len() == 1 && found[0].up > 0);
        });
        measure(&format!("uptime of 100 sites, {days} d"), |_| {
            assert_eq!(store.uptime(&hundred, ago(days), end).expect("asked").len(), 100);
        });
    }
    for (name, bucket) in [("hour", Bucket::Hour), ("day", Bucket::Day)] {
        measure(&format!("response times of a site, 30 d by {name}, with p50, p95, p99"), |n| {
            let found = store.response_times(site(n), None, ago(30), end, bucket).expect("asked");
            let quantiles = [0.5, 0.95, 0.99];
            let all = found.iter().flat_map(|period| quantiles.map(|q| period.quantile(q)));
            assert!(all.flatten().count() > 0);
        });
    }
}

fn measure(what: &str, question: impl Fn(usize)) {
    let took = |n: usize| {
        let begin = now().mono;
        question(n);
        now().mono - begin
    };
    let mut times: Vec<Duration> = (0..ASKED).map(took).collect();
    times.sort_unstable();
    let ms = |at: usize| times[at].as_secs_f64() * 1e3;
    println!("| {what} | {:.2} ms | {:.2} ms |", ms(ASKED / 2), ms(ASKED * 99 / 100));
}
