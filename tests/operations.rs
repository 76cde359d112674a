//! What docs/operations.md tells operators to do, done as it says, while sites are checked: each
//! answer of the sites' web server is one row afterwards.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests too

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::daemon::Lab;
use support::eventually;
use support::services::{TestDatabase, unique};
use support::web::Web;

const ROWS: &str = "SELECT count(*) FROM check_entry WHERE outcome <> 'missed'";

/// Eight sites, each every 5 s.
fn lab(web: &Web, name: &str) -> Lab {
    let mut lab = Lab::new(name);
    let site = |n| format!("- {{name: s{n}, url: '{}', interval: 5}}\n", web.url(&format!("/{n}")));
    let sites: String = (0..8).map(site).collect();
    lab.config(&format!("websites:\n{sites}"));
    lab
}

fn web() -> Web {
    Web::start(|_| (200, "well".to_owned()))
}

/// One of PostgreSQL's programs, at a database.
fn pg(program: &str, database: &TestDatabase, args: &[&str]) {
    let folder = std::env::var_os("WEBMON_TEST_PG_BIN").map_or_else(PathBuf::new, PathBuf::from);
    let output = Command::new(folder.join(program))
        .args(["--host", &database.host, "--port", &database.port.to_string()])
        .args(["--username", &database.user, "--dbname", &database.name])
        .args(args)
        .env("PGPASSWORD", &database.password)
        .output()
        .expect("PostgreSQL's program starts");
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

fn dump(lab: &Lab) -> String {
    let file = lab.dir.path().join("webmon.dump").display().to_string();
    pg("pg_dump", &lab.database, &["--format=custom", "--file", &file]);
    file
}

fn restore(database: &TestDatabase, file: &str) {
    pg("pg_restore", database, &["--exit-on-error", "--no-owner", file]);
}

fn count(database: &TestDatabase, sql: &str) -> i64 {
    database.client().query_one(sql, &[]).expect("a count").get(0)
}

/// Waits until each answer of the web server is a row of `database`, and no more.
fn every_answer_is_a_row(web: &Web, database: &TestDatabase) {
    let hits = i64::try_from(web.all_hits()).expect("a count");
    eventually("every answer is a row", || match count(database, ROWS) {
        rows if rows == hits => Ok(()),
        rows => Err(format!("{rows} rows of {hits} answers")),
    });
}

fn more_answers(web: &Web) {
    let wanted = web.all_hits() + 8;
    eventually("checks go on", || match web.all_hits() {
        hits if hits >= wanted => Ok(()),
        hits => Err(format!("{hits} of {wanted}")),
    });
}

#[test]
fn a_backup_is_restored_into_a_database_without_tables() {
    let (web, lab) = {
        let web = web();
        let lab = lab(&web, "backup");
        (web, lab)
    };
    let (consumer, producer) = (lab.start("consumer", &[]), lab.start("producer", &[]));
    more_answers(&web);
    producer.stop();
    every_answer_is_a_row(&web, &lab.database);
    consumer.stop();
    let everything = "SELECT count(*) FROM (SELECT check_entry_id::text FROM check_entry \
                      UNION SELECT name FROM website UNION SELECT version::text FROM schema_migration) a";
    let before = count(&lab.database, everything);
    let file = dump(&lab);
    assert_eq!(lab.run(&["drop", &lab.database.password]).status.code(), Some(0));
    restore(&lab.database, &file);
    assert_eq!(count(&lab.database, everything), before);
    let migrate = lab.run(&["migrate"]);
    assert!(String::from_utf8_lossy(&migrate.stdout).contains("up to date"), "{migrate:?}");
    // It goes on where it was: the topic's old messages make no second row.
    let (consumer, producer) = (lab.start("consumer", &[]), lab.start("producer", &[]));
    more_answers(&web);
    producer.stop();
    every_answer_is_a_row(&web, &lab.database);
    consumer.stop();
}

#[test]
fn the_database_is_moved_by_dump_and_restore_while_checks_go_on() {
    let web = web();
    let mut lab = lab(&web, "move");
    let (consumer, producer) = (lab.start("consumer", &[]), lab.start("producer", &[]));
    lab.wait_for_count("first rows", ROWS, 1);
    consumer.stop();
    let left_behind = count(&lab.database, ROWS);
    let new = TestDatabase::create("moved");
    restore(&new, &dump(&lab));
    more_answers(&web);
    lab.set("WEBMON_DATABASE_DB", &new.name);
    let consumer = lab.start("consumer", &[]);
    producer.stop();
    let producer = lab.start("producer", &[]);
    more_answers(&web);
    producer.stop();
    every_answer_is_a_row(&web, &new);
    consumer.stop();
    assert_eq!(count(&lab.database, ROWS), left_behind, "nothing more came to the old one");
}

#[test]
fn both_databases_are_filled_until_the_old_one_is_left() {
    let web = web();
    let mut lab = lab(&web, "both");
    let (consumer, producer) = (lab.start("consumer", &[]), lab.start("producer", &[]));
    lab.wait_for_count("first rows", ROWS, 1);
    let new = TestDatabase::create("both_new");
    restore(&new, &dump(&lab));
    // The consumers of the new database are a group of their own, which begins at the topic's begin.
    lab.set("WEBMON_DATABASE_DB", &new.name).set("WEBMON_KAFKA_CONSUMER_GROUP", &unique("group"));
    let second = lab.start("consumer", &[]);
    more_answers(&web);
    producer.stop();
    let producer = lab.start("producer", &[]);
    more_answers(&web);
    producer.stop();
    every_answer_is_a_row(&web, &lab.database);
    every_answer_is_a_row(&web, &new);
    consumer.stop();
    second.stop();
}

#[test]
fn the_topic_is_changed_while_checks_go_on() {
    let web = web();
    let mut lab = lab(&web, "topic");
    let (consumer, producer) = (lab.start("consumer", &[]), lab.start("producer", &[]));
    lab.wait_for_count("first rows", ROWS, 1);
    lab.set("WEBMON_KAFKA_TOPIC", &unique("topic_new"));
    let second = lab.start("consumer", &[]);
    producer.stop();
    let producer = lab.start("producer", &[]);
    more_answers(&web);
    producer.stop();
    every_answer_is_a_row(&web, &lab.database);
    consumer.stop();
    second.stop();
}

#[test]
fn the_database_password_is_changed_without_loss() {
    let web = web();
    let mut lab = lab(&web, "rotate");
    let role = unique("role");
    let statement = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'old'; ALTER DATABASE {} OWNER TO {role}; \
         GRANT ALL ON SCHEMA public TO {role}",
        lab.database.name
    );
    lab.database.client().batch_execute(&statement).expect("a role");
    let file = lab.dir.path().join("password");
    std::fs::write(&file, "old\n").expect("a password");
    let file = file.display().to_string();
    lab.env.remove("WEBMON_DATABASE_PASSWORD");
    lab.set("WEBMON_DATABASE_USER", &role).set("WEBMON_DATABASE_PASSWORD_FILE", &file);
    let (consumer, producer) = (lab.start("consumer", &[]), lab.start("producer", &[]));
    lab.wait_for_count("first rows", ROWS, 1);

    std::fs::write(&file, "new\n").expect("a password");
    let change = format!("ALTER ROLE {role} PASSWORD 'new'");
    lab.database.client().batch_execute(&change).expect("a new password");
    // All connections are cut as well: the worst that can happen in between.
    let cut =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    lab.database.client().batch_execute(&cut).expect("cut");
    more_answers(&web);
    eventually("the consumer says so", || match consumer.get("/readyz?verbose") {
        (503, text) if text.contains("password") => Ok(()),
        other => Err(other),
    });
    consumer.stop();
    let consumer = lab.start("consumer", &[]);
    producer.stop();
    let producer = lab.start("producer", &[]);
    more_answers(&web);
    producer.stop();
    every_answer_is_a_row(&web, &lab.database);
    consumer.stop();
    let back =
        format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}");
    lab.database.client().batch_execute(&back).expect("the role goes");
}
