//! The `consumer` daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    webmon::cli::consumer()
}
