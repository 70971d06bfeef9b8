//! Claiming, and acting on leases: one at a time or in batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use brisq_api::{
    ApiError, BatchRequest, BatchResults, ClaimRequest, ClaimResponse, CompleteRequest, Empty, ErrorCode,
    ErrorEnvelope, FailRequest, FailResponse, HeartbeatRequest, HeartbeatResponse, ItemResult, LeaseRequest,
    ReleaseRequest, TaskView, lease_token, rfc3339, task_id,
};
use brisq_model::{LeaseToken, TaskId};
use brisq_store::{FailOp, HeartbeatOp, WorkDone, WorkOp, WorkResult};
use hyper::StatusCode;
use rand::RngExt;

use crate::auth::Caller;
use crate::connection::Connection;
use crate::error::{Answered, json, refused};
use crate::extract::RawBody;
use crate::shard::ShardHandle;
use crate::state::App;
use crate::work::{ClaimWish, Claimed};

/// Claim tasks under a lease.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/claims", tag = "work",
    params(("queue" = String, Path, description = "Queue; made on first use")),
    request_body = ClaimRequest,
    responses(
        (status = 200, description = "The tasks with their payloads and leases; empty when nothing came in `waitMs`", body = ClaimResponse),
        (status = "4XX", description = "Refused", body = ErrorEnvelope),
        (status = "5XX", description = "Not carried out, or not known: tasks claimed unseen come back when their lease ends", body = ErrorEnvelope),
    )
)]
pub async fn claim(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(connection): Extension<Connection>,
    Extension(Handled(handled)): Extension<Handled>,
    Path(queue): Path<String>,
    body: RawBody,
) -> Answered {
    let wish = wish(body.parse()?)?;
    let shard = app.queue(&caller, &queue).await?;
    let claimed = app.claim(&shard, wish, &connection, handled).await?;
    let response = {
        let tasks = claimed.tasks.iter().map(|task| TaskView::held(shard.info.name.as_str(), task));
        json(StatusCode::OK, &ClaimResponse { tasks: tasks.collect() })
    };
    claimed.hand_out(&app, &connection);
    Ok(response)
}

/// When a request met the first code of ours.
#[derive(Clone, Copy, Debug)]
pub struct Handled(pub Instant);

fn wish(request: ClaimRequest) -> Result<ClaimWish, ApiError> {
    let (max, lease_ms, wait_ms, worker) = request.checked()?;
    Ok(ClaimWish { max, lease_ms, wait: Duration::from_millis(wait_ms), worker })
}

/// An act on a lease: how its body becomes an operation.
trait Act: LeaseRequest {
    fn op(&self, id: TaskId, token: LeaseToken) -> Result<WorkOp, ApiError>;
}

impl Act for CompleteRequest<'_> {
    fn op(&self, id: TaskId, token: LeaseToken) -> Result<WorkOp, ApiError> {
        Ok(WorkOp::Complete { id, token, result: self.result()? })
    }
}

impl Act for FailRequest<'_> {
    fn op(&self, id: TaskId, token: LeaseToken) -> Result<WorkOp, ApiError> {
        let (error, delay_ms) = self.checked()?;
        let retryable = self.retryable.unwrap_or(true);
        Ok(WorkOp::Fail(FailOp { id, token, error, retryable, delay_ms, dice: rand::rng().random() }))
    }
}

impl Act for ReleaseRequest<'_> {
    fn op(&self, id: TaskId, token: LeaseToken) -> Result<WorkOp, ApiError> {
        Ok(WorkOp::Release { id, token, delay_ms: self.delay_ms()? })
    }
}

impl Act for HeartbeatRequest<'_> {
    fn op(&self, id: TaskId, token: LeaseToken) -> Result<WorkOp, ApiError> {
        let (extend_ms, progress) = self.checked()?;
        Ok(WorkOp::Heartbeat(HeartbeatOp { id, token, extend_ms, progress }))
    }
}

