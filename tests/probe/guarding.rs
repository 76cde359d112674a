//! Odd spellings of hosts, and lists of networks: what may not be dialled is not.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use webmon::check::FailureKind::{Blocked, Dns, Redirect};
use webmon::probe::{Lookup, ProbeOptions, ProbeParts, Prober};
use webmon::site::{SettingValue, SiteDefaults};

use super::support::{Server, answer, build, check_with, down, options, prober_with, spec, up};

/// A listener on both families that must see no connection: each is accepted only when asked for.
struct Tripwire(Vec<TcpListener>);

impl Tripwire {
    fn new() -> Self {
        // A port that is free for both.
        for _ in 0..100 {
            // On every IPv4 address of the machine: also `0.0.0.0` and `127.0.0.2` end here.
            let four = TcpListener::bind("0.0.0.0:0").unwrap();
            let port = four.local_addr().unwrap().port();
            if let Ok(six) = TcpListener::bind(("::1", port)) {
                for listener in [&four, &six] {
                    listener.set_nonblocking(true).unwrap();
                }
                return Self(vec![four, six]);
            }
        }
        panic!("no port is free for both families");
    }

    fn port(&self) -> u16 {
        self.0[0].local_addr().unwrap().port()
    }

    fn assert_untouched(&self, case: &str) {
        for listener in &self.0 {
            match listener.accept() {
                Ok((_, from)) => panic!("{case}: dialled from {from}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{case}"),
            }
        }
    }
}

