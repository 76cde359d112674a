//! The consumer as a user runs it: what it does while the database refuses, when the group moves
//! on without it, when nobody reads its console, and when messages come twice.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

mod support;

use std::io::Read;

use rustix::process::Signal;
use support::daemon::Lab;
use support::eventually;
use support::topic::{Topic, lines_with, metric};

/// A lab with tables, one more site, and a topic of so many partitions.
fn lab(prefix: &str, partitions: i32) -> (Lab, Topic) {
    let lab = Lab::new(prefix);
    assert!(lab.run(&["migrate"]).status.success());
    let topic = Topic::new(&lab, partitions);
    (lab, topic)
}

fn count(lab: &Lab, table: &str) -> i64 {
    lab.query(&format!("SELECT count(*) FROM {table}")).unwrap()
}

/// Publishes while a fault lasts, and sees that the consumer waits and goes on.
#[test]
fn each_outage_is_waited_out_and_told_once() {
    let (mut lab, mut topic) = lab("outages", 4);
    let (role, database) = (lab.database.name.clone(), lab.database.name.clone());
    let mut admin = lab.database.client();
    // A role of its own, whose password may change; it makes partitions, so it owns the tables.
    admin
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'plain'; GRANT ALL ON SCHEMA public TO {role}; \
             DO $$ DECLARE name text; BEGIN FOR name IN SELECT format('%I', relname) FROM pg_class \
             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LOOP \
             EXECUTE 'ALTER TABLE ' || name || ' OWNER TO {role}'; END LOOP; END $$"
        ))
        .unwrap();
    lab.set("WEBMON_DATABASE_USER", &role).set("WEBMON_DATABASE_PASSWORD", "plain");
    let consumer = lab.start("consumer", &[]);
    let mut sent = topic.publish_checks(100);
    lab.wait_for_count("rows before", "SELECT count(*) FROM check_entry", sent);

    let kick =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    let read_only = |to: &str| {
        format!(
            "ALTER DATABASE {database} SET default_transaction_read_only = {to}; \
                 SET default_transaction_read_only = off"
        )
    };
    let trigger = "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   RAISE 'No space left on device' USING ERRCODE = '53100'; END $$; \
                   CREATE TRIGGER full BEFORE INSERT ON check_entry \
                   FOR EACH STATEMENT EXECUTE FUNCTION full()";
    let faults = [
        ("25006", read_only("on"), read_only("off")),
        ("53100", trigger.to_owned(), "DROP TRIGGER full ON check_entry".to_owned()),
        (
            "28P01",
            format!("ALTER ROLE {role} PASSWORD 'other'"),
            format!("ALTER ROLE {role} PASSWORD 'plain'"),
        ),
        (
            "42P01",
            "ALTER TABLE check_entry RENAME TO elsewhere".to_owned(),
            "ALTER TABLE elsewhere RENAME TO check_entry".to_owned(),
        ),
    ];
    let trigger_name = |sql: &str| sql.replace("full", "no_space");
    for (number, (code, begin, end)) in (1..).zip(faults) {
        admin.batch_execute(&trigger_name(&begin)).unwrap();
        admin.batch_execute(&kick).unwrap();
        sent += topic.publish_checks(500);
        eventually("the consumer says why it is not ready", || {
            let (status, text) = consumer.get("/readyz?verbose");
            let says = text.lines().any(|l| l.contains("storing") && l.contains(code));
            if status == 503 && says { Ok(()) } else { Err(text) }
        });
        assert_eq!(consumer.get("/livez").0, 200);
        let failures = metric(&consumer, "webmon_insert_failures_total");
        let look = || metric(&consumer, "webmon_insert_failures_total");
        if code == "53100" {
            eventually("it tries again and again", || match look() {
                now if now >= failures + 5.0 => Ok(()),
                now => Err(now),
            });
        }
        // The log's reader may be a moment behind the listener.
        eventually("it was told once", || {
            match lines_with(&consumer, "cannot save, messages wait in Kafka").len() {
                told if told == number => Ok(()),
                told => Err(told),
            }
        });
        admin.batch_execute(&trigger_name(&end)).unwrap();
        lab.wait_for_count("the rows of the outage", "SELECT count(*) FROM check_entry", sent);
        eventually("it is ready again", || {
            let (status, text) = consumer.get("/readyz?verbose");
            if status == 200 { Ok(()) } else { Err(text) }
        });
        eventually("one line at the start, and one for each end", || {
            match lines_with(&consumer, "\"saving\"").len() {
                healed if healed == number + 1 => Ok(()),
                healed => Err(healed),
            }
        });
    }
    assert_eq!(count(&lab, "check_entry"), sent, "every check once");
    assert_eq!(count(&lab, "rejected_message"), 0, "an outage rejects nothing");
    let told = lines_with(&consumer, "cannot save, messages wait in Kafka").len();
    assert_eq!(told, 4, "nothing is told twice");
    consumer.stop();
    drop(topic);
    admin
        .batch_execute(&format!(
            "REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}"
        ))
        .unwrap();
}

