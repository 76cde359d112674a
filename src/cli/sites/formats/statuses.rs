//! Sets of status codes, put together from conditions.

const FIRST: u16 = 100;
const LAST: u16 = 999;
/// What is followed, so that who follows redirects never sees it as the answer.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Codes from 100 to 999.
#[derive(Clone, Debug)]
pub(super) struct Statuses(Vec<u16>);

impl Statuses {
    pub(super) fn all() -> Self {
        Self((FIRST..=LAST).collect())
    }

    /// Keeps the codes that `fits` likes.
    pub(super) fn keep(&mut self, fits: impl Fn(u16) -> bool) {
        self.0.retain(|code| fits(*code));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves out what is a redirect, unless nothing else is in it: webmon takes a redirect that
    /// is expected for the answer, and does not follow it.
    pub(super) fn without_followed(mut self) -> Self {
        let others: Vec<u16> = self.0.iter().copied().filter(|c| !REDIRECTS.contains(c)).collect();
        if !others.is_empty() {
            self.0 = others;
        }
        self
    }
}

impl std::fmt::Display for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ranges = self.0.chunk_by(|a, b| *b == a + 1);
        for (at, range) in ranges.enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match range {
                [one] => write!(f, "{comma}{one}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_and_redirects_left_out() {
        let mut below = Statuses::all();
        below.keep(|code| code < 400);
        assert_eq!(below.to_string(), "100-399");
        assert_eq!(below.without_followed().to_string(), "100-300,304-306,309-399");
        let mut moved = Statuses::all();
        moved.keep(|code| code == 301);
        assert_eq!(moved.without_followed().to_string(), "301");
    }
}
