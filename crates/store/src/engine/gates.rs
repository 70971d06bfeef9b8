//! Who holds the gates of keys, and who waits at them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use brisq_model::{Gate, Rate, TaskId, TaskKey, UnixMs};

use super::policy::micros;

/// A place in the line of a gate, first come first: by band, by tag, by id.
pub(super) type InLine = (u8, u64, TaskId);

#[derive(Debug, Default)]
pub(super) struct Gates {
    /// Which task holds an ordering key.
    holders: HashMap<TaskKey, TaskId>,
    uses: HashMap<TaskKey, KeyUse>,
    lines: BTreeMap<(Gate, TaskKey), BTreeSet<InLine>>,
    /// When the head of a rate's line may start.
    due: BTreeSet<(UnixMs, TaskKey)>,
    /// When the tokens of a key are paid that has nothing else.
    idle: BTreeSet<(UnixMs, TaskKey)>,
    /// Behind which gate those have to be looked at that a change of policy may have opened.
    pub(super) unlooked: Option<Option<(Gate, TaskKey)>>,
    /// Keys whose tokens have changed since they were written down.
    paid: HashSet<TaskKey>,
}

/// What the tasks of a limit key hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyUse {
    /// Tasks that are ready or leased, or wait at the rate.
    pub(super) held: u32,
    /// Cost of those that are ready.
    pub(super) unclaimed: u64,
    pub(super) tokens: Tokens,
    due: Option<UnixMs>,
    idle: Option<UnixMs>,
}

/// How far the tokens of a key are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// When all that were taken are paid, in microseconds of the store's clock.
    pub paid_us: u64,
    /// Time of one token at the rate by which they were taken, microseconds.
    pub interval_us: u64,
}

impl Tokens {
    /// When they are paid at this rate: what is owed is owed in tokens.
    fn paid_us(self, rate: Rate, now: UnixMs) -> u64 {
        rate.taken_over_us(self.paid_us, micros(now), self.interval_us)
    }
}

impl KeyUse {
    /// When a task of this cost may be let through, as far as time decides it: at most the tokens that are there are let through, so
    /// that claims that come late and all at once stay within the burst. One above the burst waits for a full bucket, and for all
    /// before it to be claimed.
    pub(super) fn opens_us(&self, now: UnixMs, rate: Rate, cost: u32) -> Option<u64> {
        let paid_us = self.tokens.paid_us(rate, now);
        let asked = self.unclaimed + u64::from(cost);
        match u32::try_from(asked).ok().filter(|asked| *asked <= rate.burst) {
            Some(asked) => Some(rate.start_us(paid_us, asked)),
            None => (self.unclaimed == 0).then_some(paid_us),
        }
    }
}

impl Gates {
    pub(super) fn holder(&self, key: &TaskKey) -> Option<TaskId> {
        self.holders.get(key).copied()
    }

    /// Takes the key for a task, unless another has it.
    pub(super) fn take_key(&mut self, key: &TaskKey, id: TaskId) -> bool {
        *self.holders.entry(key.clone()).or_insert(id) == id
    }

    pub(super) fn free_key(&mut self, key: &TaskKey) {
        self.holders.remove(key);
    }

    pub(super) fn used(&self, key: &TaskKey) -> KeyUse {
        self.uses.get(key).copied().unwrap_or_default()
    }

    pub(super) fn use_mut(&mut self, key: &TaskKey) -> &mut KeyUse {
        self.uses.entry(key.clone()).or_default()
    }

    /// Takes the tokens of a task of this cost, which starts, or, without one, makes it another number.
    pub(super) fn pay(&mut self, key: &TaskKey, rate: Rate, now: UnixMs, cost: u32, used: Option<u32>) {
        let tokens = &mut self.uses.entry(key.clone()).or_default().tokens;
        let before = tokens.paid_us(rate, now);
        let paid_us = match used {
            None => rate.paid_us(before, micros(now), cost),
            Some(used) => rate.corrected_us(before, cost, used),
        };
        *tokens = Tokens { paid_us, interval_us: rate.interval_us() };
        self.paid.insert(key.clone());
    }

    pub(super) fn restore_tokens(&mut self, key: TaskKey, tokens: Tokens) {
        self.uses.entry(key).or_default().tokens = tokens;
    }

