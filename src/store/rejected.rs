//! The table `rejected_message`: messages that can't become rows, kept as they came, to be looked
//! at, replayed and removed.

use jiff::Timestamp;
use postgres::types::ToSql;
use postgres::{Row, Transaction};

use super::checks::{Saved, Work};
use super::errors::Failure;
use super::{Store, StoreError};
use crate::check::{Check, truncate};

/// Most payload bytes of rejected messages in one statement, unless a single message has more:
/// each is held three times on its way.
const STATEMENT_BYTES: usize = 1 << 20;
/// Longest reason kept with a rejected message, in bytes.
const REASON_MAX: usize = 500;
/// Most payload bytes of a page, unless a single message has more.
const PAGE_BYTES: i64 = 4 << 20;
/// Rows that one statement removes: well within a call's time.
const DELETE_ROWS: i64 = 5000;

/// A message that can't become a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// Where it came from; with partition and offset its key.
    pub topic: &'a str,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// What is wrong with it; cut to 500 bytes.
    pub reason: &'a str,
    /// The message as it came.
    pub payload: &'a [u8],
}

/// The key of a rejected message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RejectedKey {
    /// Topic, or the name of a process that worked without one.
    pub topic: String,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

/// `topic/partition/offset`.
impl std::fmt::Display for RejectedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl RejectedKey {
    /// Reads what [`RejectedKey`] displays as.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(3, '/');
        let offset = parts.next()?.parse().ok()?;
        let partition = parts.next()?.parse().ok()?;
        let topic = parts.next().filter(|topic| !topic.is_empty())?.to_owned();
        Some(Self { topic, partition, offset })
    }
}

/// A rejected message without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedSummary {
    /// Its key.
    pub key: RejectedKey,
    /// When it was put aside first.
    pub rejected_at: Timestamp,
    /// What is wrong with it.
    pub reason: String,
    /// Size of the payload in bytes.
    pub payload_bytes: i32,
}

/// A rejected message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Its key.
    pub key: RejectedKey,
    /// When it was put aside first.
    pub rejected_at: Timestamp,
    /// What is wrong with it.
    pub reason: String,
    /// The message as it came.
    pub payload: Vec<u8>,
}

/// Which rejected messages; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedFilter {
    /// Those whose reason contains this, whatever its case.
    pub reason: Option<String>,
    /// Those put aside at this time or later.
    pub since: Option<Timestamp>,
    /// Those put aside before this time.
    pub before: Option<Timestamp>,
    /// Only those with these keys; empty: any.
    pub keys: Vec<RejectedKey>,
}

/// The filter as parameters `$1` to `$6` of [`Parameters::matches`].
struct Parameters {
    reason: Option<String>,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
    topics: Option<Vec<String>>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
}

/// Rows of `rejected_message` that pass the filter but for its keys.
const MATCHES: &str = "($1::text IS NULL OR strpos(lower(reason), lower($1)) > 0) \
     AND ($2::timestamptz IS NULL OR rejected_at >= $2) \
     AND ($3::timestamptz IS NULL OR rejected_at < $3)";
/// Found by the primary key: that takes a condition of its own, and no `OR` beside it.
const IS_NAMED: &str = "(topic, \"partition\", \"offset\") IN \
     (SELECT * FROM unnest($4::text[], $5::integer[], $6::bigint[]))";
/// Every parameter has to be mentioned.
const IS_ANY: &str =
    "$4::text[] IS NULL AND $5::integer[] IS NOT NULL AND $6::bigint[] IS NOT NULL";

impl Parameters {
    /// The condition on a row of `rejected_message`.
    fn matches(&self) -> String {
        let keys = if self.topics.is_some() { IS_NAMED } else { IS_ANY };
        format!("{MATCHES} AND {keys}")
    }

    fn of(filter: &RejectedFilter) -> Self {
        let keys = &filter.keys;
        Self {
            reason: filter.reason.clone(),
            since: filter.since,
            before: filter.before,
            topics: (!keys.is_empty()).then(|| keys.iter().map(|key| key.topic.clone()).collect()),
            partitions: keys.iter().map(|key| key.partition).collect(),
            offsets: keys.iter().map(|key| key.offset).collect(),
        }
    }

