//! Certificates of every kind, made on the spot, and servers that show them.

use std::net::TcpStream;
use std::sync::{Arc, OnceLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
};

use super::support::{Do, accept, act, answer, read_request};

/// A chain, leaf first, and the leaf's key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate authority.
pub(crate) struct Authority(pub(crate) CertifiedIssuer<'static, KeyPair>);

fn authority_params(name: &str, until: i32) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2015, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

impl Authority {
    /// A root.
    pub(crate) fn new(name: &str) -> Self {
        Self::until(name, 2090)
    }

    /// A root that ends with this year's begin.
    pub(crate) fn until(name: &str, year: i32) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(authority_params(name, year), key).unwrap())
    }

    /// An authority that this one vouches for.
    pub(crate) fn intermediate(
        &self,
        year: i32,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = authority_params("webmon test intermediate", year);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `names`, good in the years `from..until`.
    pub(crate) fn sign(&self, names: &[&str], from: i32, until: i32) -> Identity {
        self.sign_params(&params(names, from, until))
    }

    pub(crate) fn sign_params(&self, params: &CertificateParams) -> Identity {
        self.sign_for(params, &KeyPair::generate().unwrap())
    }

    pub(crate) fn sign_for(&self, params: &CertificateParams, key: &KeyPair) -> Identity {
        let certificate = params.signed_by(key, &self.0).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

pub(crate) fn params(names: &[&str], from: i32, until: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a test server");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

/// A certificate that vouches for itself.
pub(crate) fn self_signed(params: &CertificateParams) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// The authority the test prober trusts.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("webmon test authority"))
}

pub(crate) fn good() -> Identity {
    authority().sign(&["site.test", "127.0.0.1"], 2020, 2080)
}

/// How a server shakes hands.
pub(crate) struct Shake {
    pub(crate) identity: Identity,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) wants_client: bool,
}

impl From<Identity> for Shake {
    fn from(identity: Identity) -> Self {
        Self { identity, versions: rustls::ALL_VERSIONS, wants_client: false }
    }
}

impl Shake {
    pub(crate) fn config(self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = if self.wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(authority().certificate()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        // Not `with_single_cert`: it would notice a key that is not the certificate's.
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.identity.1).unwrap();
        let shown = rustls::sign::CertifiedKey::new(self.identity.0, key);
        Arc::new(builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown))))
    }
}

/// A server's usual way to shake hands.
pub(crate) fn server_config(identity: Identity, wants_client: bool) -> Arc<ServerConfig> {
    Shake { wants_client, ..identity.into() }.config()
}

/// A TLS server on `ip` that follows `script` after each request; its port.
pub(crate) fn serve_on(ip: &str, config: Arc<ServerConfig>, script: Vec<Do>) -> u16 {
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
    accept(ip, serve).port()
}

pub(crate) fn serve(config: Arc<ServerConfig>, script: Vec<Do>) -> u16 {
    serve_on("127.0.0.1", config, script)
}

pub(crate) fn ok() -> Vec<Do> {
    vec![answer("HTTP/1.1 200 OK", "hello")]
}
