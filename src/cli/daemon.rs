//! The two daemons.

use super::args::{ConsumerArgs, ProducerArgs};
use super::exit::Exit;
use super::presence::{Presence, Views};
use super::{options, output};
use crate::config::{Loaded, Origin, Sink};
use crate::consumer::Consumer;
use crate::producer::{KafkaDelivery, Producer};
use crate::runtime::{Stop, Threads, stop_on_signals};
use crate::store::Store;
use crate::telemetry::{self, Role, listener, logs};

pub(super) fn producer(args: &ProducerArgs) -> Result<(), Exit> {
    let flags = args.interval.iter().map(|i| ("monitoring.interval", i.as_str()));
    let loaded = options::load(&args.common, flags)?;
    if args.check_config {
        return output::line("the configuration is good");
    }
    let settings = &loaded.settings;
    telemetry::show_only(Role::Producer);
    let mut daemon = Daemon::start("producer", &loaded, settings.producer.listen)?;
    let store = options::store_unasked(settings, "webmon-producer")?;
    let (kafka, topic) = (options::kafka(settings, "webmon-producer"), options::topic(settings));
    let delivery = Box::new(KafkaDelivery::new(kafka, topic));
    let producer =
        Producer::start(options::producer(settings), store.clone(), delivery, &daemon.stop)
            .map_err(|error| Exit::of_producer("producer", &error))?;
    let view = Some(producer.view());
    let views = Views { producer: view, bus: Some("kafka"), ..Views::default() };
    daemon.tell("producer", Some(&settings.monitoring.region), &store, views)?;
    producer.run_until_stopped();
    daemon.end();
    Ok(())
}

pub(super) fn consumer(args: &ConsumerArgs) -> Result<(), Exit> {
    let flags = args.sink.iter().map(|s| ("consumer.sinks", s.as_str()));
    let loaded = options::load(&args.common, flags)?;
    if args.check_config {
        return output::line("the configuration is good");
    }
    let settings = &loaded.settings;
    telemetry::show_only(Role::Consumer);
    let mut daemon = Daemon::start("consumer", &loaded, settings.consumer.listen)?;
    let store = options::store_unasked(settings, "webmon-consumer")?;
    let consumer = Consumer::start(options::consumer(settings), &store, &daemon.stop)
        .map_err(|error| Exit::of_consumer("consumer", &error))?;
    // Who only shows results leaves no trace.
    if settings.consumer.sinks.contains(&Sink::Postgres) {
        let view = Some(consumer.view());
        let views = Views { consumer: view, bus: Some("kafka"), ..Views::default() };
        daemon.tell("consumer", None, &store, views)?;
    }
    let ended = consumer.run_until_stopped();
    daemon.end();
    ended.map_err(|error| Exit::of_consumer("consumer", &error))
}

/// What every long-running command has around it: logs, signals, the listener.
pub(super) struct Daemon {
    pub(super) stop: Stop,
    name: &'static str,
    /// The listener answers to its own stop: it tells how the daemon ends, until it has.
    quiet: Stop,
    listener: Threads,
    presence: Option<Presence>,
}

impl Daemon {
    /// Logs, signals and the listener.
    pub(super) fn start(
        name: &'static str,
        loaded: &Loaded,
        listen: std::net::SocketAddr,
    ) -> Result<Self, Exit> {
        let mut daemon = Self::prepare(name, loaded)?;
        let address = listener::serve(listen, &mut daemon.listener, daemon.quiet.clone())
            .map_err(|error| Exit::of_listener(name, &error))?;
        daemon.announce(loaded, address);
        Ok(daemon)
    }

    /// Logs and signals alone, for a daemon with a listener of its own.
    pub(super) fn prepare(name: &'static str, loaded: &Loaded) -> Result<Self, Exit> {
        logs::init(options::logs(&loaded.settings));
        let (stop, quiet) = (Stop::new(), Stop::new());
        stop_on_signals(&stop)
            .map_err(|error| Exit::Failed(format!("{name}: cannot handle signals: {error}")))?;
        let listener = Threads::new(stop.clone());
        Ok(Self { stop, name, quiet, listener, presence: None })
    }

    /// Says that it runs, and where it listens.
    pub(super) fn announce(&self, loaded: &Loaded, address: std::net::SocketAddr) {
        let file = loaded.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
        log::info!(version = env!("CARGO_PKG_VERSION"), config = file.as_str(),
            listen = address.to_string().as_str(); "{} started", self.name);
    }

    /// From now on this process has its row in the table `daemon`.
    pub(super) fn tell(
        &mut self,
        role: &'static str,
        region: Option<&str>,
        store: &Store,
        views: Views,
    ) -> Result<(), Exit> {
        let started = Presence::start(role, region, store, views).map_err(|error| {
            Exit::Failed(format!("{}: cannot start a thread: {error}", self.name))
        })?;
        self.presence = Some(started);
        Ok(())
    }

    /// After everything else has ended.
    pub(super) fn end(self) {
        if let Some(presence) = self.presence {
            presence.end();
        }
        self.quiet.request();
        let _ = self.listener.join(std::time::Duration::from_secs(2));
        log::info!("{} stopped", self.name);
    }
}

/// Logs for a command that answers and ends: only what an operator must know, unless somebody asked
/// for more than the file does.
pub(super) fn quiet_logs(loaded: &Loaded) {
    let mut logs = options::logs(&loaded.settings);
    let level = loaded.origins.iter().find(|setting| setting.key == "log.level");
    let is_asked = level
        .is_some_and(|setting| !matches!(setting.origin, Origin::Default | Origin::File { .. }));
    if !is_asked {
        logs.level = logs.level.min(log::LevelFilter::Warn);
    }
    logs::init(logs);
}
