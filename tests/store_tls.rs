//! The store over TLS, against a server of the test's own with its own authorities.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too

mod support;

use std::path::PathBuf;

use postgres::NoTls;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use webmon::store::{ErrorKind, SslMode, SslOptions, Store, StoreError, StoreOptions};

use support::cluster::{ADMIN, Cluster};
use support::eventually;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key for `name`, which is a host for servers and a role for clients.
    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

struct World {
    cluster: Cluster,
    authority: Authority,
    directory: TempDir,
}

/// Roles by how they come in: `clear` with a plain password, `badge` with a client certificate,
/// `anyone` with nothing; all of them over TLS only.
const WAYS_IN: [&str; 4] = [
    "hostnossl all all 127.0.0.1/32 reject",
    "hostssl all clear 127.0.0.1/32 password",
    "hostssl all badge 127.0.0.1/32 cert",
    "hostssl all anyone 127.0.0.1/32 trust",
];

impl World {
    fn new() -> Self {
        let authority = Authority::new("test authority");
        // For the name only: 127.0.0.1 is another host.
        let (cert, key) = authority.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let cluster = Cluster::start(
            &["ssl = on", "ssl_ca_file = 'ca.crt'"],
            // Over the Unix socket, for the roles.
            &[&["local all all trust"], &WAYS_IN[..]].concat(),
            &[("server.crt", &cert), ("server.key", &key), ("ca.crt", &authority.pem)],
        );
        let mut config = postgres::Config::new();
        config.host_path(cluster.directory()).port(cluster.port).user(ADMIN).dbname("postgres");
        let mut admin = config.connect(NoTls).unwrap();
        let roles = "CREATE ROLE clear LOGIN PASSWORD 'in the clear'; CREATE ROLE badge LOGIN; \
                     CREATE ROLE anyone LOGIN";
        admin.batch_execute(roles).unwrap();
        Self { cluster, authority, directory: TempDir::new().unwrap() }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn options(&self, host: &str, mode: SslMode, cafile: Option<PathBuf>) -> StoreOptions {
        StoreOptions {
            host: host.to_owned(),
            port: self.cluster.port,
            db: "postgres".to_owned(),
            user: ADMIN.to_owned(),
            password: Some(ADMIN.into()),
            pool: 2,
            ssl: SslOptions { mode, cafile, ..SslOptions::default() },
            application_name: "webmon-test".to_owned(),
            sample_sites: true,
        }
    }
}

fn ping(options: StoreOptions) -> Result<(), StoreError> {
    Store::new(options)?.ping()
}

/// A refusal that needs a person, whose message has `part`.
fn refused(what: &str, options: StoreOptions, part: &str) {
    let error = ping(options).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Configuration, "{what}: {error}");
    let text = error.to_string();
    assert!(text.contains(part), "{what}: {text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn modes_mean_what_libpq_means() {
    use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let world = World::new();
    let ours = || Some(world.file("ca.pem", &world.authority.pem));
    let others = || Some(world.file("other.pem", &Authority::new("other").pem));
    let (name, address) = ("localhost", "127.0.0.1");

    for (host, mode, cafile) in [
        (address, Prefer, None),
        (address, Prefer, others()),
        (address, Require, None),
        (address, Require, ours()),
        (address, VerifyCa, ours()),
        (name, VerifyFull, ours()),
    ] {
        let options = world.options(host, mode, cafile);
        ping(options).unwrap_or_else(|e| panic!("{host} {mode:?}: {e}"));
    }

    refused("no TLS", world.options(address, Disable, None), "28000");
    refused("wrong host", world.options(address, VerifyFull, ours()), "not valid for name");
    for mode in [Require, VerifyCa, VerifyFull] {
        refused("unknown authority", world.options(name, mode, others()), "UnknownIssuer");
    }
    refused("the system's authorities", world.options(name, VerifyFull, None), "certificate");
}

#[test]
fn passwords_and_client_certificates_over_tls() {
    let world = World::new();
    let cafile = Some(world.file("ca.pem", &world.authority.pem));
    let options = |user: &str, password: Option<&str>| StoreOptions {
        user: user.to_owned(),
        password: password.map(Into::into),
        ..world.options("localhost", SslMode::VerifyFull, cafile.clone())
    };
    let store = Store::new(options("clear", Some("in the clear"))).unwrap();
    store.ping().unwrap();
    assert!(store.verify_password(&"in the clear".into()).unwrap());
    assert!(!store.verify_password(&"another".into()).unwrap());
    refused("wrong password", options("clear", Some("wrong")), "28P01");

    // A client certificate: not given, given, of another authority, of another role.
    refused("no certificate", options("badge", None), "28000");
    let with = |authority: &Authority, role: &str| {
        let (cert, key) = authority.sign(role, ExtendedKeyUsagePurpose::ClientAuth);
        let mut options = options("badge", None);
        options.ssl.certfile = Some(world.file("client.crt", &cert));
        options.ssl.keyfile = Some(world.file("client.key", &key));
        options
    };
    let store = Store::new(with(&world.authority, "badge")).unwrap();
    store.ping().unwrap();
    refused("another role", with(&world.authority, "clear"), "28000");
    let error = ping(with(&Authority::new("other"), "badge")).unwrap_err();
    // The server's alert may be lost with the connection that it closes.
    assert!(error.to_string().contains("UnknownCA") || error.is_outage(), "{error}");

    // The certificate lets in whoever has it, and any password with it.
    for store in [store, Store::new(options("anyone", None)).unwrap()] {
        store.ping().unwrap();
        let error = store.verify_password(&"anything".into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains("takes any password"), "{error}");
    }
    // With a configured one, only that.
    let store = Store::new(options("anyone", Some("right"))).unwrap();
    assert!(store.verify_password(&"right".into()).unwrap());
    assert!(!store.verify_password(&"wrong".into()).unwrap());
}

#[test]
fn a_self_signed_certificate_is_trusted_when_it_is_the_ca_file() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).unwrap().pem();
    let cafile = Some(world.file("own.pem", &own));
    refused(
        "before",
        world.options("localhost", SslMode::VerifyFull, cafile.clone()),
        "UnknownIssuer",
    );
    world.cluster.write("server.crt", &own);
    world.cluster.write("server.key", &key.serialize_pem());
    world.cluster.reload();
    eventually("the server shows its new certificate", || {
        ping(world.options("localhost", SslMode::VerifyFull, cafile.clone()))
    });
    let other_host = world.options("127.0.0.1", SslMode::VerifyFull, cafile);
    refused("wrong host", other_host, "not valid for name");

    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = params.self_signed(&key).unwrap().pem();
    let cafile = Some(world.file("expired.pem", &expired));
    world.cluster.write("server.crt", &expired);
    world.cluster.reload();
    eventually("the server shows its expired certificate", || {
        let error = ping(world.options("localhost", SslMode::VerifyCa, cafile.clone()))
            .expect_err("an expired certificate is refused");
        if error.to_string().contains("xpired") { Ok(()) } else { Err(error) }
    });
}

