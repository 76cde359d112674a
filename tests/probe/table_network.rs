//! Rows: names, connections and redirects.

use std::net::TcpListener;
use std::sync::Arc;

use webmon::check::FailureKind::{
    Blocked, Connect, Dns, Http, Internal, Redirect, Status, Timeout,
};
use webmon::probe::{Lookup, ProbeOptions, ProbeParts, Prober};

use super::support::{
    Do, MAX_REDIRECTS, Server, accept, answer, black_hole, options, play, prober_with,
    read_request, send,
};
use super::table::{Row, Served, WHOLE, http, row};

const REFUSED: &str = "127.0.0.1:#: Connection refused";

/// Only a URL: what is there is up to the resolver.
fn at(url: &'static str) -> impl FnOnce() -> Served + Send {
    move || url.to_owned().into()
}

/// A good server under another name.
fn good_at(host: &'static str) -> impl FnOnce() -> Served + Send {
    move || {
        let server = Server::script(&[answer("HTTP/1.1 200 OK", "hello")]);
        format!("http://{host}:{}/", server.address.port()).into()
    }
}

/// A port that nobody listens on, under this name.
fn closed_at(host: &'static str) -> impl FnOnce() -> Served + Send {
    move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{host}:{}/", listener.local_addr().unwrap().port()).into()
    }
}

/// A server whose port on 127.0.0.2 takes no connection, under this name.
fn hole_at(host: &'static str) -> impl FnOnce() -> Served + Send {
    move || {
        let mut served = good_at(host)();
        let port = url::Url::parse(&served.url).unwrap().port().unwrap();
        served.keep.push(Box::new(black_hole(port)));
        served
    }
}

/// A server that sends `/` on with `status`, and answers anything else with 200.
fn redirect(status: u16, location: &str) -> impl FnOnce() -> Served + Send + use<> {
    let head = format!("HTTP/1.1 {status} x\r\nLocation: {location}");
    redirecting(answer(&head, "moved"))
}

fn redirecting(first: Do) -> impl FnOnce() -> Served + Send {
    move || {
        let server = Server::answering(move |request| match request.split(' ').nth(1) {
            Some("/") => vec![first.clone()],
            _ => vec![answer("HTTP/1.1 200 OK", "arrived")],
        });
        server.url().into()
    }
}

/// A server that sends `/` on to what `next` serves.
fn then(next: impl FnOnce() -> Served + Send) -> impl FnOnce() -> Served + Send {
    move || {
        let next = next();
        let served = redirect(302, &next.url)();
        Served { keep: vec![Box::new(next)], ..served }
    }
}

/// A redirect that is not followed.
fn refused(name: &'static str, location: &str, detail: &str) -> Row {
    row(name, redirect(302, location)).down(Redirect, detail).status(302)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = names();
    rows.extend(connections());
    rows.extend(redirects());
    rows.extend(bad_redirects());
    rows.extend(blocked());
    rows
}

fn names() -> Vec<Row> {
    let dns = |name, url, detail: &str| row(name, at(url)).down(Dns, detail).phases("resolve");
    vec![
        dns("a name that doesn't exist", "http://missing.test/", "Name or service not known"),
        dns("a name without data", "http://nodata.test/", "No address associated with hostname"),
        dns("a name without addresses", "http://empty.test/", "the name has no address"),
        dns(
            "a name server that fails",
            "http://servfail.test/",
            "Temporary failure in name resolution",
        ),
        dns(
            "a name that no server answers for",
            "https://broken.test/",
            "Non-recoverable failure in name resolution",
        ),
        row("a resolver that hangs", at("http://hang.test/"))
            .down(Timeout, "in resolve, after 1.000 s")
            .phases("resolve"),
        row("a resolver that panics", at("http://x.test/"))
            .down(Dns, "the look-up panicked")
            .phases("resolve")
            .prober(|| looking_up(|_| panic!("on purpose"))),
        row("a resolver that is saturated", at("http://one-too-many.test/"))
            .down(Internal, "resolver saturated")
            .phases("resolve")
            .prober(saturated),
        row("an endless list of addresses", good_at("many.test"))
            .body(5, false)
            .prober(|| looking_up(|_| Ok(vec![[127, 0, 0, 1].into(); 10_000]))),
    ]
}

