//! Lists of sites: pages, filters, keywords.

use serde_json::{Value, json};

use crate::server::Server;

fn ids(items: &[Value]) -> Vec<i64> {
    items.iter().map(|item| item["website_id"].as_i64().unwrap()).collect()
}

fn names(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// `text` as the value of a parameter.
fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[test]
fn pages_have_every_site_once_while_others_come_and_go() {
    let server = Server::start("api_pages");
    let site = |n: usize| json!({"name": format!("site {n}"), "url": "https://a.example/"});
    let before: Vec<i64> = (0..25).map(|n| server.add(&site(n))).collect();
    let mut more = 100;
    let found = server.pages("/websites?limit=7", || {
        more += 1;
        server.add(&site(more));
        // One that was on a page already.
        server.ask("DELETE", &format!("/websites/{}", before[0]), &[], "");
    });
    let found = ids(&found);
    assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] != pair[1]), "{found:?}");
    assert!(before.iter().all(|id| found.contains(id)), "{found:?}");

    let page = server.get("/websites?limit=24").json(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 24);
    let exact = server.pages("/websites?keyword=site%201&limit=2", || ());
    let all = server.get("/websites?keyword=site%201&limit=500").json(200);
    assert_eq!(Value::from(exact), all["items"], "the filter goes along");
    assert_eq!(all["next"], Value::Null);
}

#[test]
fn keywords_are_taken_as_they_are() {
    let server = Server::start("api_keyword");
    for (name, url) in [
        ("Shop 50% off", "https://shop.example/a_b"),
        ("it's \"quoted\" \\ slashed", "https://b.example/?q='x'"),
        ("Ünïcode ☃ 中文", "https://c.example/"),
        ("'; DROP TABLE website; --", "https://d.example/ab"),
    ] {
        server.add(&json!({"name": name, "url": url}));
    }
    for (keyword, expect) in [
        ("%", &[0][..]),
        ("_", &[0]),
        ("\\", &[1]),
        ("'", &[1, 3]),
        ("\"quoted\"", &[1]),
        ("☃", &[2]),
        ("中", &[2]),
        ("SHOP", &[0]),
        ("C.EXAMPLE", &[2]),
        ("'; DROP TABLE website; --", &[3]),
        ("a_b", &[0]),
        ("a%b", &[]),
        ("$1", &[]),
        (".example", &[0, 1, 2, 3]),
        ("ünï", &[2]),
    ] {
        for path in ["website", "websites"] {
            let found = server.get(&format!("/{path}?keyword={}", encoded(keyword))).json(200);
            let expect: Vec<i64> = expect.iter().map(|n| n + 1).collect();
            assert_eq!(ids(found["items"].as_array().unwrap()), expect, "{keyword}");
        }
    }
    assert_eq!(server.get("/website").fields(), ["keyword"]);
    assert_eq!(server.get("/website?keyword=").fields(), ["keyword"]);
    server.get("/website?keyword=%00").json(400);
    assert_eq!(server.get(&format!("/website?keyword={}", "x".repeat(2049))).fields(), ["keyword"]);
}

#[test]
fn parameters_are_held_to_their_ranges() {
    let server = Server::start("api_parameters");
    let id = server.add(&json!({"name": "a", "url": "https://a.example/"}));
    server.add(&json!({"name": "b", "url": "https://b.example/", "status": "paused"}));
    assert_eq!(names(&server.get("/websites?status=paused").json(200)), ["b"]);
    assert_eq!(names(&server.get("/websites?status=active").json(200)), ["a"]);
    server.ask("DELETE", &format!("/websites/{id}"), &[], "").empty(204);
    assert_eq!(names(&server.get("/websites").json(200)), ["b"]);
    assert_eq!(names(&server.get("/websites?status=deleted").json(200)), ["a"]);
    for (query, fields) in [
        ("limit=0", &["limit"][..]),
        ("limit=501", &["limit"]),
        ("limit=x", &["limit"]),
        ("limit=1&limit=2", &["limit"]),
        ("cursor=nonsense", &["cursor"]),
        ("cursor=", &["cursor"]),
        ("status=gone", &["status"]),
        ("colour=red", &["colour"]),
        ("limit=0&cursor=!&x=1", &["limit", "cursor", "x"]),
    ] {
        assert_eq!(server.get(&format!("/websites?{query}")).fields(), fields, "{query}");
    }
}
