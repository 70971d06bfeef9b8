//! Claiming, and acting on leases: one at a time or in batches.

use std::time::Duration;

use axum::Extension;
use axum::extract::{FromRequest, Path, Request, State};
use brisq_api::{
    ApiError, BatchRequest, BatchResults, ClaimRequest, ClaimResponse, ClaimsRequest, CompleteBatch,
    CompleteRequest, Empty, ErrorCode, ErrorEnvelope, FailRequest, FailResponse, HeartbeatRequest,
    HeartbeatResponse, ItemResult, LeaseRequest, ReleaseRequest, lease_token, rfc3339, task_id,
};
use brisq_model::{LeaseToken, TaskId};
use brisq_store::{FailOp, HeartbeatOp, WorkDone, WorkOp};
use hyper::StatusCode;
use rand::RngExt;
use serde_json::value::RawValue;

use super::Call;
use crate::answers::json;
use crate::connection::Connection;
use crate::error::HandlerResult;
use crate::extract::RawBody;
use crate::state::App;
use crate::work::{Acted, Batch, ClaimWish, Sources};

/// The paths of claims.
pub const CLAIMS_PATHS: [&str; 2] = ["/v1/queues/{queue}/claims", "/v1/claims"];

/// Claim tasks under a lease.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/claims", tag = "work",
    params(("queue" = String, Path, description = "Queue; one that was never used is waited for")),
    request_body = ClaimRequest,
    responses(
        (status = 200, description = "The tasks with their payloads and leases; empty when nothing came in `waitMs`", body = ClaimResponse),
        (status = "4XX", description = "Refused", body = ErrorEnvelope),
        (status = "5XX", description = "Not carried out, or not known: tasks claimed unseen come back when their lease ends", body = ErrorEnvelope),
    )
)]
pub async fn claim(Path(queue): Path<String>, call: Call) -> HandlerResult {
    let wish = wish(call.body.parse()?)?;
    let queue = call.app.queue(&call.caller, &queue)?;
    let Call { app, connection, handled, body, .. } = call;
    drop(body);
    let claimed = app.claim(&Sources::of(queue), wish, &connection, handled).await?;
    Ok(claimed.answer(&connection, None)?)
}

