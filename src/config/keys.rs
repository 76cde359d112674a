//! The one table of keys: names in the file, in the environment, ranges, defaults, descriptions.
//! Loading, showing, did-you-mean and the shipped `config.yaml` all follow it.

use crate::site::{INTERVAL_MAX_S, INTERVAL_MIN_S};

/// What the names of all environment variables begin with.
pub(crate) const PREFIX: &str = "WEBMON_";

/// Longest region, in bytes; checks carry it in every row.
pub const REGION_MAX: usize = 64;

/// Longest name of a token, in bytes.
const TOKEN_NAME_MAX: usize = 64;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Text of so many bytes at most that passes the check; what is wanted, for a cure.
    Text { max: usize, check: fn(&str) -> Result<(), &'static str>, wanted: &'static str },
    /// A whole number, counting something.
    Whole { min: u64, max: u64, unit: &'static str },
    /// Bytes, as a whole number or with `KiB`, `MiB`, `GiB`, `TiB`.
    Size { min: u64, max: u64 },
    /// True or false.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One or more of these words, each once.
    Choices(&'static [&'static str]),
    /// One or more servers, `host` or `host:port`.
    Servers,
    /// Entries that pass the check, each once; none is a list too. What one is, for a cure, and
    /// whether they hold what must not be shown.
    Entries { check: fn(&str) -> Result<(), &'static str>, wanted: &'static str, is_secret: bool },
    /// Networks, each as `10.0.0.0/8` or as one address; none is a list too.
    Networks,
    /// An IP address with a port.
    Address,
    /// A directory, which may not exist yet.
    Directory,
    /// A file that can be read.
    File,
    /// A file that holds a secret; it may be a pipe, so it is read only once.
    SecretFile,
    /// Text that nobody may see.
    Secret,
}

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its place in the file, such as `database.host`.
    pub path: &'static str,
    /// Its default, written as in the environment; empty: not set.
    pub default: &'static str,
    /// What it is for, in one line; `config.yaml` has it as comment.
    pub doc: &'static str,
    pub(crate) kind: Kind,
    pub(crate) old_name: Option<&'static str>,
}

impl Key {
    /// Its environment variable, such as `WEBMON_DATABASE_HOST`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "_").to_ascii_uppercase())
    }

    /// The variable's name in earlier versions, such as `DATABASE_HOST`, if it had one.
    #[must_use]
    pub fn old_variable(&self) -> Option<&'static str> {
        self.old_name
    }

    /// Whether nobody may see its value.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret | Kind::Entries { is_secret: true, .. })
    }

    pub(crate) fn is_list(&self) -> bool {
        self.kind.is_list()
    }
}

/// Keys that say the same thing in different ways: the highest source that sets one of them
/// decides, and may set only one.
pub(crate) const ALTERNATIVES: [&[&str]; 4] = [
    &["database.password", "database.password_file", "database.password_command"],
    &["kafka.sasl.password", "kafka.sasl.password_file", "kafka.sasl.password_command"],
    &["kafka.server", "kafka.servers"],
    &["api.tokens", "api.tokens_file"],
];

/// The list of sites in the file: not in the table, because it has no variable and no default.
pub(crate) const WEBSITES: &str = "websites";

pub(crate) const SSL_MODES: [&str; 5] =
    ["disable", "prefer", "require", "verify-ca", "verify-full"];
pub(crate) const SASL_MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
pub(crate) const COMPRESSIONS: [&str; 3] = ["none", "lz4", "zstd"];
pub(crate) const SINKS: [&str; 2] = ["postgres", "console"];
pub(crate) const ROLES: [&str; 3] = ["read", "write", "admin"];
pub(crate) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
pub(crate) const FORMATS: [&str; 2] = ["text", "json"];

/// All keys, in the order of the file.
#[must_use]
pub fn keys() -> &'static [Key] {
    KEYS
}

