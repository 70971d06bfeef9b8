//! Enqueueing, reading and cancelling tasks.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use brisq_api::{
    ApiError, EnqueueItem, EnqueueRequest, EnqueueResponse, EnqueueResults, ErrorCode, ErrorEnvelope,
    ResultView, TaskRequest, TaskView, task_id,
};
use brisq_model::{
    Facts, Gate, Idempotency, NewTask, State as Life, Task, TaskId, TaskState, UnixMs, limits,
};
use brisq_store::{Enqueued, StoreError, WorkDone, WorkOp};
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Call;
use crate::answers::{counted, json};
use crate::auth::Caller;
use crate::coalescer::Meta;
use crate::error::{HandlerResult, noted, refused};
use crate::queue::Queue;
use crate::schedules::unplaced;
use crate::shard::weight;
use crate::state::App;

/// Enqueue one task, or a batch under `tasks`.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/tasks", tag = "tasks",
    params(("queue" = String, Path, description = "Queue; made on first use")),
    request_body = EnqueueRequest,
    responses(
        (status = 201, description = "The new task", body = TaskView),
        (status = 200, description = "The task kept under the idempotency key, or the new one in its place; or, for a batch, `results` by index", body = EnqueueResponse),
        (status = "4XX", description = "Refused", body = ErrorEnvelope),
        (status = "5XX", description = "Not carried out, or not known", body = ErrorEnvelope),
    )
)]
pub async fn enqueue(Path(queue): Path<String>, call: Call) -> HandlerResult {
    let queue = call.app.queue(&call.caller, &queue)?;
    match call.body.parse()? {
        EnqueueRequest::One(one) => {
            let task = one.into_task(unplaced())?;
            let Call { app, body, .. } = call;
            drop(body);
            enqueue_one(&app, &queue, task).await
        }
        EnqueueRequest::Batch { tasks } => {
            let parse = |raw: &&RawValue| brisq_api::item::<TaskRequest<'_>>(raw)?.into_task(unplaced());
            let tasks = tasks.iter().map(parse).collect();
            let Call { app, body, .. } = call;
            drop(body);
            enqueue_batch(&app, &queue, tasks).await
        }
    }
}

async fn enqueue_one(app: &App, queue: &Arc<Queue>, task: NewTask) -> HandlerResult {
    let (results, meta) = app.enqueue(queue, std::slice::from_ref(&task)).await?;
    let (id, result) = results.into_iter().next().ok_or_else(broke_off)?;
    let result = result.map_err(refused)?;
    let status = match result {
        Enqueued::Created { .. } => StatusCode::CREATED,
        Enqueued::Replaced { .. } | Enqueued::Existing(_) | Enqueued::Fired(_) => StatusCode::OK,
    };
    let task = kept(id, &task, result, meta)?;
    Ok(json(status, &told(queue.name.as_str(), &task)))
}

async fn enqueue_batch(
    app: &App,
    queue: &Arc<Queue>,
    parsed: Vec<Result<NewTask, ApiError>>,
) -> HandlerResult {
    let good: Vec<NewTask> = parsed.iter().filter_map(|task| task.as_ref().ok().cloned()).collect();
    let mut stored = Vec::new().into_iter();
    let mut now = None;
    if !good.is_empty() {
        let (results, meta) = app.enqueue(queue, &good).await?;
        (stored, now) = (results.into_iter(), Some(meta));
    }
    let mut answer = |task: Result<NewTask, ApiError>| {
        let task = task?;
        let ((id, result), meta) = stored.next().zip(now).ok_or_else(broke_off)?;
        kept(id, &task, result.map_err(refused)?, meta)
    };
    let answers: Vec<Result<Task, ApiError>> = parsed.into_iter().map(&mut answer).collect();
    let results = answers.iter().map(|answer| match answer {
        Ok(task) => EnqueueItem::Taken { task: Box::new(told(queue.name.as_str(), task)) },
        Err(error) => EnqueueItem::Rejected { error: error.envelope().error },
    });
    Ok(json(StatusCode::OK, &EnqueueResults { results: results.collect() }))
}

fn broke_off() -> ApiError {
    noted(StoreError::Corrupt("no answer to an enqueue".into()))
}

