//! Tokens, names, pages of other sites and rates, over the wire.

use webmon::api::{AccessOptions, Limits, Role, Token, hash_token};

use super::lab::{Server, start};

fn server(access: AccessOptions) -> Server {
    start(Limits::default(), access)
}

fn with_tokens() -> Server {
    let token = |name: &str, role, text: &str| Token {
        name: name.to_owned(),
        role,
        sha256: hash_token(text),
    };
    server(AccessOptions {
        tokens: vec![
            token("reader", Role::Read, "r-secret"),
            token("writer", Role::Write, "w-secret"),
            token("chief", Role::Admin, "a-secret"),
        ],
        ..AccessOptions::default()
    })
}

fn request(method: &str, headers: &str) -> Vec<u8> {
    format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

#[test]
fn a_token_is_a_caller_with_a_role() {
    let server = with_tokens();
    for (token, name, role) in [
        ("r-secret", "reader", "read"),
        ("w-secret", "writer", "write"),
        ("a-secret", "chief", "admin"),
    ] {
        let header = format!("Authorization: Bearer {token}\r\n");
        let caller = server.ask(&request("POST", &header)).json();
        assert_eq!((&caller["caller"], &caller["role"]), (&name.into(), &role.into()));
    }
    // Who sends none is for the routes to judge: some are open.
    let nobody = server.ask(&request("GET", "")).json();
    assert_eq!((&nobody["caller"], &nobody["role"]), (&"".into(), &serde_json::Value::Null));
}

#[test]
fn a_wrong_token_and_a_body_without_one_are_401() {
    let server = with_tokens();
    for headers in [
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer r-secre\r\n",
        "Authorization: Basic cjpyLXNlY3JldA==\r\n",
        "Authorization: Bearer\r\n",
        "Authorization:\r\n",
        "Authorization: Bearer r-secret\r\nAuthorization: Bearer wrong\r\n",
        "Content-Length: 1048576\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 10\r\nExpect: 100-continue\r\n",
    ] {
        let answer = server.ask(&request("POST", headers));
        answer.is_problem(401);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secre"), "{answer:?}");
    }
    let seen = server.echo.seen.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(seen, 0);
}

#[test]
fn a_name_that_was_made_to_mean_this_machine_is_refused() {
    let hosts = vec!["webmon.example".to_owned()];
    let server = server(AccessOptions { hosts, ..AccessOptions::default() });
    let port = server.addr.port();
    for (host, status) in [
        ("localhost", 200),
        (&format!("localhost:{port}"), 200),
        (&format!("127.0.0.1:{port}"), 200),
        (&format!("[::1]:{port}"), 200),
        ("WebMon.example:443", 200),
        ("evil.example", 421),
        (&format!("evil.example:{port}"), 421),
        ("localhost.evil.example", 421),
        ("192.0.2.7", 421),
        ("127.0.0.2", 421),
        ("0.0.0.0", 421),
    ] {
        let answer = server.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(answer.status(), status, "{host}");
        if status != 200 {
            answer.is_problem(status);
        }
        let absolute = format!("GET http://{host}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(server.ask(absolute.as_bytes()).status(), status, "{host}");
    }
}

#[test]
fn only_listed_origins_are_told_that_they_may() {
    let off = server(AccessOptions::default());
    let origin = "Origin: https://status.example\r\n";
    let asks = format!("{origin}Access-Control-Request-Method: PATCH\r\n");
    off.ask(&request("OPTIONS", &asks)).is_problem(403);
    let plain = off.ask(&request("GET", origin));
    assert_eq!((plain.status(), plain.header("access-control-allow-origin")), (200, None));
    assert_eq!(plain.header("vary"), None);

    let cors_origins = vec!["https://status.example".to_owned()];
    let on = server(AccessOptions { cors_origins, ..AccessOptions::default() });
    let preflight = on.ask(&request("OPTIONS", &asks));
    assert_eq!(preflight.status(), 204);
    let listed = Some("https://status.example");
    assert_eq!(preflight.header("access-control-allow-origin"), listed);
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("PATCH"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("Authorization"));
    assert_eq!(preflight.header("vary"), Some("Origin"));
    assert_eq!(preflight.header("access-control-allow-credentials"), None);
    let got = on.ask(&request("GET", origin));
    assert_eq!(got.header("access-control-allow-origin"), listed);
    assert!(got.header("access-control-expose-headers").unwrap().contains("ETag"));
    // Errors of the server too: the page must see what is wrong.
    let bad = on.ask(format!("POST / HTTP/1.1\r\nHost: evil\r\n{origin}\r\n").as_bytes());
    assert_eq!((bad.status(), bad.header("access-control-allow-origin")), (421, listed));
    let other = on.ask(&request("GET", "Origin: https://other.example\r\n"));
    assert_eq!((other.status(), other.header("access-control-allow-origin")), (200, None));
    assert_eq!(other.header("vary"), Some("Origin"));
    let other = asks.replace("status", "other");
    on.ask(&request("OPTIONS", &other)).is_problem(403);
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let server = server(AccessOptions::default());
    let own = format!("Origin: http://localhost:{}\r\n", server.addr.port());
    for (headers, status) in [
        ("", 200),
        ("Sec-Fetch-Site: same-origin\r\n", 200),
        ("Origin: http://localhost\r\n", 200),
        ("Origin: http://evil.example\r\nContent-Type: text/plain\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        (&own, 403),
    ] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let answer = server.ask(&request(method, headers));
            assert_eq!(answer.status(), status, "{method} {headers}");
        }
        assert_eq!(server.ask(&request("GET", headers)).status(), 200, "{headers}");
    }
    let host = format!("localhost:{}", server.addr.port());
    let same = format!("POST / HTTP/1.1\r\nHost: {host}\r\n{own}\r\n");
    assert_eq!(server.ask(same.as_bytes()).status(), 200);
}

#[test]
fn who_asks_too_often_is_told_to_wait_and_others_are_not() {
    let server = server(AccessOptions { rate_limit: 1, ..AccessOptions::default() });
    let ask = |last: u8| {
        let mut client = server.connect_from(last);
        client.send(&request("GET", ""));
        client.answer()
    };
    let answers: Vec<_> = (0..20).map(|_| ask(1)).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert!(!refused.is_empty(), "twenty in a row");
    for answer in refused {
        answer.is_problem(429);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert!(answers[..2].iter().all(|answer| answer.status() == 200), "two at once may come");
    assert_eq!(ask(2).status(), 200);
}
