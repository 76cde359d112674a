//! The brokers, the topic and the groups.

use super::report::{Kind, Report};
use crate::cli::output::counted;
use crate::cli::{cures, options, topic};
use crate::config::Settings;
use crate::kafka::{KafkaError, KafkaOptions, inspect, topics};
use crate::store::DaemonRow;

/// Brokers that are looked at one by one.
const BROKERS_MAX: usize = 16;
/// `rows` are the daemons, as the database has them.
pub(super) fn look(report: &mut Report, settings: &Settings, rows: &[DaemonRow]) {
    let kafka = options::kafka(settings, "webmon-doctor");
    let mut answers = 0;
    for server in kafka.servers.iter().take(BROKERS_MAX) {
        answers += usize::from(greet(report, &kafka, server, "kafka.servers"));
    }
    if answers == 0 {
        report.warning(
            "topic",
            "was not looked at: no broker answers",
            "cure the brokers first, then run 'webmon doctor' again",
        );
        return;
    }
    match inspect::brokers(&kafka) {
        Ok(cluster) => {
            let others = cluster.brokers.iter().filter(|(_, at)| !kafka.servers.contains(at));
            for (id, server) in others.take(BROKERS_MAX) {
                let as_whom = format!("as broker {id} tells clients to reach it");
                greet(report, &kafka, server, &as_whom);
            }
        }
        Err(error) => fault(report, "broker", &error),
    }
    look_at_topic(report, settings, &kafka, rows);
    look_at_groups(report, settings, &kafka);
}

/// Whether the broker answers.
fn greet(report: &mut Report, kafka: &KafkaOptions, server: &str, as_whom: &str) -> bool {
    match inspect::greet(kafka, server) {
        Ok(missing) if missing.is_empty() => {
            let tls = if kafka.tls.is_some() { ", TLS" } else { "" };
            let sasl = kafka.sasl.as_ref().map(|s| format!(", {}", s.mechanism.name()));
            let sasl = sasl.unwrap_or_default();
            report.ok("broker", format!("{server} answers{tls}{sasl} ({as_whom})"));
            true
        }
        Ok(missing) => {
            report.bad(
                Kind::Other,
                "broker",
                format!("{server} does not speak {} ({as_whom})", missing.join(", ")),
                "run Apache Kafka 2.8 or newer there",
            );
            true
        }
        Err(error) => {
            let (kind, cure) = cure(&error);
            report.bad(kind, "broker", format!("{error} ({as_whom})"), cure);
            false
        }
    }
}

fn fault(report: &mut Report, subject: &'static str, error: &KafkaError) {
    let (kind, cure) = cure(error);
    report.bad(kind, subject, error.to_string(), cure);
}

fn cure(error: &KafkaError) -> (Kind, &'static str) {
    let kind = match error {
        KafkaError::Unreachable { .. } | KafkaError::NoLeader { .. } => Kind::Away,
        KafkaError::Protocol { .. } => Kind::Other,
        KafkaError::Configuration(_)
        | KafkaError::Certificate { .. }
        | KafkaError::Authentication { .. }
        | KafkaError::Refused { .. } => Kind::Configuration,
    };
    (kind, cures::of_kafka(error))
}

fn look_at_topic(
    report: &mut Report,
    settings: &Settings,
    kafka: &KafkaOptions,
    daemons: &[DaemonRow],
) {
    let wanted = options::topic(settings);
    let found = match topics::describe(kafka, &wanted.name) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return report.warning(
                "topic",
                format!("{} is absent", wanted.name),
                "run 'webmon topic create', or start a daemon, which makes it",
            );
        }
        Err(error) => return fault(report, "topic", &error),
    };
    let values = match inspect::topic_settings(kafka, &wanted.name) {
        Ok(values) => values,
        Err(error) => return fault(report, "topic", &error),
    };
    let warnings = topic::unfit(&found, &values, &wanted);
    let partitions = found.partitions.len();
    if warnings.is_empty() {
        report.ok(
            "topic",
            format!("{}: {}, settings fit", wanted.name, counted(partitions, "partition")),
        );
    }
    for warning in warnings {
        let said = format!("{}: {}", wanted.name, warning.what);
        if warning.is_bad {
            report.bad(Kind::Other, "topic", said, warning.cure);
        } else {
            report.warning("topic", said, warning.cure);
        }
    }
    for role in ["producer", "consumer"] {
        let live = daemons.iter().filter(|row| !row.is_late());
        let count = live.filter(|row| row.daemon.role == role).count();
        if count > partitions {
            report.warning(
                "topic",
                format!("{count} {role}s share {partitions} partitions: some have nothing to do"),
                format!("add partitions, or run at most {partitions} {role}s"),
            );
        }
    }
}

fn look_at_groups(report: &mut Report, settings: &Settings, kafka: &KafkaOptions) {
    let producers = options::producers_group(&settings.monitoring.region);
    let groups = [("consumer", settings.kafka.group.clone()), ("producer", producers)];
    for (role, group) in groups {
        match inspect::group(kafka, &group, &settings.kafka.topic) {
            Ok(found) if found.members.is_empty() => report.warning(
                "group",
                format!("{group} has no member"),
                format!("start '{role}' (fine while none shall run)"),
            ),
            Ok(found) => {
                let members = found.members.len();
                report.ok("group", format!("{group}: {}, members: {members}", found.state));
            }
            Err(error) => fault(report, "group", &error),
        }
    }
}
