//! `webmon rejected` as a user types it.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

mod support;

use std::panic::AssertUnwindSafe;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::daemon::Lab;
use support::topic::Topic;

/// Checks that are published at once while a replay goes on.
const PORTION: i64 = 50;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `webmon rejected …`; its exit code must be this.
fn run(lab: &Lab, args: &[&str], code: i32) -> Output {
    let output = lab.run(&[&["rejected"], args].concat());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    output
}

fn json(lab: &Lab, args: &[&str], code: i32) -> Value {
    let output = run(lab, &[args, &["--json"]].concat(), code);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// A lab in which a consumer has rejected messages of all kinds, and its topic.
fn lab() -> (Lab, Topic) {
    let lab = Lab::new("rejected");
    assert!(lab.run(&["migrate"]).status.success());
    let mut topic = Topic::new(&lab, 1);
    let message = |website_id: i64| {
        let mut message = Vec::new();
        let identity = webmon::check::Identity::new(website_id, "lab");
        let mut check = topic.check(0);
        check.website_id = website_id;
        check.check_entry_id = identity.check_entry_id(check.scheduled_at);
        webmon::wire::encode(&check, &mut message);
        message
    };
    let payloads: Vec<Vec<u8>> = vec![
        b"no json".to_vec(),
        b"\xff\xfe\x00\x01".to_vec(),
        message(90_001),
        message(90_002),
        message(90_003),
        br#"{"v":9}"#.to_vec(),
    ];
    let messages: Vec<(String, Vec<u8>)> =
        payloads.into_iter().map(|payload| ("1".to_owned(), payload)).collect();
    topic.publish(&messages);
    let checks = topic.publish_checks(10);
    let consumer = lab.start("consumer", &[]);
    lab.wait_for_count("rows", "SELECT count(*) FROM check_entry", checks);
    lab.wait_for_count("rejected ones", "SELECT count(*) FROM rejected_message", 6);
    consumer.stop();
    (lab, topic)
}

fn add_site(lab: &Lab, website_id: i64) {
    lab.database
        .client()
        .execute(
            "INSERT INTO website (website_id, name, url) OVERRIDING SYSTEM VALUE \
             VALUES ($1, $2, 'http://late/')",
            &[&website_id, &format!("late {website_id}")],
        )
        .unwrap();
}

fn left(lab: &Lab) -> i64 {
    lab.query("SELECT count(*) FROM rejected_message").unwrap()
}

#[test]
fn rejected_messages_are_listed_shown_replayed_and_deleted() {
    let (lab, _topic) = lab();
    let place = |offset: i64| format!("{}/0/{offset}", lab.topic);

    // The list, page by page.
    let listed = text(&run(&lab, &["list"], 0).stdout);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 7, "{listed}");
    assert!(lines[0].starts_with("REJECTED AT") && lines[0].ends_with("REASON"), "{listed}");
    assert!(listed.contains(&place(2)) && listed.contains("unknown website"), "{listed}");
    let (mut offsets, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["list", "--limit", "2"];
        if let Some(cursor) = &cursor {
            args.extend(["--cursor", cursor]);
        }
        let page = json(&lab, &args, 0);
        offsets.extend(
            page["items"].as_array().unwrap().iter().map(|i| i["offset"].as_i64().unwrap()),
        );
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5]);
    let items = json(&lab, &["list", "--limit", "1"], 0)["items"].clone();
    let (message, time) = (&items[0]["message"], &items[0]["rejected_at"]);
    let place_of = format!("{}/0/{}", lab.topic, items[0]["offset"]);
    assert_eq!(message.as_str(), Some(place_of.as_str()), "{items}");
    assert_eq!(time.as_str().map(str::len), Some(24), "milliseconds: {items}");
    let unknown = json(&lab, &["list", "--reason", "Unknown", "--since", "1h"], 0);
    assert_eq!(unknown["items"].as_array().unwrap().len(), 3);
    let none = run(&lab, &["list", "--before", "1h"], 0);
    assert!(none.stdout.is_empty() && text(&none.stderr).contains("no rejected messages"));

    // One, by what it is.
    let shown = text(&run(&lab, &["show", &place(2)], 0).stdout);
    assert!(
        shown.contains("\"website_id\": 90001") && shown.contains("unknown website"),
        "{shown}"
    );
    let shown = text(&run(&lab, &["show", &place(1)], 0).stdout);
    assert!(shown.contains("00000000  ff fe 00 01") && shown.contains("no UTF-8"), "{shown}");
    assert_eq!(run(&lab, &["show", &place(1), "--raw"], 0).stdout, b"\xff\xfe\x00\x01");
    assert_eq!(json(&lab, &["show", &place(0)], 0)["payload"], "no json");
    assert_eq!(json(&lab, &["show", &place(1)], 0)["payload_hex"], "fffe0001");

    // Replay: nothing has changed, one site is there, all are there.
    let still = json(&lab, &["replay", "--all"], 1);
    assert_eq!((&still["stored"], still["rejected"].as_array().unwrap().len()), (&0.into(), 6));
    assert_eq!(still["rejected"][0]["partition"], 0, "{still}");
    assert_eq!((&still["still_rejected"], &still["rejected_left_out"]), (&6.into(), &0.into()));
    add_site(&lab, 90_001);
    let dry = run(&lab, &["replay", "--reason", "unknown", "--dry-run"], 1);
    let said = text(&dry.stdout);
    assert_eq!(
        said,
        "3 messages: 1 would be stored, 0 were stored already, 2 would still be rejected\n"
    );
    assert_eq!(left(&lab), 6);
    run(&lab, &["replay", &place(2)], 0);
    assert_eq!(left(&lab), 5);
    add_site(&lab, 90_002);
    add_site(&lab, 90_003);
    let done = json(&lab, &["replay", "--reason", "unknown"], 0);
    assert_eq!((&done["stored"], &done["known"]), (&2.into(), &0.into()));
    let again = json(&lab, &["replay", "--reason", "unknown"], 0);
    assert_eq!((&again["stored"], &again["known"]), (&0.into(), &0.into()));
    let rows: i64 = lab.query("SELECT count(*) FROM check_entry WHERE website_id > 90000").unwrap();
    assert_eq!((rows, left(&lab)), (3, 3));

    // Removal.
    let refused = run(&lab, &["delete", "--all"], 2);
    assert!(text(&refused.stderr).contains("removes 3 messages for good; add --yes"));
    assert_eq!(left(&lab), 3);
    let deleted = text(&run(&lab, &["delete", &place(0)], 0).stdout);
    assert_eq!(deleted, "1 message deleted\n");
    assert_eq!(left(&lab), 2);
    assert_eq!(json(&lab, &["delete", "--all", "--yes"], 0)["deleted"], 2);
    assert_eq!(left(&lab), 0);
}

