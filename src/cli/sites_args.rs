//! What can be typed after `webmon sites`, and after `webmon history`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::rejected_args::time;
use crate::store::SiteStatus;

/// Most rows of one `history`: a site's rows of two days at its shortest interval.
const HISTORY_MAX: u32 = 40_000;

#[derive(Args, Debug)]
pub(super) struct SitesArgs {
    #[command(subcommand)]
    pub(super) command: SitesCommand,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SitesCommand {
    /// List them
    #[command(after_help = "\
Examples:
  webmon sites list
  webmon sites list --keyword shop --status paused
  webmon sites list --status all --limit 100 --json
  webmon sites list --last >sites.txt           with each site's last check, however many there are")]
    List(ListArgs),
    /// Show one with all its settings, its last check and its uptime
    #[command(after_help = "\
Examples:
  webmon sites show Shop
  webmon sites show https://shop.example/ --json
  webmon sites show 42 --secrets                passwords and tokens too")]
    Show(ShowArgs),
    /// Add one; producers check it within 2 s
    #[command(after_help = "\
Examples:
  webmon sites add Shop https://shop.example/ --interval 60 --regex 'In stock'
  webmon sites add API https://api.example/ping --method POST -H 'Accept: text/plain' --body ping
  webmon sites add Intern https://intern.example/ --set tls_verify=false --set retries=2 --paused")]
    Add(AddArgs),
    /// Change one; what is not named stays
    #[command(after_help = "\
Examples:
  webmon sites update Shop --interval 30 --timeout 5
  webmon sites update 42 --name 'Shop (old)' --url https://old.shop.example/
  webmon sites update Shop --set retries=2 --unset regex --unset headers.Accept")]
    Update(UpdateArgs),
    /// Check them no more for now
    #[command(after_help = "\
Examples:
  webmon sites pause Shop
  webmon sites pause 41 42 https://api.example/ping")]
    Pause(NamedArgs),
    /// Check them again
    #[command(after_help = "\
Examples:
  webmon sites resume Shop")]
    Resume(NamedArgs),
    /// Remove them; what was seen of them is kept
    #[command(after_help = "\
Examples:
  webmon sites remove Shop                      asks first
  webmon sites remove 41 42 --yes

A site that is added again by the same name has its history of before.")]
    Remove(RemoveArgs),
    /// Add, and with --update change, the sites of a file
    #[command(after_help = "\
Examples:
  webmon sites import sites.csv --dry-run       what would be added, changed, refused
  webmon sites import config.yaml --update
  webmon sites import kuma-backup.json --skip-faulty --json
  curl -s https://gatus.example/config.yaml | webmon sites import - --format gatus

docs/import.md says what becomes of each field of other tools' files.")]
    Import(ImportArgs),
    /// Write all sites, to be read by import; secrets are in it
    #[command(after_help = "\
Examples:
  webmon sites export --output sites.yaml       readable by its owner only
  webmon sites export --format csv --mask-secrets >sites.csv
  webmon sites export | webmon --config other.yaml sites import - --format yaml")]
    Export(ExportArgs),
}

/// Which sites, by status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusArg {
    /// Checked.
    Active,
    /// Not checked for now.
    Paused,
    /// Kept for their history.
    Deleted,
    /// All of them.
    All,
}

