//! One trip: check, publish, see it in the topic, find it in the table.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::cause::{self, Place};
use crate::check::Check;
use crate::cli::exit::Exit;
use crate::cli::ops_args::RoundTripArgs;
use crate::cli::options;
use crate::config::Settings;
use crate::kafka::{Fetcher, KafkaError, KafkaOptions, Publisher, Record, partition_for, topics};
use crate::probe::{ProbeOptions, Prober, Target};
use crate::runtime::{Stop, mono, now};
use crate::site::{INTERVAL_MAX_S, Site, SiteDefaults, SiteSpec};
use crate::store::{Created, SiteStatus, Store, StoredCheck};
use crate::wire;

/// The site that all of these checks belong to.
pub(in super::super) const SITE: &str = "webmon round-trip";
/// Its URL in the table: where the checks really go differs.
const SITE_URL: &str = "http://127.0.0.1/";
/// How often the table is asked: a small part of what the trip takes.
const LOOK: Duration = Duration::from_millis(20);
/// How long a leader waits for the message, which is there already.
const FETCH_WAIT: Duration = Duration::from_millis(200);
/// One batch comes in any case.
const FETCH_BYTES: i32 = 256 << 10;
/// Of the time of a trip, what the check itself may take.
const CHECK_SHARE: u32 = 2;

/// A leg that was made.
pub(super) struct Leg {
    pub(super) name: &'static str,
    pub(super) time: Duration,
    pub(super) note: String,
}

/// A trip that came back.
pub(super) struct Done {
    pub(super) url: String,
    pub(super) outcome: &'static str,
    id: Uuid,
    pub(super) legs: Vec<Leg>,
}

impl Done {
    /// The legs follow each other, so together they are the whole.
    pub(super) fn total(&self) -> Duration {
        self.legs.iter().map(|leg| leg.time).sum()
    }

    pub(super) fn json(&self) -> Value {
        let legs: Vec<Value> = self
            .legs
            .iter()
            .map(|leg| json!({ "leg": leg.name, "seconds": leg.time.as_secs_f64(), "note": leg.note }))
            .collect();
        json!({
            "check_entry_id": self.id.to_string(),
            "url": self.url,
            "outcome": self.outcome,
            "legs": legs,
            "total_seconds": self.total().as_secs_f64(),
        })
    }
}

/// All that the trips need.
pub(super) struct Trip<'a> {
    settings: &'a Settings,
    store: Store,
    kafka: KafkaOptions,
    publisher: Publisher,
    spec: SiteSpec,
    url: String,
    probe: ProbeOptions,
    limit: Duration,
    /// With the site's id, once the database has told it.
    ready: Option<(Prober, Target)>,
}