#[test]
fn what_is_not_there_is_told_by_the_exit_code() {
    let mut lab = Lab::new("rejected_codes");
    for args in [&["list"][..], &["replay", "--all"], &["show", "webmon/0/7"]] {
        let output = run(&lab, args, 2);
        assert!(text(&output.stderr).contains("run 'webmon migrate'"), "{output:?}");
    }
    assert!(lab.run(&["migrate"]).status.success());
    for command in ["show", "replay", "delete"] {
        let output = run(&lab, &[command, "webmon/0/7"], 3);
        assert!(text(&output.stderr).contains("no rejected message webmon/0/7"), "{output:?}");
    }
    for wrong in [
        &["show", "webmon"][..],
        &["replay"],
        &["delete"],
        &["list", "--limit", "0"],
        &["list", "--since", "yesterday"],
        &["list", "--cursor", "x"],
        &["replay", "--all", "--reason", "x"],
        &["show", "webmon/0/7", "--raw", "--json"],
    ] {
        run(&lab, wrong, 2);
    }
    assert_eq!(json(&lab, &["replay", "--all"], 0)["stored"], 0);
    // What a person has to mend is no outage.
    let database = lab.database.name.clone();
    lab.set("WEBMON_DATABASE_DB", "webmon_is_not_here");
    for args in [&["rejected", "list"][..], &["rejected", "replay", "--all"], &["migrate"]] {
        let output = lab.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?} {output:?}");
        assert!(text(&output.stderr).contains("webmon_is_not_here"), "{output:?}");
    }
    lab.set("WEBMON_DATABASE_DB", &database);
    lab.set("WEBMON_DATABASE_PORT", &support::ports::free_port().to_string());
    for args in [
        &["list"][..],
        &["show", "webmon/0/7"],
        &["replay", "--all"],
        &["delete", "--all", "--yes"],
    ] {
        let output = run(&lab, args, 4);
        assert!(text(&output.stderr).contains("onnection refused"), "{output:?}");
    }
}

