use std::time::Duration;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once.
    pub connections_max: usize,
    /// Connections accepted beyond that number, on which probes alone are answered.
    pub beyond_max: usize,
    /// From a request's first byte until its head is complete.
    pub header_timeout: Duration,
    /// Between two requests, and before the first.
    pub idle_timeout: Duration,
    /// For how long a client may leave its answer unread.
    pub write_timeout: Duration,
    /// From when a client first left its answer unread until it has read all that was written: bytes now and then hold an
    /// answer's memory as well as none do.
    pub unread_timeout: Duration,
    /// From the first sign of shutdown until connections are cut.
    pub drain_deadline: Duration,
}

/// From a request's head until its body is complete.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Paths that are answered beyond the cap of connections, as always.
pub const PROBES: [&str; 2] = ["/healthz", "/readyz"];
/// For how long a connection beyond the cap may say nothing before its place may be given to another.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);
/// Head and idle time-out of a connection beyond the cap: its place is for the next probe.
pub(crate) const BEYOND_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of a public listener, where descriptors allow.
const CONNECTIONS_MAX: usize = 10_000;
/// Connections beyond the cap, where descriptors allow.
const BEYOND_MAX: usize = 64;
/// Connections of a listener for scrapers, probes or an operator, and beyond that number.
const ASIDE: (usize, usize) = (64, 8);
/// Listeners aside that one process may have: admin, metrics, probes.
const ASIDE_LISTENERS: usize = 3;
/// Descriptors that are not connections: a quarter of all, within these bounds. They are for the store, Redis, files of
/// captures, the runtime and the log.
const OWN_DESCRIPTORS: (usize, usize) = (32, 128);

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            beyond_max: BEYOND_MAX,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(60),
            unread_timeout: Duration::from_secs(300),
            drain_deadline: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Limits of a listener for scrapers, probes or an operator.
    #[must_use]
    pub fn aside() -> Self {
        Self { connections_max: ASIDE.0, beyond_max: ASIDE.1, ..Self::default() }
    }

    /// Limits of the public listener, and of each listener aside, of a process that may have so many descriptors.
    #[must_use]
    pub fn within(descriptors: u64) -> (Self, Self) {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let own = (descriptors / 4).clamp(OWN_DESCRIPTORS.0, OWN_DESCRIPTORS.1);
        let doors = descriptors.saturating_sub(own).max(ASIDE_LISTENERS + 2);
        // Those beyond the cap count twice: as many may linger, answered and waiting for their client to read.
        let beyond_max = BEYOND_MAX.min(doors / 8);
        let aside = (ASIDE.0 + 2 * ASIDE.1).min(doors / 12).max(1);
        let connections_max = CONNECTIONS_MAX.min(doors - 2 * beyond_max - ASIDE_LISTENERS * aside);
        let aside_beyond = aside * ASIDE.1 / (ASIDE.0 + 2 * ASIDE.1);
        let public = Self { connections_max, beyond_max, ..Self::default() };
        let aside =
            Self { connections_max: aside - 2 * aside_beyond, beyond_max: aside_beyond, ..Self::default() };
        (public, aside)
    }

    /// These limits as they are for a connection beyond the cap.
    pub(crate) fn beyond(self) -> Self {
        let least = |limit: Duration| limit.min(BEYOND_TIMEOUT);
        Self { header_timeout: least(self.header_timeout), idle_timeout: least(self.idle_timeout), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_all_listeners_fit_into_the_descriptors() {
        for (descriptors, public, beyond, aside) in [
            (1_048_576, 10_000, 64, 64),
            (12_000, 10_000, 64, 64),
            (1_024, 546, 64, 60),
            (256, 96, 24, 14),
            (64, 18, 4, 2),
            (16, 2, 0, 1),
        ] {
            let (door, side) = Limits::within(descriptors);
            let found = (door.connections_max, door.beyond_max, side.connections_max);
            assert_eq!(found, (public, beyond, aside), "{descriptors} descriptors");
            let aside = side.connections_max + 2 * side.beyond_max;
            let all = public + 2 * beyond + ASIDE_LISTENERS * aside;
            assert!(descriptors < 64 || all as u64 + 32 <= descriptors, "{descriptors}: {all} connections");
        }
        assert_eq!(Limits::within(u64::MAX), (Limits::default(), Limits::aside()));
    }
}
