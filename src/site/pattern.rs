//! Patterns, compiled once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use regex::bytes::{Regex, RegexBuilder};

use super::search::{self, IsLate, Late, Search, WORK};

/// Longest pattern, in bytes.
pub const PATTERN_MAX: usize = 1024;
/// Largest compiled pattern, in bytes: bounds the memory one site can take.
pub const PATTERN_COMPILED_MAX: usize = 1 << 20;
/// Most states of a compiled pattern: each takes 24 bytes or more.
const STATES_MAX: usize = PATTERN_COMPILED_MAX / 24;

/// A pattern that compiles within the limits. It runs on bytes, in time linear in the body.
///
/// Equal patterns are one compiled pattern: it takes tens of kilobytes with its caches, and
/// thousands of sites often share one.
#[derive(Clone, Debug)]
pub struct Pattern {
    compiled: Arc<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    regex: Regex,
    /// How many states it has; counted when a text is so long that it matters.
    states: OnceLock<usize>,
    /// For texts that are too long for `regex`.
    search: OnceLock<Option<Box<Search>>>,
}

/// The compiled patterns that are in use, by their text.
static COMPILED: Mutex<BTreeMap<String, Weak<Compiled>>> = Mutex::new(BTreeMap::new());

impl Pattern {
    /// Compiles `source`.
    ///
    /// # Errors
    /// What is wrong with it, on one line.
    pub fn new(source: &str) -> Result<Self, String> {
        if source.len() > PATTERN_MAX {
            return Err(format!("has {} bytes; at most {PATTERN_MAX}", source.len()));
        }
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = compiled.get(source).and_then(Weak::upgrade) {
            return Ok(Self { compiled });
        }
        let regex = RegexBuilder::new(source).size_limit(PATTERN_COMPILED_MAX).build().map_err(
            |error| match error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("compiles to more than {limit} bytes; make it simpler")
                }
                // The first lines draw the pattern; the last says what is wrong.
                other => other.to_string().lines().last().unwrap_or_default().to_owned(),
            },
        )?;
        // Now and then those that no site has any more are forgotten; at powers of two, so that it
        // costs each insertion the same in the mean.
        if compiled.len().is_power_of_two() {
            compiled.retain(|_, pattern| pattern.strong_count() > 0);
        }
        let new = Compiled { regex, states: OnceLock::new(), search: OnceLock::new() };
        let new = Arc::new(new);
        compiled.insert(source.to_owned(), Arc::downgrade(&new));
        Ok(Self { compiled: new })
    }

    /// The text it was made from.
    #[must_use]
    pub fn source(&self) -> &str {
        self.compiled.regex.as_str()
    }

    /// Whether it has groups.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.compiled.regex.captures_len() > 1
    }

    /// The first match in `text`.
    ///
    /// # Errors
    /// [`Late`], some tens of milliseconds after `is_late` says so.
    pub fn find(&self, text: &[u8], is_late: IsLate<'_>) -> Result<Option<Range<usize>>, Late> {
        self.find_at(text, 0, is_late)
    }

    /// The first `most` matches in `text`, none overlapping another; if the pattern has groups,
    /// what the first of them took of each. A group that took no part is left out. `None`: the
    /// pattern is not in the text.
    ///
    /// # Errors
    /// [`Late`], some tens of milliseconds after `is_late` says so.
    pub fn find_all(
        &self,
        text: &[u8],
        most: usize,
        is_late: IsLate<'_>,
    ) -> Result<Option<Vec<Range<usize>>>, Late> {
        let mut all = Vec::new();
        let (mut at, mut last_end) = (0, None);
        while all.len() < most && at <= text.len() {
            let Some(span) = self.find_at(text, at, is_late)? else { break };
            at = span.end + usize::from(span.is_empty());
            // An empty match right behind another is part of that.
            if span.is_empty() && last_end == Some(span.end) {
                continue;
            }
            last_end = Some(span.end);
            if self.has_groups() {
                all.extend(self.group(text, span, is_late)?);
            } else {
                all.push(span);
            }
            // Each search may go through the whole rest.
            if is_late() {
                return Err(Late);
            }
        }
        Ok(last_end.map(|_| all))
    }

    fn find_at(
        &self,
        text: &[u8],
        at: usize,
        is_late: IsLate<'_>,
    ) -> Result<Option<Range<usize>>, Late> {
        match self.search_for(text.len() - at) {
            Some(search) => search.find(text, at, is_late),
            None => Ok(self.compiled.regex.find_at(text, at).map(|found| found.range())),
        }
    }

    /// What the first group took of the match `span`.
    fn group(
        &self,
        text: &[u8],
        span: Range<usize>,
        is_late: IsLate<'_>,
    ) -> Result<Option<Range<usize>>, Late> {
        // The usual engine moves all groups along, and may look behind the match.
        let groups = self.compiled.regex.captures_len();
        match self.search_for((text.len() - span.start).saturating_mul(groups)) {
            Some(search) => search.group(text, span, is_late),
            None => {
                let found = self.compiled.regex.captures_at(text, span.start);
                Ok(found.and_then(|captures| captures.get(1)).map(|group| group.range()))
            }
        }
    }

    /// The search that can be ended, if `regex` might take too long for so many bytes.
    fn search_for(&self, bytes: usize) -> Option<&Search> {
        if bytes <= WORK / STATES_MAX {
            return None;
        }
        let states =
            *self.compiled.states.get_or_init(|| search::states(self.compiled.regex.as_str()));
        if states.saturating_mul(bytes) <= WORK {
            return None;
        }
        let search = &self.compiled.search;
        search.get_or_init(|| Search::new(self.source()).map(Box::new)).as_deref()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_matches_are_those_of_regex(
            source in proptest::sample::select(
                vec!["a", "a*", "(a)|b", "(b?)", r"\b", "$", "ab|", "(?:a|b)+?", "(a+)$"],
            ),
            text in "[ab é]{0,12}",
            most in 0..5_usize,
        ) {
            let regex = Regex::new(source).unwrap();
            let group = usize::from(regex.captures_len() > 1);
            let all = regex.captures_iter(text.as_bytes()).filter_map(|found| found.get(group));
            let expected: Vec<_> = all.take(most).map(|found| found.range()).collect();
            let found = Pattern::new(source).unwrap().find_all(text.as_bytes(), most, &mut || false);
            let is_match = most > 0 && regex.is_match(text.as_bytes());
            prop_assert_eq!(found, Ok(is_match.then_some(expected)));
        }
    }

    #[test]
    fn equal_patterns_are_compiled_once() {
        let (one, other) = (Pattern::new("a+b"), Pattern::new("a+b"));
        assert!(Arc::ptr_eq(&one.unwrap().compiled, &other.unwrap().compiled));
        assert!(Pattern::new("a+c").unwrap().find(b"xaac", &mut || false) == Ok(Some(1..4)));
    }

    #[test]
    fn patterns_have_limits() {
        assert!(Pattern::new(&"x".repeat(PATTERN_MAX + 1)).unwrap_err().contains("at most"));
        assert!(Pattern::new(r"(\w{400}){400}").unwrap_err().contains("simpler"));
    }
}
