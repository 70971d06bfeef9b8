//! A queue by its name: where its claims wait, and the number under which the store knows it now.

use std::sync::Arc;

use brisq_model::{QueueName, TenantName};
use brisq_store::{QueueInfo, StoreError};
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::parking::Parking;
use crate::question::Question;
use crate::shard::{ShardHandle, Shared};

/// Questions for a queue's number that a server has in flight: names are cheap to make up.
pub const LOOKUPS_MAX: usize = 64;

/// A name outlives its number: a store that came back without its queues gives them new ones, and the claims that wait
/// for the name go on waiting.
pub struct Queue {
    pub tenant: TenantName,
    pub name: QueueName,
    /// Where its claims wait.
    pub parking: Arc<Parking>,
    shared: Arc<Shared>,
    present: RwLock<Option<Arc<ShardHandle>>>,
    opening: Question<StoreError>,
    /// Brings nothing also where there is no such queue.
    finding: Question<Option<StoreError>>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("tenant", &self.tenant)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Queue {
    pub fn new(tenant: TenantName, name: QueueName, shared: Arc<Shared>) -> Self {
        Self {
            tenant,
            name,
            parking: Arc::default(),
            shared,
            present: RwLock::default(),
            opening: Question::default(),
            finding: Question::default(),
        }
    }

    /// Under the number that the store gave it, as far as this server knows.
    pub fn present(&self) -> Option<Arc<ShardHandle>> {
        self.present.read().clone()
    }

    /// The store knows it under this number. Claims that wait for the name look, if the number is news. Answers beside it
    /// what it was known under before.
    pub fn adopt(&self, info: QueueInfo) -> (Arc<ShardHandle>, Option<Arc<ShardHandle>>) {
        let (shard, before) = {
            let mut present = self.present.write();
            if let Some(known) = present.as_ref().filter(|known| known.info.number == info.number) {
                return (Arc::clone(known), None);
            }
            let shard = ShardHandle::new(info, Arc::clone(&self.parking), Arc::clone(&self.shared));
            let shard = Arc::new(shard);
            let before = present.replace(Arc::clone(&shard));
            (shard, before)
        };
        self.parking.wake_all();
        (shard, before)
    }

    /// The store does not know it under this number any more.
    pub fn forget(&self, shard: &Arc<ShardHandle>) {
        let mut present = self.present.write();
        if present.as_ref().is_some_and(|known| Arc::ptr_eq(known, shard)) {
            *present = None;
        }
    }

    /// As [`Self::forget`], where it was deleted: its series go too. A new one under its name waits for that, and has its own.
    pub fn delete(&self, shard: &Arc<ShardHandle>) {
        let mut present = self.present.write();
        if present.as_ref().is_some_and(|known| Arc::ptr_eq(known, shard)) {
            *present = None;
            self.shared.metrics.forget(&self.tenant, &self.name);
        }
    }

    /// Its number in the store, given now if it has none.
    pub async fn open_number(&self) -> Result<QueueInfo, StoreError> {
        let ask = async {
            let number = self.shared.store.open_queue(&self.tenant, &self.name).await?;
            Ok(self.info(number))
        };
        self.opening.put(|| self.known(), ask).await
    }

    /// Its number in the store, if it was ever given one.
    pub async fn find_number(&self, lookups: &Semaphore) -> Result<Option<QueueInfo>, StoreError> {
        let ask = async {
            let _place = lookups.acquire().await;
            let number = self.shared.store.find_queue(&self.tenant, &self.name).await.map_err(Some)?;
            number.map(|number| self.info(number)).ok_or(None)
        };
        match self.finding.put(|| self.known(), ask).await {
            Ok(info) => Ok(Some(info)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    fn known(&self) -> Option<QueueInfo> {
        self.present().map(|known| known.info.clone())
    }

    fn info(&self, number: brisq_model::QueueNumber) -> QueueInfo {
        QueueInfo { number, tenant: self.tenant.clone(), name: self.name.clone() }
    }
}
