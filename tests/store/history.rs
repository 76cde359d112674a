//! Questions about a site's past: the answers, and how the server finds them.

use std::sync::{Mutex, OnceLock};

use jiff::civil::date;
use jiff::{SignedDuration, Timestamp};
use log::kv::Key;
use webmon::check::{Check, FailureKind};
use webmon::runtime::now;
use webmon::store::{Bucket, Histogram, Store};

use super::past::{DAY, HOUR, Seen, in_may, lead, plain, roll, seen, start};
use super::support::services::TestDatabase;
use super::{check_at, recently, with_site};

/// Two and a half days of a check each 5 minutes, and few other things.
fn some(site: i64) -> Vec<Check<'static>> {
    let what = |n: i64| match n % 97 {
        5 => Seen::Down(FailureKind::Timeout),
        6 => Seen::Unreachable,
        7 => Seen::Missed,
        // Over four powers of ten.
        n => Seen::Up(u32::try_from(150 + n * n * n * 20).unwrap()),
    };
    (0..720).map(|n| seen(site, "x", n * 300, what(n))).collect()
}

fn stored(store: &Store, site: i64) {
    for batch in some(site).chunks(100) {
        store.insert_checks(batch).unwrap();
    }
}

#[test]
fn response_times_are_those_of_the_checks() {
    let (database, store, site) = in_may("periods");
    stored(&store, site);
    let mut rollups = lead(&store);
    // At first each third hour is answered from its checks.
    for (n, hour) in rollups.waiting(start() + 3 * DAY).unwrap().hours.into_iter().enumerate() {
        if n % 3 > 0 {
            rollups.roll_hour(hour).unwrap();
        }
    }
    for step in 0..3 {
        for (bucket, length) in [(Bucket::Hour, HOUR), (Bucket::Day, DAY)] {
            let (from, to) = (start() + DAY / 2, start() + 2 * DAY + DAY / 4);
            // By day, the bounds go outwards to whole days.
            let (first, last) =
                if length == DAY { (start(), start() + 3 * DAY) } else { (from, to) };
            let expected = plain(&mut database.client(), first, last, length);
            let found = store.response_times(site, None, from, to, bucket).unwrap();
            assert_eq!(found.len(), expected.len(), "step {step}");
            for (period, ((_, begin, _), counts)) in found.iter().zip(&expected) {
                assert_eq!(period.start, *begin);
                let numbers = [period.up, period.down, period.missed, period.unreachable_self];
                let wanted = [counts.up, counts.down, counts.missed, counts.unreachable_self];
                assert_eq!(numbers.map(|n| n as i32), wanted);
                let kinds = period.failures.iter().map(|(kind, n)| (kind.as_str(), *n as i32));
                let kinds: std::collections::BTreeMap<_, _> = kinds.collect();
                let plain_kinds = counts.kinds.iter().map(|(kind, n)| (kind.as_str(), *n));
                assert_eq!(kinds, plain_kinds.collect());
                let times = counts.sorted_times();
                let exact = |q: f64| {
                    let rank = (q * times.len() as f64).ceil().max(1.0) as usize;
                    times[rank - 1] as f64 / 1e6
                };
                for q in [0.0, 0.5, 0.9, 0.95, 0.99, 1.0] {
                    let near = period.quantile(q).unwrap();
                    let error = (near / exact(q) - 1.0).abs();
                    assert!(error < Histogram::ERROR_MAX, "{q}: {near}, exactly {}", exact(q));
                }
                assert_eq!((period.min, period.max), (Some(exact(0.0)), Some(exact(1.0))));
                let mean = times.iter().sum::<i64>() as f64 / 1e6 / times.len() as f64;
                assert!((period.mean().unwrap() - mean).abs() < 1e-9);
            }
        }
        // Then all hours, and then the days too.
        for hour in rollups.waiting(start() + 3 * DAY).unwrap().hours {
            rollups.roll_hour(hour).unwrap();
        }
        if step == 1 {
            roll(&mut rollups);
        }
    }
}

