//! TLS and passwords against a real broker, and ports that stay silent.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, outside their functions

#[path = "support/broker.rs"]
mod broker;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use broker::{Listener, OwnBroker, became, new_dir, options, until, write_file};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use webmon::kafka::{
    EARLIEST, Fetcher, KafkaError, KafkaOptions, Publisher, Record, SaslMechanism, SaslOptions,
    TlsFiles, TopicSpec, topics,
};
use webmon::runtime::{Stop, Threads, left_behind, now};
use webmon::telemetry::metrics;

/// An authority, a server's and a client's certificate, and an authority nobody knows.
struct Certificates {
    dir: PathBuf,
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, for a name or an address.
fn signed(issuer: &Issuer, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

impl Certificates {
    fn new(dir: &Path) -> Self {
        let (ca, other) = (authority("ours"), authority("other"));
        let (cert, key) = signed(&ca, "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
        write_file(dir, "server.pem", &(key + &cert));
        let (cert, key) = signed(&ca, "client", ExtendedKeyUsagePurpose::ClientAuth);
        write_file(dir, "client.pem", &cert);
        write_file(dir, "client-key.pem", &key);
        write_file(dir, "ca.pem", &ca.pem());
        write_file(dir, "other-ca.pem", &other.pem());
        Self { dir: dir.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn with_client(&self) -> TlsFiles {
        TlsFiles {
            ca: Some(self.path("ca.pem")),
            cert: Some(self.path("client.pem")),
            key: Some(self.path("client-key.pem")),
        }
    }

    fn ca_only(&self, ca: &str) -> TlsFiles {
        TlsFiles { ca: Some(self.path(ca)), cert: None, key: None }
    }
}

struct Secured {
    broker: OwnBroker,
    certificates: Certificates,
}

impl Secured {
    fn start() -> Self {
        let dir = new_dir();
        let certificates = Certificates::new(dir.path());
        let listeners = [Listener::new("MTLS", "SSL"), Listener::new("SASLSSL", "SASL_SSL")];
        let login = "org.apache.kafka.common.security";
        let scram = format!("{login}.scram.ScramLoginModule required;");
        let properties = [
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.location", certificates.text("server.pem")),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.location", certificates.text("ca.pem")),
            ("listener.name.mtls.ssl.client.auth", "required".to_owned()),
            (
                "listener.name.saslssl.sasl.enabled.mechanisms",
                "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
            ),
            (
                "listener.name.saslssl.plain.sasl.jaas.config",
                format!("{login}.plain.PlainLoginModule required user_alice=\"plain-secret\";"),
            ),
            ("listener.name.saslssl.scram-sha-256.sasl.jaas.config", scram.clone()),
            ("listener.name.saslssl.scram-sha-512.sasl.jaas.config", scram),
        ];
        let properties: Vec<(String, String)> =
            properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let users = [
            "SCRAM-SHA-256=[name=alice,password=secret-256]",
            "SCRAM-SHA-512=[name=alice,password=secret-512]",
        ];
        Self { broker: OwnBroker::start_in(dir, &listeners, &properties, &users), certificates }
    }

    fn options(&self, listener: &str, tls: TlsFiles) -> KafkaOptions {
        KafkaOptions { tls: Some(tls), ..options(vec![self.broker.address(listener)]) }
    }

    fn with_password(&self, mechanism: SaslMechanism, password: &str) -> KafkaOptions {
        let sasl = SaslOptions {
            mechanism,
            user: "alice".to_owned(),
            password: password.to_owned().into(),
        };
        let tls = self.certificates.ca_only("ca.pem");
        KafkaOptions { sasl: Some(sasl), ..self.options("SASLSSL", tls) }
    }
}

/// One broker for all tests of this file; it ends with the process.
fn secured() -> &'static Secured {
    static SECURED: OnceLock<Secured> = OnceLock::new();
    SECURED.get_or_init(Secured::start)
}

#[track_caller]
fn check_round_trip(options: &KafkaOptions, topic: &str) {
    options.check_files().unwrap();
    let spec = TopicSpec { name: topic.to_owned(), partitions: 2, replication_factor: 1 };
    let mut publisher = Publisher::new(options.clone(), spec);
    until("it is published", || publisher.publish(&[Record { key: b"1", value: b"v" }]).is_ok());
    let mut fetcher = Fetcher::new(options.clone(), topic);
    let mut wanted = vec![(0, EARLIEST), (1, EARLIEST)];
    until("it is fetched", || {
        let found = fetcher.fetch(&wanted, Duration::from_millis(50), 1 << 20).unwrap();
        wanted = found.iter().map(|part| (part.partition, part.next_offset)).collect();
        found.iter().any(|part| !part.records.is_empty())
    });
}

/// The error of a first request, and of a publish and a fetch, which must name the same cause.
#[track_caller]
fn check_refused(options: &KafkaOptions, expect: &str) -> KafkaError {
    let error = topics::describe(options, "none").unwrap_err();
    assert!(error.to_string().contains(expect), "{error}");
    let spec = TopicSpec { name: "none".to_owned(), partitions: 1, replication_factor: 1 };
    let published = Publisher::new(options.clone(), spec)
        .publish(&[Record { key: b"1", value: b"v" }])
        .unwrap_err();
    assert!(published.cause.contains(expect), "{published}");
    assert_eq!(published.unacknowledged, [0]);
    let fetched = Fetcher::new(options.clone(), "none")
        .fetch(&[(0, 0)], Duration::from_millis(50), 1 << 20)
        .unwrap_err();
    assert!(fetched.to_string().contains(expect), "{fetched}");
    error
}

#[test]
fn a_client_certificate_opens_the_door() {
    let secured = secured();
    let options = secured.options("MTLS", secured.certificates.with_client());
    check_round_trip(&options, "mtls");
}

#[test]
fn without_a_client_certificate_it_stays_closed() {
    let secured = secured();
    let options = secured.options("MTLS", secured.certificates.ca_only("ca.pem"));
    let error = check_refused(&options, "certificate: ours was refused: ");
    assert!(error.is_permanent());
}

#[test]
fn an_unknown_authority_is_named() {
    let secured = secured();
    let options = secured.options("MTLS", secured.certificates.ca_only("other-ca.pem"));
    let error = check_refused(&options, "certificate: UnknownIssuer");
    assert!(error.is_permanent());
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let secured = secured();
    let address = secured.broker.address("MTLS").replace("127.0.0.1", "localhost");
    let tls = secured.certificates.with_client();
    let options = KafkaOptions { tls: Some(tls), ..options(vec![address]) };
    check_refused(&options, "not valid for name");
}

#[test]
fn passwords_are_proven_in_each_way() {
    let secured = secured();
    for (mechanism, password, topic) in [
        (SaslMechanism::Plain, "plain-secret", "sasl-plain"),
        (SaslMechanism::ScramSha256, "secret-256", "sasl-scram-256"),
        (SaslMechanism::ScramSha512, "secret-512", "sasl-scram-512"),
    ] {
        check_round_trip(&secured.with_password(mechanism, password), topic);
    }
}

#[test]
fn a_wrong_password_is_said_to_be() {
    let secured = secured();
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512]
    {
        let options = secured.with_password(mechanism, "hunter2");
        let error = check_refused(&options, "authentication refused: wrong user or password");
        assert!(error.is_permanent());
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn tls_and_plain_text_mistaken_for_each_other_end_soon() {
    let secured = secured();
    let plain_to_tls = options(vec![secured.broker.address("MTLS")]);
    assert!(topics::describe(&plain_to_tls, "none").is_err());
    let tls_to_plain = secured.options("LOCAL", secured.certificates.ca_only("ca.pem"));
    assert!(topics::describe(&tls_to_plain, "none").is_err());
}

#[test]
fn a_silent_tls_port_holds_nobody() {
    let dir = new_dir();
    let certificates = Certificates::new(dir.path());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let tls = certificates.ca_only("ca.pem");
    let options = KafkaOptions { tls: Some(tls), ..options(vec![address.clone()]) };
    let before = now().mono;
    let error = topics::describe(&options, "none").unwrap_err();
    let took = now().mono - before;
    assert!(took < Duration::from_secs(7), "{took:?}");
    let expect = format!("{address}: no answer to the TLS handshake in time");
    assert_eq!(error.to_string(), expect);
}

/// Answers a first ApiVersions request like a broker, and nothing after it.
fn answer_once(mut socket: TcpStream) -> Option<TcpStream> {
    let mut request = [0; 14];
    socket.read_exact(&mut request).ok()?;
    let answer = [0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    socket.write_all(&answer).ok()?;
    Some(socket)
}

#[test]
fn a_broker_that_freezes_during_authentication_is_left_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = Stop::new();
    let mut threads = Threads::new(stop.clone());
    let until_stop = stop.clone();
    threads
        .spawn("t-freezing", move || {
            let mut held = Vec::new();
            while !until_stop.wait(Duration::from_millis(5)) {
                if let Ok((socket, _)) = listener.accept() {
                    socket.set_nonblocking(false).unwrap();
                    // The first connection is asked for a sign of life, the second is silent.
                    if held.is_empty() {
                        held.extend(answer_once(socket));
                    } else {
                        held.push(socket);
                    }
                }
            }
        })
        .unwrap();
    let sasl = SaslOptions {
        mechanism: SaslMechanism::Plain,
        user: "alice".to_owned(),
        password: "secret".to_owned().into(),
    };
    let options = KafkaOptions { sasl: Some(sasl), ..options(vec![address]) };
    let (before, counted) = (now().mono, metrics().calls_left_behind.get());
    let error = topics::describe(&options, "none").unwrap_err();
    assert!(now().mono - before < Duration::from_secs(9), "{:?}", now().mono - before);
    assert!(error.to_string().ends_with("metadata: no answer in time"), "{error}");
    assert_eq!(metrics().calls_left_behind.get(), counted + 1);
    assert_eq!(left_behind(), 1);
    stop.request();
    assert!(threads.join(broker::CAP).is_empty());
    assert!(became(broker::CAP, || left_behind() == 0), "it ends when the connection does");
}
