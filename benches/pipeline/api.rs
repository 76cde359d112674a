//! The API: how soon requests are answered at a given rate, each kind for itself, beside `/readyz`,
//! which asks the database for nothing on the same path.
//!
//! Open loop: requests are due at fixed times, whether those before are answered or not, and a time
//! is from when the request was due. So a server that falls behind shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use webmon::runtime::{Stop, now};

use crate::report::{Plan, say};
use crate::support::daemon::Lab;
use crate::support::services::{TestDatabase, kafka_servers};

/// Clients, each with a connection: more than are ever under way at once if all is well.
const CLIENTS: usize = 16;
/// Requests before the measurement, for connections and caches.
const WARM_UP: u64 = 50;
/// The goal for the 99th percentile.
const GOAL_MS: f64 = 50.0;

/// Asks `webmon api` about the database of the past, in which `sites` have checks.
pub(crate) fn api(plan: &Plan, database: TestDatabase, sites: u64) {
    say(&format!("api: {} sites", plan.api_sites));
    add_sites(&database, plan.api_sites);
    let mut lab = Lab::at(database, &kafka_servers().join(","), "bench_api");
    lab.set("WEBMON_API_LISTEN", "127.0.0.1:0").set("WEBMON_API_RATE_LIMIT", "0");
    let daemon = lab.start("webmon", &["api"]);
    let address = daemon.address();
    println!(
        "\n{} sites, {} requests/s for {} s each.\n",
        plan.api_sites, plan.api_rate, plan.seconds
    );
    println!("| request | p50 | p99 | most | goal |\n|---|---|---|---|---|");
    // Scattered over all sites, and over those with checks.
    let any = |n: u64| n * 7_919 % plan.api_sites + 1;
    let known = |n: u64| n * 37 % sites + 1;
    let questions: [(&str, &(dyn Fn(u64) -> String + Sync)); 8] = [
        ("`/readyz` (an empty statement)", &|_| "/readyz".to_owned()),
        ("`/websites`, 50 from anywhere", &|n| {
            format!("/websites?limit=50&cursor={}", after(any(n)))
        }),
        ("`/websites`, 500", &|_| "/websites?limit=500".to_owned()),
        ("`/website?keyword=`, one site's name", &|n| {
            format!("/website?keyword=site-{:06}", any(n))
        }),
        ("`/website?keyword=`, in all names", &|_| "/website?keyword=shop".to_owned()),
        ("`/monitoring?url=`, the newest 50", &|n| format!("/monitoring?url={}", url(known(n)))),
        ("`/websites/{id}/uptime`, 30 days", &|n| format!("/websites/{}/uptime", known(n))),
        ("`/websites/{id}/response-times`", &|n| format!("/websites/{}/response-times", known(n))),
    ];
    for (name, path) in questions {
        say(&format!("api: {name}"));
        let count = plan.seconds * plan.api_rate;
        let _ = ask(&address, WARM_UP, plan.api_rate, path);
        let times = ask(&address, count, plan.api_rate, path);
        let ms = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let goal =
            if name.contains("readyz") { String::new() } else { format!("p99 < {GOAL_MS} ms") };
        println!("| {name} | {:.1} ms | {:.1} ms | {:.1} ms | {goal} |", ms(50), ms(99), ms(100));
    }
    daemon.stop();
}

/// The cursor of the page that begins behind this site.
fn after(site: u64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(site.to_string())
}

fn url(site: u64) -> String {
    format!("https://host-{site}.example/shop/{site}")
}

/// Sites 1 and on: the rows of the past belong to the first of them.
fn add_sites(database: &TestDatabase, sites: u64) {
    let statement = format!(
        "TRUNCATE website RESTART IDENTITY; \
         INSERT INTO website (name, url, interval_seconds) \
         SELECT 'shop site-' || lpad(n::text, 6, '0'), \
                'https://host-' || n || '.example/shop/' || n, 60 \
         FROM generate_series(1, {sites}) AS n; \
         VACUUM ANALYZE website"
    );
    let mut client = database.client();
    for statement in statement.split("; ") {
        client.batch_execute(statement).expect("sites");
    }
}

/// The times of `count` requests, `rate` a second, the shortest first.
fn ask(
    address: &str,
    count: u64,
    rate: u64,
    path: &(dyn Fn(u64) -> String + Sync),
) -> Vec<Duration> {
    let (next, begin) = (AtomicU64::new(0), now().mono + Duration::from_millis(20));
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let client = || {
            let config = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
            let agent = ureq::Agent::new_with_config(config.build());
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return times;
                }
                let due = begin + Duration::from_micros(n * 1_000_000 / rate);
                let _ = Stop::new().wait(due.saturating_sub(now().mono));
                let url = format!("http://{address}{}", path(n));
                let mut answer = agent.get(&url).call().expect("an answer");
                let text = answer.body_mut().read_to_string().expect("a body");
                assert_eq!(answer.status(), 200, "{url}: {text}");
                times.push(now().mono.saturating_sub(due));
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    times.sort_unstable();
    times
}
