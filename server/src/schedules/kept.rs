//! A schedule as the store keeps it: JSON that servers of other versions read as well.

use brisq_api::{ScheduleSpec, ScheduleView, SkippedView, rfc3339};
use brisq_model::{ScheduleName, TaskId, UnixMs};
use brisq_store::Schedule;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// What a schedule says, and what came of it. Times are Unix ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub spec: ScheduleSpec,
    pub made_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_task_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_skipped: Option<Skipped>,
}

/// A tick that became no task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    pub at: u64,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Kept {
    pub fn of(schedule: &Schedule) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&schedule.body)
    }

    /// As the store keeps it, under a version of its own.
    pub fn schedule(&self, name: &ScheduleName, next_at: Option<UnixMs>) -> Schedule {
        let body = serde_json::to_vec(self).expect("invariant: texts, numbers and JSON can be written");
        Schedule { name: name.clone(), version: rand::rng().random(), next_at, body: body.into() }
    }

    /// One that nothing has come of yet.
    pub fn new(spec: ScheduleSpec, made_at: UnixMs) -> Self {
        Self { spec, made_at: made_at.0, last_at: None, last_task_id: None, last_skipped: None }
    }

    pub fn fired(&mut self, at: UnixMs, task: TaskId) {
        self.last_at = Some(at.0);
        self.last_task_id = Some(task.to_string());
    }

    pub fn skipped(&mut self, at: UnixMs, reason: &str, message: Option<String>) {
        self.last_skipped = Some(Skipped { at: at.0, reason: reason.to_owned(), message });
    }

    pub fn view<'a>(&'a self, name: &'a ScheduleName, next_at: Option<UnixMs>) -> ScheduleView<'a> {
        let Self { spec, last_at, last_task_id, last_skipped, .. } = self;
        let time = |ms: Option<u64>| ms.map(|ms| rfc3339(UnixMs(ms)));
        ScheduleView {
            name: name.as_str(),
            queue: &spec.queue,
            cron: &spec.cron,
            time_zone: &spec.time_zone,
            task: &spec.task,
            overlap: spec.overlap,
            missed: spec.missed,
            start_at: time(spec.start_at),
            end_at: time(spec.end_at),
            paused: spec.paused,
            next_at: next_at.map(rfc3339),
            last_at: time(*last_at),
            last_task_id: last_task_id.as_deref(),
            last_skipped: last_skipped.as_ref().map(|skipped| SkippedView {
                at: rfc3339(UnixMs(skipped.at)),
                reason: &skipped.reason,
                message: skipped.message.as_deref(),
            }),
        }
    }
}
