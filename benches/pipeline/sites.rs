//! A producer with many sites of the same pattern, and what its rows tell afterwards.

use std::time::Duration;

use crate::process::{Snapshot, Span};
use crate::report::{Plan, say};
use crate::support::daemon::{Daemon, Lab};
use crate::support::eventually_within;
use crate::web::Nginx;

/// Longest wait for a daemon to get where it should: only a real fault takes longer.
const CAP: Duration = Duration::from_secs(300);
/// Seconds between two checks where only the rate matters.
pub(crate) const INTERVAL: u32 = 5;

/// A database with the tables and without sites, and an empty topic.
pub(crate) fn lab(plan: &Plan, nginx: Option<&Nginx>) -> Lab {
    let mut lab = Lab::new("bench");
    lab.set("WEBMON_PRODUCER_THREADS", &plan.threads.to_string());
    if let Some(nginx) = nginx {
        lab.set("SSL_CERT_FILE", &nginx.authority().display().to_string());
    }
    let output = lab.run(&["migrate"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The indexes for searching are of no use here, and make 100,000 sites slow to add.
    lab.database
        .client()
        .batch_execute(
            "DELETE FROM website; DROP INDEX IF EXISTS website_name_trgm, website_url_trgm",
        )
        .expect("the table is there");
    lab
}

/// Adds the sites `from` to `to`, each with a URL of its own.
pub(crate) fn add(lab: &Lab, nginx: &Nginx, scheme: &str, (from, to): (u32, u32), interval: u32) {
    let url = nginx.url_of_n(scheme);
    let sql = format!(
        "INSERT INTO website (name, url, regex, interval_seconds)
         SELECT 's' || n, {url}, 'needle-\\d+', {interval} FROM generate_series({from}, {to}) n"
    );
    lab.database.client().batch_execute(&sql).expect("sites are added");
}

/// Waits until the producer has so many sites.
pub(crate) fn wait_for_sites(producer: &Daemon, sites: u32) {
    eventually_within(CAP, "all sites are known", || {
        let known = Snapshot::take(producer).metric("webmon_sites");
        if known == f64::from(sites) { Ok(()) } else { Err(known) }
    });
}

/// Waits until every site was checked twice: caches are warm, lanes chosen.
pub(crate) fn wait_until_warm(producer: &Daemon, sites: u32) {
    wait_for_sites(producer, sites);
    eventually_within(CAP, "all sites are checked", || {
        let checks = Snapshot::take(producer).metric("webmon_checks_total");
        if checks >= 2.0 * f64::from(sites) { Ok(()) } else { Err(checks) }
    });
}

/// Lateness in ms, from the rows.
pub(crate) struct Lateness {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    pub(crate) missed: i64,
}

/// Puts all that the producer, which has ended, published into the table. Only now, so that the
/// consumer took no CPU from what was measured.
pub(crate) fn consume(lab: &Lab, last: &Snapshot) {
    say("rows into the table, to look at their times");
    let published = last.metric("webmon_checks_total");
    let consumer = lab.start("consumer", &[]);
    eventually_within(CAP, "all checks are rows", || {
        let inserted = Snapshot::take(&consumer).metric("webmon_rows_inserted_total");
        if inserted >= published { Ok(()) } else { Err((inserted, published)) }
    });
    consumer.stop();
}

/// Of the checks that were due in the span.
pub(crate) fn lateness(lab: &Lab, span: &Span) -> Lateness {
    consume(lab, &span.end);
    let sql = format!(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms),
                percentile_cont(0.99) WITHIN GROUP (ORDER BY ms),
                max(ms), count(*) FILTER (WHERE ms IS NULL)
         FROM (SELECT (1000 * extract(epoch FROM started_at - \"timestamp\"))::float8 AS ms
               FROM check_entry
               WHERE \"timestamp\" >= to_timestamp({} / 1000.0)
                 AND \"timestamp\" < to_timestamp({} / 1000.0)) late",
        span.begin.wall_ms, span.end.wall_ms
    );
    let row = lab.database.client().query_one(&sql, &[]).expect("rows");
    Lateness { p50: row.get(0), p99: row.get(1), max: row.get(2), missed: row.get(3) }
}
