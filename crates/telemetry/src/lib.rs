//! Logging, set up once and the same way in every program.
#![forbid(unsafe_code)]

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error: text on a terminal, one JSON object a line elsewhere. `BRISQ_LOG` filters
/// (such as `info,brisq_server=debug`); the default is `default_filter`.
///
/// A second call changes nothing.
pub fn init_logging(default_filter: &str) {
    let filter = EnvFilter::try_from_env("BRISQ_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if result.is_err() {
        tracing::debug!("logging was set up before");
    }
}
