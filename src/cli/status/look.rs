//! Everything that `status` looks at, each part or why it can't be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cli::{ask, options, presence};
use crate::config::Settings;
use crate::kafka::inspect::{self, GroupDescription};
use crate::kafka::{Fetcher, KafkaError, KafkaOptions, topics};
use crate::runtime::now;
use crate::store::{DaemonRow, Overview, Store, StoreError};

/// How long the leaders may look for a waiting message, which is there.
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// The first message that waits is enough: one batch comes in any case.
const FETCH_BYTES: i32 = 1;
/// One that was not seen for longer than this was stopped for good, or moved: its row stays for
/// the rest of the day and is no trouble any more.
pub(super) const GONE_MS: i64 = 3_600_000;

/// One look at the pipeline.
#[derive(Debug)]
pub(super) struct Look {
    /// When, by this host's clock.
    pub(super) at: Timestamp,
    pub(super) database: Result<Database, StoreError>,
    /// Absent when no running daemon uses Kafka.
    pub(super) kafka: Option<Result<Kafka, KafkaError>>,
    /// What the daemons of this host say themselves; only looked at while the database is away.
    pub(super) local: Vec<Local>,
}

/// What the database tells.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) overview: Overview,
    pub(super) daemons: Vec<Seen>,
}

/// A daemon's row, read.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) row: DaemonRow,
    pub(super) facts: Map<String, Value>,
}

impl Seen {
    fn new(row: DaemonRow) -> Self {
        let facts = serde_json::from_str(&row.daemon.facts).unwrap_or_default();
        Self { row, facts }
    }

    /// Whether it renews its row.
    pub(super) fn is_live(&self) -> bool {
        !self.row.is_late()
    }

    pub(super) fn checks(&self) -> bool {
        matches!(self.row.daemon.role.as_str(), "producer" | "run")
    }

    pub(super) fn stores(&self) -> bool {
        matches!(self.row.daemon.role.as_str(), "consumer" | "run")
    }

    pub(super) fn is_local_bus(&self) -> bool {
        self.facts.get("bus").and_then(Value::as_str) == Some("local")
    }

    /// Partitions of its share of the sites, and all of them.
    pub(super) fn share(&self) -> Option<(u64, u64)> {
        let share = self.facts.get("share")?.as_array()?;
        Some((share.first()?.as_u64()?, share.get(1)?.as_u64()?))
    }

    pub(super) fn number(&self, fact: &str) -> Option<i64> {
        self.facts.get(fact)?.as_i64()
    }

    pub(super) fn time(&self, fact: &str) -> Option<Timestamp> {
        self.facts.get(fact)?.as_str()?.parse().ok()
    }

    /// Its parts that are unwell, and why.
    pub(super) fn unwell(&self) -> Vec<(&str, &str)> {
        let parts = self.facts.get("unwell").and_then(Value::as_object).into_iter().flatten();
        parts.map(|(part, why)| (part.as_str(), why.as_str().unwrap_or_default())).collect()
    }

    /// Which one it is, in words.
    pub(super) fn name(&self) -> String {
        let daemon = &self.row.daemon;
        format!("{} on {} (pid {})", daemon.role, daemon.host, daemon.pid)
    }
}

/// What the brokers tell.
#[derive(Debug)]
pub(super) struct Kafka {
    pub(super) topic: String,
    /// None when the topic is absent.
    pub(super) partitions: Option<Vec<Partition>>,
    pub(super) consumers: Group,
    /// A group per region.
    pub(super) producers: Vec<Group>,
}

/// A group and its name.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) found: GroupDescription,
}

impl Group {
    /// Partitions that a group at rest has given to nobody; none while it deals, or has no member.
    pub(super) fn left_out(&self, partitions: &[Partition]) -> Vec<i32> {
        if self.found.state != "Stable" {
            return Vec::new();
        }
        let dealt: BTreeSet<i32> = self
            .found
            .members
            .iter()
            .flat_map(|member| member.partitions.iter().copied())
            .collect();
        partitions.iter().map(|p| p.id).filter(|id| !dealt.contains(id)).collect()
    }
}

/// One partition and how far the consumers are.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) id: i32,
    pub(super) leader: Option<String>,
    pub(super) copies: usize,
    pub(super) in_sync: usize,
    pub(super) end: Option<i64>,
    pub(super) committed: Option<i64>,
    pub(super) lag: Option<i64>,
    /// When the first message that waits was published.
    pub(super) oldest_waiting: Option<Timestamp>,
    /// The consumer that has it.
    pub(super) member: Option<String>,
}

/// A daemon of this host.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) role: &'static str,
    pub(super) address: SocketAddr,
    /// Its parts with what is wrong with them, or why it doesn't answer.
    pub(super) parts: Result<Vec<(String, Option<String>)>, String>,
}

