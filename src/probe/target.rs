//! What is prepared once per site, so that a check only has to copy it.
//!
//! About 200 bytes with the URL: 100,000 sites shall fit into one process.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::check::Identity;
use crate::site::{Access, Interval, Site};

/// A site, ready to be checked from one region.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) site: Site,
    pub(super) region: Arc<str>,
    pub(super) identity: Identity,
    /// The site's own headers, and its credentials; most sites have none.
    pub(super) headers: Option<Box<HeaderMap>>,
}

impl Target {
    /// Prepares `site` to be checked from `region`.
    #[must_use]
    pub fn new(site: Site, region: impl Into<Arc<str>>) -> Self {
        let region = region.into();
        let identity = Identity::new(site.website_id, &region);
        let headers = own_headers(&site);
        let headers = (!headers.is_empty()).then(|| Box::new(headers));
        Self { site, region, identity, headers }
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The table's key.
    #[must_use]
    pub fn website_id(&self) -> i64 {
        self.site.website_id
    }

    /// Time between checks.
    #[must_use]
    pub fn interval(&self) -> Interval {
        self.site.interval
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
        &self.site.url
    }
}

fn own_headers(site: &Site) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &site.more().headers {
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
    if let Some(authorization) = site.more().access.as_ref().and_then(authorization) {
        headers.entry(header::AUTHORIZATION).or_insert(authorization);
    }
    headers
}

/// The `Authorization` header; `None` for what no header can hold.
pub(super) fn authorization(access: &Access) -> Option<HeaderValue> {
    let text = match access {
        Access::Basic(user, password) => {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        }
        Access::Bearer(token) => format!("Bearer {token}"),
    };
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
