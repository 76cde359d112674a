//! Asking a daemon's own listener.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::runtime::mono;

/// For the whole answer.
const LIMIT: Duration = Duration::from_secs(3);
/// More than any answer of a daemon to /livez and /readyz.
const ANSWER_MAX: usize = 64 << 10;

/// Where a listener on `address` is reached from this machine.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Status and body of a GET; an error when nothing like HTTP answers in time.
pub(super) fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let end = mono() + LIMIT;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    let left = || Some(end.saturating_sub(mono()).max(Duration::from_millis(1)));
    stream.set_write_timeout(left())?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while answer.len() < ANSWER_MAX {
        stream.set_read_timeout(left())?;
        match stream.read(&mut part)? {
            0 => break,
            count => answer.extend_from_slice(&part[..count]),
        }
        if mono() >= end {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let status = || answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status().zip(body).ok_or_else(|| ErrorKind::InvalidData.into())
}
