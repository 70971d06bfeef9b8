use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use brisq_listen::{CarryingOut, RequestTimes};
use brisq_recorder::{last_data_received, peer_gone};

use crate::handout::HandedOut;

/// `TCP_INFO` counts in jiffies: below this age an arrival time of its is noise.
const ARRIVAL_GRAIN: Duration = Duration::from_millis(12);

/// What a claim needs to know of its client's connection.
#[derive(Clone, Debug)]
pub struct Connection(pub brisq_listen::Connection);

impl Connection {
    /// When the request that is being served had come. A runtime that was busy elsewhere read it late: where the kernel had
    /// its last data clearly earlier, that time counts.
    pub fn request_began(&self) -> Instant {
        let data_age = last_data_received(self.0.as_fd()).ok();
        began(self.0.request(), data_age, Instant::now())
    }

    /// Whether the client closed its side: what is written now is read by nobody.
    pub fn client_is_gone(&self) -> bool {
        peer_gone(self.0.as_fd())
    }

    /// The request is carried out though its client leaves, while what this answers is kept.
    pub fn carry_out(&self) -> CarryingOut {
        self.0.carry_out()
    }

    /// Keeps the claimed tasks until the first byte of the answer is handed to the socket. If the connection ends before,
    /// they are dropped, which gives them back.
    pub fn hand_out(&self, claim: HandedOut) {
        self.0.on_first_byte(move || claim.written());
    }
}

fn began(request: RequestTimes, data_age: Option<Duration>, now: Instant) -> Instant {
    let RequestTimes { read, not_before } = request;
    let arrived = data_age.filter(|age| *age >= ARRIVAL_GRAIN).and_then(|age| now.checked_sub(age));
    let began = arrived.map_or(read, |arrived| arrived.min(read));
    not_before.map_or(began, |answered| answered.max(began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_time_counts_where_it_is_clearly_earlier_and_after_the_answer_before() {
        let now = Instant::now();
        let ago = |ms| now - Duration::from_millis(ms);
        for (name, read, not_before, data_age, expected) in [
            ("read at once", 1, None, 1, 1),
            ("read at once, by a clock of jiffies", 1, None, 8, 1),
            ("read late", 1, None, 300, 300),
            ("read late, after an answer", 1, Some(900), 300, 300),
            ("behind another request", 1, Some(2), 300, 2),
            ("behind another request, jiffies", 1, Some(2), 8, 1),
        ] {
            let request = RequestTimes { read: ago(read), not_before: not_before.map(ago) };
            let found = began(request, Some(Duration::from_millis(data_age)), now);
            assert_eq!(found, ago(expected), "{name}");
            assert_eq!(began(request, None, now), ago(read), "{name}, and nothing is known");
        }
    }
}
