//! Looks for schedules whose tick has come, and fires them.

use std::sync::Arc;
use std::time::Duration;

use brisq_api::{ApiError, ErrorCode, Overlap};
use brisq_model::{Moment, TenantName, Tick, UnixMs, limits};
use brisq_store::{DueSchedules, Schedule, StoreError};
use futures_util::StreamExt as _;
use futures_util::stream;
use rand::RngExt;

use super::calendar::Calendar;
use super::kept::Kept;
use super::plan;
use crate::state::{App, AppState};

/// Longest time between two looks: another server may have been given an earlier tick, and have died.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Servers that share a store look at different moments after a tick, so that the first has fired it before the others come.
const JITTER: Duration = Duration::from_millis(250);
/// After a look that failed, or found schedules that could not be fired.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// Schedules that are fired at a time.
const FIRED_AT_A_TIME: usize = 16;
/// Bytes that are kept of why a queue refused a task.
const MESSAGE_MAX_BYTES: usize = 256;

/// Fires schedules until the server shuts down.
pub async fn run(app: App) {
    loop {
        let pause = match app.store.due_schedules(limits::SCHEDULES_DUE_MAX).await {
            Ok(due) if due.due.is_empty() => until_next(&due),
            Ok(due) => {
                if app.fire_all(due).await {
                    Duration::ZERO
                } else {
                    TROUBLE_PAUSE
                }
            }
            Err(error) => {
                tracing::warn!(%error, "schedules could not be looked for");
                TROUBLE_PAUSE
            }
        };
        tokio::select! {
            () = app.drain_begins() => return,
            () = tokio::time::sleep(pause) => {}
            // A tick that a caller has just set is looked for at once, one that came since the look included.
            () = app.schedules.changed.notified(), if pause > TROUBLE_PAUSE => {}
        }
    }
}

/// How long nothing comes, as far as the store knows.
fn until_next(due: &DueSchedules) -> Duration {
    let next = due.next_at.map(|at| Duration::from_millis(at.ms_since(due.wall)));
    let jitter = rand::rng().random_range(Duration::ZERO..JITTER);
    next.map_or(LOOK_EVERY, |next| next.min(LOOK_EVERY)) + jitter
}

impl AppState {
    /// Fires what is due. Whether all of it was seen to.
    async fn fire_all(self: &Arc<Self>, due: DueSchedules) -> bool {
        let wall = due.wall;
        let fired = stream::iter(due.due).map(|(tenant, schedule)| self.fire(tenant, schedule, wall));
        // Each is driven to its end, whatever became of the others.
        fired.buffer_unordered(FIRED_AT_A_TIME).fold(true, async |all, seen_to| all & seen_to).await
    }

    /// Fires the ticks of a schedule that have come. Whether it was seen to: else it is still due.
    async fn fire(&self, tenant: TenantName, schedule: Schedule, wall: UnixMs) -> bool {
        let Some(due) = schedule.next_at else { return true };
        let read = Kept::of(&schedule).map_err(|error| error.to_string()).and_then(|kept| {
            let calendar =
                Calendar::of(&kept.spec.cron, &kept.spec.time_zone).map_err(|error| error.message)?;
            Ok((kept, calendar))
        });
        let after = match read {
            Ok((mut kept, calendar)) => {
                let next_at = self.fire_ticks(&tenant, &schedule, &mut kept, &calendar, (due, wall)).await;
                if next_at == Some(due) {
                    return false;
                }
                kept.schedule(&schedule.name, next_at)
            }
            Err(error) => {
                tracing::error!(schedule = %schedule.name, error, "a schedule is not understood, and rests");
                Schedule { next_at: None, ..schedule.clone() }
            }
        };
        let changed =
            self.store.change_schedule(&tenant, &schedule.name, Some(schedule.version), Some(after)).await;
        match changed {
            // Another server was faster, or somebody has changed it: what is due now is found by the next look.
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(schedule = %schedule.name, %error, "a schedule's next tick could not be written");
                false
            }
        }
    }

    /// Fires ticks, and answers the next one: the first that could not be fired, where one could not.
    async fn fire_ticks(
        &self,
        tenant: &TenantName,
        schedule: &Schedule,
        kept: &mut Kept,
        calendar: &Calendar,
        (due, wall): (UnixMs, UnixMs),
    ) -> Option<UnixMs> {
        let plan = plan::at(&kept.spec, calendar, due, wall);
        if let Some(missed) = plan.missed {
            tracing::warn!(schedule = %schedule.name, last = missed.0, "ticks of a schedule were missed");
            kept.skipped(missed, "missed", None);
        }
        for at in plan.fire {
            match self.overlaps(kept).await {
                Ok(false) => {}
                Ok(true) => {
                    self.metrics.schedule_ticks_skipped.inc();
                    kept.skipped(at, "overlap", None);
                    continue;
                }
                Err(_) => return Some(at),
            }
            let moment = Moment { made_at: UnixMs(kept.made_at), at };
            let tick = Tick { schedule: schedule.name.clone(), moment };
            match self.enqueue_scheduled(tenant, kept, Some(tick)).await {
                Ok(task) => {
                    self.metrics.schedule_ticks_fired.inc();
                    kept.fired(at, task);
                }
                Err(error) if is_passing(&error) => return Some(at),
                Err(error) => {
                    let ApiError { code, message, .. } = error;
                    tracing::error!(schedule = %schedule.name, code = code.as_str(), message, "a tick was refused");
                    self.metrics.schedule_ticks_skipped.inc();
                    let end = message.floor_char_boundary(MESSAGE_MAX_BYTES);
                    kept.skipped(at, "refused", message.get(..end).map(str::to_owned));
                }
            }
        }
        plan.next_at
    }

    /// Whether the task of the tick before has not ended, where that matters.
    async fn overlaps(&self, kept: &Kept) -> Result<bool, StoreError> {
        let last = kept.last_task_id.as_deref().and_then(|id| brisq_api::task_id(id).ok());
        let Some(last) = last.filter(|_| kept.spec.overlap == Overlap::Skip) else { return Ok(false) };
        Ok(self.store.get(last).await?.is_some_and(|task| !task.state.is_final()))
    }
}

/// Whether the same enqueue may be taken a moment later.
fn is_passing(error: &ApiError) -> bool {
    !matches!(
        error.code,
        ErrorCode::TooManyQueues
            | ErrorCode::InvalidField
            | ErrorCode::PayloadTooLarge
            | ErrorCode::NotSupported
    )
}
