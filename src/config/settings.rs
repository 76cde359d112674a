//! The settings as typed values, valid as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;
use secrecy::SecretString;

use crate::site::{SiteDefaults, SiteSpec};

/// Everything that can be set. Its `Debug` shows no secret; of the sites only the names, because
/// their URLs, headers and bodies may hold some.
#[derive(Clone)]
pub struct Settings {
    /// PostgreSQL.
    pub database: Database,
    /// Kafka.
    pub kafka: Kafka,
    /// What holds for every check.
    pub monitoring: Monitoring,
    /// The daemon that checks.
    pub producer: Producer,
    /// The daemon that stores.
    pub consumer: Consumer,
    /// The HTTP API.
    pub api: Api,
    /// How long data stays.
    pub storage: Storage,
    /// Logs.
    pub log: Log,
    /// Sites of the file, to be put into the table when not there yet, by name. Each one builds.
    pub websites: Vec<SiteSpec>,
    /// The secrets of sites that variables hold, by the variable's name.
    pub secret_variables: BTreeMap<String, SecretString>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.websites.iter().map(|site| site.name.as_str()).collect();
        f.debug_struct("Settings")
            .field("database", &self.database)
            .field("kafka", &self.kafka)
            .field("monitoring", &self.monitoring)
            .field("producer", &self.producer)
            .field("consumer", &self.consumer)
            .field("api", &self.api)
            .field("storage", &self.storage)
            .field("log", &self.log)
            .field("websites", &names)
            .field("secret_variables", &self.secret_variables.keys())
            .finish()
    }
}

/// How to reach PostgreSQL.
#[derive(Clone, Debug)]
pub struct Database {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of the database.
    pub db: String,
    /// User.
    pub user: String,
    /// The password, wherever it came from: file, variable or command.
    pub password: Option<SecretString>,
    /// The command that gave the password, if one did. A secret: people write passwords into
    /// commands.
    pub password_command: Option<SecretString>,
    /// Most connections of one process.
    pub pool: u32,
    /// TLS.
    pub ssl: DatabaseSsl,
}

/// TLS to PostgreSQL.
#[derive(Clone, Debug)]
pub struct DatabaseSsl {
    /// Whether, and how strictly.
    pub mode: SslMode,
    /// Authorities to trust; the system's when absent.
    pub cafile: Option<PathBuf>,
    /// The client's certificate; comes with `keyfile`.
    pub certfile: Option<PathBuf>,
    /// The key of `certfile`.
    pub keyfile: Option<PathBuf>,
}

/// How strict TLS to PostgreSQL is, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Without TLS.
    Disable,
    /// With TLS if the server offers it; nothing is verified.
    Prefer,
    /// With TLS; nothing is verified.
    Require,
    /// With TLS; the certificate must come from a trusted authority.
    VerifyCa,
    /// With TLS; the certificate must come from a trusted authority and name the host.
    VerifyFull,
}

/// How to reach Kafka, and our topic there.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Brokers to ask first, each as `host:port`; never empty.
    pub servers: Vec<String>,
    /// Topic of the checks.
    pub topic: String,
    /// Partitions of the topic when it is made.
    pub partitions: i32,
    /// Copies of each partition when the topic is made.
    pub replication_factor: i16,
    /// Group of the consumers.
    pub group: String,
    /// Name of this consumer in the group, for static membership.
    pub instance_id: Option<String>,
    /// After this time without a heartbeat a member is taken for dead.
    pub session_timeout: Duration,
    /// TLS, if any of its files is set.
    pub ssl: Option<KafkaSsl>,
    /// Authentication, if a user is set.
    pub sasl: Option<Sasl>,
    /// How messages are packed.
    pub compression: Compression,
}

/// TLS to Kafka.
#[derive(Clone, Debug)]
pub struct KafkaSsl {
    /// Authorities to trust; the system's when absent.
    pub cafile: Option<PathBuf>,
    /// The client's certificate; comes with `keyfile`.
    pub certfile: Option<PathBuf>,
    /// The key of `certfile`.
    pub keyfile: Option<PathBuf>,
}

/// Authentication at Kafka.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// How.
    pub mechanism: SaslMechanism,
    /// Who.
    pub user: String,
    /// The password, wherever it came from.
    pub password: SecretString,
}

