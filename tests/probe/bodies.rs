//! Bodies: framing, encodings, limits.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use webmon::check::FailureKind::{Http, Timeout};

use super::support::{Do, Expect, MAX_BODY, answer, check_hurried, check_script, down, send, up};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const UNTIL_END: &str = "HTTP/1.1 200 OK\r\n\r\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
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

/// "hello hello hello" by the reference encoder.
const BROTLI: [u8; 20] = [
    0x1b, 0x10, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0x96, 0x6c, 0x20, 0x6f, 0x01,
    0x4f, 0x1c, 0x60, 0x1c,
];

fn seen(script: &[Do], expect: &Expect) -> Option<(u32, bool)> {
    let check = check_script(script, expect);
    check.body_bytes.zip(check.body_truncated)
}

#[test]
fn framing() {
    let stuffed =
        format!("{CHUNKED}5;name=value\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n");
    for (script, bytes) in [
        (vec![answer("HTTP/1.1 200 OK", "")], 0),
        (vec![send(format!("{UNTIL_END}hello"))], 5),
        (vec![send(stuffed)], 11),
        // The end of the last chunk may be missing when the connection ends there.
        (vec![send(format!("{CHUNKED}5\r\nhello\r\n0\r\n"))], 5),
    ] {
        println!("{script:?}");
        assert_eq!(seen(&script, &up()), Some((bytes, false)));
    }
}

#[test]
fn cut_and_broken_bodies_are_http_failures() {
    let cut = |why: &str| down(Http, &format!("cut off in the body: {why}"));
    let closed = "connection closed";
    let extension = format!("{CHUNKED}5;{}", "x".repeat(3 << 20));
    for (script, expect) in [
        (vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")], cut(closed)),
        (vec![send(format!("{CHUNKED}9\r\nabc"))], cut(closed)),
        (vec![send(format!("{CHUNKED}3\r\nabc\r\n5"))], cut(closed)),
        (vec![send(format!("{CHUNKED}3\r\nabc\r\n"))], cut(closed)),
        (vec![send(format!("{UNTIL_END}abc")), Do::Reset], cut("Connection reset by peer")),
        (vec![send(format!("{CHUNKED}3\r\nabc\r\n")), Do::Reset], cut("Connection reset by peer")),
        (vec![send(format!("{CHUNKED}xyz\r\nabc\r\n"))], down(Http, "bad chunk: chunk length")),
        (vec![send(format!("{CHUNKED}3\r\nabcdef\r\n"))], down(Http, "bad chunk: chunk expected")),
        (vec![send(format!("{CHUNKED}-3\r\nabc\r\n"))], down(Http, "bad chunk: chunk length")),
        (vec![send(extension)], down(Http, "bad chunk: its first line is too long")),
    ] {
        println!("{:.200}", format!("{script:?}"));
        let check = check_script(&script, &expect.phases("resolve connect processing transfer"));
        assert_eq!(check.http_status, Some(200));
    }
}

#[test]
fn bodies_are_read_up_to_the_limit() {
    let max = u32::try_from(MAX_BODY).unwrap();
    let endless_chunks = vec![send(CHUNKED), Do::Flood(b"5\r\nhello\r\n".to_vec())];
    for (script, bytes, truncated) in [
        (vec![answer("HTTP/1.1 200 OK", vec![b'x'; MAX_BODY])], max, false),
        (vec![answer("HTTP/1.1 200 OK", vec![b'x'; MAX_BODY + 1])], max, true),
        (vec![send(UNTIL_END), send(vec![b'x'; MAX_BODY])], max, false),
        (vec![send(UNTIL_END), send(vec![b'x'; MAX_BODY + 1]), Do::Hang], max, true),
        (vec![send(UNTIL_END), Do::Flood(vec![b'x'; 10_000])], max, true),
        (endless_chunks, max, true),
    ] {
        println!("{:.80}", format!("{script:?}"));
        assert_eq!(seen(&script, &up()), Some((bytes, truncated)));
    }
}

#[test]
fn framing_without_body_ends() {
    // Trailers without end are no body: nothing of them counts against the body's limit.
    let script = [send(format!("{CHUNKED}0\r\n")), Do::Flood(b"Trailer: x\r\n".to_vec())];
    check_script(&script, &down(Http, "more than 768 KiB with the body"));
}

#[test]
fn slow_bodies_end_at_the_deadline() {
    let late =
        down(Timeout, "in transfer, after 0.300 s").phases("resolve connect processing transfer");
    for script in [
        vec![send(UNTIL_END), Do::Drip(b"x")],
        vec![send(CHUNKED), Do::Drip(b"1\r\nx\r\n")],
        vec![send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), Do::Hang],
    ] {
        println!("{script:?}");
        let check = check_hurried(&script, &late);
        assert_eq!(check.http_status, Some(200));
        assert!(check.response_time.unwrap() >= 0.3);
    }
}