fn looking_up(
    lookup: impl Fn(&str) -> std::io::Result<Vec<std::net::IpAddr>> + Send + Sync + 'static,
) -> Prober {
    let lookup: Lookup = Arc::new(lookup);
    let parts = ProbeParts { lookup: Some(lookup), ..Default::default() };
    Prober::with_parts(ProbeOptions { resolver_threads: 1, ..options() }, parts).unwrap()
}

/// A prober whose resolver has neither a thread nor a place in the queue left.
fn saturated() -> Prober {
    let hang = webmon::runtime::Stop::new();
    let prober = looking_up(move |_| {
        hang.wait_forever();
        Ok(Vec::new())
    });
    for number in 0..2000 {
        let site = webmon::site::Site {
            timeout: std::time::Duration::from_millis(1),
            ..super::support::build(&super::support::spec(&format!("http://h{number}.test/")))
        };
        let target = webmon::probe::Target::new(site, "test");
        let failure = prober.check(&target, super::support::DUE).failure;
        if failure.is_none_or(|failure| failure.kind != Timeout) {
            return prober;
        }
    }
    panic!("the queue has no end");
}

fn connections() -> Vec<Row> {
    let failed = |row: Row, detail: &str| row.down(Connect, detail).phases("resolve connect");
    vec![
        failed(row("refused", closed_at("127.0.0.1")), REFUSED),
        failed(row("refused by its only address", closed_at("site.test")), REFUSED),
        failed(row("refused by both addresses", closed_at("second.test")), REFUSED),
        failed(
            row("refused over TLS", || {
                closed_at("site.test")().url.replace("http", "https").into()
            }),
            REFUSED,
        ),
        row("refused by the first address", good_at("second.test")).body(5, false),
        row("a black hole", hole_at("127.0.0.2"))
            .down(Timeout, "in connect, after 1.000 s")
            .phases("resolve connect"),
        row("a black hole behind a name", hole_at("hole.test"))
            .down(Timeout, "in connect, after 1.000 s")
            .phases("resolve connect")
            .prober(|| looking_up(|_| Ok(vec![[127, 0, 0, 2].into()]))),
        // A connection to a group can't be: the kernel says so without sending anything.
        failed(
            row("no way there", at("http://multicast.test:8080/")),
            "224.0.0.1:8080: Network is unreachable",
        ),
        row("no way to the first address", good_at("public-then-local.test")).body(5, false),
        // Sent is what our kernel took: it has room for the largest request.
        row("takes neither the connection nor a large request", never_accepting)
            .down(Timeout, "in processing, after 1.000 s")
            .phases("resolve connect processing")
            .site(|site| {
                site.method = Some("POST".to_owned());
                site.body = Some("x".repeat(64 << 10));
            }),
        row("a literal IPv6 address", || {
            let address = accept("::1", |mut stream| {
                read_request(&mut stream);
                play(&[answer("HTTP/1.1 200 OK", "hello")], &mut stream);
            });
            format!("http://{address}/").into()
        })
        .body(5, false),
        row("a mapped IPv6 address", good_at("[::ffff:127.0.0.1]")).body(5, false),
        row("127.1", good_at("127.1")).body(5, false),
        row("a name with a dot at its end", good_at("site.test.")).body(5, false),
        row("a name with an underscore", good_at("under_score.test")).body(5, false),
    ]
}

