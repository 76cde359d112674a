//! The table of misbehaving servers: one row each, with everything a check says about it.
//!
//! A row that is meant to run out of time has one second; the others have so much that a loaded
//! machine fails none of them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use webmon::check::{Check, FailureKind};
use webmon::probe::{Prober, Target};
use webmon::runtime::now;
use webmon::site::{SiteDefaults, SiteSpec};

use super::support::{DUE, Do, Server, accept, act, assert_sound, phases_of, play, prober, spec};
use super::{table_bodies, table_heads, table_network, table_tls};

/// Rows under way at once.
const AT_ONCE: usize = 16;
/// What a row may take longer than its timeout: as many rows as cores can wake late.
const LATE: Duration = Duration::from_secs(5);

/// All phases of an answer over plain HTTP.
pub(crate) const WHOLE: &str = "resolve connect processing transfer";
/// The request went out, and nothing came.
pub(crate) const UNANSWERED: &str = "resolve connect processing";
/// All phases of an answer over TLS.
pub(crate) const SECURE: &str = "resolve connect tls processing transfer";
/// The handshake failed.
pub(crate) const IN_TLS: &str = "resolve connect tls";

/// Where a row's check goes, and what lives until its end.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) keep: Vec<Box<dyn Any + Send>>,
}

impl From<String> for Served {
    fn from(url: String) -> Self {
        Self { url, keep: Vec::new() }
    }
}

pub(crate) type Start = Box<dyn FnOnce() -> Served + Send>;

/// One server, and what a check of it must say.
pub(crate) struct Row {
    name: &'static str,
    start: Start,
    settings: Box<dyn Fn(&mut SiteSpec) + Send>,
    prober: Option<Box<dyn FnOnce() -> Prober + Send>>,
    kind: Option<FailureKind>,
    /// `#` stands for digits.
    detail: String,
    status: Option<u16>,
    phases: &'static str,
    redirects: u16,
    /// Bytes and whether there were more; not looked at when absent.
    body: Option<(u32, bool)>,
    expires: Option<i16>,
}

/// A row for what `start` gives, which is `up` with status 200 unless more is said.
pub(crate) fn row(name: &'static str, start: impl FnOnce() -> Served + Send + 'static) -> Row {
    Row {
        name,
        start: Box::new(start),
        settings: Box::new(|_| {}),
        prober: None,
        kind: None,
        detail: String::new(),
        status: Some(200),
        phases: WHOLE,
        redirects: 0,
        body: None,
        expires: None,
    }
}

impl Row {
    /// It is down, and no status was seen.
    pub(crate) fn down(self, kind: FailureKind, detail: &str) -> Self {
        Self { kind: Some(kind), detail: detail.to_owned(), status: None, ..self }
    }

    pub(crate) fn status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    pub(crate) fn phases(self, phases: &'static str) -> Self {
        Self { phases, ..self }
    }

    pub(crate) fn redirects(self, redirects: u16) -> Self {
        Self { redirects, ..self }
    }

    pub(crate) fn body(self, bytes: usize, truncated: bool) -> Self {
        Self { body: Some((u32::try_from(bytes).unwrap(), truncated)), ..self }
    }

    /// The year in which the first of the shown certificates ends.
    pub(crate) fn expires(self, year: i16) -> Self {
        Self { expires: Some(year), ..self }
    }

    pub(crate) fn site(self, settings: impl Fn(&mut SiteSpec) + Send + 'static) -> Self {
        Self { settings: Box::new(settings), ..self }
    }

    /// Checked by a prober of its own.
    pub(crate) fn prober(self, make: impl FnOnce() -> Prober + Send + 'static) -> Self {
        Self { prober: Some(Box::new(make)), ..self }
    }

    fn wanted(&self) -> String {
        let redirects = self.status.map(|_| self.redirects);
        let kind = self.kind.map_or("up", |kind| kind.as_str());
        format!(
            "{kind} '{}', status {:?}, redirects {redirects:?}, phases '{}', certificate {:?}",
            self.detail, self.status, self.phases, self.expires
        )
    }

