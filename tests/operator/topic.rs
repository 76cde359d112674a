//! `webmon topic`.

use crate::support::daemon::Lab;
use crate::support::ports::free_port;
use crate::{json, quiet, run};

#[test]
fn a_topic_is_made_once_and_shown() {
    let mut lab = quiet(Lab::new("topic"));
    let said = run(&lab, &["topic", "show"], 3);
    assert!(said.contains("webmon topic create"), "{said}");
    let (made, code) = json(&lab, &["topic", "create", "--partitions", "3"]);
    assert_eq!((code, made["is_new"].as_bool()), (Some(0), Some(true)), "{made}");
    let said = run(&lab, &["topic", "create"], 1);
    assert!(said.contains("is there already, with 3 partitions"), "{said}");
    let said = run(&lab, &["topic", "create", "--if-not-exists"], 0);
    assert!(said.contains("with 3 partitions; 8 are wanted"), "{said}");

    let (shown, code) = json(&lab, &["topic", "show"]);
    assert_eq!(code, Some(1), "{shown}");
    let partitions = shown["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len(), 3);
    for partition in partitions {
        assert!(partition["leader"].is_string() && partition["end"] == 0, "{partition}");
    }
    assert_eq!(shown["settings"]["cleanup.policy"], "delete");
    let warning = &shown["warnings"][0];
    assert!(warning["what"].as_str().unwrap().contains("3 partitions, kafka.partitions is 8"));
    assert!(warning["cure"].as_str().unwrap().contains("kafka-topics.sh --alter"));

    lab.set("WEBMON_KAFKA_PARTITIONS", "3");
    let said = run(&lab, &["topic", "show"], 0);
    for part in ["3 partitions, 0 messages", "PARTITION  LEADER", "retention.ms"] {
        assert!(said.contains(part), "'{part}' in:\n{said}");
    }
}

#[test]
fn what_the_brokers_refuse_and_a_broker_that_is_away_are_told_apart() {
    let mut lab = quiet(Lab::new("topic_refused"));
    let said = run(&lab, &["topic", "create", "--replication-factor", "100"], 2);
    assert!(said.contains("InvalidReplicationFactor"), "{said}");
    let need = "100 copies of each partition need 100 brokers, ";
    let (_, there) = said.split_once(need).unwrap_or_else(|| panic!("{said}"));
    assert!(there.starts_with(|first: char| first.is_ascii_digit()), "{said}");
    lab.set("WEBMON_KAFKA_SERVERS", &format!("127.0.0.1:{}", free_port()));
    for args in [["topic", "create"], ["topic", "show"]] {
        let said = run(&lab, &args, 4);
        assert!(said.contains("refused"), "{said}");
    }
}