    fn list(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![&self.reason, &self.since, &self.before, &self.topics, &self.partitions, &self.offsets]
    }
}

fn key(row: &Row) -> Result<RejectedKey, Failure> {
    Ok(RejectedKey { topic: row.try_get(0)?, partition: row.try_get(1)?, offset: row.try_get(2)? })
}

impl Store {
    /// How many rejected messages pass `filter`.
    ///
    /// # Errors
    /// What the database said.
    pub fn count_rejected(&self, filter: &RejectedFilter) -> Result<u64, StoreError> {
        let parameters = Parameters::of(filter);
        self.inner.run("counting rejected messages", move |client| {
            let matches = parameters.matches();
            let question = format!("SELECT count(*) FROM rejected_message WHERE {matches}");
            let count: i64 = client.query_one(&question, &parameters.list())?.try_get(0)?;
            Ok(count.unsigned_abs())
        })
    }

    /// The newest `limit` rejected messages that pass `filter`; of those with `after`, the time
    /// and key of one, only the older ones.
    ///
    /// # Errors
    /// What the database said.
    pub fn list_rejected(
        &self,
        filter: &RejectedFilter,
        after: Option<(Timestamp, RejectedKey)>,
        limit: u32,
    ) -> Result<Vec<RejectedSummary>, StoreError> {
        let parameters = Parameters::of(filter);
        self.inner.run("reading rejected messages", move |client| {
            let (time, key_after) = after.map_or((None, None), |(t, key)| (Some(t), Some(key)));
            let key_after =
                key_after.unwrap_or(RejectedKey { topic: String::new(), partition: 0, offset: 0 });
            let matches = parameters.matches();
            let question = format!(
                "SELECT topic, \"partition\", \"offset\", rejected_at, reason, length(payload) \
                 FROM rejected_message WHERE {matches} AND ($7::timestamptz IS NULL OR \
                 (rejected_at, topic, \"partition\", \"offset\") < ($7, $8, $9, $10)) \
                 ORDER BY rejected_at DESC, topic DESC, \"partition\" DESC, \"offset\" DESC \
                 LIMIT $11"
            );
            let limit = i64::from(limit);
            let mut list = parameters.list();
            let RejectedKey { topic, partition, offset } = &key_after;
            list.extend([&time as &(dyn ToSql + Sync), topic, partition, offset, &limit]);
            let summary = |row: &Row| {
                Ok(RejectedSummary {
                    key: key(row)?,
                    rejected_at: row.try_get(3)?,
                    reason: row.try_get(4)?,
                    payload_bytes: row.try_get(5)?,
                })
            };
            client.query(&question, &list)?.iter().map(summary).collect()
        })
    }

    /// Rejected messages that pass `filter`, in the order of their keys, up to `limit` or 4 MiB of
    /// payload; those behind `after`.
    ///
    /// # Errors
    /// What the database said.
    pub fn read_rejected(
        &self,
        filter: &RejectedFilter,
        after: Option<&RejectedKey>,
        limit: u32,
    ) -> Result<Vec<RejectedRow>, StoreError> {
        let parameters = Parameters::of(filter);
        let after = after.cloned();
        self.inner.run("reading rejected messages", move |client| {
            let topic = after.as_ref().map(|key| key.topic.clone());
            let (partition, offset) = after.map_or((0, 0), |key| (key.partition, key.offset));
            let matches = parameters.matches();
            let question = format!(
                "SELECT topic, \"partition\", \"offset\", rejected_at, reason, payload FROM ( \
                     SELECT *, sum(length(payload)) OVER w AS bytes, row_number() OVER w AS number \
                     FROM ( \
                         SELECT * FROM rejected_message WHERE {matches} AND ($7::text IS NULL OR \
                         (topic, \"partition\", \"offset\") > ($7, $8, $9)) \
                         ORDER BY topic, \"partition\", \"offset\" LIMIT $10) AS page \
                     WINDOW w AS (ORDER BY topic, \"partition\", \"offset\")) AS sized \
                 WHERE bytes <= $11 OR number = 1 ORDER BY topic, \"partition\", \"offset\""
            );
            let (limit, bytes) = (i64::from(limit), PAGE_BYTES);
            let mut list = parameters.list();
            list.extend([&topic as &(dyn ToSql + Sync), &partition, &offset, &limit, &bytes]);
            let message = |row: &Row| {
                Ok(RejectedRow {
                    key: key(row)?,
                    rejected_at: row.try_get(3)?,
                    reason: row.try_get(4)?,
                    payload: row.try_get(5)?,
                })
            };
            client.query(&question, &list)?.iter().map(message).collect()
        })
    }

