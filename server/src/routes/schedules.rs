//! Schedules.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use brisq_api::{Empty, ErrorEnvelope, ScheduleList, ScheduleRequest, ScheduleView, schedule_name};
use brisq_model::{QueueName, ScheduleName, UnixMs, limits};
use hyper::StatusCode;

use super::{Call, PageQuery};
use crate::answers::json;
use crate::auth::Caller;
use crate::error::{HandlerResult, noted};
use crate::schedules::{Kept, unplaced};
use crate::state::App;

/// The tenant's schedules whose queues the token covers, a page at a time.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules",
    params(
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before; the first page when absent"),
        ("limit" = Option<usize>, Query, description = "Schedules of the page, 1 to 100; 100 when absent", minimum = 1, maximum = 100),
    ),
    responses(
        (status = 200, description = "By name. A page may have fewer schedules than asked for; the last one has no `nextCursor`", body = ScheduleList),
        (status = 400, description = "`invalid_field`", body = ErrorEnvelope),
    )
)]
pub async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> HandlerResult {
    let (after, limit) = PageQuery::read(page, limits::SCHEDULES_LIST_MAX, ScheduleName::new)?;
    let found = app.store.schedules(&caller.tenant, after.as_ref(), limit).await.map_err(noted)?;
    // The cursor is of what was looked at, not of what the caller may see of it.
    let next_cursor = found.get(limit - 1).map(|last| last.name.to_string());
    let sees = |kept: &Kept| QueueName::new(&kept.spec.queue).is_ok_and(|queue| caller.sees(&queue));
    let kept: Vec<(ScheduleName, Option<UnixMs>, Kept)> = found
        .into_iter()
        // One that is damaged is told by the log, when it is due.
        .filter_map(|schedule| Some((Kept::of(&schedule).ok()?, schedule)))
        .filter(|(kept, _)| sees(kept))
        .map(|(kept, schedule)| (schedule.name, schedule.next_at, kept))
        .collect();
    let schedules = kept.iter().map(|(name, next_at, kept)| kept.view(name, *next_at)).collect();
    Ok(json(StatusCode::OK, &ScheduleList { schedules, next_cursor }))
}

/// One schedule: what it says, when it fires next, and what came of its last tick.
#[utoipa::path(
    get, path = "/v1/schedules/{name}", tag = "schedules",
    params(("name" = String, Path, description = "Schedule")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleView),
        (status = 404, description = "`schedule_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn get(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(name): Path<String>,
) -> HandlerResult {
    let name = schedule_name(&name)?;
    Ok(answer(&name, &app.schedule(&caller, &name).await?))
}

/// Make a schedule, or replace the one of this name. What is absent takes its default. Where nothing about its times is another, its
/// next tick stays; otherwise the first one after now is next, and no tick from before is made good. Each tick becomes one task,
/// however many servers there are and whichever of them die. A tenant has at most 1,000 schedules and 16 MiB of them; one has at
/// most 64 KiB.
#[utoipa::path(
    put, path = "/v1/schedules/{name}", tag = "schedules",
    params(("name" = String, Path, description = "Schedule: 1 to 80 characters, as a queue's name")),
    request_body = ScheduleRequest,
    responses(
        (status = 200, description = "The schedule", body = ScheduleView),
        (status = 400, description = "`invalid_field`, `invalid_name`; of `cron` the detail's `cronField` says which field is wrong", body = ErrorEnvelope),
        (status = 413, description = "`payload_too_large`", body = ErrorEnvelope),
        (status = 429, description = "`too_many_schedules`, `store_full`", body = ErrorEnvelope),
    )
)]
pub async fn put(Path(name): Path<String>, call: Call) -> HandlerResult {
    let name = schedule_name(&name)?;
    let spec = call.body.parse::<ScheduleRequest<'_>>()?.into_spec(unplaced())?;
    let Call { app, caller, body, .. } = call;
    drop(body);
    app.queue(&caller, &spec.queue)?;
    Ok(answer(&name, &app.put_schedule(&caller, &name, spec).await?))
}

/// Take a schedule away. Tasks that it has made stay.
#[utoipa::path(
    delete, path = "/v1/schedules/{name}", tag = "schedules",
    params(("name" = String, Path, description = "Schedule")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`schedule_not_found`", body = ErrorEnvelope),
    )
)]
pub async fn delete(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(name): Path<String>,
) -> HandlerResult {
    app.delete_schedule(&caller, &schedule_name(&name)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Enqueue the schedule's task now, also while it rests or the task before has not ended. Its ticks stay as they are.
#[utoipa::path(
    post, path = "/v1/schedules/{name}/trigger", tag = "schedules",
    params(("name" = String, Path, description = "Schedule")),
    responses(
        (status = 200, description = "The schedule; `lastTaskId` is the new task", body = ScheduleView),
        (status = 404, description = "`schedule_not_found`", body = ErrorEnvelope),
        (status = 429, description = "`store_full`, `overloaded`, `too_many_queues`", body = ErrorEnvelope),
    )
)]
pub async fn trigger(Path(name): Path<String>, call: Call) -> HandlerResult {
    call.body.parse::<Empty>()?;
    let name = schedule_name(&name)?;
    let Call { app, caller, body, .. } = call;
    drop(body);
    Ok(answer(&name, &app.trigger_schedule(&caller, &name).await?))
}

fn answer(name: &ScheduleName, (kept, next_at): &(Kept, Option<UnixMs>)) -> axum::response::Response {
    json::<ScheduleView<'_>>(StatusCode::OK, &kept.view(name, *next_at))
}
