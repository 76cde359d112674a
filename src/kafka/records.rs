//! Record batches as they come out of a fetch, read one record after the other.
//!
//! Invariants:
//! - What is held is the fetch's answer, as it came, and one record; how large a batch becomes
//!   when it is unpacked, and how many records it says it has, costs no memory.
//! - Nothing is passed over: what can't be read is given as a fault with the batch as its value,
//!   for the caller to put aside, instead of standing before it for ever.

use std::io::{self, BufRead, Error, ErrorKind, Read};

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;

use super::decompress::{Unpacked, unpack};
use super::frames::{HEADER, end_of, first_offset, split_batch};

/// Largest record that is read: twice what a broker takes as a batch unless it is told otherwise.
/// A check has at most some 60 KiB.
pub const RECORD_MAX: usize = 2 << 20;

/// Enough of a record for its attributes, time and offset, which stand first.
const RECORD_HEAD: usize = 1 + 10 + 5;

/// A record while it is the last one read.
#[derive(Debug, PartialEq)]
pub(super) struct Found<'a> {
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Why the value is a whole batch and not a record's.
    pub(super) fault: Option<String>,
}

/// The bytes of one partition, and how far they are read.
pub(super) struct Reader {
    bytes: Bytes,
    next_offset: i64,
    /// Where the partition's records end.
    high_watermark: i64,
    batch: Option<Batch>,
    /// The record that was read last, without its length.
    record: Vec<u8>,
}

/// The batch that is being read.
struct Batch {
    whole: Bytes,
    records: Unpacked,
    left: i32,
    base: i64,
    base_ms: i64,
    /// Where to go on after it.
    end: i64,
}

/// A record's place and its parts in the buffer.
struct Parts {
    offset: i64,
    timestamp_ms: i64,
    key: Option<std::ops::Range<usize>>,
    value: Option<std::ops::Range<usize>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("bytes", &self.bytes.len())
            .field("next_offset", &self.next_offset)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads whole batches. The broker cuts the last one at the byte limit it was given: that one
    /// is fetched again. Records before `wanted` are skipped: a fetch begins at a batch's
    /// beginning. Behind a batch that can't be read nothing is skipped beyond `high_watermark`.
    pub(super) fn new(bytes: Bytes, wanted: i64, high_watermark: i64) -> Self {
        Self { bytes, next_offset: wanted, high_watermark, batch: None, record: Vec::new() }
    }

    /// Where to go on after the last record that was read.
    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The next record, or a fault in its place.
    pub(super) fn next(&mut self) -> Option<Found<'_>> {
        loop {
            if self.batch.is_none() {
                let whole = split_batch(&mut self.bytes)?;
                match open(whole.clone()) {
                    Ok(batch) => self.batch = Some(batch),
                    Err(cause) => {
                        let offset = self.pass_over(&whole);
                        return Some(self.fault(&whole, offset, cause));
                    }
                }
            }
            let Some(batch) = &mut self.batch else { continue };
            if batch.left == 0 {
                self.next_offset = self.next_offset.max(batch.end);
                self.batch = None;
                continue;
            }
            batch.left -= 1;
            match read_record(batch, &mut self.record) {
                Ok(Ok(parts)) if parts.offset < self.next_offset => {}
                Ok(Ok(parts)) => {
                    self.next_offset = parts.offset + 1;
                    let part = |range| self.record.get::<std::ops::Range<usize>>(range);
                    return Some(Found {
                        offset: parts.offset,
                        timestamp_ms: parts.timestamp_ms,
                        key: parts.key.and_then(part),
                        value: parts.value.and_then(part),
                        fault: None,
                    });
                }
                Ok(Err(TooLarge { offset, .. })) if offset < self.next_offset => {}
                Ok(Err(TooLarge { offset, length })) => {
                    let whole = batch.whole.clone();
                    self.next_offset = offset + 1;
                    let cause = format!("a record of {length} bytes; at most {RECORD_MAX}");
                    return Some(self.fault(&whole, offset, cause));
                }
                Err(error) => {
                    let (whole, end) = (batch.whole.clone(), batch.end);
                    // Where it says more than its offsets have room for, not the next one's place.
                    let offset = self.next_offset.min(end - 1);
                    self.next_offset = self.next_offset.max(end);
                    self.batch = None;
                    return Some(self.fault(&whole, offset, error.to_string()));
                }
            }
        }
    }

    /// Goes on behind a batch that can't be read, whose own numbers may be wrong: where the next one
    /// begins, else where it says that it ends if the partition has so many. Its own place.
    fn pass_over(&mut self, whole: &Bytes) -> i64 {
        let (from, most) = (self.next_offset, self.high_watermark.max(self.next_offset + 1));
        let next = first_offset(&self.bytes).filter(|next| (from + 1..=most).contains(next));
        let end = next.unwrap_or(most);
        let offset = first_offset(whole).unwrap_or(from).clamp(from, end - 1);
        self.next_offset = next.unwrap_or_else(|| end_of(whole).clamp(offset + 1, end));
        offset
    }

    fn fault(&mut self, whole: &Bytes, offset: i64, cause: String) -> Found<'_> {
        // Held as the record is, and not longer.
        self.record.clear();
        self.record.extend_from_slice(whole);
        Found { offset, timestamp_ms: 0, key: None, value: Some(&self.record), fault: Some(cause) }
    }
}