impl StatusArg {
    /// The statuses of a filter; none: all but the deleted ones.
    pub(super) fn statuses(status: Option<Self>) -> Vec<SiteStatus> {
        match status {
            None => Vec::new(),
            Some(Self::Active) => vec![SiteStatus::Active],
            Some(Self::Paused) => vec![SiteStatus::Paused],
            Some(Self::Deleted) => vec![SiteStatus::Deleted],
            Some(Self::All) => SiteStatus::ALL.to_vec(),
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Only those with this status [default: active and paused]
    #[arg(long, value_enum)]
    pub(super) status: Option<StatusArg>,
    /// Only those with this in the name or the URL
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) keyword: String,
    /// At most so many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Go on after the site with this id, where an earlier list ended
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    pub(super) after: i64,
    /// With each site's last check in a table of more than 500 too
    #[arg(long)]
    pub(super) last: bool,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Its id, name or URL; name:3 where a name looks like an id
    pub(super) site: String,
    /// Show passwords, tokens and the like
    #[arg(long)]
    pub(super) secrets: bool,
}

/// What a site has, as flags.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SiteFlags {
    /// Seconds between checks, 5 to 86400; a site without has monitoring.interval
    #[arg(long, value_name = "SECONDS")]
    pub(super) interval: Option<String>,
    /// Seconds for a whole check, less than the interval; a site without has monitoring.timeout
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<String>,
    /// Pattern that must be found in the body
    #[arg(long, value_name = "PATTERN")]
    pub(super) regex: Option<String>,
    /// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS; a site without has GET
    #[arg(long, value_name = "METHOD")]
    pub(super) method: Option<String>,
    /// Request header, such as 'Accept: text/plain'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,
    /// Request body
    #[arg(long, value_name = "TEXT")]
    pub(super) body: Option<String>,
    /// Good answers, such as 200-299,301; a site without has 200-299
    #[arg(long, value_name = "CODES")]
    pub(super) expected_status: Option<String>,
    /// Any other setting of a site; may be given several times, and several times for a map
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// Its name, which no other site has
    pub(super) name: String,
    /// What to check, http or https
    pub(super) url: String,
    #[command(flatten)]
    pub(super) flags: SiteFlags,
    /// Don't check it yet
    #[arg(long)]
    pub(super) paused: bool,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// Its id, name or URL; name:3 where a name looks like an id
    pub(super) site: String,
    /// Another name
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Another URL
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    #[command(flatten)]
    pub(super) flags: SiteFlags,
    /// Leave this open again: any key, or headers.NAME; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(super) unset: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct NamedArgs {
    /// Their ids, names or URLs; name:3 where a name looks like an id
    #[arg(value_name = "SITE", required = true)]
    pub(super) sites: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    #[command(flatten)]
    pub(super) named: NamedArgs,
    /// Don't ask
    #[arg(long)]
    pub(super) yes: bool,
}

/// What a file of sites is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ImportFormat {
    /// webmon's configuration, or the list under websites: alone.
    Yaml,
    /// A line a site, the keys in the first.
    Csv,
    /// What `export --format json` writes.
    Json,
    /// gatus: endpoints.
    Gatus,
    /// Prometheus: file_sd targets, JSON or YAML.
    FileSd,
    /// uptime-kuma 1.x: backup, JSON.
    UptimeKuma,
}

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// The file; - is standard input
    pub(super) file: PathBuf,
    /// What it is written in [default: by its content]
    #[arg(long, value_enum)]
    pub(super) format: Option<ImportFormat>,
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Change sites that are there by name and differ
    #[arg(long)]
    pub(super) update: bool,
    /// Import the others when some are faulty
    #[arg(long)]
    pub(super) skip_faulty: bool,
}

/// What sites are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// As the configuration has them.
    Yaml,
    /// A line a site, the keys in the first.
    Csv,
    /// One object.
    Json,
}

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// What to write them in; --json is json too [default: yaml]
    #[arg(long, value_enum)]
    pub(super) format: Option<ExportFormat>,
    /// Write to this file, which only its owner may read [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Leave passwords, tokens and the like out: ******** stands for them
    #[arg(long)]
    pub(super) mask_secrets: bool,
}

#[derive(Args, Debug)]
pub(super) struct HistoryArgs {
    /// Its id, name or URL; name:3 where a name looks like an id
    pub(super) site: String,
    /// At most so many rows, the newest
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(HISTORY_MAX)))]
    pub(super) limit: u32,
    /// Only those due since then: a time (2026-01-31T12:00:00Z), a day (2026-01-31) or an age
    /// (90s, 15m, 24h, 7d)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) from: Option<Timestamp>,
    /// Only those due before then: a time, a day or an age
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) to: Option<Timestamp>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}
