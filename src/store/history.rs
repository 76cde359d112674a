//! A site's past, answered from rollups, and from checks where rollups are not there yet.
//!
//! Both bounds of a question are moved outwards to whole UTC hours. Its time is cut into segments:
//! finished days come from `check_day`, other hours from `check_hour`, and hours whose rollup is
//! out of date (the one that has not ended, and those that late checks have just touched) from the
//! checks, the newest [`RAW_HOURS_MAX`] of them. Marks and rows are read in one snapshot, so
//! together the segments have every committed check once. Each segment bounds the time, so only
//! its partitions are looked into.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use postgres::types::ToSql;
use postgres::{Client, IsolationLevel, Row, Transaction};

use super::errors::Failure;
use super::histogram::Histogram;
use super::rollup::{DAY, HOUR, count_checks};
use super::{Store, StoreError};
use crate::check::FailureKind;
use crate::runtime::now;

/// Most hours that are read from checks: a day's late rows at once are answered exactly. Past it
/// the older ones are as the rollup has them, until it is up to date.
const RAW_HOURS_MAX: usize = 24;
/// Most segments of one question; past it days are read as hours, but for those without hours.
const SEGMENTS_MAX: usize = 32;
/// Nothing was checked before, in seconds since 1970: keeps a question without bounds short.
const FIRST_S: i64 = 946_684_800;

/// What is summed up into one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// A UTC hour.
    Hour,
    /// A UTC day.
    Day,
}

impl Bucket {
    fn length(self) -> SignedDuration {
        match self {
            Self::Hour => HOUR,
            Self::Day => DAY,
        }
    }
}

/// The checks of a site from one region in some time, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uptime {
    /// The site.
    pub website_id: i64,
    /// Where it was checked from.
    pub region: String,
    /// Checks that were up.
    pub up: u64,
    /// Checks that were down, those of `unreachable_self` included.
    pub down: u64,
    /// Due times at which nothing was checked. They say nothing about the site.
    pub missed: u64,
    /// Those of `down` that came while webmon itself had no network.
    pub unreachable_self: u64,
    /// Hours with at least one check. The others have no data: nobody knows any more how many
    /// checks were due in them, since a site's interval may have changed.
    pub hours: u64,
}

impl Uptime {
    /// up / (up + down - unreachable_self), 0 to 1; absent when nothing was seen of the site.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        ratio(self.up, self.down, self.unreachable_self)
    }
}

/// All counted checks of a site in an hour or a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Period {
    /// When it begins.
    pub start: Timestamp,
    /// Checks that were up.
    pub up: u64,
    /// Checks that were down, those of `unreachable_self` included.
    pub down: u64,
    /// Due times at which nothing was checked.
    pub missed: u64,
    /// Those of `down` that came while webmon itself had no network.
    pub unreachable_self: u64,
    /// Those of `down` by kind, kinds that did not occur left out.
    pub failures: Vec<(FailureKind, u64)>,
    /// Checks that were up and have a response time; what follows is of these.
    pub response_times: u64,
    /// Their sum, in seconds.
    pub sum: f64,
    /// The shortest, in seconds.
    pub min: Option<f64>,
    /// The longest, in seconds.
    pub max: Option<f64>,
    /// All of them, in buckets.
    pub histogram: Histogram,
}

impl Period {
    fn new(start: Timestamp) -> Self {
        Self {
            start,
            up: 0,
            down: 0,
            missed: 0,
            unreachable_self: 0,
            failures: Vec::new(),
            response_times: 0,
            sum: 0.0,
            min: None,
            max: None,
            histogram: Histogram::default(),
        }
    }

    /// As [`Uptime::ratio`].
    #[must_use]
    pub fn uptime(&self) -> Option<f64> {
        ratio(self.up, self.down, self.unreachable_self)
    }

    /// The mean response time in seconds.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.response_times > 0).then(|| self.sum / self.response_times as f64)
    }

    /// [`Histogram::quantile`], never below the shortest or above the longest.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let near = self.histogram.quantile(q)?;
        Some(near.max(self.min.unwrap_or(near)).min(self.max.unwrap_or(near)))
    }

    fn add(&mut self, row: &Row) -> Result<(), Failure> {
        self.up += count(row, "up")?;
        self.down += count(row, "down")?;
        self.missed += count(row, "missed")?;
        self.unreachable_self += count(row, "unreachable_self")?;
        self.response_times += count(row, "response_times")?;
        self.sum += row.try_get::<_, Option<f64>>("response_time_sum")?.unwrap_or_default();
        let (min, max) = (row.try_get("response_time_min")?, row.try_get("response_time_max")?);
        self.min = self.min.into_iter().chain::<Option<f64>>(min).reduce(f64::min);
        self.max = self.max.into_iter().chain::<Option<f64>>(max).reduce(f64::max);
        let buckets: Option<Vec<i16>> = row.try_get("buckets")?;
        let counts: Option<Vec<i32>> = row.try_get("counts")?;
        self.histogram.add(&buckets.unwrap_or_default(), &counts.unwrap_or_default());
        for kind in FailureKind::ALL {
            let more = count(row, &format!("down_{}", kind.as_str()))?;
            match self.failures.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, count)) => *count += more,
                None if more > 0 => self.failures.push((kind, more)),
                None => {}
            }
        }
        Ok(())
    }
}