#[test]
fn the_hour_that_has_not_ended_is_answered_from_its_checks() {
    let (_database, store, site) = with_site("unfinished");
    let now = recently();
    let late = [seen(site, "default", 0, Seen::Up(5000))];
    assert_eq!(store.insert_checks(&late).unwrap().refused.len(), 1);
    let up = Check { response_time: Some(0.25), ..check_at(site, now, 0) };
    let up = Check { outcome: webmon::check::Outcome::Up, ..up };
    store.insert_checks(&[up, check_at(site, now, 60)]).unwrap();
    let uptime = &store.uptime(&[site, 4711], now - DAY, now + HOUR).unwrap()[..];
    assert_eq!(uptime.len(), 1);
    assert_eq!((uptime[0].up, uptime[0].down), (1, 1));
    assert_eq!(uptime[0].ratio(), Some(0.5));
    let periods = store.response_times(site, None, now - DAY, now + HOUR, Bucket::Day).unwrap();
    assert_eq!(periods.iter().map(|p| p.response_times).sum::<u64>(), 1);
    let of =
        |region| store.response_times(site, region, now - DAY, now + HOUR, Bucket::Hour).unwrap();
    assert!(of(Some("elsewhere")).is_empty());
    assert_eq!(of(Some("default")), of(None));
}

#[test]
fn bounds_are_inclusive_below_exclusive_above_and_whole_hours() {
    let (_database, store, site) = in_may("bounds");
    let at = |second| seen(site, "x", second, Seen::Up(1));
    let times = [3599, 3600, 7199, 7200];
    store.insert_checks(&times.map(at)).unwrap();
    let second = SignedDuration::from_secs(1);
    let mut rollups = lead(&store);
    for _ in 0..2 {
        let up = |from: Timestamp, to: Timestamp| {
            let found = store.uptime(&[site], from, to).unwrap();
            found.first().map_or(0, |uptime| uptime.up)
        };
        assert_eq!(up(start() + HOUR, start() + 2 * HOUR), 2);
        assert_eq!(up(start() + HOUR + second, start() + HOUR + 2 * second), 2);
        assert_eq!(up(start() + HOUR - second, start() + 2 * HOUR + second), 4);
        for (from, to) in [(HOUR, HOUR), (2 * HOUR, HOUR), (30 * HOUR, 40 * HOUR)] {
            assert!(store.uptime(&[site], start() + from, start() + to).unwrap().is_empty());
        }
        assert_eq!(up(Timestamp::MIN, Timestamp::MAX), 4);
        assert!(store.uptime(&[], start(), start() + DAY).unwrap().is_empty());
        roll(&mut rollups);
    }
    let page = |from: i64, to: i64| -> Vec<i64> {
        let at = |second| start() + SignedDuration::from_secs(second);
        let found = store.checks_of(site, at(from), at(to), 10, None).unwrap();
        found.iter().map(|c| c.timestamp.duration_since(start()).as_secs()).collect()
    };
    assert_eq!(page(3599, 7200), [7199, 3600, 3599]);
    assert_eq!(page(3600, 7201), [7200, 7199, 3600]);
    assert!(page(3601, 7199).is_empty() && page(7200, 3600).is_empty());
    let all = store.checks_of(site, Timestamp::MIN, Timestamp::MAX, 10, None).unwrap();
    assert_eq!(all.len(), 4);
}

