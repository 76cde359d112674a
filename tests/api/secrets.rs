//! What callers learn of secrets, and where they can have them sent.

use serde_json::{Value, json};

use crate::server::{Server, tokens};

/// What stands in the table for a site, as text.
fn stored(server: &Server, id: i64) -> String {
    let question = "SELECT url || coalesce(headers::text, '') || coalesce(settings::text, '') \
                    FROM website WHERE website_id = $1";
    server.database().client().query_one(question, &[&id]).unwrap().get(0)
}

#[test]
fn a_secret_is_not_sent_elsewhere() {
    let server = Server::start("api_redirect");
    let bearer = json!({"Authorization": "Bearer hunter2"});
    let id = server.add(&json!({"name": "a", "url": "https://bank.example/", "headers": bearer}));
    let path = format!("/websites/{id}");
    for change in [
        json!({"url": "http://evil.example/"}),
        json!({"url": "http://bank.example/"}),
        json!({"proxy": "http://evil.example:3128"}),
        json!({"tls_verify": false}),
        json!({"tls_ca": "{secret:ca}"}),
        json!({"server_name": "evil.example"}),
        json!({"headers": {"Host": "evil.example"}}),
    ] {
        assert_eq!(server.send("PATCH", &path, &change).fields(), ["headers"], "{change}");
    }
    let masked = json!({
        "name": "a", "url": "https://evil.example/", "headers": {"Authorization": "********"},
    });
    assert_eq!(server.send("PUT", &path, &masked).fields(), ["headers"]);
    assert_eq!(server.send("PUT", "/websites", &masked).fields(), ["headers"]);
    assert!(stored(&server, id).starts_with("https://bank.example/"));
    // On the same server all stays as easy; and who knows the secret may move it.
    server.send("PATCH", &path, &json!({"url": "https://bank.example/x"})).json(200);
    let moved = json!({"url": "https://new.example/", "headers": bearer});
    server.send("PATCH", &path, &moved).json(200);
    assert!(stored(&server, id).contains("hunter2"));
    let dropped = json!({"url": "https://other.example/", "headers": null});
    server.send("PATCH", &path, &dropped).json(200);

    let basic = json!({
        "name": "b", "url": "https://bank.example/", "username": "u", "password": "hunter4",
        "proxy": "http://me:hunter5@p.example:3128",
    });
    let path = format!("/websites/{}", server.add(&basic));
    let lax = json!({"proxy": "http://evil.example:3128", "tls_verify": false});
    assert_eq!(server.send("PATCH", &path, &lax).fields(), ["password"]);
    let masked = json!({
        "name": "b", "url": "http://evil.example/", "username": "u", "password": "********",
        "proxy": "********",
    });
    assert_eq!(server.send("PUT", &path, &masked).fields(), ["password", "proxy"]);
}

#[test]
fn no_search_tells_a_password() {
    let server = Server::start("api_oracle");
    let id = server.add(&json!({"name": "a", "url": "https://me:hunter9@a.example/x"}));
    server.add(&json!({"name": "b", "url": "http:///me:hunter9@a.example/"}));
    let shown = server.get("/websites").json(200).to_string();
    assert!(!shown.contains("hunter9"), "{shown}");
    for keyword in ["hunter9", "https://me:h", "me:", "https%3A%2F%2Fme%3Ahunter9%40"] {
        let found = server.get(&format!("/website?keyword={keyword}")).json(200);
        assert_eq!(found["items"], json!([]), "{keyword}");
    }
    // As it is shown, without the password, or with any.
    for user in ["me:********@", "", "me:hunter9@", "me:hunter8@"] {
        let url = format!("https://{user}a.example/x");
        server.get(&format!("/monitoring?url={url}")).json(200);
        server.get(&format!("/monitoring?url={url}&website_id={id}")).json(200);
    }
    server.get("/monitoring?url=https://me:hunter9@b.example/x").json(404);
}

#[test]
fn references_are_an_admins() {
    let tokens = tokens(&[("ann", "admin"), ("will", "write")]);
    let server = Server::start_with("api_refs", &[("WEBMON_API_TOKENS", &tokens)]);
    let (ann, will) = (server.by("ann"), server.by("will"));
    let refers =
        json!({"name": "a", "url": "http://127.0.0.1:1/", "headers": {"X": "{secret:shop}"}});
    let refused = |method: &str, path: &str, body: &Value| {
        let problem = will.send(method, path, body).json(403);
        assert!(problem["detail"].as_str().unwrap().starts_with("headers: only"), "{problem}");
    };
    refused("POST", "/websites", &refers);
    let mut check = refers.clone();
    check.as_object_mut().unwrap().remove("name");
    refused("POST", "/check", &check);
    ann.send("POST", "/check", &check).json(200);
    let path = format!("/websites/{}", ann.add(&refers));
    refused("PATCH", &path, &json!({"url": "http://evil.example/"}));
    refused("PATCH", &path, &json!({"headers": {"Y": "{secret:shop}"}}));
    will.send("PATCH", &path, &json!({"interval": 60, "url": "http://127.0.0.1:1/y"})).json(200);
    will.send("PUT", &path, &refers).json(200);
    ann.send("PATCH", &path, &json!({"url": "http://127.0.0.1:2/"})).json(200);
}

