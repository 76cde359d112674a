//! SIGTERM and SIGINT.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Stop;

/// From now on the first SIGTERM or SIGINT asks for the stop, the second exits at once with
/// 128 + its number.
///
/// # Errors
/// The operating system's, when the handlers can't be installed.
#[allow(clippy::disallowed_methods)] // lives as long as the process: nobody joins it
pub fn stop_on_signals(stop: &Stop) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let stop = stop.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if stop.is_requested() {
                std::process::exit(128 + signal);
            }
            log::info!(signal; "stopping");
            stop.request();
        }
    })?;
    Ok(())
}
