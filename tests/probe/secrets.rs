//! Secrets that sites refer to by name.

use std::collections::BTreeMap;
use std::fs;

use webmon::check::Check;
use webmon::check::FailureKind::{Dns, Http, Internal, Redirect};
use webmon::probe::{ProbeOptions, Prober};

use super::settings::with;
use super::support::{
    Expect, Server, answer, build, check_with, down, options, prober, prober_with, send, spec, up,
};

/// A prober with secrets in a directory, and one in a variable.
fn with_secrets(files: &[(&str, &str)]) -> (Prober, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let variable = ("WEBMON_SECRET_FROM_VARIABLE".to_owned(), "v4riable".to_owned().into());
    let prober = prober_with(ProbeOptions {
        secrets_dir: Some(dir.path().to_owned()),
        secret_variables: BTreeMap::from([variable]),
        ..options()
    });
    (prober, dir)
}

fn lines(request: &str) -> Vec<&str> {
    let ours = ["authorization: ", "x-"];
    request.lines().filter(|line| ours.iter().any(|name| line.starts_with(name))).collect()
}

#[test]
fn references_are_filled_in_at_each_check() {
    let (prober, dir) = with_secrets(&[("token", "t0ken\n"), ("user", "us"), ("pass", "pa")]);
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let mut bearer = with(spec(&server.url()), &[("bearer_token", "a-{secret:token}")]);
    bearer.headers = vec![
        ("X-Key".to_owned(), "{secret:token}/{secret:from.variable}".to_owned()),
        ("X-Plain".to_owned(), "{token}".to_owned()),
    ];
    let bearer = build(&bearer);
    check_with(&prober, bearer.clone(), &up());
    let sent = server.requests().pop().unwrap();
    assert_eq!(
        lines(&sent),
        ["x-key: t0ken/v4riable", "x-plain: {token}", "authorization: Bearer a-t0ken"]
    );
    // Changed while the process runs.
    fs::write(dir.path().join("token"), "n3wer").unwrap();
    check_with(&prober, bearer, &up());
    let sent = server.requests().pop().unwrap();
    assert_eq!(lines(&sent)[2], "authorization: Bearer a-n3wer");

    let basic = [("username", "{secret:user}er"), ("password", "{secret:pass}ss")];
    check_with(&prober, build(&with(spec(&server.url()), &basic)), &up());
    let sent = server.requests().pop().unwrap();
    assert_eq!(lines(&sent), ["authorization: Basic dXNlcjpwYXNz"]);
}

#[test]
fn a_missing_secret_is_our_own_trouble_and_nothing_is_sent() {
    let (prober, _dir) = with_secrets(&[("lines", "one\ntwo")]);
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let site = |token| build(&with(spec(&server.url()), &[("bearer_token", token)]));
    let expect = |detail: &str| down(Internal, detail).phases("");
    let missing = "secret 'no-such' is not there: no such file in the directory of secrets, and \
                   no WEBMON_SECRET_NO_SUCH";
    check_with(&prober, site("{secret:no-such}"), &expect(missing));
    let bad = "the secret for 'authorization' has characters no header may have";
    check_with(&prober, site("{secret:lines}"), &expect(bad));
    let nowhere = "secret 'x' is not there: no directory of secrets is set, and no WEBMON_SECRET_X";
    check_with(super::support::prober(), site("{secret:x}"), &expect(nowhere));
    assert!(server.requests().is_empty());
}

/// All that a check says, as it might be logged.
fn said(check: &Check<'_>) -> String {
    format!("{check:?}").to_ascii_lowercase()
}

