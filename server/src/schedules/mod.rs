//! Schedules: tasks that the clock enqueues.
//!
//! Any server fires any schedule. A tick becomes a task by an enqueue that names it, and the queue remembers the last one of each
//! schedule; only then the schedule's next tick is written, by a server that still has the version which it read. So a server that
//! is killed or stopped anywhere between loses no tick and fires none twice.

mod calendar;
mod kept;
mod plan;
mod runner;
#[cfg(test)]
mod tests;

use brisq_api::{ApiError, ErrorCode, ScheduleSpec, schedule_too_large, scheduled_task};
use brisq_model::{NewTask, QueueName, QueueNumber, ScheduleName, Shard, TaskId, TenantName, UnixMs, limits};
use brisq_recorder::unix_ms;
use brisq_store::{Enqueued, Schedule, StoreError};
use tokio::sync::Notify;

use crate::auth::Caller;
use crate::error::{noted, refused};
use crate::state::AppState;
use calendar::Calendar;
pub use kept::Kept;
pub use runner::run;

/// Tries to change a schedule: each failed one means that another server changed it at that moment.
const TRIES_MAX: usize = 8;

/// Tells the runner of this server that a schedule may be due earlier than it knows.
#[derive(Debug, Default)]
pub struct Schedules {
    changed: Notify,
}

/// Id of a task that has no place yet: the core draws one in the queue's shard. Its time is now.
pub fn unplaced() -> TaskId {
    let number = QueueNumber::new(1).expect("invariant: numbers begin with 1");
    TaskId::new(unix_ms(), Shard::first(number), 0)
}

fn not_found(name: &ScheduleName) -> ApiError {
    ApiError::new(ErrorCode::ScheduleNotFound, "There is no schedule of this name. `PUT` makes one.")
        .with("schedule", name)
}

fn contended() -> ApiError {
    noted(StoreError::Unavailable("the schedule is changed by others all the time".to_owned()))
}

/// What a kept schedule says. Only damage makes it unreadable.
fn understood(schedule: &Schedule) -> Result<Kept, ApiError> {
    let damage =
        |error| StoreError::Corrupt(format!("the schedule {} is not understood: {error}", schedule.name));
    Kept::of(schedule).map_err(|error| noted(damage(error)))
}

/// Refuses a schedule whose queue the token does not cover.
fn check(caller: &Caller, kept: &Kept) -> Result<(), ApiError> {
    let queue = QueueName::new(&kept.spec.queue);
    queue.map_or(Ok(()), |queue| caller.check_queue(&queue))
}

impl AppState {
    /// The schedule and its next tick.
    ///
    /// # Errors
    /// When there is none, or the token does not cover its queue.
    pub async fn schedule(
        &self,
        caller: &Caller,
        name: &ScheduleName,
    ) -> Result<(Kept, Option<UnixMs>), ApiError> {
        let (schedule, _) = self.store.schedule(&caller.tenant, name).await.map_err(noted)?;
        let schedule = schedule.ok_or_else(|| not_found(name))?;
        let kept = understood(&schedule)?;
        check(caller, &kept)?;
        Ok((kept, schedule.next_at))
    }

    /// Makes a schedule, or puts it in the place of the one of its name. What came of that stays, and so does its next tick where
    /// nothing that is said about time is another.
    ///
    /// # Errors
    /// When what it says is wrong, or there is no room.
    pub async fn put_schedule(
        &self,
        caller: &Caller,
        name: &ScheduleName,
        spec: ScheduleSpec,
    ) -> Result<(Kept, Option<UnixMs>), ApiError> {
        let calendar = Calendar::of(&spec.cron, &spec.time_zone)?;
        for _ in 0..TRIES_MAX {
            let (before, wall) = self.store.schedule(&caller.tenant, name).await.map_err(noted)?;
            let version = before.as_ref().map(|before| before.version);
            let old = before.as_ref().map(understood).transpose()?;
            if let Some(old) = &old {
                check(caller, old)?;
            }
            let same = old.as_ref().is_some_and(|old| times_are_the_same(&old.spec, &spec));
            let next_at = match before.filter(|_| same) {
                Some(before) => before.next_at,
                None => plan::first(&spec, &calendar, wall),
            };
            if calendar.after(wall).is_none() {
                let message = "`cron` names no day that there is: it would never fire.";
                return Err(ApiError::invalid_field("cron", message).with("value", &spec.cron));
            }
            let new = match old {
                Some(old) if same => Kept { spec: spec.clone(), ..old },
                // Its ticks are others from now on, also where the clock was ahead before.
                Some(old) => {
                    let made_at = if old.made_at == wall.0 { wall.0 + 1 } else { wall.0 };
                    Kept { spec: spec.clone(), made_at, ..old }
                }
                None => Kept::new(spec.clone(), wall),
            };
            let schedule = new.schedule(name, next_at);
            if schedule.body.len() > limits::SCHEDULE_MAX_BYTES {
                return Err(schedule_too_large(schedule.body.len()));
            }
            if self.change_schedule(&caller.tenant, name, version, Some(schedule)).await? {
                return Ok((new, next_at));
            }
        }
        Err(contended())
    }

