//! What a Rust file refers to, without a parser: comments, texts and test modules are blanked,
//! then every path is found, spelled out from the crate's or a library's root.

use std::collections::BTreeMap;

/// A path and the line it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.segments.join("::"))
    }
}

/// `text` with the same lines, but blanks for comments, string and character literals.
pub(crate) fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code: Vec<char> = chars.clone();
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        for blank in &mut code[at..end] {
            if *blank != '\n' {
                *blank = ' ';
            }
        }
        at = end.max(at + 1);
    }
    code.into_iter().collect()
}

/// Where the comment or literal that begins at `at` ends; `at` when none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let starts = |text: &str| chars[at..].iter().take(text.len()).copied().eq(text.chars());
    let until = |from: usize, is_end: &dyn Fn(usize) -> bool| {
        (from..chars.len()).find(|at| is_end(*at)).unwrap_or(chars.len())
    };
    if starts("//") {
        return until(at, &|at| chars[at] == '\n');
    }
    if starts("/*") {
        let (mut depth, mut at) = (0, at);
        while at < chars.len() {
            match chars.get(at..at + 2) {
                Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
                Some(['*', '/']) => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
            if depth == 0 {
                break;
            }
        }
        return at;
    }
    let in_word = at > 0 && is_word(chars[at - 1]);
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if starts("r") && !in_word && chars.get(at + 1 + hashes) == Some(&'"') {
        let closes = |at: usize| {
            chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes
        };
        return (until(at + 2 + hashes, &closes) + 1 + hashes).min(chars.len());
    }
    let quoted = |quote: char| {
        let mut at = at + 1;
        while at < chars.len() && chars[at] != quote {
            at += if chars[at] == '\\' { 2 } else { 1 };
        }
        (at + 1).min(chars.len())
    };
    match chars[at] {
        '"' => quoted('"'),
        // A character, not a lifetime.
        '\'' if chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => {
            quoted('\'')
        }
        _ => at,
    }
}

/// `code` with blanks for every item under `#[cfg(test)]`.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(MARK) {
        let start = from + found;
        let mut depth = 0;
        let mut end = start + MARK.len();
        while end < bytes.len() {
            match bytes[end] {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            end += 1;
            if depth == 0 && matches!(bytes[end - 1], b'}' | b';') {
                break;
            }
        }
        bytes[start..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        from = end;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, `::`, and single other characters, with their lines.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            tokens.push((line, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Every path of `code` with at least two segments or from a `use`, with `use`d names resolved. A
/// glob is a last segment `*`.
pub(crate) fn paths(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let (mut names, mut paths) = (BTreeMap::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].1 == "use" {
            at += 1;
            use_tree(&tokens, &mut at, &[], &mut names, &mut paths);
            continue;
        }
        let (line, mut segments) = (tokens[at].0, vec![tokens[at].1.clone()]);
        at += 1;
        if !segments[0].starts_with(is_word) {
            continue;
        }
        while let [(_, colons), (_, word), ..] = &tokens[at..]
            && colons == "::"
            && word.starts_with(is_word)
        {
            segments.push(word.clone());
            at += 2;
        }
        let is_macro = tokens.get(at).is_some_and(|(_, token)| token == "!");
        if segments.len() > 1 || is_macro {
            paths.push(Path { line, segments });
        }
    }
    for path in &mut paths {
        if let Some(full) = names.get(&path.segments[0]) {
            path.segments.splice(0..1, Vec::clone(full));
        }
    }
    paths
}

/// One tree of a `use`, which begins at `at` and stands below `prefix`.
fn use_tree(
    tokens: &[(usize, String)],
    at: &mut usize,
    prefix: &[String],
    names: &mut BTreeMap<String, Vec<String>>,
    paths: &mut Vec<Path>,
) {
    let mut segments = prefix.to_vec();
    while let Some((line, token)) = tokens.get(*at) {
        *at += 1;
        match token.as_str() {
            "::" => {}
            "{" => {
                while tokens.get(*at).is_some_and(|(_, token)| token != "}") {
                    use_tree(tokens, at, &segments, names, paths);
                    if tokens.get(*at).is_some_and(|(_, token)| token == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            word => {
                if word != "self" || segments.is_empty() {
                    segments.push(word.to_owned());
                }
                if tokens.get(*at).is_some_and(|(_, token)| token == "::") {
                    continue;
                }
                let mut name = segments.last().cloned().unwrap_or_default();
                if tokens.get(*at).is_some_and(|(_, token)| token == "as") {
                    name = tokens.get(*at + 1).map(|(_, token)| token.clone()).unwrap_or_default();
                    *at += 2;
                }
                if name != segments[0] {
                    names.insert(name, segments.clone());
                }
                paths.push(Path { line: *line, segments });
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> =
            paths(&without_tests(&code_of(text))).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        check("// a::b\n/* a::b /* c::d */ e::f */ x::y", &["x::y"]);
        check(r##"f(r#"a::b " c::d"#, "a::\"b", 'a', '\'', '"', x::y)"##, &["x::y"]);
        check("fn f<'a>(x: &'a str) -> &'a str { y::z(x) }", &["y::z"]);
    }

    #[test]
    fn test_modules_are_left_out_and_what_follows_is_not() {
        check("#[cfg(test)]\nmod tests { use a::b; fn f() { {} } }\nuse c::d;", &["c::d"]);
        check("#[cfg(test)] use a::b;\nuse c::d;", &["c::d"]);
    }

    #[test]
    fn use_trees_are_flattened_and_their_names_resolved() {
        check("use a::{b::{c, d as e}, f::*, self};", &["a::b::c", "a::b::d", "a::f::*", "a"]);
        check(
            "use std::time; fn f() { time::Instant::now() }",
            &["std::time", "std::time::Instant::now"],
        );
        check("use std::time as t; type X = t::Instant;", &["std::time", "std::time::Instant"]);
        check(
            "use crate::kafka; fn f() { kafka::publish() }",
            &["crate::kafka", "crate::kafka::publish"],
        );
        check("pub(crate) use a::b;\nlet x = Vec::<u8>::new();", &["a::b"]);
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let found = paths(&code_of("/* one\ntwo */\n\nuse a::{\n  b,\n};\n"));
        assert_eq!(found[0].line, 5);
    }
}
