//! The web server that is watched: it remembers every request, and each answer carries a token of
//! its own, so that each row can be traced to the one request behind it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use webmon::runtime::{Stop, now};

use crate::history::{Page, Request};

/// What each site looks for: the token of the answer.
pub(crate) const PATTERN: &str = "token ([a-z0-9-]+)";

/// Lives until the test's process ends.
pub(crate) struct Witness {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    count: AtomicU64,
}

/// The kind of page that site `n` is.
pub(crate) fn page_of(n: usize) -> Page {
    match n % 10 {
        3 => Page::Broken,
        5 => Page::Slow,
        7 => Page::Moved,
        _ => Page::Plain,
    }
}

impl Witness {
    #[allow(clippy::disallowed_methods)] // a test's server ends with the test's process
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Seen::default());
        let theirs = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = theirs.clone();
                std::thread::spawn(move || seen.answer(stream));
            }
        });
        Self { address, seen }
    }

    /// The URL of site `n`.
    pub(crate) fn url(&self, n: usize) -> String {
        format!("http://{}/{n}", self.address)
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().expect("requests").clone()
    }

    /// How many requests came so far; a redirect and what follows it are one.
    pub(crate) fn count(&self) -> usize {
        self.seen.requests.lock().expect("requests").len()
    }
}

/// What a request's head says: the site, the token in its query, and who asks.
fn read_head(stream: &TcpStream) -> Option<(usize, Option<String>, String)> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let first = lines.next()?;
    let target = first.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let site = path.trim_start_matches('/').parse().ok()?;
    let mut life = String::new();
    for line in lines {
        if line.is_empty() {
            return Some((site, query.map(str::to_owned), life));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("user-agent")
        {
            life = value.trim().to_owned();
        }
    }
    None
}

impl Seen {
    fn answer(&self, mut stream: TcpStream) {
        let Some((site, followed, life)) = read_head(&stream) else { return };
        let arrived_ms = now().wall.as_millisecond();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let page = page_of(site);
        // A redirect's second request goes on with the first one's record.
        let token = followed.clone().unwrap_or_else(|| format!("{site}-{number}"));
        let padding = usize::try_from(number % 97).unwrap_or(0);
        let body = format!("<p>token {token}</p>{}", ".".repeat(padding));
        let delay_ms = if page == Page::Slow { 100 + number % 7 * 100 } else { 0 };
        let (head, body, is_whole) = match page {
            Page::Moved if followed.is_none() => {
                (format!("302 Found\r\nLocation: /{site}?{token}"), String::new(), false)
            }
            Page::Broken => ("503 Broken".to_owned(), body, true),
            _ => ("200 OK".to_owned(), body, true),
        };
        let place = {
            let mut requests = self.requests.lock().expect("requests");
            let known = followed.is_some().then(|| requests.iter().rposition(|r| r.token == token));
            let place = known.flatten().unwrap_or(requests.len());
            if place == requests.len() {
                let bytes = body.len();
                let request =
                    Request { site, life, token, arrived_ms, answered_ms: None, delay_ms, bytes };
                requests.push(request);
            } else {
                requests[place].bytes = body.len();
            }
            place
        };
        let _ = Stop::new().wait(Duration::from_millis(delay_ms));
        let answer = format!(
            "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).is_ok() && is_whole {
            let answered_ms = Some(now().wall.as_millisecond());
            self.requests.lock().expect("requests")[place].answered_ms = answered_ms;
        }
    }
}
