//! The publisher thread: from the spool to the bus, and the cursor behind it.

use std::time::Duration;

use super::recorder::split;
use crate::kafka::{KafkaOptions, Publisher, Record, TopicSpec, topics};
use crate::runtime::{Backoff, Stop, Threads};
use crate::spool::Spool;
use crate::telemetry::{ByReason, health, metrics};

/// Most records of one batch.
const BATCH_RECORDS: usize = 1000;
/// Most bytes of one batch: half of Kafka's usual limit of a request.
const BATCH_BYTES: usize = 512 * 1024;
/// How long results wait for others before a request, unless a batch is full: a request costs
/// about the same for one result as for a hundred. With the consumer's part a result is still a
/// row well within a second of its check.
const LINGER: Duration = Duration::from_millis(200);
/// How long to wait for records before looking at the stop again.
const IDLE: Duration = Duration::from_millis(500);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// One result on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its number in the spool; never used twice.
    pub seq: u64,
    /// The site: the key of the message.
    pub website_id: i64,
    /// The message.
    pub message: &'a [u8],
}

/// What could not be delivered now.
#[derive(Debug)]
pub struct Undelivered {
    /// Indexes into what was to be delivered.
    pub remaining: Vec<usize>,
    /// How many of the others can never be delivered.
    pub refused: usize,
    /// Why, on one line.
    pub reason: String,
}

/// Where results go.
pub trait Delivery: Send {
    /// The part of the process's health that this is.
    fn part(&self) -> &'static str;

    /// Makes ready what deliveries need, such as the topic, so that it is known at the start
    /// whether the other side is there.
    ///
    /// # Errors
    /// Why it is not, on one line; to be tried again later.
    fn prepare(&mut self) -> Result<(), String>;

    /// Delivers all of `results`, or says which are left. A result that can never be delivered
    /// is logged here and not among those left; the answer is how many there are.
    ///
    /// # Errors
    /// [`Undelivered`], to be tried again later.
    fn deliver(&mut self, results: &[Outgoing<'_>]) -> Result<usize, Undelivered>;
}

pub(super) fn start(
    spool: Spool,
    mut delivery: Box<dyn Delivery>,
    drained: &Stop,
    threads: &mut Threads,
) -> std::io::Result<()> {
    let drained = drained.clone();
    threads.spawn("publisher", move || publish(&spool, delivery.as_mut(), &drained))
}

/// Until the stop, and then until the spool is empty or the bus refuses.
fn publish(spool: &Spool, delivery: &mut dyn Delivery, drained: &Stop) {
    prepare(delivery, drained);
    let mut cursor = spool.cursor();
    loop {
        let has_more =
            spool.wait(cursor, if drained.is_requested() { Duration::ZERO } else { IDLE });
        if !has_more {
            if drained.is_requested() {
                return;
            }
            continue;
        }
        if spool.unread(cursor) < BATCH_RECORDS as u64 {
            // A stop ends the wait, and what is there goes at once.
            let _ = drained.wait(LINGER);
        }
        let records = match spool.read(cursor, BATCH_RECORDS, BATCH_BYTES) {
            Ok(records) => records,
            Err(error) => {
                // The committer finds the same fault, logs it once and sets the spool's health.
                log::debug!(cause = error.to_string().as_str(); "spool cannot be read");
                if drained.wait(RETRY_CAP) {
                    return;
                }
                continue;
            }
        };
        let Some(last) = records.last().map(|(seq, _)| *seq) else { continue };
        if !deliver_all(spool, &records, delivery, drained) {
            return;
        }
        if let Err(error) = spool.acknowledge(last) {
            log::error!(cause = error.to_string().as_str(); "spool cannot move its cursor");
        }
        cursor = last;
    }
}

/// Until the other side is there, or has something waiting for it that says the same.
fn prepare(delivery: &mut dyn Delivery, drained: &Stop) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    while let Err(reason) = delivery.prepare() {
        if health().unwell(delivery.part(), reason.as_str()) {
            log::warn!(part = delivery.part(), reason = reason.as_str(); "results wait in the spool");
        }
        if drained.wait(backoff.next_delay()) {
            return;
        }
    }
    health().well(delivery.part());
}

/// Delivers a batch whole, whatever it takes; `false` when the stop came first.
fn deliver_all(
    spool: &Spool,
    records: &[(u64, Vec<u8>)],
    delivery: &mut dyn Delivery,
    drained: &Stop,
) -> bool {
    let mut results: Vec<Outgoing<'_>> = Vec::with_capacity(records.len());
    for (seq, record) in records {
        match split(record) {
            Some((website_id, message)) => {
                results.push(Outgoing { seq: *seq, website_id, message });
            }
            None => {
                let reason = "malformed";
                metrics().publish_refused.get_or_create(&ByReason { reason }).inc();
                log::error!(seq; "spool holds a record that is none of webmon's, skipped");
            }
        }
    }
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        let wanted = results.len();
        match delivery.deliver(&results) {
            Ok(refused) => {
                metrics().published.inc_by(wanted.saturating_sub(refused) as u64);
                if health().well(delivery.part()) {
                    log::info!(part = delivery.part(); "delivering results");
                }
                return true;
            }
            Err(Undelivered { remaining, refused, reason }) => {
                metrics().publish_failures.inc();
                let gone = wanted.saturating_sub(remaining.len());
                metrics().published.inc_by(gone.saturating_sub(refused) as u64);
                results = remaining.iter().filter_map(|i| results.get(*i).copied()).collect();
                let delay = backoff.next_delay();
                // One failed try is no outage: leaders move.
                if backoff.tries() > 1 && health().unwell(delivery.part(), reason.as_str()) {
                    log::warn!(part = delivery.part(), reason = reason.as_str();
                        "results wait in the spool");
                }
                // At the stop one more try was enough: what is left is safe in the spool.
                if drained.is_requested() || drained.wait(delay) {
                    let (results, bytes) = spool.depth();
                    log::warn!(results, bytes; "stopped with results in the spool");
                    return false;
                }
            }
        }
    }
}

