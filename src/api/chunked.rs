//! A body that comes in chunks (RFC 9112, 7.1).

use super::head::{HEAD_MAX, too_long_a_body};
use super::response::Problem;

/// Longest line with a chunk's size and extensions, which nobody uses.
const LINE_MAX: usize = 256;
/// Most digits of a chunk's size; more than any body's limit needs.
const DIGITS_MAX: usize = 8;

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// A line with the next chunk's size.
    Size,
    /// So many bytes of a chunk.
    Data(usize),
    /// The line end behind a chunk.
    End,
    /// Trailer lines, of which so many bytes came, and the empty line.
    Trailer(usize),
}

/// Puts the body together as its bytes come.
#[derive(Debug)]
pub(super) struct Chunked {
    expect: Expect,
    body: Vec<u8>,
    body_max: usize,
}

impl Chunked {
    pub(super) fn new(body_max: usize) -> Self {
        Self { expect: Expect::Size, body: Vec::new(), body_max }
    }

    /// Takes what it can from the front of `input`; the body when it is whole.
    pub(super) fn take(&mut self, input: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Problem> {
        let mut used = 0;
        let result = self.walk(input, &mut used);
        input.drain(..used);
        Ok(result?.then(|| std::mem::take(&mut self.body)))
    }

    /// Whether the body is whole; `used` is how far it came.
    fn walk(&mut self, input: &[u8], used: &mut usize) -> Result<bool, Problem> {
        loop {
            let rest = &input[*used..];
            self.expect = match self.expect {
                Expect::Size => {
                    let Some(line) = line(rest, LINE_MAX)? else { return Ok(false) };
                    *used += line.len() + 2;
                    match size(line)? {
                        0 => Expect::Trailer(0),
                        size if size > self.body_max - self.body.len() => {
                            return Err(too_long_a_body(self.body_max));
                        }
                        size => Expect::Data(size),
                    }
                }
                Expect::Data(0) => Expect::End,
                Expect::Data(left) => {
                    let count = left.min(rest.len());
                    if count == 0 {
                        return Ok(false);
                    }
                    self.body.extend_from_slice(&rest[..count]);
                    *used += count;
                    Expect::Data(left - count)
                }
                Expect::End => match rest {
                    [b'\r', b'\n', ..] => {
                        *used += 2;
                        Expect::Size
                    }
                    [] | [b'\r'] => return Ok(false),
                    _ => return Err(broken()),
                },
                Expect::Trailer(seen) => {
                    let Some(line) = line(rest, HEAD_MAX)? else { return Ok(false) };
                    *used += line.len() + 2;
                    if line.is_empty() {
                        return Ok(true);
                    }
                    // What trailers say is not asked for by anything here.
                    let seen = seen + line.len() + 2;
                    if seen >= HEAD_MAX {
                        return Err(Problem::new(
                            431,
                            format!("trailers may have {HEAD_MAX} bytes"),
                        ));
                    }
                    Expect::Trailer(seen)
                }
            };
        }
    }
}

fn broken() -> Problem {
    Problem::new(400, "the chunks of the body are broken")
}

/// The line at the front without its end; nothing while it is not whole.
fn line(input: &[u8], max: usize) -> Result<Option<&[u8]>, Problem> {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) if end <= max => match input[..end].strip_suffix(b"\r") {
            Some(line) if !line.contains(&b'\r') => Ok(Some(line)),
            _ => Err(broken()),
        },
        None if input.len() <= max => Ok(None),
        _ => Err(broken()),
    }
}

/// The size of a chunk: hexadecimal digits, then perhaps an extension.
fn size(line: &[u8]) -> Result<usize, Problem> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || digits > DIGITS_MAX || !(rest.is_empty() || rest.starts_with(b";")) {
        return Err(broken());
    }
    let digits = std::str::from_utf8(&line[..digits]).unwrap_or_default();
    usize::from_str_radix(digits, 16).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and what is left of the input.
    type Decoded = (Vec<u8>, Vec<u8>);

    /// Of the text, fed in pieces of that length.
    fn decode(text: &[u8], piece: usize) -> Result<Option<Decoded>, u16> {
        let mut chunked = Chunked::new(20);
        let mut input = Vec::new();
        let mut pieces = text.chunks(piece);
        while let Some(piece) = pieces.next() {
            input.extend_from_slice(piece);
            if let Some(body) = chunked.take(&mut input).map_err(|problem| problem.status)? {
                input.extend(pieces.flatten());
                return Ok(Some((body, input)));
            }
        }
        Ok(None)
    }

    #[test]
    fn chunks_are_put_together_however_they_come() {
        let text = b"5\r\nhello\r\n006 ;x=\"y\"\r\n world\r\n0\r\nTrailer: x\r\n\r\nGET";
        for piece in 1..=text.len() {
            let decoded = decode(text, piece).unwrap().unwrap();
            assert_eq!(decoded, (b"hello world".to_vec(), b"GET".to_vec()), "{piece}");
        }
        assert_eq!(decode(b"0\r\n\r\n", 1).unwrap().unwrap().0, b"");
        assert_eq!(decode(b"5\r\nhello\r\n0\r\n", 1), Ok(None));
    }

    #[test]
    fn broken_or_long_ones_are_refused() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(LINE_MAX));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(HEAD_MAX / 6 + 1));
        for (text, expected) in [
            ("15\r\n", 413),
            ("10\r\naaaaaaaaaaaaaaaa\r\n5\r\n", 413),
            ("ffffffff\r\n", 413),
            ("100000000\r\n", 400),
            ("-1\r\n", 400),
            ("+1\r\n", 400),
            ("0x1\r\n", 400),
            ("\r\n", 400),
            (" 1\r\na\r\n", 400),
            ("1 1\r\na\r\n", 400),
            ("1\na\r\n", 400),
            ("1\r\r\na\r\n", 400),
            ("1\r\nab\r\n", 400),
            ("1\r\na\n0\r\n", 400),
            (&long, 400),
            (&trailers, 431),
        ] {
            for piece in [1, 1 << 20] {
                let got = decode(text.as_bytes(), piece);
                assert_eq!(got, Err(expected), "{text:.40}");
            }
        }
    }
}
