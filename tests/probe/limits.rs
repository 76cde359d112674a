//! What no check may do: outlast its time, take another's, or grow.

use super::support::{Do, Server, answer, build, check, hurried, send, spec, up};

#[test]
fn checks_side_by_side_don_t_mix() {
    let good = Server::script(&[answer("HTTP/1.1 200 OK", "hello")]);
    let bad = Server::script(&[send("HTTP/1.1 200 OK\r\n\r\n"), Do::Hang]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (good, bad) = (&good, &bad);
            scope.spawn(move || {
                for round in 0..6 {
                    // A failed check leaves nothing behind in its thread.
                    if (round + number) % 2 == 0 {
                        let check = check(build(&spec(&good.url())), &up());
                        assert_eq!(check.body_bytes, Some(5));
                    } else {
                        let late = super::support::down(webmon::check::FailureKind::Timeout, "");
                        check(hurried(&bad.url()), &late);
                    }
                }
            });
        }
    });
}

#[test]
fn a_site_without_time_is_a_time_out() {
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let site =
        webmon::site::Site { timeout: std::time::Duration::ZERO, ..build(&spec(&server.url())) };
    check(site, &super::support::down(webmon::check::FailureKind::Timeout, "after 0.000 s"));
}

#[test]
fn a_prober_tells_what_it_can_t_use() {
    let mut options = super::support::options();
    options.user_agent = "two\nlines".to_owned();
    let error = webmon::probe::Prober::new(options).unwrap_err();
    assert_eq!(error.to_string(), "the user agent has characters no header may have");
}