/// Complete a task.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/complete", tag = "work",
    params(("id" = String, Path, description = "Task")), request_body = CompleteRequest,
    responses(
        (status = 200, description = "Completed, now or by the same token before", body = Empty),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
        (status = 409, description = "`lease_lost`", body = ErrorEnvelope),
    )
)]
pub async fn complete(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    body: RawBody,
) -> Answered {
    act(&app, &caller, &id, &body.parse::<CompleteRequest<'_>>()?).await
}

/// Report a failed attempt.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/fail", tag = "work",
    params(("id" = String, Path, description = "Task")), request_body = FailRequest,
    responses(
        (status = 200, description = "What becomes of the task", body = FailResponse),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
        (status = 409, description = "`lease_lost`", body = ErrorEnvelope),
    )
)]
pub async fn fail(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    body: RawBody,
) -> Answered {
    act(&app, &caller, &id, &body.parse::<FailRequest<'_>>()?).await
}

/// Give a task back; no attempt is consumed.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/release", tag = "work",
    params(("id" = String, Path, description = "Task")), request_body = ReleaseRequest,
    responses(
        (status = 200, description = "Given back", body = Empty),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
        (status = 409, description = "`lease_lost`", body = ErrorEnvelope),
    )
)]
pub async fn release(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    body: RawBody,
) -> Answered {
    act(&app, &caller, &id, &body.parse::<ReleaseRequest<'_>>()?).await
}

/// Keep a lease, and learn whether the task is still wanted.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/heartbeat", tag = "work",
    params(("id" = String, Path, description = "Task")), request_body = HeartbeatRequest,
    responses(
        (status = 200, description = "Still held", body = HeartbeatResponse),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
        (status = 409, description = "`lease_lost`", body = ErrorEnvelope),
    )
)]
pub async fn heartbeat(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    body: RawBody,
) -> Answered {
    act(&app, &caller, &id, &body.parse::<HeartbeatRequest<'_>>()?).await
}

async fn act(app: &App, caller: &Caller, id: &str, request: &impl Act) -> Answered {
    if request.id().is_some() {
        let message = "A single call has the task's id in its path; leave `id` out of the body.";
        return Err(ApiError::new(ErrorCode::UnknownField, message).with("field", "id").into());
    }
    let id = task_id(id)?;
    let shard = app.queue_of(caller, id).await?;
    let op = request.op(id, lease_token(request.token())?)?;
    let result = app.act(&shard, vec![op]).await?.into_iter().next().ok_or_else(crate::error::draining)?;
    match item(result, app.draining()) {
        Ok(done) => Ok(json(StatusCode::OK, &done)),
        Err(error) => Err(error.into()),
    }
}

/// What an act answers, alone or in a batch.
fn item(result: WorkResult, draining: bool) -> Result<ItemResult, ApiError> {
    match result.map_err(refused)? {
        WorkDone::Failed { state, next_attempt_at } => Ok(ItemResult::Failed(FailResponse {
            state: state.name(),
            next_attempt_at: next_attempt_at.map(rfc3339),
        })),
        WorkDone::Extended { expires_at, cancel_requested } => Ok(ItemResult::Extended(HeartbeatResponse {
            expires_at: rfc3339(expires_at),
            cancel_requested,
            draining,
        })),
        WorkDone::Completed | WorkDone::Released | WorkDone::Claimed(_) | WorkDone::Cancelled(_) => {
            Ok(ItemResult::Done(Empty {}))
        }
    }
}

/// Complete up to 1,000 tasks; with `claim` also take the next ones, in one round trip.
#[utoipa::path(
    post, path = "/v1/leases/complete", tag = "work", request_body = BatchRequest,
    responses((status = 200, description = "Results by index, and the tasks of `claim`", body = BatchResults))
)]
pub async fn complete_batch(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(connection): Extension<Connection>,
    Extension(Handled(handled)): Extension<Handled>,
    body: RawBody,
) -> Answered {
    let mut request: BatchRequest<'_> = body.parse()?;
    let wish = request.claim.take().map(wish).transpose()?;
    let batch = batch::<CompleteRequest<'_>>(&app, &caller, &request).await?;
    let Some(wish) = wish else {
        return Ok(json(StatusCode::OK, &BatchResults { results: batch.results, tasks: None }));
    };
    let Some(shard) = batch.first_shard else {
        let message = "`claim` takes from the queue of the first item that names a task; no item names one.";
        return Err(ApiError::invalid_field("claim", message).into());
    };
    let claimed = app.claim(&shard, wish, &connection, handled).await?;
    Ok(with_tasks(&app, &connection, &shard, batch.results, claimed))
}

fn with_tasks(
    app: &App,
    connection: &Connection,
    shard: &ShardHandle,
    results: Vec<ItemResult>,
    claimed: Claimed,
) -> Response {
    let tasks = claimed.tasks.iter().map(|task| TaskView::held(shard.info.name.as_str(), task)).collect();
    let response = json(StatusCode::OK, &BatchResults { results, tasks: Some(tasks) });
    claimed.hand_out(app, connection);
    response
}

