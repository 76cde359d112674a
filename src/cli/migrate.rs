//! `migrate` and `drop`.

use std::io::IsTerminal;

use secrecy::{ExposeSecret, SecretString};

use super::args::{CommonArgs, DropArgs, MigrateArgs};
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::{options, output, password};

pub(super) fn migrate(common: &CommonArgs, args: &MigrateArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let store = options::store(&loaded.settings, "webmon-migrate")?;
    let (files, verb) = if args.dry_run {
        (store.pending_migrations(), "would apply")
    } else {
        (store.migrate(), "applied")
    };
    let files = files.map_err(|error| Exit::of_store(&error))?;
    if args.json {
        let key = if args.dry_run { "pending" } else { "applied" };
        return output::line(&serde_json::json!({ key: files }).to_string());
    }
    if files.is_empty() {
        return output::line("the tables are up to date");
    }
    files.iter().try_for_each(|file| output::line(&format!("{verb} {file}")))
}

pub(super) fn drop_everything(common: &CommonArgs, args: &DropArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let password = match &args.password {
        Some(password) => password.clone(),
        None if std::io::stdin().is_terminal() => {
            let database = &loaded.settings.database;
            password::ask(&format!("This deletes all results. {}", password::database(database)))?
        }
        None => {
            return Err(Exit::Usage(
                "webmon drop: give the database password: webmon drop PASSWORD".to_owned(),
            ));
        }
    };
    // The configuration's password may be absent or out of date: what was typed decides, on a
    // connection of its own. Where it is the configured one, the store compares before it asks.
    let typed = SecretString::from(password);
    let mut settings = loaded.settings;
    let configured = settings.database.password.take();
    settings.database.password = configured.filter(|c| c.expose_secret() == typed.expose_secret());
    let asking = options::store_unasked(&settings, "webmon-drop")?;
    if !asking.verify_password(&typed).map_err(|error| Exit::of_store(&error))? {
        return Err(Exit::Usage(
            "webmon drop: that is not the password; nothing was deleted".to_owned(),
        ));
    }
    settings.database.password = Some(typed);
    let store = options::store_unasked(&settings, "webmon-drop")?;
    store.drop_everything().map_err(|error| Exit::of_store(&error))?;
    output::line("all tables of webmon are deleted; `webmon migrate` makes them again")
}