#[test]
fn uptime_leaves_out_what_says_nothing_about_the_site() {
    let (_database, store, site) = in_may("uptime");
    let seen = [
        Seen::Up(1),
        Seen::Up(1),
        Seen::Up(1),
        Seen::Down(FailureKind::Status),
        Seen::Unreachable,
        Seen::Missed,
    ];
    let batch: Vec<_> =
        (0..).zip(seen).map(|(n, what)| super::past::seen(site, "x", n, what)).collect();
    store.insert_checks(&batch).unwrap();
    store.insert_checks(&[super::past::seen(site, "y", 0, Seen::Missed)]).unwrap();
    let found = store.uptime(&[site], start(), start() + DAY).unwrap();
    assert_eq!((found[0].ratio(), found[0].down, found[0].missed), (Some(0.75), 2, 1));
    // No check says something about it: no uptime, and not 0 or 1.
    assert_eq!((found[1].region.as_str(), found[1].ratio()), ("y", None));
    let day = &store.response_times(site, None, start(), start() + DAY, Bucket::Day).unwrap()[0];
    assert_eq!((day.uptime(), day.missed, day.response_times), (Some(0.75), 2, 3));
}

#[test]
fn pages_have_each_check_once() {
    let (_database, store, site) = in_may("pages");
    let mut expected = some(site);
    // Others due at the very same times.
    expected.extend(some(site).iter().step_by(3).map(|check| {
        let second = check.scheduled_at.duration_since(start()).as_secs();
        seen(site, "y", second, Seen::Missed)
    }));
    for batch in expected.chunks(100) {
        store.insert_checks(batch).unwrap();
    }
    expected.sort_by_key(|check| (check.scheduled_at, check.check_entry_id));
    let (mut before, mut found) = (None, Vec::new());
    loop {
        let page = store.checks_of(site, start(), start() + 5 * DAY, 37, before).unwrap();
        before = page.last().map(|check| (check.timestamp, check.check_entry_id));
        let is_last = page.len() < 37;
        found.extend(page);
        if is_last {
            break;
        }
        // Newer ones that come in meanwhile don't matter.
        let late = seen(site, "z", 3 * 86_400 + found.len() as i64, Seen::Missed);
        store.insert_checks(&[late]).unwrap();
    }
    let ids: Vec<_> = found.iter().map(|check| check.check_entry_id).collect();
    let wanted: Vec<_> = expected.iter().rev().map(|check| check.check_entry_id).collect();
    assert_eq!(ids, wanted);
}

/// Keeps what servers say to the store: the plans of `auto_explain`.
struct Notices(Mutex<Vec<String>>);

impl log::Log for Notices {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if let Some(text) = record.key_values().get(Key::from_str("text")) {
            self.0.lock().unwrap().push(text.to_string());
        }
    }

    fn flush(&self) {}
}

fn notices() -> &'static Notices {
    static NOTICES: OnceLock<&'static Notices> = OnceLock::new();
    NOTICES.get_or_init(|| {
        let notices = Box::leak(Box::new(Notices(Mutex::default())));
        log::set_logger(notices).expect("no other test logs");
        log::set_max_level(log::LevelFilter::Debug);
        notices
    })
}

/// The plans with which the server really answered `question` in this database.
fn plans<R>(
    database: &TestDatabase,
    question: impl FnOnce(&Store) -> R,
) -> (R, Vec<serde_json::Value>) {
    let notices = notices();
    let name = &database.name;
    database
        .client()
        .batch_execute(&format!(
            "ALTER DATABASE {name} SET session_preload_libraries = 'auto_explain'; \
             ALTER DATABASE {name} SET auto_explain.log_min_duration = 0; \
             ALTER DATABASE {name} SET auto_explain.log_analyze = on; \
             ALTER DATABASE {name} SET auto_explain.log_format = 'json'; \
             ALTER DATABASE {name} SET auto_explain.log_level = 'warning'",
        ))
        .unwrap();
    // Connections of its own: the settings are those of new ones.
    let result = question(&Store::new(database.options()).unwrap());
    let all = notices.0.lock().unwrap();
    let plans = all.iter().filter_map(|text| serde_json::from_str(&text[text.find('{')?..]).ok());
    (result, plans.collect())
}

