//! Checks, uptime and response times.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use webmon::check::{Check, Failure, FailureKind, Identity, Outcome, Phases};
use webmon::runtime::now;

use crate::server::Server;

const REGION: &str = "here";
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// A check that was due at `time`; every fourth is down.
fn check(site: i64, n: i64, time: Timestamp) -> Check<'static> {
    let identity = Identity::new(site, REGION);
    let mut check = Check::empty(&identity, site, "https://a.example/".into(), REGION.into(), time);
    check.started_at = Some(time);
    check.response_time = Some(0.25);
    check.phases = Phases { connect: Some(0.125), ..Phases::default() };
    check.outcome = if n % 4 == 3 { Outcome::Down } else { Outcome::Up };
    check.failure = (n % 4 == 3).then(|| Failure::new(FailureKind::Status, "500"));
    check.http_status = Some(if n % 4 == 3 { 500 } else { 200 });
    check.regex_captures = Some(vec!["x".into()]);
    check
}

/// `count` checks of a site, a minute apart, the last one due a minute ago.
fn save(server: &Server, site: i64, count: i64) -> Vec<Check<'static>> {
    let end = now().wall;
    let checks: Vec<Check<'static>> = (0..count)
        .map(|n| {
            let due = end - MINUTE * i32::try_from(count - n).unwrap();
            check(site, n, Timestamp::from_millisecond(due.as_millisecond()).unwrap())
        })
        .collect();
    server.store().insert_checks(&checks).unwrap();
    checks
}

fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| item["check_entry_id"].as_str().unwrap().to_owned()).collect()
}

