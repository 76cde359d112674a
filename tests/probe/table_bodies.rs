//! Rows: framing, encodings and limits of bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use webmon::check::FailureKind::{Http, Timeout};

use super::support::{Do, MAX_BODY, answer, send};
use super::table::{Row, http, row};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const UNTIL_END: &str = "HTTP/1.1 200 OK\r\n\r\n";
const CLOSED: &str = "cut off in the body: connection closed";
const RESET: &str = "cut off in the body: Connection reset by peer";
const LATE: &str = "in transfer, after 1.000 s";

/// "hello hello hello" by the reference encoder.
const BROTLI: [u8; 20] = [
    0x1b, 0x10, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0x96, 0x6c, 0x20, 0x6f, 0x01,
    0x4f, 0x1c, 0x60, 0x1c,
];

/// 16 MiB of the letter x by the reference encoder.
const BROTLI_BOMB: [u8; 14] = [159, 255, 255, 255, 0, 36, 240, 226, 177, 64, 114, 239, 255, 1];

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What follows the head of a chunked answer.
fn chunks(bytes: impl AsRef<[u8]>) -> Vec<Do> {
    vec![send([CHUNKED.as_bytes(), bytes.as_ref()].concat())]
}

/// The answer breaks in its body.
fn broken(name: &'static str, script: Vec<Do>, detail: &str) -> Row {
    row(name, http(script)).down(Http, detail).status(200)
}

fn late(name: &'static str, script: Vec<Do>) -> Row {
    row(name, http(script)).down(Timeout, LATE).status(200)
}

fn encoded(name: &'static str, encoding: &str, body: impl AsRef<[u8]>) -> Row {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}");
    row(name, http(vec![answer(&head, body)]))
}

fn corrupt(name: &'static str, encoding: &str, body: impl AsRef<[u8]>, detail: &str) -> Row {
    encoded(name, encoding, body).down(Http, detail).status(200)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = framing();
    rows.extend(broken_chunks());
    rows.extend(ends_and_waits());
    rows.extend(encodings());
    rows.extend(corrupt_encodings());
    rows.extend(bombs());
    rows
}

