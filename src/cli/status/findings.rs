//! What is unwell, and what to do about it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::look::{Database, GONE_MS, Group, Kafka, Look, Partition, Seen};
use super::show::span;
use crate::cli::cures;
use crate::cli::output::counted;
use crate::config::Settings;
use crate::kafka::KafkaError;

/// A message that waits for longer than this is not merely on its way: results take under a second.
const WAIT_MAX: SignedDuration = SignedDuration::from_secs(30);
/// Clocks further apart than this show in the times of checks. Less may be the way there.
const CLOCKS_APART_MS: i64 = 5_000;
/// An ended hour is counted within two minutes.
const ROLLUP_MAX: SignedDuration = SignedDuration::from_mins(30);
/// Tables are made days ahead, every hour.
const TABLES_MIN: SignedDuration = SignedDuration::from_hours(24);

/// Something that is unwell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) cure: String,
}

/// All that is unwell: first what could not be asked, then what was seen.
pub(super) fn of(look: &Look, settings: &Settings) -> Vec<Finding> {
    let mut list = List { found: Vec::new() };
    let live: Vec<&Seen> = match &look.database {
        Ok(database) => database.daemons.iter().filter(|seen| seen.is_live()).collect(),
        Err(error) => {
            let what = format!("{}: {error}", cures::trouble(error));
            list.add(what, cures::of_store(error, settings));
            Vec::new()
        }
    };
    if let Some(Err(error)) = &look.kafka {
        list.add(format!("{}: {error}", kafka_trouble(error)), cures::of_kafka(error));
    }
    if let Ok(database) = &look.database {
        list.of_daemons(database, &live);
        list.of_database(database);
    }
    if let Some(Ok(kafka)) = &look.kafka {
        // Without the database nobody knows who is there but the groups.
        let is_quiet = look.database.as_ref().is_ok_and(|d| d.overview.sites.0 == 0);
        list.of_kafka(kafka, look.at, is_quiet, settings);
    }
    for local in &look.local {
        for (part, why) in local.parts.iter().flatten() {
            if let Some(why) = why {
                list.add(format!("{} on this host: {part}: {why}", local.role), cures::cure(part));
            }
        }
    }
    list.found
}

/// What the trouble with Kafka is, in a few words.
pub(super) fn kafka_trouble(error: &KafkaError) -> &'static str {
    if error.is_permanent() { "Kafka can't be asked" } else { "Kafka is away" }
}

struct List {
    found: Vec<Finding>,
}

impl List {
    fn add(&mut self, what: impl Into<String>, cure: impl Into<String>) {
        self.found.push(Finding { what: what.into(), cure: cure.into() });
    }

    fn of_daemons(&mut self, database: &Database, live: &[&Seen]) {
        let active = database.overview.sites.0;
        let now = database.overview.server_time;
        if active > 0 && !live.iter().any(|seen| seen.checks()) {
            self.add(
                format!("no producer checks the {}", counted(active, "active site")),
                "start 'producer' (or 'webmon run'); see its log if it ends again",
            );
        }
        let through_kafka = live.iter().any(|seen| seen.checks() && !seen.is_local_bus());
        if through_kafka && !live.iter().any(|seen| seen.stores() && !seen.is_local_bus()) {
            self.add(
                "no consumer stores results",
                "start 'consumer'; results wait in Kafka meanwhile, for as long as it keeps them",
            );
        }
        for seen in &database.daemons {
            if !seen.is_live() {
                if seen.row.age_ms <= GONE_MS && !is_replaced(seen, live) {
                    let age = span(Duration::from_millis(seen.row.age_ms.unsigned_abs()));
                    self.add(
                        format!("{} was not seen for {age}", seen.name()),
                        "start it again, or see why it can't reach the database; one that is gone \
                         for good is left out after an hour",
                    );
                }
                continue;
            }
            for (part, why) in seen.unwell() {
                self.add(format!("{}: {part}: {why}", seen.name()), cures::cure(part));
            }
            if let Some(oldest) = seen.time("spool_oldest")
                && now.duration_since(oldest) > WAIT_MAX
            {
                let records = seen.number("spool_records").unwrap_or_default();
                let age = signed_span(now.duration_since(oldest));
                self.add(
                    format!(
                        "{}: {} {} in its spool, the oldest {age}",
                        seen.name(),
                        counted(records, "result"),
                        verb(records, "waits", "wait")
                    ),
                    cures::cure(if seen.is_local_bus() { "delivery" } else { "kafka" }),
                );
            }
            if let Some(clock) = seen.time("clock") {
                self.clock(&seen.name(), clock.duration_since(seen.row.seen_at).as_millis() as i64);
            }
        }
    }

