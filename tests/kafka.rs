//! The Kafka room against a real broker: publishing, fetching, and Kafka's own tools.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, outside their functions

#[path = "support/broker.rs"]
mod broker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::{OwnBroker, TestTopic, shared, shared_servers, tool, until};
use webmon::kafka::{
    Compression, EARLIEST, Ensured, Fetched, FetchedRecord, Fetcher, KafkaOptions, Publisher,
    Record, TopicSpec, partition_for, topics,
};
use webmon::runtime::{Stop, Threads, now};
use webmon::telemetry::metrics;

const WAIT: Duration = Duration::from_millis(100);

fn spec(topic: &TestTopic, partitions: i32) -> TopicSpec {
    TopicSpec { name: topic.name.clone(), partitions, replication_factor: 1 }
}

/// Keys "0", "1", …; values that differ.
fn messages(count: usize, size: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let message = |index: usize| {
        let mut value = format!("message {index} ").into_bytes();
        let mut state = index as u64;
        while value.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            value.push((state >> 33) as u8);
        }
        (index.to_string().into_bytes(), value)
    };
    (0..count).map(message).collect()
}

fn records(messages: &[(Vec<u8>, Vec<u8>)]) -> Vec<Record<'_>> {
    messages.iter().map(|(key, value)| Record { key, value }).collect()
}

/// Publishes until all is acknowledged: a new topic's leader may still refuse at first. What the
/// broker never takes is returned.
fn publish(publisher: &mut Publisher, messages: &[(Vec<u8>, Vec<u8>)]) -> Vec<usize> {
    let mut open: Vec<usize> = (0..messages.len()).collect();
    let mut refused = Vec::new();
    until("everything is acknowledged", || {
        let all = records(messages);
        let records: Vec<Record<'_>> = open.iter().map(|index| all[*index]).collect();
        let (again, never) = match publisher.publish(&records) {
            Ok(published) => (Vec::new(), published.refused),
            Err(error) => {
                assert!(!error.is_permanent, "{error}");
                (error.unacknowledged, error.refused)
            }
        };
        refused.extend(never.iter().map(|index| open[*index]));
        open = again.iter().map(|index| open[*index]).collect();
        open.is_empty()
    });
    refused
}

/// Fetches until each partition is read up to its high watermark.
fn fetch_all(
    options: &KafkaOptions,
    topic: &str,
    partitions: i32,
    max_bytes: i32,
) -> (BTreeMap<i32, Vec<FetchedRecord>>, usize) {
    let mut fetcher = Fetcher::new(options.clone(), topic);
    let ends = topics::end_offsets(options, topic).unwrap();
    let mut wanted: BTreeMap<i32, i64> = (0..partitions).map(|p| (p, EARLIEST)).collect();
    let (mut found, mut calls) = (BTreeMap::<i32, Vec<FetchedRecord>>::new(), 0);
    until("everything is fetched", || {
        let positions: Vec<(i32, i64)> = wanted.iter().map(|(p, o)| (*p, *o)).collect();
        calls += 1;
        for part in fetcher.fetch(&positions, WAIT, max_bytes).unwrap() {
            wanted.insert(part.partition, part.next_offset);
            found.entry(part.partition).or_default().extend(part.records);
        }
        ends.iter().all(|(partition, end)| wanted[partition] >= *end)
    });
    (found, calls)
}

fn check_round_trip(compression: Compression) {
    let topic = TestTopic::new(shared(), "round-trip");
    let options = KafkaOptions { compression, ..shared() };
    let sent = messages(300, 200);
    let before = now().wall.as_millisecond();
    let mut publisher = Publisher::new(options.clone(), spec(&topic, 5));
    assert_eq!(publish(&mut publisher, &sent), Vec::<usize>::new());
    let after = now().wall.as_millisecond();

    let (found, _) = fetch_all(&options, &topic.name, 5, 1 << 20);
    let mut values = BTreeMap::new();
    for (partition, records) in &found {
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record.offset, index as i64);
            assert!((before..=after).contains(&record.timestamp_ms), "{}", record.timestamp_ms);
            let key = record.key.clone().unwrap();
            assert_eq!(partition_for(&key, 5), *partition);
            values.insert(key.to_vec(), record.value.clone().unwrap().to_vec());
        }
    }
    assert_eq!(values, sent.into_iter().collect());
}

#[test]
fn what_is_published_is_fetched() {
    check_round_trip(Compression::None);
}

#[test]
fn what_is_published_is_fetched_with_lz4() {
    check_round_trip(Compression::Lz4);
}

#[test]
fn what_is_published_is_fetched_with_zstd() {
    check_round_trip(Compression::Zstd);
}