/// The key at `path`.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `path` is a section that has keys.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The names that may stand in the section `path`; the empty path is the top of the file.
pub(crate) fn names_in(path: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| match path {
            "" => Some(key.path),
            _ => key.path.strip_prefix(path)?.strip_prefix('.'),
        })
        .filter_map(|rest| rest.split('.').next())
        .collect();
    names.dedup();
    if path.is_empty() {
        names.push(WEBSITES);
    }
    names
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc, old_name: None }
}

const fn old(old_name: &'static str, key: Key) -> Key {
    Key { old_name: Some(old_name), ..key }
}

const fn whole(min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Whole { min, max, unit }
}

const fn text(max: usize) -> Kind {
    Kind::Text { max, check: one_line, wanted: "one line of text" }
}

const HOST: Kind = Kind::Text { max: 255, check: host, wanted: "a host name or an IP address" };
const TOPIC: Kind =
    Kind::Text { max: 249, check: topic, wanted: "letters, digits, '.', '_' and '-' only" };
const REGION: Kind = Kind::Text { max: REGION_MAX, check: region, wanted: "one short word" };
const AGENT: Kind = Kind::Text { max: 256, check: header, wanted: "one line of ASCII" };
const TOKENS: Kind = Kind::Entries {
    check: token,
    wanted: "lines of `webmon token NAME`, NAME:ROLE:SHA256 each",
    is_secret: true,
};
const HOSTS: Kind =
    Kind::Entries { check: name, wanted: "host names without a port", is_secret: false };
const ORIGINS: Kind = Kind::Entries {
    check: origin,
    wanted: "origins such as https://status.example, without a path",
    is_secret: false,
};
const PORT: Kind = whole(1, 65_535, "");

