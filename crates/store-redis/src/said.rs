use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A cause that lasts is told again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// What was told last of something that is tried over and over, so that a lasting cause makes a line a minute.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<Option<(String, Instant)>>);

impl Said {
    /// Whether this is to be told: it is another cause than the last, or that was told long ago.
    pub(crate) fn is_news(&self, cause: &str) -> bool {
        self.is_news_at(cause, Instant::now())
    }

    fn is_news_at(&self, cause: &str, now: Instant) -> bool {
        let mut said = self.0.lock();
        if said.as_ref().is_some_and(|(known, at)| known == cause && now.duration_since(*at) < AGAIN) {
            return false;
        }
        *said = Some((cause.to_owned(), now));
        true
    }

    /// The cause is over. Whether it was told.
    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_cause_is_told_once_a_minute() {
        let (said, start) = (Said::default(), Instant::now());
        let told = (0..=600).filter(|second| said.is_news_at("a", start + Duration::from_secs(*second)));
        assert_eq!(told.collect::<Vec<_>>(), (0..=10).map(|minute| 60 * minute).collect::<Vec<_>>());
    }

    #[test]
    fn another_cause_is_news_and_so_is_one_that_was_over() {
        let said = Said::default();
        let told = ["a", "a", "b", "a"].map(|cause| said.is_news(cause));
        assert_eq!(told, [true, false, true, true]);
        assert_eq!([said.is_over(), said.is_over()], [true, false]);
        assert!(said.is_news("a"));
    }
}
