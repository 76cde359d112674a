//! What can still be read in a damaged file: its raw bytes are searched for whole records and
//! marks, without redb.
//!
//! Every record whose own bytes are whole is found, whatever happened to the rest of the file. So
//! are records that were acknowledged and deleted but not yet overwritten; the marks tell the
//! cursor and leave those out. Nothing is invented: each piece carries its CRC.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;

use super::envelope::{FIRST_BYTE, MARK_BYTES, OVERHEAD, Piece, piece};
use super::fault::Fault;
use super::file::SpoolFile;
use super::queue::RECORD_MAX;

/// Bytes of the file in memory at once; the largest record fits.
const WINDOW: usize = 8 << 20;
const _: () = assert!(WINDOW >= RECORD_MAX + OVERHEAD);
/// Bytes of records in one transaction, and one record more at most.
const BATCH_BYTES: usize = 4 << 20;
/// What is skipped around a place that the disk can't read.
const BLOCK: usize = 4096;

/// What is known of the file from before it was damaged; zeros at the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The last sequence number committed.
    pub(super) last: u64,
    /// The last one acknowledged.
    pub(super) cursor: u64,
}

/// What a salvage found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Salvaged {
    /// Records taken over.
    pub(super) records: u64,
    /// Bytes that the disk could not read.
    pub(super) unreadable: u64,
}

/// A damaged file's bytes.
pub(super) trait Source {
    fn len(&self) -> io::Result<u64>;
    /// Some bytes from `offset` on; 0 at the end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
}

impl Source for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, out, offset)
    }
}

/// Part of the file, and how far it was read.
struct Window<'a, S> {
    source: &'a S,
    length: u64,
    bytes: Vec<u8>,
    /// Where in the file the part behind `bytes` begins.
    next: u64,
    unreadable: u64,
}

impl<S: Source> Window<'_, S> {
    /// Forgets the bytes before `at` and reads on; whether something came.
    fn advance(&mut self, at: usize) -> bool {
        self.bytes.drain(..at);
        let before = self.bytes.len();
        while self.bytes.len() < WINDOW && self.next < self.length {
            let wanted = ((WINDOW - self.bytes.len()) as u64).min(self.length - self.next);
            self.fill(usize::try_from(wanted).unwrap_or(WINDOW));
        }
        self.bytes.len() > before
    }

    /// Reads up to `wanted` bytes; a block that can't be read becomes zeros.
    fn fill(&mut self, wanted: usize) {
        let from = self.bytes.len();
        for size in [wanted, wanted.min(BLOCK)] {
            self.bytes.resize(from + size, 0);
            match self.source.read_at(self.next, &mut self.bytes[from..]) {
                // Shorter than it was: the rest isn't there.
                Ok(0) => {
                    self.bytes.truncate(from);
                    self.length = self.next;
                    return;
                }
                Ok(read) => {
                    self.bytes.truncate(from + read);
                    self.next += read as u64;
                    return;
                }
                Err(_) => {}
            }
        }
        let skipped = wanted.min(BLOCK);
        self.bytes[from..].fill(0);
        self.next += skipped as u64;
        self.unreadable += skipped as u64;
    }
}

/// Where the next piece may begin; a `memchr`.
fn find(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let at = rest.skip_until(FIRST_BYTE).ok()?.checked_sub(1)?;
    (bytes[at] == FIRST_BYTE).then_some(at)
}

/// Shows `each` every whole piece with its bytes; how many bytes could not be read.
fn walk<S: Source>(
    source: &S,
    mut each: impl FnMut(Piece, &[u8]) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    let length = source.len().map_err(|error| Fault::io("looking at the damaged file", &error))?;
    let mut window = Window { source, length, bytes: Vec::new(), next: 0, unreadable: 0 };
    let mut at = 0;
    loop {
        let Some(found) = find(&window.bytes[at..]) else {
            if !window.advance(window.bytes.len()) {
                return Ok(window.unreadable);
            }
            at = 0;
            continue;
        };
        at += found;
        let bytes = &window.bytes[at..];
        match piece(bytes) {
            piece @ Piece::Record { bytes: size, .. } => {
                each(piece, &bytes[..size])?;
                at += size;
            }
            piece @ Piece::Mark { .. } => {
                each(piece, &bytes[..MARK_BYTES])?;
                at += MARK_BYTES;
            }
            Piece::Short(_) if window.advance(at) => at = 0,
            // Moved to the window's front, with nothing behind it.
            Piece::Short(_) => at = 1,
            Piece::Nothing => at += 1,
        }
    }
}

/// Envelopes on their way into the new file.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Sequence numbers and where in `bytes` their envelopes end.
    ends: Vec<(u64, usize)>,
}

impl Batch {
    fn put(&mut self, into: &SpoolFile) -> Result<u64, Fault> {
        let mut begin = 0;
        let mut records: Vec<(u64, &[u8])> = Vec::with_capacity(self.ends.len());
        for (sequence, end) in &self.ends {
            records.push((*sequence, &self.bytes[begin..*end]));
            begin = *end;
        }
        records.sort_by_key(|(sequence, _)| *sequence);
        let count = into.restore(&records)?;
        self.bytes.clear();
        self.ends.clear();
        Ok(count)
    }
}

