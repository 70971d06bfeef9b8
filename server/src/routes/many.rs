//! Many tasks of a queue: lists, purges and redrives.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use brisq_api::{
    ApiError, ErrorEnvelope, PurgeRequest, PurgeView, RedriveRequest, RedriveView, TaskList, TaskView,
    task_state,
};
use brisq_model::{TaskState, limits};
use brisq_store::Parts;
use hyper::StatusCode;
use serde::Deserialize;

use super::Call;
use super::queues::not_found;
use crate::answers::{encoded, json, respond};
use crate::auth::Caller;
use crate::budget::Full;
use crate::cursor::Cursor;
use crate::error::{HandlerResult, noted, overloaded};
use crate::shard::{ShardHandle, weight};
use crate::state::{App, AppState};

/// Which page of a queue's tasks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListQuery {
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
    payload: Option<bool>,
}

impl ListQuery {
    /// Where the page begins, and whether it goes on to the next state.
    fn place(&self) -> Result<(Cursor, bool), ApiError> {
        let state = self.state.as_deref().map(|name| task_state("state", name)).transpose()?;
        let first = Cursor { state: state.unwrap_or(TaskState::Delayed), after: None };
        let from = self.cursor.as_deref().map_or(Ok(first), Cursor::read)?;
        if state.is_some_and(|state| state != from.state) {
            let message =
                "`cursor` is of a list of another state. Begin without a cursor, or keep the state.";
            return Err(ApiError::invalid_field("cursor", message));
        }
        Ok((from, state.is_none()))
    }
}

/// The tasks of a queue, a page at a time: ready ones in line order, delayed ones by due time, leased ones by the end of the
/// lease, and those that have ended by the end of their retention, the last one first.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/tasks", tag = "queues",
    params(
        ("queue" = String, Path, description = "Queue"),
        ("state" = Option<String>, Query, description = "Only tasks in this state; all states, one after the other, when absent"),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before; the first page when absent"),
        ("limit" = Option<usize>, Query, description = "Tasks of the page, 1 to 1,000; 100 when absent", minimum = 1, maximum = 1_000),
        ("payload" = Option<bool>, Query, description = "With payload and progress, and then at most 16 MiB a page; false when absent"),
    ),
    responses(
        (status = 200, description = "A page may have fewer tasks than asked for; the last one has no `nextCursor`", body = TaskList),
        (status = 400, description = "`invalid_field`", body = ErrorEnvelope),
        (status = 404, description = "`queue_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(queue): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> HandlerResult {
    let wrong = |_| {
        ApiError::invalid_field(
            "query",
            "The query takes `state`, `cursor`, `limit` (a number) and `payload` (true or false).",
        )
    };
    let Query(query) = query.map_err(wrong)?;
    let limit = query.limit.unwrap_or(limits::LIST_DEFAULT_TASKS);
    if !(1..=limits::LIST_MAX_TASKS).contains(&limit) {
        let message = format!("`limit` is 1 to {}.", limits::LIST_MAX_TASKS);
        return Err(ApiError::invalid_field("limit", message).into());
    }
    let (from, all) = query.place()?;
    let parts = if query.payload == Some(true) { Parts::Whole } else { Parts::Attempts };
    let shard = app.existing(&caller, &queue).await?;
    // Held from before the store is asked: a page may be as large as the answer to a claim.
    let room = app.answers.try_take(limits::CLAIM_MAX_BYTES).ok_or_else(|| overloaded(Full::Answers))?;
    let (tasks, next) = app.list(&shard, from, all, limit, parts).await?;
    let view = |task| match TaskView::of(shard.info.name.as_str(), task) {
        view if parts == Parts::Whole => view,
        view => TaskView { payload: None, ..view },
    };
    let list = TaskList { tasks: tasks.iter().map(view).collect(), next_cursor: next.map(Cursor::text) };
    let json = encoded(&list, tasks.iter().map(weight).sum())?;
    Ok(respond(StatusCode::OK, json, Some(room)))
}

/// Take the tasks away that are in some states, with all that is known of them. Those that come meanwhile stay. Workers that hold
/// one are asked to stop, and it is counted in `matched`.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/purge", tag = "queues",
    params(("queue" = String, Path, description = "Queue")), request_body = PurgeRequest,
    responses(
        (status = 200, description = "How many there were, and how many are gone", body = PurgeView),
        (status = 400, description = "`invalid_field`", body = ErrorEnvelope),
        (status = 404, description = "`queue_not_found`", body = ErrorEnvelope),
        (status = 503, description = "`store_unavailable`: what is gone stays gone, and a repeat goes on", body = ErrorEnvelope),
    )
)]
pub async fn purge(Path(queue): Path<String>, call: Call) -> HandlerResult {
    let request = call.body.parse::<PurgeRequest>()?;
    let states = request.checked_states()?;
    let shard = call.app.existing(&call.caller, &queue).await?;
    let view: PurgeView = call.app.purge(&shard, states, request.dry_run).await?;
    tracing::info!(queue = %shard.info.name, by = call.caller.name, matched = view.matched, purged = view.purged, dry_run = request.dry_run, "a purge");
    Ok(json(StatusCode::OK, &view))
}

/// Make dead letters tasks again, at the end of the line, with attempts anew; the errors of their attempts stay.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/redrive", tag = "queues",
    params(("queue" = String, Path, description = "Queue")), request_body = RedriveRequest,
    responses(
        (status = 200, description = "How many match, and how many are tasks again", body = RedriveView),
        (status = 400, description = "`invalid_field`", body = ErrorEnvelope),
        (status = 404, description = "`queue_not_found`", body = ErrorEnvelope),
        (status = 503, description = "`store_unavailable`: what came back stays, and a repeat goes on", body = ErrorEnvelope),
    )
)]
pub async fn redrive(Path(queue): Path<String>, call: Call) -> HandlerResult {
    let redrive = call.body.parse::<RedriveRequest<'_>>()?.checked()?;
    let Call { app, caller, body, .. } = call;
    drop(body);
    let shard = app.existing(&caller, &queue).await?;
    let view = app.redrive(&shard, &redrive).await?;
    Ok(json(StatusCode::OK, &view))
}

impl AppState {
    /// The caller's queue of this name, which the store has.
    ///
    /// # Errors
    /// When it was never used, is not the caller's, or the store does not answer.
    pub async fn existing(&self, caller: &Caller, queue: &str) -> Result<Arc<ShardHandle>, ApiError> {
        let queue = self.queue(caller, queue)?;
        self.queues.find(&queue).await.map_err(noted)?.ok_or_else(|| not_found(&queue))
    }
}
