//! The commands: what was typed, the settings, and each room's own options made of them.
//!
//! Nothing else in the program reads arguments, the environment or the configuration, prints to
//! standard output (but the consumer's console sink), or decides an exit code.

mod api;
mod api_args;
mod args;
mod ask;
mod check;
mod check_args;
mod check_rounds;
mod check_save;
mod check_show;
mod check_targets;
mod config;
mod cures;
mod daemon;
mod doctor;
mod exit;
mod healthcheck;
mod help;
mod history;
mod migrate;
mod ops_args;
mod options;
mod output;
mod password;
mod presence;
mod rejected;
mod rejected_args;
mod round_trip;
mod run;
mod shell;
mod shell_args;
mod sites;
mod sites_args;
mod status;
mod table;
mod tail;
mod topic;
mod waterfall;

use std::process::ExitCode;

use args::{Command, ConsumerArgs, ProducerArgs, WebmonArgs};
use exit::Exit;

/// The `producer` daemon.
#[must_use]
pub fn producer() -> ExitCode {
    exit::finish(daemon::producer(&help::parse::<ProducerArgs>()))
}

/// The `consumer` daemon.
#[must_use]
pub fn consumer() -> ExitCode {
    exit::finish(daemon::consumer(&help::parse::<ConsumerArgs>()))
}

/// The operator's command.
#[must_use]
pub fn webmon() -> ExitCode {
    exit::finish(dispatch(&help::parse::<WebmonArgs>()))
}

fn dispatch(args: &WebmonArgs) -> Result<(), Exit> {
    let common = &args.common;
    match &args.command {
        Command::Check(check) => check::check(common, check),
        Command::Run(run) => run::run(common, run),
        Command::Api(api) => api::api(common, api),
        Command::Token(token) => api::token(token),
        Command::Migrate(migrate) => migrate::migrate(common, migrate),
        Command::Drop(drop) => migrate::drop_everything(common, drop),
        Command::Sites(sites) => sites::sites(common, sites),
        Command::History(history) => history::history(common, history),
        Command::Rejected(rejected) => rejected::rejected(common, rejected),
        Command::Tail(tail) => tail::tail(common, tail),
        Command::Status(status) => status::status(common, status),
        Command::Topic(topic) => topic::topic(common, topic),
        Command::RoundTrip(trip) => round_trip::round_trip(common, trip),
        Command::Doctor(doctor) => doctor::doctor(common, doctor),
        Command::Config(config) => config::config(common, config),
        Command::Healthcheck(health) => healthcheck::healthcheck(common, health),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    }
}