#[rustfmt::skip] // a table: one key a line or two, whatever its width
static KEYS: &[Key] = &[
    old("DATABASE_HOST", key("database.host", HOST, "localhost", "host name or address of PostgreSQL")),
    old("DATABASE_PORT", key("database.port", PORT, "5432", "port of PostgreSQL")),
    old("DATABASE_DB", key("database.db", text(63), "webmon", "name of the database")),
    old("DATABASE_USER", key("database.user", text(63), "webmon", "user of the database")),
    old("DATABASE_PASSWD", key("database.password", Kind::Secret, "",
        "password of that user; better kept in WEBMON_DATABASE_PASSWORD or in one of the next two")),
    key("database.password_file", Kind::SecretFile, "", "file that holds the password, such as /run/secrets/database"),
    key("database.password_command", Kind::Secret, "",
        "shell command that prints the password, such as one that asks a keyring or vault; 10 s at most"),
    key("database.pool", whole(1, 256, "connections"), "8", "most connections of one process, 1 to 256"),
    key("database.ssl.mode", Kind::Choice(&SSL_MODES), "prefer", "disable, prefer, require, verify-ca or verify-full"),
    key("database.ssl.cafile", Kind::File, "", "PEM file with the authorities to trust; unset: the system's"),
    key("database.ssl.certfile", Kind::File, "", "PEM file with the client's certificate, if the server asks for one"),
    key("database.ssl.keyfile", Kind::File, "", "PEM file with the key of that certificate"),

    key("kafka.server", HOST, "localhost", "host name or address of one broker; the others are learnt from it"),
    key("kafka.port", PORT, "9092", "port of the broker, and of those in servers that name none"),
    old("KAFKA_HOST", key("kafka.servers", Kind::Servers, "", "instead of server: several brokers, such as [a:9092, b:9092]")),
    old("KAFKA_TOPIC", key("kafka.topic", TOPIC, "webmon", "topic of the checks; made when absent")),
    key("kafka.partitions", whole(1, 10_000, "partitions"), "8", "partitions of the topic when it is made, 1 to 10000"),
    key("kafka.replication_factor", whole(1, 100, "copies"), "1", "copies of each partition when the topic is made, 1 to 100"),
    key("kafka.consumer.group", text(255), "webmon", "consumer group; the consumers of a group share the topic"),
    key("kafka.consumer.instance_id", text(255), "",
        "name of this consumer in its group, if a restart shall keep its partitions; each consumer its own"),
    key("kafka.consumer.session_timeout", whole(6, 1800, "seconds"), "10",
        "seconds until the partitions of a dead consumer or producer move on, 6 to 1800"),
    old("KAFKA_CAFILE", key("kafka.ssl.cafile", Kind::File, "",
        "PEM file with the authorities to trust; with one of these three set, webmon speaks TLS to Kafka")),
    old("KAFKA_CERTFILE", key("kafka.ssl.certfile", Kind::File, "", "PEM file with the client's certificate, if the broker asks for one")),
    old("KAFKA_KEYFILE", key("kafka.ssl.keyfile", Kind::File, "", "PEM file with the key of that certificate")),
    key("kafka.sasl.mechanism", Kind::Choice(&SASL_MECHANISMS), "SCRAM-SHA-512", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
    old("KAFKA_USER", key("kafka.sasl.user", text(255), "", "user at the broker; unset: no authentication")),
    old("KAFKA_PASSWORD", key("kafka.sasl.password", Kind::Secret, "",
        "password of that user; better kept in WEBMON_KAFKA_SASL_PASSWORD or in one of the next two")),
    key("kafka.sasl.password_file", Kind::SecretFile, "", "file that holds the password, such as /run/secrets/kafka"),
    key("kafka.sasl.password_command", Kind::Secret, "", "shell command that prints the password; 10 s at most"),
    key("kafka.compression", Kind::Choice(&COMPRESSIONS), "zstd", "of the messages: none, lz4 or zstd"),

    key("monitoring.interval", whole(INTERVAL_MIN_S as u64, INTERVAL_MAX_S as u64, "seconds"), "30",
        "seconds between two checks of a site that has no interval of its own, 5 to 86400"),
    key("monitoring.timeout", whole(1, INTERVAL_MAX_S as u64 - 1, "seconds"), "",
        "seconds a whole check may take, less than the interval; unset: 10, or one less than the interval"),
    key("monitoring.region", REGION, "default", "where these checks are made from; part of each check's identity"),
    key("monitoring.max_body", Kind::Size { min: 1, max: 64 * MIB }, "1MiB", "of a page, read for the pattern; the rest is not read; 1 to 64MiB"),
    key("monitoring.max_redirects", whole(0, 50, "redirects"), "10", "redirects to follow in one check, 0 to 50"),
    key("monitoring.user_agent", AGENT, concat!("webmon/", env!("CARGO_PKG_VERSION")),
        "what a check calls itself; unset: webmon and its version"),
    key("monitoring.allow_private_addresses", Kind::Flag, "true",
        "whether sites may be in private networks; cloud metadata addresses stay refused"),
    key("monitoring.connectivity", Kind::Servers, "",
        "up to 4 servers, such as [192.0.2.1:53, a:443], that always answer; when none does, failures are marked as our own network's"),
    key("monitoring.allowed_addresses", Kind::Networks, "",
        "networks where sites may be although they are private, such as [10.1.0.0/16, fd00:1::/32]"),
    key("monitoring.denied_addresses", Kind::Networks, "",
        "networks where no site may be, whatever else allows them"),
    key("monitoring.dns_cache", whole(0, 300, "seconds"), "0", "seconds that the addresses of a name are used again, 0 to 300; 0: each check looks up"),
    key("monitoring.secrets_dir", Kind::Directory, "",
        "directory of the secrets that sites refer to as {secret:NAME}, a file each; else WEBMON_SECRET_NAME is taken"),

    key("producer.threads", whole(1, 1024, "threads"), "32", "checks under way at once, 1 to 1024"),
    key("producer.slow_threads", whole(1, 1024, "threads"), "32", "the same for slow sites, which never wait with the others, 1 to 1024"),
    key("producer.per_address", whole(0, 100_000, "checks"), "0", "checks at once to one address; 0: no limit"),
    key("producer.spool.dir", Kind::Directory, "./data/spool", "directory for results that Kafka did not take yet; one per producer"),
    key("producer.spool.max_bytes", Kind::Size { min: 64 * KIB, max: 16 * TIB }, "1GiB", "most room of the spool; then new results are lost and counted, 64KiB to 16TiB"),
    key("producer.spool.max_records", whole(1000, 1_000_000_000, "results"), "10000000", "most results in the spool, whatever their size, 1000 to 1000000000"),
    key("producer.spool.sync", Kind::Flag, "true", "whether results are safe against a power failure too, at the cost of a disk flush each 50 ms"),
    key("producer.listen", Kind::Address, "127.0.0.1:9464", "address of /metrics, /livez and /readyz of the producer"),

    key("consumer.threads", whole(1, 256, "threads"), "4", "threads that write to the database, 1 to 256; no more than partitions are of use"),
    key("consumer.batch", whole(1, 100_000, "checks"), "5000", "most checks written in one transaction, 1 to 100000"),
    key("consumer.sinks", Kind::Choices(&SINKS), "postgres", "where checks go: postgres, console (one line each on stdout), or both"),
    key("consumer.listen", Kind::Address, "127.0.0.1:9465", "address of /metrics, /livez and /readyz of the consumer"),

    key("api.listen", Kind::Address, "127.0.0.1:8080", "address of the REST API; without tokens only this machine's own, such as 127.0.0.1"),
    key("api.tokens", TOKENS, "", "who may use it, such as [ci:write:SHA256]; `webmon token NAME` makes one; roles are read, write and admin"),
    key("api.tokens_file", Kind::SecretFile, "", "instead of tokens: file with one of these a line, such as /run/secrets/tokens"),
    key("api.allow_without_tokens", Kind::Flag, "false", "whether it may listen for others without tokens; only where the port is published on loopback alone, as compose.yaml does"),
    key("api.hosts", HOSTS, "", "names that clients call it by, such as [webmon.example]; localhost and its own addresses always are"),
    key("api.cors_origins", ORIGINS, "", "sites whose pages may use it in a browser, such as [https://status.example]"),
    key("api.rate_limit", whole(0, 1_000_000, "requests"), "1000", "requests a second of one token, or of one address without; twice that at once; 0: no limit"),
    key("api.allow_private_addresses", Kind::Flag, "false",
        "whether sites that are added or changed over it may be in private networks; monitoring.allowed_addresses always may"),
    key("api.threads", whole(1, 256, "threads"), "8", "requests answered at once, 1 to 256; others wait"),
    key("api.connections", whole(2, 10_000, "connections"), "256", "connections at once, half of them from one address, 2 to 10000"),
    key("api.deadline", whole(2, 300, "seconds"), "10", "seconds from a request's first byte to the last one of its answer, 2 to 300"),

    key("storage.retention_days", whole(1, 36_500, "days"), "400", "days that single checks are kept, 1 to 36500"),
    key("storage.hourly_days", whole(0, 36_500, "days"), "", "days that checks counted by hour are kept, retention_days or more, 0 for ever; unset: 1100, or retention_days if more"),
    key("storage.daily_days", whole(0, 36_500, "days"), "0", "days that checks counted by day are kept, hourly_days or more, 0 for ever"),
    key("storage.days_ahead", whole(1, 366, "days"), "14", "days that tables are made ahead of time, 1 to 366"),
    key("storage.rejected_days", whole(1, 36_500, "days"), "90", "days that messages which could not be stored are kept, 1 to 36500"),

    key("log.level", Kind::Choice(&LEVELS), "info", "error, warn, info, debug or trace"),
    key("log.format", Kind::Choice(&FORMATS), "text", "text or json"),
];

fn one_line(value: &str) -> Result<(), &'static str> {
    match value {
        _ if value.trim().is_empty() => Err("is empty"),
        _ if value.contains(char::is_control) => Err("has control characters"),
        _ => Ok(()),
    }
}

