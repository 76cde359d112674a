//! Checks of some days in the past, and their counts made the plain way.

use std::collections::BTreeMap;

use jiff::civil::date;
use jiff::{SignedDuration, Timestamp};
use postgres::Client;
use webmon::check::{Check, Failure, FailureKind, Identity, Outcome};
use webmon::store::{Rolled, Rollups, Store};

use super::support::services::TestDatabase;
use super::with_site;

pub(crate) const HOUR: SignedDuration = SignedDuration::from_hours(1);
pub(crate) const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The first moment of the days that [`in_may`] makes.
pub(crate) fn start() -> Timestamp {
    "2024-05-01T00:00:00Z".parse().unwrap()
}

/// The first moment after them.
pub(crate) fn end() -> Timestamp {
    start() + 5 * DAY
}

/// A store with the first five days of May 2024 and nothing marked; the id of its site.
pub(crate) fn in_may(prefix: &str) -> (TestDatabase, Store, i64) {
    let (database, store, site) = with_site(prefix);
    assert_eq!(store.ensure_partitions(date(2024, 5, 3), 2, 2).unwrap().len(), 5);
    database.client().batch_execute("TRUNCATE rollup_dirty").unwrap();
    (database, store, site)
}

/// What a check saw.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    Up(u32),
    Down(FailureKind),
    Unreachable,
    Missed,
}

/// A check of `site`, `seconds` after [`start`].
pub(crate) fn seen(site: i64, region: &str, seconds: i64, seen: Seen) -> Check<'static> {
    let identity = Identity::new(site, region);
    let due = start() + SignedDuration::from_secs(seconds);
    let check = Check::empty(&identity, site, String::new(), region.to_owned(), due);
    let time = |us: u32| Some(f64::from(us) / 1e6);
    match seen {
        Seen::Up(us) => Check { outcome: Outcome::Up, response_time: time(us), ..check },
        Seen::Down(kind) => {
            let failure = Some(Failure::new(kind, "for a test"));
            Check { failure, response_time: time(7), ..check }
        }
        Seen::Unreachable => {
            let failure = Some(Failure::new(FailureKind::Connect, "no network"));
            Check { failure, unreachable_self: true, ..check }
        }
        Seen::Missed => Check { outcome: Outcome::Missed, ..check },
    }
}

/// Checks counted. Times in µs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) up: i32,
    pub(crate) down: i32,
    pub(crate) missed: i32,
    pub(crate) unreachable_self: i32,
    pub(crate) kinds: BTreeMap<String, i32>,
    pub(crate) times: Vec<i64>,
    /// Hours with checks.
    pub(crate) hours: i32,
}

impl Counts {
    fn buckets(&self) -> BTreeMap<i16, i32> {
        let mut buckets = BTreeMap::new();
        for us in &self.times {
            // Bounds are powers of 2^(1/8), and half a µs is no time here.
            let bucket = (0..400).find(|k| *us as f64 <= (f64::from(*k) / 8.0).exp2() + 1e-9);
            *buckets.entry(bucket.unwrap()).or_default() += 1;
        }
        buckets
    }

    pub(crate) fn sorted_times(&self) -> Vec<i64> {
        let mut times = self.times.clone();
        times.sort_unstable();
        times
    }
}

/// By site, begin and region.
pub(crate) type Table = BTreeMap<(i64, Timestamp, String), Counts>;

/// The begin of the period that `time` is in; one of them begins at [`start`].
fn down_to(time: Timestamp, length: SignedDuration) -> Timestamp {
    let since = time.duration_since(start()).as_secs();
    start() + SignedDuration::from_secs(since.div_euclid(length.as_secs()) * length.as_secs())
}

