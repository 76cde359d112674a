//! Sites: added, listed, changed, deleted.

use serde_json::{Value, json};

use crate::server::Server;

#[test]
fn a_site_lives_from_post_to_delete() {
    let server = Server::start("api_life");
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

#[test]
fn the_site_of_a_body_is_found_by_id_name_or_url() {
    let server = Server::start("api_put");
    let shop = server.add(&json!({"name": "Shop", "url": "https://shop.example/"}));
    let blog = server.add(&json!({"name": "Blog", "url": "https://blog.example"}));
    let put = |body: &Value| server.send("PUT", "/websites", body);
    // By its id, whatever its name is to be.
    let body = json!({"website_id": shop, "name": "Market", "url": "https://shop.example/"});
    assert_eq!(put(&body).json(200)["name"], "Market");
    // By its name, whatever its URL is to be.
    let body = json!({"name": "Blog", "url": "https://blog.example/new", "interval": 600});
    let answer = put(&body);
    let site = answer.json(200);
    assert_eq!((&site["website_id"], &site["interval"]), (&json!(blog), &json!(600)));
    assert_eq!(answer.header("ETag"), Some("\"2\""));
    // By its URL in another spelling, whatever its name is to be.
    let body = json!({"name": "Bazaar", "url": "HTTPS://shop.example:443/"});
    let site = put(&body).json(200);
    assert_eq!((&site["website_id"], &site["name"]), (&json!(shop), &json!("Bazaar")));

    put(&json!({"website_id": 999, "name": "x", "url": "https://x.example/"})).json(404);
    put(&json!({"name": "x", "url": "https://x.example/"})).json(404);
    put(&json!({"name": "x"})).json(404);
    let twin = server.add(&json!({"name": "Twin", "url": "https://blog.example/new"}));
    let detail = put(&json!({"name": "x", "url": "https://blog.example/new"})).json(409);
    let detail = detail["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(&blog.to_string()) && detail.contains(&twin.to_string()), "{detail}");
    // The name of another.
    let body = json!({"website_id": twin, "name": "Blog", "url": "https://twin.example/"});
    let detail = put(&body).json(409)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(&blog.to_string()), "{detail}");
    assert_eq!(
        put(&json!({"website_id": "7", "name": "x", "url": "http://x.example/"})).fields(),
        ["website_id"]
    );
}

#[test]
fn a_name_is_taken_once_and_free_again_behind_a_change() {
    let server = Server::start("api_names");
    let first = server.add(&json!({"name": "a", "url": "https://a.example/"}));
    let second = server.add(&json!({"name": "b", "url": "https://b.example/"}));
    let taken =
        server.send("POST", "/websites", &json!({"name": "a", "url": "https://c.example/"}));
    let detail = taken.json(409)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(&first.to_string()), "{detail}");
    let path = format!("/websites/{second}");
    let taken = server.send("PATCH", &path, &json!({"name": "a"}));
    assert!(taken.json(409)["detail"].as_str().unwrap().contains(&first.to_string()));
    let body = json!({"name": "c"});
    server.send("PATCH", &format!("/websites/{first}"), &body).json(200);
    server.send("PATCH", &path, &json!({"name": "a"})).json(200);
}

#[test]
fn secrets_are_never_shown_and_survive_their_masks() {
    let server = Server::start("api_secrets");
    let body = json!({
        "name": "s", "url": "https://me:hunter2@a.example/", "password": "hunter3", "username": "u",
        "headers": {"X-Token": "hunter4", "Accept": "text/plain"},
        "proxy": "http://p:hunter5@proxy.example:3128",
    });
    let added = server.send("POST", "/websites", &body);
    let id = added.json(201)["website_id"].as_i64().unwrap();
    let path = format!("/websites/{id}");
    let shown = server.get(&path);
    let patched = server.send("PATCH", &path, &json!({"interval": 90}));
    let list = server.get("/websites");
    // In full, with the masks for the secrets.
    let replaced = server.send("PUT", &path, &shown.json(200));
    let moved = server.send("PATCH", &path, &json!({"url": "https://me:********@b.example/"}));
    assert_eq!(moved.fields(), ["url"], "a password is not sent to another host");
    for answer in [&added, &shown, &patched, &list, &replaced, &moved] {
        assert!(!answer.text().contains("hunter"), "{}", answer.text());
    }
    replaced.json(200);
    let spec = server.store().site(id).unwrap().unwrap().spec;
    assert_eq!(spec.url, "https://me:hunter2@a.example/");
    assert_eq!(spec.interval, None, "the whole was replaced");
    let headers = format!("{:?}", spec.headers);
    assert!(headers.contains("hunter4"), "{headers}");
    assert!(!server.log().join("\n").contains("hunter"));
}
