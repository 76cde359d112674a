//! Parameters of the query: each route names its own, and no others are taken.

use jiff::Timestamp;

use super::refusal::Refusal;
use super::routes::{Kind, Parameter, Place, Route};
use super::{Problem, cursor};
use crate::wire::parse_time;
use crate::wire::website::Fault;

/// Rows of a page, unless it is said.
pub(super) const LIMIT_DEFAULT: u32 = 50;
/// Most rows of a page.
pub(super) const LIMIT_MAX: u32 = 500;
/// Longest text of a parameter, in characters: a URL's.
pub(super) const TEXT_MAX: usize = crate::site::URL_MAX;

/// A query that has the route's parameters, each at most once and of its kind.
pub(super) struct Query<'a> {
    pairs: Vec<(&'static Parameter, &'a str)>,
}

impl<'a> Query<'a> {
    /// Reads `pairs` as the parameters of `route`.
    pub(super) fn read(route: &Route, pairs: &'a [(String, String)]) -> Result<Self, Refusal> {
        let mut faults = Vec::new();
        let mut read: Vec<(&'static Parameter, &'a str)> = Vec::new();
        for (name, value) in pairs {
            let known = route.parameters().find(|p| p.place == Place::Query && p.name == name);
            let fault = match known {
                None => Some("is no parameter of this path".to_owned()),
                Some(known) if read.iter().any(|(other, _)| other.name == known.name) => {
                    Some("is given more than once".to_owned())
                }
                Some(known) => {
                    read.push((known, value));
                    fault(known.kind, value)
                }
            };
            faults.extend(fault.map(|message| Fault::new(name.as_str(), message)));
        }
        for wanted in route.parameters().filter(|p| p.place == Place::Query && p.required) {
            if !read.iter().any(|(known, _)| known.name == wanted.name) {
                faults.push(Fault::new(wanted.name, "is missing"));
            }
        }
        if faults.is_empty() {
            Ok(Self { pairs: read })
        } else {
            Err(Problem::invalid(faults).into())
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(known, _)| known.name == name).map(|(_, value)| *value)
    }

    pub(super) fn limit(&self) -> u32 {
        self.text("limit").and_then(whole).unwrap_or(LIMIT_DEFAULT)
    }

    pub(super) fn id(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(id)
    }

    pub(super) fn time(&self, name: &str) -> Option<Timestamp> {
        self.text(name).and_then(time)
    }

    /// The same query with another cursor, for the next page.
    pub(super) fn with_cursor(&self, path: &str, cursor: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (known, value) in self.pairs.iter().filter(|(known, _)| known.name != "cursor") {
            query.append_pair(known.name, value);
        }
        query.append_pair("cursor", cursor);
        format!("{path}?{}", query.finish())
    }
}

fn fault(kind: Kind, value: &str) -> Option<String> {
    let is_good = match kind {
        Kind::Text => {
            if value.contains('\0') {
                return Some("has a NUL".to_owned());
            }
            if value.is_empty() || value.chars().count() > TEXT_MAX {
                return Some(format!("must have 1 to {TEXT_MAX} characters"));
            }
            true
        }
        Kind::Limit => whole(value).is_some(),
        Kind::Id => id(value).is_some(),
        Kind::Time => time(value).is_some(),
        Kind::Choice(words) => words.contains(&value),
        Kind::SiteCursor => cursor::site(value).is_some(),
        Kind::CheckCursor => cursor::check(value).is_some(),
        Kind::Uuid | Kind::Flag | Kind::Tags | Kind::Key => true,
    };
    (!is_good).then(|| match kind {
        Kind::Limit => format!("must be a whole number from 1 to {LIMIT_MAX}"),
        Kind::Id => "must be a positive whole number".to_owned(),
        Kind::Time => "must be a time as in 2026-01-01T00:00:00Z".to_owned(),
        Kind::Choice(words) => format!("must be one of {}", words.join(", ")),
        Kind::SiteCursor | Kind::CheckCursor => {
            "must be what 'next' of the page before says".to_owned()
        }
        _ => "is not valid".to_owned(),
    })
}

fn whole(value: &str) -> Option<u32> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|limit| digits && (1..=LIMIT_MAX).contains(limit))
}

/// A key of the table.
pub(super) fn id(value: &str) -> Option<i64> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|id| digits && *id > 0)
}

/// RFC 3339. In a query `+` stands for a blank, so one before an offset that was not encoded has
/// become one.
fn time(value: &str) -> Option<Timestamp> {
    match value.rsplit_once(' ') {
        Some((time, offset)) => parse_time(&format!("{time}+{offset}")),
        None => parse_time(value),
    }
}

/// A part of a path, decoded; nothing where it is no UTF-8.
pub(super) fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits: at most 255.
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_their_kind() {
        for (kind, good, bad) in [
            (Kind::Limit, &["1", "500", "007"][..], &["0", "501", "+5", "1.0", "", "-1"][..]),
            (Kind::Id, &["1", "9223372036854775807"], &["0", "-1", "9223372036854775808", "a", ""]),
            (
                Kind::Time,
                &["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01T01:00:00 01:00"],
                &["2026-01-01", "2026-01-01 00:00:00Z", "now", ""],
            ),
            (Kind::Text, &["%", "a"], &["", "a\0"]),
            (Kind::Choice(&["hour", "day"]), &["hour"], &["Hour", "week", ""]),
        ] {
            for value in good {
                assert_eq!(fault(kind, value), None, "{value}");
            }
            for value in bad {
                assert!(fault(kind, value).is_some(), "{value}");
            }
        }
    }

    #[test]
    fn parts_are_decoded() {
        assert_eq!(decoded("a%20b%zz").as_deref(), Some("a b%zz"));
        assert_eq!(decoded("%ff"), None);
    }
}
