//! Queues as a reader sees them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use brisq_api::{ApiError, ErrorCode, ErrorEnvelope, QueueList, QueueView, StateCounts};
use brisq_model::TaskState;
use hyper::StatusCode;

use crate::auth::Caller;
use crate::error::{Answered, json, store_error};
use crate::shard::ShardHandle;
use crate::state::{App, AppState};
use crate::work::queue_name;

/// Queues of one answer.
pub const LIST_MAX: usize = 1_000;

/// All queues of the tenant that the token covers.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues",
    responses((status = 200, description = "By name", body = QueueList))
)]
pub async fn list(State(app): State<App>, Extension(caller): Extension<Arc<Caller>>) -> Answered {
    let queues = app.queue_views(&caller).await?;
    Ok(json(StatusCode::OK, &QueueList { queues }))
}

/// One queue: how much lies in it, and who waits.
#[utoipa::path(
    get, path = "/v1/queues/{queue}", tag = "queues",
    params(("queue" = String, Path, description = "Queue")),
    responses(
        (status = 200, description = "The queue", body = QueueView),
        (status = 404, description = "`queue_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn get(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(queue): Path<String>,
) -> Answered {
    let name = queue_name(&queue)?;
    caller.check_queue(&name)?;
    let shard = app.queues.find(&caller.tenant, &name).await?.ok_or_else(|| {
        ApiError::new(
            ErrorCode::QueueNotFound,
            "The queue was never used: the first enqueue or claim makes it.",
        )
        .with("queue", &name)
    })?;
    Ok(json(StatusCode::OK, &app.queue_view(&shard).await?))
}

impl AppState {
    /// The tenant's queues that the token covers, at most [`LIST_MAX`].
    pub async fn queue_views(&self, caller: &Caller) -> Result<Vec<QueueView>, ApiError> {
        let shards = self.queues.all(&caller.tenant).await?;
        let mut views = Vec::new();
        for shard in shards.iter().filter(|shard| caller.sees(&shard.info.name)).take(LIST_MAX) {
            views.push(self.queue_view(shard).await?);
        }
        Ok(views)
    }

    async fn queue_view(&self, shard: &ShardHandle) -> Result<QueueView, ApiError> {
        let counts = self.store.counts(&[shard.shard()]).await.map_err(store_error)?.remove(0);
        Ok(QueueView {
            name: shard.info.name.to_string(),
            counts: StateCounts {
                delayed: counts.of(TaskState::Delayed),
                ready: counts.of(TaskState::Ready),
                leased: counts.of(TaskState::Leased),
                completed: counts.of(TaskState::Completed),
                failed: counts.of(TaskState::Failed),
                dead: counts.of(TaskState::Dead),
                cancelled: counts.of(TaskState::Cancelled),
            },
            oldest_ready_age_ms: counts.head_ready_at.map(|at| counts.now.ms_since(at)),
            claimers_waiting: shard.waiting() as u64,
        })
    }
}