#[test]
fn what_a_server_sends_back_is_hidden() {
    const SECRET: &str = "Sup3r-Hidden.Token";
    let (prober, _dir) = with_secrets(&[("token", SECRET)]);
    type Script = fn(&str) -> String;
    let scripts: [(Script, Expect); 7] = [
        // The scheme and the host of a URL come back in lower case.
        (|s| format!("HTTP/1.1 302 F\r\nLocation: {s}:x\r\n\r\n"), down(Redirect, "'***'")),
        (|s| format!("HTTP/1.1 302 F\r\nLocation: http://{s}.test/\r\n\r\n"), down(Dns, "")),
        (|s| format!("{s}\r\n\r\n"), down(Http, "begins with '***")),
        // Only 32 bytes of it are shown: a part of the secret.
        (|s| format!("{}{s}\r\n\r\n", "x".repeat(20)), down(Http, "begins with 'xxx")),
        (
            |s| format!("HTTP/1.1 200 OK\r\nContent-Encoding: {s}\r\n\r\n"),
            down(Http, "unknown content-encoding '***'"),
        ),
        (|s| format!("HTTP/1.1 200 OK\r\n\r\ntoken={s};"), up()),
        (|s| format!("HTTP/1.1 200 OK\r\n\r\ntoken={}", &s[..12]), up()),
    ];
    for own in ["bearer", "header", "basic", "literal"] {
        for (script, expect) in &scripts {
            let script = *script;
            let server = Server::answering(move |request| {
                let line = request
                    .lines()
                    .find(|line| line.contains("ken: ") || line.contains("authorization: "));
                let value = line.unwrap().split_once(": ").unwrap().1;
                let value = value.rsplit(' ').next().unwrap();
                vec![send(script(value.trim_end_matches('=')))]
            });
            let mut spec = spec(&server.url());
            spec.regex = Some("token=.*|".to_owned());
            spec = match own {
                "bearer" => with(spec, &[("bearer_token", "{secret:token}")]),
                "basic" => with(spec, &[("username", "u"), ("password", "{secret:token}")]),
                "literal" => with(spec, &[("bearer_token", SECRET)]),
                _ => {
                    spec.headers = vec![("X-Token".to_owned(), "{secret:token}".to_owned())];
                    spec
                }
            };
            let check = check_with(&prober, build(&spec), expect);
            let said = said(&check);
            // base64 of "u:Sup3r-Hidden.Token"
            for hidden in ["sup3r-hid", "hidden.t", "dtptdxazci1i"] {
                assert!(!said.contains(hidden), "{own}: {hidden} in {said}");
            }
            if expect_is_up(&check) {
                assert_eq!(check.regex_captures.unwrap()[0].matches("***").count(), 1);
            }
        }
    }
}

fn expect_is_up(check: &Check<'_>) -> bool {
    check.failure.is_none()
}

#[test]
fn a_secret_in_any_header_stays_with_its_origin() {
    let (prober, _dir) = with_secrets(&[("token", "t0ken")]);
    let elsewhere = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let away =
        format!("HTTP/1.1 302 Found\r\nLocation: http://other.test:{}/", elsewhere.address.port());
    let server = Server::script(&[answer(&away, "")]);
    let mut spec = spec(&server.url());
    spec.headers = vec![
        ("User-Agent".to_owned(), "webmon {secret:token}".to_owned()),
        ("Accept-Language".to_owned(), "de".to_owned()),
    ];
    check_with(&prober, build(&spec), &up());
    let (at_home, abroad) = (server.requests().pop().unwrap(), elsewhere.requests().pop().unwrap());
    assert!(at_home.contains("user-agent: webmon t0ken"), "{at_home}");
    assert!(!abroad.contains("t0ken"), "{abroad}");
    // Another header goes along, and the usual user agent is sent.
    assert!(abroad.contains("accept-language: de") && abroad.contains("user-agent: "), "{abroad}");
}

#[test]
fn checks_without_secrets_hide_nothing() {
    let server = Server::script(&[send("HTTP/1.1 200 OK\r\nContent-Encoding: own-words\r\n\r\n")]);
    let mut spec = spec(&server.url());
    spec.headers = vec![("X-Not-Secret".to_owned(), "own-words".to_owned())];
    let detail = "unknown content-encoding 'own-words'";
    check_with(prober(), build(&spec), &down(Http, detail));
}