    /// Checks it; what is wrong, if something is.
    fn run(mut self) -> Result<(), String> {
        let served = (self.start)();
        self.start = Box::new(|| String::new().into());
        let is_timeout = self.kind == Some(FailureKind::Timeout);
        let timeout = if is_timeout { 1 } else { 20 };
        let mut spec = spec(&served.url);
        (self.settings)(&mut spec);
        let site = spec.build(7, SiteDefaults { interval: 60, timeout }).unwrap();
        let target = Target::new(site, "test");
        let own = self.prober.take().map(|make| make());
        let start = now().mono;
        let check = own.as_ref().unwrap_or_else(|| prober()).check(&target, DUE);
        let took = now().mono - start;
        assert_sound(&check, &target, took);
        let (seen, wanted) = (seen(&check), self.wanted());
        if !fits(&wanted, &seen) {
            return Err(format!("seen   {seen}\n  wanted {wanted}"));
        }
        let body = check.body_bytes.zip(check.body_truncated);
        if self.body.is_some() && body != self.body {
            return Err(format!("body {body:?}, not {:?}", self.body));
        }
        let least = if is_timeout { Duration::from_secs(1) } else { Duration::ZERO };
        let most = Duration::from_secs(u64::from(timeout)) + LATE;
        if !(least..most).contains(&took) {
            return Err(format!("took {took:?}, not {least:?} to {most:?}"));
        }
        Ok(())
    }
}

fn seen(check: &Check<'_>) -> String {
    let failure = check.failure.as_ref();
    let expires = check.certificate_expires_at;
    format!(
        "{} '{}', status {:?}, redirects {:?}, phases '{}', certificate {:?}",
        failure.map_or("up", |failure| failure.kind.as_str()),
        failure.map_or("", |failure| &failure.detail),
        check.http_status,
        check.redirects,
        phases_of(check),
        expires.map(|end| end.to_zoned(jiff::tz::TimeZone::UTC).year()),
    )
}

/// Whether `text` is `pattern`, in which `#` stands for one or more digits.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((before, pattern)) = pattern.split_once('#') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(before) else {
        return false;
    };
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < text.len() && fits(pattern, rest)
}

/// A server that reads the request, then does `script`.
pub(crate) fn http(script: Vec<Do>) -> impl FnOnce() -> Served + Send {
    move || Server::script(&script).url().into()
}

/// A server that does `script` without waiting for the request.
pub(crate) fn early(script: Vec<Do>) -> impl FnOnce() -> Served + Send {
    move || {
        let address = accept("127.0.0.1", move |mut stream| {
            if play(&script, &mut stream) {
                // What was not read would make a reset of the end.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                act(&Do::Hang, &mut stream);
            }
        });
        format!("http://{address}/").into()
    }
}

#[test]
fn every_row_ends_as_it_should() {
    let mut rows = table_heads::rows();
    rows.extend(table_bodies::rows());
    rows.extend(table_network::rows());
    rows.extend(table_tls::rows());
    let count = rows.len();
    assert!(count >= 80, "only {count} rows");
    let mut names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two rows of one name: {names:?}");

    let start = now().mono;
    // Made before the rows: it is no row's time.
    prober();
    // Those that wait go first, so that none of them waits alone at the end.
    rows.sort_by_key(|row| row.kind == Some(FailureKind::Timeout));
    let rows = Mutex::new(rows);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(row) = rows.lock().unwrap().pop() else { return };
                    let name = row.name;
                    let result = catch_unwind(AssertUnwindSafe(|| row.run()))
                        .unwrap_or_else(|_| Err("panicked, see above".to_owned()));
                    if let Err(why) = result {
                        wrong.lock().unwrap().push(format!("{name}:\n  {why}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{count} rows in {:?}", now().mono - start);
    assert!(wrong.is_empty(), "{} of {count} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn patterns_of_details() {
    for (pattern, text, is_fit) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("#", "12", true),
        ("#", "", false),
        ("a # b", "a 1 b", true),
        ("a # b", "a x b", false),
        ("#.#", "1.23", true),
        ("#.#", "1.", false),
    ] {
        assert_eq!(fits(pattern, text), is_fit, "{pattern} {text}");
    }
}
