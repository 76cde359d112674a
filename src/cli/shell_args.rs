//! What `completions` and `man` take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// One of the three programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Program {
    /// The operator's command.
    Webmon,
    /// The daemon that checks.
    Producer,
    /// The daemon that stores.
    Consumer,
}

pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  webmon completions bash >~/.local/share/bash-completion/completions/webmon
  webmon completions zsh >\"${fpath[1]}/_webmon\"
  webmon completions fish >~/.config/fish/completions/webmon.fish
  webmon completions bash --program producer";

pub(super) const MAN_HELP: &str = "\
Examples:
  webmon man | man -l -
  webmon man webmon-check       the page of one command
  webmon man --dir ~/.local/share/man/man1";

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: Shell,
    /// Whose words
    #[arg(long, value_enum, default_value = "webmon")]
    pub(super) program: Program,
}

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The page, such as webmon, webmon-check or producer
    #[arg(value_name = "PAGE", default_value = "webmon", conflicts_with = "dir")]
    pub(super) page: String,
    /// Write the pages of all programs and commands into this directory
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
