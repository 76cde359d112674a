//! References to secrets: `{secret:NAME}` in a text stands for what a file of that name holds.
//!
//! Whoever may add sites must not thereby be able to read any file or variable of the producer
//! and have it sent to a server of theirs: names are plain, and looked up in one place only.

use std::borrow::Cow;

const OPEN: &str = "{secret:";
/// Longest name of a secret, in bytes.
const NAME_MAX: usize = 100;

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
}

/// Whether `text` refers to a secret.
#[must_use]
pub fn has_secret(text: &str) -> bool {
    text.contains(OPEN)
}

/// Puts in what `read` gives for each name.
///
/// # Errors
/// What `read` says, or `bad` for a reference that is none.
pub fn fill_secrets<'t, E>(
    text: &'t str,
    mut read: impl FnMut(&str) -> Result<String, E>,
    bad: impl Fn(String) -> E,
) -> Result<Cow<'t, str>, E> {
    if !has_secret(text) {
        return Ok(Cow::Borrowed(text));
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let name = after.split_once('}').filter(|(name, _)| is_name(name));
        let Some((name, after)) = name else {
            return Err(bad(format!(
                "has a '{OPEN}' without a name of letters, digits, '.', '_' or '-', and '}}'"
            )));
        };
        filled.push_str(before);
        filled.push_str(&read(name)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(Cow::Owned(filled))
}

/// Whether every reference in `text` has a good name.
///
/// # Errors
/// What is wrong, on one line.
pub(super) fn check(text: &str) -> Result<(), String> {
    fill_secrets(text, |_| Ok(String::new()), |problem| problem).map(drop)
}

/// `text` without its references; as it is if one of them is none.
pub(super) fn without(text: &str) -> Cow<'_, str> {
    fill_secrets(text, |_| Ok(String::new()), |_| ()).unwrap_or(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_nothing_else() {
        let fill = |text: &'static str| {
            fill_secrets(text, |name| Ok::<_, String>(format!("<{name}>")), |problem| problem)
        };
        assert_eq!(fill("plain {x} }").unwrap(), "plain {x} }");
        assert_eq!(fill("a{secret:b-1}c{secret:d.e}").unwrap(), "a<b-1>c<d.e>");
        assert_eq!(without("a{secret:b-1}c:"), "ac:");
        for bad in ["{secret:", "{secret:}", "{secret:../x}", "{secret:.x}", "{secret:a/b}"] {
            assert!(fill(bad).is_err() && check(bad).is_err(), "{bad}");
        }
    }
}