/// A way to authenticate at Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password as it is; only sensible with TLS.
    Plain,
    /// Challenge and response with SHA-256.
    ScramSha256,
    /// Challenge and response with SHA-512.
    ScramSha512,
}

/// How messages are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: quick.
    Lz4,
    /// Zstandard: small.
    Zstd,
}

/// What holds for every check.
#[derive(Clone, Debug)]
pub struct Monitoring {
    /// Seconds between two checks of a site without its own interval.
    pub interval: u32,
    /// Seconds a whole check may take; less than the interval.
    pub timeout: u32,
    /// Where the checks are made from.
    pub region: String,
    /// Bytes of a body that are read for the pattern.
    pub max_body: u64,
    /// Redirects that are followed in one check.
    pub max_redirects: u32,
    /// What a check calls itself.
    pub user_agent: String,
    /// Whether sites may be in private networks.
    pub allow_private_addresses: bool,
    /// Hosts and ports that tell whether the own network is there; addresses without brackets.
    pub connectivity: Vec<(String, u16)>,
    /// Networks where sites may be all the same.
    pub allowed_addresses: Vec<IpNet>,
    /// Networks where no site may be.
    pub denied_addresses: Vec<IpNet>,
    /// How long the addresses of a name are used again.
    pub dns_cache: Duration,
    /// The directory of the secrets that sites refer to.
    pub secrets_dir: Option<PathBuf>,
}

impl Monitoring {
    /// What a site without its own values takes.
    #[must_use]
    pub fn defaults(&self) -> SiteDefaults {
        SiteDefaults { interval: self.interval, timeout: self.timeout }
    }
}

/// The daemon that checks.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Checks under way at once.
    pub threads: usize,
    /// The same for slow sites.
    pub slow_threads: usize,
    /// Checks at once to one address; `None`: no limit.
    pub per_address: Option<usize>,
    /// Results that Kafka did not take yet.
    pub spool: SpoolSettings,
    /// Address of metrics and health.
    pub listen: SocketAddr,
}

/// The spool.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Its directory, absolute if the working directory was.
    pub dir: PathBuf,
    /// Most bytes it may hold.
    pub max_bytes: u64,
    /// Most results it may hold.
    pub max_records: u64,
    /// Whether each commit is flushed to the disk.
    pub sync: bool,
}

/// The daemon that stores.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Threads that write to the database.
    pub threads: usize,
    /// Most checks in one transaction.
    pub batch: usize,
    /// Where checks go; never empty, each at most once.
    pub sinks: Vec<Sink>,
    /// Address of metrics and health.
    pub listen: SocketAddr,
}

/// Where the consumer puts checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Into the database.
    Postgres,
    /// On stdout, one line each.
    Console,
}

/// The HTTP API.
#[derive(Clone, Debug)]
pub struct Api {
    /// Its address.
    pub listen: SocketAddr,
    /// Who may use it; empty: everybody who reaches it.
    pub tokens: Vec<ApiToken>,
    /// Whether it may listen for others without tokens.
    pub allow_without_tokens: bool,
    /// Names that clients call it by, in lower case.
    pub hosts: Vec<String>,
    /// Origins whose pages may use it.
    pub cors_origins: Vec<String>,
    /// Requests a second of one caller; 0: no limit.
    pub rate_limit: u32,
    /// Whether sites that come in over it may be at private addresses.
    pub allow_private_addresses: bool,
    /// Requests answered at once.
    pub threads: usize,
    /// Connections at once.
    pub connections: usize,
    /// From a request's first byte to the last one of its answer.
    pub deadline: Duration,
}

/// A token of the API as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its name.
    pub name: String,
    /// `read`, `write` or `admin`.
    pub role: String,
    /// The SHA-256 of the token.
    pub sha256: [u8; 32],
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, {})", self.name, self.role)
    }
}

/// How long data stays.
#[derive(Clone, Debug)]
pub struct Storage {
    /// Days that single checks are kept.
    pub retention_days: u32,
    /// Days that hourly rollups are kept; 0 for ever.
    pub hourly_days: u32,
    /// Days that daily rollups are kept; 0 for ever.
    pub daily_days: u32,
    /// Days that partitions are made ahead of time.
    pub days_ahead: u32,
    /// Days that rejected messages are kept.
    pub rejected_days: u32,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// Least weight of a line that is written; never `Off`.
    pub level: LevelFilter,
    /// How lines are written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
