//! Queues: how much lies in them, and whether it is handed out.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use brisq_api::{
    ApiError, Empty, ErrorCode, ErrorEnvelope, ManagedBy, PauseRequest, PauseView, PolicyRequest, PolicyView,
    QueueList, QueueView, StateCounts,
};
use brisq_model::{Policy, QueueName, TaskState};
use brisq_store::{QueueCounts, QueueInfo, StoreError, WorkOp};
use hyper::StatusCode;

use crate::answers::json;
use crate::auth::Caller;
use crate::error::{HandlerResult, noted};
use crate::queue::Queue;
use crate::routes::{Call, PageQuery};
use crate::state::{App, AppState};

/// Most queues of one page, and how many a page has that names no limit.
pub const LIST_MAX: usize = 1_000;

/// The tenant's queues that the token covers, a page at a time.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues",
    params(
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before; the first page when absent"),
        ("limit" = Option<usize>, Query, description = "Queues of the page, 1 to 1,000; 1,000 when absent", minimum = 1, maximum = 1_000),
    ),
    responses(
        (status = 200, description = "By name. A page may have fewer queues than asked for; the last one has no `nextCursor`", body = QueueList),
        (status = 400, description = "`invalid_field`", body = ErrorEnvelope),
    )
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> HandlerResult {
    let (after, limit) = PageQuery::read(page, LIST_MAX, QueueName::new)?;
    let infos = app.store.queues(&caller.tenant, after.as_ref(), limit).await.map_err(noted)?;
    // The cursor is of what was looked at, not of what the caller may see of it.
    let next_cursor = infos.get(limit - 1).map(|last| last.name.to_string());
    let seen: Vec<QueueInfo> = infos.into_iter().filter(|info| caller.sees(&info.name)).collect();
    let queues = app.views(&seen).await.map_err(noted)?.into_iter().map(|(view, _)| view).collect();
    Ok(json(StatusCode::OK, &QueueList { queues, next_cursor }))
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
) -> HandlerResult {
    let queue = app.queue(&caller, &queue)?;
    let shard = app.queues.find(&queue).await.map_err(noted)?.ok_or_else(|| not_found(&queue))?;
    answer(&app, &shard.info).await
}

/// Hand out nothing of a queue until it is resumed. It goes on to take tasks and every act on a lease. Pausing a paused queue keeps
/// `since`, and replaces `by` and `reason`.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/pause", tag = "queues",
    params(("queue" = String, Path, description = "Queue")), request_body = PauseRequest,
    responses(
        (status = 200, description = "The queue", body = QueueView),
        (status = 400, description = "`invalid_field`", body = ErrorEnvelope),
        (status = 404, description = "`queue_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn pause(Path(queue): Path<String>, call: Call) -> HandlerResult {
    let reason = call.body.parse::<PauseRequest<'_>>()?.into_reason()?;
    let by = call.caller.name.clone();
    act(call, &queue, WorkOp::Pause { by, reason }).await
}

/// Hand out the tasks of a queue again; claims that wait are woken at every server. Fine when it is not paused.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/resume", tag = "queues",
    params(("queue" = String, Path, description = "Queue")),
    responses(
        (status = 200, description = "The queue", body = QueueView),
        (status = 404, description = "`queue_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn resume(Path(queue): Path<String>, call: Call) -> HandlerResult {
    call.body.parse::<Empty>()?;
    act(call, &queue, WorkOp::Resume).await
}

/// Let this hold for all tasks of a queue from now on; makes the queue. What is absent takes its default. Lower limits take no
/// lease away, and tasks keep the retry and the retention that they came with.
#[utoipa::path(
    put, path = "/v1/queues/{queue}", tag = "queues",
    params(("queue" = String, Path, description = "Queue; made on first use")), request_body = PolicyRequest,
    responses(
        (status = 200, description = "The queue", body = QueueView),
        (status = 400, description = "`invalid_field`, `not_supported`", body = ErrorEnvelope),
        (status = 409, description = "`managed_by_manifest`", body = ErrorEnvelope),
        (status = 429, description = "`too_many_queues`", body = ErrorEnvelope),
    )
)]
pub async fn put(Path(queue): Path<String>, call: Call) -> HandlerResult {
    let policy = call.body.parse::<PolicyRequest>()?.into_policy()?;
    let name = call.app.queue(&call.caller, &queue)?;
    call.app.declared.check(&name.tenant, &name.name)?;
    act(call, &queue, WorkOp::Govern(Box::new(policy))).await
}

