//! How webmon is, and what it answers while its database is away.

use serde_json::json;

use crate::server::Server;
use crate::support::cluster::Cluster;
use crate::support::services::TestDatabase;

#[test]
fn the_state_is_told() {
    let server = Server::start("api_state");
    server.add(&json!({"name": "a", "url": "https://a.example/"}));
    server.add(&json!({"name": "b", "url": "https://b.example/", "status": "paused"}));
    let status = server.get("/status").json(200);
    assert_eq!(status["database"], "ok");
    assert_eq!(status["schema_version"], 8);
    assert_eq!(status["sites"], json!({"active": 1, "paused": 1, "deleted": 0}));
    assert_eq!(status["checks"]["last_minute"], json!({"up": 0, "down": 0, "missed": 0}));
    assert_eq!((&status["newest_check"], &status["rejected"]), (&json!(null), &json!(0)));
    let itself = crate::support::eventually("the API is among the daemons", || {
        let status = server.get("/status").json(200);
        let daemons = status["daemons"].as_array().unwrap().clone();
        daemons.into_iter().find(|daemon| daemon["role"] == "api").ok_or(status)
    });
    assert_eq!(itself["is_late"], false);

    assert_eq!(server.get("/livez").text(), "ok\n");
    assert_eq!(server.get("/readyz").text(), "ok\n");
    assert!(server.get("/readyz?verbose").text().contains("database: ok\n"));
    let metrics = server.get("/metrics");
    assert!(metrics.header("Content-Type").unwrap().starts_with("application/openmetrics-text"));
    assert!(metrics.text().ends_with("# EOF\n"));
    assert_eq!(server.get("/").header("Location"), Some("/docs"));
}

#[test]
fn while_the_database_is_away_the_answer_is_503_and_then_it_is_there_again() {
    let cluster = Cluster::start(&[], &[], &[]);
    let server = Server::at(TestDatabase::create_at(&cluster.url(), "api_away"), &[]);
    let id = server.add(&json!({"name": "a", "url": "https://a.example/"}));
    cluster.stop_at_once();
    let site = json!({"name": "b", "url": "https://b.example/"});
    for (method, path) in [
        ("GET", "/websites".to_owned()),
        ("GET", "/website?keyword=a".to_owned()),
        ("GET", format!("/websites/{id}")),
        ("GET", format!("/monitoring?website_id={id}")),
        ("GET", format!("/websites/{id}/uptime")),
        ("GET", "/status".to_owned()),
        ("POST", "/websites".to_owned()),
        ("PUT", "/websites".to_owned()),
        ("PATCH", format!("/websites/{id}")),
        ("DELETE", format!("/websites/{id}")),
    ] {
        let answer = server.send(method, &path, &site);
        let problem = answer.json(503);
        assert!(answer.header("Retry-After").is_some(), "{method} {path}");
        assert!(!problem.to_string().contains("127.0.0.1"), "where it is, is nobody's business");
    }
    assert_eq!(server.get("/livez").status, 200);
    let unready = server.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.text().starts_with("database: "), "{}", unready.text());
    let said = server.log().iter().filter(|line| line.contains("API answers 503")).count();
    assert_eq!(said, 1, "a change of state is one line");
    cluster.start_again();
    server.wait_for_status("/readyz", 200);
    server.send("POST", "/websites", &site).json(201);
}
