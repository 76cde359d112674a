//! Is there a broker that answers? Asked before the client library is let near it.
//!
//! The library's connect, TLS handshake and SASL exchange have no bound: on a machine that is
//! off, a frozen broker or a port that accepts and stays silent, its thread would hang for
//! minutes or for ever. So a connection of our own goes first, every step of it under one
//! deadline, up to an answer to ApiVersions, which a broker gives before any authentication.
//! It also tells causes that the library hides. What remains unbounded is a broker that freezes
//! between this and the library's connect; `BoundedCall` is there for that.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::errors::from_io;
use super::{KafkaError, KafkaOptions};
use crate::runtime;

/// ApiVersions (key 18) version 0, correlation id 1, no client id: the oldest request that each
/// broker understands.
const ASK: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// Connects to `server` and waits for a broker's first answer, for at most `limit` after its
/// name was resolved.
pub(super) fn check(
    options: &KafkaOptions,
    server: &str,
    limit: Duration,
) -> Result<(), KafkaError> {
    let tls = options.tls.as_ref().map(super::TlsFiles::client_config).transpose()?;
    let io = |operation| move |error: io::Error| from_io(server, operation, &error);
    let addresses: Vec<_> = server.to_socket_addrs().map_err(io("resolve"))?.collect();
    let end = runtime::now().mono.saturating_add(limit);
    let mut last = KafkaError::Unreachable {
        server: server.to_owned(),
        cause: "the name has no address".to_owned(),
    };
    for (left, address) in (1..=addresses.len()).rev().zip(&addresses) {
        // Each address gets its share of the time that is left.
        let share = remaining(end).map_err(io("connect"))? / u32::try_from(left).unwrap_or(1);
        let socket = match TcpStream::connect_timeout(address, share.max(MIN_WAIT)) {
            Ok(socket) => Bounded { socket, end },
            Err(error) => {
                last = from_io(server, "connect", &error);
                continue;
            }
        };
        let Some(tls) = tls else { return ask(socket).map_err(io("the first request")) };
        let name = host_of(server);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| KafkaError::Configuration(format!("{name}: not a host name for TLS")))?;
        let connection = ClientConnection::new(Arc::new(tls), name)
            .map_err(|error| KafkaError::Configuration(error.to_string()))?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.conn.complete_io(&mut stream.sock).map_err(io("the TLS handshake"))?;
        // With TLS 1.3 a refusal of our certificate comes with the first read.
        return ask(stream).map_err(io("the first request"));
    }
    Err(last)
}

/// `connect_timeout` takes no zero.
const MIN_WAIT: Duration = Duration::from_millis(1);

fn ask(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(&ASK)?;
    stream.flush()?;
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    // Length, then our correlation id.
    if head[4..] == ASK[8..12] {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidData, "the answer is not a Kafka broker's"))
}

/// `host` of `host:port`, without the brackets of an IPv6 address.
fn host_of(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn remaining(end: Duration) -> io::Result<Duration> {
    let left = end.saturating_sub(runtime::now().mono);
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A socket whose every read and write ends at one deadline, however slowly bytes drip.
struct Bounded {
    socket: TcpStream,
    end: Duration,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(remaining(self.end)?))?;
        self.socket.read(buffer)
    }
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(remaining(self.end)?))?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn check_plain(server: &str, limit: Duration) -> Result<(), KafkaError> {
        let options = KafkaOptions {
            servers: Vec::new(),
            client_id: "t".to_owned(),
            tls: None,
            sasl: None,
            compression: super::super::Compression::None,
        };
        check(&options, server, limit)
    }

    #[test]
    fn a_silent_port_ends_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let before = runtime::now().mono;
        let error = check_plain(&server, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), format!("{server}: no answer to the first request in time"));
        assert!(runtime::now().mono - before < Duration::from_secs(5));
    }

    #[test]
    fn a_closed_port_is_said_to_be() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = check_plain(&server, Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        assert!(!error.is_permanent());
    }

    #[test]
    fn a_host_is_what_stands_before_the_port() {
        assert_eq!(host_of("[::1]:9092"), "::1");
        assert_eq!(host_of("broker.example.org:9092"), "broker.example.org");
    }
}