    /// Tokens that have changed since they were asked for last; none where the key has nothing any more.
    pub(super) fn changed_tokens(&mut self) -> Vec<(TaskKey, Option<Tokens>)> {
        let changed = std::mem::take(&mut self.paid).into_iter();
        changed.map(|key| (key.clone(), self.uses.get(&key).map(|uses| uses.tokens))).collect()
    }

    pub(super) fn has_line(&self, gate: Gate, key: &TaskKey) -> bool {
        self.lines.contains_key(&(gate, key.clone()))
    }

    pub(super) fn head(&self, gate: Gate, key: &TaskKey) -> Option<InLine> {
        self.lines.get(&(gate, key.clone()))?.first().copied()
    }

    /// The first tag of a band in the line.
    pub(super) fn first_tag(&self, gate: Gate, key: &TaskKey, band: u8) -> Option<u64> {
        let line = self.lines.get(&(gate, key.clone()))?;
        let first = line.range((band, 0, TaskId::LEAST)..).next()?;
        (first.0 == band).then_some(first.1)
    }

    /// How many wait before a place, counted up to `most`.
    pub(super) fn before(&self, gate: Gate, key: &TaskKey, place: InLine, most: usize) -> usize {
        self.lines.get(&(gate, key.clone())).map_or(0, |line| line.range(..place).take(most).count())
    }

    pub(super) fn join(&mut self, gate: Gate, key: &TaskKey, place: InLine) {
        self.lines.entry((gate, key.clone())).or_default().insert(place);
    }

    pub(super) fn leave(&mut self, gate: Gate, key: &TaskKey, place: InLine) {
        let name = (gate, key.clone());
        if let Some(line) = self.lines.get_mut(&name) {
            line.remove(&place);
            if line.is_empty() {
                self.lines.remove(&name);
            }
        }
    }

    /// The first gate with a line behind this one.
    pub(super) fn next_line(&self, after: Option<&(Gate, TaskKey)>) -> Option<(Gate, TaskKey)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.lines.range((from, Bound::Unbounded)).next().map(|(name, _)| name.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Says when the key is to be looked at next: when the head of its rate's line may start, or, where it has nothing, when its
    /// tokens are paid. One that has nothing and owes nothing is forgotten.
    pub(super) fn plan(&mut self, key: &TaskKey, now: UnixMs, opens_us: Option<u64>) {
        let waits = [Gate::InFlight, Gate::Rate].iter().any(|gate| self.has_line(*gate, key));
        let Some(uses) = self.uses.get_mut(key) else { return };
        let at = |us: u64| UnixMs(us.div_ceil(1_000));
        let due = opens_us.map(at);
        let is_idle = uses.held == 0 && !waits;
        let idle = is_idle.then(|| at(uses.tokens.paid_us));
        for (planned, new, set) in
            [(&mut uses.due, due, &mut self.due), (&mut uses.idle, idle, &mut self.idle)]
        {
            if *planned != new {
                planned.take().map(|at| set.remove(&(at, key.clone())));
                *planned = new;
                new.map(|at| set.insert((at, key.clone())));
            }
        }
        if idle.is_some_and(|paid| paid <= now) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: &TaskKey) {
        if let Some(uses) = self.uses.remove(key) {
            uses.due.map(|at| self.due.remove(&(at, key.clone())));
            uses.idle.map(|at| self.idle.remove(&(at, key.clone())));
            if uses.tokens != Tokens::default() {
                self.paid.insert(key.clone());
            }
        }
    }

    /// A key whose line's head may start by now.
    pub(super) fn next_open(&self, now: UnixMs) -> Option<TaskKey> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, key)| key.clone())
    }

    pub(super) fn next_due(&self) -> Option<UnixMs> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn next_idle(&self) -> Option<UnixMs> {
        self.idle.first().map(|(at, _)| *at)
    }

    /// Forgets at most `slice` keys that have nothing and owe nothing any more.
    pub(super) fn forget_idle(&mut self, now: UnixMs, slice: usize) {
        for _ in 0..slice {
            let Some((_, key)) = self.idle.first().filter(|(at, _)| *at <= now).cloned() else { return };
            self.forget(&key);
        }
    }
}
