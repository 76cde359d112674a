//! Batches as they stand one behind the other in a fetch's answer, and which of them are believed.
//!
//! A batch's checksum covers neither its base offset, nor its length, nor its magic byte: what is
//! damaged there on the way would skip good messages, or give them the places of others.
//!
//! Invariants:
//! - What looks damaged is fetched again, and handed on only when the very same bytes came
//!   [`SAME_FETCHES`] times: damage on the way is another one each time and never handed on.
//! - What stands before it in the answer is not held up.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;

/// What looks damaged is handed on when it came so often, byte by byte the same: then it is what
/// the broker has, damaged on its disk, or a topic whose offsets have gaps.
pub(super) const SAME_FETCHES: u32 = 4;

/// How long a partition with such an answer is left out while others are fetched: the broker has
/// bytes for it and answers at once, again and again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Where a batch's length stands (4 bytes, big endian): behind its base offset.
const LENGTH_AT: Range<usize> = 8..12;

/// Where the difference of its last record's offset to its first one's stands.
const LAST_DELTA_AT: Range<usize> = 23..27;

/// A batch's fixed part.
pub(super) const HEADER: usize = 61;

/// The next batch's bytes, unless they are cut, or make no sense: [`Suspects::judge`] has told
/// that of an answer's first, and it is asked for from there on.
pub(super) fn split_batch(bytes: &mut Bytes) -> Option<Bytes> {
    match whole(bytes) {
        Ok(Some(length)) => Some(bytes.split_to(length)),
        Ok(None) | Err(_) => {
            bytes.clear();
            None
        }
    }
}

/// The first batch's length with all that belongs to it; nothing if it is cut, the number if that
/// can't be a length.
fn whole(bytes: &Bytes) -> Result<Option<usize>, i32> {
    let Some(length) = number(bytes, LENGTH_AT) else { return Ok(None) };
    let whole = usize::try_from(length).map_err(|_| length)? + LENGTH_AT.end;
    if whole < HEADER {
        return Err(length);
    }
    Ok((whole <= bytes.len()).then_some(whole))
}

/// A batch's base offset, if it is not cut before.
pub(super) fn first_offset(batch: &Bytes) -> Option<i64> {
    batch.first_chunk().map(|first| i64::from_be_bytes(*first))
}

/// Where to go on behind a batch, by what it says.
pub(super) fn end_of(batch: &Bytes) -> i64 {
    let delta = number(batch, LAST_DELTA_AT).unwrap_or(0).max(0);
    let first = first_offset(batch).unwrap_or(0);
    first.saturating_add(i64::from(delta)).saturating_add(1)
}

fn number(bytes: &Bytes, at: Range<usize>) -> Option<i32> {
    bytes.get(at).and_then(|four| four.try_into().ok()).map(i32::from_be_bytes)
}

/// Something that looks damaged in an answer.
#[derive(Debug)]
struct Suspect {
    /// Where in the answer what has to do with it begins.
    at: usize,
    /// Of its bytes.
    hash: u64,
    cause: String,
}

/// What looked damaged in the last answer of one partition, by a hash of its bytes, and how often
/// it came.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    seen: HashMap<u64, u32>,
    /// Not to be fetched before (monotonic).
    again_at: Duration,
}

impl Suspects {
    pub(super) fn hold_back(&mut self, now: Duration) {
        self.again_at = now.saturating_add(AGAIN_AFTER);
    }

    pub(super) fn is_held_back(&self, now: Duration) -> bool {
        now < self.again_at
    }

    /// What of `bytes`, fetched from `wanted` on, can be read now. `is_at_limit`: the answer is as
    /// large as was asked for, so that its last batch may be cut.
    ///
    /// # Errors
    /// What is wrong with the first batch. It is to be fetched again.
    pub(super) fn judge(
        &mut self,
        mut bytes: Bytes,
        wanted: i64,
        is_at_limit: bool,
    ) -> Result<Bytes, String> {
        match whole(&bytes) {
            Err(length) => return Err(format!("offset {wanted}: a batch of length {length}")),
            Ok(None) if !bytes.is_empty() && !is_at_limit => {
                return Err(format!("offset {wanted}: a cut batch, {} bytes came", bytes.len()));
            }
            Ok(_) => {}
        }
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let suspects = suspects(&bytes, wanted)?;
        let before = std::mem::take(&mut self.seen);
        for suspect in &suspects {
            let fetches = before.get(&suspect.hash).copied().unwrap_or(0).saturating_add(1);
            self.seen.insert(suspect.hash, fetches);
        }
        let is_new = |suspect: &Suspect| self.seen.get(&suspect.hash) < Some(&SAME_FETCHES);
        match suspects.into_iter().find(is_new) {
            Some(Suspect { at: 0, cause, .. }) => Err(cause),
            Some(Suspect { at, .. }) => Ok(bytes.split_to(at)),
            None => Ok(bytes),
        }
    }
}

/// What looks damaged in `bytes`, first to last.
///
/// # Errors
/// When the first batch is sound and yet before `wanted`: it would bring nothing, for ever.
fn suspects(bytes: &Bytes, wanted: i64) -> Result<Vec<Suspect>, String> {
    let hash = |of: Range<usize>| {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes.get(of).unwrap_or_default());
        hasher.finish()
    };
    let (mut found, mut rest) = (Vec::new(), bytes.clone());
    let mut at = 0;
    // Where the batch before begins, and where it says that it ends; unknown behind damage.
    let mut before = None;
    while let Some(batch) = split_batch(&mut rest) {
        let (begin, first, end) = (at, first_offset(&batch).unwrap_or(0), end_of(&batch));
        at += batch.len();
        if let Some(cause) = unreadable(&batch) {
            let cause = format!("offset {first}: {cause}");
            found.push(Suspect { at: begin, hash: hash(begin..at), cause });
            before = None;
            continue;
        }
        if begin == 0 && end <= wanted {
            return Err(format!("offset {wanted} wanted, {first} to {} came", end - 1));
        }
        // Which of two that don't fit together is wrong can't be told.
        let gap = match before {
            None => (begin == 0 && first > wanted).then_some((begin, wanted)),
            Some((begin, end)) => (first != end).then_some((begin, end)),
        };
        if let Some((from, expected)) = gap {
            let cause = format!("offset {expected} expected, {first} came");
            found.push(Suspect { at: from, hash: hash(from..at), cause });
        }
        before = Some((begin, end));
    }
    Ok(found)
}