/// What a URL becomes when private addresses are forbidden.
enum Becomes {
    /// No site: the parser says this.
    Refused(&'static str),
    /// A name to look up, which the test's resolver doesn't know.
    Name,
    /// An address that is blocked, for this reason.
    Blocked(&'static str),
}

use Becomes::{Blocked as Stopped, Name, Refused};

const LOOPBACK: Becomes = Stopped("127.0.0.1 is a loopback address");

/// Every spelling of an address of this machine that somebody thought of. `PORT` is the port of
/// the listener that must stay alone.
const SPELLINGS: [(&str, Becomes); 62] = [
    ("http://127.0.0.1:PORT/", LOOPBACK),
    ("http://127.1:PORT/", LOOPBACK),
    ("http://127.0.1:PORT/", LOOPBACK),
    ("http://2130706433:PORT/", LOOPBACK),
    ("http://0x7f000001:PORT/", LOOPBACK),
    ("http://0x7f.1:PORT/", LOOPBACK),
    ("http://0X7F.0x0.0x0.0x1:PORT/", LOOPBACK),
    ("http://0177.0.0.1:PORT/", LOOPBACK),
    ("http://0177.0.0.01:PORT/", LOOPBACK),
    ("http://017700000001:PORT/", LOOPBACK),
    ("http://127.0.0.1.:PORT/", LOOPBACK),
    ("http://127.000.000.001:PORT/", LOOPBACK),
    ("http://127.0.0.2:PORT/", Stopped("127.0.0.2 is a loopback address")),
    ("http://127.255.255.254:PORT/", Stopped("127.255.255.254 is a loopback address")),
    ("http://0:PORT/", Stopped("0.0.0.0 is the unspecified address")),
    ("http://0.0.0.0:PORT/", Stopped("0.0.0.0 is the unspecified address")),
    ("http://0x0:PORT/", Stopped("0.0.0.0 is the unspecified address")),
    ("http://0.1:PORT/", Stopped("0.0.0.1 is an address of this network")),
    ("http://[::1]:PORT/", Stopped("::1 is a loopback address")),
    ("http://[0:0:0:0:0:0:0:1]:PORT/", Stopped("::1 is a loopback address")),
    ("http://[::]:PORT/", Stopped(":: is the unspecified address")),
    ("http://[::ffff:127.0.0.1]:PORT/", Stopped("::ffff:127.0.0.1 is a loopback address")),
    ("http://[::ffff:7f00:1]:PORT/", Stopped("::ffff:127.0.0.1 is a loopback address")),
    ("http://[::FFFF:0.0.0.0]:PORT/", Stopped("::ffff:0.0.0.0 is the unspecified address")),
    ("http://[::127.0.0.1]:PORT/", Stopped("::7f00:1 is a loopback address")),
    ("http://[::ffff:0:127.0.0.1]:PORT/", Stopped("::ffff:0:7f00:1 is a loopback address")),
    ("http://[64:ff9b::127.0.0.1]:PORT/", Stopped("64:ff9b::7f00:1 is a loopback address")),
    ("http://[64:ff9b:1::7f00:1]:PORT/", Stopped("64:ff9b:1::7f00:1 is a local NAT64 address")),
    ("http://[2002:7f00:1::]:PORT/", Stopped("2002:7f00:1:: is a loopback address")),
    ("http://[2001:0:7f00:1::]:PORT/", Stopped("2001:0:7f00:1:: is a protocol assignment address")),
    ("http://[fe80::1]:PORT/", Stopped("fe80::1 is a link-local address")),
    ("http://[fe80::1%25lo]:PORT/", Refused("url: is no URL: invalid IPv6 address")),
    ("http://[::1%25lo]:PORT/", Refused("url: is no URL: invalid IPv6 address")),
    ("http://[::1:PORT/", Refused("url: is no URL: invalid IPv6 address")),
    ("http://::1:PORT/", Refused("url: is no URL: empty host")),
    // Full-width and other digits become digits.
    ("http://１２７.０.０.１:PORT/", LOOPBACK),
    ("http://①②⑦.⓪.⓪.①:PORT/", LOOPBACK),
    ("http://127。0。0。1:PORT/", LOOPBACK),
    ("http://127\u{ff0e}0\u{ff0e}0\u{ff0e}1:PORT/", LOOPBACK),
    ("http://%31%32%37.0.0.1:PORT/", LOOPBACK),
    ("http://127%2e0%2e0%2e1:PORT/", LOOPBACK),
    ("http://12\u{ad}7.0.0.1:PORT/", LOOPBACK),
    ("http://127.0.0.1\u{200b}:PORT/", LOOPBACK),
    // Who stands before the @ is no host.
    ("http://good.example@127.0.0.1:PORT/", LOOPBACK),
    ("http://good.example:80@127.0.0.1:PORT/", LOOPBACK),
    (
        "http://good.example%40127.0.0.1:PORT/",
        Refused("url: is no URL: invalid international domain name"),
    ),
    ("http://a@b@127.0.0.1:PORT/", LOOPBACK),
    ("http://127.0.0.1:PORT\\@good.example/", LOOPBACK),
    ("http://127.0.0.1:PORT#@good.example/", LOOPBACK),
    ("http://127.0.0.1:PORT?@good.example/", LOOPBACK),
    // Backslashes are slashes; tabs and line ends vanish.
    ("http:\\\\127.0.0.1:PORT\\", LOOPBACK),
    ("http:127.0.0.1:PORT/", LOOPBACK),
    ("http:////127.0.0.1:PORT/", LOOPBACK),
    ("ht\ttp://127.0\n.0.1:PO\rRT/", LOOPBACK),
    (" http://127.0.0.1:PORT/ ", LOOPBACK),
    ("http://127.0.0.1 :PORT/", Refused("url: is no URL: invalid international domain name")),
    ("http://127.0.0.1%00:PORT/", Refused("url: is no URL: invalid international domain name")),
    ("http://127.0.0.256:PORT/", Refused("url: is no URL: invalid IPv4 address")),
    ("http://0x7f.0.0.0.1:PORT/", Refused("url: is no URL: invalid IPv4 address")),
    // Names: whatever they resolve to is judged.
    ("http://localhost.evil.example:PORT/", Name),
    ("http://xn--bcher-kva.example:PORT/", Name),
    ("http://127.0.0.1.nip.example:PORT/", Name),
];

#[test]
fn no_spelling_of_this_machine_is_dialled() {
    let prober = prober_with(ProbeOptions { allow_private_addresses: false, ..options() });
    let wire = Tripwire::new();
    let mut wrong = Vec::new();
    for (text, becomes) in &SPELLINGS {
        let url = text.replace("PORT", &wire.port().to_string()).replace("PO\rRT", &{
            let port = wire.port().to_string();
            format!("{}\r{}", &port[..2], &port[2..])
        });
        let site = spec(&url).build(7, SiteDefaults { interval: 60, timeout: 20 });
        let (seen, wanted) = match (site, becomes) {
            (Err(faults), Refused(why)) => (faults[0].to_string(), (*why).to_owned()),
            (Err(faults), _) => (faults[0].to_string(), "a site".to_owned()),
            (Ok(site), _) => {
                let target = webmon::probe::Target::new(site, "test");
                let check = prober.check(&target, jiff::Timestamp::UNIX_EPOCH);
                assert_eq!(check.remote_address, None, "{text}");
                let failure = check.failure.unwrap();
                let seen = format!("{}: {}", failure.kind.as_str(), failure.detail);
                let wanted = match becomes {
                    Refused(why) => (*why).to_owned(),
                    Name => "dns: Name or service not known".to_owned(),
                    Stopped(why) => format!("blocked: {why}"),
                };
                (seen, wanted)
            }
        };
        if seen != wanted {
            wrong.push(format!("{text:?}: '{seen}', not '{wanted}'"));
        }
        wire.assert_untouched(text);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tripwire_would_tell() {
    let wire = Tripwire::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, wire.port()));
    let _stream = std::net::TcpStream::connect(address).unwrap();
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // The connection is in the queue as soon as `connect` returns.
        wire.assert_untouched("");
    }));
    assert!(told.is_err());
}