fn ratio(up: u64, down: u64, unreachable_self: u64) -> Option<f64> {
    let seen = up + down.saturating_sub(unreachable_self);
    (seen > 0).then(|| up as f64 / seen as f64)
}

impl Store {
    /// The checks of `websites` due from `from` to before `to`, counted by site and region; both
    /// bounds moved outwards to whole UTC hours, and `from` to a whole day where the hours are
    /// gone. A site without checks in that time has no element. Ordered by site and region.
    ///
    /// # Errors
    /// What the database said.
    pub fn uptime(
        &self,
        websites: &[i64],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Uptime>, StoreError> {
        let websites = websites.to_vec();
        self.inner.run("reading the uptime", move |client| {
            let (mut transaction, segments) = begin(client, from, to, Days::Whole)?;
            if segments.is_empty() {
                return Ok(Vec::new());
            }
            let question = format!(
                "SELECT website_id, region, sum(up) AS up, sum(down) AS down, \
                    sum(missed) AS missed, sum(unreachable_self) AS unreachable_self, \
                    sum(hours) AS hours FROM ({}) AS part \
                 GROUP BY 1, 2 ORDER BY 1, 2",
                union(&segments, "website_id, region, up, down, missed, unreachable_self", ""),
            );
            let rows = transaction.query(&question, &[&websites])?;
            let uptime = |row: &Row| {
                Ok(Uptime {
                    website_id: row.try_get("website_id")?,
                    region: row.try_get("region")?,
                    up: sum(row, "up")?,
                    down: sum(row, "down")?,
                    missed: sum(row, "missed")?,
                    unreachable_self: sum(row, "unreachable_self")?,
                    hours: sum(row, "hours")?,
                })
            };
            let found = rows.iter().map(uptime).collect();
            transaction.commit()?;
            found
        })
    }

    /// The checks of a site due from `from` to before `to`, counted by hour or day, of one region
    /// or of all together. Both bounds are moved outwards to whole UTC hours, by day to whole
    /// days. Hours or days without a check are left out. The oldest first.
    ///
    /// # Errors
    /// What the database said.
    pub fn response_times(
        &self,
        website_id: i64,
        region: Option<&str>,
        from: Timestamp,
        to: Timestamp,
        bucket: Bucket,
    ) -> Result<Vec<Period>, StoreError> {
        let region = region.map(str::to_owned);
        let length = bucket.length();
        let (from, to) = (down_to(from, length), up_to(to, length));
        self.inner.run("reading response times", move |client| {
            let days = if bucket == Bucket::Day { Days::Whole } else { Days::Never };
            let (mut transaction, segments) = begin(client, from, to, days)?;
            if segments.is_empty() {
                return Ok(Vec::new());
            }
            let mut columns = "start, up, down, missed, unreachable_self, response_times, \
                               response_time_sum, response_time_min, response_time_max, buckets, \
                               counts"
                .to_owned();
            for kind in FailureKind::ALL {
                columns += &format!(", down_{}", kind.as_str());
            }
            let condition = if region.is_some() { " AND region = $2" } else { "" };
            let question = union(&segments, &columns, condition);
            let websites = vec![website_id];
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&websites];
            parameters.extend(region.as_ref().map(|region| region as &(dyn ToSql + Sync)));
            let mut periods = BTreeMap::new();
            for row in transaction.query(&question, &parameters)? {
                let start = down_to(row.try_get("start")?, length);
                periods.entry(start).or_insert_with(|| Period::new(start)).add(&row)?;
            }
            transaction.commit()?;
            Ok(periods.into_values().collect())
        })
    }
}

fn count(row: &Row, column: &str) -> Result<u64, Failure> {
    let count: Option<i32> = row.try_get(column)?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default())
}

fn sum(row: &Row, column: &str) -> Result<u64, Failure> {
    let sum: Option<i64> = row.try_get(column)?;
    Ok(sum.and_then(|sum| u64::try_from(sum).ok()).unwrap_or_default())
}

/// Where a part of a question's time is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Days,
    Hours,
    Checks,
}

/// Which days are read as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Days {
    /// None: the question is about hours.
    Never,
    /// Those whose hours were removed.
    Gone,
    /// Also every whole day that is up to date.
    Whole,
}