#[test]
fn a_topic_is_made_once() {
    let topic = TestTopic::new(shared(), "made-once");
    assert_eq!(topics::describe(&shared(), &topic.name).unwrap(), None);
    assert_eq!(topics::ensure(&shared(), &spec(&topic, 3)).unwrap(), Ensured::Created);
    let again = topics::ensure(&shared(), &spec(&topic, 7)).unwrap();
    assert_eq!(again, Ensured::Existed { partitions: 3 });
    let too_many = TopicSpec { replication_factor: 99, ..spec(&topic, 1) };
    let too_many = TopicSpec { name: format!("{}-x", topic.name), ..too_many };
    let error = topics::ensure(&shared(), &too_many).unwrap_err();
    let words = "create topic: 99 copies of each partition need 99 brokers, 1 is there \
                 (InvalidReplicationFactor (38)): lower kafka.replication_factor, or start more brokers";
    assert_eq!(error.to_string(), words);
    assert!(error.is_permanent());
}

#[test]
fn a_backlog_is_read_with_a_small_byte_limit() {
    let topic = TestTopic::new(shared(), "backlog");
    let sent = messages(1000, 500);
    let mut publisher = Publisher::new(shared(), spec(&topic, 1));
    // Batches of about 11 kB: the limit below cuts the third.
    for part in sent.chunks(20) {
        publish(&mut publisher, part);
    }
    let (found, calls) = fetch_all(&shared(), &topic.name, 1, 30_000);
    let offsets: Vec<i64> = found[&0].iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (0..1000).collect::<Vec<_>>());
    // Two whole batches each; the first call only asks where to begin.
    assert_eq!(calls, 26);
}

#[test]
fn fetching_begins_inside_a_batch() {
    let topic = TestTopic::new(shared(), "inside");
    publish(&mut Publisher::new(shared(), spec(&topic, 1)), &messages(10, 50));
    let mut fetcher = Fetcher::new(shared(), &topic.name);
    let found = fetcher.fetch(&[(0, 7)], WAIT, 1 << 20).unwrap();
    let offsets: Vec<i64> = found[0].records.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [7, 8, 9]);
    assert_eq!((found[0].next_offset, found[0].high_watermark), (10, 10));
    // Nothing new: an answer after the wait, at the same place.
    let found = fetcher.fetch(&[(0, 10)], WAIT, 1 << 20).unwrap();
    assert_eq!((found[0].records.len(), found[0].next_offset), (0, 10));
}

#[test]
fn deleted_offsets_are_skipped_and_counted() {
    let topic = TestTopic::new(shared(), "deleted");
    publish(&mut Publisher::new(shared(), spec(&topic, 2)), &messages(40, 50));
    let ends = topics::end_offsets(&shared(), &topic.name).unwrap();
    topic.delete_before(0, 6);
    let earliest = topics::earliest_offsets(&shared(), &topic.name).unwrap();
    assert_eq!(earliest, BTreeMap::from([(0, 6), (1, 0)]));

    let lost_before = metrics().offsets_lost.get();
    let mut fetcher = Fetcher::new(shared(), &topic.name);
    let mut found = fetcher.fetch(&[(0, 2), (1, 0)], WAIT, 1 << 20).unwrap();
    found.sort_by_key(|part| part.partition);
    let [gap, whole] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((gap.next_offset, gap.offsets_lost, gap.records.len()), (6, 4, 0));
    assert_eq!(whole.records.len() as i64, ends[&1], "the other partition is not concerned");
    assert!(metrics().offsets_lost.get() >= lost_before + 4);

    // Past the end: the partition was made anew with fewer records.
    let found = fetcher.fetch(&[(0, 1000)], WAIT, 1 << 20).unwrap();
    assert_eq!((found[0].next_offset, found[0].offsets_lost), (6, 0));
    let found = fetcher.fetch(&[(0, 6)], WAIT, 1 << 20).unwrap();
    assert_eq!(found[0].records.len() as i64, ends[&0] - 6);
}

#[test]
fn only_what_is_too_large_is_refused() {
    let topic = TestTopic::new(shared(), "too-large");
    topic.create_with(2, &[("max.message.bytes", "10000")]);
    let mut sent = messages(60, 1000);
    sent[17].1 = messages(18, 20_000).remove(17).1;
    sent[40].1 = vec![b'x'; 17 << 20];
    let refused = publish(&mut Publisher::new(shared(), spec(&topic, 2)), &sent);
    assert_eq!(refused, [17, 40]);
    let (found, _) = fetch_all(&shared(), &topic.name, 2, 1 << 20);
    let keys: BTreeSet<String> = found
        .values()
        .flatten()
        .map(|record| String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap())
        .collect();
    assert_eq!(keys.len(), 58);
    assert!(!keys.contains("17") && !keys.contains("40"));
}