    /// Stores `checks` and takes the rejected message at each one's key out of the table, in one
    /// transaction. What is refused stays there, with its new reason. With `is_dry` all of it is
    /// tried, and taken back.
    ///
    /// # Errors
    /// As [`Store::save_batch`]; replaying again changes nothing.
    pub fn replay_rejected(
        &self,
        checks: &[Check<'_>],
        keys: &[RejectedKey],
        is_dry: bool,
    ) -> Result<Saved, StoreError> {
        self.save(&Work { checks, kept: Vec::new().into(), replayed: keys, is_dry })
    }

    /// Gives rejected messages another reason.
    ///
    /// # Errors
    /// What the database said.
    pub fn update_rejected(&self, reasons: Vec<(RejectedKey, String)>) -> Result<(), StoreError> {
        let still = reasons.into_iter().map(|(key, reason)| (key, storable(&reason))).collect();
        let settlement = Settlement { gone: Vec::new(), still };
        self.inner.run("writing rejected messages", move |client| {
            let mut transaction = client.transaction()?;
            settlement.write(&mut transaction)?;
            Ok(transaction.commit()?)
        })
    }

    /// Removes the rejected messages that pass `filter`, some thousand at a time; how many.
    ///
    /// # Errors
    /// What the database said; some may be gone then.
    pub fn delete_rejected(&self, filter: &RejectedFilter) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let parameters = Parameters::of(filter);
            let count = self.inner.run("removing rejected messages", move |client| {
                let matches = parameters.matches();
                let statement = format!(
                    "DELETE FROM rejected_message WHERE ctid = ANY (ARRAY( \
                     SELECT ctid FROM rejected_message WHERE {matches} LIMIT $7))"
                );
                let mut list = parameters.list();
                list.push(&DELETE_ROWS);
                Ok(client.execute(&statement, &list)?)
            })?;
            deleted += count;
            // Fewer than asked for is not the end: a row that a replay touches meanwhile falls out.
            if count == 0 {
                return Ok(deleted);
            }
        }
    }

    /// Removes the rejected messages that were put aside before `time`; how many.
    ///
    /// # Errors
    /// As [`Store::delete_rejected`].
    pub fn delete_rejected_before(&self, time: Timestamp) -> Result<u64, StoreError> {
        self.delete_rejected(&RejectedFilter { before: Some(time), ..RejectedFilter::default() })
    }
}

/// A rejected message of one's own, to take along to another thread.
pub(super) struct Kept {
    key: RejectedKey,
    reason: String,
    payload: Vec<u8>,
}

impl Kept {
    pub(super) fn of(rejected: &Rejected<'_>) -> Self {
        let Rejected { topic, partition, offset, reason, payload } = *rejected;
        Self {
            key: RejectedKey { topic: topic.to_owned(), partition, offset },
            reason: storable(reason),
            payload: payload.to_owned(),
        }
    }

    /// The same with its reason in ASCII.
    pub(super) fn with_plain_reason(&self) -> Self {
        let Self { key, reason, payload } = self;
        Self { key: key.clone(), reason: plain(reason), payload: payload.clone() }
    }
}

