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
        Self { by_name: HashMap::new(), by_number: BTreeMap::new(), tenant_max, store_max }
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

    /// The number that a new queue of the tenant gets.
    ///
    /// # Errors
    /// [`StoreError::TooManyQueues`] when the tenant, or the store, has as many as it may.
    pub fn next_number(&self, tenant: &TenantName) -> Result<QueueNumber, StoreError> {
        let own = self.by_name.get(tenant).map_or(0, BTreeMap::len);
        if own >= self.tenant_max as usize {
            return Err(StoreError::TooManyQueues(self.tenant_max));
        }
        let last = self.by_number.last_key_value().map_or(0, |(number, _)| number.get());
        let next = QueueNumber::new(last + 1).filter(|_| self.by_number.len() < self.store_max as usize);
        next.ok_or(StoreError::TooManyQueues(self.store_max))
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
