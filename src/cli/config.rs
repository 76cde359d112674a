//! `config check` and `config show`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use serde_json::{Value, json};

use super::args::{CommonArgs, ConfigArgs, ConfigCommand, InitArgs};
use super::exit::Exit;
use super::{options, output};
use crate::config::{self, Fault};

/// The file with every key: what a package or an image has beside the program.
const SHIPPED: &str = include_str!("../../config.yaml");

pub(super) fn config(common: &CommonArgs, args: &ConfigArgs) -> Result<(), Exit> {
    let is_show = match &args.command {
        ConfigCommand::Init(init) => return self::init(init, args.json),
        ConfigCommand::Check => false,
        ConfigCommand::Show => true,
    };
    let loaded = match config::load(&options::sources(common, [])) {
        Ok(loaded) => loaded,
        Err(faults) if args.json => {
            output::line(
                &json!({ "faults": faults.0.iter().map(fault).collect::<Vec<_>>() }).to_string(),
            )?;
            return Err(Exit::Usage(faults.to_string()));
        }
        Err(faults) => return Err(Exit::Usage(faults.to_string())),
    };
    match (is_show, args.json) {
        (false, false) => output::line("the configuration is good"),
        (false, true) => output::line(&json!({ "faults": [] }).to_string()),
        (true, false) => output::line(config::show(&loaded).trim_end()),
        (true, true) => {
            let settings: Vec<Value> = loaded
                .origins
                .iter()
                .map(|s| json!({ "key": s.key, "value": s.value, "origin": s.origin.to_string() }))
                .collect();
            output::line(&json!({ "settings": settings }).to_string())
        }
    }
}

fn init(args: &InitArgs, is_json: bool) -> Result<(), Exit> {
    let path = args.path.display().to_string();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&args.path)
        .and_then(|mut file| file.write_all(SHIPPED.as_bytes()));
    match written {
        Ok(()) if is_json => output::line(&json!({ "written": path }).to_string()),
        Ok(()) => output::line(&format!("{path} is written; change it, then: webmon config check")),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Exit::Usage(format!(
            "webmon config: {path} is there already and stays as it is; name another with --path"
        ))),
        Err(error) => {
            Err(Exit::Usage(format!("webmon config: {path} can't be written: {error}; see --path")))
        }
    }
}

fn fault(fault: &Fault) -> Value {
    json!({
        "file": fault.file.as_ref().map(|file| file.display().to_string()),
        "line": fault.line,
        "key": fault.key,
        "value": fault.value,
        "problem": fault.problem,
        "cure": fault.cure,
    })
}
