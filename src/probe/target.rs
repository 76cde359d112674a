//! What is prepared once per site, so that a check only has to copy it.
//!
//! About 200 bytes with the URL: 100,000 sites shall fit into one process.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::check::{Failure, FailureKind, Identity};
use crate::site::{Access, Interval, More, Site, has_secret};

use super::kept::Place;

/// A site, ready to be checked from one region.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) site: Site,
    pub(super) region: Arc<str>,
    pub(super) identity: Identity,
    /// What few sites have.
    pub(super) own: Option<Box<Own>>,
}

/// What is prepared for the sites that have something of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    /// The site's own headers, and its credentials; none if they refer to secrets, which are read
    /// at each check.
    pub(super) headers: HeaderMap,
    pub(super) has_secrets: bool,
    /// For the connection that is kept.
    pub(super) place: Option<Place>,
}

impl Target {
    /// Prepares `site` to be checked from `region`.
    #[must_use]
    pub fn new(site: Site, region: impl Into<Arc<str>>) -> Self {
        let region = region.into();
        let identity = Identity::new(site.website_id, &region);
        let own = site.more.as_deref().and_then(Own::of).map(Box::new);
        Self { site, region, identity, own }
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

impl Own {
    fn of(more: &More) -> Option<Self> {
        let mut has_secrets = false;
        let headers = own_headers(more, |text| {
            has_secrets |= has_secret(text);
            Ok(Cow::Borrowed(text))
        });
        let headers = headers.ok().filter(|_| !has_secrets).unwrap_or_default();
        let place = more.keeps_connection.then(Place::default);
        let own = Self { headers, has_secrets, place };
        (!own.headers.is_empty() || has_secrets || own.place.is_some()).then_some(own)
    }
}

/// The headers a site sets itself, its credentials included, with whatever `fill` makes of their
/// texts.
pub(super) fn own_headers<'t>(
    more: &'t More,
    mut fill: impl FnMut(&'t str) -> Result<Cow<'t, str>, Failure<'static>>,
) -> Result<HeaderMap, Failure<'static>> {
    let mut headers = HeaderMap::new();
    for (name, text) in &more.headers {
        let is_secret = has_secret(text);
        let text = fill(text)?;
        // The name was checked when the site was built, as were values that are no secrets.
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| unfit(&name))?;
        value.set_sensitive(is_secret);
        if name == header::HOST || name == header::AUTHORIZATION {
            // There can be only one of these.
            headers.insert(name, value);
        } else if name != header::EXPECT {
            // Bodies are small enough to be sent without asking first.
            headers.append(name, value);
        }
    }
    let access = match &more.access {
        None => None,
        Some(Access::Basic(user, password)) => {
            Some(Access::Basic(fill(user)?.into_owned(), fill(password)?.into_owned()))
        }
        Some(Access::Bearer(token)) => Some(Access::Bearer(fill(token)?.into_owned())),
    };
    if let Some(access) = access {
        let authorization = authorization(&access).ok_or_else(|| unfit(&header::AUTHORIZATION))?;
        headers.entry(header::AUTHORIZATION).or_insert(authorization);
    }
    Ok(headers)
}

fn unfit(name: &HeaderName) -> Failure<'static> {
    let detail = format!("the secret for '{name}' has characters no header may have");
    Failure::new(FailureKind::Internal, detail)
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
