//! Several producers and one list of sites: shares, a third that joins, one that dies.

mod support;

use std::collections::BTreeMap;

use support::daemon::{Daemon, Lab};
use support::eventually;
use support::web::Web;
use webmon::runtime::now;

const SITES: u64 = 60;
const INTERVAL_MS: i64 = 5000;
/// The shortest session that brokers take.
const SESSION_MS: i64 = 6000;
/// The others notice with a heartbeat (1 s), join again and read the site list (1 s); the rest is
/// for a machine that is busy.
const TAKE_OVER_MS: i64 = 10_000;

fn sites(daemon: &Daemon) -> u64 {
    let (_, text) = daemon.get("/metrics");
    let line = text.lines().find(|line| line.starts_with("webmon_sites "));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

fn wait_until_shared(daemons: &[&Daemon]) {
    eventually("each has a share, and nothing is shared twice any more", || {
        let shares: Vec<u64> = daemons.iter().map(|daemon| sites(daemon)).collect();
        let is_shared = shares.iter().sum::<u64>() == SITES && shares.iter().all(|s| *s > 0);
        if is_shared { Ok(()) } else { Err(shares) }
    });
}

fn start(lab: &mut Lab, number: usize) -> Daemon {
    let spool = lab.dir.path().join(format!("spool-{number}"));
    lab.set("WEBMON_PRODUCER_SPOOL_DIR", &spool.display().to_string());
    lab.start("producer", &[])
}

fn wait_for_rounds(lab: &Lab, rounds: u64) {
    let from_ms = now().wall.as_millisecond();
    let count = format!(
        "SELECT count(*) FROM check_entry WHERE timestamp > to_timestamp({from_ms} / 1000.0)"
    );
    lab.wait_for_count("rounds of checks", &count, (rounds * SITES) as i64);
}

#[test]
fn a_third_joins_and_a_killed_ones_sites_go_on_within_the_session() {
    let web = Web::start(|_| (200, "fine".to_owned()));
    let mut lab = Lab::new("owners");
    let list: String = (0..SITES)
        .map(|n| {
            format!("  - {{name: site-{n}, url: \"{}\", interval: 5}}\n", web.url(&format!("/{n}")))
        })
        .collect();
    lab.config(&format!("websites:\n{list}"));
    lab.set("WEBMON_KAFKA_CONSUMER_SESSION_TIMEOUT", &(SESSION_MS / 1000).to_string());
    let consumer = lab.start("consumer", &[]);
    let first = start(&mut lab, 1);
    let second = start(&mut lab, 2);
    wait_until_shared(&[&first, &second]);
    wait_for_rounds(&lab, 1);
    let third = start(&mut lab, 3);
    wait_until_shared(&[&first, &second, &third]);
    wait_for_rounds(&lab, 1);
    let orphans = sites(&second);
    let killed_ms = now().wall.as_millisecond();
    second.kill();
    wait_until_shared(&[&first, &third]);
    let taken_ms = now().wall.as_millisecond();
    wait_for_rounds(&lab, 2);
    let ended_ms = now().wall.as_millisecond();
    first.stop();
    third.stop();
    let cut = 1 + i64::try_from(orphans).unwrap();
    // The killed one's spool may hold some of its last results; they come with its next start.
    let heir = start(&mut lab, 2);
    eventually("it is ready", || match heir.get("/readyz") {
        (200, _) => Ok(()),
        other => Err(other),
    });
    heir.stop();
    consumer.stop();

    let rows = lab
        .database
        .client()
        .query(
            // The heir checks too, after a time without anybody.
            "SELECT website_id, (extract(epoch FROM timestamp) * 1000)::bigint
             FROM check_entry WHERE timestamp < to_timestamp($1::bigint / 1000.0) ORDER BY 1, 2",
            &[&ended_ms],
        )
        .unwrap();
    let mut times: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in &rows {
        times.entry(row.get(0)).or_default().push(row.get(1));
    }
    assert_eq!(times.len() as u64, SITES);
    let (mut missing, mut gaps) = (0, 0);
    for (website_id, times) in &times {
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            // One row for a due time, and none between two.
            assert!(gap > 0 && gap % INTERVAL_MS == 0, "site {website_id}: {times:?}");
            if gap == INTERVAL_MS {
                continue;
            }
            gaps += 1;
            missing += gap / INTERVAL_MS - 1;
            // A check may have been under way, or its result not yet on the disk.
            assert!(pair[0] >= killed_ms - 2 * INTERVAL_MS, "site {website_id}: {times:?}");
            assert!(pair[1] <= taken_ms + INTERVAL_MS, "site {website_id}: {times:?}");
            assert!(gap <= SESSION_MS + TAKE_OVER_MS + INTERVAL_MS, "{website_id}: {times:?}");
        }
    }
    println!("{orphans} sites of the killed producer: {missing} due times without one");
    assert!(gaps < cut, "only the killed one's sites had to wait");
}
