//! Our own trouble: says nothing about the site.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use webmon::check::FailureKind::Internal;

use super::support::{Server, answer, build, check, down, is_alone, prober, run_alone, spec, up};

#[test]
fn no_file_descriptors_is_internal() {
    const NAME: &str = "trouble::no_file_descriptors_is_internal";
    if !is_alone() {
        // The limit is the process's: it would hit every other test.
        run_alone(NAME, "WEBMON_TEST_UNUSED", "");
        return;
    }
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let prober = prober();
    check(build(&spec(&server.url())), &up());
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
    let expect = down(Internal, "Too many open files").phases("resolve connect");
    super::support::check_with(prober, build(&spec(&server.url())), &expect);
    setrlimit(Resource::Nofile, before).unwrap();
    check(build(&spec(&server.url())), &up());
}
