//! Passwords that are typed.

use super::exit::Exit;
use crate::config::{self, Database, Sources};

/// The database password's key.
pub(super) const DATABASE: &str = "database.password";
/// The broker password's key.
pub(super) const KAFKA: &str = "kafka.sasl.password";
/// The key that can't be without it.
const KAFKA_USER: &str = "kafka.sasl.user";
/// Stands for a password that is still to be asked for: the prompt names user and server, which
/// are known when everything else is read.
const PENDING: &str = "pending";

/// Asks on the terminal, without echo.
pub(super) fn ask(prompt: &str) -> Result<String, Exit> {
    let typed = rpassword::prompt_password(prompt).map_err(|error| {
        Exit::Usage(format!(
            "no password: it can't be asked for here ({error}); set WEBMON_DATABASE_PASSWORD or \
             WEBMON_DATABASE_PASSWORD_FILE (for Kafka: WEBMON_KAFKA_SASL_PASSWORD…)"
        ))
    })?;
    if typed.is_empty() {
        return Err(Exit::Usage("no password: nothing was typed".to_owned()));
    }
    Ok(typed)
}

/// The prompt for the database's password.
pub(super) fn database(database: &Database) -> String {
    let Database { user, host, port, db, .. } = database;
    format!("Password of '{user}' at PostgreSQL {host}:{port}/{db}: ")
}

/// `--ask-password`: the database's password, and the broker's where a user is set without one.
pub(super) fn ask_for_all(sources: &mut Sources) -> Result<(), Exit> {
    let usage = |faults: config::Faults| Exit::Usage(faults.to_string());
    let set = |sources: &mut Sources, key: &str, value: String| {
        sources.flags.push((key.to_owned(), value));
    };
    set(sources, DATABASE, PENDING.to_owned());
    let (loaded, asks_kafka) = match config::load(sources) {
        Ok(loaded) => (loaded, false),
        Err(faults) if faults.0.iter().all(|fault| fault.key == KAFKA_USER) => {
            set(sources, KAFKA, PENDING.to_owned());
            (config::load(sources).map_err(usage)?, true)
        }
        Err(faults) => return Err(usage(faults)),
    };
    let settings = &loaded.settings;
    let typed = ask(&database(&settings.database))?;
    set(sources, DATABASE, typed);
    if let Some(sasl) = settings.kafka.sasl.as_ref().filter(|_| asks_kafka) {
        let servers = settings.kafka.servers.join(",");
        let typed = ask(&format!("Password of '{}' at Kafka {servers}: ", sasl.user))?;
        set(sources, KAFKA, typed);
    }
    Ok(())
}