fn redirects() -> Vec<Row> {
    let followed =
        |name, location: &str| row(name, redirect(301, location)).redirects(1).body(7, false);
    let chain = |length: u32| {
        move || {
            let server = Server::answering(move |request| {
                let path = request.split(' ').nth(1).unwrap_or_default();
                let step: u32 = path.trim_start_matches('/').parse().unwrap_or(0);
                match step {
                    step if step == length => vec![answer("HTTP/1.1 200 OK", "arrived")],
                    step => vec![answer(&format!("HTTP/1.1 307 x\r\nLocation: /{}", step + 1), "")],
                }
            });
            Served::from(server.url())
        }
    };
    let most = u16::try_from(MAX_REDIRECTS).unwrap();
    let endless = Do::Flood(vec![b'x'; 1000]);
    vec![
        followed("a redirect to a path", "/a"),
        followed("a redirect to a relative path", "a/../b?c#d"),
        followed("a redirect to a query", "?q"),
        followed("a redirect with blanks and umlauts", "/a b/ä"),
        row("a redirect that needs a cookie", || {
            let server =
                Server::answering(|request| match request.contains("cookie: seen=1\r\n") {
                    true => vec![answer("HTTP/1.1 200 OK", "arrived")],
                    false => {
                        vec![answer("HTTP/1.1 302 Found\r\nSet-Cookie: seen=1\r\nLocation: /", "")]
                    }
                });
            server.url().into()
        })
        .redirects(1)
        .body(7, false),
        row("a redirect with a body without end", move || {
            let server = Server::answering(move |request| match request.starts_with("GET /a ") {
                true => vec![answer("HTTP/1.1 200 OK", "arrived")],
                false => vec![send("HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n"), endless.clone()],
            });
            server.url().into()
        })
        .redirects(1)
        .body(7, false),
        row("the longest chain of redirects", chain(MAX_REDIRECTS)).redirects(most).body(7, false),
        row("a chain of redirects that is too long", chain(MAX_REDIRECTS + 1))
            .down(Redirect, "more than 5 redirects")
            .status(307)
            .redirects(most),
        row("a redirect to itself", http(vec![answer("HTTP/1.1 308 x\r\nLocation: /", "")]))
            .down(Redirect, "more than 5 redirects")
            .status(308)
            .redirects(most),
        row(
            "two pages that redirect to each other",
            http(vec![answer("HTTP/1.1 302 x\r\nLocation: ?x", "")]),
        )
        .down(Redirect, "more than 5 redirects")
        .status(302)
        .redirects(most),
        row("a redirect that is expected", redirect(301, "/a"))
            .site(|site| site.expected_status = Some("301".to_owned()))
            .status(301)
            .body(5, false),
        row("a redirect that is not to be followed", redirect(301, "/a"))
            .prober(|| prober_with(ProbeOptions { max_redirects: 0, ..options() }))
            .down(Status, "301 Moved Permanently, expected 200-299")
            .status(301)
            .body(5, false),
    ]
}

fn bad_redirects() -> Vec<Row> {
    let only = "; only http and https are followed";
    let to = |scheme: &str| format!("to scheme '{scheme}'{only}");
    let hop = |row: Row| row.status(302);
    vec![
        refused("a redirect to ftp:", "ftp://127.0.0.1/", &to("ftp")),
        refused("a redirect to file:", "file:///etc/passwd", &to("file")),
        refused("a redirect to javascript:", "javascript:alert(1)", &to("javascript")),
        refused("a redirect to data:", "data:text/plain,x", &to("data")),
        refused("a redirect to a URL without host", "http://", "bad Location: empty host"),
        refused("a redirect to a bad port", "http://a:99999/", "bad Location: invalid port number"),
        refused(
            "a redirect to a bad address",
            "http://1.2.3.4.5/",
            "bad Location: invalid IPv4 address",
        ),
        refused(
            "a redirect to a long URL",
            &format!("/{}", "x".repeat(9000)),
            "Location has # bytes; at most 8192",
        ),
        row("a redirect without Location", http(vec![answer("HTTP/1.1 301 x", "")]))
            .down(Redirect, "301 without Location")
            .status(301),
        row(
            "a redirect to bytes that are no text",
            redirecting(send(b"HTTP/1.1 301 x\r\nLocation: /\xff\r\n\r\n")),
        )
        .down(Redirect, "Location is not UTF-8")
        .status(301),
        hop(row("a redirect to a name that doesn't exist", redirect(302, "http://missing.test/"))
            .down(Dns, "Name or service not known")),
        hop(row("a redirect to a name without addresses", redirect(302, "http://empty.test/"))
            .down(Dns, "the name has no address")),
        hop(row("a redirect to a name that hangs", redirect(302, "http://hang.test/"))
            .down(Timeout, "in resolve, after 1.000 s")),
        hop(row("a redirect to a closed port", then(closed_at("127.0.0.1"))).down(Connect, REFUSED)),
        hop(row("a redirect to a black hole", then(hole_at("127.0.0.2")))
            .down(Timeout, "in connect, after 1.000 s")),
        hop(row("a redirect to silence", then(http(vec![Do::Hang])))
            .down(Timeout, "in processing, after 1.000 s")),
        hop(row("a redirect to a server that closes", then(http(vec![])))
            .down(Http, "no response: connection closed")),
        row(
            "a redirect that drips",
            http(vec![send("HTTP/1.1 302 x\r\n"), Do::Drip(b"Location: /\r\n")]),
        )
        .down(Timeout, "in transfer, after 1.000 s"),
        row("a slow chain of redirects", slow_chain)
            .down(Timeout, "in processing, after 1.000 s")
            .status(302),
    ]
}

