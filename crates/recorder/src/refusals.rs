//! Samples that the library's ring refused. The library says how many in a debug event and nowhere else, so the events of
//! its calls are listened to; other events of the process go where they went before.

use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber, dispatcher};

/// Counts what the library refused in the calls made through it.
pub(crate) struct Refusals {
    total: Arc<AtomicU64>,
    listener: Dispatch,
}

impl Default for Refusals {
    fn default() -> Self {
        let total = Arc::default();
        Self { listener: Dispatch::new(Listener(Arc::clone(&total))), total }
    }
}

impl Refusals {
    /// Makes a call of the library's; how many refused samples the library told of meanwhile.
    pub(crate) fn during(&self, call: impl FnOnce()) -> u64 {
        dispatcher::with_default(&self.listener, call);
        self.total.swap(0, Ordering::Relaxed)
    }
}

struct Listener(Arc<AtomicU64>);

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("dial9_perf_self_profile")
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.fetch_add(refused(&message.0).unwrap_or(0), Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// The number in `[ctimer] dropped 12 samples (buffer full)`.
fn refused(message: &str) -> Option<u64> {
    message.split_once(" dropped ")?.1.split_once(" samples")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_library_says_of_its_ring_is_counted() {
        let refusals = Refusals::default();
        let told = refusals.during(|| {
            tracing::debug!(target: "dial9_perf_self_profile::sys", "[ctimer] dropped {} samples (buffer full)", 12);
            tracing::debug!(target: "dial9_perf_self_profile::sys", "[ctimer] dropped {} samples (buffer full)", 3);
            tracing::info!(target: "dial9_perf_self_profile::sys", "using ctimer-based CPU profiling");
            tracing::error!("dropped 7 samples");
        });
        assert_eq!(told, 15);
        assert_eq!(refusals.during(|| {}), 0);
    }
}
