//! Settings into each room's own options.

use std::io::IsTerminal;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::args::CommonArgs;
use super::exit::Exit;
use super::password;
use crate::api::{AccessOptions, Limits, Role, Token};
use crate::config::{self, ApiToken, LogFormat, SaslMechanism, Settings, Sink, Sources, SslMode};
use crate::consumer::{ConsumerOptions, MaintenanceOptions, Sinks};
use crate::kafka::{self, GroupOptions, KafkaOptions, SaslOptions, TlsFiles, TopicSpec};
use crate::probe::ProbeOptions;
use crate::producer::{ProducerOptions, Sharing};
use crate::spool::SpoolOptions;
use crate::store::{self, Store, StoreOptions};
use crate::telemetry::logs::LogOptions;

/// Members get this long to end a batch when the group changes.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Heartbeats: several fit into the shortest session, which is 6 s on an unchanged broker.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Most threads for look-ups. A look-up that hangs outlives its check, so there are two for each
/// check that can be under way; their stacks of 256 KiB are touched only when used.
const RESOLVER_THREADS_MAX: usize = 256;

/// The configuration with what was typed on top, or all its faults.
pub(super) fn load<'a>(
    common: &'a CommonArgs,
    flags: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<config::Loaded, Exit> {
    let mut sources = sources(common, flags);
    if common.ask_password {
        password::ask_for_all(&mut sources)?;
    }
    config::load(&sources).map_err(|faults| Exit::Usage(faults.to_string()))
}

/// Everything that the configuration is made of.
pub(super) fn sources<'a>(
    common: &'a CommonArgs,
    flags: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Sources {
    let typed = [("log.level", &common.log_level), ("log.format", &common.log_format)];
    let passwords = [
        (password::DATABASE, &common.database_password),
        (password::KAFKA, &common.kafka_password),
    ];
    let passwords = passwords
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?.expose_secret())));
    let flags = typed
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
        .chain(passwords)
        .chain(flags)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Sources::from_process(common.config.clone(), common.env_file.clone(), flags)
}

pub(super) fn logs(settings: &Settings) -> LogOptions {
    LogOptions { level: settings.log.level, json: settings.log.format == LogFormat::Json }
}

/// The store of a command that answers and ends: where the server wants a password, none is set
/// and somebody sits at a terminal, it is asked for once.
pub(super) fn store(settings: &Settings, application_name: &str) -> Result<Store, Exit> {
    let store = store_unasked(settings, application_name)?;
    if settings.database.password.is_some()
        || !std::io::stdin().is_terminal()
        || !store.ping().is_err_and(|error| error.wants_password())
    {
        return Ok(store);
    }
    let mut settings = settings.clone();
    let typed = password::ask(&password::database(&settings.database))?;
    settings.database.password = Some(typed.into());
    store_unasked(&settings, application_name)
}

/// The store as configured.
pub(super) fn store_unasked(settings: &Settings, application_name: &str) -> Result<Store, Exit> {
    store_within(settings, application_name, store::Limits::default())
}

/// With limits of one's own.
pub(super) fn store_within(
    settings: &Settings,
    application_name: &str,
    limits: store::Limits,
) -> Result<Store, Exit> {
    let database = &settings.database;
    let options = StoreOptions {
        host: database.host.clone(),
        port: database.port,
        db: database.db.clone(),
        user: database.user.clone(),
        password: database.password.clone(),
        pool: database.pool,
        ssl: store::SslOptions {
            mode: match database.ssl.mode {
                SslMode::Disable => store::SslMode::Disable,
                SslMode::Prefer => store::SslMode::Prefer,
                SslMode::Require => store::SslMode::Require,
                SslMode::VerifyCa => store::SslMode::VerifyCa,
                SslMode::VerifyFull => store::SslMode::VerifyFull,
            },
            cafile: database.ssl.cafile.clone(),
            certfile: database.ssl.certfile.clone(),
            keyfile: database.ssl.keyfile.clone(),
        },
        application_name: application_name.to_owned(),
        // Whoever names sites of their own wants no others.
        sample_sites: settings.websites.is_empty(),
    };
    Store::with_limits(options, limits)
        .map_err(|error| Exit::Usage(format!("{application_name}: {error}")))
}

pub(super) fn kafka(settings: &Settings, client_id: &str) -> KafkaOptions {
    let kafka = &settings.kafka;
    KafkaOptions {
        servers: kafka.servers.clone(),
        client_id: client_id.to_owned(),
        tls: kafka.ssl.as_ref().map(|ssl| TlsFiles {
            ca: ssl.cafile.clone(),
            cert: ssl.certfile.clone(),
            key: ssl.keyfile.clone(),
        }),
        sasl: kafka.sasl.as_ref().map(|sasl| SaslOptions {
            mechanism: match sasl.mechanism {
                SaslMechanism::Plain => kafka::SaslMechanism::Plain,
                SaslMechanism::ScramSha256 => kafka::SaslMechanism::ScramSha256,
                SaslMechanism::ScramSha512 => kafka::SaslMechanism::ScramSha512,
            },
            user: sasl.user.clone(),
            password: sasl.password.clone(),
        }),
        compression: match kafka.compression {
            config::Compression::None => kafka::Compression::None,
            config::Compression::Lz4 => kafka::Compression::Lz4,
            config::Compression::Zstd => kafka::Compression::Zstd,
        },
    }
}

