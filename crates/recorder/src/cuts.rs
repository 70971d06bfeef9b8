//! When windows are cut.

use std::time::{Duration, Instant};

use crate::wire::WINDOW_MS;

pub(crate) const WINDOW: Duration = Duration::from_millis(WINDOW_MS);

/// Every second from the start on, or later where the process gets no CPU.
pub(crate) struct Cuts {
    due: Instant,
    was_late: bool,
}

impl Cuts {
    pub(crate) fn from(start: Instant) -> Self {
        Self { due: start + WINDOW, was_late: false }
    }

    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// Whether a cut that is due waits for one window more. A process that stood still runs only now what waited for it
    /// meanwhile, and that belongs to the time of the stall. One that is starved for long is late each time, and waits once.
    pub(crate) fn is_put_off(&mut self, now: Instant) -> bool {
        let is_late = now.saturating_duration_since(self.due) >= WINDOW;
        let was_late = std::mem::replace(&mut self.was_late, is_late);
        is_late && !was_late
    }

    /// The next one, behind a cut that was made now. Behind a late one it is half a window away at least: a claim that is old
    /// at the ends of two windows stood still in both, and the second may not be a moment.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.due = (self.due + WINDOW).max(now + WINDOW / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When windows are cut, ms after the start, by a thread that wakes up so many ms late each time.
    fn cut(late_ms: &[u64]) -> Vec<u128> {
        let start = Instant::now();
        let mut late = late_ms.iter().copied().map(Duration::from_millis);
        let (mut cuts, mut made) = (Cuts::from(start), Vec::new());
        while let Some(mut now) = late.next().map(|late| cuts.due() + late) {
            if cuts.is_put_off(now) {
                now += WINDOW + late.next().unwrap_or_default();
            }
            cuts.advance(now);
            made.push((now - start).as_millis());
        }
        made
    }

    #[test]
    fn a_stall_is_waited_for_once_and_no_window_is_empty() {
        for (late_ms, expected) in [
            (&[0, 0, 0][..], &[1_000, 2_000, 3_000][..]),
            (&[100, 0, 0], &[1_100, 2_000, 3_000]),
            (&[900, 0, 0], &[1_900, 2_400, 3_400]),
            (&[3_200, 0, 0, 0], &[5_200, 5_700, 6_700]),
            // Starved for long: windows as long as the stalls, without a second more of each.
            (&[2_000; 5], &[6_000, 8_500, 11_000, 13_500]),
            // Two stalls with a good second between them are waited for both.
            (&[2_000, 0, 0, 2_000, 0, 0], &[4_000, 4_500, 8_500, 9_000]),
        ] {
            assert_eq!(cut(late_ms), expected, "{late_ms:?}");
        }
    }
}
