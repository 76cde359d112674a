//! All ways of a pattern at once (Pike's simulation): slow, but it needs no memory beyond one entry
//! per state, takes every pattern, and knows what the first group took.

use std::ops::Range;

use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::primitives::StateID;

use super::search::{Found, IsLate, Late, STEPS};

/// No position.
const NONE: usize = usize::MAX;

/// The states a simulation is in, best first, with what each has seen on its way.
struct Threads {
    order: Vec<StateID>,
    place: Vec<usize>,
    seen: Vec<Slots>,
}

/// Begin of the match, begin and end of the first group.
type Slots = [usize; 3];

impl Threads {
    fn new(states: usize) -> Self {
        Self { order: Vec::new(), place: vec![0; states], seen: vec![[NONE; 3]; states] }
    }

    /// Puts `state` behind the others, unless it is there.
    fn add(&mut self, state: StateID) -> bool {
        let place = self.place[state.as_usize()];
        let is_new = self.order.get(place) != Some(&state);
        if is_new {
            self.place[state.as_usize()] = self.order.len();
            self.order.push(state);
        }
        is_new
    }
}

/// Counts steps and asks now and then.
struct Pace<'a> {
    left: usize,
    is_late: IsLate<'a>,
}

impl Pace<'_> {
    fn step(&mut self) -> Result<(), Late> {
        self.left -= 1;
        if self.left == 0 {
            self.left = STEPS;
            if (self.is_late)() {
                return Err(Late);
            }
        }
        Ok(())
    }
}

/// The first match in `span`; with `is_anchored`, only one that begins where the span does.
pub(super) fn simulate(
    nfa: &NFA,
    text: &[u8],
    span: Range<usize>,
    is_anchored: bool,
    is_late: IsLate<'_>,
) -> Result<Option<Found>, Late> {
    let mut pace = Pace { left: STEPS, is_late };
    let states = nfa.states().len();
    let (mut now, mut next) = (Threads::new(states), Threads::new(states));
    let mut todo = Vec::new();
    let mut found = None;
    for at in span.start..=span.end {
        if found.is_none() && (!is_anchored || at == span.start) {
            let way = (nfa.start_anchored(), [at, NONE, NONE]);
            follow(nfa, text, at, way, &mut now, &mut todo, &mut pace)?;
        }
        if now.order.is_empty() && (found.is_some() || is_anchored) {
            break;
        }
        let byte = text.get(at).copied().filter(|_| at < span.end);
        for place in 0..now.order.len() {
            pace.step()?;
            let state = now.order[place];
            let seen = now.seen[state.as_usize()];
            let to = match (nfa.state(state), byte) {
                (State::Match { .. }, _) => {
                    let [start, from, to] = seen;
                    let group = (from != NONE && to != NONE).then_some(from..to);
                    found = Some(Found { span: start..at, group });
                    // The ways behind this one are worse.
                    break;
                }
                (State::ByteRange { trans }, Some(byte)) => {
                    trans.matches_byte(byte).then_some(trans.next)
                }
                (State::Sparse(sparse), Some(byte)) => sparse.matches_byte(byte),
                (State::Dense(dense), Some(byte)) => dense.matches_byte(byte),
                _ => None,
            };
            if let Some(to) = to {
                follow(nfa, text, at + 1, (to, seen), &mut next, &mut todo, &mut pace)?;
            }
        }
        std::mem::swap(&mut now, &mut next);
        next.order.clear();
    }
    Ok(found)
}

/// Adds all states that are reached from `way` without a byte, best first.
fn follow(
    nfa: &NFA,
    text: &[u8],
    at: usize,
    way: (StateID, Slots),
    into: &mut Threads,
    todo: &mut Vec<(StateID, Slots)>,
    pace: &mut Pace<'_>,
) -> Result<(), Late> {
    todo.push(way);
    while let Some((state, mut seen)) = todo.pop() {
        pace.step()?;
        if !into.add(state) {
            continue;
        }
        into.seen[state.as_usize()] = seen;
        match nfa.state(state) {
            State::Look { look, next } if nfa.look_matcher().matches(*look, text, at) => {
                todo.push((*next, seen));
            }
            State::Union { alternates } => {
                todo.extend(alternates.iter().rev().map(|next| (*next, seen)));
            }
            State::BinaryUnion { alt1, alt2 } => {
                todo.extend([(*alt2, seen), (*alt1, seen)]);
            }
            State::Capture { next, slot, .. } => {
                // 0 and 1 are the match itself, 2 and 3 the first group.
                if let Some(kept) =
                    slot.as_usize().checked_sub(1).filter(|kept| (1..3).contains(kept))
                {
                    seen[kept] = at;
                }
                todo.push((*next, seen));
            }
            _ => {}
        }
    }
    Ok(())
}