impl<'a> Trip<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        store: Store,
        url: String,
        args: &RoundTripArgs,
        is_own: bool,
    ) -> Result<Self, Exit> {
        let kafka = options::kafka(settings, "webmon-round-trip");
        let publisher = Publisher::new(kafka.clone(), options::topic(settings));
        let probe = options::probe(settings);
        let probe = if is_own {
            // What sites may not point at says nothing about the own page, nor does the network.
            ProbeOptions {
                allow_private_addresses: true,
                denied_addresses: Vec::new(),
                own_listeners: Vec::new(),
                connectivity: Vec::new(),
                ..probe
            }
        } else {
            probe
        };
        let probe = ProbeOptions { resolver_threads: 1, ..probe };
        let limit = Duration::from_secs(args.timeout.into());
        let timeout = settings.monitoring.timeout.min(args.timeout.div_ceil(CHECK_SHARE));
        let spec = SiteSpec {
            name: SITE.to_owned(),
            url: url.clone(),
            timeout: Some(timeout),
            ..SiteSpec::default()
        };
        let trip = Self { settings, store, kafka, publisher, spec, url, probe, limit, ready: None };
        // A URL that can't be checked is known before anything is asked.
        trip.site(0)?;
        Ok(trip)
    }

    fn site(&self, website_id: i64) -> Result<Site, Exit> {
        let defaults =
            SiteDefaults { interval: INTERVAL_MAX_S, timeout: self.settings.monitoring.timeout };
        self.spec.build(website_id, defaults).map_err(|faults| {
            let faults: Vec<String> =
                faults.iter().map(|fault| format!("webmon round-trip: {fault}")).collect();
            Exit::Usage(faults.join("\n"))
        })
    }

    /// One trip; nothing when the stop came first. A leg that is missing is [`Exit::Away`] with the
    /// cause.
    pub(super) fn make(&mut self, stop: &Stop) -> Option<Result<Done, Exit>> {
        match self.run(stop) {
            Ok(done) => done.map(Ok),
            Err(_) if stop.is_requested() => None,
            Err(exit) => Some(Err(exit)),
        }
    }

    fn prepare(&mut self) -> Result<(), Exit> {
        if self.ready.is_some() {
            return Ok(());
        }
        let website_id = website_id(&self.store)?;
        let prober = Prober::new(self.probe.clone())
            .map_err(|error| Exit::Failed(format!("webmon round-trip: {error}")))?;
        let target = Target::new(self.site(website_id)?, self.settings.monitoring.region.clone());
        self.ready = Some((prober, target));
        Ok(())
    }

    fn run(&mut self, stop: &Stop) -> Result<Option<Done>, Exit> {
        self.prepare()?;
        let (partitions, mut legs) = (self.partitions()?, Vec::new());
        let Some((prober, target)) = &self.ready else { return Ok(None) };
        let begin = mono();
        let mut last = begin;
        let mut leg = |name: &'static str, note: String| {
            let at = mono();
            legs.push(Leg { name, time: at - std::mem::replace(&mut last, at), note });
        };
        // Whole milliseconds, as every due time.
        let due = Timestamp::from_millisecond(now().wall.as_millisecond()).unwrap_or_default();
        let check = prober.check(target, due);
        leg("checked", String::new());

        let key = check.website_id.to_string();
        let partition = partition_for(key.as_bytes(), partitions);
        let before = self.end_of(partition)?;
        let mut message = Vec::new();
        wire::encode(&check, &mut message);
        let record = Record { key: key.as_bytes(), value: &message };
        self.publisher.publish(&[record]).map_err(|error| {
            Exit::Away(format!(
                "leg 'published' is missing: Kafka did not take it: {}",
                error.cause
            ))
        })?;
        leg("published and acknowledged", format!("partition {partition}"));

        let end = begin + self.limit;
        let offset = self.find_in_topic(&check, partition, before, end, stop)?;
        let Some(offset) = offset else { return Ok(None) };
        leg("seen in the topic", format!("offset {offset}"));

        let place = Place { topic: self.settings.kafka.topic.clone(), partition, offset };
        let Some(found) = self.find_in_table(&check, &place, end, stop)? else { return Ok(None) };
        leg("stored and found", format!("website_id {}", found.website_id));
        let outcome = check.outcome.as_str();
        Ok(Some(Done { url: self.url.clone(), outcome, id: check.check_entry_id, legs }))
    }

    /// How many partitions the topic has.
    fn partitions(&self) -> Result<i32, Exit> {
        let topic = &self.settings.kafka.topic;
        match topics::describe(&self.kafka, topic) {
            Ok(Some(found)) => Ok(i32::try_from(found.partitions.len()).unwrap_or(i32::MAX)),
            Ok(None) => {
                let cure = cause::local_bus(&self.store).unwrap_or_else(|| {
                    "start a daemon, which makes it, or run 'webmon topic create'".to_owned()
                });
                Err(Exit::Away(format!(
                    "leg 'published' is missing: there is no topic {topic}; {cure}"
                )))
            }
            Err(error) => {
                let exit = unreachable(&error);
                Err(match cause::local_bus(&self.store) {
                    Some(why) => exit.with(&why),
                    None => exit,
                })
            }
        }
    }

    fn end_of(&self, partition: i32) -> Result<i64, Exit> {
        let ends = topics::end_offsets(&self.kafka, &self.settings.kafka.topic);
        let ends = ends.map_err(|error| unreachable(&error))?;
        Ok(ends.get(&partition).copied().unwrap_or(0))
    }

    /// The offset of the check's message, which is at or behind `from`.
    fn find_in_topic(
        &self,
        check: &Check<'_>,
        partition: i32,
        from: i64,
        end: Duration,
        stop: &Stop,
    ) -> Result<Option<i64>, Exit> {
        let mut fetcher = Fetcher::new(self.kafka.clone(), &self.settings.kafka.topic);
        let mut next = from;
        while !stop.is_requested() {
            let fetched = fetcher.fetch(&[(partition, next)], FETCH_WAIT, FETCH_BYTES);
            for part in fetched.map_err(|error| unreachable(&error))? {
                let is_it = |value: &[u8]| {
                    wire::decode(value).is_ok_and(|it| it.check_entry_id == check.check_entry_id)
                };
                let found = part
                    .records
                    .iter()
                    .find(|record| record.value.as_deref().is_some_and(is_it))
                    .map(|record| record.offset);
                if found.is_some() {
                    return Ok(found);
                }
                next = part.next_offset;
            }
            if mono() >= end {
                return Err(Exit::Away(format!(
                    "leg 'seen in the topic' is missing: Kafka acknowledged the message, and \
                     partition {partition} does not show it from offset {from} on"
                )));
            }
        }
        Ok(None)
    }

    fn find_in_table(
        &self,
        check: &Check<'_>,
        place: &Place,
        end: Duration,
        stop: &Stop,
    ) -> Result<Option<StoredCheck>, Exit> {
        loop {
            let looked = self.store.find_check(check.check_entry_id);
            if let Ok(Some(found)) = looked {
                return Ok(Some(found));
            }
            if mono() >= end {
                let missing = cause::of_not_stored(self.settings, &self.kafka, &self.store, place);
                let seconds = self.limit.as_secs();
                return Err(Exit::Away(format!(
                    "leg 'stored and found' is missing after {seconds} s: {missing}"
                )));
            }
            if stop.wait(LOOK) {
                return Ok(None);
            }
        }
    }
}

fn unreachable(error: &KafkaError) -> Exit {
    Exit::Away(format!("leg 'published' is missing: Kafka is away: {error}"))
}

/// The id of the site that these checks belong to, made when absent.
fn website_id(store: &Store) -> Result<i64, Exit> {
    let away = |error| {
        let exit = Exit::of_store(&error);
        match exit {
            Exit::Away(_) => Exit::Away(format!(
                "leg 'stored and found' is missing: the database is away: {error}"
            )),
            other => other,
        }
    };
    if let Some(site) = store.site_named(SITE).map_err(away)?
        && site.status != SiteStatus::Deleted
    {
        return Ok(site.website_id);
    }
    let spec = SiteSpec { name: SITE.to_owned(), url: SITE_URL.to_owned(), ..SiteSpec::default() };
    match store.create_site(&spec, SiteStatus::Paused).map_err(away)? {
        Created::Done(site) => Ok(site.website_id),
        // Another of these commands was quicker.
        Created::NameTaken(website_id) => Ok(website_id),
    }
}
