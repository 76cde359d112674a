//! The HTTP API's settings, and its tokens from a list or from a file.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::Sources;
use super::faults::{Faults, Trouble};
use super::keys::token;
use super::resolve::Resolved;
use super::secrets;
use super::settings::{Api, ApiToken};

const TOKENS: &str = "api.tokens";
const FILE: &str = "api.tokens_file";

pub(crate) fn api(r: &Resolved, sources: &Sources, faults: &mut Faults) -> Api {
    Api {
        listen: r.address("api.listen"),
        tokens: tokens(r, sources, faults),
        allow_without_tokens: r.flag("api.allow_without_tokens"),
        hosts: r.list("api.hosts").iter().map(|name| name.to_ascii_lowercase()).collect(),
        cors_origins: r.list("api.cors_origins").to_vec(),
        rate_limit: r.number("api.rate_limit"),
        allow_private_addresses: r.flag("api.allow_private_addresses"),
        threads: r.number("api.threads"),
        connections: r.number("api.connections"),
        deadline: Duration::from_secs(r.number("api.deadline")),
    }
}

fn tokens(r: &Resolved, sources: &Sources, faults: &mut Faults) -> Vec<ApiToken> {
    let (key, result) = match r.path(sources, FILE) {
        Some(file) => {
            let cure = "name a file that this user may read, with lines of `webmon token NAME`";
            let text = secrets::from_file(&file);
            let text = text.map_err(|trouble| trouble.of(r.owned(FILE)).cured_by(cure));
            (FILE, text.and_then(|text| lines(text.expose_secret())))
        }
        None => (TOKENS, entries(r.list(TOKENS).iter().map(String::as_str))),
    };
    result.unwrap_or_else(|trouble| {
        faults.add(&r.origin(key), key, trouble);
        Vec::new()
    })
}

/// One token a line; empty lines and those that begin with `#` say nothing.
fn lines(text: &str) -> Result<Vec<ApiToken>, Trouble> {
    let lines = text.lines().map(str::trim);
    entries(lines.filter(|line| !line.is_empty() && !line.starts_with('#')))
}

fn entries<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Vec<ApiToken>, Trouble> {
    let mut tokens: Vec<ApiToken> = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        let cure = "write lines of `webmon token NAME`, NAME:ROLE:SHA256 each";
        token(entry).map_err(|problem| {
            Trouble::new(format!("has an entry, number {number}, that {problem}"), cure)
        })?;
        let parts: Vec<&str> = entry.split(':').collect();
        let [name, role, hash] = parts[..] else { continue };
        if tokens.iter().any(|token| token.name == name) {
            let cure = "give each token a name of its own";
            return Err(Trouble::new(format!("has two tokens named '{name}'"), cure));
        }
        tokens.push(ApiToken { name: name.to_owned(), role: role.to_owned(), sha256: bytes(hash) });
    }
    Ok(tokens)
}

/// The bytes of 64 hexadecimal digits.
fn bytes(digits: &str) -> [u8; 32] {
    let digit = |at: usize| {
        digits.as_bytes().get(at).map_or(0, |d| char::from(*d).to_digit(16).unwrap_or(0))
    };
    std::array::from_fn(|place| {
        u8::try_from(digit(2 * place) * 16 + digit(2 * place + 1)).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_file() {
        let one = format!("{}0f", "ab".repeat(31));
        let text =
            format!("# of the team\r\nci:write:{one}\r\n\r\n  me:admin:{}\r\n", "CD".repeat(32));
        let tokens = lines(&text).ok().unwrap();
        let names: Vec<_> = tokens.iter().map(|t| (t.name.as_str(), t.role.as_str())).collect();
        assert_eq!(names, [("ci", "write"), ("me", "admin")]);
        assert_eq!(
            (tokens[0].sha256[30..].to_vec(), tokens[1].sha256),
            (vec![0xab, 0x0f], [0xcd; 32])
        );
        assert!(lines("ci:write:short").is_err());
        assert!(lines(&format!("a:read:{one}\na:write:{one}")).is_err());
    }
}