/// Looks at the head, and at the checksum of all.
fn open(whole: Bytes) -> Result<Batch, String> {
    let heads = RecordBatchDecoder::decode_batch_info(&mut whole.clone());
    let head = heads.map_err(|error| error.to_string())?.into_iter().next();
    let Some(head) = head else { return Err("no batch of version 2".to_owned()) };
    let packed = whole.slice(HEADER..);
    Ok(Batch {
        records: unpack(packed, head.compression).map_err(|error| error.to_string())?,
        // Markers of transactions are no messages.
        left: if head.control { 0 } else { head.record_count },
        base: head.min_offset,
        base_ms: head.min_timestamp,
        end: end_of(&whole),
        whole,
    })
}

/// A record that was passed over.
struct TooLarge {
    offset: i64,
    length: usize,
}

fn read_record(batch: &mut Batch, record: &mut Vec<u8>) -> io::Result<Result<Parts, TooLarge>> {
    let invalid = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
    let length = varint(&mut batch.records)?;
    let length = usize::try_from(length).map_err(|_| invalid("a record of negative length"))?;
    let is_too_large = length > RECORD_MAX;
    let held = if is_too_large { RECORD_HEAD } else { length };
    record.resize(held, 0);
    batch.records.read_exact(record)?;
    let mut rest = record.get(1..).ok_or_else(|| invalid("an empty record"))?;
    let timestamp_ms = batch.base_ms.saturating_add(varint(&mut rest)?);
    let offset = batch.base.saturating_add(varint(&mut rest)?);
    if is_too_large {
        let mut skipped = batch.records.by_ref().take((length - held) as u64);
        io::copy(&mut skipped, &mut io::sink())?;
        return Ok(Err(TooLarge { offset, length }));
    }
    let mut part = || -> io::Result<Option<std::ops::Range<usize>>> {
        // -1 is absent.
        let Ok(length) = usize::try_from(varint(&mut rest)?) else { return Ok(None) };
        let start = held - rest.len();
        rest = rest.get(length..).ok_or_else(|| invalid("a record is cut"))?;
        Ok(Some(start..start + length))
    };
    let (key, value) = (part()?, part()?);
    Ok(Ok(Parts { offset, timestamp_ms, key, value }))
}

