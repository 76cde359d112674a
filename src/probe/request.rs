//! The requests of one check: the first one, and those that redirects lead to.
//!
//! ureq's own redirects are off: it reads their bodies (endless ones too), joins what is no URL,
//! and shares its cookies between all checks.

use ureq::Body;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use url::Url;

use crate::check::{Failure, FailureKind};
use crate::site::{FollowRedirects, access_of, public_url};

use super::cookies::Jar;
use super::target::{Target, authorization};

/// Longest URL a redirect may lead to, in bytes: it must fit into one line of a request.
const LOCATION_MAX: usize = 8192;

/// Headers that may follow a redirect to another origin. All others might be meant for the
/// site's own eyes, such as `Authorization`, `Cookie` or an API key.
const FOR_ANYBODY: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_TYPE,
    header::USER_AGENT,
];

/// The request that is next.
pub(super) struct Step<'t> {
    target: &'t Target,
    /// The site's own headers, with its secrets.
    own: Option<&'t HeaderMap>,
    method: Method,
    /// Where a redirect led to; the site's own URL before.
    url: Option<Url>,
    with_body: bool,
    /// A redirect led to another origin. The site's own headers then stay behind for good.
    left_origin: bool,
    jar: Jar,
}

/// Whether an answer of this status leads elsewhere.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

fn redirect_failure(detail: impl Into<String>) -> Failure<'static> {
    Failure::new(FailureKind::Redirect, detail)
}

impl<'t> Step<'t> {
    /// The first request for `target`, whose own headers are `own`.
    pub(super) fn first(target: &'t Target, own: Option<&'t HeaderMap>) -> Self {
        Self {
            target,
            own,
            method: Method::from_bytes(target.site.method.as_bytes()).unwrap_or(Method::GET),
            url: None,
            with_body: true,
            left_origin: false,
            jar: Jar::default(),
        }
    }

    /// The body to send, if there is one.
    pub(super) fn body(&self) -> Option<&'t [u8]> {
        let body = self.target.site.more().body.as_deref().filter(|_| self.with_body)?;
        (!body.is_empty()).then_some(body.as_bytes())
    }

    /// Whether answers to this request have a body.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether it goes to another origin than the site's own, or has been there.
    pub(super) fn left_origin(&self) -> bool {
        self.left_origin
    }

    /// Whether it goes over TLS.
    pub(super) fn is_https(&self) -> bool {
        match &self.url {
            None => self.target.url().starts_with("https:"),
            Some(url) => url.scheme() == "https",
        }
    }

    /// Whether it goes to the host of the site's own URL, at whatever port.
    pub(super) fn is_own_host(&self) -> bool {
        self.url.as_ref().is_none_or(|url| self.is_host_of(url))
    }

    fn is_host_of(&self, url: &Url) -> bool {
        Url::parse(self.target.url()).is_ok_and(|own| own.host() == url.host())
    }

    /// The request without its body, with `base` for what the site doesn't set itself.
    pub(super) fn request(&self, base: &HeaderMap) -> Result<Request<()>, Failure<'static>> {
        let uri = match &self.url {
            None => self.target.url().parse().map_err(|_| {
                Failure::new(FailureKind::Internal, "the URL has characters that can't be sent")
            })?,
            Some(url) => public_url(url)
                .parse()
                .map_err(|error| redirect_failure(format!("to a bad URL: {error}")))?,
        };
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers(base);
        Ok(request)
    }

    fn headers(&self, base: &HeaderMap) -> HeaderMap {
        let mut headers = base.clone();
        if let Some(own) = self.own {
            for name in own.keys().filter(|name| self.may_send(own, name)) {
                headers.remove(name);
                for value in own.get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        if let Some(url) = &self.url {
            if let Some(authorization) = access_of(url).as_ref().and_then(authorization) {
                headers.entry(header::AUTHORIZATION).or_insert(authorization);
            }
            let own = headers.get(header::COOKIE).and_then(|own| own.to_str().ok());
            let cookies = self.jar.header(url, own);
            if let Some(cookies) = cookies.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(header::COOKIE, cookies);
            }
        }
        let has_body_always = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        if has_body_always && self.body().is_none() {
            // ureq would send an empty chunked body.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        headers
    }

    fn may_send(&self, own: &HeaderMap, name: &HeaderName) -> bool {
        let describes_body = name.as_str().starts_with("content-");
        // A value with a secret is for the site alone, whatever header it is in.
        let is_plain = || own.get_all(name).iter().all(|value| !value.is_sensitive());
        (!self.left_origin || (FOR_ANYBODY.contains(name) && is_plain()))
            && (self.with_body || !describes_body)
    }

    /// Turns this step into the one that the redirect `answer` asks for.
    pub(super) fn follow(&mut self, answer: &Response<Body>) -> Result<(), Failure<'static>> {
        let status = answer.status().as_u16();
        let Some(location) = answer.headers().get(header::LOCATION) else {
            return Err(redirect_failure(format!("{status} without Location")));
        };
        let location = std::str::from_utf8(location.as_bytes())
            .map_err(|_| redirect_failure("Location is not UTF-8"))?;
        let from = match self.url.take() {
            Some(url) => url,
            None => Url::parse(self.target.url())
                .map_err(|error| redirect_failure(format!("from a bad URL: {error}")))?,
        };
        let to = from
            .join(location)
            .map_err(|error| redirect_failure(format!("bad Location: {error}")))?;
        if !matches!(to.scheme(), "http" | "https") {
            let detail = format!("to scheme '{}'; only http and https are followed", to.scheme());
            return Err(redirect_failure(detail));
        }
        if to.as_str().len() > LOCATION_MAX {
            let detail =
                format!("Location has {} bytes; at most {LOCATION_MAX}", to.as_str().len());
            return Err(redirect_failure(detail));
        }
        match self.target.site.more().follow_redirects {
            FollowRedirects::Secure if from.scheme() == "https" && to.scheme() == "http" => {
                return Err(redirect_failure("from https to http, which is not followed"));
            }
            FollowRedirects::SameHost if !self.is_host_of(&to) => {
                let host = to.host_str().unwrap_or_default();
                let detail = format!("to another host, '{host}', which is not followed");
                return Err(redirect_failure(detail));
            }
            _ => {}
        }
        let left_origin = from.origin() != to.origin();
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            if let Ok(cookie) = cookie.to_str() {
                self.jar.store(&from, cookie);
            }
        }
        self.left_origin |= left_origin;
        // As browsers do: 303 always asks for a GET, 301 and 302 of a POST too, others keep it.
        let to_get = match status {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if to_get {
            self.method = Method::GET;
            self.with_body = false;
        }
        self.url = Some(to);
        Ok(())
    }
}
