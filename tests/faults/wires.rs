//! Services of a scenario's own, each path to them through a proxy.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tempfile::TempDir;

use crate::broker::{Listener, OwnBroker};
use crate::lab::{FaultLab, Plan, Who};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::services::TestDatabase;

/// A way from a daemon to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    ProducerKafka,
    ConsumerKafka,
    ProducerDatabase,
    ConsumerDatabase,
}

/// All four.
pub(crate) const PATHS: [Path; 4] =
    [Path::ProducerKafka, Path::ConsumerKafka, Path::ProducerDatabase, Path::ConsumerDatabase];

impl Path {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ProducerKafka => "producer–Kafka",
            Self::ConsumerKafka => "consumer–Kafka",
            Self::ProducerDatabase => "producer–PostgreSQL",
            Self::ConsumerDatabase => "consumer–PostgreSQL",
        }
    }

    /// Whose way it is.
    pub(crate) fn who(self) -> Who {
        match self {
            Self::ProducerKafka | Self::ProducerDatabase => Who::Producer(0),
            Self::ConsumerKafka | Self::ConsumerDatabase => Who::Consumer(0),
        }
    }
}

/// A broker and a database behind four proxies. The lab's own looks go straight to them.
pub(crate) struct Wires {
    pub(crate) broker: OwnBroker,
    pub(crate) database: Cluster,
    proxies: [Proxy; 4],
    /// What the daemons have to know for TLS.
    env: Vec<(String, String)>,
    _certificates: TempDir,
}

impl Wires {
    /// Starts the services; all proxies are up and do nothing.
    pub(crate) fn start() -> Self {
        Self::start_with("PLAINTEXT")
    }

    /// The same with TLS on all four paths.
    pub(crate) fn encrypted() -> Self {
        Self::start_with("SSL")
    }

    fn start_with(protocol: &'static str) -> Self {
        let proxies = PATHS.map(|_| Proxy::new());
        let certificates = TempDir::with_prefix("webmon-tls-").expect("temporary directory");
        let path = |name: &str| certificates.path().join(name).display().to_string();
        let (mut settings, mut files, mut properties, mut env) = Default::default();
        let (authority, certificate, key) = certify("127.0.0.1");
        if protocol == "SSL" {
            std::fs::write(path("ca.pem"), authority).expect("the authority");
            std::fs::write(path("server.pem"), format!("{key}{certificate}")).expect("certificate");
            settings = vec!["ssl = on"];
            files = vec![("server.crt", certificate.as_str()), ("server.key", key.as_str())];
            let pairs = |pairs: Vec<(&str, String)>| -> Vec<(String, String)> {
                pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            };
            properties = pairs(vec![
                ("ssl.keystore.type", "PEM".to_owned()),
                ("ssl.keystore.location", path("server.pem")),
            ]);
            env = pairs(vec![
                ("WEBMON_KAFKA_SSL_CAFILE", path("ca.pem")),
                ("WEBMON_DATABASE_SSL_MODE", "verify-full".to_owned()),
                ("WEBMON_DATABASE_SSL_CAFILE", path("ca.pem")),
            ]);
        }
        // A producer is told to come back through the producers' proxy, a consumer through theirs.
        let listeners = [("PRODUCER", &proxies[0]), ("CONSUMER", &proxies[1])]
            .map(|(name, p)| Listener::new(name, protocol).advertised(&p.address.to_string()));
        let broker = OwnBroker::start(&listeners, &properties, &[]);
        settings.push("max_connections = 40");
        let database = Cluster::start(&settings, &[], &files);
        let targets = [
            broker.address("PRODUCER"),
            broker.address("CONSUMER"),
            format!("127.0.0.1:{}", database.port),
            format!("127.0.0.1:{}", database.port),
        ];
        for (proxy, target) in proxies.iter().zip(&targets) {
            proxy.lead_to(target);
            proxy.set_up();
        }
        Self { broker, database, proxies, env, _certificates: certificates }
    }

    /// The proxy of a path.
    pub(crate) fn proxy(&self, path: Path) -> &Proxy {
        &self.proxies[path as usize]
    }

    /// A lab whose daemons reach the services through the proxies.
    pub(crate) fn lab(&self, plan: Plan) -> FaultLab {
        let database = TestDatabase::create_at(&self.database.url(), plan.name);
        let mut lab = FaultLab::new(plan, database, &self.broker.address("LOCAL"));
        let paths = [
            (&mut lab.producer_env, Path::ProducerKafka, Path::ProducerDatabase),
            (&mut lab.consumer_env, Path::ConsumerKafka, Path::ConsumerDatabase),
        ];
        for (env, kafka, database) in paths {
            let database = self.proxy(database).address;
            env.extend([
                ("WEBMON_KAFKA_SERVERS".to_owned(), self.proxy(kafka).address.to_string()),
                ("WEBMON_DATABASE_HOST".to_owned(), database.ip().to_string()),
                ("WEBMON_DATABASE_PORT".to_owned(), database.port().to_string()),
            ]);
            env.extend(self.env.clone());
        }
        lab
    }
}

/// An authority, and a server's certificate and key by it; PEM, all of them.
fn certify(host: &str) -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "webmon's tests");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("an authority");
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a host");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    (authority.pem(), certificate.pem(), key.serialize_pem())
}
