//! The core behind the routes: enqueue, claim, act on leases, wait for results.

mod acts;
mod claim;
mod enqueue;
mod many;
mod result;
mod sources;

use std::sync::Arc;
use std::time::Duration;

use brisq_api::{ApiError, ErrorCode};
use brisq_model::{QueueName, TaskId, limits};
use brisq_store::StoreError;
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use acts::{Acted, Batch};
pub use claim::ClaimWish;
pub use sources::Sources;

use crate::auth::Caller;
use crate::budget::Full;
use crate::coalescer::{CallTimes, Meta, Reply};
use crate::error::{noted, overloaded, store_error};
use crate::queue::Queue;
use crate::shard::ShardHandle;
use crate::state::AppState;

/// How often a parked claim or result looks when wake-ups of other servers may be missed.
const SLOW_POLL: Duration = Duration::from_secs(1);
const STORE_ANSWER_MAX: Duration = Duration::from_millis(limits::STORE_ANSWER_MAX_MS);
/// How often one request finds that the store does not know its queue, and asks for its number anew.
const REOPENS_MAX: usize = 4;

/// Why operations have no results.
enum NotDone {
    Full(Full),
    /// A call of a lane, which has said why.
    Store(StoreError),
    /// The store has not answered in time, and may still.
    Late,
    /// The store call panicked, or the runtime ends.
    BrokeOff,
}

impl From<NotDone> for ApiError {
    fn from(why: NotDone) -> Self {
        match why {
            NotDone::Full(full) => overloaded(full),
            NotDone::Store(error) => store_error(error),
            NotDone::Late => {
                let cause = format!("no answer within {} s", STORE_ANSWER_MAX.as_secs());
                noted(StoreError::Unavailable(cause))
            }
            NotDone::BrokeOff => Self::broke_off(),
        }
    }
}

impl AppState {
    /// The queue of this name, if the caller may use it.
    ///
    /// # Errors
    /// When it is no name, or not the caller's.
    pub fn queue(&self, caller: &Caller, name: &str) -> Result<Arc<Queue>, ApiError> {
        let name = queue_name(name)?;
        caller.check_queue(&name)?;
        Ok(self.queues.named(&caller.tenant, &name))
    }

    /// The queue of a task, if the caller may use it.
    ///
    /// # Errors
    /// When there is no such task in the caller's tenant, or its queue is not the caller's.
    pub async fn queue_of(&self, caller: &Caller, id: TaskId) -> Result<Arc<ShardHandle>, ApiError> {
        let shard = self.queues.of_task(id).await.map_err(noted)?;
        let shard = shard.filter(|shard| shard.info.tenant == caller.tenant);
        let shard = shard.ok_or_else(ApiError::task_not_found)?;
        caller.check_queue(&shard.info.name)?;
        Ok(shard)
    }
}

/// A queue's name from a path.
///
/// # Errors
/// When it is none.
fn queue_name(text: &str) -> Result<QueueName, ApiError> {
    QueueName::new(text).map_err(|error| {
        ApiError::new(ErrorCode::InvalidName, format!("`{text}` is no queue name: {error}."))
    })
}

type Results<O> = (Vec<O>, CallTimes, Meta);

/// What a lane replies to operations that were handed in.
async fn reply<O>(submitted: Result<oneshot::Receiver<Reply<O>>, Full>) -> Result<Results<O>, NotDone> {
    received(&mut submitted.map_err(NotDone::Full)?).await
}

/// A store that has not answered in time may still do so: what nobody waits for then is the lane's to give back.
async fn received<O>(reply: &mut oneshot::Receiver<Reply<O>>) -> Result<Results<O>, NotDone> {
    match timeout(STORE_ANSWER_MAX, reply).await {
        Ok(Ok(reply)) => reply.map_err(NotDone::Store),
        Ok(Err(_)) => Err(NotDone::BrokeOff),
        Err(_) => Err(NotDone::Late),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use brisq_model::UnixMs;
    use brisq_store::Answer;

    use super::*;
    use crate::budget::Budget;
    use crate::coalescer::{Lane, StoreCalls};

    /// A store that answers each operation with itself, after a minute.
    #[derive(Default)]
    struct Late {
        unclaimed: AtomicUsize,
    }

    impl StoreCalls<usize, usize> for Late {
        async fn call(&self, ops: Vec<usize>) -> Result<Answer<usize>, StoreError> {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(Answer::of(ops, UnixMs(1)))
        }

        fn answered(self: &Arc<Self>, _: &Answer<usize>, _: CallTimes) {}

        fn failed(self: &Arc<Self>, _: &StoreError, _: usize) {}

        fn broke_off(self: &Arc<Self>) {}

        fn skipped(self: &Arc<Self>) {}

        fn unclaimed(self: &Arc<Self>, results: Vec<usize>) {
            self.unclaimed.fetch_add(results.len(), Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_store_is_given_up_and_what_it_brings_goes_back() {
        let (late, began) = (Arc::new(Late::default()), tokio::time::Instant::now());
        let lane = Arc::new(Lane::new(Budget::new(1 << 20), None));
        let refused = reply(lane.submit(vec![1, 2, 3], &late)).await;
        assert!(matches!(refused, Err(NotDone::Late)));
        assert!((STORE_ANSWER_MAX..STORE_ANSWER_MAX + Duration::from_secs(1)).contains(&began.elapsed()));
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(late.unclaimed.load(Ordering::SeqCst), 3);
    }
}
