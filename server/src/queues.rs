//! The queues that this server has met, each with its shard's lanes.

use std::collections::HashMap;
use std::sync::Arc;

use brisq_api::ApiError;
use brisq_model::{QueueName, QueueNumber, TaskId, TenantName};
use brisq_store::{QueueInfo, Store, Wake};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::error::store_error;
use crate::metrics::Metrics;
use crate::routes::queues::LIST_MAX;
use crate::shard::ShardHandle;

type ByName = HashMap<TenantName, HashMap<QueueName, Arc<ShardHandle>>>;

/// Registry of shards; bounded by the store's own limit of queues.
pub struct Queues {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    by_name: RwLock<ByName>,
    by_number: RwLock<HashMap<QueueNumber, Arc<ShardHandle>>>,
}

impl Queues {
    pub fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, by_name: RwLock::default(), by_number: RwLock::default() }
    }

    /// The queue, made on first use.
    pub async fn open(&self, tenant: &TenantName, name: &QueueName) -> Result<Arc<ShardHandle>, ApiError> {
        if let Some(known) = self.known(tenant, name) {
            return Ok(known);
        }
        let number = self.store.open_queue(tenant, name).await.map_err(store_error)?;
        Ok(self.remember(QueueInfo { number, tenant: tenant.clone(), name: name.clone() }))
    }

    /// The queue, if it was ever used.
    pub async fn find(
        &self,
        tenant: &TenantName,
        name: &QueueName,
    ) -> Result<Option<Arc<ShardHandle>>, ApiError> {
        if let Some(known) = self.known(tenant, name) {
            return Ok(Some(known));
        }
        let number = self.store.find_queue(tenant, name).await.map_err(store_error)?;
        Ok(number
            .map(|number| self.remember(QueueInfo { number, tenant: tenant.clone(), name: name.clone() })))
    }

    /// The queue of a task, if it is the tenant's.
    pub async fn of_task(&self, tenant: &TenantName, id: TaskId) -> Result<Arc<ShardHandle>, ApiError> {
        let number = id.shard().queue;
        let known = self.by_number.read().get(&number).cloned();
        let shard = match known {
            Some(shard) => Some(shard),
            None => {
                let info = self.store.queue_info(number).await.map_err(store_error)?;
                info.map(|info| self.remember(info))
            }
        };
        shard
            .filter(|shard| shard.info.tenant == *tenant && shard.shard() == id.shard())
            .ok_or_else(ApiError::task_not_found)
    }

    /// All queues of a tenant, by name.
    pub async fn all(&self, tenant: &TenantName) -> Result<Vec<Arc<ShardHandle>>, ApiError> {
        let infos = self.store.queues(tenant, None, LIST_MAX).await.map_err(store_error)?;
        Ok(infos.into_iter().map(|info| self.remember(info)).collect())
    }

    /// Lets every parked claim of every queue look once.
    pub fn wake_all(&self) {
        for shard in self.by_number.read().values() {
            shard.wake_all();
        }
    }

    /// Passes the store's wake-ups on to parked claims until the channel ends.
    pub async fn pass_on(self: Arc<Self>, mut wakeups: mpsc::Receiver<Wake>) {
        while let Some(wake) = wakeups.recv().await {
            match wake {
                Wake::Ready(shard) => {
                    let known = self.by_number.read().get(&shard.queue).cloned();
                    if let Some(shard) = known {
                        shard.wake(1);
                    }
                }
                Wake::Due(shard, delay) => {
                    let known = self.by_number.read().get(&shard.queue).cloned();
                    if let Some(shard) = known {
                        shard.look_again_in(delay);
                    }
                }
                // A claim opens its queue itself so far.
                Wake::Opened(_) => {}
                Wake::Lost => {
                    self.metrics.wakeups_lost.set(1);
                    tracing::warn!("wake-ups of other servers may be missed: parked claims poll slowly");
                    self.wake_all();
                }
                Wake::Restored => {
                    self.check_numbers().await;
                    self.metrics.wakeups_lost.set(0);
                    tracing::info!("wake-ups of other servers flow again");
                    self.wake_all();
                }
            }
        }
    }

    /// A store that was away may have come back without what it had (an emptied Redis, a lost volume), and gives the numbers
    /// of queues anew: one that has another number now is forgotten here, or it would share its tasks with another queue.
    async fn check_numbers(&self) {
        let known: Vec<Arc<ShardHandle>> = self.by_number.read().values().cloned().collect();
        for shard in known {
            let info = &shard.info;
            match self.store.open_queue(&info.tenant, &info.name).await {
                Ok(number) if number == info.number => {}
                Ok(_) => {
                    tracing::error!(queue = %info.name, "the store came back without its queues");
                    self.forget(&shard);
                }
                Err(error) => {
                    tracing::warn!(queue = %info.name, %error, "a queue's number could not be checked");
                }
            }
        }
    }

    fn forget(&self, shard: &Arc<ShardHandle>) {
        let other = |known: &Arc<ShardHandle>| !Arc::ptr_eq(known, shard);
        if let Some(queues) = self.by_name.write().get_mut(&shard.info.tenant) {
            queues.retain(|_, known| other(known));
        }
        self.by_number.write().retain(|_, known| other(known));
    }

    fn known(&self, tenant: &TenantName, name: &QueueName) -> Option<Arc<ShardHandle>> {
        self.by_name.read().get(tenant)?.get(name).cloned()
    }

    fn remember(&self, info: QueueInfo) -> Arc<ShardHandle> {
        let mut by_name = self.by_name.write();
        let queues = by_name.entry(info.tenant.clone()).or_default();
        let shard = queues.entry(info.name.clone()).or_insert_with(|| {
            Arc::new(ShardHandle::new(info.clone(), Arc::clone(&self.store), Arc::clone(&self.metrics)))
        });
        let shard = Arc::clone(shard);
        self.by_number.write().insert(info.number, Arc::clone(&shard));
        shard
    }
}
