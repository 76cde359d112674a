//! Rows: certificates and handshakes.

use std::io::Read;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, NameConstraints,
    SanType,
};
use webmon::check::FailureKind::{Http, Timeout, Tls};
use webmon::probe::{ProbeParts, Prober};

use super::certificates::{
    Authority, Identity, Shake, authority, good, ok, params, self_signed, serve, serve_on,
};
use super::support::{Do, Server, accept, act, answer, options, play, send};
use super::table::{IN_TLS, Row, SECURE, Served, row};

/// A server that shows this, under this name.
fn shown_at(
    host: &'static str,
    shake: impl FnOnce() -> Shake + Send,
) -> impl FnOnce() -> Served + Send {
    move || format!("https://{host}:{}/", serve(shake().config(), ok())).into()
}

/// A good answer behind the certificate that `identity` makes.
fn shown(name: &'static str, identity: impl FnOnce() -> Identity + Send + 'static) -> Row {
    row(name, shown_at("site.test", || identity().into())).phases(SECURE)
}

/// A certificate that is refused; the year in which it ends.
fn refused(
    name: &'static str,
    identity: impl FnOnce() -> Identity + Send + 'static,
    detail: &str,
    year: i16,
) -> Row {
    shown(name, identity).down(Tls, detail).phases(IN_TLS).expires(year)
}

fn for_site(from: i32, until: i32) -> CertificateParams {
    params(&["site.test"], from, until)
}

/// A chain through an intermediate, which may be left out of what is shown.
fn through(until: i32, is_shown: bool, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let intermediate = authority().intermediate(until, change);
    let (mut chain, key) = intermediate.sign(&["site.test"], 2020, 2080);
    chain.extend(is_shown.then(|| intermediate.certificate()));
    (chain, key)
}

fn constrained(to: &str) -> Identity {
    through(2070, true, |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(to.to_owned())],
            excluded_subtrees: Vec::new(),
        });
    })
}

fn key_of(algorithm: &'static rcgen::SignatureAlgorithm) -> impl FnOnce() -> Identity + Send {
    move || authority().sign_for(&for_site(2020, 2080), &KeyPair::generate_for(algorithm).unwrap())
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = validities();
    rows.extend(hosts());
    rows.extend(issuers());
    rows.extend(keys());
    rows.extend(handshakes());
    rows.extend(hand_made());
    rows.extend(answers());
    rows
}

fn validities() -> Vec<Row> {
    let expired = "certificate expired at 2021-01-01T00:00:00Z";
    vec![
        shown("a good certificate", good).expires(2080).body(5, false),
        refused(
            "an expired certificate",
            || authority().sign(&["site.test"], 2019, 2021),
            expired,
            2021,
        ),
        refused(
            "a certificate from the future",
            || authority().sign(&["site.test"], 2079, 2080),
            "certificate not yet valid, only from 2079-01-01T00:00:00Z",
            2080,
        ),
        refused("an expired intermediate", || through(2021, true, |_| {}), expired, 2021),
        refused(
            "expired, and for another host",
            || authority().sign(&["other.test"], 2019, 2021),
            expired,
            2021,
        ),
        refused("expired, and self-signed", || self_signed(&for_site(2019, 2021)), expired, 2021),
        shown("an expired certificate beside the chain", || {
            let (mut chain, key) = good();
            chain.push(authority().sign(&["unrelated.test"], 2019, 2021).0.remove(0));
            (chain, key)
        })
        .expires(2021),
        expired_root(),
    ]
}

/// Trust in a root has no end of its own: programs that check certificates look at the others.
fn expired_root() -> Row {
    let root = std::sync::Arc::new(Authority::until("an expired root", 2021));
    let roots = vec![root.certificate()];
    shown("an expired root", move || root.sign(&["site.test"], 2016, 2080))
        .expires(2080)
        .prober(move || prober_with_roots(roots))
}

fn prober_with_roots(extra_roots: Vec<rustls::pki_types::CertificateDer<'static>>) -> Prober {
    let lookup: webmon::probe::Lookup = std::sync::Arc::new(|_| Ok(vec![[127, 0, 0, 1].into()]));
    Prober::with_parts(
        options(),
        ProbeParts { lookup: Some(lookup), extra_roots, ..Default::default() },
    )
    .unwrap()
}