pub(crate) fn host(value: &str) -> Result<(), &'static str> {
    one_line(value)?;
    match value {
        _ if value.contains("://") => Err("is a URL, not a host"),
        _ if value.contains(char::is_whitespace) => Err("has blanks"),
        _ if value.contains('@') => Err("has an @, which no host has"),
        _ if value.contains(',') => Err("is several hosts, not one"),
        _ => Ok(()),
    }
}

/// What Kafka takes as a topic's name.
fn topic(value: &str) -> Result<(), &'static str> {
    one_line(value)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match value {
        "." | ".." => Err("is no name of a topic"),
        _ if value.chars().all(good) => Ok(()),
        _ => Err("has other characters than letters, digits, '.', '_' and '-'"),
    }
}

/// `NAME:ROLE:SHA256`.
pub(crate) fn token(value: &str) -> Result<(), &'static str> {
    let mut parts = value.split(':');
    let (Some(name), Some(role), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("is not NAME:ROLE:SHA256");
    };
    token_name(name)?;
    match hash {
        _ if !ROLES.contains(&role) => Err("has another role than read, write and admin"),
        _ if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Err("has no SHA-256 of 64 hexadecimal digits")
        }
        _ => Ok(()),
    }
}

/// What may be a token's name: it stands in logs and between colons.
pub fn token_name(name: &str) -> Result<(), &'static str> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match name {
        _ if name.is_empty() || name.len() > TOKEN_NAME_MAX => {
            Err("has a name that is not 1 to 64 bytes long")
        }
        _ if name.chars().all(good) => Ok(()),
        _ => Err("has a name with other characters than letters, digits, '.', '_' and '-'"),
    }
}

