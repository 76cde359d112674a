//! A server with a service of the tests' own, and clients.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::{Value, json};
use webmon::api::{AccessOptions, Limits, Request, Response, Service, serve};
use webmon::runtime::{Stop, Threads, mono};

/// Longest wait for anything: only a real fault takes it.
pub(crate) const CAP: Duration = Duration::from_secs(30);
/// The body of `/big`: more than socket buffers hold.
pub(crate) const BIG: usize = 24 << 20;

/// What answers.
#[derive(Default)]
pub(crate) struct Echo {
    /// Ends the wait of `/hang`.
    pub(crate) release: Stop,
    /// Requests that reached it.
    pub(crate) seen: AtomicUsize,
}

impl Service for Echo {
    fn is_quick(&self, request: &Request) -> bool {
        request.path == "/quick"
    }

    fn respond(&self, request: &Request) -> Response {
        self.seen.fetch_add(1, Ordering::SeqCst);
        match request.path.as_str() {
            "/big" => return Response::new(200, "text/plain", vec![b'x'; BIG]),
            "/panic" => panic!("on purpose"),
            "/hang" => self.release.wait_forever(),
            "/empty" => return Response::empty(204),
            "/page" => {
                return Response::new(200, "text/html", "<p>")
                    .with("Content-Security-Policy", "default-src 'self'")
                    .with("Cache-Control", "max-age=60");
            }
            _ => {}
        }
        Response::json(
            200,
            &json!({
                "method": request.method.as_str(),
                "path": request.path,
                "query": request.query,
                "body": String::from_utf8_lossy(&request.body),
                "caller": request.caller.name,
                "role": request.caller.role.map(|role| role.as_str()),
                "address": request.caller.address.to_string(),
            }),
        )
    }
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) stop: Stop,
    pub(crate) echo: Arc<Echo>,
    pub(crate) threads: Option<Threads>,
}

pub(crate) fn start(limits: Limits, access: AccessOptions) -> Server {
    let stop = Stop::new();
    let mut threads = Threads::new(stop.clone());
    let echo = Arc::new(Echo::default());
    let service: Arc<dyn Service> = echo.clone();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let addr = serve(any, limits, access, &service, &mut threads, &stop).unwrap();
    Server { addr, stop, echo, threads: Some(threads) }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.echo.release.request();
        self.stop.request();
        let late = self.threads.take().map(|threads| threads.join(CAP));
        assert!(late.is_none_or(|late| late.is_empty()) || std::thread::panicking());
    }
}

impl Server {
    pub(crate) fn connect(&self) -> Client {
        self.connect_from(1)
    }

    /// From 127.0.0.`last`.
    pub(crate) fn connect_from(&self, last: u8) -> Client {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        bind(&fd, &own).unwrap();
        connect(&fd, &self.addr).unwrap();
        Client::of(TcpStream::from(fd))
    }

    /// The answer to one request, sent as it is.
    pub(crate) fn ask(&self, request: &[u8]) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(get(path).as_bytes())
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// What came behind the last answer.
    rest: Vec<u8>,
}

impl Client {
    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(CAP)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, rest: Vec::new() }
    }

    pub(crate) fn to(addr: &str) -> Self {
        Self::of(TcpStream::connect(addr).unwrap())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The server may have closed in the middle of it.
        let _ = self.stream.write_all(bytes);
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.rest.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}; {:?}", String::from_utf8_lossy(&self.rest)),
        }
    }

    /// The head up to its empty line.
    pub(crate) fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.windows(4).position(|part| part == b"\r\n\r\n") {
                let head = self.rest.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let cut = String::from_utf8_lossy(&self.rest).into_owned();
            assert!(self.fill(), "cut: {cut:?}");
        }
    }

    /// The next answer with its body.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = Answer { head: self.head(), body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        while self.rest.len() < length {
            assert!(self.fill(), "cut: {} of {length} bytes", self.rest.len());
        }
        answer.body = self.rest.drain(..length).collect();
        answer
    }

    /// Reads an answer with so long a body; whether the server ended the connection before its end.
    pub(crate) fn ended_within(&mut self, length: usize) -> bool {
        self.head();
        while self.rest.len() < length {
            if !self.fill() {
                return true;
            }
        }
        false
    }

    /// Waits for the server's end of the connection; the bytes before it.
    pub(crate) fn ended(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.rest)
    }
}

/// Sends each client's bytes now and then until the server ends its connection; what it said, and
/// how long it took.
pub(crate) fn drip(clients: &mut [(Client, &[u8])]) -> Vec<(Vec<u8>, Duration)> {
    let begin = mono();
    let mut said: Vec<_> = clients.iter().map(|_| (Vec::new(), None)).collect();
    for (client, _) in clients.iter() {
        client.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    }
    let mut piece = [0; 4096];
    while said.iter().any(|(_, ended)| ended.is_none()) {
        assert!(mono() - begin < CAP, "never ended");
        for ((client, bytes), (said, ended)) in clients.iter_mut().zip(&mut said) {
            match client.stream.read(&mut piece) {
                _ if ended.is_some() => {}
                Ok(count) if count > 0 => said.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    client.send(bytes);
                }
                _ => *ended = Some(mono() - begin),
            }
        }
    }
    said.into_iter().map(|(said, ended)| (said, ended.unwrap())).collect()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Of all the bytes of a connection.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no answer: {:?}", String::from_utf8_lossy(bytes));
        });
        let head = String::from_utf8(bytes[..end + 4].to_vec()).unwrap();
        Self { head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn status(&self) -> u16 {
        let mut words = self.head.split(' ');
        assert_eq!(words.next(), Some("HTTP/1.1"), "{}", self.head);
        words.next().unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// That it is the server's own problem of that status, behind which the connection ends.
    pub(crate) fn is_problem(&self, status: u16) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("connection"), Some("close"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["title"].as_str().is_some_and(|title| title != "Unknown"), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
}

/// An address of this machine.
pub(crate) fn home(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}
