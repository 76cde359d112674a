//! What answers may take, and which of them wait for nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use jiff::{SignedDuration, Timestamp};
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use serde_json::Value;
use webmon::check::{CAPTURE_MAX, CAPTURES_MAX, Check, Identity, Outcome};
use webmon::runtime::now;
use webmon::site::{BODY_MAX, SiteSpec};
use webmon::store::SiteStatus;

use crate::server::{Server, tokens};
use crate::support::CAP;
use crate::support::cluster::Cluster;
use crate::support::services::TestDatabase;

/// As docs/access.md says.
const PAGE_MAX: usize = 4 << 20;

fn add_large_sites(server: &Server, count: usize) {
    let store = server.store();
    for n in 0..count {
        let spec = SiteSpec {
            name: format!("site {n}"),
            url: "https://a.example/".to_owned(),
            method: Some("POST".to_owned()),
            body: Some("x".repeat(BODY_MAX)),
            ..SiteSpec::default()
        };
        store.create_site(&spec, SiteStatus::Active).unwrap();
    }
}

fn ids(items: &[Value], key: &str) -> Vec<String> {
    items.iter().map(|item| item[key].to_string()).collect()
}

#[test]
fn a_page_ends_where_it_is_long_enough() {
    let server = Server::start("api_page_bytes");
    add_large_sites(&server, 140);
    for path in ["/websites?limit=500", "/website?keyword=site&limit=500", "/websites?limit=70"] {
        let first = server.get(path);
        assert!(first.body.len() <= PAGE_MAX + 1000, "{path}: {}", first.body.len());
        assert!(first.json(200)["items"].as_array().unwrap().len() > 50, "{path}");
        let mut found = ids(&server.pages(path, || ()), "website_id");
        found.dedup();
        assert_eq!(found.len(), 140, "{path}");
    }
    let few = server.get("/websites?limit=3").json(200);
    assert_eq!(few["items"].as_array().unwrap().len(), 3);

    let identity = Identity::new(1, "here");
    let checks: Vec<Check<'static>> = (0..400)
        .map(|n| {
            let due = now().wall - SignedDuration::from_secs(60 + n);
            let due = Timestamp::from_millisecond(due.as_millisecond()).unwrap();
            let url = "https://a.example/";
            let mut check = Check::empty(&identity, 1, url.into(), "here".into(), due);
            check.outcome = Outcome::Up;
            check.http_status = Some(200);
            check.regex_captures = Some(vec!["x".repeat(CAPTURE_MAX).into(); CAPTURES_MAX]);
            check
        })
        .collect();
    server.store().insert_checks(&checks).unwrap();
    let path = "/monitoring?website_id=1&limit=500";
    let first = server.get(path);
    assert!(first.body.len() <= PAGE_MAX + 1000, "{}", first.body.len());
    let found = server.pages(path, || ());
    let times: Vec<&str> = found.iter().map(|item| item["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one >= next));
    let mut found = ids(&found, "check_entry_id");
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 400);
}

/// The most memory that the process ever had, in MiB.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// A client that takes next to nothing by itself.
fn reluctant(address: &str) -> TcpStream {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&fd, 4096).unwrap();
    connect(&fd, &address.parse::<SocketAddr>().unwrap()).unwrap();
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(CAP)).unwrap();
    stream
}