fn hosts() -> Vec<Row> {
    let at = |name, host, names: &'static [&'static str]| {
        row(name, shown_at(host, || authority().sign(names, 2020, 2080).into()))
            .phases(SECURE)
            .expires(2080)
    };
    let other = |row: Row, names: &str| {
        row.down(Tls, &format!("certificate for another host: {names}")).phases(IN_TLS)
    };
    let many: &[&str] = &["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    vec![
        at("one of two names", "site.test", &["a.test", "site.test"]),
        other(at("another name", "site.test", &["other.test"]), "other.test"),
        other(
            at("six other names", "site.test", many),
            "a.test, b.test, c.test, d.test, e.test, …",
        ),
        at("a wildcard", "www.site.test", &["*.site.test"]),
        other(at("a wildcard one level up", "site.test", &["*.site.test"]), "*.site.test"),
        other(
            at("a wildcard two levels up", "deep.www.site.test", &["*.site.test"]),
            "*.site.test",
        ),
        other(
            at("a wildcard of part of a name", "www.site.test", &["w*.site.test"]),
            "w*.site.test",
        ),
        refused(
            "no name but the common one",
            || {
                let mut params = for_site(2020, 2080);
                params.subject_alt_names.clear();
                params.distinguished_name.push(rcgen::DnType::CommonName, "site.test");
                authority().sign_params(&params)
            },
            "certificate without a host name",
            2080,
        ),
        at("a name with a dot at its end, in TLS", "site.test.", &["site.test"]),
        at("a name with an underscore, in TLS", "under_score.test", &["under_score.test"]),
        at("an address in the certificate", "127.0.0.1", &["127.0.0.1"]),
        other(
            at("a name in the certificate of an address", "127.0.0.1", &["site.test"]),
            "site.test",
        ),
        other(at("another address in the certificate", "127.0.0.1", &["127.0.0.2"]), "127.0.0.2"),
        row(
            "an address written as a name",
            shown_at("127.0.0.1", || {
                let mut params = for_site(2020, 2080);
                params.subject_alt_names = vec![SanType::DnsName("127.0.0.1".try_into().unwrap())];
                authority().sign_params(&params).into()
            }),
        )
        .down(Tls, "certificate for another host: 127.0.0.1")
        .phases(IN_TLS)
        .expires(2080),
        row("an IPv6 address in the certificate", || {
            let shake = Shake::from(authority().sign(&["::1"], 2020, 2080));
            format!("https://[::1]:{}/", serve_on("::1", shake.config(), ok())).into()
        })
        .phases(SECURE)
        .expires(2080),
        at("a wildcard for an address", "127.0.0.1", &["*.0.0.1"])
            .down(Tls, "certificate for another host: *.0.0.1")
            .phases(IN_TLS),
    ]
}

fn issuers() -> Vec<Row> {
    let unknown = "certificate from an unknown issuer";
    let own = "self-signed certificate";
    vec![
        refused(
            "an unknown issuer",
            || Authority::new("somebody else").sign(&["site.test"], 2020, 2070),
            unknown,
            2070,
        ),
        refused(
            "an unknown issuer of our authority's name",
            || Authority::new("webmon test authority").sign(&["site.test"], 2020, 2070),
            unknown,
            2070,
        ),
        refused(
            "an unknown issuer that is shown",
            || {
                let other = Authority::until("somebody else", 2060);
                let (mut chain, key) = other.sign(&["site.test"], 2020, 2070);
                chain.push(other.certificate());
                (chain, key)
            },
            unknown,
            2060,
        ),
        refused("a self-signed certificate", || self_signed(&for_site(2020, 2060)), own, 2060),
        refused(
            "a self-signed authority as a server",
            || {
                let mut params = for_site(2020, 2060);
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                self_signed(&params)
            },
            own,
            2060,
        ),
        refused(
            "an authority's certificate as a server's",
            || {
                let mut params = for_site(2020, 2060);
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                authority().sign_params(&params)
            },
            "bad certificate: an authority's, not a server's",
            2060,
        ),
        shown("an intermediate", || through(2070, true, |_| {})).expires(2070),
        refused("a missing intermediate", || through(2070, false, |_| {}), unknown, 2080),
        shown("a chain in the wrong order", || {
            let intermediate = authority().intermediate(2070, |_| {});
            let (mut chain, key) = intermediate.sign(&["site.test"], 2020, 2080);
            chain.extend([authority().certificate(), intermediate.certificate()]);
            (chain, key)
        })
        .expires(2070),
        refused(
            "an issuer that is no authority",
            || {
                let intermediate =
                    authority().intermediate(2070, |params| params.is_ca = IsCa::NoCa);
                let (mut chain, key) = intermediate.sign(&["site.test"], 2020, 2080);
                chain.push(intermediate.certificate());
                (chain, key)
            },
            "bad certificate: its issuer is no authority",
            2070,
        ),
        shown("an authority for these names", || constrained("site.test")).expires(2070),
        refused(
            "an authority for other names",
            || constrained("other.test"),
            "bad certificate: its authority may not vouch for this name",
            2070,
        ),
        refused(
            "a certificate for clients",
            || {
                let mut params = for_site(2020, 2080);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                authority().sign_params(&params)
            },
            "bad certificate: not for servers",
            2080,
        ),
    ]
}

