//! Acts on queues, and on leases: each of these goes to the shard that its task's id names, those of one shard together.

use std::collections::HashMap;
use std::sync::Arc;

use brisq_api::{ApiError, ErrorCode};
use brisq_model::{QueueNumber, TaskId};
use brisq_store::{Deletion, LiveTasks, QueueInfo, StoreError, WorkDone, WorkOp, WorkResult};
use futures_util::stream::{self, StreamExt};

use super::{NotDone, REOPENS_MAX, reply};
use crate::auth::Caller;
use crate::error::{noted, refused};
use crate::queue::{LOOKUPS_MAX, Queue};
use crate::shard::ShardHandle;
use crate::state::AppState;

/// What became of one act.
pub type Acted = Result<WorkDone, ApiError>;

/// What became of many.
pub struct Batch {
    /// By index.
    pub results: Vec<Acted>,
    /// The queue of the first act that named a task.
    pub first: Option<Arc<ShardHandle>>,
}

/// Acts of one shard and the places of their results.
struct Group {
    first: TaskId,
    shard: Arc<ShardHandle>,
    ops: Vec<WorkOp>,
    places: Vec<usize>,
}

/// What a deletion is answered that would lose tasks.
fn not_empty(queue: &Queue, live: LiveTasks) -> ApiError {
    let message = "The queue holds tasks that have not ended. Let them end, or purge them; a pause keeps workers from taking more.";
    ApiError::new(ErrorCode::QueueNotEmpty, message)
        .with("queue", &queue.name)
        .with("delayed", live.delayed)
        .with("blocked", live.blocked)
        .with("ready", live.ready)
        .with("leased", live.leased)
}

impl AppState {
    /// Acts on one task.
    ///
    /// # Errors
    /// When there is no such task, the act is refused, or the store call failed.
    pub async fn act(&self, caller: &Caller, id: TaskId, op: WorkOp) -> Acted {
        let batch = self.act_on_all(caller, vec![Ok((id, op))]).await;
        batch.results.into_iter().next().unwrap_or_else(|| Err(ApiError::task_not_found()))
    }