/// All checks from `from` to before `to`, counted one by one in periods of `length`.
pub(crate) fn plain(
    client: &mut Client,
    from: Timestamp,
    to: Timestamp,
    length: SignedDuration,
) -> Table {
    let mut hours: BTreeMap<(i64, Timestamp, String), Vec<Timestamp>> = BTreeMap::new();
    let mut table = Table::new();
    let question = "SELECT website_id, \"timestamp\", region, outcome, failure_kind, \
                    unreachable_self, response_time FROM check_entry \
                    WHERE \"timestamp\" >= $1 AND \"timestamp\" < $2";
    for row in client.query(question, &[&from, &to]).unwrap() {
        let time: Timestamp = row.get(1);
        let key = (row.get(0), down_to(time, length), row.get(2));
        let hours = hours.entry(key.clone()).or_default();
        if !hours.contains(&down_to(time, HOUR)) {
            hours.push(down_to(time, HOUR));
        }
        let counts = table.entry(key).or_default();
        counts.hours = i32::try_from(hours.len()).unwrap();
        match row.get(3) {
            "up" => {
                counts.up += 1;
                let seconds: Option<f64> = row.get(6);
                counts.times.extend(seconds.map(|s| (s * 1e6).round() as i64));
            }
            "down" => {
                counts.down += 1;
                counts.unreachable_self += i32::from(row.get::<_, bool>(5));
                if let Some(kind) = row.get::<_, Option<String>>(4) {
                    *counts.kinds.entry(kind).or_default() += 1;
                }
            }
            _ => counts.missed += 1,
        }
    }
    table
}

/// Fails unless `table` (`check_hour` or `check_day`) has just what the checks say.
pub(crate) fn assert_rollup(client: &mut Client, table: &str) {
    let (time, length) = if table == "check_hour" { ("hour", HOUR) } else { ("day", DAY) };
    let expected = plain(client, start(), end(), length);
    let question = format!("SELECT * FROM {table} ORDER BY website_id, {time}, region");
    let rows = client.query(&question, &[]).unwrap();
    assert_eq!(rows.len(), expected.len(), "{table}");
    for (row, ((site, begin, region), counts)) in rows.iter().zip(&expected) {
        let key: (i64, Timestamp, &str) = (row.get("website_id"), row.get(time), row.get("region"));
        assert_eq!(key, (*site, *begin, region.as_str()), "{table}");
        let what = format!("{table} {key:?}");
        let number = |column: &str| row.get::<_, i32>(column);
        assert_eq!(
            (number("up"), number("down"), number("missed"), number("unreachable_self")),
            (counts.up, counts.down, counts.missed, counts.unreachable_self),
            "{what}"
        );
        for kind in FailureKind::ALL {
            let count: Option<i32> = row.get(format!("down_{}", kind.as_str()).as_str());
            assert_eq!(count, counts.kinds.get(kind.as_str()).copied(), "{what} {kind:?}");
        }
        let sorted = counts.sorted_times();
        assert_eq!(number("response_times") as usize, sorted.len(), "{what}");
        let us = |column: &str| {
            row.get::<_, Option<f64>>(column).map(|seconds| (seconds * 1e6).round() as i64)
        };
        assert_eq!(us("response_time_min"), sorted.first().copied(), "{what}");
        assert_eq!(us("response_time_max"), sorted.last().copied(), "{what}");
        assert_eq!(us("response_time_sum").unwrap_or(0), sorted.iter().sum::<i64>(), "{what}");
        let buckets: Vec<i16> = row.get::<_, Option<_>>("buckets").unwrap_or_default();
        let in_buckets: Vec<i32> = row.get::<_, Option<_>>("counts").unwrap_or_default();
        let found: Vec<(i16, i32)> = buckets.into_iter().zip(in_buckets).collect();
        assert_eq!(found, counts.buckets().into_iter().collect::<Vec<_>>(), "{what}");
        if table == "check_day" {
            assert_eq!(number("hours"), counts.hours, "{what}");
        }
    }
}

/// The lead in counting; nobody else has it for long.
pub(crate) fn lead(store: &Store) -> Rollups {
    super::support::eventually("the lead", || store.try_rollups().unwrap().ok_or("taken"))
}

/// Counts all that waits; how many rows were written.
pub(crate) fn roll(rollups: &mut Rollups) -> u64 {
    let mut written = 0;
    let mut add = |rolled: Rolled| match rolled {
        Rolled::Written(rows) => written += rows,
        other => assert_eq!(other, Rolled::Final),
    };
    for hour in rollups.waiting(end()).unwrap().hours {
        add(rollups.roll_hour(hour).unwrap());
    }
    for day in rollups.waiting(end()).unwrap().days {
        add(rollups.roll_day(day).unwrap());
    }
    written
}
