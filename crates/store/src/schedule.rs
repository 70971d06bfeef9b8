//! Schedules as a store keeps them: what they say is their server's matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use brisq_model::{ScheduleName, TenantName, UnixMs, limits};
use bytes::Bytes;

use crate::StoreError;

/// A schedule as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub name: ScheduleName,
    /// Another one after every change, drawn at random.
    pub version: u64,
    /// When its next tick comes, by the store's wall clock; none while it rests.
    pub next_at: Option<UnixMs>,
    /// What it says, at most [`limits::SCHEDULE_MAX_BYTES`].
    pub body: Bytes,
}

/// Schedules whose ticks have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueSchedules {
    pub due: Vec<(TenantName, Schedule)>,
    /// When the first of all others comes.
    pub next_at: Option<UnixMs>,
    /// The store's wall clock.
    pub wall: UnixMs,
}

/// The schedules of a store, in memory.
#[derive(Debug, Default)]
pub struct Schedules {
    by_tenant: HashMap<TenantName, BTreeMap<ScheduleName, Schedule>>,
    by_time: BTreeSet<(UnixMs, TenantName, ScheduleName)>,
    length: usize,
}

impl Schedules {
    #[must_use]
    pub fn get(&self, tenant: &TenantName, name: &ScheduleName) -> Option<&Schedule> {
        self.by_tenant.get(tenant)?.get(name)
    }

    /// At most `limit` of the tenant's schedules behind `after`, by name.
    #[must_use]
    pub fn page(&self, tenant: &TenantName, after: Option<&ScheduleName>, limit: usize) -> Vec<Schedule> {
        let Some(own) = self.by_tenant.get(tenant) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        own.range((from, Bound::Unbounded)).take(limit).map(|(_, schedule)| schedule.clone()).collect()
    }

    /// At most `limit` whose next tick has come.
    #[must_use]
    pub fn due(&self, wall: UnixMs, limit: usize) -> DueSchedules {
        let of = |(_, tenant, name): &(UnixMs, TenantName, ScheduleName)| {
            Some((tenant.clone(), self.get(tenant, name)?.clone()))
        };
        let mut by_time = self.by_time.iter().peekable();
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(next) = by_time.next_if(|(at, ..)| *at <= wall)
        {
            due.extend(of(next));
        }
        DueSchedules { due, next_at: by_time.peek().map(|(at, ..)| *at), wall }
    }

    /// See [`crate::Store::change_schedule`].
    ///
    /// # Errors
    /// [`StoreError::TooManySchedules`].
    pub fn change(
        &mut self,
        tenant: &TenantName,
        name: &ScheduleName,
        before: Option<u64>,
        after: Option<&Schedule>,
    ) -> Result<bool, StoreError> {
        let kept = self.get(tenant, name);
        if kept.map(|schedule| schedule.version) != before {
            return Ok(false);
        }
        if let Some(after) = after {
            self.check_room(tenant, kept, after)?;
        }
        self.take(tenant, name);
        if let Some(after) = after {
            self.insert(tenant.clone(), after.clone());
        }
        Ok(true)
    }

    fn check_room(
        &self,
        tenant: &TenantName,
        kept: Option<&Schedule>,
        after: &Schedule,
    ) -> Result<(), StoreError> {
        let own = self.by_tenant.get(tenant);
        let size = |schedule: &Schedule| schedule.body.len() as u64;
        let (before, after) = (kept.map_or(0, size), size(after));
        let bytes: u64 = own.map_or(0, |own| own.values().map(size).sum()) - before + after;
        let of_tenant = own.map_or(0, BTreeMap::len);
        let (tenant_max, store_max) =
            (limits::SCHEDULES_PER_TENANT_MAX as usize, limits::SCHEDULES_MAX as usize);
        let why = match kept {
            None if of_tenant >= tenant_max => Some(too_many_of_tenant()),
            None if self.length >= store_max => Some(too_many()),
            None if bytes > limits::SCHEDULES_PER_TENANT_MAX_BYTES => Some(too_large()),
            _ if after > before + limits::SCHEDULE_GROWS_BYTES
                && bytes > limits::SCHEDULES_PER_TENANT_MAX_BYTES =>
            {
                Some(too_large())
            }
            _ => None,
        };
        why.map_or(Ok(()), Err)
    }

    /// Takes one in, as a store does that opens.
    pub fn insert(&mut self, tenant: TenantName, schedule: Schedule) {
        if let Some(at) = schedule.next_at {
            self.by_time.insert((at, tenant.clone(), schedule.name.clone()));
        }
        self.length += 1;
        self.by_tenant.entry(tenant).or_default().insert(schedule.name.clone(), schedule);
    }

    fn take(&mut self, tenant: &TenantName, name: &ScheduleName) {
        let Some(own) = self.by_tenant.get_mut(tenant) else { return };
        let Some(schedule) = own.remove(name) else { return };
        if own.is_empty() {
            self.by_tenant.remove(tenant);
        }
        self.length -= 1;
        if let Some(at) = schedule.next_at {
            self.by_time.remove(&(at, tenant.clone(), schedule.name));
        }
    }
}

impl StoreError {
    /// Why there is no room for a schedule, by the letter of the bound that is reached: `T` the tenant's number, `B` its bytes,
    /// otherwise the store's number.
    #[must_use]
    pub fn no_room_for_schedule(letter: &str) -> Self {
        match letter {
            "T" => too_many_of_tenant(),
            "B" => too_large(),
            _ => too_many(),
        }
    }
}

fn too_many_of_tenant() -> StoreError {
    let most = limits::SCHEDULES_PER_TENANT_MAX;
    StoreError::TooManySchedules(format!("the tenant has {most} schedules, which is the limit"))
}

fn too_many() -> StoreError {
    let most = limits::SCHEDULES_MAX;
    StoreError::TooManySchedules(format!("the store has {most} schedules, which is the limit"))
}

fn too_large() -> StoreError {
    let most = limits::SCHEDULES_PER_TENANT_MAX_BYTES;
    StoreError::TooManySchedules(format!("the tenant's schedules would have more than {most} bytes together"))
}
