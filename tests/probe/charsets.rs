//! Pages that are not UTF-8.

use webmon::check::Check;
use webmon::check::FailureKind::Regex;
use webmon::site::SettingValue;

use super::support::{Expect, Server, answer, build, check, down, spec, spec_with, up};

fn served(content_type: &str, page: &[u8]) -> Server {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}");
    Server::script(&[answer(&head, page)])
}

fn look(content_type: &str, page: &[u8], pattern: &str, expect: &Expect) -> Check<'static> {
    let server = served(content_type, page);
    let mut spec = spec(&server.url());
    spec.regex = Some(pattern.to_owned());
    let check = check(build(&spec), expect);
    assert_eq!(check.body_bytes, Some(u32::try_from(page.len()).unwrap()));
    check
}

fn utf_16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    ["\u{feff}", text].concat().encode_utf16().flat_map(to_bytes).collect()
}

#[test]
fn patterns_are_found_in_the_declared_charset() {
    let latin = b"caf\xe9 a\xf1o";
    let russian = b"\xcf\xf0\xe8\xe2\xe5\xf2, \xec\xe8\xf0";
    let japanese = b"\x82\xb1\x82\xf1\x82\xc9\x82\xbf\x82\xcd";
    let meta = [b"<html><meta charset=\"windows-1251\">".as_slice(), russian].concat();
    let (little, big) =
        (utf_16("año, 世界", u16::to_le_bytes), utf_16("año, 世界", u16::to_be_bytes));
    for (content_type, page, pattern, captures) in [
        ("text/html; charset=ISO-8859-1", latin.as_slice(), "café", vec!["café"]),
        ("text/html; charset=ISO-8859-1", latin, r"(\w+)", vec!["caf", "a", "o"]),
        ("text/plain; charset=windows-1251", russian, r"(?i)привет, (\w+)", vec!["мир"]),
        ("text/html", &meta, "мир$", vec!["мир"]),
        ("text/html; charset=\"Shift_JIS\"", japanese, "^こんにちは$", vec!["こんにちは"]),
        ("text/html", &little, "^año, (.)", vec!["世"]),
        ("text/html; charset=utf-16", &big, "界", vec!["界"]),
        ("text/html; charset=utf-8", "año".as_bytes(), "año", vec!["año"]),
    ] {
        let check = look(content_type, page, pattern, &up());
        assert_eq!(check.regex_match, Some(true));
        assert_eq!(check.regex_captures.unwrap(), captures, "{content_type} {pattern}");
    }
}

#[test]
fn what_declares_nothing_or_nonsense_is_only_bytes() {
    let bytes = b"caf\xe9";
    for content_type in ["text/html", "text/html; charset=klingon", "text/plain; charset=utf-8"] {
        look(content_type, bytes, "café", &down(Regex, "not found in 4 bytes"));
        look(content_type, bytes, r"caf(?-u:\xe9)", &up());
    }
    look("text/html; charset=iso-8859-1", bytes, "tea", &down(Regex, "not found in 4 bytes"));
    // What a server declares doesn't hide what is there.
    look("text/html; charset=utf-16le", b"plain text", "plain", &up());
}

#[test]
fn forbidden_patterns_are_found_in_the_text_too() {
    let server = served("text/html; charset=windows-1251", b"\xee\xf8\xe8\xe1\xea\xe0");
    let spec = |pattern: &str| {
        spec_with(&server.url(), [("forbidden_regex", SettingValue::Text(pattern.to_owned()))])
    };
    let found = down(Regex, "the forbidden pattern was found: ошибка");
    check(build(&spec("ошибка")), &found);
    check(build(&spec("успех")), &up());
}