/// Take a queue away with all that is kept of its tasks: results, dead letters, policy, pause and keys. It must hold no task that
/// has not ended. Its name is free: the next enqueue makes a new queue, and claims that wait for the name go on waiting.
#[utoipa::path(
    delete, path = "/v1/queues/{queue}", tag = "queues",
    params(("queue" = String, Path, description = "Queue")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`queue_not_found`: it was never used, or is gone", body = ErrorEnvelope),
        (status = 409, description = "`queue_not_empty`, `managed_by_manifest`", body = ErrorEnvelope),
        (status = 503, description = "`store_unavailable`: a repeat goes on", body = ErrorEnvelope),
    )
)]
pub async fn delete(Path(queue): Path<String>, call: Call) -> HandlerResult {
    call.body.parse::<Empty>()?;
    let queue = call.app.queue(&call.caller, &queue)?;
    call.app.declared.check(&queue.tenant, &queue.name)?;
    let info = call.app.delete_queue(&queue).await?.ok_or_else(|| not_found(&queue))?;
    tracing::info!(queue = %info.name, by = call.caller.name, "a queue was deleted by a caller");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn act(call: Call, queue: &str, op: WorkOp) -> HandlerResult {
    let Call { app, caller, body, .. } = call;
    drop(body);
    let queue = app.queue(&caller, queue)?;
    let info = app.act_on_queue(&queue, op).await?.ok_or_else(|| not_found(&queue))?;
    answer(&app, &info).await
}

async fn answer(app: &App, info: &QueueInfo) -> HandlerResult {
    let views = app.views(std::slice::from_ref(info)).await.map_err(noted)?;
    let (view, policy) = views.into_iter().next().ok_or_else(|| noted(no_counts()))?;
    Ok(json(StatusCode::OK, &QueueView { policy: Some(PolicyView::of(&policy)), ..view }))
}

pub fn not_found(queue: &Queue) -> ApiError {
    ApiError::new(
        ErrorCode::QueueNotFound,
        "The queue was never used, or was deleted: the first enqueue makes it.",
    )
    .with("queue", &queue.name)
}

fn no_counts() -> StoreError {
    StoreError::Corrupt("no counts of a queue".to_owned())
}

impl AppState {
    /// The queues with their counts, which are asked for in one call, and their policies.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn views(&self, infos: &[QueueInfo]) -> Result<Vec<(QueueView, Policy)>, StoreError> {
        if infos.is_empty() {
            return Ok(Vec::new());
        }
        let shards: Vec<_> = infos.iter().map(QueueInfo::shard).collect();
        let counts = self.store.counts(&shards).await?;
        if counts.len() != infos.len() {
            return Err(no_counts());
        }
        Ok(infos.iter().zip(counts).map(|(info, counts)| self.view(info, counts)).collect())
    }

    fn view(&self, info: &QueueInfo, counts: QueueCounts) -> (QueueView, Policy) {
        let policy = counts.policy.as_deref().cloned().unwrap_or_default();
        let waiting = self.queues.known(&info.tenant, &info.name).map_or(0, |queue| queue.parking.waiting());
        let managed = self.declared.manages(&info.tenant, &info.name);
        let view = QueueView {
            name: info.name.to_string(),
            counts: StateCounts {
                delayed: counts.of(TaskState::Delayed),
                blocked: counts.of(TaskState::Blocked),
                ready: counts.of(TaskState::Ready),
                leased: counts.of(TaskState::Leased),
                completed: counts.of(TaskState::Completed),
                failed: counts.of(TaskState::Failed),
                dead: counts.of(TaskState::Dead),
                cancelled: counts.of(TaskState::Cancelled),
            },
            oldest_ready_age_ms: counts.head_ready_at.map(|at| counts.now.ms_since(at)),
            paused: counts.paused.map(PauseView::of),
            claimers_waiting: waiting as u64,
            policy: None,
            managed_by: managed.then_some(ManagedBy::Manifest),
        };
        (view, policy)
    }
}
