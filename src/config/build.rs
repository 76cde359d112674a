//! From decided values to typed settings, with the checks across keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::Sources;
use super::faults::{Faults, Trouble};
use super::keys::{Kind, find, keys};
use super::resolve::Resolved;
use super::secrets;
use super::settings::{
    Compression, Consumer, Database, DatabaseSsl, Kafka, KafkaSsl, Log, LogFormat, Monitoring,
    Producer, Sasl, SaslMechanism, Settings, Sink, SpoolSettings, SslMode, Storage,
};
use super::values::{Value, split_server};

/// Longest check of a site without its own timeout, if the interval allows it, in seconds.
const TIMEOUT_S: u64 = 10;

/// How long checks counted by hour are kept, unless told otherwise: three years and a month.
const HOURLY_DAYS: u64 = 1100;

const CONNECTIVITY: &str = "monitoring.connectivity";
/// Most of these: all are dialled within two seconds.
const CONNECTIVITY_MAX: usize = 4;

/// Values that follow from others, and faults of keys together.
pub(crate) fn complete(resolved: &mut Resolved, sources: &Sources, faults: &mut Faults) {
    if let Some(interval) = resolved.whole("monitoring.interval") {
        resolved.fill("monitoring.timeout", Value::Whole(TIMEOUT_S.min(interval - 1)));
        if let Some(timeout) = resolved.whole("monitoring.timeout").filter(|t| *t >= interval) {
            let trouble = Trouble::new(
                format!("is not less than monitoring.interval, which is {interval}"),
                format!("write 1 to {}, or leave it out", interval - 1),
            );
            let trouble = trouble.of(timeout.to_string());
            // The one that was set last is the one to look at.
            let key = match resolved.origin("monitoring.timeout") {
                super::Origin::Default => "monitoring.interval",
                _ => "monitoring.timeout",
            };
            faults.add(&resolved.origin(key), key, trouble);
        }
    }
    if let Some(days) = resolved.whole("storage.retention_days") {
        resolved.fill("storage.hourly_days", Value::Whole(HOURLY_DAYS.max(days)));
    }
    for (longer, shorter) in [
        ("storage.hourly_days", "storage.retention_days"),
        ("storage.daily_days", "storage.hourly_days"),
    ] {
        outlives(resolved, faults, longer, shorter);
    }
    for key in keys().iter().filter(|key| matches!(key.kind, Kind::File)) {
        if let Some(file) = resolved.path(sources, key.path)
            && let Some(problem) = unreadable(&file)
        {
            let trouble = Trouble::new(problem, "name a file that exists and this user may read")
                .of(resolved.owned(key.path));
            faults.add(&resolved.origin(key.path), key.path, trouble);
        }
    }
    for section in ["database.ssl", "kafka.ssl"] {
        let (cert, key) = (format!("{section}.certfile"), format!("{section}.keyfile"));
        for (one, other) in [(&cert, &key), (&key, &cert)] {
            if resolved.value(one).is_some() && !resolved.is_set(other) {
                let trouble = Trouble::new(
                    format!("is set without {other}"),
                    "set both for a client certificate, or neither",
                );
                faults.add(&resolved.origin(one), one, trouble);
            }
        }
    }
    servers_and_port(resolved, faults);
    connectivity(resolved, faults);
    let passwords =
        ["password", "password_file", "password_command"].map(|name| format!("kafka.sasl.{name}"));
    let password = passwords.iter().find(|path| resolved.is_set(path));
    match (resolved.is_set("kafka.sasl.user"), password) {
        (true, None) => {
            let trouble = Trouble::new(
                "is set without a password",
                "set WEBMON_KAFKA_SASL_PASSWORD, kafka.sasl.password_file or \
                 kafka.sasl.password_command",
            );
            faults.add(&resolved.origin("kafka.sasl.user"), "kafka.sasl.user", trouble);
        }
        (false, Some(path)) => {
            let trouble =
                Trouble::new("is set without kafka.sasl.user", "set the user too, or neither");
            faults.add(&resolved.origin(path), path, trouble);
        }
        _ => {}
    }
}

