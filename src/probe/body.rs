//! Reads and decodes an answer's body, never more than the limit of either.
//!
//! ureq's own limit counts encoded bytes, leaves some encodings undecoded, and fails a body of
//! exactly the limit.

use std::io::{ErrorKind, Read};

use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use ureq::Body;
use ureq::http::{HeaderMap, header};

use crate::check::{Failure, FailureKind};

use super::failure::from_ureq;
use super::timings::Bodies;

/// Room for a body at the start; doubled as needed.
const FIRST_ROOM: usize = 64 << 10;
/// Input buffer of the brotli decoder: it copies from memory.
const BROTLI_INPUT: usize = 4 << 10;

/// The part of a body that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'b> {
    pub(super) bytes: &'b [u8],
    /// There was more.
    pub(super) truncated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
        }
    }
}

fn http_failure(detail: impl Into<String>) -> Failure<'static> {
    Failure::new(FailureKind::Http, detail)
}

/// Reads at most `max` bytes, and decodes to at most `max` bytes.
pub(super) fn read<'b>(
    headers: &HeaderMap,
    body: Body,
    bodies: &'b mut Bodies,
    max: usize,
) -> Result<Seen<'b>, Failure<'static>> {
    let encoding = encoding(headers);
    let Bodies { wire, decoded } = bodies;
    let (length, cut) = read_wire(body, wire, max)?;
    decode(encoding?, Seen { bytes: &wire[..length], truncated: cut }, decoded, max)
}

/// Decodes what was read of a body into at most `max` bytes of `decoded`.
fn decode<'b>(
    encoding: Encoding,
    wire: Seen<'b>,
    decoded: &'b mut Vec<u8>,
    max: usize,
) -> Result<Seen<'b>, Failure<'static>> {
    let bytes = wire.bytes;
    decoded.clear();
    // One byte more than wanted tells whether there is more.
    let limit = max as u64 + 1;
    let mut rest = bytes;
    let result = match encoding {
        Encoding::Identity => return Ok(wire),
        // What has no bytes is no encoding of nothing, but servers send it.
        _ if bytes.is_empty() => return Ok(wire),
        Encoding::Gzip => GzDecoder::new(bytes).take(limit).read_to_end(decoded),
        Encoding::Deflate if is_zlib(bytes) => {
            ZlibDecoder::new(bytes).take(limit).read_to_end(decoded)
        }
        Encoding::Deflate => DeflateDecoder::new(bytes).take(limit).read_to_end(decoded),
        Encoding::Brotli if has_large_window(bytes) => {
            return Err(http_failure("corrupt br content: large windows are not for HTTP"));
        }
        Encoding::Brotli => brotli_decompressor::Decompressor::new(&mut rest, BROTLI_INPUT)
            .take(limit)
            .read_to_end(decoded),
    };
    if let Err(error) = result
        // What we cut can't end well; everything before the cut must be good. The brotli decoder
        // doesn't tell an early end from bad data: there, what fails with all its input taken.
        && !(wire.truncated
            && (error.kind() == ErrorKind::UnexpectedEof
                || encoding == Encoding::Brotli && rest.is_empty()))
    {
        return Err(http_failure(format!("corrupt {} content: {error}", encoding.name())));
    }
    let truncated = wire.truncated || decoded.len() > max;
    decoded.truncate(max);
    Ok(Seen { bytes: decoded, truncated })
}

/// Reads up to `max` bytes into `wire`; how many, and whether there was more.
fn read_wire(
    body: Body,
    wire: &mut Vec<u8>,
    max: usize,
) -> Result<(usize, bool), Failure<'static>> {
    let mut reader = body.into_reader();
    let limit = max + 1;
    let mut length = 0;
    while length < limit {
        if length == wire.len() {
            wire.resize((wire.len() * 2).clamp(FIRST_ROOM.min(limit), limit), 0);
        }
        let end = wire.len().min(limit);
        match reader.read(&mut wire[length..end]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) => return Err(from_ureq(ureq::Error::from(error))),
        }
    }
    Ok((length.min(max), length > max))
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Failure<'static>> {
    let mut found = Encoding::Identity;
    let values = headers.get_all(header::CONTENT_ENCODING);
    for name in values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let next = match name.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Encoding::Gzip,
            b"deflate" => Encoding::Deflate,
            b"br" => Encoding::Brotli,
            other => {
                let name = String::from_utf8_lossy(other).into_owned();
                return Err(http_failure(format!("unknown content-encoding '{name}'")));
            }
        };
        if found != Encoding::Identity {
            return Err(http_failure("more than one content-encoding"));
        }
        found = next;
    }
    Ok(found)
}

