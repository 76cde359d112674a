//! `webmon doctor`: real faults, each found with its cure.

use std::collections::BTreeMap;
use std::net::TcpListener;

use serde_json::Value;

use crate::broker::{TestTopic, shared};
use crate::support::clock::Clock;
use crate::support::cluster::Cluster;
use crate::support::daemon::Lab;
use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::services::{TestDatabase, kafka_servers, unique};
use crate::{json, migrate, quiet, run};

/// A lab without a fault.
fn well(prefix: &str) -> Lab {
    let lab = quiet(Lab::new(prefix));
    migrate(&lab);
    run(&lab, &["topic", "create"], 0);
    lab
}

/// Expects a bad line of `subject` that says `said`, with a cure that has `cure`.
#[track_caller]
fn expect_bad(report: &Value, subject: &str, said: &str, cure: &str) {
    let checks = report["checks"].as_array().expect("checks");
    let has =
        |line: &Value, key: &str, part: &str| line[key].as_str().is_some_and(|t| t.contains(part));
    let found = checks.iter().any(|line| {
        line["state"] == "bad"
            && line["subject"] == subject
            && has(line, "said", said)
            && has(line, "cure", cure)
    });
    assert!(found, "no bad '{subject}' with '{said}' and '{cure}':\n{report:#}");
}

#[track_caller]
fn check(lab: &Lab, code: i32, subject: &str, said: &str, cure: &str) -> Value {
    let (report, ended) = json(lab, &["doctor"]);
    expect_bad(&report, subject, said, cure);
    assert_eq!(ended, Some(code), "{report:#}");
    report
}

fn states<'a>(report: &'a Value, subject: &'a str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().expect("checks").iter();
    checks.filter(|l| l["subject"] == subject).map(|l| l["state"].as_str().unwrap()).collect()
}

