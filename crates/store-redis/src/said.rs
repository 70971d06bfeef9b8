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
        let mut said = self.0.lock();
        if said.as_ref().is_some_and(|(known, at)| known == cause && at.elapsed() < AGAIN) {
            return false;
        }
        *said = Some((cause.to_owned(), Instant::now()));
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
    fn a_lasting_cause_is_told_once() {
        let said = Said::default();
        let told = ["a", "a", "b", "a"].map(|cause| said.is_news(cause));
        assert_eq!(told, [true, false, true, true]);
        assert_eq!([said.is_over(), said.is_over()], [true, false]);
        assert!(said.is_news("a"));
    }
}
