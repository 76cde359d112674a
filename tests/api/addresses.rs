//! Sites that come in over the API keep to public addresses, unless the configuration says
//! otherwise.

use serde_json::json;

use crate::server::Server;
use crate::support::web::Web;

const PUBLIC: [(&str, &str); 1] = [("WEBMON_API_ALLOW_PRIVATE_ADDRESSES", "false")];

#[test]
fn a_site_from_outside_is_public() {
    let server = Server::start_with("api_public", &PUBLIC);
    for url in [
        "http://127.0.0.1/",
        "http://127.1:8080/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://10.0.0.1/",
        "http://192.168.1.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://0.0.0.0/",
        "http://localhost/",
        "http://LOCALHOST.:80/",
        "http://a.localhost/",
    ] {
        let site = json!({"name": "x", "url": url});
        for answer in [
            server.send("POST", "/websites", &site),
            server.send("POST", "/check", &json!({"url": url})),
        ] {
            assert_eq!(answer.fields(), ["url"], "{url}");
            assert!(answer.text().contains("api.allow_private_addresses"), "{}", answer.text());
        }
        let proxy = url.split('/').take(3).collect::<Vec<_>>().join("/");
        let site = json!({"name": "x", "url": "http://192.0.9.1/", "proxy": proxy});
        assert_eq!(server.send("POST", "/websites", &site).fields(), ["proxy"], "{url}");
    }
    let wide = json!({"name": "x", "url": "http://192.0.9.1/", "addresses": "any"});
    assert_eq!(server.send("POST", "/websites", &wide).fields(), ["addresses"]);

    let site = json!({"name": "x", "url": "http://shop.example/"});
    let id = server.add(&site);
    let path = format!("/websites/{id}");
    assert_eq!(server.get(&path).json(200)["addresses"], "public");
    // It stays, whatever is changed, and can't be taken away.
    let put = server.send("PUT", &path, &site).json(200);
    assert_eq!(put["addresses"], "public");
    let patched = server.send("PATCH", &path, &json!({"addresses": null})).json(200);
    assert_eq!(patched["addresses"], "public");
    let any = server.send("PATCH", &path, &json!({"addresses": "any"}));
    assert_eq!(any.fields(), ["addresses"]);
    let moved = server.send("PATCH", &path, &json!({"url": "http://127.0.0.1/"}));
    assert_eq!(moved.fields(), ["url"]);
}

#[test]
fn an_operators_site_keeps_its_place_until_its_request_is_changed() {
    let server = Server::start_with("api_operators", &PUBLIC);
    server
        .database()
        .client()
        .execute("INSERT INTO website (name, url) VALUES ('own', 'http://10.0.0.7/')", &[])
        .unwrap();
    let path = "/websites/1";
    let patched = server.send("PATCH", path, &json!({"interval": 300, "regex": "x"})).json(200);
    assert_eq!(patched.get("addresses"), None);
    let put = server.send("PUT", path, &json!({"name": "own", "url": "http://10.0.0.7/"}));
    assert_eq!(put.json(200).get("addresses"), None);
    for change in [
        json!({"url": "http://10.0.0.8/"}),
        json!({"headers": {"X-A": "b"}}),
        json!({"method": "POST"}),
        json!({"proxy": "http://proxy.example:3128"}),
        json!({"addresses": "public"}),
    ] {
        assert_eq!(server.send("PATCH", path, &change).fields()[0], "url", "{change}");
    }
    let moved = server.send("PATCH", path, &json!({"url": "http://shop.example/"})).json(200);
    assert_eq!(moved["addresses"], "public");
}

#[test]
fn where_it_is_allowed_anything_goes_but_what_a_site_forbids_itself() {
    let server = Server::start("api_private");
    let web = Web::start(|_| (200, "hello".to_owned()));
    let url = web.url("/");
    let id = server.add(&json!({"name": "x", "url": url}));
    assert_eq!(server.get(&format!("/websites/{id}")).json(200).get("addresses"), None);
    let check = server.send("POST", "/check", &json!({"url": url, "regex": "h(.)l"})).json(200);
    assert_eq!((&check["outcome"], &check["regex_captures"]), (&json!("up"), &json!(["e"])));
    assert_eq!((&check["website_id"], &check["v"]), (&json!(0), &json!(1)));
    let check = json!({"url": url, "addresses": "public"});
    let check = server.send("POST", "/check", &check).json(200);
    assert_eq!((&check["outcome"], &check["failure"]["kind"]), (&json!("down"), &json!("blocked")));
    assert_eq!(web.all_hits(), 1);
}

#[test]
fn one_shot_checks_are_bounded() {
    let server = Server::start("api_check");
    let check = |body: serde_json::Value| server.send("POST", "/check", &body);
    let down = check(json!({"url": "http://127.0.0.1:1/"})).json(200);
    assert_eq!((&down["outcome"], &down["failure"]["kind"]), (&json!("down"), &json!("connect")));
    assert_eq!(check(json!({})).fields(), ["url"]);
    assert_eq!(
        check(json!({"url": "x", "timeout": "5", "colour": 1})).fields(),
        ["timeout", "colour", "url"]
    );
    let url = "http://127.0.0.1:1/";
    assert_eq!(check(json!({"url": url, "timeout": 31})).fields(), ["timeout"]);
    // The server's own deadline is 10 s.
    assert_eq!(check(json!({"url": url, "timeout": 9})).fields(), ["timeout"]);
    assert_eq!(check(json!({"url": url, "timeout": 3, "retries": 5})).fields(), ["retries"]);
    assert_eq!(
        check(json!({"url": url, "timeout": 1, "retries": 1, "retry_pause": 0})).json(200)["tries"],
        2
    );
    assert_eq!(check(json!({"url": url, "status": "paused"})).fields(), ["status"]);
}