    fn clock(&mut self, whose: &str, ahead_ms: i64) {
        if ahead_ms.abs() <= CLOCKS_APART_MS {
            return;
        }
        let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
        let apart = span(Duration::from_millis(ahead_ms.unsigned_abs()));
        self.add(
            format!("{whose}: its clock is {apart} {direction} the database's"),
            "have both hosts ask a time server (chrony, systemd-timesyncd)",
        );
    }

    fn of_database(&mut self, database: &Database) {
        let overview = &database.overview;
        let now = overview.server_time;
        self.clock("this host", -overview.clock_ahead_ms);
        if overview.rejected_last_hour > 0 {
            self.add(
                format!(
                    "{} {} rejected in the last hour",
                    counted(overview.rejected_last_hour, "message"),
                    verb(overview.rejected_last_hour, "was", "were")
                ),
                "'webmon rejected list' shows them; what became right is stored by 'webmon rejected \
                 replay'",
            );
        }
        if let Some(oldest) = overview.rollup_oldest
            && now.duration_since(oldest) > ROLLUP_MAX
        {
            let age = signed_span(now.duration_since(oldest));
            self.add(
                format!(
                    "{} {} to be counted, the oldest {age}",
                    counted(overview.rollup_hours, "hour"),
                    verb(overview.rollup_hours, "waits", "wait")
                ),
                cures::cure("rollups"),
            );
        }
        match overview.tables_until {
            None => self.add(
                "there is no table for today's checks",
                "start a consumer (it makes them), or run 'webmon migrate'",
            ),
            Some(until) if until.duration_since(now) < TABLES_MIN => self.add(
                format!("tables for checks end at {until:.0}"),
                "a running consumer makes them days ahead: see its part 'tables'",
            ),
            Some(_) => {}
        }
    }

    fn of_kafka(&mut self, kafka: &Kafka, at: Timestamp, is_quiet: bool, settings: &Settings) {
        let Some(partitions) = &kafka.partitions else {
            self.add(
                format!("the topic {} is absent", kafka.topic),
                "start a daemon, which makes it, or run 'webmon topic create'",
            );
            return;
        };
        let wanted = usize::try_from(settings.kafka.partitions).unwrap_or_default();
        if partitions.len() < wanted {
            let has = partitions.len();
            self.add(
                format!(
                    "the topic has {}, the configuration wants {wanted}",
                    counted(has, "partition")
                ),
                "add partitions with Kafka's own tools, or set kafka.partitions to what it has",
            );
        }
        for partition in partitions {
            self.of_copies(partition);
        }
        let is_empty = kafka.consumers.found.members.is_empty();
        if is_empty && !is_quiet {
            self.add(
                format!("the group {} has no consumer", kafka.consumers.name),
                "start 'consumer'; messages wait in the topic until its retention removes them",
            );
        }
        self.left_out("consumer", &kafka.consumers, partitions);
        for group in &kafka.producers {
            self.left_out("producer", group, partitions);
        }
        let old: Vec<(&Partition, SignedDuration)> = partitions
            .iter()
            .filter_map(|p| Some((p, at.duration_since(p.oldest_waiting?))))
            .filter(|(_, age)| *age > WAIT_MAX)
            .collect();
        if let Some((_, oldest)) = old.iter().max_by_key(|(_, age)| *age) {
            let waiting: i64 = old.iter().filter_map(|(partition, _)| partition.lag).sum();
            let ids: Vec<String> = old.iter().map(|(p, _)| p.id.to_string()).collect();
            self.add(
                format!(
                    "{} {} in partition {}, the oldest {}",
                    counted(waiting, "message"),
                    verb(waiting, "waits", "wait"),
                    ids.join(", "),
                    signed_span(*oldest)
                ),
                "see the consumers' parts fetching and storing; more consumers, or more of \
                 consumer.threads, help when none is unwell",
            );
        }
    }

