use std::sync::Arc;

use brisq_api::ApiError;
use brisq_model::{NewTask, TaskId};
use brisq_recorder::unix_ms;
use brisq_store::{Refused, StoreError};
use rand::RngExt;

use super::{NotDone, REOPENS_MAX, reply};
use crate::coalescer::Meta;
use crate::error::noted;
use crate::queue::Queue;
use crate::shard::{EnqueueResult, ShardHandle};
use crate::state::AppState;

/// How often an enqueue draws another id when the one it drew exists, which 42 random bits a millisecond make rare.
const ID_DRAWS_MAX: usize = 4;

impl AppState {
    /// Adds tasks under ids that are drawn here; results by index, each with the id it got.
    ///
    /// # Errors
    /// When the call as a whole failed.
    pub async fn enqueue(
        &self,
        queue: &Arc<Queue>,
        tasks: &[NewTask],
    ) -> Result<(Vec<(TaskId, EnqueueResult)>, Meta), ApiError> {
        for _ in 0..REOPENS_MAX {
            let shard = self.queues.open(queue).await.map_err(noted)?;
            match enqueue_in(&shard, tasks).await {
                // Nothing was added: the queue gets a number anew, and its tasks ids that name it.
                Err(NotDone::Store(StoreError::UnknownQueue)) => self.queues.forget(&shard),
                done => return done.map_err(Into::into),
            }
        }
        Err(NotDone::Store(StoreError::UnknownQueue).into())
    }
}

async fn enqueue_in(
    shard: &Arc<ShardHandle>,
    tasks: &[NewTask],
) -> Result<(Vec<(TaskId, EnqueueResult)>, Meta), NotDone> {
    let with_id = |task: &NewTask| NewTask { id: draw_id(shard), ..task.clone() };
    let drawn: Vec<NewTask> = tasks.iter().map(with_id).collect();
    let mut ids: Vec<TaskId> = drawn.iter().map(|task| task.id).collect();
    let (mut results, _, meta) = reply(shard.enqueue(drawn)).await?;
    for _ in 1..ID_DRAWS_MAX {
        let taken = |(index, result): (usize, &EnqueueResult)| {
            matches!(result, Err(Refused::IdTaken)).then_some(index)
        };
        let again: Vec<usize> = results.iter().enumerate().filter_map(taken).collect();
        if again.is_empty() {
            break;
        }
        let redrawn: Vec<NewTask> = again.iter().filter_map(|index| tasks.get(*index)).map(with_id).collect();
        let new_ids: Vec<TaskId> = redrawn.iter().map(|task| task.id).collect();
        let (results_again, ..) = reply(shard.enqueue(redrawn)).await?;
        for ((index, id), result) in again.into_iter().zip(new_ids).zip(results_again) {
            if let (Some(slot), Some(known)) = (results.get_mut(index), ids.get_mut(index)) {
                (*slot, *known) = (result, id);
            }
        }
    }
    Ok((ids.into_iter().zip(results).collect(), meta))
}

/// A new id for a task of `shard`.
fn draw_id(shard: &ShardHandle) -> TaskId {
    TaskId::new(unix_ms(), shard.shard(), rand::rng().random())
}
