//! `topic`: making the topic and looking at it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::CommonArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::ops_args::{TopicArgs, TopicCommand, TopicCreateArgs};
use super::table::{Cell, Colour, Column, Screen, Table};
use super::{options, output};
use crate::config::Settings;
use crate::kafka::topics::{self, TopicDescription};
use crate::kafka::{BATCH_BYTES, Ensured, KafkaError, KafkaOptions, TopicSpec, inspect};

/// Messages that wait for a consumer have to outlive a weekend without one.
const RETENTION_MIN_MS: i64 = 3 * 86_400_000;
/// What a broker allows by itself, and webmon counts on.
const HEAD: i64 = 1 << 10;

/// The settings that matter to webmon.
const SHOWN: [&str; 8] = [
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "max.message.bytes",
    "min.insync.replicas",
    "message.timestamp.type",
    "unclean.leader.election.enable",
    "compression.type",
];

pub(super) fn topic(common: &CommonArgs, args: &TopicArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let settings = &loaded.settings;
    let kafka = options::kafka(settings, "webmon-topic");
    match &args.command {
        TopicCommand::Create(create) => self::create(settings, &kafka, create),
        TopicCommand::Show(show) => self::show(settings, &kafka, show.json),
    }
}

fn failed(error: &KafkaError) -> Exit {
    Exit::of_kafka("webmon topic", error)
}

fn create(settings: &Settings, kafka: &KafkaOptions, args: &TopicCreateArgs) -> Result<(), Exit> {
    let wanted = options::topic(settings);
    let spec = TopicSpec {
        partitions: args.partitions.unwrap_or(wanted.partitions),
        replication_factor: args.replication_factor.unwrap_or(wanted.replication_factor),
        ..wanted
    };
    let (is_new, partitions) = match topics::ensure(kafka, &spec).map_err(|e| failed(&e))? {
        Ensured::Created => (true, spec.partitions),
        Ensured::Existed { partitions } => (false, partitions),
    };
    let name = &spec.name;
    let count = output::counted(partitions, "partition");
    if !is_new && !args.if_not_exists {
        return Err(Exit::Failed(format!(
            "webmon topic: {name} is there already, with {count}: see 'webmon topic \
             show', or add --if-not-exists"
        )));
    }
    if args.json {
        let made = json!({ "topic": name, "is_new": is_new, "partitions": partitions });
        return output::line(&made.to_string());
    }
    if is_new {
        let copies = spec.replication_factor;
        return output::line(&format!("{name} made: {count}, replication factor {copies}"));
    }
    let fewer = if partitions < spec.partitions {
        format!("; {} are wanted: add the others with Kafka's own tools", spec.partitions)
    } else {
        String::new()
    };
    output::line(&format!("{name} is there, with {count}{fewer}"))
}

fn show(settings: &Settings, kafka: &KafkaOptions, is_json: bool) -> Result<(), Exit> {
    let name = &settings.kafka.topic;
    let Some(found) = topics::describe(kafka, name).map_err(|e| failed(&e))? else {
        return Err(Exit::NotFound(format!(
            "webmon topic: no topic {name}; the daemons make it, and so does 'webmon topic create'"
        )));
    };
    let values = inspect::topic_settings(kafka, name).map_err(|e| failed(&e))?;
    // Without a leader a partition has no offsets to show.
    let offsets = topics::earliest_offsets(kafka, name).and_then(|begins| {
        let ends = topics::end_offsets(kafka, name)?;
        Ok(begins.into_iter().map(|(id, at)| (id, (at, ends.get(&id).copied()))).collect())
    });
    let offsets: BTreeMap<i32, (i64, Option<i64>)> = match offsets {
        Ok(offsets) => offsets,
        Err(KafkaError::NoLeader { .. }) => BTreeMap::new(),
        Err(error) => return Err(failed(&error)),
    };
    let warnings = unfit(&found, &values, &options::topic(settings));
    if is_json {
        output::line(&whole(name, &found, &offsets, &values, &warnings).to_string())?;
    } else {
        text(name, &found, &offsets, &values, &warnings)?;
    }
    if warnings.is_empty() { Ok(()) } else { Err(Exit::Bad) }
}

