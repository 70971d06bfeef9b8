use std::time::{Duration, Instant};

use brisq_api::ApiError;
use brisq_model::{Task, TaskId};
use tokio::time::sleep_until;

use super::SLOW_POLL;
use crate::error::noted;
use crate::state::AppState;

impl AppState {
    /// The task in its final state, or as it is when the time is over or the server goes down.
    ///
    /// # Errors
    /// When there is no such task, or the store does not answer.
    pub async fn wait_for_result(&self, id: TaskId, wait: Duration) -> Result<Task, ApiError> {
        let deadline = Instant::now() + wait;
        loop {
            let mut ended = self.results.watch(id);
            let task = self.store.outcome(id).await.map_err(noted)?;
            let task = task.ok_or_else(ApiError::task_not_found)?;
            if task.state.is_final() || Instant::now() >= deadline || self.draining() {
                return Ok(task);
            }
            // A server that shares the store may complete the task, and a deadline passes without a call: then only looking tells.
            // An outcome is remembered for longer than a look takes, also of a task that is not kept.
            let untold = self.store_is_shared || task.deadline_at.is_some();
            let look = if untold { deadline.min(Instant::now() + SLOW_POLL) } else { deadline };
            tokio::select! {
                () = ended.wait() => {}
                () = sleep_until(look.into()) => {}
                () = self.drain_begins() => {}
            }
        }
    }
}
