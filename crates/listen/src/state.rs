//! What one connection is doing, by the bytes that pass and the requests that are served. Time comes in as an argument.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::Limits;
use crate::refusal::Refusal;

/// How an HTTP/2 client with prior knowledge begins.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2";

/// Called once the first byte of an answer is with the socket; dropped uncalled when it never gets there.
pub type FirstByte = Box<dyn FnOnce() + Send>;

/// What the connection is doing; decides which time-out applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests, or before the first.
    Idle,
    /// The first bytes of a request came, its head is not complete.
    Head,
    /// A request is being served, from its head's end to its answer's last byte.
    Serving,
}

/// What is known of when a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTimes {
    /// When its last bytes were read: what a client sends slowly is not the server's time.
    pub read: Instant,
    /// When the answer before it was written: a request that lay behind another one did not wait before.
    pub not_before: Option<Instant>,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overstay {
    /// Nothing was asked for long.
    Idle,
    /// The head of a request is not complete.
    Head,
    /// The client does not read its answer.
    Unread,
}

/// The state of one connection.
pub struct State {
    phase: Phase,
    since: Instant,
    /// When the last bytes were read.
    read_at: Instant,
    /// Whether any byte came.
    met: bool,
    /// Whether the first line of the head in phase [`Phase::Head`] is complete.
    line_ended: bool,
    request: RequestTimes,
    /// When the last answer was written.
    answered: Option<Instant>,
    /// From a request's head until its answer is with the socket. What the protocol's library writes otherwise is a
    /// refusal of its own.
    answering: bool,
    /// Part of a request's body may still lie in the socket.
    body_unread: bool,
    /// Since when the socket takes no more bytes.
    blocked: Option<Instant>,
    /// When the socket first took no more bytes of what was written and is not with it yet.
    unread: Option<Instant>,
    refusal: Option<Refusal>,
    /// Whether the request that is being served is carried out though its client leaves.
    carried_out: bool,
    first_byte: SmallVec<[FirstByte; 1]>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("phase", &self.phase)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

impl State {
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Idle,
            since: now,
            read_at: now,
            met: false,
            line_ended: false,
            request: RequestTimes { read: now, not_before: None },
            answered: None,
            answering: false,
            body_unread: false,
            blocked: None,
            unread: None,
            refusal: None,
            carried_out: false,
            first_byte: SmallVec::new(),
        }
    }

    /// Bytes were read. Line ends between two requests, which old clients send behind a body, begin none.
    pub fn came(&mut self, bytes: &[u8], now: Instant) {
        self.read_at = now;
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let bytes = bytes.get(blank..).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        if !self.met && bytes.starts_with(HTTP2_PREFACE) {
            self.refusal = Some(Refusal::Http2);
        }
        self.met = true;
        if self.phase == Phase::Idle {
            (self.phase, self.since, self.line_ended) = (Phase::Head, now, false);
        }
        if self.phase == Phase::Head && !self.line_ended {
            self.line_ended = bytes.contains(&b'\n');
        }
    }

    /// A request's head is complete and its handler runs. `with_body`: its body is still to be read.
    pub fn begin(&mut self, with_body: bool, now: Instant) {
        // In phase idle its head came while the request before was served.
        let read = if self.phase == Phase::Idle { self.since } else { self.read_at };
        let not_before = self.answered;
        self.request = RequestTimes { read: not_before.map_or(read, |at| at.max(read)), not_before };
        (self.phase, self.since) = (Phase::Serving, now);
        self.answering = true;
        self.body_unread = with_body;
    }

    /// The last bytes of the request's body were read.
    pub fn body_ended(&mut self) {
        self.request.read = self.request.read.max(self.read_at);
        self.body_unread = false;
    }

    /// The answer, with its body, was handed over or given up.
    pub fn finish(&mut self, now: Instant) {
        (self.phase, self.since) = (Phase::Idle, now);
        self.answered = Some(now);
    }

    /// Everything that was written is with the socket.
    pub fn flushed(&mut self, now: Instant) {
        self.unread = None;
        if self.answering && self.phase != Phase::Serving {
            self.answering = false;
            self.answered = Some(now);
            if self.phase == Phase::Idle {
                self.since = now;
            }
        }
    }

    /// Bytes went to the socket: those who wait for the first one of the answer are to be called.
    pub fn went(&mut self) -> SmallVec<[FirstByte; 1]> {
        self.blocked = None;
        std::mem::take(&mut self.first_byte)
    }

    /// The socket took no bytes.
    pub fn blocked(&mut self, now: Instant) {
        self.blocked.get_or_insert(now);
        self.unread.get_or_insert(now);
    }

    /// Whether these bytes are a refusal by the protocol's library, whose body is empty: the answer is written in its
    /// place when the connection ends.
    pub fn refuses(&mut self, bytes: &[u8]) -> bool {
        if self.answering {
            return false;
        }
        let status = bytes.get(9..12).unwrap_or_default();
        self.refusal.get_or_insert(match status {
            b"414" => Refusal::UriTooLong,
            b"431" if !self.line_ended => Refusal::UriTooLong,
            b"431" => Refusal::HeadTooLarge,
            _ => Refusal::BadRequest,
        });
        true
    }

    /// How the connection ends, if with a refusal.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Since when nothing of a request has come and nothing is answered.
    pub fn silent_since(&self) -> Option<Instant> {
        (self.phase == Phase::Idle && !self.answering).then_some(self.since)
    }

    /// Whether the client may still be sending what nobody reads.
    pub fn input_unread(&self) -> bool {
        self.body_unread
    }

    /// Has `call` called with the first byte of the answer.
    pub fn on_first_byte(&mut self, call: FirstByte) {
        self.first_byte.push(call);
    }

    /// From now on the request that is being served is carried out though its client leaves, or is not.
    pub fn carry_out(&mut self, carried_out: bool) {
        self.carried_out = carried_out;
    }

    pub fn is_carried_out(&self) -> bool {
        self.carried_out
    }

    /// Times of the request that is being served.
    pub fn request(&self) -> RequestTimes {
        self.request
    }

    /// Why the connection is to be cut, or the time until which there is no reason as things are.
    pub fn overstay(&self, limits: &Limits, now: Instant) -> Result<Option<Duration>, Overstay> {
        let left = |since: Instant, limit: Duration, reason| {
            limit
                .checked_sub(now.saturating_duration_since(since))
                .filter(|left| !left.is_zero())
                .ok_or(reason)
        };
        if let Some(since) = self.unread {
            let all = left(since, limits.unread_timeout, Overstay::Unread)?;
            let some = self.blocked.map(|since| left(since, limits.write_timeout, Overstay::Unread));
            return Ok(Some(some.transpose()?.map_or(all, |some| all.min(some))));
        }
        match self.phase {
            Phase::Idle => left(self.since, limits.idle_timeout, Overstay::Idle).map(Some),
            Phase::Head => left(self.since, limits.header_timeout, Overstay::Head).map(Some),
            Phase::Serving => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    /// What happens to a connection, and how many ms after it was accepted.
    #[derive(Clone, Copy)]
    enum Step {
        Came(&'static [u8]),
        Begin,
        BeginWithBody,
        BodyEnded,
        Finish,
        Flushed,
    }
    use Step::*;

    /// Steps of a case, each with the ms after the accept at which it happens.
    type Steps = &'static [(u64, Step)];

    fn after(steps: &[(u64, Step)]) -> (State, Instant) {
        let start = Instant::now();
        let mut state = State::new(start);
        for (ms, step) in steps {
            let now = start + Duration::from_millis(*ms);
            match step {
                Came(bytes) => state.came(bytes, now),
                Begin => state.begin(false, now),
                BeginWithBody => state.begin(true, now),
                BodyEnded => state.body_ended(),
                Finish => state.finish(now),
                Flushed => state.flushed(now),
            }
        }
        (state, start)
    }

    #[test]
    fn a_request_began_with_its_last_bytes_and_not_before_the_answer_before_it() {
        let cases: [(&str, Steps, u64); 6] = [
            ("connected ahead", &[(3_000, Came(GET)), (3_001, Begin)], 3_000),
            (
                "a head in two parts",
                &[(10, Came(b"GET / HT")), (500, Came(b"TP/1.1\r\n\r\n")), (501, Begin)],
                500,
            ),
            (
                "a body that comes late",
                &[(10, Came(GET)), (11, BeginWithBody), (2_000, Came(b"{}")), (2_001, BodyEnded)],
                2_000,
            ),
            (
                "the second request of a connection",
                &[(1, Came(GET)), (2, Begin), (5, Finish), (6, Flushed), (900, Came(GET)), (901, Begin)],
                900,
            ),
            (
                "a request behind another one",
                &[(1, Came(GET)), (2, Begin), (700, Finish), (800, Flushed), (801, Begin)],
                800,
            ),
            (
                "a request that came while the answer before it was not read",
                &[(1, Came(GET)), (2, Begin), (5, Finish), (6, Came(GET)), (400, Flushed), (401, Begin)],
                400,
            ),
        ];
        for (name, steps, ms) in cases {
            let (state, start) = after(steps);
            assert_eq!(state.request().read, start + Duration::from_millis(ms), "{name}");
        }
    }

    #[test]
    fn each_phase_has_its_own_time_out() {
        let limits = Limits::default();
        let cases: [(&str, Steps, u64, Result<bool, Overstay>); 9] = [
            ("opened ahead", &[], 80_000, Ok(true)),
            ("opened ahead for nothing", &[], 90_000, Err(Overstay::Idle)),
            ("a head that never ends", &[(5, Came(b"GET"))], 10_005, Err(Overstay::Head)),
            ("a head that may still end", &[(5, Came(b"GET"))], 9_000, Ok(true)),
            ("a long answer", &[(5, Came(GET)), (6, Begin)], 500_000, Ok(false)),
            ("idle", &[(5, Came(GET)), (6, Begin), (7, Finish), (8, Flushed)], 80_000, Ok(true)),
            (
                "idle for long",
                &[(5, Came(GET)), (6, Begin), (7, Finish), (8, Flushed)],
                90_008,
                Err(Overstay::Idle),
            ),
            (
                "a line end behind the body",
                &[(5, Came(GET)), (6, Begin), (7, Finish), (8, Flushed), (9, Came(b"\r\n"))],
                80_000,
                Ok(true),
            ),
            ("line ends only", &[(5, Came(b"\r\n\r\n"))], 20_000, Ok(true)),
        ];
        for (name, steps, ms, expected) in cases {
            let (state, start) = after(steps);
            let found = state.overstay(&limits, start + Duration::from_millis(ms));
            assert_eq!(found.map(|left| left.is_some()), expected, "{name}");
        }
    }

    #[test]
    fn an_answer_that_nobody_reads_is_given_up() {
        let (mut state, start) = after(&[(1, Came(GET)), (2, Begin)]);
        let at = |seconds| start + Duration::from_secs(seconds);
        state.blocked(at(1));
        state.blocked(at(50));
        assert_eq!(state.overstay(&Limits::default(), at(61)), Err(Overstay::Unread));
        assert!(state.went().is_empty());
        assert_eq!(state.overstay(&Limits::default(), at(61)), Ok(Some(Duration::from_secs(240))));
        state.flushed(at(61));
        assert_eq!(state.overstay(&Limits::default(), at(500)), Ok(None));
    }

    #[test]
    fn an_answer_that_is_read_by_drops_is_given_up() {
        let (mut state, start) = after(&[(1, Came(GET)), (2, Begin)]);
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in (1..300).step_by(30) {
            state.blocked(at(seconds));
            assert!(state.overstay(&Limits::default(), at(seconds + 29)).is_ok_and(|left| left.is_some()));
            assert!(state.went().is_empty());
        }
        assert_eq!(state.overstay(&Limits::default(), at(301)), Err(Overstay::Unread));
    }

    #[test]
    fn what_is_written_while_nothing_is_answered_is_a_refusal() {
        let refused = |steps: &[(u64, Step)], bytes: &[u8]| {
            let (mut state, _) = after(steps);
            state.refuses(bytes).then(|| state.refusal())
        };
        let too_large = b"HTTP/1.1 431 Request Header Fields Too Large\r\n";
        assert_eq!(refused(&[(1, Came(b"GE T"))], b"HTTP/1.1 400 "), Some(Some(Refusal::BadRequest)));
        assert_eq!(refused(&[(1, Came(b"GET /aaaa"))], too_large), Some(Some(Refusal::UriTooLong)));
        assert_eq!(
            refused(&[(1, Came(b"GET / HTTP/1.1\r\na: b"))], too_large),
            Some(Some(Refusal::HeadTooLarge))
        );
        assert_eq!(
            refused(&[(1, Came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))], b""),
            Some(Some(Refusal::Http2))
        );
        let served = [(1, Came(GET)), (2, Begin), (3, Finish)];
        assert_eq!(refused(&served, b"HTTP/1.1 400 "), None, "the answer is not with the socket yet");
        let again = [&served[..], &[(4, Flushed), (5, Came(b"\0"))]].concat();
        assert_eq!(refused(&again, b"HTTP/1.1 400 "), Some(Some(Refusal::BadRequest)));
    }
}