/// A prober whose names all resolve by `lookup`, and which forbids private addresses.
fn strict(options: ProbeOptions, lookup: Lookup) -> Prober {
    let parts = ProbeParts { lookup: Some(lookup), ..Default::default() };
    Prober::with_parts(ProbeOptions { allow_private_addresses: false, ..options }, parts).unwrap()
}

#[test]
fn names_are_judged_by_their_addresses() {
    let wire = Tripwire::new();
    // `localhost` with a trailing dot and in any case, IDN in both forms, and a name of one's own
    // are the same to the guard: it sees where they lead.
    let lookup: Lookup = Arc::new(|host| match host {
        "localhost" | "localhost." | "xn--bcher-kva.test" | "own.test" | "own.test." => {
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        }
        "intern.test" => Ok(vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 168, 0, 1])]),
        "mapped.test" => Ok(vec!["::ffff:127.0.0.1".parse().unwrap()]),
        other => panic!("{other} was looked up"),
    });
    let prober = strict(options(), lookup);
    for (host, why) in [
        ("localhost", "127.0.0.1 is a loopback address"),
        ("LOCALHOST", "127.0.0.1 is a loopback address"),
        ("localhost.", "127.0.0.1 is a loopback address"),
        ("loc\u{ad}alhost", "127.0.0.1 is a loopback address"),
        ("ｌｏｃａｌｈｏｓｔ", "127.0.0.1 is a loopback address"),
        ("%6cocalhost", "127.0.0.1 is a loopback address"),
        ("own.test", "127.0.0.1 is a loopback address"),
        ("own.test.", "127.0.0.1 is a loopback address"),
        ("bücher.test", "127.0.0.1 is a loopback address"),
        ("BÜCHER.test", "127.0.0.1 is a loopback address"),
        ("b%C3%BCcher.test", "127.0.0.1 is a loopback address"),
        ("xn--bcher-kva.test", "127.0.0.1 is a loopback address"),
        ("intern.test", "10.0.0.1 is a private address"),
        ("mapped.test", "::ffff:127.0.0.1 is a loopback address"),
    ] {
        let site = build(&spec(&format!("http://{host}:{}/", wire.port())));
        check_with(&prober, site, &down(Blocked, why).phases("resolve"));
        wire.assert_untouched(host);
    }
}

#[test]
fn a_name_that_changes_its_address_is_dialled_where_it_was_judged() {
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // First where one may go, then somewhere else: the usual trick against guards that look up
    // once to judge and once to dial.
    let lookup: Lookup = Arc::new(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        Ok(vec![IpAddr::from(if first { [127, 0, 0, 1] } else { [127, 0, 0, 2] })])
    });
    let allowed = vec!["127.0.0.1/32".parse().unwrap()];
    let prober = strict(ProbeOptions { allowed_addresses: allowed, ..options() }, lookup);
    let url = format!("http://rebind.test:{}/", server.address.port());
    let check = check_with(&prober, build(&spec(&url)), &up());
    assert_eq!(check.remote_address.unwrap(), server.address.to_string());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "one look-up for judging and dialling");
    let expect = down(Blocked, "127.0.0.2 is a loopback address").phases("resolve");
    check_with(&prober, build(&spec(&url)), &expect);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn each_hop_of_a_redirect_is_judged_again() {
    let wire = Tripwire::new();
    let port = wire.port();
    let second = format!("127.0.0.2:{port}");
    for (location, kind, why) in [
        (format!("http://{second}/"), Blocked, "127.0.0.2 is a loopback address"),
        (format!("//{second}/"), Blocked, "127.0.0.2 is a loopback address"),
        (format!("\\\\{second}\\"), Blocked, "127.0.0.2 is a loopback address"),
        (format!("https://{second}/"), Blocked, "127.0.0.2 is a loopback address"),
        (format!("http://0:{port}/"), Blocked, "0.0.0.0 is the unspecified address"),
        (format!("http://0x7f.2:{port}/"), Blocked, "127.0.0.2 is a loopback address"),
        (format!("http://[::1]:{port}/"), Blocked, "::1 is a loopback address"),
        (format!("http://[::ffff:127.0.0.2]:{port}/"), Blocked, "::ffff:127.0.0.2 is a loopback"),
        (format!("http://site.test@127.0.0.2:{port}/"), Blocked, "127.0.0.2 is a loopback"),
        ("http://10.0.0.1/".to_owned(), Blocked, "10.0.0.1 is a private address"),
        ("http://169.254.169.254/".to_owned(), Blocked, "169.254.169.254 is a cloud metadata"),
        ("http://[fd00:ec2::254]/".to_owned(), Blocked, "fd00:ec2::254 is a cloud metadata"),
        ("http://missing.test/".to_owned(), Dns, "Name or service not known"),
        (format!("gopher://{second}/"), Redirect, "to scheme 'gopher'"),
    ] {
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {location}");
        let server = Server::script(&[answer(&head, "")]);
        let allowed = vec!["127.0.0.1/32".parse().unwrap()];
        let prober = prober_with(ProbeOptions {
            allow_private_addresses: false,
            allowed_addresses: allowed,
            ..options()
        });
        let check = check_with(&prober, build(&spec(&server.url())), &down(kind, why));
        assert_eq!((check.redirects, check.http_status), (Some(0), Some(302)), "{location}");
        wire.assert_untouched(&location);
    }
}

