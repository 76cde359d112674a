//! What can be typed after `webmon status`, `topic`, `round-trip` and `doctor`.

use clap::{Args, Subcommand};

use super::help::seconds;

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Look again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| seconds(text, 1..=3600))]
    pub(super) watch: Option<u32>,
}

#[derive(Args, Debug)]
pub(super) struct TopicArgs {
    #[command(subcommand)]
    pub(super) command: TopicCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Make the topic of the configuration
    #[command(after_help = "\
Examples:
  webmon topic create                           as kafka.partitions and replication_factor say
  webmon topic create --partitions 32 --replication-factor 3
  webmon topic create --if-not-exists           fine when it is there already

The daemons make the topic as well when it is absent. Partitions are the most that
can work at once: as many producers and consumers as there are partitions get a
share.")]
    Create(TopicCreateArgs),
    /// Show the topic: partitions, leaders, copies, offsets, settings, and what is unfit
    #[command(after_help = "\
Examples:
  webmon topic show
  webmon topic show --json | jq '.warnings'

Exit codes: 1 when something is unfit, 3 when the topic is absent, 4 when no broker answers.")]
    Show(TopicShowArgs),
}

#[derive(Args, Debug)]
pub(super) struct TopicCreateArgs {
    /// Partitions [default: kafka.partitions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: Option<i32>,
    /// Copies of each partition, up to the number of brokers [default: kafka.replication_factor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..=100))]
    pub(super) replication_factor: Option<i16>,
    /// A topic that is there already is fine
    #[arg(long)]
    pub(super) if_not_exists: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct TopicShowArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct RoundTripArgs {
    /// What to check [default: an answer of this command's own, on 127.0.0.1]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Seconds from one trip's beginning to the next one's; without --count until Ctrl-C
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| seconds(text, 1..=86_400))]
    pub(super) interval: Option<u32>,
    /// How many trips [default: 1, or no end with --interval]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Whole seconds for a trip, from the check's beginning, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 15,
        value_parser = |text: &str| seconds(text, 1..=3600))]
    pub(super) timeout: u32,
    /// One JSON object a trip
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Examples of `status`.
pub(super) const STATUS_HELP: &str = "\
Examples:
  webmon status
  webmon status --watch 5
  webmon status --json | jq '.findings'

Exit codes: 0 all is well, 1 something is unwell (the list says what to do),
2 the configuration is bad, or what PostgreSQL or Kafka says about it (a wrong
password, missing tables), 4 one of them is away: the rest is shown all the same.";

/// Examples of `topic`.
pub(super) const TOPIC_HELP: &str = "\
Examples:
  webmon topic create --partitions 32 --replication-factor 3
  webmon topic show";

/// Examples of `round-trip`.
pub(super) const ROUND_TRIP_HELP: &str = "\
Examples:
  webmon round-trip                             one check through Kafka into PostgreSQL and back
  webmon round-trip --interval 10 --count 6
  webmon round-trip --url https://example.org/ --json

The check belongs to a site of its own, 'webmon round-trip', which is made when
absent and is paused: no producer checks it. A consumer has to run.
Exit codes: 0 each check was found again (whether its site was up or down), 2 wrong
use, or what PostgreSQL says about the configuration (a wrong password, missing
tables), 4 one was not found: the cause says which leg is missing.";

/// Examples of `doctor`.
pub(super) const DOCTOR_HELP: &str = "\
Examples:
  webmon doctor
  webmon doctor --json | jq '.checks[] | select(.state != \"ok\")'

Looks at the configuration, names, each broker, the topic, the groups, the database,
the clock, and this machine's limits, directories and ports. Every fault comes with
its cure. Limits are those of the user and shell that run this command: run it as
the daemons run.
Exit codes, the first that fits: 2 the configuration is bad, 4 a service is away,
1 something else is bad, 0 all is well or there are warnings only.";