    /// Takes a schedule away. Tasks that it has made stay.
    ///
    /// # Errors
    /// When there is none, or the token does not cover its queue.
    pub async fn delete_schedule(&self, caller: &Caller, name: &ScheduleName) -> Result<(), ApiError> {
        for _ in 0..TRIES_MAX {
            let (schedule, _) = self.store.schedule(&caller.tenant, name).await.map_err(noted)?;
            let schedule = schedule.ok_or_else(|| not_found(name))?;
            // One that nobody understands can be taken away.
            if let Ok(kept) = Kept::of(&schedule) {
                check(caller, &kept)?;
            }
            if self.change_schedule(&caller.tenant, name, Some(schedule.version), None).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Enqueues the schedule's task now, whatever its ticks are.
    ///
    /// # Errors
    /// When there is none, the token does not cover its queue, or the queue does not take the task.
    pub async fn trigger_schedule(
        &self,
        caller: &Caller,
        name: &ScheduleName,
    ) -> Result<(Kept, Option<UnixMs>), ApiError> {
        let (kept, _) = self.schedule(caller, name).await?;
        let task = self.enqueue_scheduled(&caller.tenant, &kept, None).await?;
        for _ in 0..TRIES_MAX {
            let (schedule, wall) = self.store.schedule(&caller.tenant, name).await.map_err(noted)?;
            let Some(schedule) = schedule else { break };
            let mut kept = understood(&schedule)?;
            kept.fired(wall, task);
            let after = kept.schedule(name, schedule.next_at);
            if self.change_schedule(&caller.tenant, name, Some(schedule.version), Some(after)).await? {
                return Ok((kept, schedule.next_at));
            }
        }
        // It has fired, and was taken away or changed meanwhile.
        let mut kept = kept;
        kept.fired(UnixMs(unix_ms()), task);
        Ok((kept, None))
    }

    async fn change_schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        before: Option<u64>,
        after: Option<Schedule>,
    ) -> Result<bool, ApiError> {
        let changed = self.store.change_schedule(tenant, name, before, after).await.map_err(noted)?;
        self.schedules.changed.notify_one();
        Ok(changed)
    }

    /// Enqueues a schedule's task, for a tick of it or for none. Answers the task's id, also that of a task which the tick became
    /// before.
    async fn enqueue_scheduled(
        &self,
        tenant: &TenantName,
        kept: &Kept,
        tick: Option<brisq_model::Tick>,
    ) -> Result<TaskId, ApiError> {
        let queue = QueueName::new(&kept.spec.queue)
            .map_err(|error| ApiError::invalid_field("queue", error.to_string()))?;
        let task = scheduled_task(&kept.spec.task)?.into_task(unplaced())?;
        let task = NewTask { tick: tick.map(std::sync::Arc::new), ..task };
        let queue = self.queues.named(tenant, &queue);
        let (results, _) = self.enqueue(&queue, std::slice::from_ref(&task)).await?;
        let (id, result) = results.into_iter().next().ok_or_else(ApiError::broke_off)?;
        match result.map_err(refused)? {
            Enqueued::Created { .. } => Ok(id),
            Enqueued::Fired(before) => Ok(before),
            Enqueued::Replaced { id, .. } => Ok(id),
            Enqueued::Existing(task) => Ok(task.id),
        }
    }
}

/// Whether two say the same about when ticks come, and where they go: the queue is what remembers which have fired.
fn times_are_the_same(one: &ScheduleSpec, other: &ScheduleSpec) -> bool {
    fn times(spec: &ScheduleSpec) -> (&str, &str, &str, Option<u64>, Option<u64>, bool) {
        (&spec.queue, &spec.cron, &spec.time_zone, spec.start_at, spec.end_at, spec.paused)
    }
    times(one) == times(other)
}
