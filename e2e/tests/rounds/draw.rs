//! What a seed draws: parts, work and faults of one round.

use std::time::Duration;

use brisq_e2e::history::{Pace, Rules};

/// Numbers of a seed (`SplitMix64`).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    pub fn one_in(&mut self, cases: u64) -> bool {
        self.roll(cases) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize]
    }
}

/// What keeps the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fsync,
    Relaxed,
    EverySecond,
    Always,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Fsync, Self::EverySecond, Self::Relaxed, Self::Always];

    pub fn on_redis(self) -> bool {
        matches!(self, Self::EverySecond | Self::Always)
    }
}

/// Something that happens to the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    KillServer,
    StopServer,
    CutClients,
    DelayClients,
    StepAhead,
    StepBack,
    KillRedis,
    /// Redis is killed, and its file is as long as it was up to a second before.
    PowerCut,
    StopRedis,
    CutRedis,
    DelayRedis,
    MemoryFull,
    DiskFull,
}

impl What {
    pub const ALL: [Self; 13] = [
        Self::KillServer,
        Self::StopServer,
        Self::CutClients,
        Self::DelayClients,
        Self::StepAhead,
        Self::StepBack,
        Self::KillRedis,
        Self::PowerCut,
        Self::StopRedis,
        Self::CutRedis,
        Self::DelayRedis,
        Self::MemoryFull,
        Self::DiskFull,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::KillServer => "kill -9 of a server",
            Self::StopServer => "SIGSTOP of a server past the lease",
            Self::CutClients => "clients cut off",
            Self::DelayClients => "clients far away",
            Self::StepAhead => "clock set ahead",
            Self::StepBack => "clock set back",
            Self::KillRedis => "kill -9 of Redis",
            Self::PowerCut => "power cut of Redis",
            Self::StopRedis => "SIGSTOP of Redis past the lease",
            Self::CutRedis => "Redis cut off",
            Self::DelayRedis => "Redis far away",
            Self::MemoryFull => "memory full",
            Self::DiskFull => "disk full",
        }
    }

    fn possible_on(self, kind: Kind) -> bool {
        match self {
            Self::KillRedis | Self::StopRedis | Self::CutRedis | Self::DelayRedis | Self::MemoryFull => {
                kind.on_redis()
            }
            Self::PowerCut => kind == Kind::EverySecond,
            Self::DiskFull => !kind.on_redis(),
            _ => true,
        }
    }
}

/// What clients ask for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Ordering keys that there are; with 0 no task has one.
    pub ordering_keys: u64,
    pub limit_keys: u64,
    pub fairness_keys: u64,
    /// One task in so many comes later; with 0 none.
    pub delayed_one_in: u64,
    /// Most tasks of a call.
    pub batch: u64,
    pub rules: Rules,
}

/// One round.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    pub servers: usize,
    pub load: Load,
    /// One after the other, each after a pause.
    pub faults: Vec<(Duration, What)>,
}

/// Attempts of a task where nobody says.
const ATTEMPTS: u32 = 5;

pub fn plan(seed: u64) -> Plan {
    let mut dice = Dice::new(seed);
    let kind = Kind::ALL[seed as usize % Kind::ALL.len()];
    let possible: Vec<What> = What::ALL.into_iter().filter(|what| what.possible_on(kind)).collect();
    // Each in its turn, those first that only this store has, and others by chance.
    let turn = possible[possible.len() - 1 - seed as usize / Kind::ALL.len() % possible.len()];
    let mut faults = vec![turn];
    for _ in 0..=dice.roll(2) {
        let other = dice.of(&possible);
        if !faults.contains(&other) {
            faults.push(other);
        }
    }
    if dice.one_in(2) {
        faults.rotate_left(1);
    }
    let faults = faults.into_iter().map(|what| (Duration::from_millis(400 + dice.roll(600)), what)).collect();
    let servers = if kind.on_redis() { 1 + dice.roll(3) as usize } else { 1 };
    Plan { seed, kind, servers, load: load(&mut dice), faults }
}

fn load(dice: &mut Dice) -> Load {
    let pace = |per_second, burst| Some(Pace { per_second, burst });
    let limit_keys = dice.of(&[0, 1, 3]);
    let rules = Rules {
        in_flight: dice.of(&[None, None, Some(6)]),
        pace: if dice.one_in(4) { pace(200.0, 10) } else { None },
        key_in_flight: dice.of(&[Some(1), Some(2), Some(4)]),
        key_pace: if dice.one_in(3) { pace(40.0, 4) } else { None },
        attempts: ATTEMPTS,
    };
    let rules = if limit_keys == 0 { Rules { key_in_flight: None, key_pace: None, ..rules } } else { rules };
    Load {
        ordering_keys: dice.of(&[0, 2, 6]),
        limit_keys,
        fairness_keys: dice.of(&[0, 3]),
        delayed_one_in: dice.of(&[0, 8]),
        batch: dice.of(&[1, 4, 12]),
        rules,
    }
}
