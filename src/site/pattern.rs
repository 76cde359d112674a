//! Patterns, compiled once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use regex::bytes::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
pub const PATTERN_MAX: usize = 1024;
/// Largest compiled pattern, in bytes: bounds the memory one site can take.
pub const PATTERN_COMPILED_MAX: usize = 1 << 20;

/// A pattern that compiles within the limits. It runs on bytes, in time linear in the body.
///
/// Equal patterns are one compiled pattern: it takes tens of kilobytes with its caches, and
/// thousands of sites often share one.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Arc<Regex>,
}

/// The compiled patterns that are in use, by their text.
static COMPILED: Mutex<BTreeMap<String, Weak<Regex>>> = Mutex::new(BTreeMap::new());

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
        if let Some(regex) = compiled.get(source).and_then(Weak::upgrade) {
            return Ok(Self { regex });
        }
        let regex = RegexBuilder::new(source)
            .size_limit(PATTERN_COMPILED_MAX)
            .build()
            .map(Arc::new)
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("compiles to more than {limit} bytes; make it simpler")
                }
                // The first lines draw the pattern; the last says what is wrong.
                other => other.to_string().lines().last().unwrap_or_default().to_owned(),
            })?;
        // Now and then those that no site has any more are forgotten; at powers of two, so that it
        // costs each insertion the same in the mean.
        if compiled.len().is_power_of_two() {
            compiled.retain(|_, regex| regex.strong_count() > 0);
        }
        compiled.insert(source.to_owned(), Arc::downgrade(&regex));
        Ok(Self { regex })
    }

    /// The text it was made from.
    #[must_use]
    pub fn source(&self) -> &str {
        self.regex.as_str()
    }

    /// The compiled pattern.
    #[must_use]
    pub fn regex(&self) -> &Regex {
        &self.regex
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_patterns_are_compiled_once() {
        let (one, other) = (Pattern::new("a+b"), Pattern::new("a+b"));
        assert!(Arc::ptr_eq(&one.unwrap().regex, &other.unwrap().regex));
        assert!(Pattern::new("a+c").unwrap().regex().is_match(b"xaac"));
    }

    #[test]
    fn patterns_have_limits() {
        assert!(Pattern::new(&"x".repeat(PATTERN_MAX + 1)).unwrap_err().contains("at most"));
        assert!(Pattern::new(r"(\w{400}){400}").unwrap_err().contains("simpler"));
    }
}