/// What is wrong with a batch's head or checksum.
fn unreadable(batch: &Bytes) -> Option<String> {
    match RecordBatchDecoder::decode_batch_info(&mut batch.clone()) {
        Ok(heads) if heads.is_empty() => Some("no batch of version 2".to_owned()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::batch;
    use super::*;
    use kafka_protocol::records::Compression;

    /// Batches, each of its first offset and the one behind its last.
    fn answer(parts: &[(i64, i64)]) -> Vec<u8> {
        parts.iter().flat_map(|(from, to)| batch(*from..*to, Compression::None)).collect()
    }

    /// How much is let through.
    fn judge(suspects: &mut Suspects, bytes: &[u8], wanted: i64) -> Result<usize, String> {
        suspects.judge(Bytes::copy_from_slice(bytes), wanted, false).map(|bytes| bytes.len())
    }

    #[test]
    fn damage_that_the_checksum_does_not_cover_is_never_believed_when_it_changes() {
        let whole = answer(&[(5, 8), (8, 10), (10, 11)]);
        assert_eq!(judge(&mut Suspects::default(), &whole, 6), Ok(whole.len()));
        let (first, second) = (answer(&[(5, 8)]).len(), answer(&[(5, 8), (8, 10)]).len());
        let mut suspects = Suspects::default();
        // Base offset and magic byte of each; what stands before may be wrong too.
        for (batch, let_through) in [(0, 0), (first, 0), (second, first)] {
            for at in (0..8).chain([16]) {
                for bit in 0..8 {
                    let mut bytes = whole.clone();
                    bytes[batch + at] ^= 1 << bit;
                    let judged = judge(&mut suspects, &bytes, 5);
                    let most = if at == 16 { batch } else { let_through };
                    let is_held = judged.as_ref().map_or(true, |length| *length <= most);
                    assert!(is_held, "byte {at}, bit {bit}: {judged:?}");
                }
            }
        }
        assert_eq!(judge(&mut suspects, &whole, 5), Ok(whole.len()));
    }

    #[test]
    fn gaps_that_stay_are_believed_together_and_stay_so() {
        let mut bytes = answer(&[(9, 10), (12, 13), (13, 15), (20, 21)]);
        let mut suspects = Suspects::default();
        for fetch in 1..SAME_FETCHES {
            // The partition grows meanwhile.
            let grown = [bytes.clone(), answer(&[(21, 21 + i64::from(fetch))])].concat();
            let error = judge(&mut suspects, &grown, 5).unwrap_err();
            assert_eq!(error, "offset 5 expected, 9 came");
        }
        for _ in 0..2 {
            assert_eq!(judge(&mut suspects, &bytes, 5), Ok(bytes.len()));
        }
        // Another one behind them doesn't hold them up.
        let believed = answer(&[(9, 10), (12, 13), (13, 15)]).len();
        bytes.truncate(believed);
        bytes.extend(answer(&[(20, 21), (30, 31)]));
        assert_eq!(judge(&mut suspects, &bytes, 5), Ok(believed));
    }

    #[test]
    fn other_bytes_start_the_count_again() {
        let mut suspects = Suspects::default();
        let gap = answer(&[(7, 8)]);
        for _ in 1..SAME_FETCHES {
            assert!(judge(&mut suspects, &gap, 5).is_err());
        }
        assert!(judge(&mut suspects, &answer(&[(8, 9)]), 5).is_err());
        for _ in 1..SAME_FETCHES {
            assert!(judge(&mut suspects, &gap, 5).is_err());
        }
        assert_eq!(judge(&mut suspects, &gap, 5), Ok(gap.len()));
    }

    #[test]
    fn a_head_that_makes_no_sense_is_an_error_however_often_it_comes() {
        let good = answer(&[(5, 8)]);
        let mut suspects = Suspects::default();
        for length in [-1, i32::MIN, 0, 48] {
            let mut bytes = good.clone();
            bytes[LENGTH_AT].copy_from_slice(&i32::to_be_bytes(length));
            for _ in 0..=SAME_FETCHES {
                let error = judge(&mut suspects, &bytes, 5).unwrap_err();
                assert_eq!(error, format!("offset 5: a batch of length {length}"));
            }
            // Behind a good one it is asked for from there on.
            let behind = [good.as_slice(), &bytes].concat();
            assert_eq!(judge(&mut suspects, &behind, 5), Ok(behind.len()));
        }
        let cut = Bytes::copy_from_slice(&good[..good.len() - 1]);
        for _ in 0..=SAME_FETCHES {
            assert!(suspects.judge(cut.clone(), 5, false).unwrap_err().contains("a cut batch"));
            assert_eq!(suspects.judge(cut.clone(), 5, true), Ok(cut.clone()));
            let error = judge(&mut suspects, &good, 8).unwrap_err();
            assert_eq!(error, "offset 8 wanted, 5 to 7 came");
        }
        assert_eq!(judge(&mut suspects, &[], 5), Ok(0));
    }
}