/// Whether a brotli stream asks for a window of up to 1 GiB: an extension of the decoder's that
/// RFC 7932 refuses, by this very bit pattern.
fn has_large_window(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first & 0x7f == 0x11)
}

/// Whether `deflate` means zlib, as it should, or the bare stream that some servers send.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [first, second, ..]
        if first & 15 == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    /// "hello hello hello" by brotli's reference encoder.
    const BROTLI: [u8; 20] = [
        0x1b, 0x10, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0x96, 0x6c, 0x20, 0x6f,
        0x01, 0x4f, 0x1c, 0x60, 0x1c,
    ];

    /// What the bytes decode to with a limit of `max`, or the failure.
    fn decoded(
        encoding: Encoding,
        bytes: &[u8],
        truncated: bool,
        max: usize,
    ) -> Result<(Vec<u8>, bool), String> {
        let mut room = Vec::new();
        let seen = decode(encoding, Seen { bytes, truncated }, &mut room, max);
        seen.map(|seen| (seen.bytes.to_vec(), seen.truncated)).map_err(|f| f.detail.into_owned())
    }

    fn streams(text: &[u8], level: Compression) -> Vec<(Encoding, Vec<u8>)> {
        let mut gzip = GzEncoder::new(Vec::new(), level);
        let mut zlib = ZlibEncoder::new(Vec::new(), level);
        let mut raw = DeflateEncoder::new(Vec::new(), level);
        gzip.write_all(text).unwrap();
        zlib.write_all(text).unwrap();
        raw.write_all(text).unwrap();
        vec![
            (Encoding::Gzip, gzip.finish().unwrap()),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Deflate, raw.finish().unwrap()),
        ]
    }

    #[test]
    fn a_stream_that_ends_early_is_corrupt_unless_we_cut_it() {
        let text: Vec<u8> = (0..3000u32).map(|n| ((n * n) >> 3) as u8 & 0x1f).collect();
        let mut all = vec![(Encoding::Brotli, BROTLI.to_vec(), &b"hello hello hello"[..])];
        for level in [Compression::none(), Compression::fast(), Compression::best()] {
            all.extend(streams(&text, level).into_iter().map(|(e, bytes)| (e, bytes, &text[..])));
        }
        for (encoding, bytes, text) in all {
            // Exactly as much as is allowed, and one byte more than that.
            let max = text.len();
            assert_eq!(decoded(encoding, &bytes, false, max), Ok((text.to_vec(), false)));
            let less = decoded(encoding, &bytes, false, max - 1);
            assert_eq!(less, Ok((text[..max - 1].to_vec(), true)));
            for length in 1..bytes.len() {
                let cut = &bytes[..length];
                let early = decoded(encoding, cut, false, max).unwrap_err();
                assert!(early.starts_with("corrupt "), "{encoding:?} {length}: {early}");
                let (begin, truncated) = decoded(encoding, cut, true, max).unwrap();
                assert!(truncated && text.starts_with(&begin), "{encoding:?} {length}");
            }
        }
    }

    #[test]
    fn what_is_corrupt_before_our_cut_is_corrupt() {
        let text = vec![b'x'; 3000];
        for (encoding, mut bytes) in streams(&text, Compression::none()) {
            // The length of a stored block no longer fits to its complement.
            let at = bytes.windows(2).position(|pair| pair == [0xb8, 0x0b]).unwrap();
            bytes[at] ^= 1;
            for truncated in [true, false] {
                let found = decoded(encoding, &bytes[..2000], truncated, 1 << 20);
                assert!(found.unwrap_err().starts_with("corrupt "), "{encoding:?}");
            }
        }
    }
}
