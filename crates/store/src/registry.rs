//! The queues of a store and their numbers, in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use brisq_model::{QueueName, QueueNumber, TenantName, limits};

use crate::{QueueInfo, StoreError};

/// Queues by name and by number. A look-up costs the same however many there are, a page costs what it holds.
#[derive(Debug)]
pub struct Registry {
    by_name: HashMap<TenantName, BTreeMap<QueueName, QueueNumber>>,
    by_number: BTreeMap<QueueNumber, QueueInfo>,
    /// The highest number that a queue had which is gone: ids name it, so it is not given again.
    last_deleted: Option<QueueNumber>,
    tenant_max: u32,
    store_max: u32,
}

impl Default for Registry {
    fn default() -> Self {
        Self::bounded(limits::QUEUES_PER_TENANT_MAX, limits::QUEUES_MAX)
    }
}

impl Registry {
    /// An empty one with bounds of its own.
    #[must_use]
    pub fn bounded(tenant_max: u32, store_max: u32) -> Self {
        Self {
            by_name: HashMap::new(),
            by_number: BTreeMap::new(),
            last_deleted: None,
            tenant_max,
            store_max,
        }
    }

    /// The queue's number, if it has one.
    #[must_use]
    pub fn find(&self, tenant: &TenantName, name: &QueueName) -> Option<QueueNumber> {
        self.by_name.get(tenant)?.get(name).copied()
    }

    /// Whose the number is.
    #[must_use]
    pub fn info(&self, number: QueueNumber) -> Option<&QueueInfo> {
        self.by_number.get(&number)
    }

    /// Refuses a queue that this store does not hold under its number.
    ///
    /// # Errors
    /// [`StoreError::UnknownQueue`].
    pub fn check(&self, queue: &QueueInfo) -> Result<(), StoreError> {
        if self.info(queue.number) == Some(queue) { Ok(()) } else { Err(StoreError::UnknownQueue) }
    }

    /// At most `limit` of the tenant's queues behind `after`, by name.
    #[must_use]
    pub fn page(&self, tenant: &TenantName, after: Option<&QueueName>, limit: usize) -> Vec<QueueInfo> {
        let Some(own) = self.by_name.get(tenant) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        own.range((from, Bound::Unbounded))
            .take(limit)
            .filter_map(|(_, number)| self.info(*number).cloned())
            .collect()
    }

    /// The number that a new queue of the tenant gets: behind all that were given; once those are used up, a free one.
    ///
    /// # Errors
    /// [`StoreError::TooManyQueues`] when the tenant, or the store, has as many as it may.
    pub fn next_number(&self, tenant: &TenantName) -> Result<QueueNumber, StoreError> {
        let own = self.by_name.get(tenant).map_or(0, BTreeMap::len);
        if own >= self.tenant_max as usize {
            return Err(StoreError::TooManyQueues(self.tenant_max));
        }
        if self.by_number.len() >= self.store_max as usize {
            return Err(StoreError::TooManyQueues(self.store_max));
        }
        let last = self.by_number.last_key_value().map(|(number, _)| *number).max(self.last_deleted);
        let next = QueueNumber::new(last.map_or(1, |last| last.get() + 1)).or_else(|| self.free_number());
        next.ok_or(StoreError::TooManyQueues(self.store_max))
    }

    fn free_number(&self) -> Option<QueueNumber> {
        let numbers = (1..=QueueNumber::MAX).filter_map(QueueNumber::new);
        numbers.into_iter().find(|number| !self.by_number.contains_key(number))
    }

    /// Takes a queue out.
    pub fn remove(&mut self, number: QueueNumber) {
        let Some(queue) = self.by_number.remove(&number) else { return };
        if let Some(own) = self.by_name.get_mut(&queue.tenant) {
            own.remove(&queue.name);
            if own.is_empty() {
                self.by_name.remove(&queue.tenant);
            }
        }
        self.note_deleted(number);
    }

    /// A queue had this number, and is gone.
    pub fn note_deleted(&mut self, number: QueueNumber) {
        self.last_deleted = self.last_deleted.max(Some(number));
    }

    /// The highest number that a queue had which is gone.
    #[must_use]
    pub fn last_deleted(&self) -> Option<QueueNumber> {
        self.last_deleted
    }

    /// Takes a queue in.
    pub fn insert(&mut self, queue: QueueInfo) {
        let own = self.by_name.entry(queue.tenant.clone()).or_default();
        own.insert(queue.name.clone(), queue.number);
        self.by_number.insert(queue.number, queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(registry: &mut Registry, tenant: &str, name: &str) -> Result<QueueNumber, StoreError> {
        let (tenant, name) = (TenantName::new(tenant).unwrap(), QueueName::new(name).unwrap());
        let number = registry.next_number(&tenant)?;
        registry.insert(QueueInfo { number, tenant, name });
        Ok(number)
    }

    #[test]
    fn a_tenant_that_has_all_its_queues_leaves_room_for_others() {
        let mut registry = Registry::bounded(2, 3);
        assert_eq!(open(&mut registry, "a", "1").unwrap().get(), 1);
        assert_eq!(open(&mut registry, "a", "2").unwrap().get(), 2);
        assert!(matches!(open(&mut registry, "a", "3"), Err(StoreError::TooManyQueues(2))));
        assert_eq!(open(&mut registry, "b", "1").unwrap().get(), 3);
        assert!(matches!(open(&mut registry, "b", "2"), Err(StoreError::TooManyQueues(3))));
    }

    #[test]
    fn a_number_is_given_anew_only_once_all_are_used_up() {
        let mut registry = Registry::bounded(2, 2);
        let number = |number| QueueNumber::new(number).unwrap();
        assert_eq!(open(&mut registry, "a", "1").unwrap().get(), 1);
        assert_eq!(open(&mut registry, "a", "2").unwrap().get(), 2);
        registry.remove(number(2));
        registry.remove(number(7));
        assert_eq!(registry.find(&TenantName::new("a").unwrap(), &QueueName::new("2").unwrap()), None);
        assert_eq!((registry.info(number(2)), registry.last_deleted()), (None, Some(number(2))));
        assert_eq!(open(&mut registry, "a", "2").unwrap().get(), 3, "there is room again");
        registry.remove(number(1));
        registry.note_deleted(number(QueueNumber::MAX));
        assert_eq!(open(&mut registry, "b", "1").unwrap().get(), 1);
    }

    #[test]
    fn pages_follow_each_other() {
        let mut registry = Registry::default();
        for name in ["d", "b", "a", "c"] {
            open(&mut registry, "t", name).unwrap();
        }
        let tenant = TenantName::new("t").unwrap();
        let names =
            |page: Vec<QueueInfo>| page.into_iter().map(|info| info.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(registry.page(&tenant, None, 3)), ["a", "b", "c"]);
        assert_eq!(names(registry.page(&tenant, QueueName::new("c").ok().as_ref(), 3)), ["d"]);
        assert!(registry.page(&TenantName::new("u").unwrap(), None, 3).is_empty());
    }
}
