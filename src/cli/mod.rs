//! The commands: what was typed, the settings, and each room's own options made of them.
//!
//! Nothing else in the program reads arguments, the environment or the configuration, prints to
//! standard output (but the consumer's console sink), or decides an exit code.

mod args;
mod check;
mod check_args;
mod config;
mod daemon;
mod exit;
mod history;
mod migrate;
mod options;
mod output;
mod rejected;
mod rejected_args;
mod run;
mod sites;
mod sites_args;
mod table;
mod tail;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, ConsumerArgs, ProducerArgs, WebmonArgs};
use exit::Exit;

/// The `producer` daemon.
#[must_use]
pub fn producer() -> ExitCode {
    exit::finish(daemon::producer(&ProducerArgs::parse()))
}

/// The `consumer` daemon.
#[must_use]
pub fn consumer() -> ExitCode {
    exit::finish(daemon::consumer(&ConsumerArgs::parse()))
}

/// The operator's command.
#[must_use]
pub fn webmon() -> ExitCode {
    exit::finish(dispatch(&WebmonArgs::parse()))
}

fn dispatch(args: &WebmonArgs) -> Result<(), Exit> {
    let common = &args.common;
    match &args.command {
        Command::Check(check) => check::check(common, check),
        Command::Run(run) => run::run(common, run),
        Command::Migrate(migrate) => migrate::migrate(common, migrate),
        Command::Drop(drop) => migrate::drop_everything(common, drop),
        Command::Sites(sites) => sites::sites(common, sites),
        Command::History(history) => history::history(common, history),
        Command::Rejected(rejected) => rejected::rejected(common, rejected),
        Command::Tail(tail) => tail::tail(common, tail),
        Command::Config(config) => config::config(common, config),
        Command::Healthcheck(health) => check::healthcheck(common, health),
    }
}
