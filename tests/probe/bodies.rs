//! Bodies, beside those of the table.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::support::{MAX_BODY, answer, check_script, up};

#[test]
fn a_stream_that_the_limit_cuts_is_decoded_up_to_there() {
    // Incompressible: the wire's limit comes first, in the middle of the stream.
    let noise: Vec<u8> =
        (0u32..1 << 18).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stored = GzEncoder::new(Vec::new(), Compression::none());
    stored.write_all(&noise).unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip";
    let check = check_script(&[answer(head, stored.finish().unwrap())], &up());
    let bytes = check.body_bytes.unwrap() as usize;
    assert_eq!(check.body_truncated, Some(true));
    assert!((MAX_BODY / 2..MAX_BODY).contains(&bytes), "{bytes}");
}
