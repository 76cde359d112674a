//! Requests out of the bytes of one connection, as they come.

use super::chunked::Chunked;
use super::head::{self, Framing, HEAD_MAX, Head};
use super::response::Problem;

/// What the bytes so far amount to.
#[derive(Debug)]
pub(super) enum Step {
    /// More of them are needed.
    More,
    /// A head, once for each request; its body is still to come.
    Head(Box<Head>),
    /// The body behind that head: the request is whole.
    Body(Vec<u8>),
    /// No request, and nothing that follows can be one.
    Bad(Problem),
}

#[derive(Debug)]
enum State {
    Head {
        /// How many bytes were looked at.
        seen: usize,
    },
    Length(usize),
    Chunked(Chunked),
}

/// Reads requests one after another; what came behind one is kept for the next.
#[derive(Debug)]
pub(super) struct Reader {
    input: Vec<u8>,
    state: State,
    body_max: usize,
}

impl Reader {
    pub(super) fn new(body_max: usize) -> Self {
        Self { input: Vec::new(), state: State::Head { seen: 0 }, body_max }
    }

    /// Whether bytes wait that were not looked at.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// More bytes of the connection.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next step.
    pub(super) fn next(&mut self) -> Step {
        match &mut self.state {
            State::Head { seen } => {
                // What is no request shows at once; after that only line ends make a difference.
                let has_news = *seen == 0 || self.input[*seen..].contains(&b'\n');
                if self.input.is_empty() || (!has_news && self.input.len() < HEAD_MAX) {
                    *seen = self.input.len();
                    return Step::More;
                }
                *seen = self.input.len();
                match head::parse(&self.input, self.body_max) {
                    Ok(None) => Step::More,
                    Ok(Some((head, length))) => {
                        self.input.drain(..length);
                        self.state = match head.framing {
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::Chunked(Chunked::new(self.body_max)),
                        };
                        Step::Head(Box::new(head))
                    }
                    Err(problem) => Step::Bad(problem),
                }
            }
            State::Length(length) if self.input.len() < *length => Step::More,
            State::Length(length) => {
                let next = self.input.split_off(*length);
                let body = std::mem::replace(&mut self.input, next);
                self.state = State::Head { seen: 0 };
                Step::Body(body)
            }
            State::Chunked(chunked) => match chunked.take(&mut self.input) {
                Ok(None) => Step::More,
                Ok(Some(body)) => {
                    self.state = State::Head { seen: 0 };
                    Step::Body(body)
                }
                Err(problem) => Step::Bad(problem),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths and bodies of all requests, the text fed in pieces of that length.
    fn requests(text: &[u8], piece: usize) -> Vec<(String, Vec<u8>)> {
        let mut reader = Reader::new(100);
        let (mut requests, mut path) = (Vec::new(), String::new());
        for piece in text.chunks(piece) {
            reader.add(piece);
            loop {
                match reader.next() {
                    Step::More => break,
                    Step::Head(head) => path = head.path,
                    Step::Body(body) => requests.push((path.clone(), body)),
                    Step::Bad(problem) => panic!("{problem:?}"),
                }
            }
        }
        assert!(!reader.has_input());
        requests
    }

    #[test]
    fn requests_are_told_apart_however_they_come() {
        let text = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
            POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
            \r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
            GET /4 HTTP/1.1\r\nHost: a\r\n\r\n";
        let expected = [("/1", ""), ("/2", "hello"), ("/3", "ab"), ("/4", "")]
            .map(|(path, body)| (path.to_owned(), body.as_bytes().to_vec()));
        for piece in 1..=text.len() {
            assert_eq!(requests(text, piece), expected, "{piece}");
        }
    }
}