    fn of_copies(&mut self, partition: &Partition) {
        let id = partition.id;
        if partition.leader.is_none() {
            self.add(
                format!("partition {id} has no leader"),
                "start the brokers that hold its copies; results wait in the spools meanwhile",
            );
        } else if partition.in_sync < partition.copies {
            let (has, wants) = (partition.in_sync, partition.copies);
            self.add(
                format!("partition {id} has {has} of {wants} copies in sync"),
                "see which broker is away or behind: 'webmon topic show'",
            );
        }
    }

    fn left_out(&mut self, what: &str, group: &Group, partitions: &[Partition]) {
        let ids: Vec<String> = group.left_out(partitions).iter().map(ToString::to_string).collect();
        if !ids.is_empty() {
            self.add(
                format!("partition {} has no {what} in the group {}", ids.join(", "), group.name),
                "the group deals again within some seconds; if it stays so, restart its members",
            );
        }
    }
}

/// Whether the same daemon was started again: same role and host, and later.
fn is_replaced(gone: &Seen, live: &[&Seen]) -> bool {
    let gone = &gone.row;
    live.iter().any(|seen| {
        let daemon = &seen.row.daemon;
        daemon.role == gone.daemon.role
            && daemon.host == gone.daemon.host
            && daemon.started_at > gone.seen_at
    })
}

fn verb(count: i64, one: &'static str, several: &'static str) -> &'static str {
    if count == 1 { one } else { several }
}

fn signed_span(age: SignedDuration) -> String {
    span(Duration::try_from(age).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::inspect::{GroupDescription, GroupMember};

    fn partition(id: i32) -> Partition {
        Partition {
            id,
            leader: Some("a:9092".to_owned()),
            copies: 1,
            in_sync: 1,
            end: Some(0),
            committed: None,
            lag: Some(0),
            oldest_waiting: None,
            member: None,
        }
    }

    #[test]
    fn a_partition_that_a_group_at_rest_left_out_is_found() {
        let member = GroupMember {
            member_id: "m".to_owned(),
            client_id: "webmon-consumer".to_owned(),
            host: "/127.0.0.1".to_owned(),
            partitions: vec![0],
        };
        let found = GroupDescription { state: "Stable".to_owned(), members: vec![member] };
        let mut group = Group { name: "webmon".to_owned(), found };
        let partitions = [partition(0), partition(1)];
        let mut list = List { found: Vec::new() };
        list.left_out("consumer", &group, &partitions);
        assert_eq!(list.found[0].what, "partition 1 has no consumer in the group webmon");
        group.found.state = "CompletingRebalance".to_owned();
        assert!(group.left_out(&partitions).is_empty(), "while it deals nobody has anything");
    }

    #[test]
    fn copies_and_clocks_have_their_bounds() {
        let mut list = List { found: Vec::new() };
        list.of_copies(&partition(0));
        list.clock("x", CLOCKS_APART_MS);
        list.clock("x", -CLOCKS_APART_MS);
        assert_eq!(list.found, []);
        list.of_copies(&Partition { leader: None, ..partition(2) });
        list.of_copies(&Partition { copies: 3, ..partition(3) });
        list.clock("producer on a", -7_200_000);
        let what: Vec<&str> = list.found.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "partition 2 has no leader",
                "partition 3 has 1 of 3 copies in sync",
                "producer on a: its clock is 2 h 0 min behind the database's",
            ]
        );
    }
}