    /// Acts on many tasks, in one store call for each shard that they name, all at once. What is an error already stays
    /// one, and a shard whose call fails answers its own acts only.
    pub async fn act_on_all(&self, caller: &Caller, asked: Vec<Result<(TaskId, WorkOp), ApiError>>) -> Batch {
        let shards = self.shards_of(caller, &asked).await;
        let mut results: Vec<Acted> = Vec::with_capacity(asked.len());
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of: HashMap<QueueNumber, usize> = HashMap::new();
        for (place, item) in asked.into_iter().enumerate() {
            let placed = item.and_then(|(id, op)| {
                let shard = shards.get(&id.shard().queue).cloned();
                let shard = shard.unwrap_or_else(|| Err(ApiError::task_not_found()))?;
                if shard.shard() == id.shard() {
                    Ok((id, shard, op))
                } else {
                    Err(ApiError::task_not_found())
                }
            });
            match placed {
                Ok((id, shard, op)) => {
                    let group = *group_of.entry(shard.info.number).or_insert_with(|| {
                        groups.push(Group { first: id, shard, ops: Vec::new(), places: Vec::new() });
                        groups.len() - 1
                    });
                    if let Some(group) = groups.get_mut(group) {
                        group.ops.push(op);
                        group.places.push(place);
                    }
                    results.push(Err(ApiError::task_not_found()));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        let first = groups.first().map(|group| Arc::clone(&group.shard));
        // All lanes have their acts before the first is waited for.
        let calls = groups.into_iter().map(|group| self.act_in(caller, group));
        for (places, acted) in futures_util::future::join_all(calls).await {
            for (place, acted) in places.into_iter().zip(acted) {
                if let Some(slot) = results.get_mut(place) {
                    *slot = acted;
                }
            }
        }
        Batch { results, first }
    }

    /// Acts on a queue itself, where the store has it; what says how it is governed makes it. Answers under which number.
    ///
    /// # Errors
    /// When the store call failed.
    pub async fn act_on_queue(&self, queue: &Arc<Queue>, op: WorkOp) -> Result<Option<QueueInfo>, ApiError> {
        let makes = matches!(op, WorkOp::Govern(_) | WorkOp::Declare(_));
        for _ in 0..REOPENS_MAX {
            let found =
                if makes { self.queues.open(queue).await.map(Some) } else { self.queues.find(queue).await };
            let Some(shard) = found.map_err(noted)? else { return Ok(None) };
            match reply(shard.work(vec![op.clone()])).await {
                Err(NotDone::Store(StoreError::UnknownQueue)) => self.queues.forget(&shard),
                done => {
                    let result = done?.0.into_iter().next().ok_or_else(ApiError::broke_off)?;
                    return result.map(|_| Some(shard.info.clone())).map_err(refused);
                }
            }
        }
        Err(NotDone::Store(StoreError::UnknownQueue).into())
    }

    /// Deletes a queue that holds no live task; answers under which number the store had it, if it did.
    ///
    /// # Errors
    /// When it holds one, or the store does not answer: a repeat goes on.
    pub async fn delete_queue(&self, queue: &Arc<Queue>) -> Result<Option<QueueInfo>, ApiError> {
        for _ in 0..REOPENS_MAX {
            let Some(shard) = self.queues.find(queue).await.map_err(noted)? else { return Ok(None) };
            match self.store.delete_queue(&shard.info).await {
                Ok(Deletion::Deleted) => {
                    self.queues.deleted(&shard.info);
                    return Ok(Some(shard.info.clone()));
                }
                Ok(Deletion::NotEmpty(live)) => return Err(not_empty(queue, live)),
                Err(StoreError::UnknownQueue) => self.queues.forget(&shard),
                Err(error) => return Err(noted(error)),
            }
        }
        Err(NotDone::Store(StoreError::UnknownQueue).into())
    }

    /// The shards of all numbers that the ids name, each looked up once.
    async fn shards_of(
        &self,
        caller: &Caller,
        asked: &[Result<(TaskId, WorkOp), ApiError>],
    ) -> HashMap<QueueNumber, Result<Arc<ShardHandle>, ApiError>> {
        let ids = asked.iter().filter_map(|item| item.as_ref().ok().map(|(id, _)| *id));
        let of_number: HashMap<QueueNumber, TaskId> = ids.map(|id| (id.shard().queue, id)).collect();
        let lookups = of_number
            .into_iter()
            .map(|(number, id)| async move { (number, self.queue_of(caller, id).await) });
        stream::iter(lookups).buffer_unordered(LOOKUPS_MAX).collect().await
    }

    async fn act_in(&self, caller: &Caller, group: Group) -> (Vec<usize>, Vec<Acted>) {
        let acted = match self.results_of(caller, &group).await {
            Ok(results) => results.into_iter().map(|result| result.map_err(refused)).collect(),
            Err(error) => group.places.iter().map(|_| Err(error.clone())).collect(),
        };
        (group.places, acted)
    }

    async fn results_of(&self, caller: &Caller, group: &Group) -> Result<Vec<WorkResult>, ApiError> {
        match reply(group.shard.work(group.ops.clone())).await {
            Err(NotDone::Store(StoreError::UnknownQueue)) => self.queues.forget(&group.shard),
            done => return Ok(done?.0),
        }
        // Nothing was done. The number may be another queue's by now; if not, the tasks were lost with their queue.
        let shard = self.queue_of(caller, group.first).await?;
        match reply(shard.work(group.ops.clone())).await {
            Err(NotDone::Store(StoreError::UnknownQueue)) => {
                self.queues.forget(&shard);
                Err(ApiError::task_not_found())
            }
            done => Ok(done?.0),
        }
    }
}
