//! Log set-up.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Logs to standard error: `info` and above, or what `RUST_LOG` says.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let done = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be told on standard error, too, and end whoever finds no room there.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    if done.is_err() {
        tracing::debug!("the log is set up already");
    }
}