fn framing() -> Vec<Row> {
    let until_end = |bytes: usize| vec![send(UNTIL_END), send(vec![b'x'; bytes])];
    let exact = vec![b'x'; MAX_BODY];
    let more = vec![b'x'; MAX_BODY + 1];
    vec![
        row("an empty body", http(vec![answer("HTTP/1.1 200 OK", "")])).body(0, false),
        row("a body until the end", http(vec![send(format!("{UNTIL_END}hello"))])).body(5, false),
        row(
            "chunks with all extras",
            http(chunks("5;a=b;c=\"d\"\r\nhello\r\n00006\r\n world\r\n0\r\nTrailer: x\r\n\r\n")),
        )
        .body(11, false),
        row("the last line end is missing", http(chunks("5\r\nhello\r\n0\r\n"))).body(5, false),
        row(
            "bytes after the last chunk",
            http(chunks("5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")),
        )
        .body(5, false),
        row("chunks of one byte", http(chunks("1\r\nx\r\n".repeat(5000) + "0\r\n\r\n")))
            .body(5000, false),
        row("the limit with a length", http(vec![answer("HTTP/1.1 200 OK", &exact)]))
            .body(MAX_BODY, false),
        row("one more than the limit with a length", http(vec![answer("HTTP/1.1 200 OK", &more)]))
            .body(MAX_BODY, true),
        row("the limit until the end", http(until_end(MAX_BODY))).body(MAX_BODY, false),
        row("one more than the limit until the end", http(until_end(MAX_BODY + 1)))
            .body(MAX_BODY, true),
        row("a body without end", http(vec![send(UNTIL_END), Do::Flood(vec![b'x'; 10_000])]))
            .body(MAX_BODY, true),
        row("chunks without end", http(vec![send(CHUNKED), Do::Flood(b"5\r\nhello\r\n".to_vec())]))
            .body(MAX_BODY, true),
        row(
            "a length of 1 TB, and the bytes",
            http(vec![
                send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"),
                Do::Flood(vec![b'x'; 10_000]),
            ]),
        )
        .body(MAX_BODY, true),
        row(
            "more than the limit, then silence",
            http(vec![send(UNTIL_END), send(&more), Do::Hang]),
        )
        .body(MAX_BODY, true),
        // Trailers are no body: nothing of them counts against the body's limit.
        broken(
            "trailers without end",
            vec![send(format!("{CHUNKED}0\r\n")), Do::Flood(b"Trailer: x\r\n".to_vec())],
            "more than 768 KiB with the body",
        ),
        row(
            "an unknown transfer coding",
            http(vec![send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello")]),
        )
        .body(5, false),
    ]
}

fn broken_chunks() -> Vec<Row> {
    let length = "bad chunk: chunk length cannot be read as a number";
    vec![
        broken("a chunk length that is no number", chunks("xyz\r\nabc\r\n"), length),
        broken("a negative chunk length", chunks("-3\r\nabc\r\n"), length),
        broken("an empty chunk length", chunks("\r\nabc\r\n"), length),
        broken("a chunk length of 17 digits", chunks("10000000000000000\r\nabc\r\n"), length),
        broken("a chunk length of 16 digits", chunks("ffffffffffffffff\r\nabc\r\n"), CLOSED),
        broken(
            "a chunk longer than its length",
            chunks("3\r\nabcdef\r\n"),
            "bad chunk: chunk expected crlf as next character",
        ),
        broken(
            "a chunk shorter than its length",
            chunks("5\r\nabc\r\n0\r\n\r\n"),
            "bad chunk: chunk expected crlf as next character",
        ),
        broken(
            "chunk lines without end",
            chunks(format!("5;{}", "x".repeat(3 << 20))),
            "bad chunk: its first line is too long",
        ),
        broken(
            "no chunks, though promised",
            chunks("hello, this is a page\r\n"),
            "bad chunk: chunk expected crlf as next character",
        ),
        broken(
            "a binary chunk length",
            chunks([0xff, 0xfe, b'\r', b'\n']),
            "bad chunk: chunk length is not ascii",
        ),
        broken("closes in a chunk", chunks("9\r\nabc"), CLOSED),
        broken("closes in a chunk length", chunks("3\r\nabc\r\n5"), CLOSED),
        broken("closes between chunks", chunks("3\r\nabc\r\n"), CLOSED),
        broken("closes before the first chunk", chunks(""), CLOSED),
    ]
}

fn ends_and_waits() -> Vec<Row> {
    let reset = |head: &str| vec![send(format!("{head}abc")), Do::Pause, Do::Reset];
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    vec![
        broken("closes in a body with a length", vec![send(format!("{length}abc"))], CLOSED),
        broken("closes before a body with a length", vec![send(length)], CLOSED),
        broken("resets in a body with a length", reset(length), RESET),
        broken("resets in a body without length", reset(UNTIL_END), RESET),
        broken("resets between chunks", reset(&format!("{CHUNKED}3\r\nabc\r\n3\r\n")), RESET),
        broken("resets before the body", vec![send(length), Do::Pause, Do::Reset], RESET),
        late("silent before a body with a length", vec![send(length), Do::Hang]),
        late("silent in a body with a length", vec![send(format!("{length}abc")), Do::Hang]),
        late("silent in a body without length", vec![send(UNTIL_END), Do::Hang]),
        late("silent in a chunk", vec![send(format!("{CHUNKED}9\r\nabc")), Do::Hang]),
        late(
            "silent before the last chunk",
            vec![send(format!("{CHUNKED}3\r\nabc\r\n")), Do::Hang],
        ),
        late(
            "silent in the trailers",
            vec![send(format!("{CHUNKED}0\r\nTrailer: x\r\n")), Do::Hang],
        ),
        late("drips a body", vec![send(UNTIL_END), Do::Drip(b"x")]),
        late(
            "drips a body with a length",
            vec![send("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"), Do::Drip(b"x")],
        ),
        late("drips chunks", vec![send(CHUNKED), Do::Drip(b"1\r\nx\r\n")]),
        late("drips a chunk length", vec![send(CHUNKED), Do::Drip(b"0")]),
        late("drips a chunk extension", vec![send(format!("{CHUNKED}5;")), Do::Drip(b"x")]),
        row(
            "slow chunks, but in time",
            http(vec![
                send(CHUNKED),
                Do::Pause,
                send("5\r"),
                Do::Pause,
                send("\nhel"),
                Do::Pause,
                send("lo\r\n0"),
                Do::Pause,
                send("\r\n\r\n"),
            ]),
        )
        .body(5, false),
    ]
}

fn encodings() -> Vec<Row> {
    let text = b"hello hello hello";
    let chunked = {
        let body = gzip(text);
        let (one, two) = body.split_at(9);
        let mut bytes =
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec();
        for part in [one, two] {
            bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    };
    vec![
        encoded("identity", "identity", text).body(17, false),
        encoded("an empty encoding", "", text).body(17, false),
        encoded("gzip", "gzip", gzip(text)).body(17, false),
        encoded("GZIP", "GZIP", gzip(text)).body(17, false),
        encoded("x-gzip and identity", "x-gzip, identity", gzip(text)).body(17, false),
        // Browsers pass over what follows.
        encoded("gzip, then garbage", "gzip", [gzip(text), b"garbage".to_vec()].concat())
            .body(17, false),
        encoded("gzip of nothing at all", "gzip", "").body(0, false),
        encoded("deflate as zlib", "deflate", zlib(text)).body(17, false),
        encoded("deflate without zlib", "deflate", deflate(text)).body(17, false),
        encoded("br", "br", BROTLI).body(17, false),
        row("gzip in chunks", http(vec![send(chunked)])).body(17, false),
    ]
}

fn corrupt_encodings() -> Vec<Row> {
    let text: Vec<u8> = (0..2000u32).map(|n| ((n * n) >> 3) as u8 & 0x1f).collect();
    let mut flipped = gzip(&text);
    let sum = flipped.len() - 6;
    flipped[sum] ^= 1;
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let early = "incomplete deflate stream";
    vec![
        corrupt(
            "gzip with a wrong sum",
            "gzip",
            &flipped,
            "corrupt gzip content: corrupt gzip stream does not have a matching checksum",
        ),
        corrupt(
            "gzip that ends early",
            "gzip",
            half(gzip(&text)),
            &format!("corrupt gzip content: {early}"),
        ),
        corrupt(
            "gzip without its end",
            "gzip",
            {
                let all = gzip(&text);
                all[..all.len() - 8].to_vec()
            },
            "corrupt gzip content: unexpected end of file",
        ),
        corrupt("gzip of one byte", "gzip", [0x1f], "corrupt gzip content: unexpected end of file"),
        corrupt(
            "gzip that is text",
            "gzip",
            "plain text",
            "corrupt gzip content: invalid gzip header",
        ),
        corrupt(
            "gzip that is text, longer than the limit",
            "gzip",
            [b'x'; MAX_BODY + 1],
            "corrupt gzip content: invalid gzip header",
        ),
        corrupt(
            "zlib that ends early",
            "deflate",
            half(zlib(&text)),
            &format!("corrupt deflate content: {early}"),
        ),
        corrupt(
            "zlib without its end",
            "deflate",
            {
                let all = zlib(&text);
                all[..all.len() - 4].to_vec()
            },
            &format!("corrupt deflate content: {early}"),
        ),
        corrupt(
            "deflate that ends early",
            "deflate",
            half(deflate(&text)),
            &format!("corrupt deflate content: {early}"),
        ),
        corrupt(
            "deflate that is text",
            "deflate",
            "plain text",
            "corrupt deflate content: corrupt deflate stream",
        ),
        corrupt("br that is text", "br", "plain text", "corrupt br content: Invalid Data"),
        corrupt(
            "br that ends early",
            "br",
            half(BROTLI.to_vec()),
            "corrupt br content: Invalid Data",
        ),
        corrupt(
            "br with a large window",
            "br",
            [0x11, 30, 0x1b],
            "corrupt br content: large windows are not for HTTP",
        ),
        corrupt("zstd, unasked", "zstd", "x", "unknown content-encoding 'zstd'"),
        corrupt("an encoding nobody knows", "x-\u{e4}", "x", "unknown content-encoding 'x-ä'"),
        corrupt("two encodings", "gzip, br", "x", "more than one content-encoding"),
        corrupt("gzip twice", "gzip, gzip", gzip(&gzip(&text)), "more than one content-encoding"),
        corrupt(
            "two headers for encodings",
            "gzip\r\nContent-Encoding: deflate",
            "x",
            "more than one content-encoding",
        ),
    ]
}

fn bombs() -> Vec<Row> {
    let bomb = vec![0; 30 << 20];
    vec![
        encoded("gzip to exactly the limit", "gzip", gzip(&[b'x'; MAX_BODY])).body(MAX_BODY, false),
        encoded("gzip to one more than the limit", "gzip", gzip(&[b'x'; MAX_BODY + 1]))
            .body(MAX_BODY, true),
        encoded("gzip bomb", "gzip", gzip(&bomb)).body(MAX_BODY, true),
        encoded("zlib bomb", "deflate", zlib(&bomb)).body(MAX_BODY, true),
        encoded("deflate bomb", "deflate", deflate(&bomb)).body(MAX_BODY, true),
        encoded("br bomb", "br", BROTLI_BOMB).body(MAX_BODY, true),
    ]
}