fn keys() -> Vec<Row> {
    vec![
        shown("a key of P-384", key_of(&rcgen::PKCS_ECDSA_P384_SHA384)).expires(2080),
        shown("a key of P-521", key_of(&rcgen::PKCS_ECDSA_P521_SHA512)).expires(2080),
        shown("a key of Ed25519", key_of(&rcgen::PKCS_ED25519)).expires(2080),
        refused(
            "another key than the certificate's",
            || (good().0, good().1),
            "bad certificate: the server doesn't have its key",
            2080,
        ),
        shown("a certificate that is none", || (vec![b"garbage".to_vec().into()], good().1))
            .down(Tls, "bad certificate: not readable")
            .phases(IN_TLS),
    ]
}

fn handshakes() -> Vec<Row> {
    const V12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    const V13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
    let with = |name, versions, wants_client| {
        let shake = move || Shake { versions, wants_client, ..Shake::from(good()) };
        row(name, shown_at("site.test", shake)).phases(SECURE).expires(2080)
    };
    let client = "the server wants a client certificate";
    vec![
        with("TLS 1.2 alone", V12, false).body(5, false),
        with("TLS 1.3 alone", V13, false).body(5, false),
        // With 1.3 the handshake is over for us before the server has looked.
        with("wants a client certificate, 1.3", V13, true)
            .down(Tls, client)
            .phases("resolve connect tls processing"),
        with("wants a client certificate, 1.2", V12, true).down(Tls, client).phases(IN_TLS),
        row("TLS on the port for plain HTTP", || {
            format!("http://site.test:{}/", serve(Shake::from(good()).config(), ok())).into()
        })
        .down(Http, r"not HTTP/1.1: begins with '\u{15}\u{3}\u{3}\0\u{2}\u{2}2'"),
        row("an HTTP server on the port for TLS waits for a request", || {
            let server = Server::script(&ok());
            format!("https://site.test:{}/", server.address.port()).into()
        })
        .down(Timeout, "in tls, after 1.000 s")
        .phases(IN_TLS),
    ]
}

/// A server that reads what comes first and does `script`.
fn hand_shaking(script: Vec<Do>) -> impl FnOnce() -> Served + Send {
    move || {
        let address = accept("127.0.0.1", move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            play(&script, &mut stream);
        });
        format!("https://site.test:{}/", address.port()).into()
    }
}

/// An alert of TLS, fatal.
fn alert(description: u8) -> Vec<Do> {
    vec![send([0x15, 3, 3, 0, 2, 2, description]), Do::Hang]
}

/// A server's first message: this version, this cipher suite.
fn server_hello(version: [u8; 2], suite: [u8; 2]) -> Vec<Do> {
    let mut hello = vec![0x16, 3, 3, 0, 42, 2, 0, 0, 38];
    hello.extend(version);
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend(suite);
    hello.push(0);
    vec![send(hello), Do::Hang]
}

