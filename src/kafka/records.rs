//! Record batches as they come out of a fetch.

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;

use super::FetchedRecord;

/// Where a batch's length stands (4 bytes, big endian): behind its base offset.
const LENGTH_AT: std::ops::Range<usize> = 8..12;

/// Where the difference of its last record's offset to its first one's stands.
const LAST_DELTA_AT: std::ops::Range<usize> = 23..27;

/// A batch's fixed part.
const HEADER: usize = 61;

/// What came out of one partition's bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Decoded {
    pub(super) records: Vec<FetchedRecord>,
    /// Where to go on.
    pub(super) next_offset: i64,
    /// What was wrong with each batch that couldn't be read; it's given as one record.
    pub(super) unreadable: Vec<String>,
}

/// Reads whole batches. The broker cuts the last one at the byte limit it was given: that one
/// is fetched again. Records before `wanted` are skipped: a fetch begins at a batch's beginning.
///
/// A batch that can't be read becomes one record without key, at the batch's first offset, with
/// the batch itself as its value: the caller puts it aside like any other message it doesn't
/// understand, instead of standing before it for ever.
pub(super) fn decode(mut bytes: Bytes, wanted: i64) -> Decoded {
    let mut decoded = Decoded { records: Vec::new(), next_offset: wanted, unreadable: Vec::new() };
    while let Some(length) = number(&bytes, LENGTH_AT) {
        let Some(whole) = usize::try_from(length).ok().map(|length| length + LENGTH_AT.end) else {
            break;
        };
        if bytes.len() < whole || whole < HEADER {
            break;
        }
        let batch = bytes.split_to(whole);
        let Some(base) = batch.first_chunk().map(|first| i64::from_be_bytes(*first)) else { break };
        let last = base + i64::from(number(&batch, LAST_DELTA_AT).unwrap_or(0).max(0));
        match RecordBatchDecoder::decode(&mut batch.clone()) {
            Ok(set) => decoded.records.extend(
                set.records
                    .into_iter()
                    .filter(|record| !record.control && record.offset >= wanted)
                    .map(|record| FetchedRecord {
                        offset: record.offset,
                        timestamp_ms: record.timestamp,
                        key: record.key,
                        value: record.value,
                    }),
            ),
            Err(error) => {
                decoded.unreadable.push(format!("offset {base}: {error}"));
                decoded.records.push(FetchedRecord {
                    offset: base.max(wanted),
                    timestamp_ms: 0,
                    key: None,
                    value: Some(batch),
                });
            }
        }
        decoded.next_offset = decoded.next_offset.max(last + 1);
    }
    decoded
}

fn number(bytes: &Bytes, at: std::ops::Range<usize>) -> Option<i32> {
    bytes.get(at).and_then(|four| four.try_into().ok()).map(i32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::records::{
        Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
        RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };

    fn batch(offsets: std::ops::Range<i64>, compression: Compression) -> BytesMut {
        let records: Vec<Record> = offsets
            .clone()
            .map(|offset| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                timestamp_type: TimestampType::Creation,
                offset,
                sequence: (offset - offsets.start) as i32 - 1,
                timestamp: 1_700_000_000_000 + offset,
                key: Some(Bytes::from(offset.to_string())),
                value: Some(Bytes::from(vec![b'v'; 20])),
                headers: Default::default(),
            })
            .collect();
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression };
        RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
        out
    }

    fn offsets(decoded: &Decoded) -> Vec<i64> {
        decoded.records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn a_cut_last_batch_is_left_for_the_next_fetch() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let mut bytes = batch(10..13, compression);
            let whole = bytes.len();
            bytes.extend_from_slice(&batch(13..20, compression));
            for cut in whole..bytes.len() {
                let decoded = decode(Bytes::copy_from_slice(&bytes[..cut]), 10);
                assert_eq!(offsets(&decoded), [10, 11, 12]);
                assert_eq!(decoded.next_offset, 13);
            }
            let decoded = decode(bytes.freeze(), 11);
            assert_eq!(offsets(&decoded), (11..20).collect::<Vec<_>>());
            assert_eq!(decoded.next_offset, 20);
            assert_eq!(decoded.records[0].timestamp_ms, 1_700_000_000_011);
        }
    }

    #[test]
    fn an_unreadable_batch_is_handed_over_whole() {
        let mut bytes = batch(5..8, Compression::None);
        let last = bytes.len() - 1;
        bytes[last] ^= 1; // its checksum no longer fits
        let broken = bytes.clone().freeze();
        bytes.extend_from_slice(&batch(8..9, Compression::None));
        let decoded = decode(bytes.freeze(), 5);
        assert_eq!(offsets(&decoded), [5, 8]);
        assert_eq!(decoded.records[0].value, Some(broken));
        assert_eq!((decoded.next_offset, decoded.unreadable.len()), (9, 1));
    }

    #[test]
    fn rubbish_is_not_read_past_its_end() {
        for length in 0..80 {
            for byte in [0, 0x7f, 0xff] {
                let decoded = decode(Bytes::from(vec![byte; length]), 3);
                assert!(decoded.next_offset >= 3);
            }
        }
    }
}
