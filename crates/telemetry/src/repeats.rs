//! One line of many that say the same: a store that does not answer fails a thousand callers for one cause.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// A warning or an error that says the same again is left out for so long, and counted.
const QUIET: Duration = Duration::from_secs(10);
/// Different causes at one place in the code that are told apart within that time; further ones count as one.
const CAUSES_MAX: usize = 16;
/// Places that are remembered; with more, all are forgotten, and each may write a line again.
const PLACES_MAX: usize = 1_024;
/// Characters of a message that the line about those left out repeats.
const SAID_MAX: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct Repeats {
    places: Mutex<HashMap<Identifier, HashMap<Cause, Said>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    /// By the hash of what it said.
    Known(u64),
    /// One cause too many.
    Other,
}

#[derive(Debug)]
struct Said {
    text: String,
    level: Level,
    at: Instant,
    left_out: u64,
}

impl Repeats {
    /// Whether a line may be written; if not, it counts as left out.
    fn admit(&self, place: Identifier, level: Level, text: &str, now: Instant) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        let causes = places.entry(place).or_default();
        // Those that were quiet long enough make room; what they left out is told first, by the thread of the log.
        causes.retain(|_, said| said.left_out > 0 || now.duration_since(said.at) < QUIET);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let known = Cause::Known(hasher.finish());
        let cause =
            if causes.contains_key(&known) || causes.len() < CAUSES_MAX { known } else { Cause::Other };
        match causes.get_mut(&cause) {
            Some(said) => {
                said.left_out += 1;
                false
            }
            None => {
                let text = text.chars().take(SAID_MAX).collect();
                causes.insert(cause, Said { text, level, at: now, left_out: 0 });
                true
            }
        }
    }

    /// Texts of those that were left out and whose quiet time is over at `now`; all with `None`.
    fn take(&self, now: Option<Instant>) -> Vec<(Level, String, u64)> {
        let mut taken = Vec::new();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for causes in places.values_mut() {
            for said in causes.values_mut() {
                let due = now.is_none_or(|now| now.duration_since(said.at) >= QUIET);
                if due && said.left_out > 0 {
                    taken.push((said.level, said.text.clone(), said.left_out));
                    said.left_out = 0;
                    said.at = now.unwrap_or(said.at);
                }
            }
        }
        taken
    }

    /// Logs how many lines were left out of those whose quiet time is over.
    pub(crate) fn tell_due(&self) {
        tell(self.take(Some(Instant::now())));
    }

    /// Logs it of all.
    pub(crate) fn tell_all(&self) {
        tell(self.take(None));
    }
}

fn tell(left_out: Vec<(Level, String, u64)>) {
    for (level, of, left_out) in left_out {
        if level == Level::ERROR {
            tracing::error!(target: "brisq_telemetry", left_out, of, "lines that say the same were left out");
        } else {
            tracing::warn!(target: "brisq_telemetry", left_out, of, "lines that say the same were left out");
        }
    }
}

/// The layer that asks.
pub(crate) struct OneOfMany(pub(crate) Arc<Repeats>);

impl<S: Subscriber> Layer<S> for OneOfMany {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let meta = event.metadata();
        // What is told on purpose is told each time, and the tale of what was left out is not left out.
        if *meta.level() > Level::WARN || meta.target() == "brisq_telemetry" {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        self.0.admit(meta.callsite(), *meta.level(), &text.0, Instant::now())
    }
}

/// Message and fields as one text: two lines with the same one have one cause.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let begin = if self.0.is_empty() { "" } else { " " };
        // A String takes all that is written to it.
        let _ = match field.name() {
            "message" => write!(self.0, "{begin}{value:?}"),
            name => write!(self.0, "{begin}{name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite;

    use super::*;

    struct Place;

    impl Callsite for Place {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("a place is only told from others")
        }
    }

    static PLACE: Place = Place;

    #[test]
    fn one_line_of_a_thousand_is_written_and_the_others_are_counted() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let admitted = |text: &str, after: Duration| {
            (0..1_000).filter(|_| repeats.admit(Identifier(&PLACE), Level::WARN, text, start + after)).count()
        };
        assert_eq!(admitted("refused", Duration::ZERO), 1);
        assert_eq!(admitted("timed out", Duration::from_secs(9)), 1, "another cause has a line of its own");
        let told = repeats.take(Some(start + QUIET));
        assert_eq!(told, [(Level::WARN, "refused".to_owned(), 999)]);
        assert!(repeats.take(Some(start + QUIET)).is_empty(), "told once");
        assert_eq!(admitted("refused", QUIET + Duration::from_secs(1)), 0, "still the same storm");
        assert_eq!(admitted("refused", QUIET * 9), 0, "what was left out is told first");
        assert_eq!(repeats.take(None).len(), 2);
        assert_eq!(admitted("refused", QUIET * 20), 1, "after a calm time it is news");
    }

    /// What says itself how often it is said, such as a line a minute of what lasts, is written each time, and nothing is
    /// counted of it.
    #[test]
    fn what_is_said_once_a_minute_is_written_every_minute() {
        let repeats = Repeats::default();
        let start = Instant::now();
        let written = (0..=600).filter(|second| {
            let now = start + Duration::from_secs(*second);
            assert!(repeats.take(Some(now)).is_empty(), "nothing is left out");
            second % 60 == 0 && repeats.admit(Identifier(&PLACE), Level::WARN, "it lasts", now)
        });
        assert_eq!(written.count(), 11);
    }

    #[test]
    fn causes_that_all_differ_write_few_lines() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let differ = (0..10_000).map(|n| format!("connection {n} broke"));
        let written = differ.filter(|text| repeats.admit(Identifier(&PLACE), Level::WARN, text, now)).count();
        assert_eq!(written, CAUSES_MAX + 1);
        assert_eq!(repeats.take(None).iter().map(|(_, _, left_out)| left_out).sum::<u64>(), 10_000 - 17);
    }
}
