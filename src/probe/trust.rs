//! Whom a TLS connection trusts, and who it says it is: one configuration for the usual sites,
//! and those that sites ask for.
//!
//! Invariants:
//! - A configuration depends on its texts alone, and is found again by them: the usual sites never
//!   build one, the others only once per change.
//! - A verified chain is remembered by its verifier, and each set of roots has a verifier of its
//!   own: what one set trusts says nothing about another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

use crate::check::{Failure, FailureKind};

use super::verifier::Recording;

/// Most configurations kept for sites that have their own, at a few KiB each. When there are more,
/// all are forgotten: building one takes some 100 µs.
const SPECIAL_MAX: usize = 1024;

/// What a site asks of TLS, in PEM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted<'a> {
    /// The certificate need not be good.
    pub(super) unverified: bool,
    /// Roots instead of the usual ones.
    pub(super) ca: Option<&'a str>,
    /// Our own certificate and its key.
    pub(super) client: Option<(&'a str, &'a str)>,
}

impl Wanted<'_> {
    fn fingerprint(&self) -> Fingerprint {
        let client = self.client.map_or([None; 2], |(chain, key)| [Some(chain), Some(key)]);
        let mut hash = Sha256::new().chain_update([u8::from(self.unverified)]);
        for text in [self.ca, client[0], client[1]] {
            // The length first: otherwise bytes could move from one text to the next.
            hash.update(text.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
            hash.update(text.unwrap_or_default());
        }
        hash.finalize().into()
    }
}

type Fingerprint = [u8; 32];

/// All configurations of a prober.
#[derive(Debug)]
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<Recording>,
    usual: Arc<ClientConfig>,
    special: Mutex<HashMap<Fingerprint, Arc<ClientConfig>>>,
}

impl Trust {
    /// Trusts, unless a site wants something else, Mozilla's roots, the system's where they can be
    /// read (or those of `SSL_CERT_FILE`), and `extra`.
    pub(super) fn new(extra: &[CertificateDer<'static>]) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let native = rustls_native_certs::load_native_certs();
        if let Some(error) = native.errors.first() {
            log::warn!(error:%, errors = native.errors.len(); "system certificates not readable");
        }
        let (_, unusable) = roots.add_parsable_certificates(native.certs);
        if unusable > 0 {
            log::debug!(unusable; "system certificates that are no roots");
        }
        for root in extra {
            roots.add(root.clone()).map_err(|error| format!("extra root: {error}"))?;
        }
        let verifier = verifier(roots, &provider)?;
        let usual = configuration(&provider, verifier.clone(), None)?;
        Ok(Self { provider, verifier, usual: Arc::new(usual), special: Mutex::default() })
    }

    /// The configuration of sites that want nothing special.
    pub(super) fn usual(&self) -> &Arc<ClientConfig> {
        &self.usual
    }

    /// The configuration for `wanted`.
    pub(super) fn special(
        &self,
        wanted: &Wanted<'_>,
    ) -> Result<Arc<ClientConfig>, Failure<'static>> {
        if *wanted == Wanted::default() {
            return Ok(self.usual.clone());
        }
        let key = wanted.fingerprint();
        let known = || self.special.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known().get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(wanted)?);
        let mut known = known();
        if known.len() >= SPECIAL_MAX {
            known.clear();
        }
        Ok(known.entry(key).or_insert(config).clone())
    }

    fn build(&self, wanted: &Wanted<'_>) -> Result<ClientConfig, Failure<'static>> {
        let fault = |what: &str, why: String| {
            Failure::new(FailureKind::Tls, format!("{what} cannot be used: {why}"))
        };
        let verifier = match wanted.ca {
            _ if wanted.unverified => Arc::new(Recording::unverified(&self.provider)),
            None => self.verifier.clone(),
            Some(ca) => roots(ca)
                .and_then(|roots| verifier(roots, &self.provider))
                .map_err(|why| fault("the site's own roots", why))?,
        };
        let client = wanted.client.map(identity).transpose();
        client
            .and_then(|client| configuration(&self.provider, verifier, client))
            .map_err(|why| fault("client certificate", why))
    }
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<Recording>, String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    Ok(Arc::new(Recording::new(verifier)))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn configuration(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<Recording>,
    client: Option<Identity>,
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    // A resumed handshake shows no certificate, and measures something else than a new visitor's.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(text: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn identity((chain, key): (&str, &str)) -> Result<Identity, String> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => "there is no key, or it is encrypted".to_owned(),
        other => bad_pem(&other).to_owned(),
    })?;
    Ok((chain, key))
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in it".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(bad_pem(&error).to_owned()),
    }
}

/// In words of our own: the library's may quote the text.
fn bad_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section of its PEM has no end",
        pem::Error::IllegalSectionStart { .. } => "a section of its PEM has a bad beginning",
        pem::Error::Base64Decode(_) => "its PEM is no good base64",
        _ => "it is no PEM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn the_same_texts_give_the_same_configuration_and_memory_of_chains() {
        let trust = Trust::new(&[]).unwrap();
        let (a, b) = (pem("a.test"), pem("b.test"));
        let usual = Wanted::default();
        let with_ca = Wanted { ca: Some(&a.0), ..usual };
        let other_ca = Wanted { ca: Some(&b.0), ..usual };
        let client = Wanted { client: Some((&a.0, &a.1)), ..usual };
        let unverified = Wanted { unverified: true, ..usual };
        let all = [usual, with_ca, other_ca, client, unverified];
        let first: Vec<_> = all.iter().map(|wanted| trust.special(wanted).unwrap()).collect();
        for (index, wanted) in all.iter().enumerate() {
            let again = trust.special(wanted).unwrap();
            for (other, config) in first.iter().enumerate() {
                assert_eq!(Arc::ptr_eq(config, &again), index == other, "{index} {other}");
            }
        }
        assert!(Arc::ptr_eq(&first[0], trust.usual()));
        for number in 0..SPECIAL_MAX {
            let ca = format!("{}{number}", a.0);
            trust.special(&Wanted { ca: Some(&ca), ..usual }).unwrap();
        }
        assert!(trust.special.lock().unwrap().len() <= SPECIAL_MAX);
    }

    #[test]
    fn bad_texts_are_told_without_their_words() {
        let trust = Trust::new(&[]).unwrap();
        let (good, key) = pem("a.test");
        let (_, other) = pem("b.test");
        let cut = good.replace("-----END", "--xx");
        let hidden = "-----BEGIN hunter2";
        for (certificate, key, why) in [
            ("hunter2", key.as_str(), "no certificate in it"),
            (good.as_str(), "hunter2", "there is no key"),
            (cut.as_str(), key.as_str(), "client certificate cannot be used: "),
            (good.as_str(), hidden, "bad beginning"),
            (good.as_str(), other.as_str(), "client certificate cannot be used: "),
        ] {
            let wanted = Wanted { client: Some((certificate, key)), ..Wanted::default() };
            let failure = trust.special(&wanted).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Tls);
            assert!(failure.detail.contains(why), "{}", failure.detail);
            assert!(!failure.detail.contains("hunter2"), "{}", failure.detail);
        }
        let wanted = Wanted { ca: Some("hunter2"), ..Wanted::default() };
        let failure = trust.special(&wanted).unwrap_err();
        assert_eq!(
            failure.detail,
            "the site's own roots cannot be used: there is no certificate in it"
        );
    }
}
