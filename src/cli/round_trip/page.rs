//! A page to check where no other is given: an answer of this process's own on 127.0.0.1.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::runtime::{Stop, Threads};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nConnection: close\r\n\r\nwebmon\n";
/// For one request. Whoever else connects here delays no check for longer.
const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// The largest head of a request that is read.
const HEAD_MAX: usize = 8 << 10;
/// Time for the thread's end: it is woken by a connection.
const CLOSING: Duration = Duration::from_secs(2);

/// The listener; closes with this value.
pub(super) struct Page {
    address: SocketAddr,
    stop: Stop,
    threads: Option<Threads>,
}

impl Page {
    /// Listens on a port that the kernel picks.
    pub(super) fn open() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let stop = Stop::new();
        let mut threads = Threads::new(stop.clone());
        let their_stop = stop.clone();
        threads.spawn("page", move || {
            for stream in listener.incoming() {
                if their_stop.is_requested() {
                    return;
                }
                // A client that goes away early has no answer to miss.
                let _ = stream.and_then(answer);
            }
        })?;
        Ok(Self { address, stop, threads: Some(threads) })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop.request();
        let _ = TcpStream::connect_timeout(&self.address, REQUEST_LIMIT);
        if let Some(threads) = self.threads.take() {
            let _ = threads.join(CLOSING);
        }
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&part[..count]),
        }
    }
    stream.write_all(ANSWER)
}
