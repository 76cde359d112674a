//! Sites: added, listed, changed, deleted.

use serde_json::{Value, json};

use crate::server::Server;
use crate::support::services::TestDatabase;

#[test]
fn a_site_lives_from_post_to_delete() {
    let database = TestDatabase::create("api_life");
    let server = Server::on(&database);
    let body = json!({"name": "Shop", "url": "https://shop.example/", "interval": 60,
        "regex": "Open", "retries": 2, "headers": {"X-Api-Key": "hunter2"}});
    let added = server.send("POST", "/websites", &body);
    let site = added.json(201);
    let id = site["website_id"].as_i64().unwrap();
    assert_eq!(added.header("Location"), Some(format!("/websites/{id}").as_str()));
    assert_eq!(added.header("ETag"), Some("\"1\""));
    assert_eq!((&site["name"], &site["status"]), (&json!("Shop"), &json!("active")));
    assert_eq!((&site["retries"], &site["timeout"]), (&json!(2), &Value::Null));
    assert_eq!(site["headers"], json!({"X-Api-Key": "********"}));

    let path = format!("/websites/{id}");
    let shown = server.get(&path);
    assert_eq!(shown.json(200), site);
    let same = server.ask("GET", &path, &[("If-None-Match", "\"1\"")], "");
    assert_eq!(same.empty(304).header("ETag"), Some("\"1\""));
    let head = server.ask("HEAD", &path, &[], "");
    assert_eq!((head.status, head.header("ETag")), (200, Some("\"1\"")));

    let patched = server.send("PATCH", &path, &json!({"interval": 300, "regex": null}));
    let site = patched.json(200);
    assert_eq!((&site["interval"], &site["regex"]), (&json!(300), &Value::Null));
    assert_eq!((&site["retries"], patched.header("ETag")), (&json!(2), Some("\"2\"")));

    // What was read may be sent back, masks included.
    let replaced = server.send("PUT", &path, &site).json(200);
    assert_eq!(replaced, site, "nothing has changed");
    let small = json!({"name": "Shop", "url": "https://shop.example/b"});
    let replaced = server.send("PUT", &path, &small).json(200);
    assert_eq!(replaced["url"], "https://shop.example/b");
    assert!(replaced["interval"].is_null() && replaced.get("retries").is_none(), "{replaced}");

    let paused = server.ask("POST", &format!("{path}/pause"), &[], "").json(200);
    assert_eq!(paused["status"], "paused");
    let resumed = server.ask("POST", &format!("{path}/resume"), &[], "").json(200);
    assert_eq!(resumed["status"], "active");
    server.ask("DELETE", &path, &[], "").empty(204);
    server.get(&path).json(404);
    server.ask("DELETE", &path, &[], "").json(404);
    assert_eq!(server.get("/websites?status=deleted").json(200)["items"][0]["website_id"], id);
    let back = server.send("POST", "/websites", &body).json(201);
    assert_eq!(back["website_id"], id, "with its history");
}
