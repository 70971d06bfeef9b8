//! The store's time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use brisq_model::UnixMs;

/// What the machine's two clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readings {
    /// The wall clock, which people and time servers set.
    pub wall: UnixMs,
    /// A clock that only goes on, from any beginning.
    pub steady: Duration,
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine(Instant);

impl Default for Machine {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Machine {
    #[must_use]
    pub fn read(&self) -> Readings {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Readings { wall, steady: self.0.elapsed() }
    }
}

/// Time that never goes back and never stands still: the wall's, and while the wall lies behind what was told before, that
/// plus what the steady clock counted since.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What was told when the steady clock showed `since`.
    told: UnixMs,
    since: Duration,
}

impl Clock {
    /// A clock that begins at `floor` at least.
    #[must_use]
    pub fn new(floor: UnixMs, readings: Readings) -> Self {
        Self { told: floor.max(readings.wall), since: readings.steady }
    }

    /// The time at these readings.
    pub fn tell(&mut self, readings: Readings) -> UnixMs {
        let passed = readings.steady.saturating_sub(self.since).as_millis();
        let going_on = self.told.plus_ms(u64::try_from(passed).unwrap_or(u64::MAX));
        // Anchored anew only by the wall, so that no part of a millisecond is lost on the way.
        if readings.wall > going_on {
            *self = Self { told: readings.wall, since: readings.steady };
            return readings.wall;
        }
        going_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    const START: i64 = 1_700_000_000_000;

    /// Twenty minutes in steps of `step_us`, while the wall clock is off by `off(ms since the start)`, ms.
    fn walk(step_us: u64, off: impl Fn(i64) -> i64) -> Vec<(i64, i64)> {
        let readings = |us: u64| {
            let ms = (us / 1_000) as i64;
            let wall = UnixMs((START + ms + off(ms)) as u64);
            Readings { wall, steady: Duration::from_micros(us) }
        };
        let mut clock = Clock::new(UnixMs(0), readings(0));
        let steps = (HOUR as u64 / 3 * 1_000) / step_us;
        (0..=steps)
            .map(|n| n * step_us)
            .map(|us| ((us / 1_000) as i64, clock.tell(readings(us)).0 as i64 - START))
            .collect()
    }

    #[test]
    fn time_goes_on_however_the_wall_clock_steps() {
        type Off = fn(i64) -> i64;
        let cases: [(&str, Off, i64); 6] = [
            ("right", |_| 0, 0),
            (
                "a day ahead for a second, and back",
                |ms| if (60_000..61_000).contains(&ms) { DAY } else { 0 },
                DAY,
            ),
            ("an hour back", |ms| if ms >= 60_000 { -HOUR } else { 0 }, 0),
            ("still from the first minute on", |ms| if ms >= 60_000 { 60_000 - ms } else { 0 }, 0),
            ("slow by a tenth", |ms| -ms / 10, 0),
            ("back and forth each ten seconds", |ms| if ms / 10_000 % 2 == 0 { 0 } else { -5_000 }, 0),
        ];
        for (name, off, ahead) in cases {
            for step_us in [700, 1_300, 250_000] {
                let told = walk(step_us, off);
                for pair in told.windows(2) {
                    let [(real, before), (next, after)] = [pair[0], pair[1]];
                    let (passed, told) = (next - real, after - before);
                    assert!(told >= 0, "{name}: back at {real}");
                    // A forward step of the wall is followed; otherwise time passes as it does, to the millisecond.
                    assert!(
                        (told - passed).abs() <= 1 || told >= DAY / 2,
                        "{name}: {told} in {passed} ms at {real}"
                    );
                }
                let (real, last) = *told.last().expect("steps");
                assert!((last - real - ahead).abs() <= 2, "{name}: {last} after {real}");
            }
        }
    }

    #[test]
    fn a_restart_goes_on_from_what_was_told() {
        let readings = Readings { wall: UnixMs(1_000), steady: Duration::ZERO };
        let mut clock = Clock::new(UnixMs(5_000), readings);
        let later = Readings { wall: UnixMs(1_250), steady: Duration::from_millis(250) };
        assert_eq!(clock.tell(later), UnixMs(5_250));
    }
}
