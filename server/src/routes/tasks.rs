//! Enqueueing, reading and cancelling tasks.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use brisq_api::{
    ApiError, EnqueueItem, EnqueueRequest, EnqueueResults, ErrorEnvelope, ResultView, TaskRequest, TaskView,
    task_id,
};
use brisq_model::{NewTask, Task, TaskId, limits};
use brisq_store::{Enqueued, WorkDone, WorkOp};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::Caller;
use crate::coalescer::Meta;
use crate::error::{Answered, json, refused, store_error};
use crate::extract::RawBody;
use crate::shard::{EnqueueResult, ShardHandle};
use crate::state::App;

/// Enqueue one task, or a batch under `tasks`.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/tasks", tag = "tasks",
    params(("queue" = String, Path, description = "Queue; made on first use")),
    request_body = EnqueueRequest,
    responses(
        (status = 201, description = "The new task", body = TaskView),
        (status = 200, description = "The task kept under the idempotency key; or, for a batch, `results` by index", body = EnqueueResults),
        (status = "4XX", description = "Refused", body = ErrorEnvelope),
        (status = "5XX", description = "Not carried out, or not known", body = ErrorEnvelope),
    )
)]
pub async fn enqueue(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(queue): Path<String>,
    body: RawBody,
) -> Answered {
    let shard = app.queue(&caller, &queue).await?;
    match body.parse::<EnqueueRequest<'_>>()?.into_parts()? {
        Err(one) => enqueue_one(&app, &shard, one).await,
        Ok(tasks) => enqueue_batch(&app, &shard, &tasks).await,
    }
}

async fn enqueue_one(app: &App, shard: &Arc<ShardHandle>, request: TaskRequest<'_>) -> Answered {
    let task = request.into_task(app.draw_id(shard))?;
    let (results, meta) = app.enqueue(shard, vec![task.clone()]).await?;
    let queue = shard.info.name.as_str();
    match results.into_iter().next() {
        Some((id, Ok(Enqueued::Created { state, ready_at }))) => {
            let created = created(id, &task, state, ready_at, meta);
            Ok(json(StatusCode::CREATED, &without_payload(queue, &created)))
        }
        Some((_, Ok(Enqueued::Existing(existing)))) => {
            Ok(json(StatusCode::OK, &without_payload(queue, &existing)))
        }
        Some((_, Err(error))) => Err(refused(error).into()),
        None => Err(store_error(brisq_store::StoreError::Corrupt("no answer to an enqueue".into())).into()),
    }
}

async fn enqueue_batch(app: &App, shard: &Arc<ShardHandle>, requests: &[&RawValue]) -> Answered {
    let parse = |raw: &&RawValue| {
        brisq_api::parse::<TaskRequest<'_>>(raw.get().as_bytes())?.into_task(app.draw_id(shard))
    };
    let parsed: Vec<Result<NewTask, ApiError>> = requests.iter().map(parse).collect();
    let good: Vec<NewTask> = parsed.iter().filter_map(|task| task.as_ref().ok().cloned()).collect();
    let (stored, meta) = if good.is_empty() {
        (Vec::new(), None)
    } else {
        let (stored, meta) = app.enqueue(shard, good).await?;
        (stored, Some(meta))
    };
    let mut stored = stored.into_iter();
    let answers: Vec<Result<Task, ApiError>> = parsed
        .into_iter()
        .map(|task| {
            let (task, (id, result)) = (task?, stored.next().ok_or_else(crate::error::draining)?);
            as_task(id, &task, result, meta)
        })
        .collect();
    let queue = shard.info.name.as_str();
    let results = answers.iter().map(|answer| match answer {
        Ok(task) => EnqueueItem::Task(Box::new(without_payload(queue, task))),
        Err(error) => EnqueueItem::Rejected(error.envelope()),
    });
    Ok(json(StatusCode::OK, &EnqueueResults { results: results.collect() }))
}

fn as_task(id: TaskId, task: &NewTask, result: EnqueueResult, meta: Option<Meta>) -> Result<Task, ApiError> {
    match (result.map_err(refused)?, meta) {
        (Enqueued::Created { state, ready_at }, Some(meta)) => Ok(created(id, task, state, ready_at, meta)),
        (Enqueued::Existing(existing), _) => Ok(*existing),
        (Enqueued::Created { .. }, None) => Err(crate::error::draining()),
    }
}

/// The task that the store has just made, without asking it again.
fn created(
    id: TaskId,
    task: &NewTask,
    state: brisq_model::TaskState,
    ready_at: brisq_model::UnixMs,
    meta: Meta,
) -> Task {
    Task {
        id,
        state,
        payload: bytes::Bytes::new(),
        priority: task.priority,
        attempt: 0,
        max_attempts: task.max_attempts,
        expiries: 0,
        created_at: meta.now,
        ready_at,
        started_at: None,
        finished_at: None,
        lease: None,
        cancel_requested: false,
        progress: None,
        attempts: Vec::new(),
        dead_reason: None,
        result: None,
        idempotency_key: task.idempotency_key.clone(),
    }
}

fn without_payload<'a>(queue: &'a str, task: &'a Task) -> TaskView<'a> {
    TaskView { payload: None, ..TaskView::of(queue, task) }
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
) -> Answered {
    let id = task_id(&id)?;
    let shard = app.queue_of(&caller, id).await?;
    let task = app.store.get(id).await.map_err(store_error)?.ok_or_else(ApiError::task_not_found)?;
    Ok(json(StatusCode::OK, &TaskView::of(shard.info.name.as_str(), &task)))
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
) -> Answered {
    let wait_ms =
        wait.ok().map(|Query(wait)| wait.wait_ms.unwrap_or(0)).filter(|ms| *ms <= limits::WAIT_MAX_MS);
    let wait_ms = wait_ms.ok_or_else(|| ApiError::invalid_field("waitMs", "`waitMs` is 0 to 60000."))?;
    let id = task_id(&id)?;
    app.queue_of(&caller, id).await?;
    let task = app.wait_for_result(id, Duration::from_millis(wait_ms)).await?;
    let status = if task.state.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json(status, &ResultView::of(&task)))
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
) -> Answered {
    let id = task_id(&id)?;
    let shard = app.queue_of(&caller, id).await?;
    match app.act(&shard, vec![WorkOp::Cancel { id }]).await?.into_iter().next() {
        Some(Ok(WorkDone::Cancelled(task))) => {
            Ok(json(StatusCode::OK, &without_payload(shard.info.name.as_str(), &task)))
        }
        Some(Err(error)) => Err(refused(error).into()),
        _ => {
            Err(store_error(brisq_store::StoreError::Corrupt("a cancel was answered as another act".into()))
                .into())
        }
    }
}