/// Thousands at once, while a consumer is at work: in steps, none lost, none twice.
#[test]
fn a_long_replay_goes_on_where_it_was_cut_off() {
    let lab = Lab::new("rejected_many");
    assert!(lab.run(&["migrate"]).status.success());
    let mut topic = Topic::new(&lab, 1);
    let mut client = lab.database.client();
    let mut transaction = client.transaction().unwrap();
    let insert = "INSERT INTO rejected_message (topic, \"partition\", \"offset\", reason, payload) \
                  VALUES ('t', 0, $1, 'unknown website', $2)";
    let insert = transaction.prepare(insert).unwrap();
    for number in 0..3500 {
        let mut message = Vec::new();
        webmon::wire::encode(&topic.check(number), &mut message);
        transaction.execute(&insert, &[&number, &message]).unwrap();
    }
    transaction.commit().unwrap();
    // The connection is cut in the third step.
    client
        .batch_execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM pg_terminate_backend(pg_backend_pid()); RETURN OLD; END $$; \
             CREATE TRIGGER cut BEFORE DELETE ON rejected_message FOR EACH ROW \
             WHEN (OLD.\"offset\" = 2500) EXECUTE FUNCTION cut()",
        )
        .unwrap();
    // A consumer saves the same checks meanwhile, and others.
    let consumer = lab.start("consumer", &[]);
    let mut published = topic.publish_checks(PORTION);
    let rows = || -> i64 { lab.query("SELECT count(*) FROM check_entry").unwrap() };
    lab.wait_for_count("the consumer is at work", "SELECT count(*) FROM check_entry", published);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut more = 0;
            while !is_over.load(Ordering::Relaxed) {
                more += topic.publish_checks(PORTION);
            }
            more
        });
        // Whatever fails in here, the thread must end.
        let replays = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let output = run(&lab, &["replay", "--all"], 4);
            let said = text(&output.stderr);
            assert!(said.contains("2000 messages were replayed before"), "{output:?}");
            assert!(rows() >= 2000);
            assert_eq!(left(&lab), 1500);
            client.batch_execute("DROP TRIGGER cut ON rejected_message").unwrap();
            let done = json(&lab, &["replay", "--all"], 0);
            let counts = ["stored", "known"].map(|key| done[key].as_i64().unwrap());
            assert_eq!(counts.iter().sum::<i64>(), 1500, "{done}");
        }));
        is_over.store(true, Ordering::Relaxed);
        published += publishing.join().unwrap();
        replays.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    // The messages are the first 3500 of the same row of checks.
    let all = published.max(3500);
    lab.wait_for_count("all is stored", "SELECT count(*) FROM check_entry", all);
    support::eventually("nothing is left in the topic", || match topic.committed(&lab)[..] {
        [offset] if offset == published => Ok(()),
        ref other => Err(other.to_vec()),
    });
    assert_eq!((rows(), left(&lab)), (all, 0));
    consumer.stop();
}
