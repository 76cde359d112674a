//! TLS to PostgreSQL, with the meanings that libpq gives to `sslmode`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use postgres::config::SslMode as ClientMode;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::errors::{ErrorKind, StoreError};

/// How much TLS to the database, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// When the server offers it; nothing is verified.
    #[default]
    Prefer,
    /// Always; nothing is verified, unless a CA file is given: then as `VerifyCa`.
    Require,
    /// Always, and a trusted authority must have signed the server's certificate.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be for the host's name.
    VerifyFull,
}

/// TLS settings of the database connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SslOptions {
    /// How much TLS.
    pub mode: SslMode,
    /// Trusted certificates (PEM); the system's when absent.
    pub cafile: Option<PathBuf>,
    /// This client's certificate chain (PEM).
    pub certfile: Option<PathBuf>,
    /// Its key (PEM, not encrypted).
    pub keyfile: Option<PathBuf>,
}

fn bad(path: &Path, problem: impl std::fmt::Display) -> StoreError {
    StoreError::new(ErrorKind::Configuration, format!("{}: {problem}", path.display()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| bad(path, e));
    match found {
        Ok(found) if found.is_empty() => Err(bad(path, "has no certificate (PEM)")),
        other => other,
    }
}

/// What the client library is told, and the connector for it.
///
/// # Errors
/// A file that can't be read or holds no good certificate or key; no trusted certificate at all.
pub(super) fn connector(
    options: &SslOptions,
) -> Result<(ClientMode, MakeRustlsConnect), StoreError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (mode, trust) = match options.mode {
        SslMode::Disable => (ClientMode::Disable, None),
        SslMode::Prefer => (ClientMode::Prefer, None),
        SslMode::Require if options.cafile.is_none() => (ClientMode::Require, None),
        SslMode::Require | SslMode::VerifyCa => (ClientMode::Require, Some(trusted(options)?)),
        SslMode::VerifyFull => (ClientMode::Require, Some(trusted(options)?)),
    };
    let verifier = Verifier {
        provider: provider.clone(),
        trust,
        check_name: options.mode == SslMode::VerifyFull,
    };
    let unusable = |e: Error| StoreError::new(ErrorKind::Configuration, format!("TLS: {e}"));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match (&options.certfile, &options.keyfile) {
        (Some(certfile), Some(keyfile)) => {
            let key = PrivateKeyDer::from_pem_file(keyfile).map_err(|e| bad(keyfile, e))?;
            builder
                .with_client_auth_cert(read_certificates(certfile)?, key)
                .map_err(|e| bad(certfile, e))?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(path), None) => return Err(bad(path, "a client certificate needs its key file too")),
        (None, Some(path)) => return Err(bad(path, "a client key needs its certificate file too")),
    };
    Ok((mode, MakeRustlsConnect::new(config)))
}

/// Whom to believe.
#[derive(Debug)]
struct Trust {
    roots: RootCertStore,
    /// The CA file's certificates as they are: a server's self-signed certificate that stands
    /// there itself is good, as it is for libpq. The chain check would refuse it, since it wants
    /// an authority above each server.
    itself: Vec<CertificateDer<'static>>,
}

fn trusted(options: &SslOptions) -> Result<Trust, StoreError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &options.cafile else {
        // Some of a system's certificates may be unreadable; what matters is that some are not.
        let (added, _) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            let problem = "the system has no trusted certificates: set database.ssl.cafile";
            return Err(StoreError::new(ErrorKind::Configuration, problem));
        }
        return Ok(Trust { roots, itself: Vec::new() });
    };
    let itself = read_certificates(path)?;
    for certificate in &itself {
        roots.add(certificate.clone()).map_err(|e| bad(path, e))?;
    }
    Ok(Trust { roots, itself })
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Nothing is verified without it.
    trust: Option<Trust>,
    check_name: bool,
}

/// Whether `now` is within the certificate's validity.
fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|s| ASN1Time::from_timestamp(s).ok());
    match now {
        Some(now) if now < parsed.validity().not_before => {
            Err(Error::InvalidCertificate(CertificateError::NotValidYet))
        }
        Some(now) if now <= parsed.validity().not_after => Ok(()),
        _ => Err(Error::InvalidCertificate(CertificateError::Expired)),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if trust.itself.iter().any(|known| known.as_ref() == end_entity.as_ref()) {
            check_validity(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &trust.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        if self.check_name {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
