//! Reading checks. Every question bounds the time, so that the server looks into few partitions.

use jiff::{SignedDuration, Timestamp};
use postgres::Row;
use postgres::types::ToSql;
use uuid::Uuid;

use super::errors::Failure;
use super::{Store, StoreError, encode};
use crate::check::Phases;

/// How far back the first look of [`Store::recent_checks`] goes: the longest interval of a site.
const RECENT: SignedDuration = SignedDuration::from_hours(24);

/// The first step of [`Store::checks_of`]: two partitions at most.
const PAGE_FIRST: SignedDuration = SignedDuration::from_hours(24);
/// How the steps grow: ten years are five of them.
const PAGE_GROWTH: i32 = 8;
const MICROSECOND: SignedDuration = SignedDuration::from_micros(1);

/// A row of `check_entry`. Names and order as there; text is as it stands in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCheck {
    /// From site, region and due time.
    pub check_entry_id: Uuid,
    /// The site.
    pub website_id: i64,
    /// When it was due.
    pub timestamp: Timestamp,
    /// When a worker began.
    pub started_at: Option<Timestamp>,
    /// Earliest end of the site's certificates.
    pub certificate_expires_at: Option<Timestamp>,
    /// Seconds in all.
    pub response_time: Option<f64>,
    /// Seconds by phase, whole microseconds.
    pub phases: Phases,
    /// Status of the last answer.
    pub http_status: Option<i32>,
    /// Bytes of the body that were read.
    pub body_bytes: Option<i32>,
    /// Redirects followed.
    pub redirects: Option<i16>,
    /// `up`, `down` or `missed`.
    pub outcome: String,
    /// The step that failed.
    pub failure_kind: Option<String>,
    /// Where it was checked from.
    pub region: String,
    /// Whether the pattern was found.
    pub regex_match: Option<bool>,
    /// The pattern.
    pub regex: Option<String>,
    /// What happened in the step that failed.
    pub failure_detail: Option<String>,
    /// What the pattern found.
    pub regex_captures: Option<Vec<String>>,
    /// Tries it took.
    pub tries: Option<i16>,
    /// Seconds by phase of the last request alone, where redirects were followed.
    pub last_hop: Option<Phases>,
    /// Whether webmon itself had no network.
    pub unreachable_self: bool,
}