#[test]
fn the_java_consumer_reads_our_records() {
    let topic = TestTopic::new(shared(), "java");
    let sent: Vec<(Vec<u8>, Vec<u8>)> = (0..30)
        .map(|id| (id.to_string().into_bytes(), format!("{{\"website_id\":{id}}}").into_bytes()))
        .collect();
    let options = KafkaOptions { compression: Compression::Zstd, ..shared() };
    publish(&mut Publisher::new(options, spec(&topic, 4)), &sent);
    let output = tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            &shared_servers().join(","),
            "--topic",
            &topic.name,
            "--from-beginning",
            "--max-messages",
            "30",
            "--timeout-ms",
            "30000",
            "--property",
            "print.key=true",
            "--property",
            "print.partition=true",
            "--property",
            "print.timestamp=true",
        ],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let year_2020 = 1_577_836_800_000_i64;
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [time, partition, key, value] = fields.as_slice() else { panic!("{line}") };
        assert!(time.strip_prefix("CreateTime:").unwrap().parse::<i64>().unwrap() > year_2020);
        assert_eq!(*partition, format!("Partition:{}", partition_for(key.as_bytes(), 4)));
        assert_eq!(*value, format!("{{\"website_id\":{key}}}"));
        keys.insert((*key).to_owned());
    }
    assert_eq!(keys.len(), 30, "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// How often each key is in the topic.
fn counts(options: &KafkaOptions, topic: &str) -> BTreeMap<Vec<u8>, usize> {
    let (found, _) = fetch_all(options, topic, 4, 1 << 20);
    let mut counts = BTreeMap::new();
    for record in found.into_values().flatten() {
        *counts.entry(record.key.unwrap().to_vec()).or_default() += 1;
    }
    counts
}

/// Publishes numbered records until asked to stop, each again until it is acknowledged; returns
/// how many there were and how many calls failed.
fn publish_for_ever(options: KafkaOptions, topic: TopicSpec, stop: &Stop) -> (usize, usize) {
    let mut publisher = Publisher::new(options, topic);
    let (mut next, mut failures) = (0, 0);
    let mut open: Vec<usize> = Vec::new();
    while !(stop.is_requested() && open.is_empty()) {
        if open.is_empty() {
            open.extend(next..next + 50);
            next += 50;
        }
        let keys: Vec<String> = open.iter().map(ToString::to_string).collect();
        let records: Vec<Record<'_>> =
            keys.iter().map(|key| Record { key: key.as_bytes(), value: b"v" }).collect();
        match publisher.publish(&records) {
            Ok(_) => open.clear(),
            Err(error) => {
                failures += 1;
                assert!(!error.is_permanent, "{error}");
                open = error.unacknowledged.iter().map(|index| open[*index]).collect();
                let _ = Stop::new().wait(Duration::from_millis(100));
            }
        }
    }
    (next, failures)
}

/// One own broker goes through it all, one after the other.
#[test]
fn a_broker_that_dies_or_freezes_loses_nothing_and_holds_nobody() {
    let mut own = OwnBroker::start(&[], &[], &[]);
    let options = own.options();
    let topic = TopicSpec { name: "faults".to_owned(), partitions: 4, replication_factor: 1 };

    let stop = Stop::new();
    let mut threads = Threads::new(stop.clone());
    let (done, result) = crossbeam_channel::bounded(1);
    let (opts, spec, until_stop) = (options.clone(), topic.clone(), stop.clone());
    threads
        .spawn("t-publish", move || {
            done.send(publish_for_ever(opts, spec, &until_stop)).unwrap();
        })
        .unwrap();
    let sum = || -> i64 {
        topics::end_offsets(&options, &topic.name).map_or(0, |ends| ends.values().sum())
    };
    until("records arrive", || sum() > 500);
    own.kill();
    assert!(topics::describe(&options, &topic.name).is_err(), "the broker is dead");
    own.restart();
    let after_restart = sum();
    until("records arrive again", || sum() > after_restart + 500);
    stop.request();
    let (sent, failures) = result.recv_timeout(broker::CAP).unwrap();
    assert!(threads.join(broker::CAP).is_empty());
    assert!(failures > 0, "the kill was noticed");
    let counts = counts(&options, &topic.name);
    assert_eq!(counts.len(), sent, "each record at least once");

    // Frozen: sockets accept and stay silent.
    let mut publisher = Publisher::new(options.clone(), topic.clone());
    let mut fetcher = Fetcher::new(options.clone(), &topic.name);
    publisher.publish(&[Record { key: b"k", value: b"v" }]).unwrap();
    let all: Vec<(i32, i64)> = (0..4).map(|partition| (partition, EARLIEST)).collect();
    fetcher.fetch(&all, WAIT, 1 << 20).unwrap();
    own.freeze();
    let within = |what: &str, limit: u64, work: &mut dyn FnMut() -> String| {
        let before = now().mono;
        let error = work();
        let took = now().mono - before;
        assert!(took < Duration::from_secs(limit), "{what} took {took:?}");
        assert!(error.contains("in time"), "{what}: {error}");
    };
    within("publish", 9, &mut || {
        publisher.publish(&[Record { key: b"k", value: b"v" }]).unwrap_err().cause
    });
    within("fetch", 9, &mut || fetcher.fetch(&[(0, 0)], WAIT, 1 << 20).unwrap_err().to_string());
    within("a new connection", 9, &mut || {
        topics::describe(&options, &topic.name).unwrap_err().to_string()
    });
    own.thaw();
    until("publishing works again", || {
        publisher.publish(&[Record { key: b"k", value: b"v" }]).is_ok()
    });
    until("fetching works again", || {
        let found: Vec<Fetched> = fetcher.fetch(&[(0, 0)], WAIT, 1 << 20).unwrap_or_default();
        !found.is_empty()
    });
}
