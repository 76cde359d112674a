//! Standard output as a sink.
//!
//! Alone, it is what the consumer is for: it is written to before offsets are committed, and a
//! reader that stands still holds the consumer. Beside the database it is only looked at: a thread
//! of its own writes it, and what finds no room in the queue before it is dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::ingest::Message;
use crate::runtime::Threads;
use crate::telemetry::metrics;

/// Batches that wait for the reader.
const WAITING_MAX: usize = 2;

/// The way to the thread that writes. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub(super) struct Onlooker {
    batches: Sender<Vec<u8>>,
    /// Lines dropped since the last batch that found room.
    dropped: Arc<AtomicU64>,
}

impl Onlooker {
    pub(super) fn start(threads: &mut Threads) -> std::io::Result<Self> {
        let (batches, waiting) = bounded(WAITING_MAX);
        threads.spawn("console", move || write_all(&waiting))?;
        Ok(Self { batches, dropped: Arc::default() })
    }

    /// Shows `messages`, or drops them: never waits.
    pub(super) fn show(&self, messages: &[Message<'_>]) {
        let sent = if self.batches.is_full() {
            Err(TrySendError::Full(Vec::new()))
        } else {
            self.batches.try_send(lines(messages))
        };
        match sent {
            Ok(()) => {
                let lines = self.dropped.swap(0, Ordering::Relaxed);
                if lines > 0 {
                    log::info!(lines; "console goes on, lines were dropped");
                }
            }
            Err(TrySendError::Full(_)) => {
                let count = messages.len() as u64;
                metrics().console_dropped.inc_by(count);
                if self.dropped.fetch_add(count, Ordering::Relaxed) == 0 {
                    log::warn!("nobody reads the console fast enough, lines are dropped");
                }
            }
            // The thread has said why it gave up.
            Err(TrySendError::Disconnected(_)) => {
                metrics().console_dropped.inc_by(messages.len() as u64);
            }
        }
    }
}

fn write_all(batches: &Receiver<Vec<u8>>) {
    for batch in batches {
        if let Err(error) = write(&batch) {
            // The database has them; whoever looked on has gone.
            log::warn!(cause:% = error; "console sink given up");
            return;
        }
    }
}

/// Prints `messages` now, one a line.
pub(super) fn print(messages: &[Message<'_>]) -> std::io::Result<()> {
    write(&lines(messages))
}

fn write(lines: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(lines)?;
    out.flush()
}

/// One message a line, as it is.
fn lines(messages: &[Message<'_>]) -> Vec<u8> {
    let mut lines = Vec::new();
    for message in messages {
        let line = String::from_utf8_lossy(message.payload);
        lines.extend_from_slice(line.replace(char::is_control, " ").as_bytes());
        lines.push(b'\n');
    }
    lines
}
