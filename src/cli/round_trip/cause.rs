//! Why a check that is in the topic is not in the table.

use crate::cli::output::counted;
use crate::cli::presence;
use crate::config::Settings;
use crate::kafka::{KafkaError, KafkaOptions, inspect};
use crate::store::{RejectedFilter, RejectedKey, Store};

/// A message's place.
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// The first thing that is in the way, from the table back to the topic.
pub(super) fn of_not_stored(
    settings: &Settings,
    kafka: &KafkaOptions,
    store: &Store,
    place: &Place,
) -> String {
    if let Err(error) = store.ping() {
        return format!(
            "the database is away: {error}; the message waits in the topic until a consumer can \
             store it"
        );
    }
    if let Some(reason) = rejected(store, place) {
        return format!(
            "the consumer rejected the message: {reason} (webmon rejected show {}/{}/{})",
            place.topic, place.partition, place.offset
        );
    }
    match of_group(settings, kafka, store, place) {
        Ok(cause) => match unwell(store) {
            Some(unwell) => format!("{cause}; {unwell}"),
            None => cause,
        },
        Err(error) => format!("Kafka is away since the message was published: {error}"),
    }
}

fn rejected(store: &Store, place: &Place) -> Option<String> {
    let key = RejectedKey {
        topic: place.topic.clone(),
        partition: place.partition,
        offset: place.offset,
    };
    let filter = RejectedFilter { keys: vec![key], ..RejectedFilter::default() };
    Some(store.read_rejected(&filter, None, 1).ok()?.pop()?.reason)
}

fn of_group(
    settings: &Settings,
    kafka: &KafkaOptions,
    store: &Store,
    place: &Place,
) -> Result<String, KafkaError> {
    let (group, partition) = (&settings.kafka.group, place.partition);
    let found = inspect::group(kafka, group, &place.topic)?;
    let committed = inspect::committed(kafka, group, &place.topic, &[partition])?;
    let committed = committed.get(&partition).copied();
    if found.members.is_empty() {
        if let Some(why) = local_bus(store) {
            return Ok(why);
        }
        return Ok(format!(
            "no consumer is in the group {group}: start 'consumer'; the message waits in the topic"
        ));
    }
    let Some(holder) = found.members.iter().find(|m| m.partitions.contains(&partition)) else {
        return Ok(format!(
            "none of the {} consumers of the group {group} has partition {partition} (the group is \
             {}): it deals again within some seconds",
            found.members.len(),
            found.state
        ));
    };
    let whose = format!("the consumer {} at {}", holder.client_id, holder.host.trim_matches('/'));
    Ok(match committed {
        Some(next) if next > place.offset => format!(
            "{whose} has passed the message (next offset {next}, the message has {}), so it wrote it \
             elsewhere: see that its database is the one of this configuration",
            place.offset
        ),
        Some(next) => format!(
            "{whose} is {} behind in partition {partition}: see its /readyz?verbose",
            counted(place.offset - next + 1, "message")
        ),
        None => format!(
            "{whose} has committed nothing yet in partition {partition}: see its /readyz?verbose"
        ),
    })
}

/// Why no trip comes back where nobody but `run --bus local` runs.
pub(super) fn local_bus(store: &Store) -> Option<String> {
    let rows = store.daemons().ok()?;
    let daemon = &presence::local_bus(&rows)?.daemon;
    Some(format!(
        "only 'run --bus local' runs (on {}, pid {}), which neither needs nor reads Kafka: a round \
         trip goes through Kafka, and 'webmon status' shows how that one is",
        daemon.host, daemon.pid
    ))
}

/// What running consumers say is wrong with them.
fn unwell(store: &Store) -> Option<String> {
    let rows = store.daemons().ok()?;
    let live = rows
        .into_iter()
        .filter(|row| !row.is_late() && matches!(row.daemon.role.as_str(), "consumer" | "run"));
    let mut said = live.flat_map(|row| {
        let facts: serde_json::Value = serde_json::from_str(&row.daemon.facts).unwrap_or_default();
        let parts = facts["unwell"].as_object().cloned().unwrap_or_default();
        let host = row.daemon.host;
        parts.into_iter().map(move |(part, why)| {
            format!("the consumer on {host} says {part}: {}", why.as_str().unwrap_or_default())
        })
    });
    said.next()
}