#[test]
fn a_sound_set_up_has_no_fault() {
    let lab = well("doctor");
    let (report, code) = json(&lab, &["doctor"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!((&report["bad"], &report["is_well"]), (&0.into(), &true.into()), "{report:#}");
    for subject in ["configuration", "broker", "topic", "database", "clock", "open files", "spool"]
    {
        assert!(states(&report, subject).contains(&"ok"), "{subject}: {report:#}");
    }
    let said = run(&lab, &["doctor"], 0);
    assert!(said.contains("ok       broker"), "{said}");
    for line in said.lines().filter(|line| line.starts_with("ok ")) {
        let column = line.get(24..).unwrap_or_default();
        assert!(column.starts_with("  ") && !column.starts_with("   "), "{line}\n{said}");
    }
    assert!(said.contains("cure: start 'consumer'"), "a warning has its cure:\n{said}");
}

#[test]
fn a_run_without_a_broker_has_no_fault() {
    let mut lab = quiet(Lab::new("doctor_local"));
    lab.set("WEBMON_KAFKA_SERVERS", &format!("broker.invalid:{}", free_port()));
    migrate(&lab);
    let local = lab.start("webmon", &["run", "--bus", "local"]);
    let pid = format!("pid {}", local.pid());
    let report = eventually("it is seen", || {
        let (report, code) = json(&lab, &["doctor"]);
        if code == Some(0) { Ok(report) } else { Err(report.to_string()) }
    });
    assert_eq!(report["bad"], 0, "{report:#}");
    for subject in ["broker", "topic", "group"] {
        assert_eq!(states(&report, subject), ["ok"], "{report:#}");
    }
    assert!(report.to_string().contains(&pid), "{report:#}");
    let said = run(&lab, &["round-trip", "--timeout", "2"], 4);
    assert!(said.contains("only 'run --bus local' runs") && said.contains(&pid), "{said}");

    // With a topic that nobody reads it is the cause as well.
    lab.set("WEBMON_KAFKA_SERVERS", &kafka_servers().join(","));
    let said = run(&lab, &["round-trip"], 4);
    assert!(said.contains("no topic") && said.contains("'run --bus local'"), "{said}");
    run(&lab, &["topic", "create"], 0);
    let said = run(&lab, &["round-trip", "--timeout", "2"], 4);
    assert!(said.contains("only 'run --bus local' runs"), "{said}");
    assert!(!said.contains("start 'consumer'"), "{said}");
    local.stop();
    assert!(!json(&lab, &["doctor"]).0.to_string().contains("not needed"));
}

#[test]
fn a_database_that_is_not_there() {
    let mut lab = well("doctor_db");
    lab.set("WEBMON_DATABASE_DB", "nowhere");
    check(&lab, 2, "database", "does not exist", "CREATE DATABASE \"nowhere\" OWNER");
    lab.env.remove("WEBMON_DATABASE_PASSWORD");
    check(&lab, 2, "database", "password missing", "set WEBMON_DATABASE_PASSWORD, or");
    let said = run(&lab, &["doctor"], 2);
    assert!(said.contains("webmon doctor: 1 bad, "), "{said}");
}

#[test]
fn a_configuration_with_faults_lists_them_all() {
    let mut lab = quiet(Lab::new("doctor_config"));
    lab.set("WEBMON_DATABASE_PORT", "many").set("WEBMON_CONSUMER_THREADS", "0");
    let report = check(&lab, 2, "configuration", "WEBMON_DATABASE_PORT", "");
    assert_eq!(states(&report, "configuration"), ["bad", "bad"]);
}

#[test]
fn a_closed_port_and_the_database_behind_it() {
    let mut lab = well("doctor_broker");
    let closed = format!("127.0.0.1:{}", free_port());
    lab.set("WEBMON_KAFKA_SERVERS", &closed);
    let report = check(&lab, 4, "broker", &closed, "see that the broker runs");
    assert!(states(&report, "database").contains(&"ok"), "the rest is looked at: {report:#}");
    // One of several is a fault too, and the topic is looked at through the others.
    lab.set("WEBMON_KAFKA_SERVERS", &format!("{closed},{}", kafka_servers()[0]));
    let report = check(&lab, 4, "broker", &closed, "see that the broker runs");
    assert_eq!(states(&report, "topic"), ["ok"]);
}

#[test]
fn a_topic_that_loses_results() {
    let mut lab = quiet(Lab::new("doctor_topic"));
    migrate(&lab);
    let topic = TestTopic::new(shared(), "doctor-topic");
    topic.create_with(8, &[("cleanup.policy", "compact,delete"), ("retention.ms", "60000")]);
    lab.set("WEBMON_KAFKA_TOPIC", &topic.name);
    let report = check(
        &lab,
        1,
        "topic",
        "cleanup.policy=compact,delete",
        "--add-config cleanup.policy=delete",
    );
    expect_bad(&report, "topic", "retention.ms=60000", "--add-config retention.ms=");
}

#[test]
fn a_role_without_rights_and_a_wrong_password() {
    let mut lab = well("doctor_rights");
    let role = unique("doctor");
    let mut admin = lab.database.client();
    admin
        .batch_execute(&format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD 'pw'; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        ))
        .expect("a role");
    lab.set("WEBMON_DATABASE_USER", &role).set("WEBMON_DATABASE_PASSWORD", "pw");
    let (report, code) = json(&lab, &["doctor"]);
    lab.set("WEBMON_DATABASE_PASSWORD", "wrong");
    let (refused, refused_code) = json(&lab, &["doctor"]);
    admin.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).expect("no role");
    expect_bad(&report, "database rights", "may not make tables", "GRANT USAGE, CREATE ON SCHEMA");
    expect_bad(&report, "database rights", "webmon's tables belong to", "GRANT ");
    assert_eq!(code, Some(1), "{report:#}");
    expect_bad(&refused, "database", "password", "database.user");
    assert_eq!(refused_code, Some(2), "{refused:#}");
}

