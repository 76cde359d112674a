//! Batches unpacked as a stream, so that what a batch says of its own size costs nothing: a
//! megabyte can unpack into gigabytes.

use std::io::{self, BufRead, BufReader, Cursor, Error, ErrorKind, Read};

use bytes::{Buf, Bytes};
use kafka_protocol::records::Compression;

/// Largest window of a zstd frame, as a power of two: 8 MiB, which every decoder is to support.
/// Levels up to 19 need no more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Largest unpacked block of snappy. Java's writer makes 32 KiB; raw snappy, as other clients
/// write it, is one block for the whole batch.
const SNAPPY_BLOCK_MAX: usize = 8 << 20;

/// What Java's snappy writer begins with: magic, version, oldest compatible version.
const SNAPPY_MAGIC: &[u8; 16] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";

/// What is held unpacked in front of the reader.
const BUFFER: usize = 32 << 10;

/// The records' bytes of a batch.
pub(super) type Unpacked = Box<dyn BufRead + Send>;

/// Unpacks `packed`, piece by piece as it is read.
pub(super) fn unpack(packed: Bytes, codec: Compression) -> io::Result<Unpacked> {
    let packed = packed.reader();
    Ok(match codec {
        Compression::None => Box::new(packed),
        Compression::Gzip => buffered(flate2::bufread::MultiGzDecoder::new(packed)),
        Compression::Snappy => Box::new(Snappy::new(packed.into_inner())),
        Compression::Lz4 => buffered(lz4::Decoder::new(packed)?),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            buffered(decoder)
        }
    })
}

fn buffered(reader: impl Read + Send + 'static) -> Unpacked {
    Box::new(BufReader::with_capacity(BUFFER, reader))
}

/// Snappy as Java writes it, blocks of a length each; or one raw block.
struct Snappy {
    packed: Bytes,
    is_framed: bool,
    block: Cursor<Vec<u8>>,
}

impl Snappy {
    fn new(mut packed: Bytes) -> Self {
        let is_framed = packed.starts_with(SNAPPY_MAGIC);
        if is_framed {
            packed.advance(SNAPPY_MAGIC.len());
        }
        Self { packed, is_framed, block: Cursor::default() }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let cut = || Error::new(ErrorKind::UnexpectedEof, "snappy block is cut");
        let packed = if self.is_framed {
            let length = self.packed.try_get_u32().map_err(|_| cut())? as usize;
            if length > self.packed.len() {
                return Err(cut());
            }
            self.packed.split_to(length)
        } else {
            std::mem::take(&mut self.packed)
        };
        let length = snap::raw::decompress_len(&packed)?;
        if length > SNAPPY_BLOCK_MAX {
            let cause = format!("snappy block of {length} bytes; at most {SNAPPY_BLOCK_MAX}");
            return Err(Error::new(ErrorKind::InvalidData, cause));
        }
        self.block = Cursor::new(snap::raw::Decoder::new().decompress_vec(&packed)?);
        Ok(())
    }
}

impl Read for Snappy {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Snappy {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.block.has_remaining() && !self.packed.is_empty() {
            self.next_block()?;
        }
        self.block.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.block.consume(count);
    }
}
