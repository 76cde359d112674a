//! Checks through an HTTP proxy, and proxies that don't do what they should.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use webmon::check::FailureKind::{Blocked, Connect, Dns, Http, Status, Timeout};
use webmon::probe::ProbeOptions;
use webmon::runtime::{Stop, Threads};

use super::certificates::{good, ok, serve, server_config};
use super::settings::{site, with};
use super::support::{
    Do, SHORT, Server, accept, act, answer, build, check, check_with, down, options, prober_with,
    read_request, send, spec, up,
};

/// A proxy that knows all names to be 127.0.0.1, and what it was asked.
struct Proxy {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let address = accept("127.0.0.1", move |mut client| {
            let request = head(&mut client);
            seen.lock().unwrap().push(request.clone());
            let target = request.split(' ').nth(1).unwrap().to_owned();
            let is_tunnel = request.starts_with("CONNECT ");
            let authority = target.trim_start_matches("http://").split('/').next().unwrap();
            let port = authority.rsplit(':').next().unwrap().parse().unwrap();
            let Ok(mut site) = TcpStream::connect(("127.0.0.1", port)) else {
                let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
                return;
            };
            if is_tunnel {
                client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").unwrap();
            } else {
                // As proxies do: the site sees no absolute URL and no word of the proxy's.
                let own = |line: &&str| !line.starts_with("Proxy-");
                let lines: Vec<&str> = request.split("\r\n").filter(own).collect();
                let whole = lines.join("\r\n").replace(&format!("http://{authority}"), "");
                site.write_all(whole.as_bytes()).unwrap();
            }
            let (mut from, mut to) = (site.try_clone().unwrap(), client.try_clone().unwrap());
            let mut threads = Threads::new(Stop::new());
            let back = move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            };
            threads.spawn("back", back).unwrap();
            let _ = std::io::copy(&mut client, &mut site);
            let _ = site.shutdown(Shutdown::Write);
        });
        Self { url: format!("http://{address}"), requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads no more than a head.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn https_goes_through_a_tunnel_that_sees_nothing_of_the_request() {
    let proxy = Proxy::start();
    let port = serve(server_config(good(), false), ok());
    let mut spec = with(
        spec(&format!("https://site.test:{port}/path?query")),
        &[("bearer_token", "for-the-site"), ("proxy", &proxy.url.replace("//", "//me:pa%20ss@"))],
    );
    spec.headers = vec![("X-Key".to_owned(), "for-the-site".to_owned())];
    let whole = "resolve connect tls processing transfer";
    let seen = check(build(&spec), &up().phases(whole));
    assert!(seen.certificate_expires_at.is_some());
    assert_eq!(seen.remote_address.unwrap(), proxy.url.trim_start_matches("http://"));
    let authority = format!("site.test:{port}");
    // me:pa ss
    let expect = format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\
         Proxy-Authorization: Basic bWU6cGEgc3M=\r\n\r\n"
    );
    assert_eq!(proxy.requests(), [expect]);
}

#[test]
fn http_goes_as_an_absolute_url_and_each_hop_anew() {
    let proxy = Proxy::start();
    let site_server = Server::answering(|request| match request.split(' ').nth(1) {
        Some("/") => vec![answer("HTTP/1.1 302 Found\r\nLocation: /a?b", "")],
        _ => vec![answer("HTTP/1.1 200 OK", "")],
    });
    let authority = format!("unknown-here.test:{}", site_server.address.port());
    let url = format!("http://{authority}/");
    let with_access = proxy.url.replace("//", "//me:secret-word@");
    let seen = check(
        site(&url, &[("proxy", &with_access)]),
        &up().phases("resolve connect processing transfer"),
    );
    assert_eq!(seen.redirects, Some(1));
    let asked = proxy.requests();
    assert!(asked[0].starts_with(&format!("GET http://{authority}/ HTTP/1.1\r\n")), "{asked:?}");
    assert!(asked[1].starts_with(&format!("GET http://{authority}/a?b HTTP/1.1\r\n")), "{asked:?}");
    for request in &asked {
        assert!(request.contains(&format!("\r\nhost: {authority}\r\n")), "{request}");
        assert_eq!(request.matches("Proxy-Authorization: Basic ").count(), 1, "{request}");
    }
    for request in site_server.requests() {
        assert!(!request.to_lowercase().contains("proxy"), "{request}");
        assert!(request.starts_with("GET /"), "{request}");
    }
    // Without access, with a body.
    let mut post = with(spec(&format!("{url}post")), &[("proxy", &proxy.url)]);
    post.method = Some("POST".to_owned());
    post.body = Some("x".repeat(40_000));
    check(build(&post), &up());
    assert!(site_server.requests().pop().unwrap().ends_with(&"x".repeat(40_000)));
    assert!(!proxy.requests().pop().unwrap().contains("Proxy-"));
    // What the site itself answers is the site's.
    let broken = Server::script(&[answer("HTTP/1.1 502 Bad Gateway", "")]);
    let expect = down(Status, "502 Bad Gateway, expected 200-299");
    check(site(&broken.url(), &[("proxy", &proxy.url)]), &expect);
}

