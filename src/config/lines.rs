//! The line of a value in the text of the file.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// How many bytes of YAML all look-ups of lines may read together. Each parses the text again, at
/// 20 MB/s or more: a file with ten thousand faulty sites is told about in a second, the first few
/// hundred faults with their lines.
const LOOKUP_BUDGET: usize = 16 << 20;

/// How many bytes a look-up reads first; most files are smaller.
const WINDOW: usize = 8 << 10;

/// A step from the top of the file to one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Finds the line of a value: it walks the text to the value and fails there on purpose, because
/// the parser gives a place only with an error. As it parses all text before the walk begins, it
/// gets the beginning of the text first, and more only if the value isn't there.
pub(crate) struct Locator<'a> {
    text: &'a str,
    budget: Cell<usize>,
}

impl<'a> Locator<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, budget: Cell::new(LOOKUP_BUDGET) }
    }

    /// The line of the key or list entry at `path`, from 1; of its `occurrence`th (from 0) when
    /// the last key is there several times.
    pub(crate) fn line(&self, path: &[Step], occurrence: usize) -> Option<usize> {
        let mut window = WINDOW;
        loop {
            let part = self.beginning(window);
            self.budget.set(self.budget.get().checked_sub(part.len())?);
            let reached = Cell::new(false);
            let walk = Walk { path, occurrence, reached: &reached };
            let end = walk.deserialize(serde_yaml::Deserializer::from_str(part));
            if reached.get() {
                return end.err()?.location().map(|place| place.line());
            }
            if part.len() == self.text.len() {
                return None;
            }
            window *= 4;
        }
    }

    /// The whole lines in the first `bytes` bytes.
    fn beginning(&self, bytes: usize) -> &'a str {
        let cut =
            self.text.as_bytes().get(..bytes).map(|part| part.iter().rposition(|b| *b == b'\n'));
        match cut {
            Some(Some(end)) => &self.text[..=end],
            Some(None) => "",
            None => self.text,
        }
    }
}

struct Walk<'a> {
    path: &'a [Step],
    occurrence: usize,
    reached: &'a Cell<bool>,
}

impl Walk<'_> {
    fn stop<E: Error>(&self) -> E {
        self.reached.set(true);
        E::custom("here")
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value on the way")
    }

    fn visit_str<E: Error>(self, _text: &str) -> Result<(), E> {
        if self.path.is_empty() { Err(self.stop()) } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, _flag: bool) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_u64<E: Error>(self, _number: u64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_i64<E: Error>(self, _number: i64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_f64<E: Error>(self, _number: f64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.path.split_first() else {
            return self.visit_str("");
        };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Walk { path: rest, ..self })?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.path.split_first() else {
            return self.visit_str("");
        };
        let mut seen = 0;
        loop {
            let here = rest.is_empty() && seen == self.occurrence;
            let key = KeySeed { walk: &self, wanted, here };
            match map.next_key_seed(key)? {
                None => return Ok(()),
                Some(true) if rest.is_empty() => {
                    seen += 1;
                    map.next_value::<IgnoredAny>()?;
                }
                Some(true) => return map.next_value_seed(Walk { path: rest, ..self }),
                Some(false) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
    }
}

/// Whether a key is the wanted one; stops the walk there if it is its end.
struct KeySeed<'a, 'b> {
    walk: &'a Walk<'b>,
    wanted: &'a str,
    here: bool,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match key == self.wanted {
            true if self.here => Err(self.walk.stop()),
            same => Ok(same),
        }
    }

    fn visit_bool<E: Error>(self, key: bool) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_u64<E: Error>(self, key: u64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_f64<E: Error>(self, key: f64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, path: &str, occurrence: usize) -> Option<usize> {
        let steps: Vec<Step> = path
            .split('.')
            .map(|part| part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Index))
            .collect();
        Locator::new(text).line(&steps, occurrence)
    }

    #[test]
    fn lines_in_every_style() {
        let text = "# top\na:\n  b: 1\n  c: {d: 2,\n      e: [x,\n y]}\nlist:\n- n: 1\n  m: 2\n\n- n: \
                    |\n   two\n   lines\n  m: 3\na:\n  b: 2\n5: six\n";
        for (path, occurrence, expected) in [
            ("a", 0, Some(2)),
            ("a", 1, Some(15)),
            ("a.b", 0, Some(3)),
            ("a.c.d", 0, Some(4)),
            ("a.c.e", 0, Some(5)),
            ("a.c.e.1", 0, Some(6)),
            ("list.0", 0, Some(8)),
            ("list.1.n", 0, Some(11)),
            ("list.1.m", 0, Some(14)),
            ("list.2", 0, None),
            ("a.z", 0, None),
            ("a.b.c", 0, None),
        ] {
            assert_eq!(line(text, path, occurrence), expected, "{path} {occurrence}");
        }
        assert_eq!(Locator::new(text).line(&[Step::Key("5".to_owned())], 0), Some(17));
        assert_eq!(line("a: &x {b: 1}\nc: *x\n", "c.b", 0), Some(1));
    }

    #[test]
    fn look_ups_stop_when_the_budget_is_used_up() {
        let line = "# a line\n";
        let lines = LOOKUP_BUDGET / 5 / line.len();
        let text = format!("a: 1\n{}b: 2\n", line.repeat(lines));
        let locator = Locator::new(&text);
        let path = |key: &str| [Step::Key(key.to_owned())];
        assert_eq!(locator.line(&path("b"), 0), Some(lines + 2));
        assert_eq!(locator.line(&path("a"), 0), Some(1));
        assert_eq!(locator.line(&path("b"), 0), Some(lines + 2));
        assert_eq!(locator.line(&path("b"), 0), None);
    }
}
