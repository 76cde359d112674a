//! What is unusual about the way of a site's requests: worked out once per check, handed to
//! resolver and connector through the thread's context. The usual sites have none of it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::ClientConfig;
use ureq::http::{HeaderMap, header};

use crate::check::Failure;
use crate::site::{Access, IpVersion, More, has_secret};

use super::proxy::Via;
use super::request::Step;
use super::secrets::{Secrets, hide};
use super::target::{Target, own_headers};
use super::trust::{Trust, Wanted};

/// The way of one request.
#[derive(Debug)]
pub(super) struct Route {
    /// Which addresses are dialled, in which order.
    pub(super) ip_version: IpVersion,
    /// Private and other special addresses are refused, whatever the configuration allows.
    pub(super) public_only: bool,
    /// Absent: as usual.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Absent: the URL's host.
    pub(super) server_name: Option<String>,
    /// Absent: straight to the site.
    pub(super) proxy: Option<Arc<Via>>,
    /// The connection is kept for the next check.
    pub(super) keeps: bool,
}

/// What a site has of its own, with its secrets, for one check.
#[derive(Default)]
pub(super) struct Own<'t> {
    more: Option<&'t More>,
    headers: Option<Cow<'t, HeaderMap>>,
    ca: Option<Cow<'t, str>>,
    client: Option<(Cow<'t, str>, Cow<'t, str>)>,
    proxy: Option<Arc<Via>>,
}

impl<'t> Own<'t> {
    /// Reads the secrets of `target`. They, and what else is known to be secret, are hidden from
    /// here on.
    pub(super) fn new(target: &'t Target, secrets: &Secrets) -> Result<Self, Failure<'static>> {
        let Some(more) = target.site.more.as_deref() else {
            return Ok(Self::default());
        };
        let headers = match &target.own {
            Some(own) if own.has_secrets => {
                Some(Cow::Owned(own_headers(more, |text| secrets.fill(text))?))
            }
            Some(own) => Some(Cow::Borrowed(&own.headers)),
            None => None,
        };
        match &more.access {
            Some(Access::Basic(_, text) | Access::Bearer(text)) if !has_secret(text) => hide(text),
            _ => {}
        }
        let authorization = headers.as_ref().and_then(|map| map.get(header::AUTHORIZATION));
        if let Some(value) = authorization.and_then(|value| value.to_str().ok()) {
            hide(value.split_once(' ').map_or(value, |(_, credentials)| credentials));
        }
        let proxy = match &more.proxy {
            None => None,
            Some(proxy) => {
                let authorization = match &proxy.access {
                    None => None,
                    Some((user, password)) => {
                        let (user, password) = (secrets.fill(user)?, secrets.fill(password)?);
                        hide(&password);
                        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
                        hide(&encoded);
                        Some(format!("Basic {encoded}"))
                    }
                };
                Some(Arc::new(Via { host: proxy.host.clone(), port: proxy.port, authorization }))
            }
        };
        let ca = more.tls.ca.as_deref().map(|text| secrets.fill_pem(text)).transpose()?;
        let client = match &more.tls.client {
            None => None,
            Some((chain, key)) => Some((secrets.fill_pem(chain)?, secrets.fill_pem(key)?)),
        };
        Ok(Self { more: Some(more), headers, ca, client, proxy })
    }

    /// The site's own headers and its credentials.
    pub(super) fn headers(&self) -> Option<&HeaderMap> {
        self.headers.as_deref()
    }

    /// The way of `step`; absent when it is the usual one.
    pub(super) fn route(
        &self,
        step: &Step<'_>,
        trust: &Trust,
    ) -> Result<Option<Arc<Route>>, Failure<'static>> {
        let Some(more) = self.more else {
            return Ok(None);
        };
        let is_home = !step.left_origin();
        let mut tls = None;
        let mut server_name = None;
        if step.is_https() {
            let client = self.client.as_ref().filter(|_| is_home);
            let wanted = Wanted {
                unverified: more.tls.unverified,
                ca: self.ca.as_deref(),
                // It tells who asks, as credentials do, and stays with its origin like them.
                client: client.map(|(chain, key)| (chain.as_ref(), key.as_ref())),
            };
            if wanted != Wanted::default() {
                tls = Some(trust.special(&wanted)?);
            }
            server_name = more.tls.server_name.clone().filter(|_| step.is_own_host());
        }
        let route = Route {
            ip_version: more.ip_version,
            public_only: more.public_only,
            tls,
            server_name,
            proxy: self.proxy.clone(),
            keeps: more.keeps_connection && is_home,
        };
        Ok(route.is_unusual().then(|| Arc::new(route)))
    }
}

impl Route {
    fn is_unusual(&self) -> bool {
        self.ip_version != IpVersion::Any
            || self.public_only
            || self.tls.is_some()
            || self.server_name.is_some()
            || self.proxy.is_some()
            || self.keeps
    }
}

/// Which addresses are of one family, and its name.
type Family = (fn(&IpAddr) -> bool, &'static str);

/// The family that alone is wanted, if there is one.
pub(super) fn only(version: IpVersion) -> Option<Family> {
    match version {
        IpVersion::V4 => Some((IpAddr::is_ipv4, "IPv4")),
        IpVersion::V6 => Some((IpAddr::is_ipv6, "IPv6")),
        IpVersion::Any | IpVersion::PreferV4 | IpVersion::PreferV6 => None,
    }
}

/// Brings the preferred family to the front, each in the resolver's order.
pub(super) fn sort(addresses: &mut [IpAddr], version: IpVersion) {
    match version {
        IpVersion::PreferV4 => addresses.sort_by_key(IpAddr::is_ipv6),
        IpVersion::PreferV6 => addresses.sort_by_key(IpAddr::is_ipv4),
        IpVersion::Any | IpVersion::V4 | IpVersion::V6 => {}
    }
}