/// What is unfit, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    pub(super) what: String,
    pub(super) cure: String,
    /// Whether results can be lost or are not taken.
    pub(super) is_bad: bool,
}

/// What in the topic doesn't fit webmon.
pub(super) fn unfit(
    found: &TopicDescription,
    settings: &BTreeMap<String, String>,
    wanted: &TopicSpec,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut add = |is_bad, what: String, cure: String| {
        warnings.push(Warning { what, cure, is_bad });
    };
    let set = |key: &str, value: &str| {
        format!(
            "kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {key}={value}",
            wanted.name
        )
    };
    let number = |key: &str| settings.get(key).and_then(|value| value.parse::<i64>().ok());
    let has = found.partitions.len();
    if has < usize::try_from(wanted.partitions).unwrap_or_default() {
        add(
            false,
            format!(
                "it has {}, kafka.partitions is {}",
                output::counted(has, "partition"),
                wanted.partitions
            ),
            format!(
                "kafka-topics.sh --alter --topic {} --partitions {}, or set kafka.partitions to {has}",
                wanted.name, wanted.partitions
            ),
        );
    }
    if let Some(policy) = settings.get("cleanup.policy")
        && policy.split(',').any(|part| part.trim() == "compact")
    {
        add(
            true,
            format!("cleanup.policy={policy} removes all but a site's last result"),
            set("cleanup.policy", "delete"),
        );
    }
    if let Some(ms) = number("retention.ms").filter(|ms| (0..RETENTION_MIN_MS).contains(ms)) {
        add(
            true,
            format!(
                "retention.ms={ms}: results that no consumer read within {} are lost",
                hours(ms)
            ),
            set("retention.ms", &RETENTION_MIN_MS.to_string()),
        );
    }
    let largest = i64::try_from(BATCH_BYTES).unwrap_or(i64::MAX) + HEAD;
    if let Some(bytes) = number("max.message.bytes").filter(|bytes| *bytes < largest) {
        add(
            true,
            format!("max.message.bytes={bytes}: batches have up to {largest} bytes"),
            set("max.message.bytes", "1048588"),
        );
    }
    let copies = found.partitions.iter().map(|p| p.replicas.len()).min().unwrap_or_default();
    if let Some(least) = number("min.insync.replicas")
        && least > copies as i64
    {
        add(
            true,
            format!(
                "min.insync.replicas={least}, but there are only {copies} copies: nothing is taken"
            ),
            set("min.insync.replicas", &copies.to_string()),
        );
    }
    for partition in &found.partitions {
        let (id, in_sync, all) = (partition.id, partition.in_sync.len(), partition.replicas.len());
        if partition.leader.is_none() {
            add(
                true,
                format!("partition {id} has no leader"),
                format!("start one of the brokers {:?}, which hold its copies", partition.replicas),
            );
        } else if in_sync < all {
            let missing: Vec<&i32> =
                partition.replicas.iter().filter(|b| !partition.in_sync.contains(b)).collect();
            add(
                true,
                format!("partition {id} has {in_sync} of {all} copies in sync"),
                format!("see what is wrong with broker {missing:?}"),
            );
        }
    }
    warnings
}

fn hours(ms: i64) -> String {
    match ms / 3_600_000 {
        0 => format!("{} min", ms / 60_000),
        hours => format!("{hours} h"),
    }
}