impl Store {
    /// Without `after`: the newest `limit` checks of the last day. With it, the time and id of a
    /// check: up to `limit` checks due after that one. Both the oldest first.
    ///
    /// Checks are in order of their due times, so one that was stored late, behind others that
    /// were due after it, is not among those after them.
    ///
    /// # Errors
    /// What the database said.
    pub fn recent_checks(
        &self,
        after: Option<(Timestamp, Uuid)>,
        limit: u32,
    ) -> Result<Vec<StoredCheck>, StoreError> {
        // Ids begin with the due time, so the primary key's index has them in this order.
        let now = crate::runtime::now().wall;
        let (from, condition, order) = match after {
            None => (now - RECENT, "", "DESC"),
            Some((time, _)) => (time, "AND check_entry_id > $3", "ASC"),
        };
        let question = format!(
            "SELECT {} FROM check_entry WHERE \"timestamp\" >= $1 {condition} \
             ORDER BY check_entry_id {order} LIMIT $2",
            encode::column_list(),
        );
        self.inner.run("reading checks", move |client| {
            let limit = i64::from(limit);
            let id = after.map(|(_, id)| id);
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&from, &limit];
            if let Some(id) = &id {
                parameters.push(id);
            }
            let rows = client.query(&question, &parameters)?;
            let mut checks = rows.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
            if after.is_none() {
                checks.reverse();
            }
            Ok(checks)
        })
    }

    /// The newest `limit` checks of a site since `since`, the newest first.
    ///
    /// # Errors
    /// What the database said.
    pub fn latest_checks(
        &self,
        website_id: i64,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<StoredCheck>, StoreError> {
        let question = format!(
            "SELECT {} FROM check_entry WHERE website_id = $1 AND \"timestamp\" >= $2 \
             ORDER BY \"timestamp\" DESC, check_entry_id LIMIT $3",
            encode::column_list(),
        );
        self.inner.run("reading checks", move |client| {
            let rows = client.query(&question, &[&website_id, &since, &i64::from(limit)])?;
            rows.iter().map(stored).collect()
        })
    }

    /// A page of a site's checks due from `from` to before `to`, the newest first and at most
    /// `limit`. `before` is the time and id of the last check of the page before; checks that come
    /// in meanwhile neither repeat nor hide one of the older. Fewer than `limit` are the last page.
    ///
    /// Looks back in steps, each `PAGE_GROWTH` times as long as the one before: to begin with the
    /// day before `to` or `before`, so that a long time costs no more than a page's own partitions.
    ///
    /// # Errors
    /// What the database said.
    pub fn checks_of(
        &self,
        website_id: i64,
        from: Timestamp,
        to: Timestamp,
        limit: u32,
        before: Option<(Timestamp, Uuid)>,
    ) -> Result<Vec<StoredCheck>, StoreError> {
        self.checks_of_sites(&[website_id], from, to, limit, before)
    }

    /// [`Store::checks_of`] for several sites, merged.
    ///
    /// # Errors
    /// What the database said.
    pub fn checks_of_sites(
        &self,
        websites: &[i64],
        from: Timestamp,
        to: Timestamp,
        limit: u32,
        before: Option<(Timestamp, Uuid)>,
    ) -> Result<Vec<StoredCheck>, StoreError> {
        let websites = websites.to_vec();
        // Up to the cursor's own moment: other regions may have checks due then.
        let after_cursor = before.and_then(|(time, _)| time.checked_add(MICROSECOND).ok());
        // Nothing is due later than a clock's fault from now.
        let last = crate::runtime::now().wall + PAGE_FIRST;
        let end = after_cursor.map_or(to, |time| time.min(to)).min(last);
        let from = from.max(Timestamp::UNIX_EPOCH);
        // All below for the first page.
        let cursor = before.unwrap_or((Timestamp::MAX, Uuid::max()));
        // Each site's newest from its own part of the index, and of these the newest.
        let question = format!(
            "SELECT found.* FROM unnest($1::bigint[]) AS site(id) CROSS JOIN LATERAL ( \
                SELECT {} FROM check_entry WHERE website_id = site.id AND \"timestamp\" >= $2 \
                AND \"timestamp\" < $3 AND (\"timestamp\", check_entry_id) < ($4, $5) \
                ORDER BY \"timestamp\" DESC, check_entry_id DESC LIMIT $6) AS found \
             ORDER BY \"timestamp\" DESC, check_entry_id DESC LIMIT $6",
            encode::column_list(),
        );
        self.inner.run("reading checks", move |client| {
            let (mut found, mut end, mut step) = (Vec::new(), end, PAGE_FIRST);
            let limit = i64::from(limit);
            while end > from && (found.len() as i64) < limit {
                let start = end.checked_sub(step).unwrap_or(Timestamp::MIN).max(from);
                let rest = limit - found.len() as i64;
                let (time, id) = cursor;
                let rows =
                    client.query(&question, &[&websites, &start, &end, &time, &id, &rest])?;
                for row in &rows {
                    found.push(stored(row)?);
                }
                (end, step) = (start, step.saturating_mul(PAGE_GROWTH));
            }
            Ok(found)
        })
    }

    /// The check with this id. Its time is in the id, so one partition is looked into.
    ///
    /// # Errors
    /// What the database said.
    pub fn find_check(&self, check_entry_id: Uuid) -> Result<Option<StoredCheck>, StoreError> {
        let due_ms = (check_entry_id.as_u128() >> 80) as i64;
        let Ok(due) = Timestamp::from_millisecond(due_ms) else {
            return Ok(None);
        };
        let question = format!(
            "SELECT {} FROM check_entry WHERE check_entry_id = $1 AND \"timestamp\" >= $2 \
             AND \"timestamp\" < $2 + interval '1 ms'",
            encode::column_list(),
        );
        self.inner.run("reading a check", move |client| {
            client.query_opt(&question, &[&check_entry_id, &due])?.as_ref().map(stored).transpose()
        })
    }
}

fn stored(row: &Row) -> Result<StoredCheck, Failure> {
    let last_hop: Option<Vec<Option<f32>>> = row.try_get(22)?;
    Ok(StoredCheck {
        check_entry_id: row.try_get(0)?,
        website_id: row.try_get(1)?,
        timestamp: row.try_get(2)?,
        started_at: row.try_get(3)?,
        certificate_expires_at: row.try_get(4)?,
        response_time: row.try_get(5)?,
        phases: phases(&[
            row.try_get(6)?,
            row.try_get(7)?,
            row.try_get(8)?,
            row.try_get(9)?,
            row.try_get(10)?,
        ]),
        http_status: row.try_get(11)?,
        body_bytes: row.try_get(12)?,
        redirects: row.try_get(13)?,
        outcome: row.try_get(14)?,
        failure_kind: row.try_get(15)?,
        region: row.try_get(16)?,
        regex_match: row.try_get(17)?,
        regex: row.try_get(18)?,
        failure_detail: row.try_get(19)?,
        regex_captures: row.try_get(20)?,
        tries: row.try_get(21)?,
        last_hop: last_hop.as_deref().map(phases),
        unreachable_self: row.try_get(23)?,
    })
}

/// `real` holds whole microseconds up to 16 s; the digits behind are noise of the format.
fn seconds(stored: f32) -> f64 {
    (f64::from(stored) * 1e6).round() / 1e6
}

/// Phases in the order of their columns. Elements that somebody left out are absent.
fn phases(elements: &[Option<f32>]) -> Phases {
    let element = |at: usize| elements.get(at).copied().flatten().map(seconds);
    Phases {
        resolve: element(0),
        connect: element(1),
        tls: element(2),
        processing: element(3),
        transfer: element(4),
    }
}