/// A part of a question's time: from, to before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    source: Source,
    from: Timestamp,
    to: Timestamp,
}

/// What is marked in a question's time.
#[derive(Clone, Debug, Default)]
struct Marks {
    hours: BTreeSet<Timestamp>,
    days: BTreeSet<Timestamp>,
    /// Hours before this were removed.
    hours_from: Option<Timestamp>,
}

/// Begins the transaction that answers a question, with one snapshot for all, and cuts the
/// question's time into segments.
fn begin(
    client: &mut Client,
    from: Timestamp,
    to: Timestamp,
    days: Days,
) -> Result<(Transaction<'_>, Vec<Segment>), Failure> {
    let first = Timestamp::from_second(FIRST_S).unwrap_or(Timestamp::UNIX_EPOCH);
    // Nothing is due later; hours ahead may be marked, and would take the place of others.
    let from = down_to(from.max(first), HOUR);
    let to = up_to(to.min(now().wall), HOUR);
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    if from >= to {
        return Ok((transaction, Vec::new()));
    }
    let row = transaction.query_one(
        "SELECT hours_from, \
            ARRAY(SELECT DISTINCT hour FROM rollup_dirty \
                WHERE hour >= greatest($1, raw_from) AND hour < $2 ORDER BY hour DESC LIMIT $3), \
            ARRAY(SELECT day FROM rollup_dirty_day \
                WHERE day > $1 - interval '1 day' AND day < $2) \
         FROM rollup_state",
        &[&from, &to, &(RAW_HOURS_MAX as i64)],
    )?;
    let marks = Marks {
        hours: row.try_get::<_, Vec<Timestamp>>(1)?.into_iter().collect(),
        days: row.try_get::<_, Vec<Timestamp>>(2)?.into_iter().collect(),
        hours_from: row.try_get(0)?,
    };
    Ok((transaction, segments(from, to, &marks, days)))
}

/// As [`cut`], with fewer days where there would be too many segments.
fn segments(from: Timestamp, to: Timestamp, marks: &Marks, days: Days) -> Vec<Segment> {
    let segments = cut(from, to, marks, days);
    if days == Days::Whole && segments.len() > SEGMENTS_MAX {
        return cut(from, to, marks, Days::Gone);
    }
    segments
}

/// The segments of the time from `from` to `to`, both whole hours, in order.
fn cut(from: Timestamp, to: Timestamp, marks: &Marks, days: Days) -> Vec<Segment> {
    let is_gone =
        |time: Timestamp| days != Days::Never && marks.hours_from.is_some_and(|limit| time < limit);
    let mut at = if is_gone(from) { down_to(from, DAY) } else { from };
    let mut segments: Vec<Segment> = Vec::new();
    let mut push = |source, from, to| match segments.last_mut() {
        Some(last) if last.source == source && last.to == from => last.to = to,
        _ => segments.push(Segment { source, from, to }),
    };
    while at < to {
        let (day, next) = (down_to(at, DAY), down_to(at, DAY) + DAY);
        let is_marked = marks.days.contains(&day) || marks.hours.range(day..next).next().is_some();
        let is_up_to_date = days == Days::Whole && next <= to && !is_marked;
        // Of a day without hours there is only the whole.
        if at == day && (is_up_to_date || is_gone(day)) {
            push(Source::Days, day, next);
            at = next;
            continue;
        }
        let source = if marks.hours.contains(&at) { Source::Checks } else { Source::Hours };
        push(source, at, at + HOUR);
        at += HOUR;
    }
    segments
}

/// All segments as one question: `columns`, and `hours`. `start` among them is when the hour or
/// day begins. Parameter 1 are the websites.
fn union(segments: &[Segment], columns: &str, condition: &str) -> String {
    let one = |Segment { source, from, to }: &Segment| {
        let websites = format!("website_id = ANY($1){condition}");
        let (table, time, hours) = match source {
            Source::Days => ("check_day".to_owned(), "day", "hours"),
            Source::Hours => ("check_hour".to_owned(), "hour", "1"),
            Source::Checks => {
                let due = format!("\"timestamp\" >= '{from}' AND \"timestamp\" < '{to}'");
                let counted = count_checks("check_entry", &format!("{websites} AND {due}"));
                (format!("({counted}) AS counted"), "hour", "1")
            }
        };
        let condition = match source {
            Source::Checks => String::new(),
            _ => format!(" WHERE {websites} AND {time} >= '{from}' AND {time} < '{to}'"),
        };
        let columns = columns.replace("start", &format!("{time} AS start"));
        format!("SELECT {columns}, {hours} AS hours FROM {table}{condition}")
    };
    segments.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ")
}

