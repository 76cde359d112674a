//! TLS as a site wants it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConnection, StreamOwned};
use webmon::check::FailureKind::{Internal, Tls};

use super::certificates::{Authority, Identity, authority, good, ok, serve, server_config};
use super::settings::{site, with};
use super::support::{accept, answer, build, check, down, read_request, spec, up};

fn year(check: &webmon::check::Check<'_>) -> i16 {
    let expires = check.certificate_expires_at.expect("a certificate was shown");
    expires.to_zoned(jiff::tz::TimeZone::UTC).year()
}

fn url(port: u16) -> String {
    format!("https://site.test:{port}/")
}

fn self_signed() -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["site.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2061, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

#[test]
fn without_verification_everything_is_taken_and_its_end_is_told() {
    let expired = authority().sign(&["site.test"], 2019, 2021);
    let other = authority().sign(&["other.test"], 2020, 2055);
    let unknown = Authority::new("nobody").sign(&["site.test"], 2020, 2066);
    for (identity, expect) in
        [(expired, 2021), (other, 2055), (unknown, 2066), (self_signed(), 2061)]
    {
        let port = serve(server_config(identity, false), ok());
        let unverified = site(&url(port), &[("tls_verify", "false")]);
        let seen = check(unverified, &up().phases("resolve connect tls processing transfer"));
        assert_eq!(year(&seen), expect);
        // What one site takes, the next one to the same server doesn't.
        check(build(&spec(&url(port))), &down(Tls, "certificate"));
        check(site(&url(port), &[("tls_verify", "true")]), &down(Tls, "certificate"));
    }
}

#[test]
fn own_roots_stand_instead_of_the_usual_ones() {
    let own = Authority::new("the site's own");
    let theirs = serve(server_config(own.sign(&["site.test"], 2020, 2071), false), ok());
    let usual = serve(server_config(good(), false), ok());
    let pem = own.pem();
    let with_own = [("tls_ca", pem.as_str())];
    // Twice, and both ways round: no verdict of one set of roots may serve for the other.
    for _ in 0..2 {
        assert_eq!(year(&check(site(&url(theirs), &with_own), &up())), 2071);
        check(build(&spec(&url(theirs))), &down(Tls, "unknown issuer"));
        check(build(&spec(&url(usual))), &up());
        check(site(&url(usual), &with_own), &down(Tls, "unknown issuer"));
    }
    let both = format!("{}{}", own.pem(), authority().pem());
    check(site(&url(theirs), &[("tls_ca", &both)]), &up());
    check(site(&url(usual), &[("tls_ca", &both)]), &up());
    // A site may pin the one certificate of its server.
    let (chain, key) = self_signed();
    let pinned = pem_of("CERTIFICATE", chain[0].as_ref());
    let port = serve(server_config((chain, key), false), ok());
    check(site(&url(port), &[("tls_ca", &pinned)]), &up());
    let bad = site(&url(port), &[("tls_ca", "none")]);
    check(bad, &down(Tls, "the site's own roots cannot be used: there is no certificate in it"));
}

fn pem_of(label: &str, der: &[u8]) -> String {
    use base64::Engine;

    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A client's certificate and key in PEM, from the authority that test servers ask for.
fn client() -> (String, String) {
    let (chain, key) = authority().sign(&["client.test"], 2020, 2080);
    (pem_of("CERTIFICATE", chain[0].as_ref()), pem_of("PRIVATE KEY", key.secret_der()))
}

#[test]
fn a_client_certificate_is_shown_to_the_own_origin_alone() {
    let (chain, key) = client();
    let own = [("tls_certificate", chain.as_str()), ("tls_key", key.as_str())];
    let asks = serve(server_config(good(), true), ok());
    check(site(&url(asks), &own), &up());
    let refusal = down(Tls, "the server wants a client certificate");
    check(build(&spec(&url(asks))), &refusal);
    // Another origin asks for it in vain.
    let location = format!("HTTP/1.1 302 Moved\r\nLocation: {}", url(asks));
    let first = serve(server_config(good(), true), vec![answer(&location, "")]);
    check(site(&url(first), &own), &refusal);

    let other = client().1;
    for (chain, key, why) in [
        ("none", key.as_str(), "there is no certificate in it"),
        (chain.as_str(), "none", "there is no key, or it is encrypted"),
        (chain.as_str(), other.as_str(), "client certificate cannot be used: "),
    ] {
        let bad = [("tls_certificate", chain), ("tls_key", key)];
        let detail = format!("client certificate cannot be used: {why}");
        let detail = if why.ends_with(": ") { why } else { detail.as_str() };
        check(site(&url(asks), &bad), &down(Tls, detail));
    }
    let missing = [("tls_certificate", chain.as_str()), ("tls_key", "{secret:nope}")];
    check(site(&url(asks), &missing), &down(Internal, "secret 'nope' is not there: "));
}

type Told = Arc<Mutex<Vec<String>>>;

/// A server with a certificate for `name`, and the names and the requests it is asked for.
fn asked(name: &str) -> (u16, Told, Told) {
    let config = server_config(authority().sign(&[name], 2020, 2080), false);
    let names = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (to, sent) = (names.clone(), requests.clone());
    let address = accept("127.0.0.1", move |stream: TcpStream| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let request = read_request(&mut stream);
        to.lock().unwrap().push(stream.conn.server_name().unwrap_or_default().to_owned());
        sent.lock().unwrap().push(request);
        let location = "HTTP/1.1 302 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n";
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let first = to.lock().unwrap().len() == 1;
        let _ = stream.write_all(if first { location } else { ok }.as_bytes());
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (address.port(), names, requests)
}

#[test]
fn another_name_is_asked_for_and_verified_and_the_host_header_is_its_own() {
    let (port, names, requests) = asked("inner.test");
    let mut spec = with(spec(&url(port)), &[("server_name", "inner.test")]);
    spec.headers = vec![("Host".to_owned(), "header.test".to_owned())];
    check(build(&spec), &up());
    // Also for the redirect within the host.
    assert_eq!(*names.lock().unwrap(), ["inner.test", "inner.test"]);
    for request in requests.lock().unwrap().iter() {
        assert!(request.contains("host: header.test\r\n"), "{request}");
    }
    // Another host is asked by its own name.
    let other = serve(server_config(good(), false), ok());
    let location = format!("HTTP/1.1 302 Moved\r\nLocation: https://127.0.0.1:{other}/");
    let inner = server_config(authority().sign(&["inner.test"], 2020, 2080), false);
    let first = serve(inner, vec![answer(&location, "")]);
    check(site(&url(first), &[("server_name", "inner.test")]), &up());

    let (port, names, requests) = asked("site.test");
    let wrong = site(&url(port), &[("server_name", "inner.test")]);
    check(wrong, &down(Tls, "certificate for another host: site.test"));
    check(build(&super::support::spec(&url(port))), &up());
    assert!(names.lock().unwrap().iter().skip(1).all(|name| name == "site.test"));
    assert!(requests.lock().unwrap().iter().all(|request| !request.contains("inner.test")));
}