/// The first answer takes 0.3 s, the second doesn't come: one deadline holds for both.
fn slow_chain() -> Served {
    let server = Server::answering(|request| match request.starts_with("GET / ") {
        true => {
            let _ = webmon::runtime::Stop::new().wait(std::time::Duration::from_millis(300));
            vec![answer("HTTP/1.1 302 x\r\nLocation: /a", "")]
        }
        false => vec![Do::Hang],
    });
    server.url().into()
}

/// A server with the smallest buffer there is, which accepts and reads nothing.
fn never_accepting() -> Served {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket, sockopt};

    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&listener, 1).unwrap();
    bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 8).unwrap();
    let address = std::net::SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    Served { url: format!("http://{address}/"), keep: vec![Box::new(listener)] }
}

fn blocked() -> Vec<Row> {
    let strict = || {
        prober_with(ProbeOptions {
            allow_private_addresses: false,
            allowed_addresses: vec!["127.0.0.1/32".parse().unwrap()],
            ..options()
        })
    };
    let metadata = "169.254.169.254 is a cloud metadata address";
    let stopped = |row: Row, detail: &str| row.down(Blocked, detail).phases("resolve");
    let hop = |name, location: &str, detail: &str| {
        row(name, redirect(302, location)).down(Blocked, detail).status(302).phases(WHOLE)
    };
    vec![
        stopped(row("metadata", at("http://169.254.169.254/latest/")), metadata),
        stopped(row("a name that is metadata", at("http://metadata.test/")), metadata),
        row("a name that is metadata and a server", good_at("mixed.test")).body(5, false),
        stopped(
            row("a private address", at("http://10.0.0.1/")).prober(strict),
            "10.0.0.1 is a private address",
        ),
        stopped(
            row("this machine by another address", at("https://127.0.0.2/")).prober(strict),
            "127.0.0.2 is a loopback address",
        ),
        hop("a redirect to metadata", "http://169.254.169.254/latest/", metadata),
        hop("a redirect to metadata as a number", "http://2852039166/", metadata),
        hop(
            "a redirect to metadata as IPv6",
            "http://[::ffff:a9fe:a9fe]/",
            "::ffff:169.254.169.254 is a cloud metadata address",
        ),
        hop("a redirect to a name that is metadata", "http://metadata.test/", metadata),
        hop(
            "a redirect to a private address",
            "http://192.168.0.1/",
            "192.168.0.1 is a private address",
        )
        .prober(strict),
        hop(
            "a redirect to this machine, behind a user",
            "http://site.test@127.0.0.2/",
            "127.0.0.2 is a loopback address",
        )
        .prober(strict),
        hop(
            "a redirect to another scheme and this machine",
            "https://127.0.0.2/",
            "127.0.0.2 is a loopback address",
        )
        .prober(strict),
        hop("a redirect to 0", "http://0/", "0.0.0.0 is the unspecified address").prober(strict),
    ]
}
