//! What docs/storage.md tells people to ask runs, and says the same as webmon.

use jiff::SignedDuration;
use webmon::check::{Check, Outcome};
use webmon::site::SiteSpec;
use webmon::store::{Bucket, Histogram};

use super::past::lead;
use super::{check_at, count, migrated, recently};

/// The blocks of SQL in the page.
fn examples() -> Vec<String> {
    let page = include_str!("../../docs/storage.md");
    let blocks = page.split("```sql\n").skip(1);
    let sql = blocks.map(|block| block.split("```").next().unwrap());
    sql.map(|sql| sql.replace("$__timeFilter(hour)", "hour > now() - interval '7 days'")).collect()
}

#[test]
fn the_examples_of_the_page_run() {
    let (database, store) = migrated("examples");
    let spec = |name: &str| SiteSpec {
        name: name.to_owned(),
        url: "https://shop.test/".to_owned(),
        ..SiteSpec::default()
    };
    store.add_missing_sites(&[spec("Shop"), spec("Closed")]).unwrap();
    let rows = store.sites().unwrap();
    let site = rows.iter().find(|row| row.spec.name == "Shop").unwrap().website_id;
    // The two hours before the current one, and a day ago.
    let batch: Vec<Check<'_>> = (0..200)
        .map(|n: i64| Check {
            outcome: if n % 20 == 3 { Outcome::Down } else { Outcome::Up },
            response_time: Some(0.01 * (n + 1) as f64),
            ..check_at(site, recently(), 3600 + n * 30 + (n % 2) * 86_400)
        })
        .collect();
    assert_eq!(store.insert_checks(&batch).unwrap().inserted, 200);
    let deleted = "UPDATE website SET status = 'deleted' WHERE name IN ('Shop', 'Closed')";
    let mut client = database.client();
    client.batch_execute(deleted).unwrap();
    let mut rollups = lead(&store);
    let later = recently() + SignedDuration::from_hours(48);
    for hour in rollups.waiting(later).unwrap().hours {
        rollups.roll_hour(hour).unwrap();
    }
    for day in rollups.waiting(later).unwrap().days {
        rollups.roll_day(day).unwrap();
    }

    let examples = examples();
    assert_eq!(examples.len(), 8);
    let ask = |words: &str| {
        let sql = examples.iter().find(|sql| sql.contains(words)).unwrap();
        database.client().query(sql.as_str(), &[]).unwrap()
    };
    ask("DELETE FROM website");
    let left = client.query("SELECT name FROM website WHERE status = 'deleted'", &[]).unwrap();
    assert_eq!(left.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["Shop"]);
    assert_eq!(ask("LIMIT 100").len(), 100);
    let days = ask("hours_with_checks");
    assert_eq!(days[0].get::<_, String>(0), "Shop");
    assert!((0.9..1.0).contains(&days[0].get::<_, f64>(1)));
    let down: i64 = ask("down_timeout").iter().map(|row| row.get::<_, i64>("down")).sum();
    assert_eq!(down, 10);
    assert!(ask("AS metric").len() > 2);
    ask("FROM rollup_dirty");

    // A consumer of the release before stores a check without a mark; the page has the cure.
    let old = "INSERT INTO check_entry (check_entry_id, website_id, \"timestamp\", outcome, region) \
               SELECT overlay(check_entry_id::text PLACING 'ff' FROM 35)::uuid, website_id, \
                   \"timestamp\", 'missed', 'old' FROM check_entry ORDER BY \"timestamp\" LIMIT 1";
    client.batch_execute(old).unwrap();
    let mut roll_hours = || {
        for hour in rollups.waiting(later).unwrap().hours {
            rollups.roll_hour(hour).unwrap();
        }
        count(&database, "check_hour WHERE region = 'old'")
    };
    assert_eq!(roll_hours(), 0);
    ask("version = 6");
    assert_eq!(roll_hours(), 1);
    for day in rollups.waiting(later).unwrap().days {
        rollups.roll_day(day).unwrap();
    }

    let percentiles = ask("ranked");
    let from = recently() - SignedDuration::from_hours(72);
    let periods = store.response_times(site, None, from, later, Bucket::Day).unwrap();
    assert_eq!(percentiles.len(), periods.len());
    for (row, period) in percentiles.iter().zip(&periods) {
        for (column, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            // The store's is never above the longest time.
            let (plain, ours): (f64, f64) = (row.get(column), period.quantile(q).unwrap());
            assert!((plain / ours - 1.0).abs() < Histogram::ERROR_MAX, "{column}: {plain}, {ours}");
        }
    }
}
