//! The buffers of one connection, handed on from connection to connection within a thread.

/// Input at the start. Larger ones cost more than they save: 16 KiB instead of ureq's 128 KiB
/// took 6 µs off a check.
const INPUT: usize = 16 << 10;
/// Longest line of a request: method, URL or one header.
pub(super) const OUTPUT: usize = 16 << 10;
/// One read from a TLS socket: two full records.
const RECORDS: usize = 32 << 10;
/// Most input while the head is not whole: above [`super::transport::HEAD_MAX`], so that ureq
/// sees a head that is too large, and says so.
const INPUT_HEAD_MAX: usize = 160 << 10;
/// Free room below which the input is moved to the front.
const ROOM: usize = 4 << 10;

/// Input, output and, for TLS, records.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
    /// What was read from the socket and not yet taken by TLS; empty without TLS.
    pub(super) records: Vec<u8>,
    start: usize,
    end: usize,
    scanned: usize,
    progress: bool,
    /// The input may grow: a head must be whole before it is handed on. A body is taken piece by
    /// piece, and a chunk's line that doesn't fit is no chunk's line.
    pub(super) may_grow: bool,
}

impl Buffers {
    /// Makes ready for a connection.
    pub(super) fn open(&mut self, is_tls: bool) {
        self.input.resize(self.input.len().max(INPUT), 0);
        self.output.resize(self.output.len().max(OUTPUT), 0);
        if is_tls {
            self.records.resize(RECORDS, 0);
        }
        self.may_grow = true;
    }

    /// Forgets what is in them; whether they are worth keeping.
    pub(super) fn reset(&mut self) -> bool {
        (self.start, self.end, self.scanned) = (0, 0, 0);
        self.progress = false;
        self.input.len() <= INPUT
    }

    pub(super) fn written(&self, amount: usize) -> &[u8] {
        &self.output[..amount]
    }

    /// The room for input together with the records: a read needs both.
    pub(super) fn room(&mut self) -> (&mut [u8], &mut [u8]) {
        self.make_room();
        (&mut self.input[self.end..], &mut self.records)
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end, self.scanned) = (0, 0, 0);
        } else if self.start > 0 && self.input.len() - self.end < ROOM {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.input.len() && self.may_grow && self.input.len() < INPUT_HEAD_MAX {
            let double = (self.input.len() * 2).min(INPUT_HEAD_MAX);
            self.input.resize(double, 0);
        }
    }

    /// Bytes `from..` of the unconsumed input.
    pub(super) fn newest(&self, amount: usize) -> &[u8] {
        &self.input[self.end - amount..self.end]
    }

    /// Whether the unconsumed input is worth parsing as a head: it has an empty line, or it does
    /// not begin like HTTP, or it is larger than any head may be. Only new bytes are searched,
    /// so a dripping head costs one parse, not one per byte.
    pub(super) fn has_head(&mut self, max: usize) -> bool {
        let input = &self.input[self.start..self.end];
        let begin = input.len().min(5);
        if input[..begin] != b"HTTP/"[..begin] || input.len() > max {
            return true;
        }
        // An end may lie across the seam: at most "\n\r" of it was seen before.
        let from = self.scanned.saturating_sub(2);
        if has_empty_line(&input[from..]) {
            return true;
        }
        self.scanned = input.len();
        false
    }
}

/// Whether a line end is followed by an empty line.
fn has_empty_line(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[at + 1..];
        if rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return true;
        }
    }
    false
}

impl ureq::unversioned::transport::Buffers for Buffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.room().0
    }

    fn input_appended(&mut self, amount: usize) {
        self.end += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start += amount;
        self.scanned = self.scanned.saturating_sub(amount);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.make_room();
        // For a request body of unknown length, which no check has; ureq asks for it always.
        if self.input.len() == self.end {
            self.input.resize(self.end + ROOM, 0);
        }
        (&mut self.input[self.end..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.start != self.end && self.progress
    }
}

#[cfg(test)]
mod tests {
    use ureq::unversioned::transport::Buffers as _;

    use super::*;

    fn append(buffers: &mut Buffers, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = buffers.input_append_buf();
            let (now, later) = rest.split_at(rest.len().min(room.len()).min(7));
            room[..now.len()].copy_from_slice(now);
            buffers.input_appended(now.len());
            rest = later;
        }
    }

    #[test]
    fn a_head_is_whole_at_its_empty_line() {
        for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
            let head = format!("HTTP/1.1 200 OK\r\na: b{end}");
            let mut buffers = Buffers::default();
            buffers.open(false);
            for (at, byte) in head.bytes().enumerate() {
                append(&mut buffers, &[byte]);
                assert_eq!(buffers.has_head(1 << 20), at + 1 == head.len(), "{at} of {head:?}");
            }
        }
    }

    #[test]
    fn what_is_not_http_is_not_waited_for() {
        let mut buffers = Buffers::default();
        buffers.open(false);
        append(&mut buffers, b"SSH-");
        assert!(buffers.has_head(1 << 20));
    }

    #[test]
    fn input_moves_and_grows_up_to_its_limit() {
        let mut buffers = Buffers::default();
        buffers.open(false);
        append(&mut buffers, &vec![b'x'; INPUT_HEAD_MAX]);
        assert!(buffers.input_append_buf().is_empty());
        buffers.input_consume(INPUT_HEAD_MAX - 3);
        append(&mut buffers, b"yz");
        assert_eq!(buffers.input(), b"xxxyz");
        assert!(!buffers.reset());
        let mut body = Buffers::default();
        body.open(false);
        body.may_grow = false;
        append(&mut body, &[b'x'; INPUT]);
        assert!(body.input_append_buf().is_empty());
        assert!(body.reset());
    }
}
