//! Logging, set up once and the same way in every program. It never holds its program up: lines go to a thread of their
//! own through a bounded queue, what finds no room or cannot be written is counted and said later, and of a line that
//! comes again and again one is written.
#![forbid(unsafe_code)]

mod lines;
mod repeats;

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::lines::Lines;
use crate::repeats::{OneOfMany, Repeats};

/// What is logged when `BRISQ_LOG` is not set: of ourselves what operators want to know, of libraries what went wrong.
pub const DEFAULT_FILTER: &str = "warn,brisq=info";

/// Writes what is still to be written when it is dropped, for a second at most.
#[derive(Debug)]
#[must_use = "lines that are still to be written are lost with the process"]
pub struct Logging(Option<Arc<Lines>>);

impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(lines) = &self.0 {
            lines.flush();
        }
    }
}

/// Starts logging to standard error: text on a terminal, one JSON object a line elsewhere. `BRISQ_LOG` filters
/// (such as `info,brisq_server=debug`); the default is `default_filter`.
///
/// A second call changes nothing.
pub fn init_logging(default_filter: &str) -> Logging {
    let filter = EnvFilter::try_from_env("BRISQ_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    let Ok(lines) = Lines::start(std::io::stderr()) else {
        complain("no thread for the log could be started: nothing will be logged");
        return Logging(None);
    };
    let repeats = Arc::new(Repeats::default());
    // The subscriber's own complaints would go to the standard error that does not take lines, and panic there.
    let of_layer = Arc::clone(&lines);
    let layer =
        tracing_subscriber::fmt::layer().with_writer(move || of_layer.line()).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter).with(OneOfMany(Arc::clone(&repeats)));
    let result = if std::io::stderr().is_terminal() {
        registry.with(layer.with_target(false)).try_init()
    } else {
        registry.with(layer.with_ansi(false).json().flatten_event(true)).try_init()
    };
    if result.is_err() {
        tracing::debug!("logging was set up before");
        return Logging(None);
    }
    lines.tell_of(repeats);
    Logging(Some(lines))
}

/// Says something on standard error before there is a log, or when there is none. A standard error that nobody reads is no
/// reason to end.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says something on standard output. One that nobody reads is no reason to end.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
