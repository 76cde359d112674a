//! Certificates and handshakes.

use std::net::TcpStream;
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use webmon::check::FailureKind::{self, Tls};
use webmon::site::SettingValue;

use super::support::{
    Do, Expect, Server, accept, act, answer, build, check, down, hurried, is_alone, options,
    read_request, run_alone, send, spec, spec_with, up,
};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2090, 1, 1);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for `names`, good in the years `from..until`.
    fn sign(&self, names: &[&str], from: i32, until: i32) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, from, until).signed_by(&key, &self.0).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn params(names: &[&str], from: i32, until: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a test server");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

/// The authority the test prober trusts.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("webmon test authority"))
}

fn good() -> Identity {
    authority().sign(&["site.test", "127.0.0.1"], 2020, 2080)
}

fn server_config(identity: Identity, wants_client: bool) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if wants_client {
        let mut roots = RootCertStore::empty();
        roots.add(authority().certificate()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.unwrap())
    } else {
        builder.with_no_client_auth()
    };
    Arc::new(builder.with_single_cert(identity.0, identity.1).unwrap())
}

/// A TLS server that follows `script` after each request; its port.
fn serve(config: Arc<ServerConfig>, script: Vec<Do>) -> u16 {
    let serve = move |stream: TcpStream| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        if read_request(&mut stream).is_empty() {
            return;
        }
        if script.iter().all(|step| act(step, &mut stream)) {
            stream.conn.send_close_notify();
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
    };
    accept("127.0.0.1", serve).port()
}

fn ok() -> Vec<Do> {
    vec![answer("HTTP/1.1 200 OK", "hello")]
}

/// Checks site.test with this certificate; the year it is said to expire.
fn check_certificate(identity: Identity, expect: &Expect) -> Option<i16> {
    let port = serve(server_config(identity, false), ok());
    let check = check(build(&spec(&format!("https://site.test:{port}/"))), expect);
    let expires = check.certificate_expires_at?;
    Some(expires.to_zoned(jiff::tz::TimeZone::UTC).year())
}

#[test]
fn certificates_have_to_be_good_for_some_days() {
    let last = webmon::runtime::now().wall.to_zoned(jiff::tz::TimeZone::UTC).date();
    let last = last.checked_add(jiff::Span::new().days(6)).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = params(&["site.test"], 2020, 2080);
    let (month, day) = (u8::try_from(last.month()).unwrap(), u8::try_from(last.day()).unwrap());
    params.not_after = date_time_ymd(i32::from(last.year()), month, day);
    let certificate = params.signed_by(&key, &authority().0).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let port = serve(server_config((vec![certificate.der().clone()], key), false), ok());
    let plain = Server::script(&ok());
    let soon = down(Tls, "certificate expires in 5 days, at least 14 days are wanted");
    let none = down(Tls, "no certificate was shown, at least 1 day is wanted");
    for (url, days, expect) in [
        (format!("https://site.test:{port}/"), 5, &up()),
        (format!("https://site.test:{port}/"), 14, &soon),
        (plain.url(), 1, &none),
    ] {
        let spec = spec_with(&url, [("min_certificate_days", SettingValue::Whole(days))]);
        let check = check(build(&spec), expect);
        assert_eq!(check.http_status, Some(200));
    }
}

#[test]
fn certificates_are_told_apart() {
    let unknown = Authority::new("somebody else").sign(&["site.test"], 2020, 2070);
    let key = KeyPair::generate().unwrap();
    let own = params(&["site.test"], 2020, 2060).self_signed(&key).unwrap();
    let own = (vec![own.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let sign = |names: &[&str], from, until| authority().sign(names, from, until);
    let in_tls = |detail| down(Tls, detail).phases("resolve connect tls");
    let whole = up().phases("resolve connect tls processing transfer");
    for (case, identity, expect, year) in [
        ("good", sign(&["site.test"], 2020, 2080), whole, 2080),
        ("two names", sign(&["a.test", "site.test"], 2020, 2080), up(), 2080),
        ("expired", sign(&["site.test"], 2019, 2021), in_tls("certificate expired at 2021"), 2021),
        ("future", sign(&["site.test"], 2079, 2080), in_tls("not yet valid, only from 2079"), 2080),
        ("other", sign(&["a.test", "b.test"], 2020, 2080), in_tls("host: a.test, b.test"), 2080),
        ("unknown", unknown, in_tls("certificate from an unknown issuer"), 2070),
        ("self-signed", own, in_tls("self-signed certificate"), 2060),
    ] {
        println!("{case}");
        assert_eq!(check_certificate(identity, &expect), Some(year), "{case}");
    }
}

#[test]
fn a_chain_expires_with_its_first_certificate() {
    let (mut chain, key) = authority().sign(&["site.test"], 2020, 2085);
    chain.push(authority().sign(&["unrelated.test"], 2020, 2050).0.remove(0));
    assert_eq!(check_certificate((chain, key), &up()), Some(2050));
}

#[test]
fn a_remembered_chain_still_says_when_it_expires() {
    let port = serve(server_config(good(), false), ok());
    for _ in 0..3 {
        let check = check(build(&spec(&format!("https://127.0.0.1:{port}/"))), &up());
        assert!(check.certificate_expires_at.is_some());
        assert_eq!(check.remote_address.unwrap(), format!("127.0.0.1:{port}"));
    }
    // The same chain under another name is another question.
    let site = build(&spec(&format!("https://other.test:{port}/")));
    check(site, &down(Tls, "certificate for another host: site.test, 127.0.0.1"));
}

#[test]
fn tls_1_2_and_ends_without_farewell_are_fine() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = good();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let port = serve(Arc::new(config), ok());
    check(build(&spec(&format!("https://site.test:{port}/"))), &up());

    let config = server_config(good(), false);
    let rude = accept("127.0.0.1", move |stream| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let _ = read_request(&mut stream);
        act(&send("HTTP/1.1 200 OK\r\n\r\nuntil the end"), &mut stream);
    });
    let check = check(build(&spec(&format!("https://site.test:{}/", rude.port()))), &up());
    assert_eq!(check.body_bytes, Some(13));
}