#[test]
fn those_who_ask_for_much_and_read_nothing_take_bounded_memory() {
    let env = [("WEBMON_API_DEADLINE", "120"), ("WEBMON_API_CONNECTIONS", "400")];
    let server = Server::start_with("api_memory", &env);
    add_large_sites(&server, 140);
    let request = format!("GET /websites?limit=500 HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    // Each has the beginning of its answer before the next one asks.
    let mut clients: Vec<TcpStream> = (0..150)
        .map(|_| {
            let mut client = reluctant(&server.address);
            client.write_all(request.as_bytes()).unwrap();
            client.peek(&mut [0]).unwrap();
            client
        })
        .collect();
    // 256 MiB of answers, and what those under way and the program itself take; 150 would be 600.
    let most = peak(server.pid());
    assert!(most < 450, "{most} MiB");
    // Those who get none are told so, or one that reads nothing made room for them.
    let mut begin = [0; 12];
    clients.last_mut().unwrap().read_exact(&mut begin).unwrap();
    assert!([b"HTTP/1.1 200", b"HTTP/1.1 503"].contains(&&begin), "{begin:?}");
    // Small answers go on.
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/websites/1").status, 200);
}

#[test]
fn a_database_that_hangs_takes_nothing_else_along() {
    let cluster = Cluster::start(&[], &[], &[]);
    // A call is given up after 20 s; two of them, one after the other, would be too long.
    let env = [("WEBMON_API_DEADLINE", "35"), ("WEBMON_API_THREADS", "8")];
    let server = Server::at(TestDatabase::create_at(&cluster.url(), "api_hung"), &env);
    assert_eq!(server.get("/websites").status, 200);
    let frozen = cluster.freeze();
    let request = format!("GET /websites HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    // More than there are threads and places to wait.
    let mut waiting: Vec<TcpStream> = (0..90)
        .map(|_| {
            let mut client = TcpStream::connect(&server.address).unwrap();
            client.set_read_timeout(Some(CAP)).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client
        })
        .collect();
    // Eight are under way and 64 wait; the others are told so at once.
    waiting.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    crate::support::eventually("all places are taken", || {
        let told = waiting.iter().filter(|client| client.peek(&mut [0]).is_ok()).count();
        if told >= 18 { Ok(()) } else { Err(told) }
    });
    waiting.iter().for_each(|client| client.set_nonblocking(false).unwrap());
    for path in ["/livez", "/docs", "/openapi.json", "/metrics", "/"] {
        let answer = server.get(path);
        let status = answer.status;
        assert!([200, 302].contains(&status), "{path}: {status}");
    }
    // One call that was given up is enough for those behind it.
    for client in &mut waiting {
        let mut piece = [0; 4096];
        let count = client.read(&mut piece).unwrap();
        let text = String::from_utf8_lossy(&piece[..count]);
        assert!(text.starts_with("HTTP/1.1 503"), "{text}");
        let is_said = ["the database does not answer", "too many requests wait already"];
        assert!(is_said.iter().any(|part| text.contains(part)), "{text}");
    }
    drop(frozen);
    server.wait_for_status("/readyz", 200);
    assert_eq!(server.get("/websites").status, 200);
}

#[test]
fn why_it_is_not_ready_is_for_those_who_may_read() {
    let cluster = Cluster::start(&[], &[], &[]);
    let list = tokens(&[("reader", "read")]);
    let database = TestDatabase::create_at(&cluster.url(), "api_reasons");
    let server = Server::at(database, &[("WEBMON_API_TOKENS", &list)]);
    assert!(server.get("/readyz?verbose").text().contains("database: ok\n"));
    cluster.stop_at_once();
    let stranger = server.wait_for_status("/readyz", 503);
    assert_eq!(stranger.text(), "database: not ready\n");
    let known = server.by("reader").get("/readyz");
    assert_eq!(known.status, 503);
    assert!(known.text().starts_with("database: PostgreSQL 127.0.0.1:"), "{}", known.text());
}

#[test]
fn what_the_server_answers_by_itself_is_in_the_document() {
    let list = tokens(&[("reader", "read")]);
    let server = Server::start_with("api_declared", &[("WEBMON_API_TOKENS", &list)]);
    let document = server.get("/openapi.json").json(200);
    let declared = |path: &str, method: &str, status: u16| {
        let status = status.to_string();
        document["paths"][path][method]["responses"].get(&status).is_some()
    };
    for (path, status) in [("/livez", 401), ("/readyz", 401)] {
        let answer = server.by("unknown").get(path);
        assert_eq!(answer.status, status);
        assert!(declared(path, "get", status), "{path} {status}");
    }
    let reader = server.by("reader");
    let long = format!("/websites?keyword={}", "x".repeat(20_000));
    assert_eq!(reader.get(&long).status, 414);
    let expect = reader.ask("GET", "/websites", &[("Expect", "much")], "");
    assert_eq!(expect.status, 417);
    let large = [("Content-Length", "99999999")];
    assert_eq!(reader.ask("DELETE", "/websites/1", &large, "").status, 413);
    assert_eq!(reader.ask("POST", "/websites/1/pause", &large, "").status, 413);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            for status in [401, 413, 414, 417, 431, 500, 501, 505] {
                assert!(declared(path, method, status), "{method} {path} {status}");
            }
        }
    }
    let unready = &document["paths"]["/readyz"]["get"]["responses"]["503"]["content"];
    let kinds: Vec<&String> = unready.as_object().unwrap().keys().collect();
    assert_eq!(kinds, ["text/plain; charset=utf-8", "application/problem+json"]);
    let parameters = document["paths"]["/websites"]["post"]["parameters"].as_array().unwrap();
    let key = parameters.iter().find(|one| one["name"] == "Idempotency-Key").unwrap();
    let pattern = key["schema"]["pattern"].as_str().unwrap();
    let is_match = |text: &str| regex::Regex::new(pattern).unwrap().is_match(text);
    // What stands before and behind it is no part of a header's value.
    assert!(is_match("a b") && is_match("a") && !is_match("ä") && !is_match(" a"), "{pattern}");
}
