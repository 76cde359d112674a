//! Searches that can be ended while they run.
//!
//! The usual engine takes time linear in pattern and text, but can't be told to stop: a pattern of
//! 1000 states took 4 to 15 s over 1 MiB, one of 10,000 more than a minute. So it is used only where
//! states times bytes are few; beyond, the searches here ask again and again whether it is too
//! late.
//!
//! Invariants:
//! - Both ways find the same: leftmost-first matches, as `regex` does.
//! - Between two questions whether it is late lie at most about [`WORK`] steps of some
//!   nanoseconds.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{Config as NfaConfig, NFA, WhichCaptures};
use regex_automata::util::prefilter::Prefilter;
use regex_automata::util::syntax::{Config as SyntaxConfig, parse_with};
use regex_automata::{Anchored, Input, MatchKind, Span};

use super::simulation::simulate;

/// States times bytes that may pass without a question whether it is late. The worst of many
/// odd patterns took 20 ns each: 40 ms.
pub(super) const WORK: usize = 2_000_000;
/// Steps of the slow way between two questions.
pub(super) const STEPS: usize = 4096;

/// It became too late for the search to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// Tells whether it is too late to go on.
pub type IsLate<'a> = &'a mut dyn FnMut() -> bool;

/// A match, and the part of it that the first group took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) span: Range<usize>,
    pub(super) group: Option<Range<usize>>,
}

/// The automaton of `source`, which `regex` has compiled already.
fn automaton(source: &str, is_reverse: bool) -> Option<NFA> {
    let captures = if is_reverse { WhichCaptures::None } else { WhichCaptures::All };
    let config = NfaConfig::new().utf8(false).reverse(is_reverse).which_captures(captures);
    let syntax = SyntaxConfig::new().utf8(false);
    NFA::compiler().configure(config).syntax(syntax).build(source).ok()
}

/// How many states `source` has: what a step of a search may have to look at.
pub(super) fn states(source: &str) -> usize {
    automaton(source, false).map_or(usize::MAX, |nfa| nfa.states().len())
}

/// Searches for one pattern, in steps.
#[derive(Debug)]
pub(super) struct Search {
    nfa: NFA,
    /// Absent where a state machine would have to know more than bytes: for Unicode's `\b`.
    dfas: Option<Dfas>,
}

#[derive(Debug)]
struct Dfas {
    forward: DFA,
    reverse: DFA,
    /// What was built of both so far; absent while somebody searches with it.
    caches: Mutex<Option<(Cache, Cache)>>,
    /// Finds what every match begins with, much faster than the machines.
    prefix: Option<Prefilter>,
    /// Bytes between two questions.
    stride: usize,
}

impl Search {
    pub(super) fn new(source: &str) -> Option<Self> {
        let nfa = automaton(source, false)?;
        let dfas = Dfas::new(&nfa, source);
        Some(Self { nfa, dfas })
    }

    /// The first match from `at` on.
    pub(super) fn find(
        &self,
        text: &[u8],
        at: usize,
        is_late: IsLate<'_>,
    ) -> Result<Option<Range<usize>>, Late> {
        match &self.dfas {
            Some(dfas) => dfas.find(text, at, is_late),
            None => {
                Ok(simulate(&self.nfa, text, at..text.len(), false, is_late)?
                    .map(|found| found.span))
            }
        }
    }

    /// What the first group took of the match `span`.
    pub(super) fn group(
        &self,
        text: &[u8],
        span: Range<usize>,
        is_late: IsLate<'_>,
    ) -> Result<Option<Range<usize>>, Late> {
        Ok(simulate(&self.nfa, text, span, true, is_late)?.and_then(|found| found.group))
    }
}

