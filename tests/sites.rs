//! `webmon sites` and `webmon history` as a user types them.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

mod support;

#[path = "api/support.rs"]
mod server;

use std::process::Output;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use server::Server;
use support::daemon::Lab;
use webmon::check::{Check, Failure, FailureKind, Identity, Outcome};
use webmon::runtime::now;
use webmon::store::Store;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lab(prefix: &str) -> Lab {
    let lab = Lab::new(prefix);
    assert!(lab.run(&["migrate"]).status.success());
    lab.database.client().batch_execute("TRUNCATE website RESTART IDENTITY").unwrap();
    lab
}

/// Runs `webmon …`; its exit code must be this.
fn run(lab: &Lab, args: &[&str], code: i32) -> Output {
    let output = lab.run(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    output
}

fn said(lab: &Lab, args: &[&str]) -> String {
    text(&run(lab, args, 0).stdout)
}

fn fails(lab: &Lab, args: &[&str], code: i32) -> String {
    text(&run(lab, args, code).stderr)
}

fn json_of(lab: &Lab, args: &[&str]) -> Value {
    let output = run(lab, &[args, &["--json"]].concat(), 0);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn a_sites_life() {
    let lab = lab("life");
    let added = said(&lab, &["sites", "add", "Shop", "http://shop.example/", "--interval", "60"]);
    assert_eq!(added, "added 1 'Shop'\n");
    let more = ["--regex", "a+", "-H", "X-Key: hunter2", "--set", "retries=2", "--paused"];
    let api = json_of(
        &lab,
        &[&["sites", "add", "API", "http://u:hunter3@api.example/x"][..], &more].concat(),
    );
    assert_eq!((&api["website_id"], &api["status"]), (&2.into(), &"paused".into()));
    assert_eq!((&api["retries"], &api["headers"]["X-Key"]), (&2.into(), &"********".into()));
    assert!(!api.to_string().contains("hunter"), "{api}");

    // Shown, with secrets only when they are asked for.
    let shown = said(&lab, &["sites", "show", "API"]);
    assert!(shown.contains("regex  ") && shown.contains("last check   no data"), "{shown}");
    assert!(shown.contains("uptime 24 h  no data") && shown.contains("30 s (default)"), "{shown}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(said(&lab, &["sites", "show", "2", "--secrets"]).contains("hunter3"));

    // Changed: what is not named stays, and what changes nothing is no change.
    let update =
        ["sites", "update", "API", "--name", "API 2", "--interval", "7", "--unset", "regex"];
    assert_eq!(said(&lab, &update), "changed 2 'API 2' (paused)\n");
    let shown = json_of(&lab, &["sites", "show", "API 2", "--secrets"]);
    assert_eq!((&shown["interval"], &shown["regex"]), (&7.into(), &Value::Null));
    assert_eq!((&shown["revision"], &shown["headers"]["X-Key"]), (&2.into(), &"hunter2".into()));
    let again = said(&lab, &["sites", "update", "2", "--interval", "7"]);
    assert_eq!(again, "2 'API 2' (paused) was so already\n");
    let taken = fails(&lab, &["sites", "update", "2", "--name", "Shop"], 1);
    assert!(taken.contains("the site 1 has this name"), "{taken}");
    let taken = fails(&lab, &["sites", "add", "Shop", "http://b/"], 1);
    assert!(taken.contains("the site 1 has this name"), "{taken}");

    // Paused, resumed, removed: several at once, or none of them.
    assert_eq!(
        said(&lab, &["sites", "pause", "Shop", "2", "1"]),
        "paused 1 'Shop'\n2 'API 2' (paused) was so already\n"
    );
    let unknown = fails(&lab, &["sites", "resume", "Shop", "Shap", "nowhere"], 3);
    assert!(unknown.contains("no site 'Shap'; did you mean 'Shop'?"), "{unknown}");
    assert!(unknown.contains("no site 'nowhere'") && unknown.contains("nothing was changed"));
    assert_eq!(json_of(&lab, &["sites", "show", "1"])["status"], "paused");
    let resumed = json_of(&lab, &["sites", "resume", "Shop"]);
    assert_eq!(resumed["items"][0]["status"], "active");
    assert_eq!(
        said(&lab, &["sites", "resume", "2", "Shop"]),
        "resumed 2 'API 2'\n1 'Shop' was so already\n"
    );
    let asked = fails(&lab, &["sites", "remove", "Shop", "2"], 2);
    assert!(asked.contains("add --yes") && asked.contains("what was seen of them is kept"));
    let removed = run(&lab, &["sites", "remove", "Shop", "--yes"], 0);
    assert_eq!(text(&removed.stdout), "removed 1 'Shop'\n");
    assert!(text(&removed.stderr).contains("webmon history"));
    assert!(fails(&lab, &["sites", "pause", "Shop"], 3).contains("webmon sites add"));
    assert_eq!(json_of(&lab, &["sites", "show", "Shop"])["status"], "deleted");
    assert_eq!(said(&lab, &["sites", "add", "Shop", "http://b/"]), "added 1 'Shop'\n");
}

#[test]
fn every_fault_is_listed_at_once_without_secrets() {
    let lab = lab("faults");
    let args = ["sites", "add", "x", "ftp://u:hunter2@a/", "--interval", "3", "--timeout", "soon"];
    let more = ["--regex", "a(", "--set", "retrys=1", "--set", "password=hunter2", "-H", "hunter2"];
    let faults = fails(&lab, &[&args[..], &more].concat(), 2);
    for part in [
        "url: has scheme 'ftp'",
        "interval: 3 is not within 5 to 86400 seconds",
        "--timeout: must be whole seconds",
        "regex: ",
        "--set retrys: is no setting of a site; did you mean 'retries'?",
        "password: is set without username",
        "--header: must be 'Name: value'",
    ] {
        let part = format!("webmon sites add: {part}");
        assert!(faults.contains(&part), "{part}\n{faults}");
    }
    assert!(!faults.contains("hunter"), "{faults}");
    let long = ["sites", "add", "x", "http://a/", "--interval", "30", "--timeout", "99"];
    let wanted = "timeout: 99 is not within 1 to 29 seconds, less than the interval of 30\n";
    assert!(fails(&lab, &long, 2).ends_with(wanted));
    // What update leaves alone stays: it has no defaults to speak of.
    let help = said(&lab, &["sites", "update", "--help"]);
    assert!(help.contains("--interval") && !help.contains("[default: monitoring"), "{help}");
    assert!(names(&json_of(&lab, &["sites", "list"])).is_empty());
}

#[test]
fn sites_are_found_by_id_name_and_url() {
    let lab = lab("found");
    for (name, url) in
        [("one", "http://a.example/"), ("two", "http://a.example"), ("1", "http://b.example/x")]
    {
        said(&lab, &["sites", "add", name, url]);
    }
    let id = |what: &str| json_of(&lab, &["sites", "show", what])["website_id"].clone();
    assert_eq!((id("two"), id("2"), id("http://B.example/x")), (2.into(), 2.into(), 3.into()));
    let many = fails(&lab, &["sites", "show", "http://a.example"], 2);
    assert!(many.contains("more than one site") && many.contains("1 'one'\n  2 'two'"), "{many}");
    assert!(many.contains("say its id, or name:NAME"), "{many}");
    // The id of one and the name of another: the id, and the name has a spelling of its own.
    let both = run(&lab, &["sites", "pause", "1"], 0);
    assert_eq!(text(&both.stdout), "paused 1 'one'\n");
    let hint = "1 is taken as an id; name:1 is the site 3 '1'";
    assert!(text(&both.stderr).contains(hint), "{}", text(&both.stderr));
    assert_eq!((id("name:1"), id("1")), (3.into(), 1.into()));
    assert_eq!(json_of(&lab, &["history", "name:1"])["website_id"], 3);
    assert!(fails(&lab, &["sites", "show", "name:7"], 3).contains("no site 'name:7'"));
    assert!(fails(&lab, &["history", "elsewhere"], 3).contains("webmon sites list"));
    assert!(fails(&lab, &["history", "onee"], 3).contains("did you mean 'one'?"));
    // One that is gone is in nobody's way, and is still found where no other is meant.
    said(&lab, &["sites", "remove", "1", "--yes"]);
    assert_eq!((id("1"), id("http://a.example/")), (3.into(), 2.into()));
    assert_eq!(id("one"), 1);
    said(&lab, &["sites", "add", "2", "http://c.example/"]);
    said(&lab, &["sites", "remove", "name:2", "--yes"]);
    assert_eq!((id("2"), id("name:2")), (2.into(), 4.into()));
    said(&lab, &["sites", "remove", "2", "--yes"]);
    assert_eq!(id("2"), 2);
}

#[test]
fn check_and_tail_know_sites_as_the_others_do() {
    let lab = lab("same");
    for (name, url) in [
        ("one", "http://127.0.0.1:1/"),
        ("1", "http://127.0.0.1:1/x"),
        ("two", "http://127.0.0.1:1"),
    ] {
        said(&lab, &["sites", "add", name, url]);
    }
    for (site, id) in [("1", 1), ("name:1", 2), ("one", 1), ("http://127.0.0.1:1/x", 2)] {
        let output = run(&lab, &["check", "--site", site, "--json"], 1);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["website_id"], id, "{site}: {found}");
    }
    for command in ["check", "tail"] {
        let unknown = fails(&lab, &[command, "--site", "name:7"], 3);
        assert!(unknown.contains(&format!("webmon {command}: no site 'name:7'")), "{unknown}");
        let several = fails(&lab, &[command, "--site", "http://127.0.0.1:1"], 2);
        assert!(several.contains("say its id, or name:NAME"), "{several}");
    }
}

#[test]
fn lists_are_filtered_and_go_on_where_they_ended() {
    let lab = lab("lists");
    for n in 0..5 {
        let url = format!("http://h{n}.example/path");
        said(&lab, &["sites", "add", &format!("site-{n}"), &url, "--interval", "60"]);
    }
    said(&lab, &["sites", "pause", "site-1"]);
    said(&lab, &["sites", "remove", "site-2", "--yes"]);
    let list = |args: &[&str]| json_of(&lab, &[&["sites", "list"], args].concat());
    assert_eq!(names(&list(&[])), ["site-0", "site-1", "site-3", "site-4"]);
    assert_eq!(names(&list(&["--status", "paused"])), ["site-1"]);
    assert_eq!(names(&list(&["--status", "deleted"])), ["site-2"]);
    assert_eq!(names(&list(&["--status", "all"])).len(), 5);
    assert_eq!(names(&list(&["--keyword", "H3.EXAMPLE"])), ["site-3"]);
    let first = list(&["--limit", "2"]);
    assert_eq!((names(&first), &first["next"]), (vec!["site-0", "site-1"], &2.into()));
    let rest = list(&["--limit", "2", "--after", "2"]);
    assert_eq!((names(&rest), &rest["next"]), (vec!["site-3", "site-4"], &Value::Null));
    let table = said(&lab, &["sites", "list"]);
    assert_eq!(
        table.lines().next().unwrap(),
        "ID  NAME    STATUS  INTERVAL  LAST  WHEN  URL",
        "{table}"
    );
    assert_eq!(
        table.lines().nth(2).unwrap(),
        " 2  site-1  paused      60 s  -     -     http://h1.example/path"
    );
    let more = run(&lab, &["sites", "list", "--limit", "1"], 0);
    assert!(text(&more.stderr).contains("add --after 1"));
    let none = run(&lab, &["sites", "list", "--keyword", "nothing"], 0);
    assert!(none.stdout.is_empty() && text(&none.stderr) == "no sites\n");
}

#[test]
fn a_long_list_comes_in_pages_and_whole() {
    let lab = lab("long");
    lab.database
        .client()
        .batch_execute(
            "INSERT INTO website (name, url) \
             SELECT 'site-' || n, 'http://a.example/' || n FROM generate_series(1, 1201) AS n",
        )
        .unwrap();
    assert_eq!(names(&json_of(&lab, &["sites", "list"])).len(), 1201);
    let plain = said(&lab, &["sites", "list"]);
    assert_eq!(plain.lines().count(), 1202);
    assert!(plain.starts_with(" ID  NAME"), "widths are those of a page: {}", &plain[..40]);
    assert!(!plain.lines().next().unwrap().contains("LAST"), "not asked for each of many");
    let noted = text(&run(&lab, &["sites", "list"], 0).stderr);
    assert_eq!(noted, "last checks are left out of a list of more than 500: add --last\n");
    let all = json_of(&lab, &["sites", "list"]);
    let has_last = |item: &Value| item.as_object().unwrap().contains_key("last");
    assert!(all["items"].as_array().unwrap().iter().all(has_last), "however many there are");
    let last = said(&lab, &["sites", "list", "--last", "--limit", "600"]);
    assert!(last.lines().next().unwrap().contains("LAST") && last.lines().count() == 601);
}

/// A check of the site, due so many seconds ago.
fn check(website_id: i64, seconds: i64, outcome: Outcome, time: f64) -> Check<'static> {
    let ms = now().wall.as_millisecond() / 1000 * 1000;
    let due = Timestamp::from_millisecond(ms).unwrap() - SignedDuration::from_secs(seconds);
    let identity = Identity::new(website_id, "default");
    let url = "http://a/".to_owned();
    let check = Check::empty(&identity, website_id, url, "default".to_owned(), due);
    let failure = (outcome == Outcome::Down)
        .then(|| Failure::new(FailureKind::Status, "HTTP status 503, expected 200-299"));
    let is_seen = outcome != Outcome::Missed;
    Check {
        outcome,
        failure,
        response_time: is_seen.then_some(time),
        http_status: is_seen.then_some(if outcome == Outcome::Up { 200 } else { 503 }),
        ..check
    }
}

#[test]
fn history_shows_rows_uptime_and_failures() {
    let mut lab = lab("history");
    said(&lab, &["sites", "add", "seen", "http://a/"]);
    said(&lab, &["sites", "add", "unseen", "http://b/"]);
    let store = Store::new(lab.database.options()).unwrap();
    let checks = [
        check(1, 10, Outcome::Up, 0.2),
        check(1, 20, Outcome::Down, 0.9),
        check(1, 30, Outcome::Missed, 0.0),
        check(1, 40, Outcome::Up, 0.1),
        check(1, 50, Outcome::Up, 0.1),
    ];
    store.insert_checks(&checks).unwrap();

    lab.set("LANG", "C.UTF-8");
    let shown = said(&lab, &["history", "seen"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "1 'seen'");
    for (line, window) in lines[1..4].iter().zip(["24 h", "7 d", "30 d"]) {
        // Percentiles are those of a histogram: near.
        let begin = format!("uptime {window:>4}  75.000 % (3 up, 1 down), 1 missed, p50 0.1");
        assert!(line.starts_with(&begin) && line.contains(", p95 0."), "{line}");
    }
    assert_eq!(lines[5], "▁▁_x█", "{shown}");
    assert!(lines[7].starts_with("DUE ") && lines.len() == 13, "{shown}");
    assert!(lines[9].contains("down") && lines[9].contains("status: HTTP status 503"), "{shown}");
    lab.set("LANG", "C");
    assert_eq!(said(&lab, &["history", "seen"]).lines().nth(5), Some(".._x@"));

    let whole = json_of(&lab, &["history", "1", "--limit", "2"]);
    assert_eq!(whole["items"].as_array().unwrap().len(), 2);
    let newest = &whole["items"][0];
    assert_eq!((&newest["outcome"], &newest["response_time"]), (&"up".into(), &json!(0.2)));
    assert_eq!(whole["items"][1]["failure_kind"], "status");
    let day = &whole["windows"][0];
    assert_eq!((&day["window"], &day["total"]["ratio"]), (&"24h".into(), &json!(0.75)));
    assert_eq!((&day["total"]["up"], &day["regions"][0]["down"]), (&3.into(), &1.into()));
    assert!(day["total"]["p50"].is_f64() && day["from"].as_str().unwrap().ends_with(":00.000Z"));
    let from = json_of(&lab, &["history", "1", "--from", "35s"]);
    assert_eq!(from["items"].as_array().unwrap().len(), 3);
    let to = json_of(&lab, &["history", "1", "--from", "1h", "--to", "35s"]);
    assert_eq!(to["items"].as_array().unwrap().len(), 2);
    assert!(fails(&lab, &["history", "1", "--from", "1h", "--to", "2h"], 2).contains("--from"));

    // Nothing seen is neither up nor down.
    let unseen = said(&lab, &["history", "unseen"]);
    assert!(unseen.ends_with("uptime 30 d  no data\n"), "{unseen}");
    let noted = text(&run(&lab, &["history", "unseen"], 0).stderr);
    assert_eq!(noted, "no rows in this time\n");
    let unseen = json_of(&lab, &["history", "unseen"]);
    assert_eq!(unseen["windows"][2]["total"]["ratio"], Value::Null);

    // The last check, in the list and with the site.
    let list = said(&lab, &["sites", "list"]);
    assert!(list.lines().nth(1).unwrap().contains(" up    20"), "{list}");
    let shown = json_of(&lab, &["sites", "show", "seen"]);
    assert_eq!(shown["last"]["outcome"], "up");
    assert_eq!((&shown["windows"][0]), day);
}

#[test]
fn json_is_that_of_the_api() {
    let server = Server::start("as_api");
    let mut lab = Lab::new("as_api");
    lab.set("WEBMON_DATABASE_DB", &server.database().name);
    said(&lab, &["sites", "add", "seen", "http://u:hunter2@a/"]);
    // Times with more and with fewer digits than three.
    let mut client = server.database().client();
    client
        .batch_execute(
            "UPDATE website SET timestamp = '2026-01-01 00:00:00.123456Z', \
             updated_at = '2026-01-01 00:00:00.5Z'",
        )
        .unwrap();
    server.store().insert_checks(&[check(1, 10, Outcome::Up, 0.2)]).unwrap();
    let get = |target: &str| server.get(target).json(200);
    let contains = |whole: &Value, part: &Value, what: &str| {
        for (key, value) in part.as_object().unwrap() {
            assert_eq!(whole.get(key), Some(value), "{what}: {key} of {whole}");
        }
    };
    let site = get("/websites/1");
    assert_eq!(site["updated_at"].as_str().unwrap().len(), "2026-01-01T00:00:00.500Z".len());
    let shown = json_of(&lab, &["sites", "show", "seen"]);
    contains(&shown, &site, "site");
    contains(&json_of(&lab, &["sites", "list"])["items"][0], &site, "list");
    let history = json_of(&lab, &["history", "seen"]);
    contains(&history["items"][0], &get("/monitoring?website_id=1")["items"][0], "check");
    let windows = get("/websites/1/uptime")["windows"].clone();
    for (own, of_api) in
        history["windows"].as_array().unwrap().iter().zip(windows.as_array().unwrap())
    {
        assert_eq!((&own["window"], &own["regions"]), (&of_api["window"], &of_api["regions"]));
        contains(&own["total"], &of_api["total"], "uptime");
    }
    assert_eq!(shown["last"]["timestamp"], history["items"][0]["timestamp"]);
}