fn encoded(encoding: &str, body: impl AsRef<[u8]>) -> Vec<Do> {
    vec![answer(&format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}"), body)]
}

#[test]
fn encodings_are_decoded() {
    let text = b"hello hello hello";
    for (encoding, body) in [
        ("identity", text.to_vec()),
        ("", text.to_vec()),
        ("gzip", gzip(text)),
        ("GZIP", gzip(text)),
        ("x-gzip, identity", gzip(text)),
        // Browsers pass over what follows.
        ("gzip", [gzip(text), b"garbage".to_vec()].concat()),
        ("deflate", zlib(text)),
        ("deflate", deflate(text)),
        ("br", BROTLI.to_vec()),
    ] {
        println!("{encoding}");
        assert_eq!(seen(&encoded(encoding, &body), &up()), Some((17, false)));
    }
    assert_eq!(seen(&encoded("gzip", ""), &up()), Some((0, false)));
}

#[test]
fn corrupt_encodings_are_http_failures() {
    let mut corrupt = gzip(b"hello hello hello");
    let last = corrupt.len() - 6;
    corrupt[last] ^= 1;
    let half = gzip(&[b'x'; 1000]);
    let half = &half[..half.len() / 2];
    for (encoding, body, detail) in [
        ("gzip", corrupt.as_slice(), "corrupt gzip content: "),
        ("gzip", half, "corrupt gzip content: "),
        ("gzip", b"plain text", "corrupt gzip content: "),
        ("br", b"plain text", "corrupt br content: "),
        ("br", &[0x11, 30, 0x1b], "corrupt br content: large windows"),
        ("deflate", b"plain text", "corrupt deflate content: "),
        // Also what is cut at the limit must begin well.
        ("gzip", &[b'x'; MAX_BODY + 1], "corrupt gzip content: "),
        ("zstd", b"x", "unknown content-encoding 'zstd'"),
        ("gzip, br", b"x", "more than one content-encoding"),
    ] {
        println!("{encoding}");
        let check = check_script(&encoded(encoding, body), &down(Http, detail));
        assert_eq!((check.http_status, check.body_bytes), (Some(200), None));
    }
}

#[test]
fn bombs_are_cut_at_the_limit() {
    let max = u32::try_from(MAX_BODY).unwrap();
    let exact = vec![b'x'; MAX_BODY];
    let more = vec![b'x'; MAX_BODY + 1];
    let bomb = vec![0; 30 << 20];
    // Incompressible: the wire's limit comes first, in the middle of the stream.
    let noise: Vec<u8> =
        (0u32..1 << 18).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (body, truncated) in
        [(gzip(&exact), false), (gzip(&more), true), (gzip(&bomb), true), (zlib(&bomb), true)]
    {
        let encoding = if body.starts_with(&[0x1f, 0x8b]) { "gzip" } else { "deflate" };
        assert_eq!(seen(&encoded(encoding, &body), &up()), Some((max, truncated)));
    }
    let mut stored = GzEncoder::new(Vec::new(), Compression::none());
    stored.write_all(&noise).unwrap();
    let (bytes, truncated) = seen(&encoded("gzip", stored.finish().unwrap()), &up()).unwrap();
    assert!(truncated && bytes > max / 2, "{bytes}");
}
