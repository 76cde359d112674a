//! What clients send to the API: the server always answers or ends the connection, never panics,
//! and reads no more requests out of the bytes when they come in pieces than when they come at
//! once.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use webmon::api::{AccessOptions, Limits, Request, Response, Role, Service, Token};
use webmon::api::{hash_token, serve};
use webmon::runtime::{Stop, Threads};

use super::runner::Target;

const WORDS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /websites HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "HTTP/1.0",
    "HTTP/2.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: localhost\r\n",
    "Host: evil.example\r\n",
    "Host: [::1]:80\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Authorization: Bearer webmon_00\r\n",
    "Origin: http://localhost\r\n",
    "http://a@b:c/",
    "%00",
    "%zz",
    "?a=b&c",
    "ffffffffffffffff\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    " folded",
];
/// Longest wait for the server's end of a connection.
const CAP: Duration = Duration::from_secs(20);

/// Notes what it is asked.
#[derive(Default)]
struct Notes(Mutex<Vec<(String, String, Vec<u8>)>>);

impl Service for Notes {
    fn respond(&self, request: &Request) -> Response {
        let note = (request.method.as_str().to_owned(), request.path.clone(), request.body.clone());
        self.0.lock().unwrap().push(note);
        Response::new(200, "text/plain", "fine")
    }
}

#[test]
fn request() {
    let (stop, notes) = (Stop::new(), Arc::new(Notes::default()));
    let mut threads = Threads::new(stop.clone());
    let service: Arc<dyn Service> = notes.clone();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let limits = Limits { threads: 1, ..Limits::default() };
    let token = |name: &str, text| Token { name: name.into(), role: Role::Read, sha256: text };
    let access = AccessOptions {
        tokens: vec![token("known", hash_token("webmon_00"))],
        ..AccessOptions::default()
    };
    let addr = serve(any, limits, access, &service, &mut threads, &stop).unwrap();
    Target { name: "request", words: WORDS, cases: 5000 }.run(|input| {
        let seen = |pieces: &[&[u8]]| {
            check(&answers(addr, pieces));
            std::mem::take(&mut *notes.0.lock().unwrap())
        };
        let whole = seen(&[input]);
        let (front, back) = input.split_at(input.len() / 2);
        let (first, second) = front.split_at(front.len() / 2);
        assert_eq!(seen(&[first, second, back]), whole);
    });
    stop.request();
    assert!(threads.join(CAP).is_empty());
}

/// All that comes back before the server ends the connection.
fn answers(addr: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(CAP)).unwrap();
    for piece in pieces {
        // It may have refused already.
        let _ = stream.write_all(piece);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let (mut answers, mut piece) = (Vec::new(), [0; 8192]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return answers,
            Ok(count) => answers.extend_from_slice(&piece[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "no end: {error}");
                return answers;
            }
        }
    }
}

/// That all of it is answers, none of them ours to blame.
fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
    assert!(!text.contains("HTTP/1.1 500"), "{text}");
}
