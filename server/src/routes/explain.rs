//! Why tasks and queues are where they are.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use brisq_api::{ErrorEnvelope, Events, ExplainView, task_id};
use brisq_model::{Task, TaskId, TaskState};
use brisq_store::Parts;
use hyper::StatusCode;

use crate::answers::{counted, json};
use crate::auth::Caller;
use crate::cursor::Cursor;
use crate::error::{HandlerResult, noted};
use crate::explain::{self, Around};
use crate::shard::{ShardHandle, weight};
use crate::state::{App, AppState};

/// Why a task is where it is: the one reason that explains most, with what it is concluded from, and what to do.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/explain", tag = "tasks",
    params(("id" = String, Path, description = "Task")),
    responses(
        (status = 200, description = "The reason", body = ExplainView),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn task(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> HandlerResult {
    let id = task_id(&id)?;
    let shard = app.queue_of(&caller, id).await?;
    let task = app.kept_task(id).await?;
    let around = app.around(&shard, Some(&task)).await?;
    Ok(json(StatusCode::OK, &explain::task(&task, &around)))
}

/// What happened to a task, oldest first.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/events", tag = "tasks",
    params(("id" = String, Path, description = "Task")),
    responses(
        (status = 200, description = "Its events", body = Events),
        (status = 404, description = "`task_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn events(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> HandlerResult {
    let id = task_id(&id)?;
    app.queue_of(&caller, id).await?;
    let task = app.kept_task(id).await?;
    let events = Events { events: explain::events(&task) };
    counted(&app.answers, StatusCode::OK, &events, weight(&task))
}

/// Why the first task of a queue is where it is.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/explain", tag = "queues",
    params(("queue" = String, Path, description = "Queue")),
    responses(
        (status = 200, description = "The reason", body = ExplainView),
        (status = 404, description = "`queue_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn queue(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(queue): Path<String>,
) -> HandlerResult {
    let shard = app.existing(&caller, &queue).await?;
    let first = app.first_task(&shard).await?;
    let around = app.around(&shard, first.as_ref()).await?;
    Ok(json(StatusCode::OK, &explain::queue(first.as_ref(), &around)))
}

impl AppState {
    /// The task, if it is kept.
    ///
    /// # Errors
    /// When it is not, or the store does not answer.
    pub async fn kept_task(&self, id: TaskId) -> Result<Task, brisq_api::ApiError> {
        self.store.get(id).await.map_err(noted)?.ok_or_else(brisq_api::ApiError::task_not_found)
    }

    async fn around(&self, shard: &ShardHandle, task: Option<&Task>) -> Result<Around, brisq_api::ApiError> {
        let waits = task.filter(|task| matches!(task.state, TaskState::Ready | TaskState::Blocked));
        let standing = match waits {
            Some(task) => self.store.standing(task.id).await.map_err(noted)?,
            None => None,
        };
        let counts = self.store.counts(&[shard.shard()]).await.map_err(noted)?;
        let counts = counts.into_iter().next().unwrap_or_default();
        Ok(Around {
            counts,
            before: standing.as_ref().map(|standing| standing.before),
            barrier: standing.and_then(|standing| standing.barrier),
            waiting: shard.parking().waiting() as u64,
        })
    }

    /// The first task in line, or, where none is ready, the first that a gate holds back, whose lease ends or that is due.
    async fn first_task(&self, shard: &ShardHandle) -> Result<Option<Task>, brisq_api::ApiError> {
        for state in [TaskState::Ready, TaskState::Blocked, TaskState::Leased, TaskState::Delayed] {
            let from = Cursor { state, after: None };
            let (tasks, _) = self.list(shard, from, false, 1, Parts::Attempts).await?;
            if let Some(first) = tasks.into_iter().next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }
}