pub(super) fn topic(settings: &Settings) -> TopicSpec {
    TopicSpec {
        name: settings.kafka.topic.clone(),
        partitions: settings.kafka.partitions,
        replication_factor: settings.kafka.replication_factor,
    }
}

fn group(settings: &Settings, group: String, instance_id: Option<String>) -> GroupOptions {
    GroupOptions {
        group,
        topic: settings.kafka.topic.clone(),
        topic_when_absent: Some(topic(settings)),
        instance_id,
        session_timeout: settings.kafka.session_timeout,
        rebalance_timeout: REBALANCE_TIMEOUT,
        heartbeat_interval: HEARTBEAT,
    }
}

pub(super) fn probe(settings: &Settings) -> ProbeOptions {
    let monitoring = &settings.monitoring;
    ProbeOptions {
        region: monitoring.region.clone(),
        user_agent: monitoring.user_agent.clone(),
        max_body: usize::try_from(monitoring.max_body).unwrap_or(usize::MAX),
        max_redirects: monitoring.max_redirects,
        allow_private_addresses: monitoring.allow_private_addresses,
        allowed_addresses: monitoring.allowed_addresses.clone(),
        denied_addresses: monitoring.denied_addresses.clone(),
        // Where the API is served, `api.listen` comes to these; elsewhere another program may be on
        // its default.
        own_listeners: vec![settings.producer.listen, settings.consumer.listen],
        resolver_threads: RESOLVER_THREADS_MAX
            .min((settings.producer.threads + settings.producer.slow_threads) * 2),
        connectivity: monitoring.connectivity.clone(),
        dns_cache: monitoring.dns_cache,
        secrets_dir: monitoring.secrets_dir.clone(),
        secret_variables: settings.secret_variables.clone(),
    }
}

/// The group of a region's producers.
pub(super) fn producers_group(region: &str) -> String {
    format!("webmon-producers.{region}")
}

/// A producer that shares the sites with others of its region through Kafka.
pub(super) fn producer(settings: &Settings) -> ProducerOptions {
    let name = producers_group(&settings.monitoring.region);
    let sharing =
        Sharing { kafka: kafka(settings, "webmon-producer"), group: group(settings, name, None) };
    ProducerOptions { sharing: Some(sharing), ..lone_producer(settings) }
}

/// A producer that owns all sites.
pub(super) fn lone_producer(settings: &Settings) -> ProducerOptions {
    let producer = &settings.producer;
    ProducerOptions {
        probe: probe(settings),
        spool: SpoolOptions {
            dir: producer.spool.dir.clone(),
            max_bytes: producer.spool.max_bytes,
            max_records: producer.spool.max_records,
            sync: producer.spool.sync,
        },
        threads: producer.threads,
        slow_threads: producer.slow_threads,
        per_address: producer.per_address,
        defaults: settings.monitoring.defaults(),
        websites: settings.websites.clone(),
        sharing: None,
    }
}

pub(super) fn consumer(settings: &Settings) -> ConsumerOptions {
    let consumer = &settings.consumer;
    let instance_id = settings.kafka.instance_id.clone();
    let mut name = settings.kafka.group.clone();
    if !consumer.sinks.contains(&Sink::Postgres) {
        // Who only looks must not take partitions, or offsets, from those who store.
        name.push_str(".console");
    }
    ConsumerOptions {
        kafka: kafka(settings, "webmon-consumer"),
        group: group(settings, name, instance_id),
        threads: consumer.threads,
        batch: consumer.batch,
        sinks: Sinks {
            postgres: consumer.sinks.contains(&Sink::Postgres),
            console: consumer.sinks.contains(&Sink::Console),
        },
        maintenance: maintenance(settings),
    }
}

/// Who may use the API.
pub(super) fn access(settings: &Settings) -> AccessOptions {
    let api = &settings.api;
    let token = |token: &ApiToken| {
        let role = Role::parse(&token.role)?;
        Some(Token { name: token.name.clone(), role, sha256: token.sha256 })
    };
    AccessOptions {
        tokens: api.tokens.iter().filter_map(token).collect(),
        hosts: api.hosts.clone(),
        cors_origins: api.cors_origins.clone(),
        rate_limit: api.rate_limit,
    }
}

/// How much the API's server takes.
pub(super) fn limits(settings: &Settings) -> Limits {
    let api = &settings.api;
    Limits {
        threads: api.threads,
        connections: api.connections,
        deadline: api.deadline,
        ..Limits::default()
    }
}

pub(super) fn maintenance(settings: &Settings) -> MaintenanceOptions {
    MaintenanceOptions {
        retention_days: settings.storage.retention_days,
        hourly_days: settings.storage.hourly_days,
        daily_days: settings.storage.daily_days,
        rejected_days: settings.storage.rejected_days,
        days_ahead: u16::try_from(settings.storage.days_ahead).unwrap_or(u16::MAX),
    }
}