fn text(
    name: &str,
    found: &TopicDescription,
    offsets: &BTreeMap<i32, (i64, Option<i64>)>,
    settings: &BTreeMap<String, String>,
    warnings: &[Warning],
) -> Result<(), Exit> {
    let screen = Screen::of_stdout();
    let messages: i64 = offsets.values().filter_map(|(begin, end)| Some((*end)? - begin)).sum();
    let partitions = output::counted(found.partitions.len(), "partition");
    let messages = output::counted(messages, "message");
    output::line(&format!("{name}: {partitions}, {messages}\n"))?;
    let columns = [
        Column::number("PARTITION"),
        Column::text("LEADER"),
        Column::text("COPIES ON"),
        Column::text("IN SYNC"),
        Column::number("FIRST"),
        Column::number("END"),
    ];
    let ids =
        |ids: &[i32]| Cell::from(ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    let rows: Vec<Vec<Cell>> = found
        .partitions
        .iter()
        .map(|p| {
            let place = offsets.get(&p.id);
            vec![
                Cell::from(p.id.to_string()),
                Cell::or_dash(p.leader.as_deref()),
                ids(&p.replicas),
                ids(&p.in_sync),
                Cell::or_dash(place.map(|(begin, _)| begin)),
                Cell::or_dash(place.and_then(|(_, end)| *end)),
            ]
        })
        .collect();
    Table::new(&columns, screen).print(&rows)?;
    output::line("")?;
    for key in SHOWN {
        if let Some(value) = settings.get(key) {
            output::line(&format!("{key:<32} {value}"))?;
        }
    }
    for warning in warnings {
        let mark = if screen.is_coloured { Colour::Yellow.paint("!") } else { "!".to_owned() };
        output::line(&format!("\n{mark} {}", warning.what))?;
        output::line(&format!("  what to do: {}", warning.cure))?;
    }
    Ok(())
}

fn whole(
    name: &str,
    found: &TopicDescription,
    offsets: &BTreeMap<i32, (i64, Option<i64>)>,
    settings: &BTreeMap<String, String>,
    warnings: &[Warning],
) -> Value {
    let partitions: Vec<Value> = found
        .partitions
        .iter()
        .map(|p| {
            let place = offsets.get(&p.id);
            json!({
                "partition": p.id,
                "leader": p.leader,
                "replicas": p.replicas,
                "in_sync": p.in_sync,
                "first": place.map(|(begin, _)| begin),
                "end": place.and_then(|(_, end)| *end),
            })
        })
        .collect();
    let warnings: Vec<Value> =
        warnings.iter().map(|w| json!({ "what": w.what, "cure": w.cure })).collect();
    json!({ "topic": name, "partitions": partitions, "settings": settings, "warnings": warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topics::Partition;

    fn check(settings: &[(&str, &str)], expected: &[&str]) {
        let partition = Partition {
            id: 0,
            leader: Some("a:9092".to_owned()),
            replicas: vec![1],
            in_sync: vec![1],
        };
        let found = TopicDescription { partitions: vec![partition] };
        let wanted = TopicSpec { name: "webmon".to_owned(), partitions: 1, replication_factor: 1 };
        let settings: BTreeMap<String, String> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let warnings = unfit(&found, &settings, &wanted);
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.what.starts_with(expected), "{warning:?}");
            assert!(warning.cure.contains("webmon"), "{warning:?}");
        }
    }

    #[test]
    fn settings_that_lose_results_are_found() {
        check(
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "604800000"),
                ("max.message.bytes", "1048588"),
                ("min.insync.replicas", "1"),
            ],
            &[],
        );
        check(&[("retention.ms", "-1")], &[]);
        check(&[("cleanup.policy", "compact,delete")], &["cleanup.policy=compact,delete removes"]);
        check(
            &[("retention.ms", "60000")],
            &["retention.ms=60000: results that no consumer read within 1 min are lost"],
        );
        check(&[("max.message.bytes", "1000")], &["max.message.bytes=1000: batches have up to"]);
        check(&[("min.insync.replicas", "2")], &["min.insync.replicas=2, but there are only 1"]);
    }
}