/// The task under which the enqueue's work is done: the new one, or the one of its key, unless the caller wants none other.
fn kept(id: TaskId, task: &NewTask, enqueued: Enqueued, meta: Meta) -> Result<Task, ApiError> {
    match enqueued {
        Enqueued::Created { state, ready_at } => Ok(created(id, task, state, ready_at, meta)),
        Enqueued::Replaced { id, state, ready_at } => Ok(created(id, task, state, ready_at, meta)),
        Enqueued::Existing(existing) if task.idempotency == Idempotency::Reject => {
            let message =
                "A task with this idempotency key is kept; `detail.id` names it. Nothing was added.";
            Err(ApiError::new(ErrorCode::IdempotencyConflict, message).with("id", existing.id.to_string()))
        }
        Enqueued::Existing(existing) => Ok(*existing),
        // Only schedules name ticks.
        Enqueued::Fired(_) => Err(broke_off()),
    }
}

/// The task that the store has just made, without asking it again.
fn created(id: TaskId, task: &NewTask, state: TaskState, ready_at: UnixMs, meta: Meta) -> Task {
    Task::of(Facts {
        id,
        payload: Bytes::new(),
        priority: task.priority,
        max_attempts: task.max_attempts,
        keys: task.keys.clone(),
        idempotency_key: task.idempotency_key.clone(),
        created_at: meta.now,
        state: match state {
            TaskState::Delayed => Life::Delayed,
            // Which gate it is nobody sees of an enqueue's answer.
            TaskState::Blocked => Life::Blocked(Gate::Ordering),
            _ => Life::Ready,
        },
        last: None,
        ready_at,
        failed: 0,
        expiries: 0,
        cancel_requested: false,
        deadline_at: task.deadline_ms.map(|ms| meta.now.plus_ms(ms)),
        attempts: Vec::new(),
        events: Vec::new(),
        progress: None,
        result: None,
    })
}

/// The task for a caller who may not read tasks: what it sent it has, what workers said is not its to know.
fn told<'a>(queue: &'a str, task: &'a Task) -> TaskView<'a> {
    TaskView { payload: None, progress: None, attempts: Vec::new(), ..TaskView::of(queue, task) }
}

/// Read a task.
#[utoipa::path(
    get, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Task")),
    responses(
        (status = 200, description = "The task, with its payload", body = TaskView),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn get(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> HandlerResult {
    let id = task_id(&id)?;
    let shard = app.queue_of(&caller, id).await?;
    let task = app.kept_task(id).await?;
    counted(&app.answers, StatusCode::OK, &TaskView::of(shard.info.name.as_str(), &task), weight(&task))
}

/// How long to wait for a result.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wait {
    wait_ms: Option<u64>,
}

/// Read a task's result, waiting for it if asked to.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/result", tag = "tasks",
    params(
        ("id" = String, Path, description = "Task"),
        ("waitMs" = Option<u64>, Query, description = "How long to wait for the end, 0 to 60,000", maximum = 60_000),
    ),
    responses(
        (status = 200, description = "The task has ended: its result, or its last error", body = ResultView),
        (status = 202, description = "It has not ended: only its state", body = ResultView),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn result(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    wait: Result<Query<Wait>, axum::extract::rejection::QueryRejection>,
) -> HandlerResult {
    let wait_ms =
        wait.ok().map(|Query(wait)| wait.wait_ms.unwrap_or(0)).filter(|ms| *ms <= limits::WAIT_MAX_MS);
    let wait_ms = wait_ms.ok_or_else(|| ApiError::invalid_field("waitMs", "`waitMs` is 0 to 60000."))?;
    let id = task_id(&id)?;
    app.queue_of(&caller, id).await?;
    let task = app.wait_for_result(id, Duration::from_millis(wait_ms)).await?;
    let status = if task.state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    counted(&app.answers, status, &ResultView::of(&task), task.result.as_ref().map_or(0, Bytes::len))
}

/// Take a task back: a queued one is cancelled at once, a running one's worker is asked to stop.
#[utoipa::path(
    delete, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Task")),
    responses(
        (status = 200, description = "The task as it is now, without its payload, attempts, progress and result", body = TaskView),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
        (status = 409, description = "`already_finished`", body = ErrorEnvelope),
    )
)]
pub async fn cancel(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> HandlerResult {
    let id = task_id(&id)?;
    let shard = app.queue_of(&caller, id).await?;
    match app.act(&caller, id, WorkOp::Cancel { id }).await? {
        // Its caller may write tasks; whether it may read them, nobody has asked.
        WorkDone::Cancelled(task) => Ok(json(StatusCode::OK, &told(shard.info.name.as_str(), &task))),
        _ => Err(noted(StoreError::Corrupt("a cancel was answered as another act".into())).into()),
    }
}