#[test]
fn bad_files_are_named_at_the_start() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty.pem"), "nothing").unwrap();
    let check = |ssl: SslOptions, part: &str| {
        let options = StoreOptions {
            host: "localhost".to_owned(),
            port: 1,
            db: "x".to_owned(),
            user: "x".to_owned(),
            password: None,
            pool: 1,
            ssl: SslOptions { mode: SslMode::Require, ..ssl },
            application_name: "webmon-test".to_owned(),
            sample_sites: true,
        };
        let error = Store::new(options).expect_err(part);
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    };
    let none = SslOptions::default;
    check(SslOptions { cafile: Some(path("absent.pem")), ..none() }, "absent.pem: ");
    check(SslOptions { cafile: Some(path("empty.pem")), ..none() }, "empty.pem: has no certif");
    check(SslOptions { certfile: Some(path("empty.pem")), ..none() }, "needs its key file");
    check(SslOptions { keyfile: Some(path("empty.pem")), ..none() }, "needs its certificate");
}

#[test]
fn a_server_without_tls() {
    let database = support::services::TestDatabase::create("plain");
    let with = |mode| {
        let mut options = database.options();
        options.ssl.mode = mode;
        options
    };
    ping(with(SslMode::Prefer)).unwrap();
    refused("no TLS there", with(SslMode::Require), "does not support TLS");
}