/// What is counted from something is kept at least as long; 0 is for ever.
fn outlives(resolved: &Resolved, faults: &mut Faults, longer: &'static str, shorter: &'static str) {
    let (Some(long), Some(short)) = (resolved.whole(longer), resolved.whole(shorter)) else {
        return;
    };
    if long == 0 || (short != 0 && long >= short) {
        return;
    }
    let (is, cure) = match short {
        0 => ("0, for ever".to_owned(), "write 0, or leave it out".to_owned()),
        days => (days.to_string(), format!("write {days} or more, or 0 for ever")),
    };
    let trouble = Trouble::new(format!("is less than {shorter}, which is {is}"), cure);
    faults.add(&resolved.origin(longer), longer, trouble.of(long.to_string()));
}

fn unreadable(file: &PathBuf) -> Option<String> {
    match std::fs::File::open(file).and_then(|file| file.metadata()) {
        Ok(found) if found.is_dir() => Some("is a directory, not a file".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("can't be read: {error}")),
    }
}

/// A port beside servers that all name theirs has no effect: whoever set it expects one.
fn servers_and_port(resolved: &Resolved, faults: &mut Faults) {
    let servers = resolved.list("kafka.servers");
    let all_name_theirs = !servers.is_empty()
        && servers.iter().all(|server| matches!(split_server(server), Some((_, Some(_)))));
    if all_name_theirs && resolved.same_source("kafka.port", "kafka.servers") {
        let trouble = Trouble::new(
            "has no effect: each of kafka.servers names its port",
            "remove the port, or kafka.servers",
        );
        faults.add(&resolved.origin("kafka.port"), "kafka.port", trouble);
    }
    if let (Some(server), None) = (resolved.text("kafka.server"), resolved.value("kafka.servers"))
        && split_server(server).is_none_or(|(_, port)| port.is_some())
    {
        let trouble = Trouble::new(
            "is not a host alone",
            "write the port in kafka.port, or host:port in kafka.servers; an IPv6 address in \
             brackets",
        );
        faults.add(&resolved.origin("kafka.server"), "kafka.server", trouble.of(server));
    }
}

fn connectivity(resolved: &Resolved, faults: &mut Faults) {
    let servers = resolved.list(CONNECTIVITY);
    let mut fault = |problem: String| {
        let cure = format!("write up to {CONNECTIVITY_MAX}, such as [192.0.2.1:53, a.org:443]");
        faults.add(&resolved.origin(CONNECTIVITY), CONNECTIVITY, Trouble::new(problem, cure));
    };
    if servers.len() > CONNECTIVITY_MAX {
        fault(format!("has {} servers; at most {CONNECTIVITY_MAX}", servers.len()));
    }
    for server in servers.iter().filter(|server| target(server).is_none()) {
        fault(format!("has the server '{server}', which names no port"));
    }
}

/// Host and port of `host:port`, an address without its brackets.
fn target(server: &str) -> Option<(String, u16)> {
    let (host, port) = split_server(server)?;
    Some((host.trim_matches(['[', ']']).to_owned(), port?))
}

/// The settings, without sites. What is faulty was noted and has some value here.
pub(crate) fn settings(resolved: &Resolved, sources: &Sources, faults: &mut Faults) -> Settings {
    let r = resolved;
    let path = |key: &str| r.path(sources, key);
    Settings {
        database: Database {
            host: r.owned("database.host"),
            port: r.number("database.port"),
            db: r.owned("database.db"),
            user: r.owned("database.user"),
            password: secrets::find("database.password", r, sources, faults),
            password_command: r.secret("database.password_command").cloned(),
            pool: r.number("database.pool"),
            ssl: DatabaseSsl {
                mode: ssl_mode(r.text("database.ssl.mode")),
                cafile: path("database.ssl.cafile"),
                certfile: path("database.ssl.certfile"),
                keyfile: path("database.ssl.keyfile"),
            },
        },
        kafka: kafka(resolved, sources, faults),
        monitoring: monitoring(resolved, sources),
        producer: Producer {
            threads: r.number("producer.threads"),
            slow_threads: r.number("producer.slow_threads"),
            per_address: Some(r.number("producer.per_address")).filter(|limit| *limit > 0),
            spool: SpoolSettings {
                dir: path("producer.spool.dir").unwrap_or_default(),
                max_bytes: r.number("producer.spool.max_bytes"),
                max_records: r.number("producer.spool.max_records"),
                sync: r.flag("producer.spool.sync"),
            },
            listen: r.address("producer.listen"),
        },
        consumer: Consumer {
            threads: r.number("consumer.threads"),
            batch: r.number("consumer.batch"),
            sinks: r.list("consumer.sinks").iter().map(|sink| self::sink(sink)).collect(),
            listen: r.address("consumer.listen"),
        },
        api: super::access::api(r, sources, faults),
        storage: Storage {
            retention_days: r.number("storage.retention_days"),
            hourly_days: r.number("storage.hourly_days"),
            daily_days: r.number("storage.daily_days"),
            days_ahead: r.number("storage.days_ahead"),
            rejected_days: r.number("storage.rejected_days"),
        },
        log: Log {
            level: r.text("log.level").and_then(|l| l.parse().ok()).unwrap_or(LevelFilter::Info),
            format: match r.text("log.format") {
                Some("json") => LogFormat::Json,
                _ => LogFormat::Text,
            },
        },
        websites: Vec::new(),
        secret_variables: BTreeMap::new(),
    }
}

