//! SIGTERM, SIGINT and SIGHUP.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Stop;

/// From now on the first SIGTERM, SIGINT or SIGHUP (a closed terminal) asks for the stop, the second
/// exits at once with 128 + its number.
///
/// # Errors
/// The operating system's, when the handlers can't be installed.
#[allow(clippy::disallowed_methods)] // lives as long as the process: nobody joins it
pub fn stop_on_signals(stop: &Stop) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let stop = stop.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 {
                std::process::exit(128 + signal);
            }
            log::info!(signal; "stopping");
            stop.request();
        }
    })?;
    Ok(())
}
