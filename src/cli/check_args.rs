//! What `check` takes, and the site that is made of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::exit::Exit;
use super::help::seconds;
use crate::site::{INTERVAL_MAX_S, SETTINGS, SettingValue, SiteSpec, setting};

pub(super) const CHECK_HELP: &str = "\
Examples:
  webmon check https://example.org/
  webmon check -u https://example.org/ --regex 'Example (\\w+)' --timeout 5 --json
  webmon check https://a.example/ https://b.example/ --jobs 2
  webmon check --file urls.txt --brief
  webmon check https://example.org/ --repeat 10 --every 2
  webmon check --site Example --save
  webmon check https://api.example/ --method POST -H 'Accept: text/plain' --body ping --retries 2
  webmon check https://example.org/ --set min_certificate_days=14 --set tls_min_version=1.3

Results come in the order of what was typed: URLs, those of -u, of --file, and then of --site.
Exit code 1 when one is down, 2 also when a secret is not there, 3 when no site is as named, 4 when
the database is needed and away.";

/// At least one of them is needed.
const WANTED: [&str; 4] = ["urls", "url_flag", "file", "site"];

/// Pause between rounds, in seconds.
const EVERY_MIN_S: f64 = 0.1;
const EVERY_MAX_S: f64 = 86_400.0;

fn every(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (EVERY_MIN_S..=EVERY_MAX_S).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!("must be seconds from {EVERY_MIN_S} to {EVERY_MAX_S}")),
    }
}

/// A whole check ends within a day, as a site's does before its next one.
const TIMEOUT_MAX_S: u32 = INTERVAL_MAX_S - 1;

#[derive(Args, Clone, Debug, Default)]
#[command(group(ArgGroup::new("wanted").required(true).multiple(true).args(WANTED)))]
pub(super) struct CheckArgs {
    /// What to check, http or https; several are checked side by side
    #[arg(value_name = "URL")]
    pub(super) urls: Vec<String>,
    /// The same as a flag; may be given several times
    #[arg(short = 'u', long = "url", value_name = "URL", id = "url_flag")]
    pub(super) url_flags: Vec<String>,
    /// File with a URL a line, - for standard input; empty lines and those with # in front don't
    /// count
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// A site of the table with all its settings, which the other options change for this check;
    /// its id, name or URL, or name:3 where a name looks like an id; may be given several times
    #[arg(long = "site", value_name = "SITE", id = "site")]
    pub(super) sites: Vec<String>,
    /// Store the results in the table, as rows of the sites that have these URLs
    #[arg(long)]
    pub(super) save: bool,
    /// Checks under way at once, 1 to 256
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: u16,
    /// Check so many times, with a summary at the end; 0: until Ctrl-C, which shows it too
    #[arg(long, value_name = "N")]
    pub(super) repeat: Option<u32>,
    /// Seconds from one round to the next, 0.1 to 86400 [default: 1]
    #[arg(long, value_name = "SECONDS", requires = "repeat", value_parser = every)]
    pub(super) every: Option<Duration>,
    /// One line a check, without phases and other details, as with --repeat
    #[arg(long)]
    pub(super) brief: bool,
    /// Pattern that must be found in the body
    #[arg(long, value_name = "PATTERN")]
    pub(super) regex: Option<String>,
    /// Pattern that must not be found in the body
    #[arg(long, value_name = "PATTERN")]
    pub(super) forbidden_regex: Option<String>,
    /// Good answers, such as 200-299,301 [default: 200-299]
    #[arg(long, value_name = "CODES")]
    pub(super) expected_status: Option<String>,
    /// Whole seconds for one try [default: monitoring.timeout]
    #[arg(long, value_name = "SECONDS",
        value_parser = |text: &str| seconds(text, 1..=TIMEOUT_MAX_S))]
    pub(super) timeout: Option<u32>,
    /// GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS [default: GET]
    #[arg(long, value_name = "METHOD")]
    pub(super) method: Option<String>,
    /// Request header, such as 'Accept: text/plain'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,
    /// Request body
    #[arg(long, value_name = "TEXT")]
    pub(super) body: Option<String>,
    /// Tries after a first one that failed
    #[arg(long, value_name = "N")]
    pub(super) retries: Option<String>,
    /// Dial IPv4 addresses only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(super) ipv4: bool,
    /// Dial IPv6 addresses only
    #[arg(short = '6', long)]
    pub(super) ipv6: bool,
    /// Take any certificate
    #[arg(long)]
    pub(super) no_verify: bool,
    /// Take a redirect for the answer
    #[arg(long, conflicts_with = "max_redirects")]
    pub(super) no_follow: bool,
    /// Redirects that are followed [default: monitoring.max_redirects]
    #[arg(long, value_name = "N")]
    pub(super) max_redirects: Option<String>,
    /// The name asked for and verified in TLS, if not the URL's host
    #[arg(long, value_name = "HOST")]
    pub(super) server_name: Option<String>,
    /// HTTP proxy, such as http://proxy.example:3128
    #[arg(long, value_name = "URL")]
    pub(super) proxy: Option<String>,
    /// Any other setting of a site; may be given several times, and several times for a map
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
    /// Print the messages that would go to Kafka, one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

