//! A site's request headers as JSON.

use serde_json::Value;

use super::masks::{MASK, is_reference, is_secret_header};
use super::website::{NUL, no_mask};
use crate::site::SiteSpec;

pub(super) type Headers = Vec<(String, String)>;

/// An object, or pairs where a name occurs more than once.
pub(super) fn headers_json(headers: &Headers, is_masked: bool) -> Value {
    if headers.is_empty() {
        return Value::Null;
    }
    let shown = |(name, value): &(String, String)| {
        let hidden = is_masked && is_secret_header(name) && !is_reference(value);
        (name.clone(), Value::from(if hidden { MASK } else { value.as_str() }))
    };
    let is_repeated = headers.iter().enumerate().any(|(at, (name, _))| {
        headers[..at].iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
    });
    if is_repeated {
        let pair = |header| {
            let (name, value) = shown(header);
            Value::from(vec![Value::from(name), value])
        };
        return headers.iter().map(pair).collect();
    }
    Value::Object(headers.iter().map(shown).collect())
}

/// The headers of a value. Masks stand for the values of `before`.
pub(super) fn read(value: Value, before: Option<&SiteSpec>) -> Result<Headers, String> {
    let wrong = || "must be names with texts, or a list of [name, text]".to_owned();
    let pair = |value: Value| match value {
        Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
            Ok([Value::String(name), Value::String(text)]) => Some((name, text)),
            _ => None,
        },
        _ => None,
    };
    let entry = |(name, value)| match value {
        Value::String(text) => Some((name, text)),
        _ => None,
    };
    let headers: Option<Headers> = match value {
        Value::Null => Some(Vec::new()),
        Value::Object(object) => object.into_iter().map(entry).collect(),
        Value::Array(pairs) => pairs.into_iter().map(pair).collect(),
        _ => None,
    };
    let mut headers = headers.ok_or_else(wrong)?;
    let old = before.map_or(&[][..], |before| before.headers.as_slice());
    let is_mask = |(name, value): &(String, String)| value == MASK && is_secret_header(name);
    let named = |name: &str| {
        let name = name.to_owned();
        move |(other, _): &&(String, String)| other.eq_ignore_ascii_case(&name)
    };
    for (name, _) in headers.iter().filter(|header| is_mask(header)) {
        let sent = headers.iter().filter(|header| is_mask(header)).filter(named(name)).count();
        let known = old.iter().filter(named(name)).count();
        // Which of them is meant can't be told.
        if known > 0 && sent != known {
            return Err(format!(
                "has {MASK} {sent} times where the site has {known} of that name: write the values"
            ));
        }
    }
    let mut taken = vec![false; old.len()];
    for (name, value) in &mut headers {
        if name.contains('\0') || value.contains('\0') {
            return Err(NUL.to_owned());
        }
        if value != MASK || !is_secret_header(name) {
            continue;
        }
        let same = |(at, (other, _)): &(usize, &(String, String))| {
            !taken[*at] && other.eq_ignore_ascii_case(name)
        };
        let (at, (_, known)) = old.iter().enumerate().find(same).ok_or_else(no_mask)?;
        taken[at] = true;
        value.clone_from(known);
    }
    Ok(headers)
}
