//! How to reach the brokers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

use super::KafkaError;

/// How to reach the brokers, and how to write to them.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Brokers to ask first, as `host:port`. All of a small cluster, so that any may be away.
    pub servers: Vec<String>,
    /// Name of this client in the brokers' logs and quotas.
    pub client_id: String,
    /// TLS, when the brokers' listener wants it. The host name is always verified.
    pub tls: Option<TlsFiles>,
    /// Who we are, when the listener wants a password.
    pub sasl: Option<SaslOptions>,
    /// Compression of published batches. Reading understands them all.
    pub compression: Compression,
}

/// PEM files of a TLS connection.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities the broker's certificate may come from; without it the public ones.
    pub ca: Option<PathBuf>,
    /// Our certificate, when the brokers ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// User and password for a broker.
#[derive(Clone, Debug)]
pub struct SaslOptions {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// User name.
    pub user: String,
    /// Password; never shown.
    pub password: SecretString,
}

/// How a password is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password itself travels; only sensible inside TLS.
    Plain,
    /// RFC 5802 with SHA-256.
    ScramSha256,
    /// RFC 5802 with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Compression of published batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    #[default]
    Zstd,
}

impl KafkaOptions {
    /// Reads the certificate files, so that a missing or wrong one is known before anything
    /// starts. Without TLS there is nothing to do.
    ///
    /// # Errors
    /// [`KafkaError::Configuration`], naming the file.
    pub fn check_files(&self) -> Result<(), KafkaError> {
        self.tls.as_ref().map_or(Ok(()), |files| files.client_config().map(drop))
    }

    /// The same in the client library's terms. Hostname verification stays on: switching it off
    /// there switches off all verification and drops our certificate.
    pub(super) fn security(&self) -> Option<kafka::client::SecurityConfig> {
        if self.tls.is_none() && self.sasl.is_none() {
            return None;
        }
        let mut security =
            kafka::client::SecurityConfig::new().with_tls_enabled(self.tls.is_some());
        if let Some(tls) = &self.tls {
            let text = |path: &Path| path.to_string_lossy().into_owned();
            if let Some(ca) = &tls.ca {
                security = security.with_ca_cert(text(ca));
            }
            if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
                security = security.with_client_cert(text(cert), text(key));
            }
        }
        if let Some(sasl) = &self.sasl {
            security = security.with_sasl(kafka::client::SaslConfig::new(
                sasl.mechanism.name().to_owned(),
                sasl.user.clone(),
                sasl.password.expose_secret().to_owned(),
            ));
        }
        Some(security)
    }
}

impl TlsFiles {
    /// What rustls makes of the files.
    pub(super) fn client_config(&self) -> Result<ClientConfig, KafkaError> {
        let mut roots = RootCertStore::empty();
        if let Some(ca) = &self.ca {
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| bad_file(ca, &error))?;
            }
        } else {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| KafkaError::Configuration(error.to_string()))?
            .with_root_certificates(roots);
        match (&self.cert, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(cert), Some(key)) => {
                let private =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| bad_file(key, &error))?;
                builder
                    .with_client_auth_cert(certificates(cert)?, private)
                    .map_err(|error| bad_file(cert, &error))
            }
            (Some(cert), None) => Err(without("key", cert)),
            (None, Some(key)) => Err(without("certificate", key)),
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KafkaError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad_file(path, &error))?;
    if found.is_empty() {
        return Err(bad_file(path, &"no certificate in it"));
    }
    Ok(found)
}

fn bad_file(path: &Path, cause: &dyn std::fmt::Display) -> KafkaError {
    KafkaError::Configuration(format!("{}: {cause}", path.display()))
}

fn without(what: &str, path: &Path) -> KafkaError {
    KafkaError::Configuration(format!("{} has no {what} beside it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let files = TlsFiles { ca: Some("/nowhere/ca.pem".into()), ..TlsFiles::default() };
        let message = files.client_config().unwrap_err().to_string();
        assert!(message.contains("/nowhere/ca.pem"), "{message}");
        assert!(message.contains("No such file"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let files = TlsFiles { cert: Some("/x/cert.pem".into()), ..TlsFiles::default() };
        let message = files.client_config().unwrap_err().to_string();
        assert!(message.contains("/x/cert.pem has no key beside it"), "{message}");
    }

    #[test]
    fn the_password_is_not_shown() {
        let options = KafkaOptions {
            servers: vec!["localhost:9092".to_owned()],
            client_id: "t".to_owned(),
            tls: None,
            sasl: Some(SaslOptions {
                mechanism: SaslMechanism::ScramSha512,
                user: "me".to_owned(),
                password: "hunter2".to_owned().into(),
            }),
            compression: Compression::Zstd,
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
