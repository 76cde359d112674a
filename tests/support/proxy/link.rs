//! One connection through the proxy: two sockets, and a pump for each way.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use webmon::runtime::{Stop, mono};

use super::{Conditions, Count, Random, Shared, Way};

/// Most bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Bytes that may be on the way; more stay in the sender's socket, as with a real network.
const IN_FLIGHT: usize = 1 << 20;
/// How often a write that doesn't go on looks whether the connection is over.
const WRITE_POLL: Duration = Duration::from_millis(100);
/// Between two slices, so that the receiver sees them as such.
const SLICE_PAUSE: Duration = Duration::from_micros(100);
/// With a limited bandwidth what goes out at once is this much time's worth.
const BANDWIDTH_STEP: Duration = Duration::from_millis(20);

pub(super) struct Link {
    client: TcpStream,
    server: TcpStream,
    is_over: AtomicBool,
    has_lost: AtomicBool,
}

impl Link {
    pub(super) fn new(client: TcpStream, server: TcpStream) -> Self {
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("no delay");
            stream.set_write_timeout(Some(WRITE_POLL)).expect("write timeout");
        }
        Self { client, server, is_over: AtomicBool::new(false), has_lost: AtomicBool::new(false) }
    }

    pub(super) fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::SeqCst)
    }

    /// Whether this call ends it; counted when it does.
    fn end(&self, shared: &Shared, count: Count) -> bool {
        let is_first = !self.is_over.swap(true, Ordering::SeqCst);
        if is_first {
            shared.add(count, 1);
        }
        is_first
    }

    pub(super) fn close(&self, shared: &Shared, count: Count) {
        if self.end(shared, count) {
            self.shut(Shutdown::Both);
        }
    }

    pub(super) fn reset(&self, shared: &Shared) {
        if self.end(shared, Count::Reset) {
            reset_at_close(&self.client);
            reset_at_close(&self.server);
            // Wakes the pumps and tells the peers nothing: the close that follows does.
            self.shut(Shutdown::Read);
        }
    }

    fn shut(&self, how: Shutdown) {
        let _ = self.client.shutdown(how);
        let _ = self.server.shutdown(how);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// Has the kernel send a reset instead of an end.
pub(super) fn reset_at_close(stream: &TcpStream) {
    // The peer may be gone already.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Runs both ways until both have ended.
#[allow(clippy::disallowed_methods)] // ends with its connection
pub(super) fn forward(link: &Arc<Link>, shared: &Arc<Shared>) {
    let (to_server, to_client) =
        (Pump::new(link, shared, Way::ToServer), Pump::new(link, shared, Way::ToClient));
    let other = std::thread::spawn(move || to_server.run());
    to_client.run();
    let _ = other.join();
}

/// The connection is over, in whatever way.
struct Over;

struct Pump {
    link: Arc<Link>,
    shared: Arc<Shared>,
    way: Way,
    random: Random,
    /// What is on the way, and when it arrives.
    queue: VecDeque<(Duration, Vec<u8>)>,
    queued: usize,
    arrives: Duration,
    /// When the bandwidth has room again.
    free_at: Duration,
    passed: u64,
    flip_in: Option<u64>,
}

impl Pump {
    fn new(link: &Arc<Link>, shared: &Arc<Shared>, way: Way) -> Self {
        let number = shared.counts[Count::Connections as usize].load(Ordering::SeqCst);
        let seed = shared.seed.load(Ordering::SeqCst);
        Self {
            link: link.clone(),
            shared: shared.clone(),
            way,
            random: Random(seed ^ (number << 1 | way as u64).wrapping_mul(0x9E37_79B9)),
            queue: VecDeque::new(),
            queued: 0,
            arrives: Duration::ZERO,
            free_at: Duration::ZERO,
            passed: 0,
            flip_in: None,
        }
    }

    fn ends(&self) -> (&TcpStream, &TcpStream) {
        match self.way {
            Way::ToServer => (&self.link.client, &self.link.server),
            Way::ToClient => (&self.link.server, &self.link.client),
        }
    }

    fn conditions(&self) -> Conditions {
        self.shared.conditions(self.way)
    }

    fn run(mut self) {
        let link = self.link.clone();
        if self.pump().is_err() && !link.is_over() {
            // One side is gone: the other hears of it.
            link.is_over.store(true, Ordering::SeqCst);
            link.shut(Shutdown::Both);
        }
    }

    fn pump(&mut self) -> Result<(), Over> {
        let mut buffer = vec![0; CHUNK];
        let mut has_ended = false;
        loop {
            while let Some((_, piece)) = self.queue.pop_front_if(|(due, _)| *due <= mono()) {
                self.queued -= piece.len();
                self.write(&piece)?;
            }
            let wait = self.queue.front().map(|(due, _)| due.saturating_sub(mono()));
            match wait {
                None if has_ended => return self.pass_end(),
                Some(wait) if has_ended || self.queued >= IN_FLIGHT => pause(wait),
                wait => has_ended = self.read(&mut buffer, wait)?,
            }
        }
    }

    /// Waits for bytes, `wait` at the most; whether the peer has ended.
    fn read(&mut self, buffer: &mut [u8], wait: Option<Duration>) -> Result<bool, Over> {
        let (mut from, _) = self.ends();
        from.set_read_timeout(wait.map(|wait| wait.max(Duration::from_micros(1))))
            .map_err(|_| Over)?;
        let count = match from.read(buffer) {
            Ok(count) => count,
            Err(error) if is_wait(&error) => return Ok(false),
            Err(_) => return Err(Over),
        };
        if self.link.is_over() {
            return Err(Over);
        }
        let conditions = self.conditions();
        if count == 0 {
            return Ok(true);
        }
        if conditions.reset {
            self.link.reset(&self.shared);
            return Err(Over);
        }
        if conditions.black_hole {
            self.link.has_lost.store(true, Ordering::SeqCst);
            self.shared.add(Count::Swallowed, count as u64);
            return Ok(false);
        }
        let mut delay = conditions.latency;
        if !conditions.jitter.is_zero() {
            let jitter = u64::try_from(conditions.jitter.as_micros()).expect("a short time");
            delay += Duration::from_micros(self.random.below(jitter + 1));
        }
        if !delay.is_zero() {
            self.shared.add(Count::Delayed, count as u64);
        }
        self.arrives = self.arrives.max(mono() + delay);
        self.queue.push_back((self.arrives, buffer[..count].to_vec()));
        self.queued += count;
        Ok(false)
    }

    /// Everything has passed: the end passes too.
    fn pass_end(&self) -> Result<(), Over> {
        if self.conditions().black_hole {
            // It is taken like the bytes; the connection goes when the hole is gone.
            self.link.has_lost.store(true, Ordering::SeqCst);
        } else {
            self.ends().1.shutdown(Shutdown::Write).map_err(|_| Over)?;
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Over> {
        while !bytes.is_empty() {
            let conditions = self.conditions();
            let mut size = bytes.len();
            if let Some(slice) = conditions.slice {
                size = size.min(slice);
            }
            if let Some(bandwidth) = conditions.bandwidth {
                size = size.min(self.wait_for_bandwidth(bandwidth, size));
            }
            if let Some(limit) = conditions.limit {
                let left = limit.saturating_sub(self.passed);
                if left == 0 {
                    self.link.close(&self.shared, Count::Limited);
                    return Err(Over);
                }
                size = size.min(usize::try_from(left).unwrap_or(usize::MAX));
            }
            let (now, later) = bytes.split_at(size);
            let mut piece = now.to_vec();
            self.corrupt(&mut piece, conditions.corrupt_every);
            self.send(&piece)?;
            bytes = later;
            if conditions.slice.is_some() && !bytes.is_empty() {
                self.shared.add(Count::Sliced, 1);
                pause(SLICE_PAUSE);
            }
        }
        Ok(())
    }

    /// How many of `size` bytes may go now.
    fn wait_for_bandwidth(&mut self, bandwidth: u64, size: usize) -> usize {
        let step = u128::from(bandwidth) * BANDWIDTH_STEP.as_millis() / 1000;
        let size = size.min(usize::try_from(step).unwrap_or(usize::MAX).max(1));
        let now = mono();
        if self.free_at > now {
            self.shared.add(Count::Throttled, size as u64);
            pause(self.free_at - now);
        }
        let takes = Duration::from_micros(size as u64 * 1_000_000 / bandwidth.max(1));
        self.free_at = self.free_at.max(now) + takes;
        size
    }

    fn corrupt(&mut self, bytes: &mut [u8], every: Option<u64>) {
        let Some(every) = every else {
            self.flip_in = None;
            return;
        };
        for byte in bytes {
            let left = match self.flip_in {
                Some(left) => left,
                None => self.random.below(2 * every),
            };
            if left > 0 {
                self.flip_in = Some(left - 1);
                continue;
            }
            *byte ^= 1 << self.random.below(8);
            self.flip_in = None;
            self.shared.add(Count::Corrupted, 1);
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Over> {
        while !bytes.is_empty() {
            let (_, mut to) = self.ends();
            match to.write(bytes) {
                Ok(0) => return Err(Over),
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.passed += count as u64;
                    self.shared.add(Count::Forwarded, count as u64);
                }
                Err(error) if is_wait(&error) && !self.link.is_over() => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }
}

fn is_wait(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn pause(time: Duration) {
    let _ = Stop::new().wait(time);
}
