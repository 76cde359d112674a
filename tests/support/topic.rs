//! A lab's topic, filled by the test itself, and what its consumers say.

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, GroupId, OffsetFetchRequest, OffsetFetchResponse, ProduceRequest, ProduceResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records;
use webmon::check::{Check, Identity, Outcome};
use webmon::kafka::{Compression, KafkaOptions, Publisher, Record, TopicSpec};
use webmon::runtime::now;

use super::daemon::{Daemon, Lab};
use super::services::kafka_servers;

/// Sites whose checks are published; made with the topic.
const SITES: i64 = 100;

/// The topic and one publisher.
pub struct Topic {
    name: String,
    publisher: Publisher,
    partitions: i32,
    /// The first site's id.
    first: i64,
    /// Checks published so far.
    sent: i64,
    start_ms: i64,
}

impl Topic {
    /// Makes the topic, compressed by zstd, and sites; the tables must be there.
    pub fn new(lab: &Lab, partitions: i32) -> Self {
        let topic = TopicSpec { name: lab.topic.clone(), partitions, replication_factor: 1 };
        let options = options();
        super::eventually("the topic is made", || webmon::kafka::topics::ensure(&options, &topic));
        let first = "INSERT INTO website (name, url) SELECT 'lab' || n, 'http://lab/' \
                     FROM generate_series(1, $1::bigint) n RETURNING website_id";
        let rows = lab.database.client().query(first, &[&SITES]).expect("sites");
        let first = rows.iter().map(|row| row.get::<_, i64>(0)).min().expect("a site");
        let minute = 60_000;
        let start_ms = now().wall.as_millisecond() / minute * minute - 12 * 60 * minute;
        Self {
            name: lab.topic.clone(),
            publisher: Publisher::new(options, topic),
            partitions,
            first,
            sent: 0,
            start_ms,
        }
    }

    /// The `number`-th check of this topic: a due time of its site twelve hours ago, or later.
    pub fn check(&self, number: i64) -> Check<'static> {
        let (site, round) = (self.first + number % SITES, number / SITES);
        let due = jiff::Timestamp::from_millisecond(self.start_ms + round * 5000).expect("a time");
        let identity = Identity::new(site, "lab");
        Check {
            outcome: Outcome::Up,
            started_at: Some(due),
            response_time: Some(0.125),
            ..Check::empty(&identity, site, "http://lab/".to_owned(), "lab".to_owned(), due)
        }
    }

    /// Publishes `count` more checks; how many.
    pub fn publish_checks(&mut self, count: i64) -> i64 {
        let checks = self.sent..self.sent + count;
        self.sent += count;
        self.publish_numbers(checks);
        count
    }

    /// Publishes the first `count` checks once more.
    pub fn publish_again(&mut self, count: i64) {
        self.publish_numbers(0..count);
    }

    fn publish_numbers(&mut self, numbers: std::ops::Range<i64>) {
        let messages: Vec<(String, Vec<u8>)> = numbers
            .map(|number| {
                let check = self.check(number);
                let mut message = Vec::new();
                webmon::wire::encode(&check, &mut message);
                (check.website_id.to_string(), message)
            })
            .collect();
        self.publish(&messages);
    }

    /// Publishes messages by key, each exactly once.
    pub fn publish(&mut self, messages: &[(String, Vec<u8>)]) {
        let mut left: Vec<Record<'_>> =
            messages.iter().map(|(key, value)| Record { key: key.as_bytes(), value }).collect();
        super::eventually("all is published", || match self.publisher.publish(&left) {
            Ok(published) => {
                assert!(published.refused.is_empty(), "too large for the broker");
                Ok(())
            }
            Err(error) => {
                left = error.unacknowledged.iter().map(|i| left[*i]).collect();
                Err(error)
            }
        });
    }

    /// Publishes messages as one batch, however large they are unpacked, to the first partition.
    pub fn publish_packed(&mut self, messages: &[(String, Vec<u8>)]) {
        let records: Vec<records::Record> = (0..)
            .zip(messages)
            .map(|(n, (key, value))| records::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: records::TimestampType::Creation,
                offset: n,
                sequence: n as i32 - 1,
                timestamp: now().wall.as_millisecond(),
                key: Some(key.clone().into()),
                value: Some(value.clone().into()),
                headers: Default::default(),
            })
            .collect();
        let mut batch = bytes::BytesMut::new();
        let options =
            records::RecordEncodeOptions { version: 2, compression: records::Compression::Zstd };
        records::RecordBatchEncoder::encode(&mut batch, &records, &options).expect("a batch");
        let data = PartitionProduceData::default().with_index(0).with_records(Some(batch.freeze()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(self.name.clone())))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        let mut client = kafka::client::KafkaClient::new(kafka_servers());
        let answer: ProduceResponse = client
            .send_raw_protocol_request(ApiKey::Produce as i16, 9, &request)
            .expect("an answer");
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, 0, "the broker takes it");
    }

    /// What the consumers' group has committed of each partition that has an offset.
    pub fn committed(&self, lab: &Lab) -> Vec<i64> {
        let group = lab.env["WEBMON_KAFKA_CONSUMER_GROUP"].clone();
        let name = |text: &str| StrBytes::from_string(text.to_owned());
        let topic = OffsetFetchRequestTopic::default()
            .with_name(TopicName(name(&lab.topic)))
            .with_partition_indexes((0..self.partitions).collect());
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(name(&group)))
            .with_topics(Some(vec![topic]));
        let mut client = kafka::client::KafkaClient::new(kafka_servers());
        let key = ApiKey::OffsetFetch as i16;
        // The test services have one broker, so it is the coordinator.
        let answer: OffsetFetchResponse =
            client.send_raw_protocol_request(key, 7, &request).expect("committed offsets");
        let partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        partitions.map(|p| p.committed_offset).filter(|offset| *offset >= 0).collect()
    }
}

fn options() -> KafkaOptions {
    KafkaOptions {
        servers: kafka_servers(),
        client_id: "test".to_owned(),
        tls: None,
        sasl: None,
        compression: Compression::Zstd,
    }
}

/// The sum of a metric over its labels.
pub fn metric(daemon: &Daemon, name: &str) -> f64 {
    let (_, text) = daemon.get("/metrics");
    let values = text.lines().filter(|line| line.split([' ', '{']).next() == Some(name));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Log lines that hold `text`.
pub fn lines_with(daemon: &Daemon, text: &str) -> Vec<String> {
    daemon.log().into_iter().filter(|line| line.contains(text)).collect()
}
