//! Heads of answers, beside those of the table.

use webmon::check::FailureKind::Timeout;

use super::support::{Do, answer, check_hurried, check_script, down, send, up};
use super::table::WHOLE;

#[test]
fn a_plain_answer_fills_every_field() {
    let check = check_script(&[answer("HTTP/1.1 200 OK", "hello")], &up().phases(WHOLE));
    assert_eq!(check.http_status, Some(200));
    assert_eq!(check.http_version.as_deref(), Some("1.1"));
    assert_eq!(check.redirects, Some(0));
    assert_eq!((check.body_bytes, check.body_truncated), (Some(5), Some(false)));
    assert!(check.remote_address.unwrap().starts_with("127.0.0.1:"));
    assert_eq!((check.regex, check.regex_match, check.regex_captures), (None, None, None));
    assert_eq!(check.certificate_expires_at, None);
}

#[test]
fn the_version_is_the_answers() {
    for (line, version) in [("HTTP/1.0 200 OK", "1.0"), ("HTTP/1.1 200", "1.1")] {
        let check = check_script(&[send(format!("{line}\r\n\r\n"))], &up().phases(WHOLE));
        assert_eq!(check.http_version.as_deref(), Some(version));
    }
}

#[test]
fn the_phase_that_failed_lasted_until_the_failure() {
    let late = down(Timeout, "in transfer, after 0.300 s").phases(WHOLE);
    let check = check_hurried(&[send("HTTP/1.1 200 OK\r\nA"), Do::Hang], &late);
    let transfer = check.phases.transfer.unwrap();
    assert!(transfer > 0.1, "{transfer}");
}
