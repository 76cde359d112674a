//! A TCP socket with one absolute deadline.
//!
//! Non-blocking, with `poll` up to the deadline: `SO_RCVTIMEO` was late by 0.2 s at 10 s and by
//! 1.7 s at 30 s, `poll` by 9 to 29 ms.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, connect,
    recv, send, sendmsg, socket_with, sockopt,
};

use crate::runtime::now;

/// A connected socket. Every call ends by the deadline, with `TimedOut`.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    deadline: Duration,
    /// The last read filled its buffer: there is probably more, so the next one doesn't poll
    /// first.
    has_more: bool,
}

/// What is left until `deadline`.
fn left(deadline: Duration) -> io::Result<Duration> {
    match deadline.saturating_sub(now().mono) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Whether the error is this machine's own trouble and says nothing about the other side.
pub(super) fn is_own_trouble(error: &io::Error) -> bool {
    let own = [Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| own.contains(&errno))
}

impl Socket {
    /// Connects to `address` by `deadline`, on the monotonic clock.
    pub(super) fn connect(address: &SocketAddr, deadline: Duration) -> io::Result<Self> {
        left(deadline)?;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, None)?;
        let socket = Self { fd, deadline, has_more: false };
        match connect(&socket.fd, address) {
            Ok(()) => {}
            // Interrupted or not, the kernel goes on connecting: wait for how it ends.
            Err(Errno::INPROGRESS | Errno::INTR) => {
                socket.wait(PollFlags::OUT)?;
                sockopt::socket_error(&socket.fd)??;
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(socket)
    }

    /// The deadline from here on.
    pub(super) fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Sends small pieces at once: a body that follows its head would otherwise wait for the
    /// head's acknowledgement, which the other side may delay by 40 ms.
    pub(super) fn send_at_once(&self) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(&self.fd, true)?)
    }

    /// Whether the connection stands and nothing has come that was not read.
    pub(super) fn is_idle(&self) -> bool {
        matches!(recv(&self.fd, &mut [0; 1], RecvFlags::PEEK), Err(Errno::AGAIN))
    }

    fn wait(&self, events: PollFlags) -> io::Result<()> {
        loop {
            let left = Timespec::try_from(left(self.deadline)?).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.fd, events)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Reads what is there, waiting for the first byte; 0 is the end.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_more {
            // The deadline holds also for a peer that never lets us wait.
            left(self.deadline)?;
        } else {
            self.wait(PollFlags::IN)?;
        }
        loop {
            match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((read, _)) => {
                    self.has_more = read == buffer.len();
                    return Ok(read);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends all of `bytes`.
    pub(super) fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(&self.fd, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// For rustls, which hands over all the records of a flight: they go out in one call.
impl io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [part] = parts {
            return self.write(part);
        }
        loop {
            let mut control = SendAncillaryBuffer::default();
            match sendmsg(&self.fd, parts, &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