#[test]
fn a_proxys_own_failures_are_told_as_such() {
    let https = "https://site.test:9/";
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = down(Connect, &format!("proxy {closed}: Connection refused"));
    let closed = format!("http://{closed}");
    for url in [https, "http://site.test:9/"] {
        check(site(url, &[("proxy", &closed)]), &refused.clone().phases("resolve connect"));
        let unknown = site(url, &[("proxy", "http://missing.test:3128")]);
        check(unknown, &down(Dns, "proxy: Name or service not known").phases("resolve"));
    }
    let head = "HTTP/1.1 200 OK\r\n";
    for (script, detail) in [
        (vec![send("HTTP/1.1 502 Bad Gateway\r\n\r\n")], "proxy answers 502 Bad Gateway"),
        (
            vec![answer("HTTP/1.1 407 Who are you", "page")],
            "proxy answers 407 Proxy Authentication Required",
        ),
        (vec![send("HTTP/1.1 302 F\r\nLocation: /\r\n\r\n")], "proxy answers 302 Found"),
        (vec![send("HTTP/1.0 403 x\r\n\r\n")], "proxy answers 403 Forbidden"),
        (vec![], "proxy closes the connection before it has answered"),
        (vec![send(head)], "proxy closes the connection before it has answered"),
        (vec![Do::Reset], "proxy: Connection reset"),
        (vec![send("SSH-2.0-x\r\n")], "proxy answers no HTTP"),
        (vec![send(format!("{head}\r\nsurplus"))], "proxy sends more than its answer"),
        (vec![send(head), Do::Flood(b"a: b\r\n".to_vec())], "proxy answers "),
        (vec![send(head), Do::Flood(vec![b'a'; 1000])], "proxy answers with more than 16 KiB"),
    ] {
        let proxy = Server::script(&script);
        let site = site(https, &[("proxy", proxy.url().trim_end_matches('/'))]);
        check(site, &down(Connect, detail).phases("resolve connect"));
        assert!(proxy.requests()[0].starts_with("CONNECT site.test:9 HTTP/1.1\r\n"));
    }
    let proxy = Server::script(&[Do::Hang]);
    let mut slow = site(https, &[("proxy", proxy.url().trim_end_matches('/'))]);
    slow.timeout = SHORT;
    let late = down(Timeout, "in connect, after 0.300 s");
    check(slow, &late.phases("resolve connect"));
    // For http only this one is surely the proxy's.
    let proxy = Server::script(&[answer("HTTP/1.1 407 Who are you", "page")]);
    let site = site("http://site.test/", &[("proxy", proxy.url().trim_end_matches('/'))]);
    check(site, &down(Connect, "proxy answers 407 Proxy Authentication Required"));
}

#[test]
fn interim_answers_are_passed_over() {
    let port = serve(server_config(good(), false), ok());
    let proxy = accept("127.0.0.1", move |mut client| {
        head(&mut client);
        let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        client.write_all(interim).unwrap();
        let mut site = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut from, mut to) = (site.try_clone().unwrap(), client.try_clone().unwrap());
        let mut threads = Threads::new(Stop::new());
        let back = move || {
            let _ = std::io::copy(&mut from, &mut to);
        };
        threads.spawn("back", back).unwrap();
        let _ = std::io::copy(&mut client, &mut site);
    });
    let url = format!("https://site.test:{port}/");
    check(site(&url, &[("proxy", &format!("http://{proxy}"))]), &up());
}

#[test]
fn the_guard_judges_the_proxy_and_literal_targets() {
    let proxy = Proxy::start();
    let metadata = down(Blocked, "169.254.169.254 is a cloud metadata address");
    for url in ["http://169.254.169.254/", "https://169.254.169.254/", "http://2852039166/"] {
        check(site(url, &[("proxy", &proxy.url)]), &metadata);
    }
    let redirecting =
        Server::script(&[answer("HTTP/1.1 302 F\r\nLocation: http://169.254.169.254/", "")]);
    check(site(&redirecting.url(), &[("proxy", &proxy.url)]), &metadata);
    assert_eq!(proxy.requests().len(), 1);
    for proxy in ["http://169.254.169.254:80", "http://metadata.test:80"] {
        let site = site("http://site.test/", &[("proxy", proxy)]);
        check(site, &down(Blocked, "proxy 169.254.169.254 is a cloud metadata address"));
    }
    let prober = prober_with(ProbeOptions { allow_private_addresses: false, ..options() });
    let site = site("http://site.test/", &[("proxy", &proxy.url)]);
    let expect = down(Blocked, "proxy 127.0.0.1 is a loopback address").phases("resolve");
    check_with(&prober, site, &expect);
}

#[test]
fn access_to_the_proxy_is_hidden_and_may_be_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pass"), "Pr0xy-Pass").unwrap();
    let secrets_dir = Some(dir.path().to_owned());
    let prober = prober_with(ProbeOptions { secrets_dir, ..options() });
    // It sends back what it was told.
    let echo = accept("127.0.0.1", |mut stream| {
        let request = read_request(&mut stream);
        let line = request.lines().find(|line| line.starts_with("Proxy-Authorization")).unwrap();
        act(&send(format!("{}\r\n\r\n", line.rsplit(' ').next().unwrap())), &mut stream);
    });
    for access in ["me:{secret:pass}", "me:Pr0xy-Pass"] {
        let proxy = format!("http://{access}@{echo}");
        let site = site("http://site.test/", &[("proxy", &proxy)]);
        let seen = check_with(&prober, site, &down(Http, "begins with '***"));
        // base64 of me:Pr0xy-Pass
        assert!(!format!("{seen:?}").contains("bWU6UHIweHktUGFzcw"), "{seen:?}");
    }
}
