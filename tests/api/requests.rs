//! What is no request that can be answered, and who may not ask.

use serde_json::{Value, json};

use crate::server::{Server, tokens};

#[test]
fn paths_and_methods_are_held_to_the_table() {
    let server = Server::start("api_paths");
    for path in [
        "/nothing",
        "/websites/",
        "/websites/1/",
        "/websites/1/uptime/x",
        "/Websites",
        "//websites",
        "/docs/x",
    ] {
        server.get(path).json(404);
    }
    for (method, path, allow) in [
        ("DELETE", "/websites", "GET, HEAD, POST, PUT, OPTIONS"),
        ("POST", "/websites/1", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        ("GET", "/websites/1/pause", "POST, OPTIONS"),
        ("GET", "/check", "POST, OPTIONS"),
        ("PUT", "/monitoring", "GET, HEAD, OPTIONS"),
        ("POST", "/openapi.json", "GET, HEAD, OPTIONS"),
    ] {
        let answer = server.ask(method, path, &[], "");
        answer.json(405);
        assert_eq!(answer.header("Allow"), Some(allow), "{method} {path}");
        let options = server.ask("OPTIONS", path, &[], "");
        assert_eq!(options.empty(204).header("Allow"), Some(allow), "{path}");
    }
    let (get, head) = (server.get("/websites"), server.ask("HEAD", "/websites", &[], ""));
    assert_eq!((head.empty(200).header("Content-Length")), get.header("Content-Length"));
    for id in ["0", "-1", "x", "1.0", "99999999999999999999", "%2e"] {
        server.get(&format!("/websites/{id}")).json(404);
    }
}

#[test]
fn bodies_are_json_of_the_right_type() {
    let server = Server::start("api_bodies");
    let id = server.add(&json!({"name": "a", "url": "https://a.example/"}));
    let path = format!("/websites/{id}");
    let good = r#"{"name": "b", "url": "https://b.example/"}"#;
    for (method, path) in [
        ("POST", "/websites"),
        ("PUT", "/websites"),
        ("PUT", &path),
        ("PATCH", &path),
        ("POST", "/check"),
    ] {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            server.ask(method, path, &[("Content-Type", kind)], good).json(415);
        }
        server.ask(method, path, &[], good).json(415);
        let json = [("Content-Type", "application/json; charset=utf-8")];
        for (bad, place) in [
            ("{\"name\": \"b\",\n \"url\" 1}", "line 2 column 8"),
            ("{\"name\": \"b\", \"name\": \"c\"}", "'name' is there twice"),
            ("", "line 1 column 0"),
            ("{\"a\":\"\u{1}\"}", "line 1"),
        ] {
            let detail = server.ask(method, path, &json, bad).json(400)["detail"].clone();
            assert!(detail.as_str().unwrap().contains(place), "{detail}");
        }
        for bad in ["[]", "null", "7", "\"x\""] {
            assert_eq!(server.ask(method, path, &json, bad).fields(), [""], "{bad}");
        }
    }
    let merge = [("Content-Type", "application/merge-patch+json")];
    server.ask("PATCH", &path, &merge, r#"{"interval": 90}"#).json(200);
    server.ask("PUT", &path, &merge, good).json(415);
}

#[test]
fn every_fault_of_a_site_is_named_types_and_ranges_together() {
    let server = Server::start("api_faults");
    let wrong = json!({
        "name": "", "url": "ftp://a.example/", "interval": 4, "timeout": "5", "regex": "a(",
        "method": "BREW", "headers": {"a b": "c"}, "expected_status": "abc", "retries": 9,
        "tls_verify": "yes", "colour": "blue", "status": "deleted",
    });
    let mut fields = server.send("POST", "/websites", &wrong).fields();
    fields.sort_unstable();
    let mut expect: Vec<&str> = wrong.as_object().unwrap().keys().map(String::as_str).collect();
    expect.sort_unstable();
    assert_eq!(fields, expect);

    let good = json!({"name": "a", "url": "https://a.example/"});
    let with = |key: &str, value: Value| {
        let mut site = good.clone();
        site[key] = value;
        site
    };
    let id = server.add(&good);
    let path = format!("/websites/{id}");
    for (key, value, field) in [
        ("interval", json!(4), "interval"),
        ("interval", json!(86_401), "interval"),
        ("interval", json!(5.5), "interval"),
        ("interval", json!(-5), "interval"),
        ("timeout", json!(0), "timeout"),
        ("timeout", json!(60), "timeout"),
        ("url", json!("https://"), "url"),
        ("url", json!("a.example"), "url"),
        ("url", json!("javascript:alert(1)"), "url"),
        ("url", json!(format!("https://a.example/{}", "x".repeat(2048))), "url"),
        ("name", json!("x".repeat(201)), "name"),
        ("name", json!("a\nb"), "name"),
        ("name", json!("a\u{0}b"), "name"),
        ("regex", json!("(?=x)"), "regex"),
        ("regex", json!("x".repeat(1025)), "regex"),
        ("regex", json!("(a{1000}){1000}"), "regex"),
        ("body", json!("x".repeat(65_537)), "body"),
        ("website_id", json!(999), "website_id"),
        ("password", json!("********"), "password"),
    ] {
        let site = with(key, value.clone());
        let found = server.send("PUT", &path, &site).fields();
        assert_eq!(found, [field], "PUT {key}");
        let found = server.send("PATCH", &path, &json!({key: value})).fields();
        assert_eq!(found, [field], "PATCH {key}");
        if key != "website_id" {
            assert_eq!(server.send("POST", "/websites", &site).fields(), [field], "POST {key}");
        }
    }
    for interval in [5, 86_400] {
        server.send("PUT", &path, &with("interval", json!(interval))).json(200);
    }
    assert_eq!(server.get("/websites").json(200)["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_role_may_do_what_it_may_and_no_more() {
    let tokens = tokens(&[("eve", "read"), ("ann", "write"), ("root", "admin")]);
    let server = Server::start_with("api_roles", &[("WEBMON_API_TOKENS", &tokens)]);
    let id = server.by("root").add(&json!({"name": "a", "url": "http://127.0.0.1:9/"}));
    let site = json!({"name": "a", "url": "http://127.0.0.1:9/"});
    for (method, path) in [
        ("GET", "/websites".to_owned()),
        ("HEAD", "/websites".to_owned()),
        ("GET", "/website?keyword=a".to_owned()),
        ("GET", format!("/websites/{id}")),
        ("GET", format!("/monitoring?website_id={id}")),
        ("GET", format!("/websites/{id}/uptime")),
        ("GET", format!("/websites/{id}/response-times")),
        ("GET", "/status".to_owned()),
        ("GET", "/metrics".to_owned()),
        ("PUT", "/websites".to_owned()),
        ("PUT", format!("/websites/{id}")),
        ("PATCH", format!("/websites/{id}")),
        ("POST", format!("/websites/{id}/pause")),
        ("POST", format!("/websites/{id}/resume")),
        ("POST", "/check".to_owned()),
        ("DELETE", format!("/websites/{id}")),
        ("POST", "/websites".to_owned()),
    ] {
        let body =
            if path == "/check" { json!({"url": "http://127.0.0.1:9/"}) } else { site.clone() };
        let nobody = server.send(method, &path, &body);
        assert_eq!(nobody.status, 401, "{method} {path}");
        assert!(nobody.header("WWW-Authenticate").unwrap().starts_with("Bearer"), "{path}");
        assert_eq!(server.by("mallory").send(method, &path, &body).status, 401);
        let is_read = matches!(method, "GET" | "HEAD");
        let eve = server.by("eve").send(method, &path, &body);
        assert_eq!(eve.status == 403, !is_read, "{method} {path}: {}", eve.text());
        let ann = server.by("ann").send(method, &path, &body);
        assert!((200..300).contains(&ann.status), "{method} {path}: {}", ann.text());
    }
    for open in ["/livez", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
    assert_eq!(server.get("/").status, 302);
    assert_eq!(server.ask("OPTIONS", "/websites", &[], "").status, 204);
}