/// Every node of a plan, whether or not it came to run, as type, table and index.
fn nodes(plan: &serde_json::Value, into: &mut Vec<(String, String, String)>) {
    let text = |key: &str| plan[key].as_str().unwrap_or_default().to_owned();
    into.push((text("Node Type"), text("Relation Name"), text("Index Name")));
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, into);
    }
}

#[test]
fn only_the_partitions_of_the_time_are_looked_into_and_by_index() {
    let (database, store, site) = in_may("plans");
    // A year of partitions, and enough rows that the server has a choice.
    store.ensure_partitions(date(2024, 12, 31), 0, 0).unwrap();
    let fill = format!(
        "INSERT INTO check_entry (check_entry_id, website_id, \"timestamp\", outcome, region, \
             response_time) \
         SELECT (lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || \
                 lpad(to_hex(s), 20, '0'))::uuid, {site} + s, t, 'up', 'x', 0.1 \
         FROM generate_series(timestamptz '2024-05-01Z', timestamptz '2024-05-05 23:59Z', \
             interval '10 min') t, generate_series(0, 99) s; \
         INSERT INTO rollup_dirty SELECT generate_series(timestamptz '2024-05-01Z', \
             timestamptz '2024-05-05 23:00Z', interval '1 hour')"
    );
    database.client().batch_execute(&fill).unwrap();
    roll(&mut lead(&store));
    // The last two hours are not counted.
    let unfinished = "DELETE FROM check_hour WHERE hour >= '2024-05-05 22:00Z'; \
                      INSERT INTO rollup_dirty VALUES ('2024-05-05 22:00Z'), ('2024-05-05 23:00Z'); \
                      ANALYZE";
    database.client().batch_execute(unfinished).unwrap();

    let to = start() + 5 * DAY;
    let ((), mut plans) = plans(&database, |store| {
        let last = store.checks_of(site, start() - 400 * DAY, to, 100, None).unwrap();
        assert_eq!(last.len(), 100);
        let deep = store.checks_of(site, start() + DAY, start() + 2 * DAY, 500, None).unwrap();
        assert_eq!(deep.len(), 144);
        let uptime = store.uptime(&[site], start() + HOUR, to).unwrap();
        assert_eq!(uptime[0].up, 119 * 6);
        let periods =
            store.response_times(site, None, start() + 4 * DAY, to, Bucket::Hour).unwrap();
        assert_eq!(periods.len(), 24);
    });
    for (question, tables) in [
        ("($4, $5)", vec!["check_entry_y2024m05d05"]),
        ("($4, $5)", vec!["check_entry_y2024m05d02"]),
        ("sum(missed)", vec!["check_day_y2024", "check_hour_y2024m05", "check_entry_y2024m05d05"]),
        ("AS start", vec!["check_hour_y2024m05", "check_entry_y2024m05d05"]),
    ] {
        // The first of them that was not looked at yet.
        let at = plans.iter().position(|plan| {
            let text = plan["Query Text"].as_str().unwrap_or_default();
            text.contains(question) && !text.contains("INSERT")
        });
        let plan = plans.remove(at.unwrap_or_else(|| panic!("no plan of {question}")));
        let mut found = Vec::new();
        nodes(&plan["Plan"], &mut found);
        let scans: Vec<_> =
            found.iter().filter(|(_, table, _)| table.starts_with("check_")).collect();
        let mut looked: Vec<&str> = scans.iter().map(|(_, table, _)| table.as_str()).collect();
        looked.sort_unstable();
        looked.dedup();
        let mut tables = tables;
        tables.sort_unstable();
        assert_eq!(looked, tables, "{question}: {found:?}");
        for (node, table, index) in scans {
            let small = table.starts_with("check_day");
            let is_by_index = node.contains("Index") || node == "Bitmap Heap Scan";
            assert!(small || is_by_index, "{question}: {node} of {table} {index}");
        }
    }
    assert!(now().wall > to);
}
