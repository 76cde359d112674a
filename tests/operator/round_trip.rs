//! `webmon round-trip`: each leg, and each missing one.

use crate::broker::OwnBroker;
use crate::support::cluster::Cluster;
use crate::support::daemon::Lab;
use crate::support::eventually;
use crate::support::services::TestDatabase;
use crate::{consumer, json, migrate, quiet, run};

const LEGS: [&str; 4] =
    ["checked", "published and acknowledged", "seen in the topic", "stored and found"];

#[test]
fn each_leg_is_timed_and_the_check_is_stored() {
    let lab = quiet(Lab::new("trip"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let _consumer = consumer(&lab);
    let (trip, code) = json(&lab, &["round-trip", "--timeout", "60"]);
    assert_eq!(code, Some(0), "{trip}");
    let legs = trip["legs"].as_array().expect("legs");
    let names: Vec<&str> = legs.iter().map(|leg| leg["leg"].as_str().unwrap()).collect();
    assert_eq!(names, LEGS);
    let seconds = |value: &serde_json::Value| value.as_f64().expect("seconds");
    let sum: f64 = legs.iter().map(|leg| seconds(&leg["seconds"])).sum();
    assert!((sum - seconds(&trip["total_seconds"])).abs() < 1e-6, "{trip}");
    let row = format!(
        "SELECT w.status || ' ' || c.outcome FROM check_entry c JOIN website w USING (website_id) \
         WHERE check_entry_id = '{}' AND w.name = 'webmon round-trip'",
        trip["check_entry_id"].as_str().unwrap()
    );
    assert_eq!(lab.query::<String>(&row).as_deref(), Ok("paused up"));

    let said = run(&lab, &["round-trip", "--count", "3", "--interval", "1"], 0);
    for part in ["trip 3: ", "stored and found", "3 trips, 3 found again, 0 not; total "] {
        assert!(said.contains(part), "'{part}' in:\n{said}");
    }
    for wrong in ["0.1", "0", "3601"] {
        let said = run(&lab, &["round-trip", "--timeout", wrong], 2);
        assert!(said.contains("must be whole seconds from 1 to 3600"), "{said}");
    }
    let count = "SELECT count(*) FROM check_entry";
    assert_eq!(lab.query::<i64>(count), Ok(4), "each trip's check has an id of its own");
}

#[test]
fn a_signal_ends_the_trips_with_their_sum() {
    let lab = quiet(Lab::new("trips"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let _consumer = consumer(&lab);
    let mut trips = lab.start("webmon", &["round-trip", "--interval", "1", "--timeout", "60"]);
    eventually("a trip is made", || {
        let said = trips.output();
        said.iter().find(|line| line.contains("total")).map(drop).ok_or(said)
    });
    trips.signal(rustix::process::Signal::INT);
    assert_eq!(trips.wait().code(), Some(0));
    eventually("the sum is told", || {
        let said = trips.output();
        said.iter().find(|line| line.contains("found again, 0 not")).map(drop).ok_or(said)
    });
}

#[test]
fn without_a_consumer_the_trip_ends_in_the_topic() {
    let lab = quiet(Lab::new("trip_unread"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let said = run(&lab, &["round-trip", "--timeout", "2"], 4);
    for part in
        ["leg 'stored and found' is missing", "no consumer is in the group", "start 'consumer'"]
    {
        assert!(said.contains(part), "'{part}' in:\n{said}");
    }
}

#[test]
fn without_a_topic_nothing_is_published() {
    let lab = quiet(Lab::new("trip_absent"));
    migrate(&lab);
    let said = run(&lab, &["round-trip"], 4);
    assert!(said.contains("leg 'published' is missing: there is no topic"), "{said}");
    assert!(said.contains("webmon topic create"), "{said}");
}

#[test]
fn a_killed_broker_is_the_cause() {
    let mut broker = OwnBroker::start(&[], &[], &[]);
    let database = TestDatabase::create("trip_broker");
    let lab = quiet(Lab::at(database, &broker.address("LOCAL"), "trip_broker"));
    migrate(&lab);
    run(&lab, &["topic", "create", "--partitions", "1"], 0);
    broker.kill();
    let said = run(&lab, &["round-trip"], 4);
    assert!(said.contains("leg 'published' is missing: Kafka is away: "), "{said}");
    assert!(said.contains(&broker.address("LOCAL")), "{said}");
}

#[test]
fn a_stopped_database_is_the_cause() {
    let cluster = Cluster::start(&[], &[], &[]);
    let database = TestDatabase::create_at(&cluster.url(), "trip_database");
    let servers = crate::support::services::kafka_servers().join(",");
    let lab = quiet(Lab::at(database, &servers, "trip_database"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let _consumer = consumer(&lab);
    run(&lab, &["round-trip", "--timeout", "60"], 0);
    cluster.stop_at_once();
    let said = run(&lab, &["round-trip", "--timeout", "2"], 4);
    assert!(said.contains("leg 'stored and found' is missing: the database is away"), "{said}");
}

#[test]
fn a_consumer_of_another_database_is_found_out() {
    let lab = quiet(Lab::new("trip_here"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let elsewhere = TestDatabase::create("trip_elsewhere");
    let other = std::collections::BTreeMap::from([(
        "WEBMON_DATABASE_DB".to_owned(),
        elsewhere.name.clone(),
    )]);
    let consumer = lab.start_with("consumer", &[], &other);
    consumer.wait_for_log("group joined");
    consumer.wait_for_log("tables are up to date");
    let said = run(&lab, &["round-trip", "--timeout", "10"], 4);
    assert!(said.contains("has passed the message"), "{said}");
    assert!(said.contains("see that its database is the one of this configuration"), "{said}");
}

#[test]
fn a_rejected_message_tells_its_reason() {
    let lab = quiet(Lab::new("trip_rejected"));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    let _consumer = consumer(&lab);
    let mut trips = lab.start("webmon", &["round-trip", "--interval", "2", "--timeout", "8"]);
    eventually("the first trip is made", || {
        let said = trips.output();
        said.iter().find(|line| line.contains("total")).map(drop).ok_or(said)
    });
    lab.database.client().batch_execute("DELETE FROM website").expect("the site is gone");
    let cause = eventually("the cause is told", || {
        let said = trips.output();
        said.iter().find(|line| line.contains("is missing")).cloned().ok_or(said)
    });
    assert!(cause.contains("the consumer rejected the message: unknown website"), "{cause}");
    assert!(cause.contains("webmon rejected show "), "{cause}");
    trips.signal(rustix::process::Signal::INT);
    assert_eq!(trips.wait().code(), Some(4), "a leg was missing");
}
