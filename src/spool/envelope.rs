//! The envelope around each record, and the marks: what makes them findable, whole and provable in
//! the raw bytes of a file that redb can't read any more.
//!
//! All numbers are little-endian. A record in the file:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `FF 77 73 72` |
//! | 4 | CRC-32 of everything behind |
//! | 8 | sequence number |
//! | 8 | when its writer opened the file, in microseconds since 1970 |
//! | 4 | length of the record |
//! | … | the record |
//!
//! A mark: `FF 77 73 6D`, the CRC-32 of what is behind, the cursor (8 bytes), the last sequence
//! number given (8 bytes).
//!
//! redb keeps a value in one piece, so an envelope is one in the file's bytes too. The first byte
//! of both magic numbers is in no UTF-8 text: nothing that a checked site says can look like one.

use super::queue::RECORD_MAX;

/// Bytes of an envelope besides its record.
pub(super) const OVERHEAD: usize = 28;
/// Bytes of a mark.
pub(super) const MARK_BYTES: usize = 24;
/// The first byte of an envelope and of a mark.
pub(super) const FIRST_BYTE: u8 = 0xff;
const RECORD_MAGIC: [u8; 4] = [FIRST_BYTE, b'w', b's', b'r'];
const MARK_MAGIC: [u8; 4] = [FIRST_BYTE, b'w', b's', b'm'];
/// Where the checked part begins: behind the magic number and the CRC.
const CHECKED: usize = 8;

/// Puts `record` in its envelope into `out`, which is emptied first.
pub(super) fn wrap(out: &mut Vec<u8>, sequence: u64, opened_us: u64, record: &[u8]) {
    out.clear();
    out.reserve(OVERHEAD + record.len());
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&opened_us.to_le_bytes());
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(record);
    seal(out);
}

/// The mark of `cursor` and `last`.
pub(super) fn mark(cursor: u64, last: u64) -> [u8; MARK_BYTES] {
    let mut out = [0; MARK_BYTES];
    out[..4].copy_from_slice(&MARK_MAGIC);
    out[8..16].copy_from_slice(&cursor.to_le_bytes());
    out[16..].copy_from_slice(&last.to_le_bytes());
    seal(&mut out);
    out
}

fn seal(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[CHECKED..]);
    bytes[4..CHECKED].copy_from_slice(&crc.to_le_bytes());
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.get(4..CHECKED).is_some_and(|crc| crc == crc32fast::hash(&bytes[CHECKED..]).to_le_bytes())
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The record in `value`, whole and of this `sequence`.
pub(super) fn unwrap(sequence: u64, value: &[u8]) -> Option<&[u8]> {
    let is_right = value.starts_with(&RECORD_MAGIC)
        && number(value, 8) == Some(sequence)
        && total(value) == Some(value.len())
        && is_sealed(value);
    if is_right { value.get(OVERHEAD..) } else { None }
}

/// When the writer of this envelope had opened the file, in microseconds since 1970.
pub(super) fn opened_us(value: &[u8]) -> u64 {
    number(value, 16).unwrap_or(0)
}

/// Bytes of the envelope that `bytes` begin with, by its own word.
fn total(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(24..OVERHEAD)?;
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    (length <= RECORD_MAX).then_some(OVERHEAD + length)
}

/// What raw bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole record in an envelope of so many bytes.
    Record {
        /// Its sequence number.
        sequence: u64,
        /// Bytes of the envelope.
        bytes: usize,
    },
    /// A whole mark.
    Mark {
        /// The cursor.
        cursor: u64,
        /// The last sequence number given.
        last: u64,
    },
    /// So many bytes are needed to tell.
    Short(usize),
    /// Neither, or a damaged one.
    Nothing,
}

/// Looks at what `bytes` begin with.
pub(super) fn piece(bytes: &[u8]) -> Piece {
    let magic = &bytes[..bytes.len().min(4)];
    if RECORD_MAGIC.starts_with(magic) {
        if bytes.len() < OVERHEAD {
            return Piece::Short(OVERHEAD);
        }
        let (Some(sequence), Some(total)) = (number(bytes, 8), total(bytes)) else {
            return Piece::Nothing;
        };
        return match bytes.get(..total) {
            None => Piece::Short(total),
            Some(whole) if sequence > 0 && is_sealed(whole) => {
                Piece::Record { sequence, bytes: total }
            }
            Some(_) => Piece::Nothing,
        };
    }
    if MARK_MAGIC.starts_with(magic) {
        let Some(whole) = bytes.get(..MARK_BYTES) else { return Piece::Short(MARK_BYTES) };
        if let (Some(cursor), Some(last), true) =
            (number(whole, 8), number(whole, 16), is_sealed(whole))
        {
            return Piece::Mark { cursor, last };
        }
    }
    Piece::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_any_changed_bit_is_noticed() {
        let mut value = Vec::new();
        for record in [&b""[..], b"x", &[7; 3000]] {
            wrap(&mut value, 42, 1_000_000, record);
            assert_eq!(value.len(), OVERHEAD + record.len());
            assert_eq!(unwrap(42, &value), Some(record));
            assert_eq!(unwrap(43, &value), None);
            assert_eq!(opened_us(&value), 1_000_000);
            assert_eq!(piece(&value), Piece::Record { sequence: 42, bytes: value.len() });
            assert_eq!(unwrap(42, &value[..value.len() - 1]), None);
            for bit in 0..value.len() * 8 {
                value[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(unwrap(42, &value), None, "bit {bit}");
                assert!(!matches!(piece(&value), Piece::Record { .. }), "bit {bit}");
                value[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let mut bytes = mark(5, 9);
        assert_eq!(piece(&bytes), Piece::Mark { cursor: 5, last: 9 });
        for bit in 0..MARK_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(piece(&bytes), Piece::Mark { .. }), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_beginning_says_how_much_is_needed() {
        let mut value = Vec::new();
        wrap(&mut value, 1, 1, &[1; 100]);
        for length in 1..OVERHEAD {
            assert_eq!(piece(&value[..length]), Piece::Short(OVERHEAD));
        }
        assert_eq!(piece(&value[..OVERHEAD]), Piece::Short(OVERHEAD + 100));
        assert_eq!(piece(&mark(1, 1)[..20]), Piece::Short(MARK_BYTES));
        assert_eq!(piece(b"text"), Piece::Nothing);
    }
}
