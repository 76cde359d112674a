//! `sites export`: what `import` reads back to the same.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::exit::Exit;
use super::super::output::written;
use super::super::round_trip;
use super::super::sites_args::{ExportArgs, ExportFormat};
use super::formats::{CsvWriter, yaml_text};
use super::{Context, note};
use crate::store::{SiteFilter, SiteRow, SiteStatus};
use crate::wire::website::{self, Secrets};

/// Sites that are held at once.
const PAGE: u32 = 1000;
/// A file with secrets is its owner's alone.
const MODE: u32 = 0o600;

/// Why an export ended early.
enum Trouble {
    /// It could not be written.
    Write(std::io::Error),
    Other(Exit),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

pub(super) fn export(context: &Context, args: &ExportArgs) -> Result<(), Exit> {
    let (count, place) = match &args.output {
        None => {
            let out = BufWriter::new(std::io::stdout().lock());
            let count = match write(context, args, out) {
                Ok(count) => count,
                Err(Trouble::Write(error)) => return written(Err(error)),
                Err(Trouble::Other(exit)) => return Err(exit),
            };
            (count, "standard output".to_owned())
        }
        Some(path) => {
            let part = part_of(path);
            let count = whole_file(context, args, path, &part).map_err(|trouble| {
                let _ = std::fs::remove_file(&part);
                match trouble {
                    Trouble::Write(error) => {
                        let problem = format!("{}: {error}", path.display());
                        Exit::Failed(format!("webmon sites export: {problem}"))
                    }
                    Trouble::Other(exit) => exit,
                }
            })?;
            (count, path.display().to_string())
        }
    };
    let secrets =
        if args.mask_secrets { "without secrets" } else { "passwords and tokens among them" };
    note(&format!("{count} sites written to {place}, {secrets}"));
    Ok(())
}

/// The file is there whole, or as it was before.
fn whole_file(
    context: &Context,
    args: &ExportArgs,
    path: &Path,
    part: &Path,
) -> Result<u64, Trouble> {
    let file = new_file(part)?;
    let count = write(context, args, BufWriter::new(&file))?;
    file.sync_all()?;
    std::fs::rename(part, path)?;
    Ok(count)
}

/// Beside the file, so that it takes its place in one step.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

fn new_file(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    // One that was left behind keeps its mode.
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

fn format(context: &Context, args: &ExportArgs) -> Result<ExportFormat, Exit> {
    match (context.is_json, args.format) {
        (true, None | Some(ExportFormat::Json)) => Ok(ExportFormat::Json),
        (true, Some(_)) => {
            let problem = "webmon sites export: --json is --format json; leave one of them out";
            Err(Exit::Usage(problem.to_owned()))
        }
        (false, format) => Ok(format.unwrap_or(ExportFormat::Yaml)),
    }
}

/// Writes all sites that are not deleted, but for that of `round-trip`, by id, page by page; how many.
fn write(context: &Context, args: &ExportArgs, mut out: impl Write) -> Result<u64, Trouble> {
    let secrets = if args.mask_secrets { Secrets::Masked } else { Secrets::Shown };
    let mut count = 0;
    match format(context, args).map_err(Trouble::Other)? {
        ExportFormat::Csv => {
            let mut csv = CsvWriter::new(&mut out)?;
            count += each_site(context, |row| Ok(csv.site(&exported(row, secrets, true))?))?;
            csv.end()?;
        }
        ExportFormat::Yaml => {
            out.write_all(b"websites:")?;
            count += each_site(context, |row| {
                let text = yaml_text(exported(row, secrets, false)).map_err(Trouble::Other)?;
                Ok(write!(out, "\n{}", text.trim_end())?)
            })?;
            out.write_all(if count == 0 { b" []\n" } else { b"\n" })?;
        }
        ExportFormat::Json => {
            let mut separator = "{\"websites\":[\n";
            count += each_site(context, |row| {
                let object = Value::Object(exported(row, secrets, true));
                write!(out, "{separator}{object}")?;
                separator = ",\n";
                Ok(())
            })?;
            let begin = if count == 0 { separator } else { "" };
            write!(out, "{begin}\n]}}\n")?;
        }
    }
    out.flush()?;
    Ok(count)
}

fn each_site(
    context: &Context,
    mut f: impl FnMut(&SiteRow) -> Result<(), Trouble>,
) -> Result<u64, Trouble> {
    let statuses = vec![SiteStatus::Active, SiteStatus::Paused];
    let mut filter = SiteFilter { keyword: String::new(), statuses, after: 0, limit: PAGE };
    let mut count = 0;
    loop {
        let found = context.store.find_sites(&filter);
        let rows = found.map_err(|error| Trouble::Other(Exit::of_store(&error)))?;
        // That one is made where it is needed, and nobody watches it.
        for row in rows.iter().filter(|row| row.spec.name != round_trip::SITE) {
            f(row)?;
            count += 1;
        }
        match rows.last() {
            Some(last) if rows.len() == PAGE as usize => filter.after = last.website_id,
            _ => return Ok(count),
        }
    }
}

/// What is set of a site. Its status where it is not the usual one, or always, as in a table.
fn exported(row: &SiteRow, secrets: Secrets, with_status: bool) -> Map<String, Value> {
    let mut object = website::encode(&row.spec, secrets);
    object.retain(|_, value| !value.is_null());
    if with_status || row.status != SiteStatus::Active {
        object.insert("status".to_owned(), row.status.as_str().into());
    }
    object
}
