//! Reads and decodes an answer's body, never more than the limit of either.
//!
//! ureq's own limit counts encoded bytes, leaves some encodings undecoded, and fails a body of
//! exactly the limit.

use std::io::Read;

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
    let wire = &wire[..length];
    decoded.clear();
    // One byte more than wanted tells whether there is more.
    let limit = max as u64 + 1;
    let encoding = encoding?;
    let result = match encoding {
        Encoding::Identity => return Ok(Seen { bytes: wire, truncated: cut }),
        // What has no bytes is no encoding of nothing, but servers send it.
        _ if wire.is_empty() => return Ok(Seen { bytes: wire, truncated: false }),
        Encoding::Gzip => GzDecoder::new(wire).take(limit).read_to_end(decoded),
        Encoding::Deflate if is_zlib(wire) => {
            ZlibDecoder::new(wire).take(limit).read_to_end(decoded)
        }
        Encoding::Deflate => DeflateDecoder::new(wire).take(limit).read_to_end(decoded),
        Encoding::Brotli if has_large_window(wire) => {
            return Err(http_failure("corrupt br content: large windows are not for HTTP"));
        }
        Encoding::Brotli => brotli_decompressor::Decompressor::new(wire, BROTLI_INPUT)
            .take(limit)
            .read_to_end(decoded),
    };
    if let Err(error) = result
        // A body that we cut can't end well, but it begins well.
        && (!cut || decoded.is_empty())
    {
        return Err(http_failure(format!("corrupt {} content: {error}", encoding.name())));
    }
    let truncated = cut || decoded.len() > max;
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
