//! One request after another, as the standard has it, and within the limits.

use webmon::api::{AccessOptions, HEAD_MAX, HEADERS_MAX, Limits};

use super::lab::{Answer, Server, get, start};

fn server() -> Server {
    start(Limits::default(), AccessOptions::default())
}

const HOST: &str = "Host: localhost\r\n";

#[test]
fn a_connection_carries_many_requests_also_at_once() {
    let server = server();
    let mut client = server.connect();
    let post = format!("POST /2?a=b+c HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello");
    client.send(format!("{}{post}{}", get("/1"), get("/3")).as_bytes());
    let answers: Vec<_> = (0..3).map(|_| client.answer()).collect();
    assert!(answers.iter().all(|answer| answer.status() == 200));
    let paths: Vec<_> = answers.iter().map(|answer| answer.json()["path"].clone()).collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
    let second = answers[1].json();
    assert_eq!((&second["body"], &second["method"]), (&"hello".into(), &"POST".into()));
    assert_eq!(second["query"], serde_json::json!([["a", "b c"]]));
    assert_eq!((&second["caller"], &second["role"]), (&"local".into(), &"admin".into()));
    assert_eq!(second["address"], "127.0.0.1");
    client.send(get("/4").as_bytes());
    assert_eq!(client.answer().json()["path"], "/4");
    client.send(format!("GET /5 HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").as_bytes());
    assert_eq!(client.answer().header("connection"), Some("close"));
    assert!(client.ended().is_empty());
}

#[test]
fn the_old_version_and_the_methods_without_a_body() {
    let server = server();
    let mut client = server.connect();
    client.send(b"GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().header("connection"), Some("close"));
    assert!(client.ended().is_empty());
    let mut client = server.connect();
    client.send(b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.answer().header("connection"), Some("keep-alive"));
    client.send(format!("HEAD /head HTTP/1.1\r\n{HOST}\r\n").as_bytes());
    let head = client.head();
    assert!(head.contains("\r\nContent-Length: 1"), "{head}");
    // What follows is the next answer, not a body.
    client.send(get("/empty").as_bytes());
    let empty = client.answer();
    assert_eq!((empty.status(), empty.header("content-length")), (204, None));
    client.send(format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n").as_bytes());
    let all = client.answer();
    assert_eq!(all.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
}

#[test]
fn what_is_too_much_or_has_two_meanings_gets_its_status() {
    let server = server();
    let long = "y".repeat(100_000);
    let many = "X: y\r\n".repeat(HEADERS_MAX + 1);
    let post = format!("POST / HTTP/1.1\r\n{HOST}");
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\n{HOST}\r\n"), 414),
        (format!("GET / HTTP/1.1\r\n{HOST}X: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\n{HOST}{many}\r\n"), 431),
        // Told at the head: nothing of the body was sent.
        (format!("{post}Content-Length: 1048577\r\n\r\n"), 413),
        (format!("{post}Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n"), 413),
        (format!("{post}Content-Length: 99999999999999999999999999\r\n\r\n"), 413),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n100001\r\n"), 413),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\naX"), 400),
        (format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 5, 5\r\n\r\nhello"), 400),
        (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: identity\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding : chunked\r\n\r\n"), 400),
        (format!("{post}X: a\r\n b\r\n\r\n"), 400),
        (format!("{post}X: a\nY: b\r\n\r\n"), 400),
        (format!("{post}Expect: rain\r\n\r\n"), 417),
        (format!("BREW / HTTP/1.1\r\n{HOST}\r\n"), 501),
        (format!("TRACE / HTTP/1.1\r\n{HOST}\r\n"), 501),
        (format!("CONNECT localhost:80 HTTP/1.1\r\n{HOST}\r\n"), 501),
        (format!("GET / HTTP/2.0\r\n{HOST}\r\n"), 505),
        (format!("GET /%00 HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET /?q=%ff HTTP/1.1\r\n{HOST}\r\n"), 400),
        (format!("GET localhost HTTP/1.1\r\n{HOST}\r\n"), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n"), 400),
        ("\u{16}\u{3}\u{1}\u{2}".to_owned(), 400),
    ] {
        // What follows must not be taken for a request of its own.
        let mut client = server.connect();
        client.send(request.as_bytes());
        client.send(get("/smuggled").as_bytes());
        let answer = client.answer();
        answer.is_problem(status);
        assert!(client.ended().is_empty(), "{request:.80}");
    }
    let seen = server.echo.seen.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(seen, 0, "a request got through");
}

#[test]
fn what_just_fits_is_answered() {
    let server = server();
    let post = format!("POST / HTTP/1.1\r\n{HOST}");
    let fits = "y".repeat(HEAD_MAX - 200);
    assert_eq!(server.ask(format!("GET /{fits} HTTP/1.1\r\n{HOST}\r\n").as_bytes()).status(), 200);
    let body = "z".repeat(1 << 20);
    let whole = format!("{post}Content-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(server.ask(whole.as_bytes()).json()["body"], body.as_str());
    let half = body.len() / 2;
    let chunks = format!(
        "{post}Transfer-Encoding: Chunked\r\n\r\n{half:x};a=b\r\n{}\r\n{half:X}\r\n{}\r\n0\r\nT: x\r\n\r\n",
        &body[..half],
        &body[half..]
    );
    let mut client = server.connect();
    client.send(chunks.as_bytes());
    client.send(get("/next").as_bytes());
    assert_eq!(client.answer().json()["body"], body.as_str());
    assert_eq!(client.answer().json()["path"], "/next");
    // An absolute target goes before Host, and is read as a path.
    let absolute = b"GET http://localhost:1/there?x HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n";
    assert_eq!(server.ask(absolute).json()["path"], "/there");
}

#[test]
fn a_body_is_asked_for_when_the_client_waits_to_be() {
    let server = server();
    let mut client = server.connect();
    let head =
        format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n");
    client.send(head.as_bytes());
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"hello");
    assert_eq!(client.answer().json()["body"], "hello");
    // Who sends it at once, or speaks the old version, is not told.
    client.send(format!("{head}again").as_bytes());
    assert_eq!(client.answer().json()["body"], "again");
    client.send(head.replace("1.1", "1.0").as_bytes());
    client.send(b"older");
    assert_eq!(client.answer().json()["body"], "older");
}

#[test]
fn a_panic_is_a_problem_and_the_server_lives() {
    let server = server();
    let mut client = server.connect();
    for _ in 0..20 {
        client.send(get("/panic").as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status(), &answer.json()["status"]), (500, &500.into()));
        assert!(!String::from_utf8_lossy(&answer.body).contains("on purpose"));
    }
    client.send(get("/fine").as_bytes());
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn every_answer_has_the_security_headers() {
    let server = server();
    let check = |answer: &Answer, policy: &str, caching: &str| {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert_eq!(answer.header("content-security-policy"), Some(policy), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some(caching), "{answer:?}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer:?}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    };
    let strict = "default-src 'none'; frame-ancestors 'none'";
    check(&server.get("/"), strict, "no-store");
    check(&server.get("/panic"), strict, "no-store");
    check(&server.get("/page"), "default-src 'self'", "max-age=60");
    check(&server.ask(b"rubbish\r\n\r\n"), strict, "no-store");
    check(&server.ask(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), strict, "no-store");
}
