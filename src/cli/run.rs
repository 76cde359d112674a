//! `run`: producer, consumer and API in one process.

use std::net::SocketAddr;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::api::Server;
use super::args::{Bus, CommonArgs, RunArgs};
use super::daemon::Daemon;
use super::exit::Exit;
use super::options;
use super::presence::Views;
use crate::config::Settings;
use crate::consumer::{Consumer, Ingest, Maintenance, Message, Sinks};
use crate::producer::{Delivery, KafkaDelivery, Outgoing, Producer, ProducerOptions, Undelivered};
use crate::runtime::{Stop, Threads, now};
use crate::store::Store;

/// Time for the consumer's, or the maintenance thread's, orderly end.
const CLOSING: Duration = Duration::from_secs(30);
const NAME: &str = "webmon run";

pub(super) fn run(common: &CommonArgs, args: &RunArgs) -> Result<(), Exit> {
    let flags = args.interval.iter().map(|i| ("monitoring.interval", i.as_str()));
    let loaded = options::load(common, flags)?;
    let settings = &loaded.settings;
    let mut daemon = Daemon::start(NAME, &loaded, settings.producer.listen)?;
    let store = options::store_unasked(settings, "webmon-run")?;
    let server = match args.no_api {
        true => None,
        false => Some(Server::start(NAME, settings, &store, &daemon.stop)?),
    };
    // Whoever adds a site must not have us check ourselves.
    let own = server.as_ref().map(|server| server.address);
    let result = match args.bus {
        Bus::Kafka => through_kafka(settings, &store, own, &mut daemon),
        Bus::Local => locally(settings, &store, own, &mut daemon),
    };
    if let Some(server) = server {
        daemon.stop.request();
        server.end();
    }
    result?;
    daemon.end();
    Ok(())
}

fn with_own(mut options: ProducerOptions, own: Option<SocketAddr>) -> ProducerOptions {
    options.probe.own_listeners.extend(own);
    options
}

fn failed(error: impl std::fmt::Display) -> Exit {
    Exit::Failed(format!("{NAME}: {error}"))
}

/// The producer stops first; what the consumer does not get to then stays in the topic. When the
/// consumer ends by itself, everything does.
fn through_kafka(
    settings: &Settings,
    store: &Store,
    own: Option<SocketAddr>,
    daemon: &mut Daemon,
) -> Result<(), Exit> {
    let stop = &daemon.stop.clone();
    let consuming = Stop::new();
    let consumer = Consumer::start(options::consumer(settings), store, &consuming)
        .map_err(|error| Exit::of_consumer(NAME, &error))?;
    let view = Some(consumer.view());
    let (tell, outcome) = bounded(1);
    let mut watching = Threads::new(stop.clone());
    let everything = stop.clone();
    watching
        .spawn("consumer", move || {
            // Has room: it is told once.
            let _ = tell.send(consumer.run_until_stopped());
            everything.request();
        })
        .map_err(failed)?;
    let kafka = options::kafka(settings, "webmon-run");
    let delivery = Box::new(KafkaDelivery::new(kafka, options::topic(settings)));
    let options = with_own(options::producer(settings), own);
    let started = Producer::start(options, store.clone(), delivery, stop);
    let result = match started {
        Ok(producer) => {
            let views =
                Views { producer: Some(producer.view()), consumer: view, bus: Some("kafka") };
            let told = tell_of(settings, store, daemon, views);
            producer.run_until_stopped();
            told
        }
        Err(error) => Err(Exit::of_producer(NAME, &error)),
    };
    consuming.request();
    let _ = watching.join(CLOSING);
    let ended = outcome.try_recv().unwrap_or(Ok(()));
    result.and(ended.map_err(|error| Exit::of_consumer(NAME, &error)))
}

/// The process's row in the table `daemon`. Where the thread for it can't be started everything
/// ends, in its order.
fn tell_of(
    settings: &Settings,
    store: &Store,
    daemon: &mut Daemon,
    views: Views,
) -> Result<(), Exit> {
    let told = daemon.tell("run", Some(&settings.monitoring.region), store, views);
    if told.is_err() {
        daemon.stop.request();
    }
    told
}

fn locally(
    settings: &Settings,
    store: &Store,
    own: Option<SocketAddr>,
    daemon: &mut Daemon,
) -> Result<(), Exit> {
    let stop = &daemon.stop.clone();
    let maintenance =
        Maintenance::start(store.clone(), options::maintenance(settings), stop).map_err(failed)?;
    let sinks = Sinks { postgres: true, console: false };
    // Rejected messages are filed by topic, partition and offset: machine and time keep those of
    // two such processes, or of two spools, apart.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let topic = format!("local:{host}:{}", now().wall.as_microsecond());
    let ingest = Ingest::new(sinks, store.clone(), &topic);
    let delivery = Box::new(LocalDelivery { store: store.clone(), ingest });
    let lone = with_own(options::lone_producer(settings), own);
    let producer = Producer::start(lone, store.clone(), delivery, stop)
        .map_err(|error| Exit::of_producer(NAME, &error))?;
    let view = Some(producer.view());
    let views = Views { producer: view, bus: Some("local"), ..Views::default() };
    let told = tell_of(settings, store, daemon, views);
    producer.run_until_stopped();
    let late = maintenance.join(CLOSING);
    if !late.is_empty() {
        log::warn!(threads = late.join(","); "threads did not end in time");
    }
    told
}

/// Delivery straight into the database.
struct LocalDelivery {
    store: Store,
    ingest: Ingest,
}

impl Delivery for LocalDelivery {
    fn part(&self) -> &'static str {
        "delivery"
    }

    fn prepare(&mut self) -> Result<(), String> {
        self.store.ping().map_err(|error| error.to_string())
    }

    fn deliver(&mut self, results: &[Outgoing<'_>]) -> Result<usize, Undelivered> {
        let messages: Vec<Message<'_>> = results
            .iter()
            .map(|result| Message {
                partition: 0,
                offset: i64::try_from(result.seq).unwrap_or(i64::MAX),
                payload: result.message,
                fault: None,
            })
            .collect();
        self.ingest.save(&messages).map(|()| 0).map_err(|error| Undelivered {
            remaining: (0..results.len()).collect(),
            refused: 0,
            reason: error.to_string(),
        })
    }
}