/// The last whole `length` at or before `time`.
fn down_to(time: Timestamp, length: SignedDuration) -> Timestamp {
    let length = length.as_secs();
    let second = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    Timestamp::from_second(second.div_euclid(length) * length).unwrap_or(Timestamp::MIN)
}

/// The first whole `length` at or after `time`.
fn up_to(time: Timestamp, length: SignedDuration) -> Timestamp {
    let down = down_to(time, length);
    if down == time { down } else { down.checked_add(length).unwrap_or(Timestamp::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Expects the segments of that time, each as source and hours from the first day's start.
    fn check(
        from: &str,
        to: &str,
        marks: (&[&str], &[&str], Option<&str>),
        expected: &[(Source, i64, i64)],
    ) {
        let all = |times: &[&str]| times.iter().map(|text| at(text)).collect();
        let marks = Marks { hours: all(marks.0), days: all(marks.1), hours_from: marks.2.map(at) };
        let start = at("2026-03-01T00:00:00Z");
        let hours = |time: Timestamp| time.duration_since(start).as_hours();
        let found = segments(at(from), at(to), &marks, Days::Whole);
        let found: Vec<_> = found.iter().map(|s| (s.source, hours(s.from), hours(s.to))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn whole_days_come_from_days_and_the_rest_from_hours() {
        use Source::{Checks, Days, Hours};
        let (from, to) = ("2026-03-01T22:00:00Z", "2026-03-04T03:00:00Z");
        check(from, to, (&[], &[], None), &[(Hours, 22, 24), (Days, 24, 72), (Hours, 72, 75)]);
        check(from, from, (&[], &[], None), &[]);
        // A marked day comes from its hours, a marked hour from its checks.
        let days: [&str; 1] = ["2026-03-02T00:00:00Z"];
        let expected = [(Hours, 22, 48), (Days, 48, 72), (Hours, 72, 75)];
        check(from, to, (&[], &days, None), &expected);
        let hours = ["2026-03-03T05:00:00Z", "2026-03-03T06:00:00Z", "2026-03-04T02:00:00Z"];
        let expected = [
            (Hours, 22, 24),
            (Days, 24, 48),
            (Hours, 48, 53),
            (Checks, 53, 55),
            (Hours, 55, 74),
            (Checks, 74, 75),
        ];
        check(from, to, (&hours, &[], None), &expected);
    }

    #[test]
    fn days_without_hours_are_whole() {
        use Source::{Days, Hours};
        let gone = Some("2026-03-03T00:00:00Z");
        let (from, to) = ("2026-03-01T22:00:00Z", "2026-03-03T03:00:00Z");
        check(from, to, (&[], &[], gone), &[(Days, 0, 48), (Hours, 48, 51)]);
        check(from, "2026-03-02T01:00:00Z", (&[], &[], gone), &[(Days, 0, 48)]);
    }

    #[test]
    fn days_without_hours_are_whole_beside_ever_so_many_segments() {
        use Source::{Checks, Days, Hours};
        let gone = Some("2026-03-03T00:00:00Z");
        let (from, to) = ("2026-03-01T05:00:00Z", "2026-04-10T00:00:00Z");
        // Each second day is marked: a segment a day.
        let text = |n: i64| (at("2026-03-03T00:00:00Z") + n * 2 * DAY).to_string();
        let days: Vec<String> = (0..SEGMENTS_MAX as i64 / 2 + 1).map(text).collect();
        let mut days: Vec<&str> = days.iter().map(String::as_str).collect();
        check(from, to, (&[], &days, gone), &[(Days, 0, 48), (Hours, 48, 40 * 24)]);
        let hours = ["2026-03-05T07:00:00Z"];
        let rest = [(Hours, 48, 103), (Checks, 103, 104), (Hours, 104, 40 * 24)];
        let expected = [&[(Days, 0, 48)], &rest[..]].concat();
        check(from, to, (&hours, &days, gone), &expected);
        // With fewer, days are read.
        days.truncate(2);
        let rest = [(Hours, 48, 72), (Days, 72, 96), (Hours, 96, 120), (Days, 120, 40 * 24)];
        let expected = [&[(Days, 0, 48)], &rest[..]].concat();
        check(from, to, (&[], &days, gone), &expected);
    }

    #[test]
    fn times_go_outwards_to_whole_hours() {
        for (time, down, up) in [
            ("2026-03-01T22:00:00Z", "2026-03-01T22:00:00Z", "2026-03-01T22:00:00Z"),
            ("2026-03-01T22:00:00.001Z", "2026-03-01T22:00:00Z", "2026-03-01T23:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!((down_to(at(time), HOUR), up_to(at(time), HOUR)), (at(down), at(up)));
        }
        assert_eq!(up_to(Timestamp::MAX, DAY), Timestamp::MAX);
        assert!(down_to(Timestamp::MIN, DAY) <= Timestamp::MIN + DAY);
    }
}
