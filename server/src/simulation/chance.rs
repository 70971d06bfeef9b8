//! What a run draws from its seed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What goes wrong in a run, beside calls that are slow, clients that leave, workers that die, and wake-ups that come late
/// and twice. Each of the others is also drawn alone, so that the bounds of runs without it can be tight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Calm,
    /// Questions and answers are lost.
    Lossy,
    /// Wake-ups stop for seconds.
    Mute,
    /// Servers are killed.
    Deadly,
    /// All of it.
    Stormy,
}

impl Weather {
    const ALL: [Self; 5] = [Self::Calm, Self::Lossy, Self::Mute, Self::Deadly, Self::Stormy];

    pub(super) fn is(self, weather: Self) -> bool {
        self == weather || self == Self::Stormy
    }
}

/// All chance of a run.
pub(super) struct Chance {
    random: Mutex<StdRng>,
    pub(super) weather: Weather,
    /// All weathers with each number of servers, and with each way in.
    pub(super) servers: usize,
    /// All claims go to one server, though others take enqueues and acts: what wakes them then has one way only.
    pub(super) has_one_door: bool,
    is_healthy: AtomicBool,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        let kinds = Weather::ALL.len() as u64;
        Self {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            weather: Weather::ALL[(seed % kinds) as usize],
            servers: 2 + (seed / kinds % 2) as usize,
            has_one_door: seed / kinds % 4 < 2,
            is_healthy: AtomicBool::new(false),
        }
    }

    /// Uniform from `from` to below `to`.
    pub(super) fn draw(&self, from: u64, to: u64) -> u64 {
        self.random.lock().random_range(from..to)
    }

    /// Uniform within one of the spans.
    pub(super) fn span(&self, spans_ms: &[(u64, u64)]) -> Duration {
        let (from, to) = spans_ms[self.draw(0, spans_ms.len() as u64) as usize];
        Duration::from_millis(self.draw(from, to))
    }

    /// A time that is mostly short.
    pub(super) fn delay(&self, most_ms: u64) -> Duration {
        self.span(&[(0, 3), (0, 3), (0, 11), (0, most_ms / 2), (0, most_ms + 1)])
    }

    /// True in so many of a thousand cases.
    pub(super) fn permille(&self, permille: u64) -> bool {
        self.draw(0, 1_000) < permille
    }

    /// As [`Self::permille`], and never once all is healthy.
    pub(super) fn fault(&self, permille: u64) -> bool {
        self.permille(permille) && !self.is_healthy()
    }

    /// From here on nothing goes wrong any more.
    pub(super) fn heal(&self) {
        self.is_healthy.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::SeqCst)
    }
}