fn newest_first(checks: &[Check<'_>]) -> Vec<String> {
    let mut checks: Vec<&Check<'_>> = checks.iter().collect();
    checks.sort_by_key(|check| std::cmp::Reverse((check.scheduled_at, check.check_entry_id)));
    checks.iter().map(|check| check.check_entry_id.to_string()).collect()
}

#[test]
fn checks_come_newest_first_page_by_page_while_others_come_in() {
    let server = Server::start("api_checks");
    let site = server.add(&json!({"name": "a", "url": "https://example.org/"}));
    let checks = save(&server, site, 23);
    let mut more = 0;
    let found = server.pages("/monitoring?url=https://example.org&limit=5", || {
        more += 1;
        let due = Timestamp::from_millisecond((now().wall + MINUTE * more).as_millisecond());
        server.store().insert_checks(&[check(site, 0, due.unwrap())]).unwrap();
    });
    assert_eq!(ids(&found), newest_first(&checks));

    let first = &found[0];
    assert_eq!((&first["name"], &first["url"]), (&json!("a"), &json!("https://example.org/")));
    assert_eq!((&first["region"], &first["http_status"]), (&json!(REGION), &json!(200)));
    assert_eq!((&first["connect"], &first["response_time"]), (&json!(0.125), &json!(0.25)));
    assert_eq!((&first["tls"], &first["regex_captures"]), (&Value::Null, &json!(["x"])));
    let columns = server.database().client().query(
        "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'check_entry'",
        &[],
    );
    for row in columns.unwrap() {
        let column: String = row.get(0);
        assert!(first.as_object().unwrap().contains_key(&column), "{column}");
    }
    let one = server.get(&format!("/checks/{}", first["check_entry_id"].as_str().unwrap()));
    assert_eq!(one.json(200), *first);

    let (from, to) = (checks[3].scheduled_at, checks[7].scheduled_at);
    let target = format!("/monitoring?website_id={site}&from={from}&to={to}");
    let part = server.get(&target).json(200);
    assert_eq!(ids(part["items"].as_array().unwrap()), newest_first(&checks[3..7]));
    // A blank where a plus was meant.
    let from = from.to_string().replace('Z', "+00:00");
    let target = format!("/monitoring?website_id={site}&from={from}&to={to}");
    assert_eq!(server.get(&target).json(200), part);
}

#[test]
fn checks_of_several_sites_with_one_url_are_merged() {
    let server = Server::start("api_merged");
    let mut checks = Vec::new();
    for (name, url) in
        [("a", "https://example.org"), ("b", "https://example.org/"), ("c", "https://c.example/")]
    {
        let site = server.add(&json!({"name": name, "url": url}));
        let own = save(&server, site, 7);
        if name != "c" {
            checks.extend(own);
        }
    }
    let found = server.pages("/monitoring?url=HTTPS://EXAMPLE.org:443/&limit=3", || ());
    assert_eq!(ids(&found), newest_first(&checks));
    let found = server.get("/monitoring?url=https://example.org/&website_id=2").json(200);
    assert!(found["items"].as_array().unwrap().iter().all(|check| check["website_id"] == 2));

    assert_eq!(server.get("/monitoring").fields(), ["url"]);
    server.get("/monitoring?url=https://unknown.example/").json(404);
    server.get("/monitoring?website_id=99").json(404);
    server.get("/monitoring?url=https://example.org/&website_id=3").json(404);
    let time = "2026-01-01T00:00:00Z";
    let target = format!("/monitoring?website_id=1&from={time}&to={time}");
    assert_eq!(server.get(&target).fields(), ["to"]);
    assert_eq!(server.get("/monitoring?website_id=1&from=yesterday").fields(), ["from"]);
    assert_eq!(server.get("/monitoring?website_id=0").fields(), ["website_id"]);
    assert_eq!(server.get("/monitoring?website_id=1&cursor=Nw").fields(), ["cursor"]);
    for id in
        ["7", "01890000-0000-7000-8000-000000000000", "{01890000-0000-7000-8000-000000000000}"]
    {
        server.get(&format!("/checks/{id}")).json(404);
    }
    // Its checks outlive a site.
    server.ask("DELETE", "/websites/1", &[], "").empty(204);
    let found = server.get("/monitoring?website_id=1").json(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 7);
}

#[test]
fn uptime_and_response_times_are_counted() {
    let server = Server::start("api_uptime");
    let site = server.add(&json!({"name": "a", "url": "https://example.org/"}));
    let checks = save(&server, site, 40);
    let uptime = server.get(&format!("/websites/{site}/uptime")).json(200);
    let windows = uptime["windows"].as_array().unwrap();
    let names: Vec<&str> = windows.iter().map(|w| w["window"].as_str().unwrap()).collect();
    assert_eq!(names, ["24h", "7d", "30d"]);
    for window in windows {
        let total = &window["total"];
        assert_eq!(
            (&total["up"], &total["down"], &total["ratio"]),
            (&json!(30), &json!(10), &json!(0.75))
        );
        assert_eq!(window["regions"].as_array().unwrap().len(), 1);
        assert_eq!(window["regions"][0]["region"], REGION);
        assert_eq!(window["regions"][0]["up"], 30);
    }
    let past = "/uptime?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z";
    let uptime = server.get(&format!("/websites/{site}{past}")).json(200);
    assert_eq!(uptime["windows"][0]["total"]["ratio"], Value::Null);
    assert_eq!(uptime["windows"][0]["from"], "2020-01-01T00:00:00.000Z");
    assert_eq!(uptime["windows"].as_array().unwrap().len(), 1);

    for bucket in ["hour", "day"] {
        let target = format!("/websites/{site}/response-times?bucket={bucket}&region={REGION}");
        let times = server.get(&target).json(200);
        assert_eq!((&times["bucket"], &times["region"]), (&json!(bucket), &json!(REGION)));
        let items = times["items"].as_array().unwrap();
        let sum = |key: &str| items.iter().map(|item| item[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("up"), sum("down"), sum("count"), sum("missed")), (30, 10, 30, 0));
        let last = items.iter().find(|item| item["count"].as_u64() > Some(0)).unwrap();
        assert_eq!(
            (&last["min"], &last["p99"], &last["max"]),
            (&json!(0.25), &json!(0.25), &json!(0.25))
        );
        let failures: u64 =
            items.iter().filter_map(|item| item["failures"]["status"].as_u64()).sum();
        assert_eq!(failures, 10);
        let first = checks[0].scheduled_at;
        assert!(times["from"].as_str().unwrap().parse::<Timestamp>().unwrap() <= first);
    }
    let elsewhere = server.get(&format!("/websites/{site}/response-times?region=there")).json(200);
    assert_eq!(elsewhere["items"], json!([]));

    for (query, field) in [
        ("bucket=week", "bucket"),
        ("from=2026-01-01T00:00:00Z&to=2026-03-04T01:00:00Z", "from"),
        ("bucket=day&from=2010-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("from=x", "from"),
    ] {
        let target = format!("/websites/{site}/response-times?{query}");
        assert_eq!(server.get(&target).fields(), [field], "{query}");
    }
    let backwards = "from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z";
    assert_eq!(server.get(&format!("/websites/{site}/uptime?{backwards}")).fields(), ["to"]);
    for path in ["uptime", "response-times"] {
        for (query, field) in [
            ("to=0000-01-01T00:00:00Z", "to"),
            ("from=1969-12-31T23:59:59Z", "from"),
            ("from=2999-01-01T00:00:00Z", "from"),
        ] {
            let target = format!("/websites/{site}/{path}?{query}");
            assert_eq!(server.get(&target).fields(), [field], "{target}");
        }
    }
    let begin = server.get(&format!("/websites/{site}/uptime?to=1970-01-01T01:00:00Z")).json(200);
    assert_eq!(begin["windows"][0]["from"], "1970-01-01T00:00:00.000Z");
    server.get("/websites/99/uptime").json(404);
    server.get("/websites/x/response-times").json(404);
}