impl Dfas {
    fn new(nfa: &NFA, source: &str) -> Option<Self> {
        let syntax = parse_with(source, &SyntaxConfig::new().utf8(false)).ok()?;
        let prefix = Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, &syntax);
        let has_prefix = prefix.is_some();
        let build = |kind, nfa| {
            let config = DFA::config().match_kind(kind).skip_cache_capacity_check(true);
            // Only where something can be made of it: it costs a look at every step.
            let config = config.specialize_start_states(has_prefix);
            DFA::builder().configure(config).build_from_nfa(nfa).ok()
        };
        let reverse = automaton(source, true)?;
        let stride = (WORK / nfa.states().len().max(1)).clamp(16, STEPS);
        Some(Self {
            forward: build(MatchKind::LeftmostFirst, nfa.clone())?,
            reverse: build(MatchKind::All, reverse)?,
            caches: Mutex::new(None),
            prefix,
            stride,
        })
    }

    fn find(
        &self,
        text: &[u8],
        at: usize,
        is_late: IsLate<'_>,
    ) -> Result<Option<Range<usize>>, Late> {
        let kept = self.caches.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut caches =
            kept.unwrap_or_else(|| (self.forward.create_cache(), self.reverse.create_cache()));
        let result = self.find_with(&mut caches, text, at, is_late);
        *self.caches.lock().unwrap_or_else(PoisonError::into_inner) = Some(caches);
        result
    }

    /// The leftmost match's end with one machine, then its begin with the other, backwards.
    fn find_with(
        &self,
        (forward, reverse): &mut (Cache, Cache),
        text: &[u8],
        at: usize,
        is_late: IsLate<'_>,
    ) -> Result<Option<Range<usize>>, Late> {
        let Some(end) = self.end(forward, text, at, is_late)? else { return Ok(None) };
        let begin = self.begin(reverse, text, at..end, is_late)?;
        Ok(begin.map(|begin| begin..end))
    }

    /// Where the leftmost match from `at` on ends.
    fn end(
        &self,
        cache: &mut Cache,
        text: &[u8],
        at: usize,
        is_late: IsLate<'_>,
    ) -> Result<Option<usize>, Late> {
        let dfa = &self.forward;
        // No call of a machine fails: no byte ends these, and their caches may be filled anew for
        // ever.
        let start = |cache: &mut Cache, at: usize| {
            dfa.start_state_forward(cache, &Input::new(text).range(at..)).map_err(|_| Late)
        };
        let mut at = match self.candidate(text, at) {
            Some(at) => at,
            None => return Ok(None),
        };
        let mut state = start(cache, at)?;
        let mut found = None;
        let mut left = self.stride;
        while let Some(byte) = text.get(at) {
            left -= 1;
            if left == 0 {
                if is_late() {
                    return Err(Late);
                }
                left = self.stride;
            }
            state = dfa.next_state(cache, state, *byte).map_err(|_| Late)?;
            if state.is_tagged() {
                // A machine says so one byte later.
                if state.is_match() {
                    found = Some(at);
                } else if state.is_dead() {
                    return Ok(found);
                } else if state.is_start() {
                    // Nothing has begun: on to where something can.
                    let Some(next) = self.candidate(text, at + 1) else { return Ok(found) };
                    if next > at + 1 {
                        at = next;
                        state = start(cache, at)?;
                        continue;
                    }
                }
            }
            at += 1;
        }
        state = dfa.next_eoi_state(cache, state).map_err(|_| Late)?;
        Ok(if state.is_match() { Some(text.len()) } else { found })
    }

    /// The first place from `at` on where a match can begin.
    fn candidate(&self, text: &[u8], at: usize) -> Option<usize> {
        match &self.prefix {
            Some(prefix) => prefix.find(text, Span::from(at..text.len())).map(|span| span.start),
            None => Some(at),
        }
    }

    /// Where the longest match that fills the end of `span` begins.
    fn begin(
        &self,
        cache: &mut Cache,
        text: &[u8],
        span: Range<usize>,
        is_late: IsLate<'_>,
    ) -> Result<Option<usize>, Late> {
        let dfa = &self.reverse;
        let input = Input::new(text).range(span.clone()).anchored(Anchored::Yes);
        let mut state = dfa.start_state_reverse(cache, &input).map_err(|_| Late)?;
        let mut found = None;
        let mut left = self.stride;
        for at in span.clone().rev() {
            left -= 1;
            if left == 0 {
                if is_late() {
                    return Err(Late);
                }
                left = self.stride;
            }
            state = dfa.next_state(cache, state, text[at]).map_err(|_| Late)?;
            if state.is_tagged() {
                if state.is_match() {
                    found = Some(at + 1);
                } else if state.is_dead() {
                    return Ok(found);
                }
            }
        }
        state = match span.start.checked_sub(1) {
            Some(before) => dfa.next_state(cache, state, text[before]),
            None => dfa.next_eoi_state(cache, state),
        }
        .map_err(|_| Late)?;
        Ok(if state.is_match() { Some(span.start) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::Regex;

    use super::*;

    /// The first match from `at` on, by both ways, with its first group.
    fn both(source: &str, text: &[u8], at: usize) -> [Option<Found>; 2] {
        let search = Search::new(source).unwrap();
        let never: IsLate<'_> = &mut || false;
        let slow = simulate(&search.nfa, text, at..text.len(), false, never).unwrap();
        let found = search.find(text, at, never).unwrap();
        let quick = found
            .map(|span| Found { group: search.group(text, span.clone(), never).unwrap(), span });
        [slow, quick]
    }

    fn expected(source: &str, text: &[u8], at: usize) -> Option<Found> {
        let captures = Regex::new(source).unwrap().captures_at(text, at)?;
        let span = captures.get(0)?.range();
        Some(Found { span, group: captures.get(1).map(|group| group.range()) })
    }

    const PATTERNS: [&str; 21] = [
        "",
        "a",
        "b|ab",
        "ab|a",
        "(a|ab)(b?)",
        "a*?",
        "(a*)",
        "(?:a|b)*b",
        "^a",
        "a$",
        "(?m)^b$",
        r"\bab\b",
        r"(?-u:\b)b",
        "(?i)A(b)?",
        r"(?-u)[^a]",
        "é+",
        r"\w(\w)",
        "ab+(a?)",
        "(?:(a)|b)*",
        "a{2,3}?b",
        r"(?s).*(b).*",
    ];

    const PIECES: [&[u8]; 6] = [b"a", b"b", b" ", b"\n", "é".as_bytes(), b"\xff"];

    proptest! {
        #[test]
        fn both_ways_find_what_regex_finds(
            pattern in 0..PATTERNS.len(),
            text in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..12),
            at in 0..12_usize,
        ) {
            let text = text.concat();
            let (source, at) = (PATTERNS[pattern], at.min(text.len()));
            let expected = expected(source, &text, at);
            prop_assert_eq!(both(source, &text, at), [expected.clone(), expected]);
        }
    }

    #[test]
    fn both_ways_end_when_it_is_late() {
        let text = b"ab".repeat(50_000);
        for source in ["[ab]*a[ab]{200}c", r"\b[ab]*a[ab]{200}c"] {
            let search = Search::new(source).unwrap();
            assert_eq!(search.dfas.is_some(), !source.starts_with('\\'));
            let mut asked = 0;
            let late = search.find(&text, 0, &mut || {
                asked += 1;
                asked == 3
            });
            assert_eq!((late, asked), (Err(Late), 3));
            let late = simulate(&search.nfa, &text, 0..text.len(), true, &mut || true);
            assert_eq!(late, Err(Late));
        }
    }
}
