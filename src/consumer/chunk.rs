//! The messages of one transaction, out of what a fetch brought.

use super::ingest::Message;
use crate::kafka::Unread;

/// Bytes after which a transaction takes no further message: 5,000 usual ones have 2 MB. With the
/// largest record on top, and the copies on their way to the database, it bounds what a worker
/// holds.
const BYTES: usize = 3 << 20;

/// Messages one behind the other in one buffer, which is used again and again.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    partition: i32,
    offset: i64,
    /// Where its bytes end; they begin where those before it end.
    end: usize,
    fault: Option<String>,
}

impl Chunk {
    /// Takes up to `most` messages of `unread`, which goes on where it ended. What was there
    /// before goes. Whether there may be more.
    pub(super) fn fill(&mut self, unread: &mut [Unread], most: usize) -> bool {
        self.bytes.clear();
        self.places.clear();
        for part in unread {
            let partition = part.partition();
            while self.places.len() < most && self.bytes.len() < BYTES {
                let Some(record) = part.next_record() else { break };
                self.bytes.extend_from_slice(record.value);
                self.places.push(Place {
                    partition,
                    offset: record.offset,
                    end: self.bytes.len(),
                    fault: record.fault,
                });
            }
            part.note_lag();
        }
        self.places.len() >= most || self.bytes.len() >= BYTES
    }

    pub(super) fn messages<'a>(&'a self) -> Vec<Message<'a>> {
        let mut start = 0;
        let message = |place: &'a Place| {
            let payload = self.bytes.get(start..place.end).unwrap_or_default();
            start = place.end;
            let (partition, offset, fault) =
                (place.partition, place.offset, place.fault.as_deref());
            Message { partition, offset, payload, fault }
        };
        self.places.iter().map(message).collect()
    }
}