/// `reason` with `?` for all but printable ASCII, which any encoding and most rules take.
fn plain(reason: &str) -> String {
    reason.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

fn storable(reason: &str) -> String {
    let mut reason = reason.replace('\0', " ");
    truncate(&mut reason, REASON_MAX);
    reason
}

/// Keys as one array per column.
fn columns<'a>(
    keys: impl Iterator<Item = &'a RejectedKey> + Clone,
) -> (Vec<&'a str>, Vec<i32>, Vec<i64>) {
    (
        keys.clone().map(|key| key.topic.as_str()).collect(),
        keys.clone().map(|key| key.partition).collect(),
        keys.map(|key| key.offset).collect(),
    )
}

pub(super) fn insert(transaction: &mut Transaction<'_>, rejected: &[Kept]) -> Result<(), Failure> {
    let mut rest = rejected;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|kept| {
            bytes += kept.payload.len();
            bytes <= STATEMENT_BYTES
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        let (topics, partitions, offsets) = columns(now.iter().map(|kept| &kept.key));
        let reasons: Vec<&str> = now.iter().map(|kept| kept.reason.as_str()).collect();
        let payloads: Vec<&[u8]> = now.iter().map(|kept| kept.payload.as_slice()).collect();
        transaction.execute(
            "INSERT INTO rejected_message (topic, \"partition\", \"offset\", reason, payload) \
             SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::bytea[]) \
             ON CONFLICT DO NOTHING",
            &[&topics, &partitions, &offsets, &reasons, &payloads],
        )?;
        rest = later;
    }
    Ok(())
}

/// What becomes of rejected messages that were tried again.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    gone: Vec<RejectedKey>,
    still: Vec<(RejectedKey, String)>,
}

impl Settlement {
    /// Of checks that came from `keys`: those at `rows` are stored, `refused` are not.
    pub(super) fn of(keys: &[RejectedKey], rows: &[usize], refused: &[(usize, String)]) -> Self {
        let at = |index: usize| keys.get(index).cloned();
        Self {
            gone: rows.iter().filter_map(|row| at(*row)).collect(),
            still: refused.iter().filter_map(|(row, r)| Some((at(*row)?, storable(r)))).collect(),
        }
    }

    /// The same with its reasons in ASCII.
    pub(super) fn with_plain_reasons(self) -> Self {
        let still = self.still.into_iter().map(|(key, reason)| (key, plain(&reason))).collect();
        Self { still, ..self }
    }

    pub(super) fn write(&self, transaction: &mut Transaction<'_>) -> Result<(), Failure> {
        if !self.gone.is_empty() {
            let (topics, partitions, offsets) = columns(self.gone.iter());
            transaction.execute(
                "DELETE FROM rejected_message WHERE (topic, \"partition\", \"offset\") IN \
                 (SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[]))",
                &[&topics, &partitions, &offsets],
            )?;
        }
        if !self.still.is_empty() {
            let (topics, partitions, offsets) = columns(self.still.iter().map(|(key, _)| key));
            let reasons: Vec<&str> = self.still.iter().map(|(_, reason)| reason.as_str()).collect();
            transaction.execute(
                "UPDATE rejected_message AS r SET reason = n.reason FROM unnest( \
                 $1::text[], $2::integer[], $3::bigint[], $4::text[]) AS n (t, p, o, reason) \
                 WHERE (r.topic, r.\"partition\", r.\"offset\") = (n.t, n.p, n.o) \
                 AND r.reason <> n.reason",
                &[&topics, &partitions, &offsets, &reasons],
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for topic in ["webmon", "local:host:1763719200123456", "a/b"] {
            let key = RejectedKey { topic: topic.to_owned(), partition: 3, offset: 42 };
            assert_eq!(RejectedKey::parse(&key.to_string()), Some(key));
        }
        for bad in ["", "webmon", "webmon/3", "/3/42", "webmon/x/42", "webmon/3/-"] {
            assert_eq!(RejectedKey::parse(bad), None, "{bad}");
        }
    }
}