/// The first consumer stands still with its rows on the way; the group gives its partitions to the
/// second one, which stores them. When the first one wakes up, its rows are there already, and
/// what it commits is refused.
#[test]
fn a_commit_of_an_assignment_that_is_over_is_refused() {
    let (mut lab, mut topic) = lab("stale", 2);
    lab.set("WEBMON_KAFKA_CONSUMER_SESSION_TIMEOUT", "6").set("WEBMON_CONSUMER_THREADS", "1");
    let first = lab.start("consumer", &[]);
    first.wait_for_log("group joined");
    let mut client = lab.database.client();
    // Whoever inserts waits for this lock, until its statement's time is over; a lock's own time
    // would be over too soon.
    client
        .batch_execute(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ \
             BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$; \
             CREATE TRIGGER hold BEFORE INSERT ON check_entry \
             FOR EACH STATEMENT EXECUTE FUNCTION hold(); SELECT pg_advisory_lock(4711)",
        )
        .unwrap();
    let sent = topic.publish_checks(200);
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 \
                   AND NOT granted AND database = (SELECT oid FROM pg_database \
                   WHERE datname = current_database())";
    lab.wait_for_count("the first one's rows are on the way", waiting, 1);
    first.signal(Signal::STOP);
    // The others don't wait.
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ \
             BEGIN RETURN NULL; END $$",
        )
        .unwrap();
    let second = lab.start("consumer", &[]);
    eventually("the second one has all partitions", || {
        let joined = lines_with(&second, "group joined");
        let all = joined.last().is_some_and(|line| line.contains("\"partitions\":2"));
        if all { Ok(()) } else { Err(joined) }
    });
    lab.wait_for_count("the second one's rows", "SELECT count(*) FROM check_entry", sent);
    eventually("the second one has committed", || match topic.committed(&lab) {
        offsets if offsets.iter().sum::<i64>() == sent => Ok(()),
        offsets => Err(offsets),
    });
    assert_eq!(lab.query::<i64>(waiting), Ok(1), "the first one's statement still waits");
    first.signal(Signal::CONT);
    client.batch_execute("SELECT pg_advisory_unlock(4711)").unwrap();
    first.wait_for_log("commit refused: the group has moved on");
    let known =
        metric(&first, "webmon_rows_known_total") + metric(&second, "webmon_rows_known_total");
    assert!(known > 0.0, "both had rows of the same checks");
    // It joins again, and both go on.
    let sent = sent + topic.publish_checks(200);
    lab.wait_for_count("later rows", "SELECT count(*) FROM check_entry", sent);
    eventually("all is committed", || match topic.committed(&lab) {
        offsets if offsets.iter().sum::<i64>() == sent => Ok(()),
        offsets => Err(offsets),
    });
    assert_eq!(count(&lab, "check_entry"), sent, "no row twice");
    first.stop();
    second.stop();
}

/// Nobody reads the console, and the pipe is full: the rows go on, and the lines are counted.
#[test]
fn a_console_that_nobody_reads_holds_no_row_up() {
    let (lab, mut topic) = lab("stalled", 2);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    let consumer = lab.start_into(&path, "consumer", &["--sink", "postgres,console"]);
    drop(writer);
    let mut sent = topic.publish_checks(20_000);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", sent);
    // What was published while the queue had room may all have found some.
    eventually("lines are dropped", || {
        sent += topic.publish_checks(5000);
        match metric(&consumer, "webmon_console_dropped_total") {
            0.0 => Err("none yet"),
            _ => Ok(()),
        }
    });
    lab.wait_for_count("all rows", "SELECT count(*) FROM check_entry", sent);
    assert_eq!(lines_with(&consumer, "nobody reads the console fast enough").len(), 1);
    // Somebody reads again.
    let mut line = [0; 8];
    reader.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"{\"v\":1,\"");
    let mut buffer = vec![0; 1 << 20];
    eventually("the console goes on", || {
        let _ = reader.read(&mut buffer).unwrap();
        sent += topic.publish_checks(1);
        match lines_with(&consumer, "console goes on").len() {
            0 => Err("not yet"),
            _ => Ok(()),
        }
    });
    lab.wait_for_count("all rows", "SELECT count(*) FROM check_entry", sent);
    drop(reader);
    consumer.stop();
}

/// A message that comes twice is one row, and its lateness counts once.
#[test]
fn replays_are_counted_apart() {
    let (lab, mut topic) = lab("twice", 2);
    let consumer = lab.start("consumer", &[]);
    let sent = topic.publish_checks(300);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", sent);
    topic.publish_again(100);
    eventually("the second ones are known", || {
        match metric(&consumer, "webmon_rows_known_total") {
            100.0 => Ok(()),
            known => Err(known),
        }
    });
    assert_eq!(metric(&consumer, "webmon_rows_inserted_total"), 300.0);
    assert_eq!(metric(&consumer, "webmon_end_to_end_seconds_count"), 300.0);
    assert_eq!(metric(&consumer, "webmon_fetched_total"), 400.0);
    assert_eq!(count(&lab, "check_entry"), sent);
    consumer.stop();
}
