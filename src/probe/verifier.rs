//! The certificate verifier: records what is shown, then lets webpki decide.
//!
//! Verifying a chain costs 42 µs of a full handshake's 146. It is a pure function of the roots,
//! the name, the chain's bytes and the time within all validities, so a success is remembered:
//! by a hash over name and chain, for at most [`REMEMBERED_S`]. The roots of a verifier never
//! change. The signature of the handshake, the proof of the key, is checked every time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::timings;

/// How long a verified chain is remembered, in seconds.
const REMEMBERED_S: i64 = 3600;
/// Most remembered chains: one each for 100,000 sites, about 8 MiB.
const REMEMBERED_MAX: usize = 100_000;

type Fingerprint = [u8; 32];

/// A chain that was verified.
#[derive(Clone, Copy, Debug)]
struct Verified {
    /// From when on it is good, in seconds since the epoch.
    from: i64,
    /// Until when it is remembered.
    until: i64,
    /// Earliest end of its certificates.
    end: i64,
}

/// Records what is shown, and decides by one set of roots, or takes everything.
#[derive(Debug)]
pub(super) struct Recording {
    inner: Option<Arc<WebPkiServerVerifier>>,
    schemes: Vec<SignatureScheme>,
    remembered: Mutex<HashMap<Fingerprint, Verified>>,
}

impl Recording {
    pub(super) fn new(inner: Arc<WebPkiServerVerifier>) -> Self {
        let schemes = inner.supported_verify_schemes();
        Self { inner: Some(inner), schemes, remembered: Mutex::default() }
    }

    /// Takes every certificate, and every signature: without a certificate to hold on to, its key
    /// proves nothing, and the certificate may be one that can't even be read.
    pub(super) fn unverified(provider: &CryptoProvider) -> Self {
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self { inner: None, schemes, remembered: Mutex::default() }
    }

    /// What `verify` says of a handshake's signature; without verification any will do.
    fn signature(
        &self,
        verify: impl FnOnce(&WebPkiServerVerifier) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.inner {
            Some(inner) => verify(inner),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn recall(&self, key: &Fingerprint, now: i64) -> Option<Verified> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(key).copied().filter(|chain| (chain.from..chain.until).contains(&now))
    }

    fn remember(&self, key: Fingerprint, chain: Verified, now: i64) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, chain| chain.until > now);
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
        }
        remembered.insert(key, chain);
    }
}

fn fingerprint(
    name: &ServerName<'_>,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
) -> Fingerprint {
    let mut hash = Sha256::new().chain_update(name.to_str().as_bytes());
    for certificate in std::iter::once(leaf).chain(others) {
        // The length first: otherwise bytes could move from one certificate to the next.
        hash.update((certificate.len() as u64).to_be_bytes());
        hash.update(certificate);
    }
    hash.finalize().into()
}

/// When the last of the certificates begins and the first ends; of those that can be read, and
/// whether that was all of them.
fn validity(leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Option<(i64, i64, bool)> {
    let validities: Vec<(i64, i64)> = std::iter::once(leaf)
        .chain(others)
        .filter_map(|der| X509Certificate::from_der(der).ok())
        .map(|(_, certificate)| {
            let validity = certificate.validity();
            (validity.not_before.timestamp(), validity.not_after.timestamp())
        })
        .collect();
    let from = validities.iter().map(|(from, _)| *from).max()?;
    let end = validities.iter().map(|(_, end)| *end).min()?;
    Some((from, end, validities.len() == others.len() + 1))
}

fn names_itself_as_issuer(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, certificate)| certificate.subject() == certificate.issuer())
}

// rustls calls it on the check's own thread, out of `process_new_packets`.
impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            if let Some((_, end, _)) = validity(leaf, others) {
                timings::with(|context| context.saw_chain_until(end));
            }
            return Ok(ServerCertVerified::assertion());
        };
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let key = fingerprint(name, leaf, others);
        if let Some(chain) = self.recall(&key, now_s) {
            timings::with(|context| context.saw_chain_until(chain.end));
            timings::with(|context| context.chain_is_good = true);
            return Ok(ServerCertVerified::assertion());
        }
        let validity = validity(leaf, others);
        if let Some((_, end, _)) = validity {
            timings::with(|context| context.saw_chain_until(end));
        }
        match inner.verify_server_cert(leaf, others, name, ocsp, now) {
            Ok(verified) => {
                timings::with(|context| context.chain_is_good = true);
                if let Some((from, end, true)) = validity {
                    let until = end.min(now_s.saturating_add(REMEMBERED_S));
                    self.remember(key, Verified { from, until, end }, now_s);
                }
                Ok(verified)
            }
            Err(error) => {
                let self_signed = names_itself_as_issuer(leaf);
                timings::with(|context| {
                    context.self_signed = self_signed;
                    context.chain_is_good = false;
                });
                Err(error)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(|inner| inner.verify_tls12_signature(message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(|inner| inner.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
