//! The `producer` daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    webmon::cli::producer()
}
