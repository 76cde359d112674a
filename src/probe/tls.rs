//! One TLS connection over a [`Socket`].

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::socket::Socket;

/// Makes the process's first use of TLS now: it costs 25 ms, which would count as some site's.
pub(super) fn warm_up(config: &Arc<ClientConfig>) -> Result<(), String> {
    let name = ServerName::try_from("warm-up.invalid").map_err(|error| error.to_string())?;
    let mut connection =
        ClientConnection::new(config.clone(), name).map_err(|error| error.to_string())?;
    while connection.wants_write() {
        connection.write_tls(&mut io::sink()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Why a TLS connection doesn't go on.
#[derive(Debug)]
pub(super) enum TlsError {
    /// The protocol or the certificate.
    Tls(rustls::Error),
    /// The socket.
    Socket(io::Error),
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

/// One TLS connection. What was read from the socket and not yet taken lies in `records`, which
/// the caller keeps, at `start..end`.
pub(super) struct Tls {
    connection: Box<ClientConnection>,
    start: usize,
    end: usize,
    /// What broke the connection. What was decrypted before is read first: whether both came in
    /// one packet must not decide about a check.
    broken: Option<rustls::Error>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Shakes hands. Our last message of the handshake stays unsent, to go out with the request.
    pub(super) fn handshake(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        socket: &mut Socket,
        records: &mut [u8],
    ) -> Result<Self, TlsError> {
        let connection = ClientConnection::new(config, name).map_err(TlsError::Tls)?;
        let mut tls = Self { connection: Box::new(connection), start: 0, end: 0, broken: None };
        while tls.connection.is_handshaking() {
            tls.flush(socket)?;
            let taken = tls.fill(socket, records)?;
            if tls.connection.is_handshaking()
                && let Some(error) = tls.broken
            {
                return Err(TlsError::Tls(error));
            }
            if taken == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(tls)
    }

    fn flush(&mut self, socket: &mut Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(socket)?;
        }
        Ok(())
    }

    /// Takes records in, from the socket if none are left; 0 is the end.
    fn fill(&mut self, socket: &mut Socket, records: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, socket.receive(records)?);
        }
        let mut unread = &records[self.start..self.end];
        let taken = self.connection.read_tls(&mut unread)?;
        self.start += taken;
        if let Err(error) = self.connection.process_new_packets() {
            // Tells the other side why, if that is still possible.
            let _ = self.flush(socket);
            self.broken = Some(error);
        }
        Ok(taken)
    }

    /// Whether nothing came that was not taken, and the other side has not said farewell.
    pub(super) fn is_idle(&mut self) -> bool {
        self.start == self.end
            && self
                .connection
                .process_new_packets()
                .is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
    }

    /// Encrypts and sends all of `bytes`.
    pub(super) fn send_all(&mut self, socket: &mut Socket, bytes: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(bytes)?;
        self.flush(socket)
    }

    /// Reads what is there, waiting for the first byte; 0 is the end, with or without a farewell.
    pub(super) fn receive(
        &mut self,
        socket: &mut Socket,
        records: &mut [u8],
        buffer: &mut [u8],
    ) -> Result<usize, TlsError> {
        let mut read = 0;
        loop {
            match self.connection.reader().read(&mut buffer[read..]) {
                Ok(0) => return Ok(read),
                Ok(more) => {
                    read += more;
                    if read == buffer.len() {
                        return Ok(read);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Everything that is here already comes along, nothing is waited for.
                    if read > 0 && (self.start == self.end || self.broken.is_some()) {
                        return Ok(read);
                    }
                    if let Some(error) = &self.broken {
                        return Err(TlsError::Tls(error.clone()));
                    }
                    self.fill(socket, records)?;
                }
                // An end without farewell. Whether the answer was whole is seen by its framing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(read),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
