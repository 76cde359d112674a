//! The configuration as an operator meets it: the shipped file, the faults, who overrides whom,
//! and secrets that stay secret.
//!
//! `tests/config_faults/NAME.yaml` (with `NAME.env`, if there is one, as env file) must give
//! exactly the faults in `NAME.txt`; `WEBMON_UPDATE_GOLDEN=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

#[path = "config/site_settings.rs"]
mod site_settings;
#[path = "config/sources.rs"]
mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use webmon::config::{Loaded, Sources, keys, load, show};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The secret in all these tests: it must never be printed.
const SECRET: &str = "hunter2";
/// The same, where YAML takes it for a number.
const SECRET_NUMBER: &str = "740029651";

struct Setup {
    dir: tempfile::TempDir,
    sources: Sources,
}

fn setup(file: &str) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    if !file.is_empty() {
        fs::write(dir.path().join("config.yaml"), file).unwrap();
    }
    let sources = Sources { cwd: dir.path().to_owned(), ..Sources::default() };
    Setup { dir, sources }
}

impl Setup {
    fn write(self, name: &str, text: &str) -> Self {
        fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, key: &str, value: &str) -> Self {
        self.sources.flags.push((key.to_owned(), value.to_owned()));
        self
    }

    fn load(&self) -> Loaded {
        load(&self.sources).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn faults(&self) -> String {
        load(&self.sources).expect_err("faults").to_string()
    }
}

fn origin(loaded: &Loaded, key: &str) -> String {
    let setting = loaded.origins.iter().find(|setting| setting.key == key).unwrap();
    setting.origin.to_string()
}

fn password(loaded: &Loaded) -> &str {
    loaded.settings.database.password.as_ref().unwrap().expose_secret()
}

fn check_no_secret(text: &str) {
    assert!(!text.contains(SECRET) && !text.contains(SECRET_NUMBER), "a secret shows:\n{text}");
}

#[test]
fn each_fault_has_its_message() {
    let dir = Path::new(ROOT).join("tests/config_faults");
    let update = std::env::var_os("WEBMON_UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let env_file = path.with_extension("env");
        let name = |path: &Path| PathBuf::from(path.file_name().unwrap());
        let sources = Sources {
            file: Some(name(&path)),
            env_file: Some(env_file).filter(|file| file.exists()).map(|file| name(&file)),
            cwd: dir.clone(),
            ..Sources::default()
        };
        let Err(faults) = load(&sources) else {
            wrong.push(format!("{}: no fault", path.display()));
            continue;
        };
        let text = format!("{faults}\n");
        check_no_secret(&text);
        check_no_secret(&format!("{faults:?}"));
        assert_eq!(text.lines().count(), faults.0.len(), "one line each: {text}");
        let golden = path.with_extension("txt");
        if update {
            fs::write(&golden, &text).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{} is not what came:\n{text}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 70, "only {count} files");
}

/// Each line of a file in block style by its dotted key.
fn lines_by_key(text: &str) -> BTreeMap<String, &str> {
    let mut open: Vec<&str> = Vec::new();
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let name = line.trim_start();
        if let Some((name, _)) = name.split_once(':').filter(|_| !name.starts_with('#')) {
            open.truncate((line.len() - line.trim_start().len()) / 2);
            open.push(name);
            assert!(lines.insert(open.join("."), line).is_none(), "twice: {line}");
        }
    }
    lines
}

#[test]
fn the_shipped_file_has_every_key_with_its_description_and_its_default() {
    let path = Path::new(ROOT).join("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let mut setup = setup("");
    let none = setup.load();
    setup.sources.file = Some(path);
    let shipped = setup.load();
    let lines = lines_by_key(&text);
    for (line, key) in lines.iter().map(|(key, line)| (line, key)) {
        assert!(line.contains("  # "), "{key} has no comment");
    }
    for (key, (there, absent)) in keys().iter().zip(shipped.origins.iter().zip(&none.origins)) {
        let line = lines.get(key.path).unwrap_or_else(|| panic!("{} is not there", key.path));
        assert!(line.contains(&format!("# {}", key.doc)), "{} has another comment", key.path);
        if key.path != "database.password" {
            assert_eq!(there.value, absent.value, "{}", key.path);
        }
    }
    assert_eq!(password(&shipped), "webmon");
    assert!(none.settings.database.password.is_none());
    let mut same = shipped.settings.clone();
    same.database.password = None;
    assert_eq!(format!("{same:?}"), format!("{:?}", none.settings));
}

/// For each key a value that is not its default.
fn other_value(path: &str, dir: &Path) -> String {
    let file = dir.join("some-file").display().to_string();
    match path {
        "database.ssl.mode" => "verify-full",
        "kafka.servers" | "monitoring.connectivity" => "a.example:1,b.example:2",
        "kafka.sasl.mechanism" => "PLAIN",
        "kafka.compression" => "lz4",
        "monitoring.max_body" => "2MiB",
        "monitoring.allow_private_addresses" | "producer.spool.sync" => "false",
        "api.allow_private_addresses" => "true",
        path if path.ends_with("ed_addresses") => "10.0.0.0/8,fd00::1",
        "producer.spool.max_bytes" => "3GiB",
        "api.tokens" => return format!("ci:write:{}", "ab".repeat(32)),
        "api.tokens_file" => return dir.join("tokens").display().to_string(),
        "api.hosts" => "webmon.example",
        "api.cors_origins" => "https://a.example,https://b.example:444",
        "consumer.sinks" => "console,postgres",
        // Not fewer than what they are counted from.
        "storage.hourly_days" | "storage.daily_days" => "3000",
        "log.level" => "debug",
        "log.format" => "json",
        path if path.ends_with("listen") => "[::1]:7777",
        path if path.ends_with("file") => &file,
        path if path.ends_with("command") => "echo other",
        path => match keys().iter().find(|key| key.path == path).unwrap().default.parse::<u32>() {
            Ok(number) => return (number + 7).to_string(),
            Err(_) if path == "monitoring.timeout" => "7",
            Err(_) => "other",
        },
    }
    .to_owned()
}

#[test]
fn every_key_reaches_the_settings_by_its_variable_and_by_flag() {
    let base = || {
        let tokens = format!("# ours\nme:admin:{}\n", "cd".repeat(32));
        let setup = setup("").write("some-file", "other\n").write("tokens", &tokens);
        // Keys that need company: the user a password, a certificate its key.
        let file = setup.dir.path().join("some-file").display().to_string();
        setup.write(
            ".env",
            &format!(
                "KAFKA_USER=u\nKAFKA_PASSWORD=p\nKAFKA_CERTFILE={file}\nKAFKA_KEYFILE={file}\n\
                 WEBMON_DATABASE_SSL_CERTFILE={file}\nWEBMON_DATABASE_SSL_KEYFILE={file}\n"
            ),
        )
    };
    // Debug hides passwords: they are compared apart.
    let everything = |setup: &Setup| {
        let settings = setup.load().settings;
        let password = settings.database.password.as_ref().map(|p| p.expose_secret().to_owned());
        let sasl = settings.kafka.sasl.as_ref().map(|s| s.password.expose_secret().to_owned());
        let text = format!("{settings:?} {password:?} {sasl:?}");
        text.replace(&setup.dir.path().display().to_string(), "DIR")
    };
    let usual = everything(&base());
    for key in keys() {
        let setup = base();
        let mut value = other_value(key.path, setup.dir.path());
        let second = setup.dir.path().join("second-file");
        if key.path.ends_with("certfile") || key.path.ends_with("keyfile") {
            fs::copy(&value, &second).unwrap();
            value = second.display().to_string();
        }
        let by_variable = everything(&setup.env(&key.variable(), &value));
        assert_ne!(by_variable, usual, "{} changes nothing", key.variable());
        let setup = base().write("second-file", "other\n");
        let dir = setup.dir.path().display().to_string();
        let value = match value.rsplit_once('/') {
            Some((_, name)) if value.starts_with('/') => format!("{dir}/{name}"),
            _ => value,
        };
        let by_flag = everything(&setup.flag(key.path, &value));
        assert_eq!(by_flag, by_variable, "{}", key.path);
    }
}

#[test]
fn a_secret_in_each_way() {
    let file = "database: {password: in-file}\n";
    assert_eq!(password(&setup(file).load()), "in-file");
    let by_file = setup(file)
        .write("secret", "from file \r\n")
        .env("WEBMON_DATABASE_PASSWORD_FILE", "secret");
    assert_eq!(password(&by_file.load()), "from file ");
    let by_command = setup(file)
        .env("GREETING", "from command")
        .env("WEBMON_DATABASE_PASSWORD_COMMAND", "echo \" $GREETING \"");
    assert_eq!(password(&by_command.load()), "from command");
    assert_eq!(password(&by_command.flag("database.password", "flag").load()), "flag");
    let in_file = setup("database:\n  password_file: secret\n").write("secret", "one\n");
    assert_eq!(password(&in_file.load()), "one");
    let with_dollars = setup("database: {password: 'a$b$$c${D}'}\n").env("D", "d");
    assert_eq!(password(&with_dollars.load()), "a$b$cd");
    let number = setup("").env("DATABASE_PASSWD", SECRET_NUMBER);
    assert_eq!(password(&number.load()), SECRET_NUMBER);
}

#[test]
fn secrets_never_show() {
    let setup = setup(
        "database:\n  password_command: echo hunter2\nkafka:\n  sasl: {user: u, password: hunter2}\n\
         websites:\n- name: Shop\n  url: https://user:hunter2@shop.example/a?b=c\n  \
         headers: {X-Key: hunter2}\n  body: login=hunter2\n  username: u\n  password: hunter2\n  \
         proxy: http://u:hunter2@proxy.example/\n  tls_certificate: PEM\n  tls_key: hunter2\n\
         - {name: Bearer, url: https://b.example/, bearer_token: hunter2}\n",
    )
    .env("WEBMON_LOG_FORMAT", "json");
    let loaded = setup.load();
    assert_eq!(password(&loaded), SECRET);
    let site = &loaded.settings.websites[0];
    assert_eq!(site.headers, [("X-Key".to_owned(), SECRET.to_owned())]);
    check_no_secret(&format!("{:?}", site.settings));
    let built = site.build(1, loaded.settings.monitoring.defaults()).unwrap();
    check_no_secret(&format!("{:?} {:?}", built.more().access, built.more().proxy));
    let shown = show(&loaded);
    for text in [&shown, &format!("{loaded:?}"), &format!("{:#?}", loaded.settings)] {
        check_no_secret(text);
        assert!(text.contains("Shop"), "{text}");
    }
    assert!(shown.contains("https://********@shop.example/a?b=c"), "{shown}");
    for key in ["password", "proxy", "tls_key", "bearer_token"] {
        assert!(shown.contains(&format!("    {key}: \"********\"")), "{key} in:\n{shown}");
    }
    check_no_secret(&format!("{:?}", Setup::env(setup, "DATABASE_PASSWD", SECRET).sources));
}

#[test]
fn show_is_yaml_and_says_where_each_value_came_from() {
    let setup = setup(
        "database:\n  password: hunter2\n  host: '${HOST:-true}'\nmonitoring:\n  interval: 8\n\
         websites:\n  - name: \"a: b\"\n    url: https://a.example/\n    expected_status: [200, 301]\n",
    )
    .env("WEBMON_PRODUCER_SPOOL_MAX_BYTES", "2048MiB")
    .flag("log.level", "DEBUG");
    let loaded = setup.load();
    let shown = show(&loaded);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        "host: \"true\" # config.yaml:3",
        "password: \"********\" # config.yaml:2",
        "port: 5432 # default",
        "max_bytes: 2GiB # environment WEBMON_PRODUCER_SPOOL_MAX_BYTES",
        "timeout: 7 # default",
        "level: debug # command line",
        "password_file: # default",
        "- name: \"a: b\" # config.yaml:7",
        "expected_status: \"200,301\"",
    ] {
        assert!(shown.lines().any(|shown| words(shown) == line), "no line '{line}' in\n{shown}");
    }
    // What is shown can be read again, and gives the same but for what is hidden.
    let again = self::setup(&shown).load().settings;
    let monitoring = |settings: &webmon::config::Settings| format!("{:?}", settings.monitoring);
    assert_eq!(monitoring(&again), monitoring(&loaded.settings));
    assert_eq!(again.websites, loaded.settings.websites);
}

#[test]
fn websites_of_the_file() {
    let settings = setup(
        "monitoring: {interval: 20}\nwebsites:\n- name: One\n  url: https://one.example/\n- name: Two\n  \
         url: ${TWO}\n  interval: ${SECONDS:-60}\n  timeout: 5\n  pattern: 'ok$'\n  method: post\n  \
         headers: {X-Key: '${TWO}'}\n  body: |\n    a\n    b\n  expected_status: 204\n",
    )
    .env("TWO", "https://two.example/")
    .load()
    .settings;
    let [one, two] = settings.websites.as_slice() else { panic!("two sites") };
    assert_eq!((one.name.as_str(), one.interval, &one.regex), ("One", None, &None));
    assert_eq!(
        (two.url.as_str(), two.interval, two.timeout),
        ("https://two.example/", Some(60), Some(5))
    );
    assert_eq!((two.regex.as_deref(), two.body.as_deref()), (Some("ok$"), Some("a\nb\n")));
    assert_eq!(two.headers, [("X-Key".to_owned(), "https://two.example/".to_owned())]);
    assert_eq!(two.expected_status.as_deref(), Some("204"));
    let site = one.build(1, settings.monitoring.defaults()).unwrap();
    assert_eq!((site.interval.secs(), site.timeout.as_secs()), (20, 10));
}

#[test]
fn secrets_of_sites_come_from_a_directory_and_from_variables() {
    let setup = setup("monitoring: {secrets_dir: here, dns_cache: 7}\n")
        .env("WEBMON_SECRET_TOKEN", SECRET)
        .env("WEBMON_SECRET_NONE", "")
        .write(".env", "WEBMON_SECRET_FROM_FILE=f\n");
    let loaded = setup.load();
    let settings = &loaded.settings;
    assert_eq!(settings.monitoring.secrets_dir, Some(setup.dir.path().join("here")));
    assert_eq!(settings.monitoring.dns_cache.as_secs(), 7);
    let found: Vec<(&str, &str)> = settings
        .secret_variables
        .iter()
        .map(|(name, secret)| (name.as_str(), secret.expose_secret()))
        .collect();
    assert_eq!(found, [("WEBMON_SECRET_FROM_FILE", "f"), ("WEBMON_SECRET_TOKEN", SECRET)]);
    check_no_secret(&format!("{settings:?}"));
}

#[test]
fn faults_of_variables_and_flags_come_with_those_of_the_file() {
    let faults = setup("database: {port: 0}\nlog: {level: info}\n")
        .env("WEBMON_DATABASE_PORT", "70000")
        .env("WEBMON_DATABASE_PASWORD", SECRET)
        .env("WEBMON_TEST_POSTGRES", "postgres://fine")
        .env("WEBMON_ENV_FILE", "")
        .flag("monitoring.interval", "1")
        .flag("monitoring.colour", "blue")
        .faults();
    let lines: Vec<&str> = faults.lines().collect();
    assert_eq!(
        lines,
        [
            "config.yaml:1: database.port: '0' is out of range; write a whole number from 1 to 65535; \
             the default is 5432",
            "environment: WEBMON_DATABASE_PASWORD: is no variable of webmon; did you mean \
             WEBMON_DATABASE_PASSWORD?",
            "environment: WEBMON_DATABASE_PORT (database.port): '70000' is out of range; write a whole \
             number from 1 to 65535; the default is 5432",
            "command line: monitoring.interval: '1' is out of range; write a whole number from 5 to \
             86400 (seconds); the default is 30",
            "command line: monitoring.colour: is no key of webmon; config.yaml lists all keys",
        ]
    );
}
