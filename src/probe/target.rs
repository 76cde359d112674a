//! What is prepared once per site, so that a check only has to copy it.
//!
//! About 300 bytes beside the site itself and its own headers: 100,000 sites shall fit into one
//! process.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use url::Url;

use crate::check::Identity;
use crate::site::{Site, public_url};

/// A site, ready to be checked from one region.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) site: Arc<Site>,
    pub(super) region: Arc<str>,
    pub(super) identity: Identity,
    /// The URL without credentials and fragment.
    pub(super) url: Box<str>,
    /// The same, for ureq; `None` if ureq can't request it.
    pub(super) uri: Option<Uri>,
    /// The site's own headers, and its credentials; most sites have none.
    pub(super) headers: Option<Box<HeaderMap>>,
}

impl Target {
    /// Prepares `site` to be checked from `region`.
    #[must_use]
    pub fn new(site: Arc<Site>, region: impl Into<Arc<str>>) -> Self {
        let region = region.into();
        let identity = Identity::new(site.website_id, &region);
        let url = public_url(&site.url).into_boxed_str();
        let uri = url.parse().ok();
        let headers = own_headers(&site);
        let headers = (!headers.is_empty()).then(|| Box::new(headers));
        Self { site, region, identity, url, uri, headers }
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Who is checked and from where.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &Arc<str> {
        &self.region
    }

    /// What is requested, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn own_headers(site: &Site) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &site.headers {
        // Both were checked when the site was built.
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        else {
            continue;
        };
        if name == header::HOST || name == header::AUTHORIZATION {
            // There can be only one of these.
            headers.insert(name, value);
        } else if name != header::EXPECT {
            // Bodies are small enough to be sent without asking first.
            headers.append(name, value);
        }
    }
    if let Some(authorization) = basic_authorization(&site.url) {
        headers.entry(header::AUTHORIZATION).or_insert(authorization);
    }
    headers
}

/// The user and password of `url` as an `Authorization` header.
pub(super) fn basic_authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials = percent_decoded(url.username());
    credentials.push(b':');
    credentials.extend(percent_decoded(url.password().unwrap_or_default()));
    let mut value =
        HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credentials))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let [first, rest @ ..] = bytes {
        (decoded, bytes) = match (first, hex(rest.first()), hex(rest.get(1))) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits: at most 255.
                decoded.push((high * 16 + low) as u8);
                (decoded, &rest[2..])
            }
            _ => {
                decoded.push(*first);
                (decoded, rest)
            }
        };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_decoded_and_encoded() {
        for (url, expect) in [
            ("http://a.org/", None),
            ("http://user:pass@a.org/", Some("user:pass")),
            ("http://user@a.org/", Some("user:")),
            ("http://:pass@a.org/", Some(":pass")),
            ("http://us%40er:p%3ass%zz@a.org/", Some("us@er:p:ss%zz")),
        ] {
            let value = basic_authorization(&Url::parse(url).unwrap());
            let expect = expect.map(|text| format!("Basic {}", BASE64_STANDARD.encode(text)));
            assert_eq!(value.as_ref().map(|v| v.to_str().unwrap()), expect.as_deref(), "{url}");
        }
    }
}