impl CheckArgs {
    /// `spec` with what was typed; building it finds the faults of its values.
    pub(super) fn apply(&self, mut spec: SiteSpec) -> Result<SiteSpec, Exit> {
        let typed = |value: &Option<String>, old: &mut Option<String>| {
            if value.is_some() {
                old.clone_from(value);
            }
        };
        typed(&self.regex, &mut spec.regex);
        typed(&self.method, &mut spec.method);
        typed(&self.body, &mut spec.body);
        typed(&self.expected_status, &mut spec.expected_status);
        for text in &self.headers {
            // The text isn't shown: many headers are secrets.
            let (name, value) =
                text.split_once(':').ok_or_else(|| usage("--header", "must be 'Name: value'"))?;
            spec.headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let flag = |flag: bool, value: &str| flag.then(|| value.to_owned());
        for (option, key, value) in [
            ("--forbidden-regex", "forbidden_regex", self.forbidden_regex.clone()),
            ("--retries", "retries", self.retries.clone()),
            ("--ipv4", "ip_version", flag(self.ipv4, "ipv4")),
            ("--ipv6", "ip_version", flag(self.ipv6, "ipv6")),
            ("--no-verify", "tls_verify", flag(self.no_verify, "false")),
            ("--no-follow", "follow_redirects", flag(self.no_follow, "none")),
            ("--max-redirects", "max_redirects", self.max_redirects.clone()),
            ("--server-name", "server_name", self.server_name.clone()),
            ("--proxy", "proxy", self.proxy.clone()),
        ] {
            if let Some(value) = value {
                set(&mut spec, key, &value).map_err(|problem| usage(option, &problem))?;
            }
        }
        for text in &self.settings {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| usage("--set", "must be KEY=VALUE, such as retry_pause=0.5"))?;
            let key = key.trim();
            set(&mut spec, key, value)
                .map_err(|problem| usage(&format!("--set {key}"), &problem))?;
        }
        Ok(spec)
    }
}

fn usage(option: &str, problem: &str) -> Exit {
    Exit::Usage(format!("webmon check: {option}: {problem}"))
}

/// Sets what the table of settings has as `key`; entries of a map come one by one.
fn set(spec: &mut SiteSpec, key: &str, text: &str) -> Result<(), String> {
    let Some(setting) = setting(key) else {
        let keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        return Err(format!("is no setting of a site; these are: {}", keys.join(", ")));
    };
    let value = match (setting.parse(text)?, spec.settings.get(key)) {
        (SettingValue::Map(new), Some(SettingValue::Map(old))) => {
            SettingValue::Map([old.as_slice(), new.as_slice()].concat())
        }
        (value, _) => value,
    };
    spec.settings.set(key, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{FollowRedirects, IpVersion, SiteDefaults};

    fn typed(settings: &[&str]) -> CheckArgs {
        let settings = settings.iter().map(|text| (*text).to_owned()).collect();
        CheckArgs { settings, ..CheckArgs::default() }
    }

    fn problem(args: &CheckArgs) -> String {
        match args.apply(SiteSpec::default()) {
            Err(Exit::Usage(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_settings_and_set_has_the_last_word() {
        let args = CheckArgs {
            headers: vec!["X-A:b: c".to_owned()],
            retries: Some("1".to_owned()),
            ipv6: true,
            no_verify: true,
            no_follow: true,
            ..typed(&["retries=3", "expected_headers=B: x", "expected_headers=A: y=z"])
        };
        let url = "https://a.example/".to_owned();
        let spec = SiteSpec { name: "x".to_owned(), url, ..SiteSpec::default() };
        let spec = args.apply(spec).unwrap();
        let site = spec.build(0, SiteDefaults { interval: 60, timeout: 5 }).unwrap();
        let more = site.more();
        assert_eq!(more.headers, [("X-A".to_owned(), "b: c".to_owned())]);
        assert_eq!((more.retries, more.tls.unverified), (3, true));
        assert_eq!(more.follow_redirects, FollowRedirects::None);
        assert_eq!(more.ip_version, IpVersion::V6);
        let patterns: Vec<&str> =
            more.expected_headers.iter().map(|h| h.pattern.source()).collect();
        assert_eq!(patterns, ["y=z", "x"]);
    }

    #[test]
    fn what_was_not_typed_stays() {
        let site = SiteSpec {
            regex: Some("old".to_owned()),
            method: Some("HEAD".to_owned()),
            headers: vec![("X-A".to_owned(), "a".to_owned())],
            ..SiteSpec::default()
        };
        assert_eq!(typed(&[]).apply(site.clone()).unwrap(), site);
        let args = CheckArgs { regex: Some("new".to_owned()), ..typed(&[]) };
        let wanted = SiteSpec { regex: Some("new".to_owned()), ..site.clone() };
        assert_eq!(args.apply(site).unwrap(), wanted);
    }

    #[test]
    fn rounds_are_neither_too_close_nor_too_far() {
        assert_eq!(every("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "0.09", "86401", "-1", "NaN", "inf", "x"] {
            assert!(every(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_by_option_without_the_value() {
        for (args, expected) in [
            (typed(&["retry_pause"]), "--set: must be KEY=VALUE"),
            (typed(&["colour=hunter2"]), "--set colour: is no setting of a site; these are: user"),
            (typed(&["retry_pause=hunter2"]), "--set retry_pause: must be seconds from 0 to 60"),
            (
                CheckArgs { headers: vec!["hunter2".to_owned()], ..typed(&[]) },
                "--header: must be 'Name: value'",
            ),
            (
                CheckArgs { max_redirects: Some("31".to_owned()), ..typed(&[]) },
                "--max-redirects: must be a whole number from 0 to 30",
            ),
        ] {
            let problem = problem(&args);
            assert!(problem.contains(expected) && !problem.contains("hunter2"), "{problem}");
        }
    }
}