#[test]
fn a_database_that_is_away() {
    let cluster = Cluster::start(&[], &[], &[]);
    let database = TestDatabase::create_at(&cluster.url(), "doctor_away");
    let lab = quiet(Lab::at(database, &kafka_servers().join(","), "doctor_away"));
    let frozen = cluster.freeze();
    let report = check(&lab, 4, "database", "", "see that PostgreSQL runs");
    assert!(states(&report, "broker").contains(&"ok"), "a server that is silent: {report:#}");
    drop(frozen);
    cluster.stop_at_once();
    let report = check(&lab, 4, "database", "refused", "see that PostgreSQL runs");
    assert!(states(&report, "broker").contains(&"ok"), "the rest is looked at: {report:#}");
}

/// The report of a doctor that was started by other words or with other variables.
fn report_of(lab: &Lab, env: &BTreeMap<String, String>) -> (Value, Option<i32>) {
    let mut doctor = lab.start_with("webmon", &["doctor", "--json"], env);
    let code = doctor.wait().code();
    let report = eventually("the report is read", || {
        let said = doctor.output().join("\n");
        serde_json::from_str(&said).map_err(|error| format!("{error}: {said}{:?}", doctor.log()))
    });
    (report, code)
}

#[test]
fn too_few_open_files() {
    let mut lab = well("doctor_files");
    let limit = ["prlimit", "--nofile=200:200"].map(str::to_owned).to_vec();
    lab.wrappers.insert("webmon".to_owned(), limit);
    let (report, code) = report_of(&lab, &BTreeMap::new());
    expect_bad(&report, "open files", "200 may be open", "ulimit -n 512");
    assert_eq!(code, Some(1), "{report:#}");
}

#[test]
fn a_clock_that_is_apart() {
    let lab = well("doctor_clock");
    let clock = Clock::new();
    let env: BTreeMap<String, String> = clock.variables().into_iter().collect();
    clock.set(7200);
    let (report, code) = report_of(&lab, &env);
    expect_bad(&report, "clock", "s ahead of the database's", "time server");
    assert_eq!(code, Some(1), "{report:#}");
    clock.set(-60);
    let (report, code) = report_of(&lab, &env);
    assert_eq!((states(&report, "clock"), code), (vec!["warning"], Some(0)), "{report:#}");
}

#[test]
fn a_spool_that_cannot_be_and_a_port_that_is_taken() {
    let mut lab = well("doctor_machine");
    let file = lab.dir.path().join("file");
    std::fs::write(&file, "").expect("a file");
    lab.set("WEBMON_PRODUCER_SPOOL_DIR", &file.join("spool").display().to_string());
    check(&lab, 1, "spool", "is a file", "producer.spool.dir");
    let spool = lab.dir.path().join("spool").display().to_string();
    lab.set("WEBMON_PRODUCER_SPOOL_DIR", &spool);

    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("its address").to_string();
    lab.set("WEBMON_CONSUMER_LISTEN", &address);
    check(&lab, 1, "consumer.listen", &address, "set consumer.listen to another port");
    lab.set("WEBMON_CONSUMER_LISTEN", "127.0.0.1:0");

    // A daemon's own port and spool are no fault.
    let producer = lab.start("producer", &[]);
    lab.set("WEBMON_PRODUCER_LISTEN", &producer.address());
    let (report, code) = json(&lab, &["doctor"]);
    assert_eq!(code, Some(0), "{report:#}");
    let said = report.to_string();
    assert!(said.contains(&format!("in use by producer (pid {})", producer.pid())), "{said}");
    assert!(said.contains("is webmon's own, and answers"), "{said}");
}

#[test]
fn a_secret_that_everybody_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let mut lab = well("doctor_secret");
    let file = lab.dir.path().join("password");
    std::fs::write(&file, &lab.database.password).expect("a file");
    let mode = |mode| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    lab.env.remove("WEBMON_DATABASE_PASSWORD");
    lab.set("WEBMON_DATABASE_PASSWORD_FILE", &file.display().to_string());
    mode(0o644);
    let (report, code) = json(&lab, &["doctor"]);
    assert_eq!((states(&report, "secrets"), code), (vec!["warning"], Some(0)), "{report:#}");
    mode(0o600);
    let (report, _) = json(&lab, &["doctor"]);
    assert_eq!(states(&report, "secrets"), ["ok"], "{report:#}");
}
