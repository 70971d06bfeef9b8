//! How many connections may be open at once, and what becomes of the next ones.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::Limits;

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    room: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
    /// Tells one silent connection beyond the cap that its place is needed.
    needed: Arc<Notify>,
    /// Connections that are answered and only wait for their client to read; they have no place any more.
    lingering: Arc<Semaphore>,
    limits: Limits,
}

impl Places {
    pub fn new(limits: Limits) -> Self {
        // One more is accepted, for which one of those that stand goes.
        let beyond_max = if limits.beyond_max == 0 { 0 } else { limits.beyond_max + 1 };
        let places = |number| Arc::new(Semaphore::new(number));
        Self {
            room: places(limits.connections_max),
            beyond: places(beyond_max),
            needed: Arc::default(),
            lingering: places(limits.beyond_max),
            limits: Limits { beyond_max, ..limits },
        }
    }

    /// A place, once there is one. Nothing is accepted before: further connections wait in the kernel's backlog. Of those
    /// beyond the cap that say nothing, the one that waits longest gives its place up: the next one may be a probe.
    pub async fn free(&self) -> Place {
        let (room, beyond) = (Arc::clone(&self.room), Arc::clone(&self.beyond));
        if room.available_permits() + beyond.available_permits() == 0 {
            self.needed.notify_one();
        }
        let permit = tokio::select! {
            biased;
            permit = room.acquire_owned() => (permit, false),
            permit = beyond.acquire_owned() => (permit, true),
        };
        let (permit, beyond) = permit;
        let permit = permit.expect("invariant: the semaphores are never closed");
        let held = Mutex::new(Held { beyond, _permit: permit });
        Place {
            held,
            room: Arc::clone(&self.room),
            needed: Arc::clone(&self.needed),
            lingering: Arc::clone(&self.lingering),
        }
    }

    /// Resolves when no connection is open.
    pub async fn all_free(&self) {
        let many = |places: usize| u32::try_from(places).unwrap_or(u32::MAX);
        // An error would mean a closed semaphore, which these never are.
        let _ = self.room.acquire_many(many(self.limits.connections_max)).await;
        let _ = self.beyond.acquire_many(many(self.limits.beyond_max)).await;
    }

    /// Connections that are open.
    pub fn taken(&self) -> usize {
        let Limits { connections_max, beyond_max, .. } = self.limits;
        (connections_max + beyond_max)
            .saturating_sub(self.room.available_permits() + self.beyond.available_permits())
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    held: Mutex<Held>,
    room: Arc<Semaphore>,
    needed: Arc<Notify>,
    lingering: Arc<Semaphore>,
}

#[derive(Debug)]
struct Held {
    beyond: bool,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Whether the connection stands beyond the cap. One that does moves below it as soon as there is room.
    pub fn is_beyond(&self) -> bool {
        let mut held = self.held.lock();
        if held.beyond
            && let Ok(permit) = Arc::clone(&self.room).try_acquire_owned()
        {
            *held = Held { beyond: false, _permit: permit };
        }
        held.beyond
    }

    /// Resolves when another connection needs the place of this one beyond the cap.
    pub async fn needed(&self) {
        self.needed.notified().await;
    }

    /// Leave to linger after the answer, without this place. `None`: as many as may linger do.
    pub fn linger(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.lingering).try_acquire_owned().ok()
    }

    /// This connection cannot give its place up now: another one is asked.
    pub fn pass_on(&self) {
        self.needed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_beyond_the_cap_moves_below_it_when_there_is_room() {
        let places = Places::new(Limits { connections_max: 1, beyond_max: 1, ..Limits::default() });
        let first = places.free().await;
        let second = places.free().await;
        assert_eq!((first.is_beyond(), second.is_beyond(), places.taken()), (false, true, 2));
        drop(first);
        assert!(!second.is_beyond());
        assert!(places.free().await.is_beyond());
        let standing = [places.free().await, places.free().await];
        assert_eq!((standing.each_ref().map(Place::is_beyond), places.taken()), ([true, true], 3));
        drop((second, standing));
        places.all_free().await;
        assert_eq!(places.taken(), 0);
    }
}