/// What holds for every check; the table's defaults stand in for faulty values, so that sites are
/// judged by something sensible.
pub(crate) fn monitoring(r: &Resolved, sources: &Sources) -> Monitoring {
    let usual = find("monitoring.interval").and_then(|key| key.default.parse().ok());
    let interval = r.whole("monitoring.interval").or(usual).unwrap_or_default();
    let timeout = r.whole("monitoring.timeout").unwrap_or(TIMEOUT_S);
    Monitoring {
        interval: u32::try_from(interval).unwrap_or(u32::MAX),
        timeout: u32::try_from(timeout).unwrap_or(u32::MAX),
        region: r.owned("monitoring.region"),
        max_body: r.number("monitoring.max_body"),
        max_redirects: r.number("monitoring.max_redirects"),
        user_agent: r.owned("monitoring.user_agent"),
        allow_private_addresses: r.flag("monitoring.allow_private_addresses"),
        connectivity: r.list(CONNECTIVITY).iter().filter_map(|server| target(server)).collect(),
        allowed_addresses: r.networks("monitoring.allowed_addresses"),
        denied_addresses: r.networks("monitoring.denied_addresses"),
        dns_cache: Duration::from_secs(r.number("monitoring.dns_cache")),
        secrets_dir: r.path(sources, "monitoring.secrets_dir"),
    }
}

fn kafka(r: &Resolved, sources: &Sources, faults: &mut Faults) -> Kafka {
    let port: u16 = r.number("kafka.port");
    let with_port = |server: &str| match split_server(server) {
        Some((_, Some(_))) => server.to_owned(),
        _ => format!("{server}:{port}"),
    };
    let servers = match r.list("kafka.servers") {
        [] => vec![with_port(r.text("kafka.server").unwrap_or_default())],
        several => several.iter().map(|server| with_port(server)).collect(),
    };
    let files = ["cafile", "certfile", "keyfile"];
    let [cafile, certfile, keyfile] =
        files.map(|name| r.path(sources, &format!("kafka.ssl.{name}")));
    let any = cafile.is_some() || certfile.is_some() || keyfile.is_some();
    let password = secrets::find("kafka.sasl.password", r, sources, faults);
    Kafka {
        servers,
        topic: r.owned("kafka.topic"),
        partitions: r.number("kafka.partitions"),
        replication_factor: r.number("kafka.replication_factor"),
        group: r.owned("kafka.consumer.group"),
        instance_id: r.text("kafka.consumer.instance_id").map(str::to_owned),
        session_timeout: Duration::from_secs(r.number("kafka.consumer.session_timeout")),
        ssl: any.then_some(KafkaSsl { cafile, certfile, keyfile }),
        sasl: r.text("kafka.sasl.user").zip(password).map(|(user, password)| Sasl {
            mechanism: mechanism(r.text("kafka.sasl.mechanism")),
            user: user.to_owned(),
            password,
        }),
        compression: match r.text("kafka.compression") {
            Some("none") => Compression::None,
            Some("lz4") => Compression::Lz4,
            _ => Compression::Zstd,
        },
    }
}

fn ssl_mode(word: Option<&str>) -> SslMode {
    match word {
        Some("disable") => SslMode::Disable,
        Some("prefer") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        // Nothing else passes the table; if it ever did, the strictest is the safe one.
        _ => SslMode::VerifyFull,
    }
}

fn mechanism(word: Option<&str>) -> SaslMechanism {
    match word {
        Some("PLAIN") => SaslMechanism::Plain,
        Some("SCRAM-SHA-256") => SaslMechanism::ScramSha256,
        _ => SaslMechanism::ScramSha512,
    }
}

fn sink(word: &str) -> Sink {
    match word {
        "console" => Sink::Console,
        _ => Sink::Postgres,
    }
}