#[test]
fn denied_networks_are_refused_also_where_all_is_allowed_and_own_listeners_where_not() {
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let port = server.address.port();
    let denying = prober_with(ProbeOptions {
        denied_addresses: vec!["127.0.0.0/30".parse().unwrap()],
        allowed_addresses: vec!["127.0.0.0/8".parse().unwrap()],
        ..options()
    });
    let site = || build(&spec(&format!("http://site.test:{port}/")));
    let denied = down(Blocked, "127.0.0.1 is denied by the configuration").phases("resolve");
    check_with(&denying, site(), &denied);

    for listener in [server.address, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))] {
        let own = ProbeOptions { own_listeners: vec![listener], ..options() };
        let strict = ProbeOptions { allow_private_addresses: false, ..own.clone() };
        let detail = format!("127.0.0.1:{port} is webmon's own listener");
        check_with(&prober_with(strict), site(), &down(Blocked, &detail).phases("resolve"));
        // Who may look at this machine may look at webmon: its own sample site does.
        check_with(&prober_with(own), site(), &up());
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_public_site_is_refused_private_addresses_whatever_is_allowed() {
    let wire = Tripwire::new();
    let port = wire.port();
    let lookup: Lookup = Arc::new(|host| match host {
        "inner.example" => Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        other => Err(std::io::Error::other(format!("{other} is not known"))),
    });
    let own_listeners = vec![SocketAddr::from((Ipv4Addr::new(93, 184, 216, 34), 9464))];
    let options = ProbeOptions { own_listeners, ..options() };
    assert!(options.allow_private_addresses, "as it is by default");
    let parts = ProbeParts { lookup: Some(lookup), ..ProbeParts::default() };
    let prober = Prober::with_parts(options.clone(), parts.clone()).unwrap();
    let public = |url: &str, settings: &[(&str, &str)]| {
        let mut spec = spec(url);
        for (name, text) in [&[("addresses", "public")], settings].concat() {
            spec.settings.set(name, SettingValue::Text(text.to_owned())).unwrap();
        }
        build(&spec)
    };
    // A number, a name, a proxy's number, a site's behind a proxy, and our own listener.
    let proxy = format!("http://127.0.0.1:{port}");
    for (url, settings) in [
        (format!("http://127.0.0.1:{port}/"), &[][..]),
        (format!("http://[::1]:{port}/"), &[]),
        (format!("http://inner.example:{port}/"), &[]),
        (format!("http://127.0.0.1:{port}/"), &[("connection", "kept")]),
        ("http://93.184.216.34/".to_owned(), &[("proxy", proxy.as_str())]),
        ("http://93.184.216.34:9464/".to_owned(), &[]),
    ] {
        check_with(&prober, public(&url, settings), &down(Blocked, " is "));
        wire.assert_untouched(&url);
    }
    // A redirect: the first hop is allowed by the list, the second is not.
    let target = format!("http://127.0.0.2:{port}/");
    let head = format!("HTTP/1.1 302 Found\r\nLocation: {target}");
    let server = Server::script(&[answer(&head, "")]);
    let allowed_addresses = vec!["127.0.0.1/32".parse().unwrap()];
    let options = ProbeOptions { allowed_addresses, ..options };
    let prober = Prober::with_parts(options, parts).unwrap();
    check_with(&prober, public(&server.url(), &[]), &down(Blocked, "127.0.0.2 is a loopback"));
    assert_eq!(server.requests().len(), 1, "what the configuration names is public enough");
    wire.assert_untouched(&target);
    // Without the setting, all of it is dialled.
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "hello")]);
    check_with(&prober, build(&spec(&server.url())), &up());
}