/// Claim tasks from several queues, and wait for all of them at once.
///
/// The queues are asked in the order of their names here or, when any has a weight, in an order drawn by the weights. A
/// claim that waits takes from the queue that wakes it.
#[utoipa::path(
    post, path = "/v1/claims", tag = "work", request_body = ClaimsRequest,
    responses(
        (status = 200, description = "At most `max` tasks from all queues together, each with its `queue`; empty when nothing came in `waitMs`", body = ClaimResponse),
        (status = 403, description = "`forbidden`: the token does not cover `detail.queue`", body = ErrorEnvelope),
        (status = "4XX", description = "Refused", body = ErrorEnvelope),
        (status = "5XX", description = "Not carried out, or not known: tasks claimed unseen come back when their lease ends", body = ErrorEnvelope),
    )
)]
pub async fn claims(call: Call) -> HandlerResult {
    let (choices, claim) = call.body.parse::<ClaimsRequest>()?.checked()?;
    let wish = wish(claim)?;
    let source = |(name, weight): (String, Option<u16>)| Ok((call.app.queue(&call.caller, &name)?, weight));
    let sources = choices.into_iter().map(source).collect::<Result<Vec<_>, ApiError>>()?;
    let Call { app, connection, handled, body, .. } = call;
    drop(body);
    let claimed = app.claim(&Sources::among(sources), wish, &connection, handled).await?;
    Ok(claimed.answer(&connection, None)?)
}

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
        let (result, used_cost) = (self.result()?, self.checked_cost()?);
        Ok(WorkOp::Complete { id, token, result, used_cost })
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
pub async fn complete(Path(id): Path<String>, call: Call) -> HandlerResult {
    let asked = single::<CompleteRequest<'_>>(&id, &call.body)?;
    act(call, asked).await
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
pub async fn fail(Path(id): Path<String>, call: Call) -> HandlerResult {
    let asked = single::<FailRequest<'_>>(&id, &call.body)?;
    act(call, asked).await
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
pub async fn release(Path(id): Path<String>, call: Call) -> HandlerResult {
    let asked = single::<ReleaseRequest<'_>>(&id, &call.body)?;
    act(call, asked).await
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
pub async fn heartbeat(Path(id): Path<String>, call: Call) -> HandlerResult {
    let asked = single::<HeartbeatRequest<'_>>(&id, &call.body)?;
    act(call, asked).await
}

/// The task of the path and the operation of the body.
fn single<'a, R>(id: &str, body: &'a RawBody) -> Result<(TaskId, WorkOp), ApiError>
where
    R: Act + brisq_api::Request<'a>,
{
    let request: R = body.parse()?;
    if request.id().is_some() {
        let message = "A single call has the task's id in its path; leave `id` out of the body.";
        return Err(ApiError::new(ErrorCode::UnknownField, message).with("field", "id"));
    }
    let id = task_id(id)?;
    Ok((id, request.op(id, lease_token(request.token())?)?))
}

async fn act(call: Call, (id, op): (TaskId, WorkOp)) -> HandlerResult {
    let Call { app, caller, body, .. } = call;
    drop(body);
    let acted = app.act(&caller, id, op).await;
    Ok(json(StatusCode::OK, &item(acted, app.draining())?))
}

/// What an act answers, alone or in a batch.
fn item(acted: Acted, draining: bool) -> Result<ItemResult, ApiError> {
    match acted? {
        WorkDone::Failed { state, next_attempt_at } => Ok(ItemResult::Failed(FailResponse {
            state: state.name(),
            next_attempt_at: next_attempt_at.map(rfc3339),
        })),
        WorkDone::Extended { expires_at, cancel_requested } => Ok(ItemResult::Extended(HeartbeatResponse {
            expires_at: rfc3339(expires_at),
            cancel_requested,
            draining,
        })),
        WorkDone::Completed
        | WorkDone::Released
        | WorkDone::Claimed(_)
        | WorkDone::Cancelled(_)
        | WorkDone::Paused
        | WorkDone::Purged(_)
        | WorkDone::Redriven(_)
        | WorkDone::Governed
        | WorkDone::Declared(_)
        | WorkDone::Resumed => Ok(ItemResult::Done(Empty {})),
    }
}

/// Complete up to 1,000 tasks; with `claim` also take the next ones, in one round trip.
#[utoipa::path(
    post, path = "/v1/leases/complete", tag = "work", request_body = CompleteBatch,
    responses((status = 200, description = "Results by index; and the tasks of `claim`, or in `error` why it took none", body = BatchResults))
)]
pub async fn complete_batch(
    State(app): State<App>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> HandlerResult {
    let carrying_out = connection.carry_out();
    let call = match Call::from_request(request, &app).await {
        Ok(call) => call,
        Err(refused) => return Ok(refused),
    };
    let handled = call.handled;
    let (wish, Batch { results, first }) = complete_all(call).await?;
    // The acts are carried out; whoever left gets no further tasks.
    drop(carrying_out);
    let results = items(results, app.draining());
    let Some(wish) = wish else {
        return Ok(json(StatusCode::OK, &BatchResults { results, tasks: None, error: None }));
    };
    let claimed = match first {
        Some(shard) => {
            let queue = app.queues.named(&shard.info.tenant, &shard.info.name);
            app.claim(&Sources::of(queue), wish, &connection, handled).await
        }
        None => {
            let message =
                "`claim` takes from the queue of the first item that names a task; no item names one.";
            Err(ApiError::invalid_field("claim", message))
        }
    };
    match claimed {
        Ok(claimed) => Ok(claimed.answer(&connection, Some(results))?),
        // The tasks are complete all the same, and the worker has to know.
        Err(error) => {
            let error = Some(error.envelope().error);
            Ok(json(StatusCode::OK, &BatchResults { results, tasks: None, error }))
        }
    }
}

async fn complete_all(call: Call) -> Result<(Option<ClaimWish>, Batch), ApiError> {
    let mut request: BatchRequest<'_> = call.body.parse()?;
    let wish = request.claim.take().map(wish).transpose()?;
    let asked = many::<CompleteRequest<'_>>(&request)?;
    let Call { app, caller, body, .. } = call;
    drop(body);
    Ok((wish, app.act_on_all(&caller, asked).await))
}

/// Report up to 1,000 failed attempts.
#[utoipa::path(
    post, path = "/v1/leases/fail", tag = "work", request_body = brisq_api::Batch<FailRequest>,
    responses((status = 200, description = "Results by index", body = BatchResults))
)]
pub async fn fail_batch(call: Call) -> HandlerResult {
    let asked = many_without_claim::<FailRequest<'_>>(&call.body)?;
    act_on_all(call, asked).await
}