/// Takes the records of `source` that are not acknowledged over into the empty `into`. Sequence
/// numbers stay; new ones will be above all that were given, and above `fresh` when `known` does
/// not say which those are.
pub(super) fn salvage<S: Source>(
    source: &S,
    into: &SpoolFile,
    known: Known,
    fresh: u64,
) -> Result<Salvaged, Fault> {
    let (mut cursor, mut given) = (None::<u64>, fresh);
    walk(source, |piece, _| {
        if let Piece::Mark { cursor: marked, last } = piece {
            cursor = cursor.max(Some(marked));
            given = given.max(last);
        }
        Ok(())
    })?;
    let floor = cursor.unwrap_or(0).max(known.cursor);
    // What is above was never committed, and is in memory still.
    let ceiling = if known.last > 0 { known.last } else { u64::MAX };

    let (mut batch, mut records) = (Batch::default(), 0);
    let (mut lowest, mut highest) = (u64::MAX, 0);
    let unreadable = walk(source, |piece, bytes| {
        let Piece::Record { sequence, .. } = piece else { return Ok(()) };
        if sequence <= floor || sequence > ceiling {
            return Ok(());
        }
        (lowest, highest) = (lowest.min(sequence), highest.max(sequence));
        batch.bytes.extend_from_slice(bytes);
        batch.ends.push((sequence, batch.bytes.len()));
        if batch.bytes.len() >= BATCH_BYTES {
            records += batch.put(into)?;
        }
        Ok(())
    })?;
    records += batch.put(into)?;

    let last = if known.last > 0 { known.last } else { given.max(highest) };
    let cursor = match records {
        0 => last,
        _ => floor.max(lowest.saturating_sub(1)),
    };
    into.set_marks(cursor, last)?;
    Ok(Salvaged { records, unreadable })
}

#[cfg(test)]
mod tests {
    use super::super::envelope::{mark, wrap};
    use super::*;

    /// A disk with places that can't be read, which gives `most` bytes at once.
    struct Disk {
        bytes: Vec<u8>,
        bad: std::ops::Range<u64>,
        most: usize,
    }

    impl Source for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
            let begin = offset as usize;
            let end = self.bytes.len().min(begin + out.len().min(self.most));
            if offset < self.bad.end && self.bad.start < end as u64 {
                return Err(io::Error::from_raw_os_error(5));
            }
            out[..end - begin].copy_from_slice(&self.bytes[begin..end]);
            Ok(end - begin)
        }
    }

    /// The sequence numbers found, and how much was unreadable.
    fn found(disk: &Disk) -> (Vec<u64>, u64) {
        let mut found = Vec::new();
        let unreadable = walk(disk, |piece, bytes| {
            match piece {
                Piece::Record { sequence, .. } => {
                    assert_eq!(super::super::envelope::unwrap(sequence, bytes), Some(&bytes[28..]));
                    found.push(sequence);
                }
                _ => assert_eq!(piece, Piece::Mark { cursor: 3, last: 4 }),
            }
            Ok(())
        });
        (found, unreadable.unwrap())
    }

    fn disk(sizes: impl IntoIterator<Item = usize>) -> Disk {
        let (mut bytes, mut envelope) = (vec![FIRST_BYTE; 5000], Vec::new());
        for (sequence, size) in (1..).zip(sizes) {
            wrap(&mut envelope, sequence, 9, &vec![FIRST_BYTE; size]);
            bytes.extend_from_slice(&envelope);
            // Beginnings that lead nowhere.
            bytes.extend_from_slice(b"\xff\xffw\xffws");
            bytes.extend_from_slice(&envelope[..size.min(40)]);
            bytes.extend_from_slice(&mark(3, 4));
        }
        Disk { bytes, bad: 0..0, most: usize::MAX }
    }

    #[test]
    fn records_are_found_across_windows() {
        // More than one window in all, and the largest that there can be.
        let sizes = [0, 1, 5000, RECORD_MAX, 7, RECORD_MAX - 1, RECORD_MAX, RECORD_MAX];
        let mut disk = disk(sizes);
        assert!(disk.bytes.len() > WINDOW + WINDOW / 2);
        let all: Vec<u64> = (1..=8).collect();
        assert_eq!(found(&disk), (all.clone(), 0));
        disk.most = 1_000_003;
        assert_eq!(found(&disk), (all, 0));
    }

    #[test]
    fn what_the_disk_cannot_read_costs_what_stood_there() {
        let mut disk = disk([300; 200]);
        disk.bad = 20_000..20_001;
        let (found, unreadable) = found(&disk);
        assert_eq!(unreadable, BLOCK as u64);
        assert!(found.is_sorted() && found.first() == Some(&1) && found.last() == Some(&200));
        // About 400 bytes each.
        assert!((185..=190).contains(&found.len()), "{} found", found.len());
    }

    #[test]
    fn an_unreadable_disk_ends() {
        let disk = Disk { bytes: vec![0; 100_000], bad: 0..100_000, most: usize::MAX };
        assert_eq!(found(&disk), (vec![], 100_000));
    }
}