#[test]
fn broken_handshakes_are_tls_failures() {
    let protocol_version = [0x15, 3, 1, 0, 2, 2, 70];
    let in_tls = |detail| down(Tls, detail).phases("resolve connect tls");
    for (script, expect) in [
        (vec![], in_tls("handshake cut off: connection closed")),
        (vec![Do::Reset], in_tls("handshake cut off: Connection reset")),
        (vec![send(protocol_version), Do::Hang], in_tls("no common TLS version")),
        (vec![send("HTTP/1.1 400 Bad Request\r\n\r\n"), Do::Hang], in_tls("not TLS: plain text")),
        (vec![send([0x16, 3, 3, 0, 4, 1, 0]), Do::Hang], down(FailureKind::Timeout, "in tls")),
        (
            vec![Do::Hang],
            down(FailureKind::Timeout, "in tls, after 0.300 s").phases("resolve connect tls"),
        ),
        (vec![Do::Drip(&[0x16, 3, 3, 64, 0, 2])], down(FailureKind::Timeout, "in tls")),
    ] {
        println!("{script:?}");
        let address = accept("127.0.0.1", move |mut stream| {
            // A handshake's first message is no request: take what comes first.
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            for step in &script {
                if matches!(step, Do::Reset) {
                    let zero = Some(std::time::Duration::ZERO);
                    rustix::net::sockopt::set_socket_linger(&stream, zero).unwrap();
                }
                act(step, &mut stream);
            }
        });
        check(hurried(&format!("https://site.test:{}/", address.port())), &expect);
    }
}

#[test]
fn a_wanted_client_certificate_is_a_tls_failure() {
    let port = serve(server_config(good(), true), ok());
    let site = build(&spec(&format!("https://site.test:{port}/")));
    check(site, &down(Tls, "the server wants a client certificate"));
}

#[test]
fn slow_and_broken_answers_over_tls() {
    let cut = vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")];
    let drip = vec![send("HTTP/1.1 200 OK\r\n\r\n"), Do::Drip(b"x")];
    let flood = vec![send("HTTP/1.1 200 OK\r\n\r\n"), Do::Flood(vec![b'x'; 1000])];
    for (script, expect) in [
        (cut, down(FailureKind::Http, "cut off in the body: connection closed")),
        (vec![Do::Hang], down(FailureKind::Timeout, "in processing, after 0.300 s")),
        (drip, down(FailureKind::Timeout, "in transfer")),
        (flood, up()),
    ] {
        println!("{script:?}");
        let port = serve(server_config(good(), false), script);
        let check = check(hurried(&format!("https://site.test:{port}/")), &expect);
        assert!(check.certificate_expires_at.is_some());
    }
}

#[test]
fn the_roots_of_ssl_cert_file_are_trusted() {
    const NAME: &str = "tls::the_roots_of_ssl_cert_file_are_trusted";
    if !is_alone() {
        // An authority that no prober is told of; the child finds its files beside the root's.
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("the file's");
        let key = KeyPair::generate().unwrap();
        let certificate = params(&["127.0.0.1"], 2020, 2080).signed_by(&key, &authority.0).unwrap();
        let write = |name: &str, pem: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        let root = write("root.pem", authority.0.pem());
        write("leaf.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
        run_alone(NAME, "SSL_CERT_FILE", root.to_str().unwrap());
        return;
    }
    let root = std::env::var("SSL_CERT_FILE").unwrap();
    let leaf = CertificateDer::from_pem_file(root.replace("root.pem", "leaf.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(root.replace("root.pem", "key.pem")).unwrap();
    let port = serve(server_config((vec![leaf], key), false), ok());
    let prober = webmon::probe::Prober::new(options()).unwrap();
    let site = build(&spec(&format!("https://127.0.0.1:{port}/")));
    super::support::check_with(&prober, site, &up());
}
