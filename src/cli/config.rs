//! `config check` and `config show`.

use serde_json::{Value, json};

use super::args::{CommonArgs, ConfigArgs, ConfigCommand};
use super::exit::Exit;
use super::{options, output};
use crate::config::{self, Fault};

pub(super) fn config(common: &CommonArgs, args: &ConfigArgs) -> Result<(), Exit> {
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
    match (&args.command, args.json) {
        (ConfigCommand::Check, false) => output::line("the configuration is good"),
        (ConfigCommand::Check, true) => output::line(&json!({ "faults": [] }).to_string()),
        (ConfigCommand::Show, false) => output::line(config::show(&loaded).trim_end()),
        (ConfigCommand::Show, true) => {
            let settings: Vec<Value> = loaded
                .origins
                .iter()
                .map(|s| json!({ "key": s.key, "value": s.value, "origin": s.origin.to_string() }))
                .collect();
            output::line(&json!({ "settings": settings }).to_string())
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