/// A host without a port.
fn name(value: &str) -> Result<(), &'static str> {
    host(value)?;
    match value {
        _ if value.contains([':', '/', '*']) => Err("has a port or more, not a name alone"),
        _ if value.ends_with('.') => Err("ends with a dot"),
        _ => Ok(()),
    }
}

/// What a browser sends as `Origin`.
fn origin(value: &str) -> Result<(), &'static str> {
    match url::Url::parse(value) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => Err("is not http or https"),
        Ok(url) if url.origin().ascii_serialization() == value => Ok(()),
        _ => Err("is not what a browser sends"),
    }
}

fn region(value: &str) -> Result<(), &'static str> {
    one_line(value)?;
    if value.contains(char::is_whitespace) { Err("has blanks") } else { Ok(()) }
}

fn header(value: &str) -> Result<(), &'static str> {
    one_line(value)?;
    if value.is_ascii() { Ok(()) } else { Err("has other than ASCII characters") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_no_section_is_a_key() {
        let paths: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
        let variables: BTreeSet<String> = KEYS.iter().map(Key::variable).collect();
        let old: Vec<&str> = KEYS.iter().filter_map(Key::old_variable).collect();
        assert_eq!(paths.len(), KEYS.len());
        assert_eq!(variables.len(), KEYS.len());
        assert_eq!(old.iter().collect::<BTreeSet<_>>().len(), old.len());
        assert!(KEYS.iter().all(|key| !is_section(key.path)));
        assert!(
            ALTERNATIVES.iter().flat_map(|group| group.iter()).all(|path| find(path).is_some())
        );
    }

    #[test]
    fn docs_are_one_line_without_quotes_or_ends() {
        for key in KEYS {
            assert!(!key.doc.is_empty() && !key.doc.contains('\n'), "{}", key.path);
            assert!(!key.doc.ends_with('.'), "{}", key.path);
        }
    }

    #[test]
    fn names_in_a_section() {
        assert_eq!(names_in("kafka.ssl"), ["cafile", "certfile", "keyfile"]);
        assert_eq!(names_in("api")[..2], ["listen", "tokens"]);
        assert!(names_in("").contains(&"websites") && names_in("kafka").contains(&"sasl"));
    }
}
