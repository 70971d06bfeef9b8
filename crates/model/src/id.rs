//! Task ids that say where their task lives, and the tokens that fence a lease.

use std::fmt;
use std::str::FromStr;

/// Number of a (tenant, queue) pair in its store: 1 to 2^24 - 1, given once and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueNumber(u32);

impl QueueNumber {
    /// Largest number.
    pub const MAX: u32 = (1 << 24) - 1;

    /// The number, if it is one.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number >= 1 && number <= Self::MAX { Some(Self(number)) } else { None }
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A shard of a queue: what one store call works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    pub queue: QueueNumber,
    /// The shard in it, from 0.
    pub index: u8,
}

impl Shard {
    /// The only shard of a queue that has one.
    #[must_use]
    pub const fn first(queue: QueueNumber) -> Self {
        Self { queue, index: 0 }
    }
}

/// Id of a task: a valid UUIDv7 whose `rand_b` begins with the queue's number (24 bits) and the shard (8 bits), so
/// that an id alone finds its shard. 42 bits stay random for each millisecond and shard; a store refuses an id that
/// exists, and the caller draws again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u128);

/// The text is not the id of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task id is a UUIDv7 in its hyphenated form, as an enqueue answers it")]
pub struct IdError;

const VERSION_7: u128 = 0x7 << 76;
const VARIANT: u128 = 0b10 << 62;
const QUEUE_SHIFT: u32 = 38;
const SHARD_SHIFT: u32 = 30;

impl TaskId {
    /// No task's: before all others.
    pub const LEAST: Self = Self(0);

    /// The id for a task of `shard` made at `unix_ms`, with `random` as its source of chance (42 bits are used).
    #[must_use]
    pub fn new(unix_ms: u64, shard: Shard, random: u64) -> Self {
        let rand_a = u128::from(random >> 30 & 0xfff);
        let rand_b_low = u128::from(random & 0x3fff_ffff);
        Self(
            u128::from(unix_ms & 0xffff_ffff_ffff) << 80
                | VERSION_7
                | rand_a << 64
                | VARIANT
                | u128::from(shard.queue.get()) << QUEUE_SHIFT
                | u128::from(shard.index) << SHARD_SHIFT
                | rand_b_low,
        )
    }

    /// The shard in which the task lives.
    #[must_use]
    pub fn shard(self) -> Shard {
        let queue = (self.0 >> QUEUE_SHIFT) as u32 & QueueNumber::MAX;
        Shard { queue: QueueNumber(queue), index: (self.0 >> SHARD_SHIFT) as u8 }
    }

    /// When the id was drawn, by the clock of the server that drew it, ms.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// As 16 bytes, big endian: their order is the order of creation.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From 16 bytes.
    ///
    /// # Errors
    /// If they are not a UUIDv7 that names a queue.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, IdError> {
        let id = Self(u128::from_be_bytes(bytes));
        let version_7 = id.0 >> 76 & 0xf == 0x7;
        let variant = id.0 >> 62 & 0b11 == 0b10;
        if version_7 && variant && id.shard().queue.get() != 0 { Ok(id) } else { Err(IdError) }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            n >> 96,
            n >> 80 & 0xffff,
            n >> 64 & 0xffff,
            n >> 48 & 0xffff,
            n & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut number = 0_u128;
        let mut digits = 0;
        for (at, c) in text.char_indices() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if c != '-' {
                    return Err(IdError);
                }
                continue;
            }
            let digit = c.to_digit(16).ok_or(IdError)?;
            number = number << 4 | u128::from(digit);
            digits += 1;
            if digits > 32 {
                return Err(IdError);
            }
        }
        if digits != 32 || text.len() != 36 {
            return Err(IdError);
        }
        Self::from_bytes(number.to_be_bytes())
    }
}

/// The secret that fences a lease. Every claim gets a fresh one; tasks of one claim share it, because an act is fenced
/// by the pair of id and token. On the wire it is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken(u128);

impl LeaseToken {
    /// A token out of 128 random bits.
    #[must_use]
    pub const fn new(random: u128) -> Self {
        Self(random)
    }

    /// As 16 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LeaseToken {
    /// Never in full: a log line must not let its reader complete a task.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseToken({:04x}..)", self.0 >> 112)
    }
}

impl FromStr for LeaseToken {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(IdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| IdError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_survives_its_text_and_tells_its_shard(
            ms in 0_u64..1 << 48, queue in 1_u32..=QueueNumber::MAX, index: u8, random: u64
        ) {
            let shard = Shard { queue: QueueNumber(queue), index };
            let id = TaskId::new(ms, shard, random);
            prop_assert_eq!(id.shard(), shard);
            prop_assert_eq!(id.unix_ms(), ms);
            prop_assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
            prop_assert_eq!(TaskId::from_bytes(id.to_bytes()), Ok(id));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<TaskId>();
            let _ = text.parse::<LeaseToken>();
        }

        #[test]
        fn a_token_survives_its_text(random: u128) {
            prop_assert_eq!(LeaseToken::new(random).to_string().parse(), Ok(LeaseToken::new(random)));
        }
    }

    #[test]
    fn foreign_uuids_are_refused() {
        for text in ["", "01890a5d-ac96-4c2b-8d2e-0123456789ab", "01890a5d-ac96-7c2b-8000-000000000000"] {
            assert_eq!(text.parse::<TaskId>(), Err(IdError), "{text}");
        }
    }
}
