//! Certificates and handshakes beside those of the table.

use rcgen::{KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConnection, StreamOwned};
use webmon::check::FailureKind::Tls;
use webmon::site::SettingValue;

use super::certificates::{Authority, Shake, authority, good, ok, params, serve};
use super::support::{
    Server, accept, act, build, check, down, is_alone, options, read_request, run_alone, send,
    spec, spec_with, up,
};

#[test]
fn certificates_have_to_be_good_for_some_days() {
    let last = webmon::runtime::now().wall.to_zoned(jiff::tz::TimeZone::UTC).date();
    let last = last.checked_add(jiff::Span::new().days(6)).unwrap();
    let mut params = params(&["site.test"], 2020, 2080);
    let (month, day) = (u8::try_from(last.month()).unwrap(), u8::try_from(last.day()).unwrap());
    params.not_after = date_time_ymd(i32::from(last.year()), month, day);
    let port = serve(Shake::from(authority().sign_params(&params)).config(), ok());
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
fn a_remembered_chain_still_says_when_it_expires() {
    let port = serve(Shake::from(good()).config(), ok());
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
fn ends_without_farewell_are_fine() {
    let config = Shake::from(good()).config();
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
    let port = serve(Shake::from((vec![leaf], key)).config(), ok());
    let prober = webmon::probe::Prober::new(options()).unwrap();
    let site = build(&spec(&format!("https://127.0.0.1:{port}/")));
    super::support::check_with(&prober, site, &up());
}
