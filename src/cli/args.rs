//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;

use super::api_args::{ApiArgs, TokenArgs};
use super::check_args::{CHECK_HELP, CheckArgs};
use super::ops_args::{
    DOCTOR_HELP, DoctorArgs, ROUND_TRIP_HELP, RoundTripArgs, STATUS_HELP, StatusArgs, TOPIC_HELP,
    TopicArgs,
};
use super::rejected_args::RejectedArgs;
use super::shell_args::{COMPLETIONS_HELP, CompletionsArgs, MAN_HELP, ManArgs};
use super::sites_args::{HistoryArgs, SitesArgs};
use crate::check::Outcome;

const SETTINGS_HELP: &str = "\
Settings: flags, then the environment (WEBMON_…), then .env, then the file, then defaults.
`webmon config show` prints them all with where each comes from.";

const EXIT_HELP: &str = "\
Exit codes: 0 fine, 1 the thing asked about is bad or the command failed, 2 wrong use or
configuration, 3 not found, 4 a service is away, 128 + signal at a second SIGINT or SIGTERM.";

/// What all commands understand.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct CommonArgs {
    /// Configuration file [default: $WEBMON_CONFIG_FILE, else ./config.yaml if it exists]
    #[arg(long, value_name = "FILE", global = true, display_order = 101)]
    pub(super) config: Option<PathBuf>,
    /// File of KEY=VALUE lines that stand in for missing environment variables [default: ./.env if
    /// it exists]
    #[arg(short = 'e', long, value_name = "FILE", global = true, display_order = 102)]
    pub(super) env_file: Option<PathBuf>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", global = true, display_order = 103)]
    pub(super) log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT", global = true, display_order = 104)]
    pub(super) log_format: Option<String>,
    /// The database user's password; others on this machine may see it in the list of processes
    #[arg(long, value_name = "PASSWORD", value_parser = secret, global = true, display_order = 105)]
    pub(super) database_password: Option<SecretString>,
    /// The password of kafka.sasl.user; others may see it likewise
    #[arg(long, value_name = "PASSWORD", value_parser = secret, global = true, display_order = 106)]
    pub(super) kafka_password: Option<SecretString>,
    /// Ask for the database's password on the terminal, and for Kafka's if a user is set without
    #[arg(
        short = 'W',
        long,
        global = true,
        display_order = 107,
        conflicts_with = "database_password"
    )]
    pub(super) ask_password: bool,
}

/// What was typed, out of sight from here on.
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text.to_owned()))
}

/// Checks sites on schedule and publishes the results to Kafka.
///
/// Every result goes through a spool on disk, so that none is lost while the broker is away.
#[derive(Debug, Parser)]
#[command(name = "producer", version, after_help = format!("\
Examples:
  producer                                  settings from ./config.yaml and WEBMON_…
  producer --interval 60                    sites without an interval of their own: every 60 s
  producer --config /etc/webmon.yaml --check-config
  WEBMON_LOG_LEVEL=debug producer --log-format json

{SETTINGS_HELP}
Metrics, /livez and /readyz?verbose are on producer.listen (127.0.0.1:9464).
{EXIT_HELP}"))]
pub(super) struct ProducerArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Seconds between checks, for sites without an interval of their own (5 to 86400)
    #[arg(long, value_name = "SECONDS")]
    pub(super) interval: Option<String>,
    /// Check the configuration and exit
    #[arg(long)]
    pub(super) check_config: bool,
}

/// Reads results from Kafka and stores them in PostgreSQL.
///
/// Consumers of one group share the topic's partitions; start as many as you need.
#[derive(Debug, Parser)]
#[command(name = "consumer", version, after_help = format!("\
Examples:
  consumer                                  settings from ./config.yaml and WEBMON_…
  consumer --sink postgres,console          also print each message, one JSON object a line
  consumer --config /etc/webmon.yaml --check-config

{SETTINGS_HELP}
Metrics, /livez and /readyz?verbose are on consumer.listen (127.0.0.1:9465).
{EXIT_HELP}"))]
pub(super) struct ConsumerArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Where results go: postgres, console, or both by comma
    #[arg(long, value_name = "SINKS")]
    pub(super) sink: Option<String>,
    /// Check the configuration and exit
    #[arg(long)]
    pub(super) check_config: bool,
}

/// Watches websites: the operator's command.
#[derive(Debug, Parser)]
#[command(name = "webmon", version, after_help = format!("\
Examples:
  webmon check https://example.org/ --regex \"Example Domain\"
  webmon run --bus local                    everything in one process, without a broker
  webmon tail                               results as they come
  webmon config show

{SETTINGS_HELP}
{EXIT_HELP}"))]
pub(super) struct WebmonArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check URLs or sites now; exit code 1 when one is down
    #[command(after_help = CHECK_HELP)]
    Check(Box<CheckArgs>),
    /// Run producer, consumer and the REST API in one process
    #[command(after_help = "\
Examples:
  webmon run                    through Kafka
  webmon run --no-api           without the REST API
  webmon run --bus local        spool straight to PostgreSQL, no broker needed")]
    Run(RunArgs),
    /// Serve the REST API
    #[command(after_help = "\
Examples:
  webmon api                    on api.listen (127.0.0.1:8080)
  webmon api --listen 127.0.0.1:8081
  curl http://127.0.0.1:8080/websites

The server needs tokens (`webmon token`) where others than this machine can reach it. It starts
with the database away, and answers when it is back. /metrics, /livez and /readyz?verbose are on the
same address.")]
    Api(ApiArgs),
    /// Make a token for the API
    #[command(after_help = "\