impl Look {
    pub(super) fn take(settings: &Settings, store: &Store) -> Self {
        let database = store.overview().and_then(|overview| {
            let daemons = store.daemons()?.into_iter().map(Seen::new).collect();
            Ok(Database { overview, daemons })
        });
        let live: Vec<&Seen> =
            database.iter().flat_map(|d| &d.daemons).filter(|seen| seen.is_live()).collect();
        let mut regions: BTreeSet<String> = live
            .iter()
            .filter(|seen| seen.checks())
            .filter_map(|seen| seen.row.daemon.region.clone())
            .collect();
        regions.insert(settings.monitoring.region.clone());
        let rows: Vec<DaemonRow> = live.iter().map(|seen| seen.row.clone()).collect();
        let needs_kafka = presence::local_bus(&rows).is_none();
        let kafka = needs_kafka.then(|| look_at_kafka(settings, &regions));
        let local = if database.is_err() { look_around(settings) } else { Vec::new() };
        Self { at: now().wall, database, kafka, local }
    }
}

fn look_at_kafka(settings: &Settings, regions: &BTreeSet<String>) -> Result<Kafka, KafkaError> {
    let options = options::kafka(settings, "webmon-status");
    let topic = &settings.kafka.topic;
    let described = topics::describe(&options, topic)?;
    let group = |name: String| {
        let found = inspect::group(&options, &name, topic)?;
        Ok::<_, KafkaError>(Group { name, found })
    };
    let consumers = group(settings.kafka.group.clone())?;
    let producers = regions.iter().map(|region| group(options::producers_group(region)));
    let producers = producers.collect::<Result<_, _>>()?;
    let partitions = described.map(|topic| {
        topic.partitions.into_iter().map(|partition| Partition {
            id: partition.id,
            leader: partition.leader,
            copies: partition.replicas.len(),
            in_sync: partition.in_sync.len(),
            end: None,
            committed: None,
            lag: None,
            oldest_waiting: None,
            member: holder(&consumers.found, partition.id),
        })
    });
    let mut partitions: Option<Vec<Partition>> = partitions.map(Iterator::collect);
    if let Some(partitions) = &mut partitions {
        // Where a leader is missing its offsets are unknown, and the rest is worth showing.
        match measure(&options, settings, partitions) {
            Err(KafkaError::NoLeader { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Kafka { topic: topic.clone(), partitions, consumers, producers })
}

fn holder(group: &GroupDescription, partition: i32) -> Option<String> {
    let member = group.members.iter().find(|member| member.partitions.contains(&partition))?;
    Some(format!("{}{}", member.client_id, member.host))
}

/// Ends, committed offsets and what waits between them.
fn measure(
    options: &KafkaOptions,
    settings: &Settings,
    partitions: &mut [Partition],
) -> Result<(), KafkaError> {
    let (topic, group) = (&settings.kafka.topic, &settings.kafka.group);
    let ids: Vec<i32> = partitions.iter().map(|partition| partition.id).collect();
    // Asked before the ends: a consumer is never seen ahead of them.
    let committed = inspect::committed(options, group, topic, &ids)?;
    let begins = topics::earliest_offsets(options, topic)?;
    let ends = topics::end_offsets(options, topic)?;
    let mut waiting = Vec::new();
    for partition in &mut *partitions {
        let id = partition.id;
        let begin = begins.get(&id).copied().unwrap_or(0);
        let next = committed.get(&id).copied().unwrap_or(begin).max(begin);
        partition.end = ends.get(&id).copied();
        partition.committed = committed.get(&id).copied();
        partition.lag = partition.end.map(|end| (end - next).max(0));
        if partition.lag > Some(0) {
            waiting.push((id, next));
        }
    }
    let mut fetcher = Fetcher::new(options.clone(), topic);
    let mut published: BTreeMap<i32, i64> = BTreeMap::new();
    for part in waiting {
        // One after the other: a fetch of several may leave some for its next turn.
        for fetched in fetcher.fetch(&[part], FETCH_WAIT, FETCH_BYTES).unwrap_or_default() {
            let first = fetched.records.first().map(|record| record.timestamp_ms);
            published.extend(first.map(|time| (fetched.partition, time)));
        }
    }
    for partition in partitions {
        let time = published.get(&partition.id).copied();
        partition.oldest_waiting = time.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    }
    Ok(())
}

/// The daemons of this host, where their listeners are.
fn look_around(settings: &Settings) -> Vec<Local> {
    [("producer", settings.producer.listen), ("consumer", settings.consumer.listen)]
        .into_iter()
        .map(|(role, address)| {
            let address = ask::reachable(address);
            let parts = match ask::get(address, "/readyz?verbose") {
                Ok((200 | 503, body)) => Ok(body.lines().map(read_part).collect()),
                Ok((status, _)) => {
                    Err(format!("answers with status {status}: no daemon of webmon"))
                }
                Err(error) => Err(error.to_string()),
            };
            Local { role, address, parts }
        })
        .collect()
}

/// A line of `/readyz?verbose`.
fn read_part(line: &str) -> (String, Option<String>) {
    match line.split_once(": ") {
        Some((part, "ok")) => (part.to_owned(), None),
        Some((part, why)) => (part.to_owned(), Some(why.to_owned())),
        None => (line.to_owned(), None),
    }
}