/// A signed number of Kafka's: zigzag, seven bits a byte, the lowest first.
fn varint(from: &mut impl BufRead) -> io::Result<i64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = match from.fill_buf()?.first() {
            Some(byte) => *byte,
            None => return Err(ErrorKind::UnexpectedEof.into()),
        };
        from.consume(1);
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    Err(Error::new(ErrorKind::InvalidData, "a number of more than ten bytes"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::records::{
        Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
        RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    const HIGH_WATERMARK: i64 = 1000;

    fn batch_of(base: i64, values: &[&[u8]], compression: Compression) -> BytesMut {
        let records: Vec<Record> = (0..)
            .zip(values)
            .map(|(delta, value)| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                timestamp_type: TimestampType::Creation,
                offset: base + delta,
                sequence: delta as i32 - 1,
                timestamp: 1_700_000_000_000 + base + delta,
                key: Some(Bytes::from((base + delta).to_string())),
                value: Some(Bytes::copy_from_slice(value)),
                headers: Default::default(),
            })
            .collect();
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression };
        RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
        out
    }

    pub(in crate::kafka) fn batch(
        offsets: std::ops::Range<i64>,
        compression: Compression,
    ) -> BytesMut {
        let values = vec![&[b'v'; 20][..]; (offsets.end - offsets.start) as usize];
        batch_of(offsets.start, &values, compression)
    }

    /// Offset, value and fault of each record, and where to go on.
    type All = (Vec<(i64, Vec<u8>, Option<String>)>, i64);

    fn read(bytes: impl Into<Bytes>, wanted: i64) -> All {
        let mut reader = Reader::new(bytes.into(), wanted, HIGH_WATERMARK);
        let mut all = Vec::new();
        while let Some(found) = reader.next() {
            if found.fault.is_none() {
                assert_eq!(found.timestamp_ms, 1_700_000_000_000 + found.offset);
                assert_eq!(found.key, Some(found.offset.to_string().as_bytes()));
            }
            all.push((found.offset, found.value.unwrap().to_vec(), found.fault));
            assert!(reader.next_offset() > all.last().unwrap().0);
        }
        (all, reader.next_offset())
    }

    fn offsets(all: &All) -> Vec<i64> {
        all.0.iter().map(|(offset, ..)| *offset).collect()
    }

    #[test]
    fn a_cut_last_batch_is_left_for_the_next_fetch() {
        for compression in ALL {
            let mut bytes = batch(10..13, compression);
            let whole = bytes.len();
            bytes.extend_from_slice(&batch(13..20, compression));
            for cut in whole..bytes.len() {
                let all = read(Bytes::copy_from_slice(&bytes[..cut]), 10);
                assert_eq!((offsets(&all), all.1), (vec![10, 11, 12], 13));
            }
            let all = read(bytes, 11);
            assert_eq!((offsets(&all), all.1), ((11..20).collect(), 20));
            assert!(all.0.iter().all(|(_, value, fault)| value == &[b'v'; 20] && fault.is_none()));
        }
    }

    #[test]
    fn an_unreadable_batch_is_handed_over_whole() {
        let mut bytes = batch(5..8, Compression::None);
        let last = bytes.len() - 1;
        bytes[last] ^= 1; // its checksum no longer fits
        let broken = bytes.to_vec();
        bytes.extend_from_slice(&batch(8..9, Compression::None));
        let all = read(bytes, 5);
        assert_eq!((offsets(&all), all.1), (vec![5, 8], 9));
        assert_eq!(all.0[0].1, broken);
        let fault = all.0[0].2.as_deref().unwrap();
        assert!(fault.starts_with("Cyclic redundancy check failed"), "{fault}");
    }

    #[test]
    fn where_an_unreadable_batch_says_that_it_ends_is_not_believed() {
        let mut broken = batch(5..8, Compression::None);
        broken[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
        let with_next = [&broken[..], &batch(8..9, Compression::None)].concat();
        let cut = with_next[..with_next.len() - 1].to_vec();
        let all = read(with_next, 5);
        assert_eq!((offsets(&all), all.1), (vec![5, 8], 9), "the next one tells");
        assert_eq!(read(cut, 5).1, 8, "also when it is cut");
        assert_eq!(read(broken.clone().freeze(), 5).1, HIGH_WATERMARK);
        // Nor what it says of its place; and an end that is too near doesn't stop it.
        broken[..8].copy_from_slice(&i64::MAX.to_be_bytes());
        let all = read(broken.clone().freeze(), 5);
        assert_eq!((offsets(&all), all.1), (vec![HIGH_WATERMARK - 1], HIGH_WATERMARK));
        broken[..8].copy_from_slice(&i64::MIN.to_be_bytes());
        let all = read(broken.freeze(), 5);
        assert_eq!((offsets(&all), all.1), (vec![5], 6));
    }

    /// Puts the right checksum over what follows it.
    fn seal(batch: &mut [u8]) {
        let sum = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&sum.to_be_bytes());
    }

    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn what_was_read_before_a_fault_inside_a_batch_counts() {
        for compression in ALL {
            // It says that it has one record more.
            let mut bytes = batch(5..8, compression);
            bytes[57..61].copy_from_slice(&4i32.to_be_bytes());
            bytes[23..27].copy_from_slice(&3i32.to_be_bytes());
            seal(&mut bytes);
            let broken = bytes.to_vec();
            bytes.extend_from_slice(&batch(9..10, compression));
            let all = read(bytes, 5);
            assert_eq!((offsets(&all), all.1), (vec![5, 6, 7, 8, 9], 10), "{compression:?}");
            assert_eq!(all.0[3].1, broken);
            assert!(all.0[3].2.is_some() && all.0[4].2.is_none());
        }
    }

    #[test]
    fn how_many_records_a_batch_says_it_has_costs_nothing() {
        let mut bytes = batch(5..6, Compression::None);
        bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        seal(&mut bytes);
        let all = read(bytes, 5);
        assert_eq!(
            (offsets(&all), all.1),
            (vec![5, 5], 6),
            "the record, and the fault at its place"
        );
    }

    #[test]
    fn a_record_that_is_too_large_is_kept_packed_and_the_others_are_read() {
        let zeros = vec![b'0'; RECORD_MAX + 1];
        let fits = vec![b'1'; RECORD_MAX - 100];
        for compression in ALL {
            let bytes = batch_of(3, &[b"a", &zeros, b"b", &fits, b"c"], compression).freeze();
            let all = read(bytes.clone(), 3);
            assert_eq!((offsets(&all), all.1), (vec![3, 4, 5, 6, 7], 8), "{compression:?}");
            assert_eq!(all.0[1].1, bytes);
            let fault = all.0[1].2.as_deref().unwrap();
            assert!(
                fault.contains("a record of 20971") && fault.contains("at most 2097152"),
                "{fault}"
            );
            assert_eq!(all.0[3].1, fits);
            let values: Vec<&[u8]> = [0, 2, 4].map(|n| all.0[n].1.as_slice()).to_vec();
            assert_eq!(values, [b"a", b"b", b"c"]);
            assert_eq!(offsets(&read(bytes, 5)), [5, 6, 7], "behind it, it is not met again");
        }
    }

    #[test]
    fn a_window_or_block_that_is_too_large_is_refused_before_it_is_made() {
        // 64 MiB at a level with a window of that size.
        let mut packed = Vec::new();
        let mut encoder = zstd::stream::write::Encoder::new(&mut packed, 3).unwrap();
        encoder.window_log(27).unwrap();
        io::copy(&mut io::repeat(0).take(64 << 20), &mut encoder).unwrap();
        encoder.finish().unwrap();
        let mut read = unpack(packed.into(), Compression::Zstd).unwrap();
        assert!(io::copy(&mut read, &mut io::sink()).is_err());
        let packed = snap::raw::Encoder::new().compress_vec(&vec![0; 9 << 20]).unwrap();
        let mut read = unpack(packed.into(), Compression::Snappy).unwrap();
        let error = io::copy(&mut read, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("snappy block of 9437184 bytes"), "{error}");
    }

    #[test]
    fn rubbish_is_not_read_past_its_end() {
        for length in 0..80 {
            for byte in [0, 0x7f, 0xff] {
                assert!(read(vec![byte; length], 3).1 >= 3);
            }
        }
        // Any byte of a good batch changed, with the right checksum over it: it ends, and goes on.
        for compression in ALL {
            let good = batch(5..8, compression);
            for at in 21..good.len() {
                for change in [1, 0x80, 0xff] {
                    let mut bytes = good.clone();
                    bytes[at] ^= change;
                    seal(&mut bytes);
                    let mut reader = Reader::new(bytes.freeze(), 5, HIGH_WATERMARK);
                    let mut count = 0;
                    while reader.next().is_some() {
                        count += 1;
                    }
                    assert!(count <= 5 && reader.next_offset() >= 5, "{compression:?} {at}");
                }
            }
        }
    }
}