Examples:
  webmon token ci --role write
  webmon token status-page      a token that only reads
  webmon token ci --json | jq -r .token

The token is shown once and kept nowhere. Its line, which can't be used to get in, goes into
api.tokens, WEBMON_API_TOKENS or the file of api.tokens_file.")]
    Token(TokenArgs),
    /// Bring the database's tables up to date (the daemons do it too)
    #[command(after_help = "\
Examples:
  webmon migrate
  webmon migrate --dry-run      only list what would be applied")]
    Migrate(MigrateArgs),
    /// Delete all of webmon's tables and the results in them
    #[command(after_help = "\
Examples:
  webmon drop                   asks for the password
  webmon drop 'the database password'

The password is that of the database's user. It must be typed out: neither the configuration nor
the environment is asked for it.")]
    Drop(DropArgs),
    /// List, show, add, change, import or export what is watched
    #[command(after_help = "\
Examples:
  webmon sites list --keyword shop
  webmon sites add Shop https://shop.example/ --interval 60
  webmon sites import sites.yaml --dry-run")]
    Sites(SitesArgs),
    /// Show what was seen of a site: uptime, response times, failures
    #[command(after_help = "\
Examples:
  webmon history Shop
  webmon history 42 --from 24h --limit 100
  webmon history https://shop.example/ --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z --json")]
    History(HistoryArgs),
    /// List, show, replay or delete messages that could not be stored
    #[command(after_help = "\
Examples:
  webmon rejected list
  webmon rejected show webmon/3/4711
  webmon rejected replay --reason 'unknown website'")]
    Rejected(RejectedArgs),
    /// Show results as they come
    #[command(after_help = "\
Examples:
  webmon tail                   from the table: what is stored
  webmon tail --from topic      from Kafka: what is on its way
  webmon tail --site Example --outcome down
  webmon tail --json --limit 10")]
    Tail(TailArgs),
    /// Show the pipeline at a glance, what is unwell, and what to do
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Make the Kafka topic, or show it
    #[command(after_help = TOPIC_HELP)]
    Topic(TopicArgs),
    /// Send a check of webmon's own through Kafka into PostgreSQL, and find it again
    #[command(after_help = ROUND_TRIP_HELP)]
    RoundTrip(RoundTripArgs),
    /// Look for faults in configuration, services and this machine, each with its cure
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Check, show or begin the configuration
    #[command(after_help = "\
Examples:
  webmon config init            a config.yaml with every key and its meaning
  webmon config check --config /etc/webmon.yaml
  webmon config show            every setting and where it comes from; secrets stay hidden")]
    Config(ConfigArgs),
    /// Ask a daemon whether it is alive; exit code 1 when not
    #[command(after_help = "\
Examples:
  webmon healthcheck
  webmon healthcheck --url http://127.0.0.1:9465/readyz")]
    Healthcheck(HealthcheckArgs),
    /// Print the words a shell completes
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Print a manual page, or write all of them
    #[command(after_help = MAN_HELP)]
    Man(ManArgs),
}

/// How results get from the producer's side to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Bus {
    /// Through the Kafka topic.
    Kafka,
    /// From the spool straight to PostgreSQL.
    Local,
}

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// How results get to the table
    #[arg(long, value_enum, default_value = "kafka")]
    pub(super) bus: Bus,
    /// Seconds between checks, for sites without an interval of their own (5 to 86400)
    #[arg(long, value_name = "SECONDS")]
    pub(super) interval: Option<String>,
    /// Don't serve the REST API
    #[arg(long)]
    pub(super) no_api: bool,
}

#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// Only list what would be applied
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print one JSON object: {"applied": […]}, or {"pending": […]} of a dry run
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DropArgs {
    /// The password of the database's user; asked for when left out
    pub(super) password: Option<String>,
}

/// Where `tail` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TailFrom {
    /// The table `check_entry`.
    Table,
    /// The Kafka topic.
    Topic,
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::parse(text).ok_or_else(|| "must be up, down or missed".to_owned())
}

#[derive(Args, Debug)]
pub(super) struct TailArgs {
    /// Where to read
    #[arg(long, value_enum, default_value = "table")]
    pub(super) from: TailFrom,
    /// Only those of this site: its id, name or URL, or name:3 where a name looks like an id; may
    /// be given several times
    #[arg(long = "site", value_name = "SITE")]
    pub(super) sites: Vec<String>,
    /// Only those that ended so: up, down or missed; may be given several times
    #[arg(long = "outcome", value_name = "OUTCOME", value_parser = outcome)]
    pub(super) outcomes: Vec<Outcome>,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// End after so many results
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
}

#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub(super) command: ConfigCommand,
    /// Print one JSON object: {"faults": […]} of check, {"settings": […]} of show, {"written": FILE} of
    /// init
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the configuration is good, or list all its faults
    #[command(after_help = "\
Examples:
  webmon config check
  webmon config check --config /etc/webmon.yaml --json")]
    Check,
    /// Print every setting and where it comes from
    #[command(after_help = "\
Examples:
  webmon config show
  WEBMON_LOG_LEVEL=debug webmon config show --json")]
    Show,
    /// Write a configuration file with every key, its default and its meaning; never over another
    #[command(after_help = "\
Examples:
  webmon config init            as config.yaml
  webmon config init --path /etc/webmon.yaml")]
    Init(InitArgs),
}

#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "config.yaml")]
    pub(super) path: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct HealthcheckArgs {
    /// What to ask [default: /livez of producer.listen]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Print the check as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent() {
        ProducerArgs::command().debug_assert();
        ConsumerArgs::command().debug_assert();
        WebmonArgs::command().debug_assert();
    }
}