#[test]
fn the_page_of_a_private_site_is_not_a_writers() {
    let tokens = tokens(&[("ann", "admin"), ("will", "write")]);
    let env =
        [("WEBMON_API_TOKENS", tokens.as_str()), ("WEBMON_API_ALLOW_PRIVATE_ADDRESSES", "false")];
    let server = Server::start_with("api_pages", &env);
    let (ann, will) = (server.by("ann"), server.by("will"));
    server
        .database()
        .client()
        .batch_execute(
            "INSERT INTO website (name, url) VALUES ('own', 'https://127.0.0.1/'), \
             ('shop', 'https://192.0.9.1/')",
        )
        .unwrap();
    for change in [
        json!({"regex": "(.*)"}),
        json!({"pattern": "(.+)"}),
        json!({"forbidden_regex": "a"}),
        json!({"expected_headers": {"X": "a"}}),
        json!({"forbidden_headers": {"X": "a"}}),
    ] {
        assert_eq!(will.send("PATCH", "/websites/1", &change).fields(), ["url"], "{change}");
        ann.send("PATCH", "/websites/1", &change).json(200);
    }
    for change in [json!({"tls_verify": false}), json!({"tls_ca": "{secret:ca}"})] {
        let fields = ann.send("PATCH", "/websites/1", &change).fields();
        assert_eq!(fields, ["url"], "{change}");
    }
    will.send("PATCH", "/websites/1", &json!({"interval": 60})).json(200);
    let public = will.send("PATCH", "/websites/2", &json!({"regex": "a"})).json(200);
    assert_eq!(public["addresses"], "public");
}

#[test]
fn patches_merge_and_faults_have_a_field() {
    let server = Server::start("api_merge");
    let path =
        format!("/websites/{}", server.add(&json!({"name": "a", "url": "http://a.example/"})));
    let patch = |body: Value| server.send("PATCH", &path, &body);
    let before = patch(json!({"headers": {"X": null}, "expected_headers": {"X": null}})).json(200);
    assert_eq!((&before["headers"], before.get("expected_headers")), (&Value::Null, None));
    patch(json!({"headers": [["X-A", "1"], ["X-A", "2"]], "expected_headers": {"B": "b"}}))
        .json(200);
    let after =
        patch(json!({"headers": {"X-New": "1"}, "expected_headers": {"B": null}})).json(200);
    assert_eq!(after["headers"], json!([["X-A", "1"], ["X-A", "2"], ["X-New", "1"]]));
    assert_eq!(after.get("expected_headers"), None);
    for (field, value) in [
        ("tls_ca", json!("a\u{0}")),
        ("tls_certificate", json!("a\u{0}")),
        ("expected_headers", json!({"A": "a\u{0}"})),
    ] {
        assert_eq!(patch(json!({field: value})).fields(), [field]);
    }
    // The document says so, too.
    let document = server.get("/openapi.json").json(200);
    let keys = &document["components"]["schemas"]["WebsitePatch"]["properties"];
    let or_null = json!({"type": ["string", "null"]});
    assert_eq!(keys["headers"]["anyOf"][0]["additionalProperties"], or_null);
    assert_eq!(keys["expected_headers"]["additionalProperties"], or_null);
    assert!(keys["pattern"].is_object());
}

#[test]
fn the_name_of_a_deleted_site_is_free() {
    let server = Server::start("api_gone");
    let gone = server.add(&json!({"name": "gone", "url": "http://a.example/"}));
    let other = server.add(&json!({"name": "b", "url": "http://b.example/"}));
    server.ask("DELETE", &format!("/websites/{gone}"), &[], "").empty(204);
    let path = format!("/websites/{other}");
    let renamed = server.send("PATCH", &path, &json!({"name": "gone"})).json(200);
    assert_eq!((&renamed["name"], &renamed["website_id"]), (&json!("gone"), &json!(other)));
    let deleted = server.get("/websites?status=deleted").json(200);
    assert_eq!(deleted["items"][0]["name"], format!("gone (deleted {gone})"));
}

#[test]
fn a_short_deadline_has_time_for_a_check() {
    let server = Server::start_with("api_short", &[("WEBMON_API_DEADLINE", "2")]);
    let check = server.send("POST", "/check", &json!({"url": "http://127.0.0.1:1/"})).json(200);
    assert_eq!(check["outcome"], "down");
}
