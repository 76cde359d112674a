//! A site's past, answered from rollups, and from checks where rollups are not there yet.
//!
//! Both bounds of a question are moved outwards to whole UTC hours. Its time is cut into segments:
//! finished days come from `check_day`, other hours from `check_hour`, and hours whose rollup is
//! out of date (the one that has not ended, and those that late checks have just touched) from the
//! checks, the newest [`RAW_HOURS_MAX`] of them. Marks and rows are read in one snapshot, so
//! together the segments have every committed check once. Each segment bounds the time, so only
//! its partitions are looked into.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use postgres::types::ToSql;
use postgres::{Client, IsolationLevel, Row, Transaction};

use super::errors::Failure;
use super::histogram::Histogram;
use super::rollup::{DAY, HOUR, count_checks};
use super::segments::{Days, Marks, Segment, Source, down_to, segments, up_to};
use super::{Store, StoreError};
use crate::check::FailureKind;
use crate::runtime::now;

/// Most hours that are read from checks: a day's late rows at once are answered exactly. Past it
/// the older ones are as the rollup has them, until it is up to date.
const RAW_HOURS_MAX: usize = 24;
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