/// Report up to 1,000 failed attempts.
#[utoipa::path(
    post, path = "/v1/leases/fail", tag = "work", request_body = BatchRequest,
    responses((status = 200, description = "Results by index", body = BatchResults))
)]
pub async fn fail_batch(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    body: RawBody,
) -> Answered {
    plain_batch::<FailRequest<'_>>(&app, &caller, body.parse()?).await
}

/// Give up to 1,000 tasks back.
#[utoipa::path(
    post, path = "/v1/leases/release", tag = "work", request_body = BatchRequest,
    responses((status = 200, description = "Results by index", body = BatchResults))
)]
pub async fn release_batch(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    body: RawBody,
) -> Answered {
    plain_batch::<ReleaseRequest<'_>>(&app, &caller, body.parse()?).await
}

/// Keep up to 1,000 leases.
#[utoipa::path(
    post, path = "/v1/leases/heartbeat", tag = "work", request_body = BatchRequest,
    responses((status = 200, description = "Results by index", body = BatchResults))
)]
pub async fn heartbeat_batch(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    body: RawBody,
) -> Answered {
    plain_batch::<HeartbeatRequest<'_>>(&app, &caller, body.parse()?).await
}

async fn plain_batch<'a, R>(app: &App, caller: &Caller, request: BatchRequest<'a>) -> Answered
where
    R: Act + serde::Deserialize<'a>,
{
    if request.claim.is_some() {
        let message = "Only `/v1/leases/complete` takes `claim`.";
        return Err(ApiError::new(ErrorCode::UnknownField, message).with("field", "claim").into());
    }
    let batch = batch::<R>(app, caller, &request).await?;
    Ok(json(StatusCode::OK, &BatchResults { results: batch.results, tasks: None }))
}

struct Batch {
    results: Vec<ItemResult>,
    first_shard: Option<Arc<ShardHandle>>,
}

/// Operations of one shard and the items they answer.
#[derive(Default)]
struct Group {
    ops: Vec<WorkOp>,
    indexes: Vec<usize>,
}

/// One store call for each shard that the items name.
async fn batch<'a, R>(app: &App, caller: &Caller, request: &BatchRequest<'a>) -> Result<Batch, ApiError>
where
    R: Act + serde::Deserialize<'a>,
{
    request.check_size()?;
    let mut results: Vec<Result<ItemResult, ApiError>> = Vec::with_capacity(request.items.len());
    let mut groups: Vec<(Arc<ShardHandle>, Group)> = Vec::new();
    let mut places = HashMap::new();
    for (index, raw) in request.items.iter().enumerate() {
        match prepare::<R>(app, caller, raw.get()).await {
            Ok((shard, op)) => {
                let place = *places.entry(shard.shard()).or_insert_with(|| {
                    groups.push((shard, Group::default()));
                    groups.len() - 1
                });
                if let Some((_, group)) = groups.get_mut(place) {
                    group.ops.push(op);
                    group.indexes.push(index);
                }
                results.push(Ok(ItemResult::Done(Empty {})));
            }
            Err(error) => results.push(Err(error)),
        }
    }
    let first_shard = groups.first().map(|(shard, _)| Arc::clone(shard));
    for (shard, Group { ops, indexes }) in groups {
        // A shard whose call fails answers its own items; those of other shards have their own fate.
        let answers = match app.act(&shard, ops).await {
            Ok(answers) => answers.into_iter().map(|result| item(result, app.draining())).collect::<Vec<_>>(),
            Err(error) => indexes.iter().map(|_| Err(error.clone())).collect(),
        };
        for (index, answer) in indexes.into_iter().zip(answers) {
            if let Some(slot) = results.get_mut(index) {
                *slot = answer;
            }
        }
    }
    let results =
        results.into_iter().map(|r| r.unwrap_or_else(|error| ItemResult::Refused(error.envelope())));
    Ok(Batch { results: results.collect(), first_shard })
}

async fn prepare<'a, R>(
    app: &App,
    caller: &Caller,
    raw: &'a str,
) -> Result<(Arc<ShardHandle>, WorkOp), ApiError>
where
    R: Act + serde::Deserialize<'a>,
{
    let request: R = brisq_api::parse(raw.as_bytes())?;
    let id =
        request.id().ok_or_else(|| ApiError::invalid_field("id", "An item has the `id` of its task."))?;
    let id = task_id(id)?;
    let shard = app.queue_of(caller, id).await?;
    let op = request.op(id, lease_token(request.token())?)?;
    Ok((shard, op))
}