/// Delivery into a Kafka topic, keyed by site.
#[derive(Debug)]
pub struct KafkaDelivery {
    publisher: Publisher,
    options: KafkaOptions,
    topic: TopicSpec,
}

impl KafkaDelivery {
    /// Nothing is connected before the first delivery.
    #[must_use]
    pub fn new(options: KafkaOptions, topic: TopicSpec) -> Self {
        Self { publisher: Publisher::new(options.clone(), topic.clone()), options, topic }
    }
}

impl Delivery for KafkaDelivery {
    fn part(&self) -> &'static str {
        "kafka"
    }

    fn prepare(&mut self) -> Result<(), String> {
        topics::ensure(&self.options, &self.topic).map(drop).map_err(|error| error.to_string())
    }

    fn deliver(&mut self, results: &[Outgoing<'_>]) -> Result<usize, Undelivered> {
        let keys: Vec<String> = results.iter().map(|r| r.website_id.to_string()).collect();
        let records: Vec<Record<'_>> = results
            .iter()
            .zip(&keys)
            .map(|(result, key)| Record { key: key.as_bytes(), value: result.message })
            .collect();
        let (refused, answer) = match self.publisher.publish(&records) {
            Ok(published) => {
                let count = published.refused.len();
                (published.refused, Ok(count))
            }
            Err(error) => {
                let (reason, refused) = (error.to_string(), error.refused.len());
                let remaining = error.unacknowledged;
                (error.refused, Err(Undelivered { remaining, refused, reason }))
            }
        };
        for result in refused.into_iter().filter_map(|index| results.get(index)) {
            let reason = "too_large";
            metrics().publish_refused.get_or_create(&ByReason { reason }).inc();
            log::error!(website_id = result.website_id, bytes = result.message.len();
                "the broker refuses a result as too large, given up");
        }
        answer
    }
}
