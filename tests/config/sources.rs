//! Who overrides whom, which files are read, and the names of the earlier version.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;
use webmon::config::{
    Compression, LogFormat, Origin, REGION_MAX, SaslMechanism, Sink, Sources, SslMode,
};

use super::{SECRET, Setup, origin, setup};

#[test]
fn defaults_without_any_source() {
    let settings = setup("").load().settings;
    assert_eq!((settings.database.host.as_str(), settings.database.port), ("localhost", 5432));
    assert_eq!(settings.database.ssl.mode, SslMode::Prefer);
    assert_eq!(settings.kafka.servers, ["localhost:9092"]);
    assert_eq!((settings.kafka.partitions, settings.kafka.replication_factor), (8, 1));
    assert_eq!(settings.kafka.compression, Compression::Zstd);
    assert_eq!(settings.kafka.session_timeout, Duration::from_secs(10));
    assert!(settings.kafka.ssl.is_none() && settings.kafka.sasl.is_none());
    assert_eq!((settings.monitoring.interval, settings.monitoring.timeout), (30, 10));
    assert_eq!(settings.monitoring.max_body, 1 << 20);
    assert!(settings.monitoring.user_agent.starts_with("webmon/"));
    assert_eq!((settings.producer.threads, settings.producer.slow_threads), (32, 32));
    assert_eq!(settings.producer.per_address, None);
    assert_eq!(settings.producer.spool.max_bytes, 1 << 30);
    assert_eq!((settings.consumer.threads, settings.consumer.batch), (4, 5000));
    assert_eq!(settings.consumer.sinks, [Sink::Postgres]);
    assert_eq!(settings.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((settings.storage.retention_days, settings.storage.days_ahead), (400, 14));
    assert_eq!((settings.storage.hourly_days, settings.storage.daily_days), (1100, 0));
    assert_eq!(
        (settings.log.level, settings.log.format),
        (log::LevelFilter::Info, LogFormat::Text)
    );
    assert!(settings.websites.is_empty());
    assert_eq!(REGION_MAX, webmon::check::REGION_MAX);
}

#[test]
fn every_layer_goes_before_the_next() {
    let host = |setup: &Setup| {
        let loaded = setup.load();
        (loaded.settings.database.host.clone(), origin(&loaded, "database.host"))
    };
    let is = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    let setup = setup("");
    assert_eq!(host(&setup), is("localhost", "default"));
    let setup = setup.write("config.yaml", "# hosts\ndatabase: {host: file}\n");
    assert_eq!(host(&setup), is("file", "config.yaml:2"));
    let setup = setup.write(".env", "DATABASE_HOST=old-env-file\n");
    assert_eq!(host(&setup), is("old-env-file", ".env:1 DATABASE_HOST"));
    let setup = setup.env("DATABASE_HOST", "old");
    assert_eq!(host(&setup), is("old", "environment DATABASE_HOST"));
    let setup =
        setup.write(".env", "\nWEBMON_DATABASE_HOST=env-file\nDATABASE_HOST=old-env-file\n");
    assert_eq!(host(&setup), is("env-file", ".env:2 WEBMON_DATABASE_HOST"));
    let setup = setup.env("WEBMON_DATABASE_HOST", "env");
    assert_eq!(host(&setup), is("env", "environment WEBMON_DATABASE_HOST"));
    let setup = setup.flag("database.host", "first").flag("database.host", "flag");
    assert_eq!(host(&setup), is("flag", "command line"));
}

#[test]
fn an_empty_variable_and_an_empty_key_are_unset() {
    let setup =
        setup("database:\n  host:\n  pool: ${POOL:-}\nkafka:\n").env("WEBMON_DATABASE_DB", "");
    let loaded = setup.load();
    assert_eq!(loaded.settings.database.host, "localhost");
    assert_eq!(
        (loaded.settings.database.pool, loaded.settings.database.db.as_str()),
        (8, "webmon")
    );
    assert_eq!(origin(&loaded, "database.db"), "default");
}

#[test]
fn which_file_is_read() {
    let host = |setup: &Setup| setup.load().settings.database.host;
    let file = |host: &str| format!("database: {{host: {host}}}\n");
    let setup = setup(&file("usual")).write("a.yaml", &file("a")).write("b.yaml", &file("b"));
    assert_eq!(host(&setup), "usual");
    let setup = setup.write(".env", "WEBMON_CONFIG_FILE=a.yaml\n");
    assert_eq!(host(&setup), "a");
    let mut setup = setup.write(".env", "").env("WEBMON_CONFIG_FILE", "a.yaml");
    assert_eq!(host(&setup), "a");
    setup.sources.file = Some("b.yaml".into());
    assert_eq!(host(&setup), "b");
    assert_eq!(setup.load().file, Some("b.yaml".into()));

    setup.sources.file = Some("c.yaml".into());
    let faults = setup.faults();
    assert!(faults.starts_with("c.yaml: --config: there is no such file in /"), "{faults}");
    setup.sources.file = None;
    let setup = setup.env("WEBMON_CONFIG_FILE", "d.yaml");
    assert!(setup.faults().starts_with("d.yaml: WEBMON_CONFIG_FILE: there is no such file"));
}

#[test]
fn which_env_file_is_read() {
    let user = |setup: &Setup| setup.load().settings.database.user;
    let setup = setup("").write(".env", "DATABASE_USER=usual").write("a", "DATABASE_USER=a");
    assert_eq!(user(&setup), "usual");
    let mut setup = setup.write("b", "DATABASE_USER=b").env("WEBMON_ENV_FILE", "a");
    assert_eq!(user(&setup), "a");
    setup.sources.env_file = Some("b".into());
    assert_eq!(user(&setup), "b");
    setup.sources.env_file = Some("c".into());
    assert!(setup.faults().starts_with("c: --env-file: there is no such file"));
    setup.sources.env_file = None;
    let setup = setup.env("WEBMON_ENV_FILE", "d");
    assert!(setup.faults().starts_with("d: WEBMON_ENV_FILE: there is no such file"));
}

#[test]
fn files_that_are_no_text() {
    let mut setup = setup("");
    fs::write(setup.dir.path().join("config.yaml"), b"a: \xff\n").unwrap();
    assert!(setup.faults().starts_with("config.yaml: it is not UTF-8 text;"), "{}", setup.faults());
    setup.sources.file = Some(".".into());
    assert!(setup.faults().starts_with(".: --config: it can't be read: "), "{}", setup.faults());
}

#[test]
fn names_of_the_earlier_version() {
    let setup = ["ca", "cert", "key"].iter().fold(setup(""), |setup, name| setup.write(name, "-"));
    let settings = [
        ("DATABASE_HOST", "db.example"),
        ("DATABASE_PORT", "6432"),
        ("DATABASE_DB", "sites"),
        ("DATABASE_USER", "watcher"),
        ("DATABASE_PASSWD", SECRET),
        ("KAFKA_HOST", "a.example:9093, b.example"),
        ("KAFKA_TOPIC", "checks"),
        ("KAFKA_USER", "carrier"),
        ("KAFKA_PASSWORD", SECRET),
        ("KAFKA_CAFILE", "ca"),
        ("KAFKA_CERTFILE", "cert"),
        ("KAFKA_KEYFILE", "key"),
    ]
    .into_iter()
    .fold(setup, |setup, (name, value)| setup.env(name, value))
    .load()
    .settings;
    let database = &settings.database;
    assert_eq!((database.host.as_str(), database.port), ("db.example", 6432));
    assert_eq!((database.db.as_str(), database.user.as_str()), ("sites", "watcher"));
    assert_eq!(database.password.as_ref().unwrap().expose_secret(), SECRET);
    assert_eq!(settings.kafka.servers, ["a.example:9093", "b.example:9092"]);
    assert_eq!(settings.kafka.topic, "checks");
    let ssl = settings.kafka.ssl.as_ref().unwrap();
    let name = |path: &Option<PathBuf>| path.as_ref().unwrap().file_name().unwrap().to_owned();
    assert_eq!([name(&ssl.cafile), name(&ssl.certfile), name(&ssl.keyfile)], ["ca", "cert", "key"]);
    let sasl = settings.kafka.sasl.as_ref().unwrap();
    assert_eq!((sasl.user.as_str(), sasl.mechanism), ("carrier", SaslMechanism::ScramSha512));
    assert_eq!(sasl.password.expose_secret(), SECRET);
}

#[test]
fn one_broker_or_several() {
    let servers = |setup: Setup| setup.load().settings.kafka.servers;
    let file = "kafka: {server: a.example, port: 9093}\n";
    assert_eq!(servers(setup(file)), ["a.example:9093"]);
    assert_eq!(servers(setup("kafka: {server: '[::1]'}\n")), ["[::1]:9092"]);
    assert_eq!(
        servers(setup("kafka: {servers: [a.example, 'b.example:1', '${C:-c}'], port: 9}\n")),
        ["a.example:9", "b.example:1", "c:9"]
    );
    let setup_by_old_name = setup(file).env("KAFKA_HOST", "b.example");
    assert_eq!(servers(setup_by_old_name), ["b.example:9093"]);
    let both = setup(file).env("KAFKA_HOST", "b.example").env("WEBMON_KAFKA_SERVER", "c.example");
    assert_eq!(servers(both), ["c.example:9093"]);
    let several = setup(file).env("WEBMON_KAFKA_SERVERS", "b.example:1,c.example");
    assert_eq!(origin(&several.load(), "kafka.server"), "not used: kafka.servers is set");
    assert_eq!(servers(several), ["b.example:1", "c.example:9093"]);
}

#[test]
fn paths_begin_at_the_working_directory() {
    let setup = setup("");
    let dir = setup.dir.path().to_owned();
    assert_eq!(setup.load().settings.producer.spool.dir, dir.join("data/spool"));
    let setup = setup.env("WEBMON_PRODUCER_SPOOL_DIR", "/var/lib/webmon");
    assert_eq!(setup.load().settings.producer.spool.dir, Path::new("/var/lib/webmon"));
}

#[test]
fn the_process_gives_its_environment() {
    let sources = Sources::from_process(Some("x.yaml".into()), None, Vec::new());
    assert_eq!(sources.file, Some("x.yaml".into()));
    let here: BTreeMap<String, String> = std::env::vars().collect();
    assert_eq!(sources.environment.get("PATH"), here.get("PATH"));
    assert_eq!(sources.cwd, std::env::current_dir().unwrap());
    assert_eq!(Origin::Default.to_string(), "default");
}

#[test]
fn the_timeout_follows_the_interval_unless_it_is_set() {
    let timeout = |setup: Setup| setup.load().settings.monitoring.timeout;
    assert_eq!(timeout(setup("").flag("monitoring.interval", "5")), 4);
    assert_eq!(timeout(setup("").flag("monitoring.interval", "11")), 10);
    let faults = setup("monitoring: {timeout: 10}\n").flag("monitoring.interval", "5").faults();
    assert_eq!(
        faults,
        "config.yaml:1: monitoring.timeout: '10' is not less than monitoring.interval, which is 5; \
         write 1 to 4, or leave it out"
    );
}