fn hand_made() -> Vec<Row> {
    let failed = |name, script, detail: &str| {
        row(name, hand_shaking(script)).down(Tls, detail).phases(IN_TLS)
    };
    let late = |name, script| {
        row(name, hand_shaking(script)).down(Timeout, "in tls, after 1.000 s").phases(IN_TLS)
    };
    let too_old = "no common TLS version: the server refuses 1.2 and 1.3";
    let plain = "not TLS: plain text on this port?";
    vec![
        failed("closes in the handshake", vec![], "handshake cut off: connection closed"),
        failed(
            "closes in a message of the handshake",
            vec![send([0x16, 3, 3, 0, 42, 2, 0, 0])],
            "handshake cut off: connection closed",
        ),
        failed(
            "resets in the handshake",
            vec![Do::Reset],
            "handshake cut off: Connection reset by peer",
        ),
        late("silent after the ClientHello", vec![Do::Hang]),
        late(
            "silent in a message of the handshake",
            vec![send([0x16, 3, 3, 0, 42, 2, 0, 0]), Do::Hang],
        ),
        late("drips the handshake", vec![Do::Drip(&[0x16, 3, 3, 64, 0, 2])]),
        failed("says that the protocol is too new", alert(70), too_old),
        failed("speaks TLS 1.1", server_hello([3, 2], [0xc0, 0x2f]), too_old),
        failed("speaks TLS 1.0", server_hello([3, 1], [0xc0, 0x2f]), too_old),
        failed("speaks SSL 3", server_hello([3, 0], [0xc0, 0x2f]), too_old),
        failed("finds no common cipher", alert(40), "the server refuses: alert HandshakeFailure"),
        failed(
            "finds us too insecure",
            alert(71),
            "the server refuses: alert InsufficientSecurity",
        ),
        failed("doesn't know the name", alert(112), "the server refuses: alert UnrecognisedName"),
        failed("has trouble of its own", alert(80), "the server refuses: alert InternalError"),
        failed(
            "says farewell in the handshake",
            vec![send([0x15, 3, 3, 0, 2, 1, 0])],
            "handshake cut off: connection closed",
        ),
        failed(
            "chooses a cipher nobody offered",
            server_hello([3, 3], [0, 5]),
            "broken TLS: SelectedUnofferedCipherSuite",
        ),
        failed(
            "answers with plain HTTP",
            vec![send("HTTP/1.1 400 Bad Request\r\n\r\n"), Do::Hang],
            plain,
        ),
        failed(
            "answers with an SSH banner",
            vec![send("SSH-2.0-OpenSSH_9.2p1\r\n"), Do::Hang],
            plain,
        ),
        failed("answers with zeros", vec![send([0; 100]), Do::Hang], plain),
        failed(
            "a record that is too large",
            vec![send([0x16, 3, 3, 0xff, 0xff]), Do::Hang],
            "broken TLS: MessageTooLarge",
        ),
    ]
}

fn answers() -> Vec<Row> {
    let secure = |name, script: Vec<Do>| {
        row(name, || {
            format!("https://site.test:{}/", serve(Shake::from(good()).config(), script)).into()
        })
        .phases(SECURE)
        .expires(2080)
    };
    vec![
        secure("TLS, then silence", vec![Do::Hang])
            .down(Timeout, "in processing, after 1.000 s")
            .phases("resolve connect tls processing"),
        secure("TLS, then the end", vec![])
            .down(Http, "no response: connection closed")
            .phases("resolve connect tls processing"),
        secure("TLS, then garbage", vec![send("garbage")])
            .down(Http, "not HTTP/1.1: begins with 'garbage'"),
        secure("TLS, then a cut head", vec![send("HTTP/1.1 200 OK\r\n")])
            .down(Http, "cut off in the head: connection closed"),
        secure(
            "TLS, then a cut body",
            vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")],
        )
        .down(Http, "cut off in the body: connection closed")
        .status(200),
        secure(
            "TLS, then a body that drips",
            vec![send("HTTP/1.1 200 OK\r\n\r\n"), Do::Drip(b"x")],
        )
        .down(Timeout, "in transfer, after 1.000 s")
        .status(200),
        secure(
            "TLS, then a body without end",
            vec![send("HTTP/1.1 200 OK\r\n\r\n"), Do::Flood(vec![b'x'; 1000])],
        )
        .body(super::support::MAX_BODY, true),
        row("a redirect to an expired certificate", || {
            let expired = Shake::from(authority().sign(&["site.test"], 2019, 2021));
            let port = serve(expired.config(), ok());
            let head = format!("HTTP/1.1 302 x\r\nLocation: https://site.test:{port}/");
            let first = serve(Shake::from(good()).config(), vec![answer(&head, "")]);
            format!("https://site.test:{first}/").into()
        })
        .down(Tls, "certificate expired at 2021-01-01T00:00:00Z")
        .status(302)
        .phases(SECURE)
        .expires(2021),
        row("garbage in the middle of TLS", garbage_in_tls)
            .down(Tls, "not TLS: plain text on this port?")
            .status(200)
            .phases(SECURE)
            .expires(2080),
    ]
}

/// A head in TLS, and then a body that is not.
fn garbage_in_tls() -> Served {
    let config = Shake::from(good()).config();
    let address = accept("127.0.0.1", move |stream| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        super::support::read_request(&mut stream);
        act(&send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), &mut stream);
        play(&[Do::Pause, send("nine byte"), Do::Hang], &mut stream.sock);
    });
    format!("https://site.test:{}/", address.port()).into()
}
