//! The `webmon` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    webmon::cli::webmon()
}