/// Give up to 1,000 tasks back.
#[utoipa::path(
    post, path = "/v1/leases/release", tag = "work", request_body = brisq_api::Batch<ReleaseRequest>,
    responses((status = 200, description = "Results by index", body = BatchResults))
)]
pub async fn release_batch(call: Call) -> HandlerResult {
    let asked = many_without_claim::<ReleaseRequest<'_>>(&call.body)?;
    act_on_all(call, asked).await
}

/// Keep up to 1,000 leases.
#[utoipa::path(
    post, path = "/v1/leases/heartbeat", tag = "work", request_body = brisq_api::Batch<HeartbeatRequest>,
    responses((status = 200, description = "Results by index", body = BatchResults))
)]
pub async fn heartbeat_batch(call: Call) -> HandlerResult {
    let asked = many_without_claim::<HeartbeatRequest<'_>>(&call.body)?;
    act_on_all(call, asked).await
}

/// The items of a batch, each understood or refused alone.
type Asked = Vec<Result<(TaskId, WorkOp), ApiError>>;

fn many<'a, R>(request: &BatchRequest<'a>) -> Result<Asked, ApiError>
where
    R: Act + brisq_api::Request<'a>,
{
    let one = |raw: &'a RawValue| {
        let request: R = brisq_api::item(raw)?;
        let id = request.id();
        let id = id.ok_or_else(|| ApiError::invalid_field("id", "An item has the `id` of its task."))?;
        let id = task_id(id)?;
        Ok((id, request.op(id, lease_token(request.token())?)?))
    };
    Ok(request.items.iter().map(|raw| one(raw)).collect())
}

fn many_without_claim<'a, R>(body: &'a RawBody) -> Result<Asked, ApiError>
where
    R: Act + brisq_api::Request<'a>,
{
    let request: BatchRequest<'a> = body.parse()?;
    if request.claim.is_some() {
        let message = "Only `/v1/leases/complete` takes `claim`.";
        return Err(ApiError::new(ErrorCode::UnknownField, message).with("field", "claim"));
    }
    many::<R>(&request)
}

async fn act_on_all(call: Call, asked: Asked) -> HandlerResult {
    let Call { app, caller, body, .. } = call;
    drop(body);
    let Batch { results, .. } = app.act_on_all(&caller, asked).await;
    let results = items(results, app.draining());
    Ok(json(StatusCode::OK, &BatchResults { results, tasks: None, error: None }))
}

fn items(acted: Vec<Acted>, draining: bool) -> Vec<ItemResult> {
    let answered = |acted| item(acted, draining);
    let refused = |error: ApiError| ItemResult::Refused(error.envelope());
    acted.into_iter().map(answered).map(|item| item.unwrap_or_else(refused)).collect()
}
