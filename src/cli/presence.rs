//! A daemon's own row of the table `daemon`, renewed every few seconds, for `webmon status`.
//!
//! Nothing waits for it: a database that is away costs a try now and then, and while the row is
//! not renewed everybody sees how old it is.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::consumer::ConsumerView;
use crate::producer::ProducerView;
use crate::runtime::{Backoff, Stop, Threads, now};
use crate::store::{Daemon as Row, DaemonRow, Store};
use crate::telemetry::{ByLane, health, metrics};
use crate::wire::time_text;

/// How often the row is renewed.
const EVERY: Duration = Duration::from_secs(5);
/// The first pause after a failed try; the tables may be made at this moment.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Time for taking leave: a call that a frozen database never answers is left behind.
const LEAVING: Duration = Duration::from_secs(3);

/// What a daemon can tell of, beside its health.
#[derive(Clone, Debug, Default)]
pub(super) struct Views {
    pub(super) producer: Option<ProducerView>,
    pub(super) consumer: Option<ConsumerView>,
    /// Whether results go through Kafka; absent where none go anywhere.
    pub(super) bus: Option<&'static str>,
}

impl Views {
    fn facts(&self) -> Map<String, Value> {
        let metrics = metrics();
        let mut facts = Map::new();
        let mut fact = |name: &str, value: Value| drop(facts.insert(name.to_owned(), value));
        if let Some(bus) = self.bus {
            fact("bus", json!(bus));
        }
        if let Some(producer) = &self.producer {
            let seen = producer.look();
            let lane = |lane| metrics.checks_queued.get_or_create(&ByLane { lane }).get();
            fact("sites", json!(metrics.sites.get()));
            fact("share", seen.share.map_or(Value::Null, |(part, of)| json!([part, of])));
            fact("queued", json!({ "fast": lane("fast"), "slow": lane("slow") }));
            fact("spool_records", json!(seen.spool_records));
            fact("spool_bytes", json!(seen.spool_bytes));
            fact("spool_oldest", json!(seen.spool_oldest.map(time_text)));
            fact("own_network_reachable", json!(metrics.own_network_reachable.get()));
        }
        if let Some(consumer) = &self.consumer {
            fact("partitions", json!(consumer.partitions()));
        }
        if self.consumer.is_some() || self.bus == Some("local") {
            fact("rows_inserted", json!(metrics.rows_inserted.get()));
        }
        let parts = health().parts().into_iter();
        let unwell: Map<String, Value> =
            parts.filter_map(|(part, why)| Some((part.to_owned(), json!(why?)))).collect();
        fact("unwell", Value::Object(unwell));
        fact("clock", json!(time_text(now().wall)));
        facts
    }
}

/// The first of the daemons that check or store, where all of those that run have the local bus:
/// then nobody needs Kafka.
pub(super) fn local_bus(rows: &[DaemonRow]) -> Option<&DaemonRow> {
    let is_local = |row: &&DaemonRow| {
        let facts: Value = serde_json::from_str(&row.daemon.facts).unwrap_or_default();
        facts["bus"] == "local"
    };
    let works = |row: &&DaemonRow| row.daemon.role != "api" && !row.is_late();
    let mut workers = rows.iter().filter(works).peekable();
    let first = workers.peek().copied();
    first.filter(|_| workers.all(|row| is_local(&row)))
}

/// The thread that renews the row.
#[derive(Debug)]
pub(super) struct Presence {
    gone: Stop,
    threads: Threads,
}

impl Presence {
    /// Starts the thread; the database doesn't have to be there.
    pub(super) fn start(
        role: &'static str,
        region: Option<&str>,
        store: &Store,
        views: Views,
    ) -> std::io::Result<Self> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let started_at = now().wall;
        let row = Row {
            daemon_id: id(&format!("{role} {host} {pid} {}", started_at.as_nanosecond())),
            role: role.to_owned(),
            host,
            pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            region: region.map(str::to_owned),
            started_at,
            facts: String::new(),
        };
        // Its own stop: this thread's end is no reason to end the daemon.
        let gone = Stop::new();
        let mut threads = Threads::new(gone.clone());
        let (their_stop, store) = (gone.clone(), store.clone());
        threads.spawn("presence", move || renew(row, &store, &views, &their_stop))?;
        Ok(Self { gone, threads })
    }

    /// Removes the row, if the database takes that at once.
    pub(super) fn end(self) {
        self.gone.request();
        let _ = self.threads.join(LEAVING);
    }
}

fn renew(mut row: Row, store: &Store, views: &Views, gone: &Stop) {
    let mut backoff = Backoff::new(RETRY_FIRST, EVERY);
    let mut was_told = None;
    loop {
        row.facts = Value::Object(views.facts()).to_string();
        let told = store.renew_daemon(&row);
        if was_told != Some(told.is_ok()) {
            let cause = told.as_ref().map_or_else(ToString::to_string, |()| "renewed".to_owned());
            log::debug!(cause = cause.as_str(); "this daemon's row");
        }
        was_told = Some(told.is_ok());
        let delay = if told.is_ok() {
            backoff.reset();
            EVERY
        } else {
            backoff.next_delay()
        };
        if gone.wait(delay) {
            break;
        }
    }
    if was_told == Some(true)
        && let Err(error) = store.remove_daemon(row.daemon_id)
    {
        log::debug!(cause = error.to_string().as_str(); "this daemon's row stays");
    }
}

/// A UUID of one's own making (version 8) from what no other process shares.
fn id(from: &str) -> Uuid {
    let digest = Sha256::digest(from);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
