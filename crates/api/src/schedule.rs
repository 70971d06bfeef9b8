//! Schedules: tasks that are enqueued by the clock.

use std::borrow::Cow;

use brisq_model::{QueueName, ScheduleName, TaskId, UnixMs, limits};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::read::{Fields, Request, object};
use crate::{AnyJson, ApiError, ErrorCode, TaskRequest, parse_rfc3339};

/// What happens at a tick while the task of the tick before has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// Another one is enqueued.
    #[default]
    Allow,
    /// The tick is left out.
    Skip,
}

/// What becomes of ticks that no server was there for: more than a minute late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are left out.
    #[default]
    Skip,
    /// The last of them is made good.
    One,
    /// Each of them is made good, the oldest first.
    All,
}

/// Body of a schedule.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleRequest<'a> {
    /// Where its tasks go; made by the first of them.
    #[schema(value_type = String)]
    pub queue: Cow<'a, str>,
    /// Minute, hour, day of the month, month and day of the week, such as `*/15 8-18 * * MON-FRI`, or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`. Where both days are given either is enough. `L` is the last day, `15W` the weekday next to the 15th,
    /// `MON#1` the first Monday. At most 256 bytes.
    #[schema(value_type = String)]
    pub cron: Cow<'a, str>,
    /// IANA name of the time zone of `cron`; `UTC` when absent. A time of day that a clock change leaves out fires when the gap ends;
    /// one that comes twice fires the first time. What is said by `*`, a range or a list of hours fires through both.
    #[schema(value_type = Option<String>)]
    pub time_zone: Option<Cow<'a, str>>,
    /// The task, as an enqueue takes it, without `runAt` and without `idempotencyKey`: each tick becomes one task.
    #[schema(value_type = TaskRequest)]
    pub task: Option<&'a RawValue>,
    /// `allow` (default) or `skip`.
    #[schema(value_type = Option<Overlap>)]
    pub overlap: Option<Cow<'a, str>>,
    /// `skip` (default), `one` or `all`.
    #[schema(value_type = Option<Missed>)]
    pub missed: Option<Cow<'a, str>>,
    /// No tick before this time, RFC 3339.
    #[schema(value_type = Option<String>)]
    pub start_at: Option<Cow<'a, str>>,
    /// No tick after this time, RFC 3339.
    #[schema(value_type = Option<String>)]
    pub end_at: Option<Cow<'a, str>>,
    /// Whether it rests. Ticks of that time are not made good. False when absent.
    #[schema(value_type = Option<bool>)]
    pub paused: bool,
}

impl<'a> Request<'a> for ScheduleRequest<'a> {
    const FIELDS: &'static [&'static str] =
        &["queue", "cron", "timeZone", "task", "overlap", "missed", "startAt", "endAt", "paused"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        Ok(Self {
            queue: fields.needed_text("queue")?,
            cron: fields.needed_text("cron")?,
            time_zone: fields.text("timeZone")?,
            task: fields.raw("task"),
            overlap: fields.text("overlap")?,
            missed: fields.text("missed")?,
            start_at: fields.text("startAt")?,
            end_at: fields.text("endAt")?,
            paused: fields.truth("paused")?.unwrap_or(false),
        })
    }
}

/// A schedule whose fields are checked, but for what needs a calendar: `cron` and `time_zone`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    pub queue: String,
    pub cron: String,
    pub time_zone: String,
    /// The task as it was sent.
    pub task: Box<RawValue>,
    pub overlap: Overlap,
    pub missed: Missed,
    /// Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<u64>,
    #[serde(default)]
    pub paused: bool,
}

impl ScheduleRequest<'_> {
    /// Checks every field. The task is checked as of `now`, the id of one that is enqueued at once.
    ///
    /// # Errors
    /// The first field that is wrong, with its bound.
    pub fn into_spec(self, now: TaskId) -> Result<ScheduleSpec, ApiError> {
        let queue = QueueName::new(&self.queue);
        queue.map_err(|error| ApiError::invalid_field("queue", error.to_string()))?;
        let task = self.task.ok_or_else(|| ApiError::invalid_field("task", "A schedule has a `task`."))?;
        scheduled_task(task)?.into_task(now).map_err(of_task)?;
        let (start_at, end_at) = (time("startAt", self.start_at)?, time("endAt", self.end_at)?);
        if let (Some(start), Some(end)) = (start_at, end_at)
            && end < start
        {
            return Err(ApiError::invalid_field(
                "endAt",
                "`endAt` lies before `startAt`: nothing would ever fire.",
            ));
        }
        Ok(ScheduleSpec {
            queue: self.queue.into_owned(),
            cron: self.cron.into_owned(),
            time_zone: self.time_zone.map_or_else(|| "UTC".to_owned(), Cow::into_owned),
            task: task.to_owned(),
            overlap: one_of("overlap", self.overlap, &[("allow", Overlap::Allow), ("skip", Overlap::Skip)])?,
            missed: one_of(
                "missed",
                self.missed,
                &[("skip", Missed::Skip), ("one", Missed::One), ("all", Missed::All)],
            )?,
            start_at: start_at.map(|at| at.0),
            end_at: end_at.map(|at| at.0),
            paused: self.paused,
        })
    }
}

/// The task of a schedule, out of its JSON.
///
/// # Errors
/// What reading it says, and a field that a schedule has no use for.
pub fn scheduled_task(raw: &RawValue) -> Result<TaskRequest<'_>, ApiError> {
    let task: TaskRequest<'_> = object("task", raw)?;
    let TaskRequest { run_at, idempotency_key, idempotency, idempotency_ttl_ms, .. } = &task;
    for (field, given, why) in [
        ("runAt", run_at.is_some(), "the schedule says when"),
        ("idempotencyKey", idempotency_key.is_some(), "each tick becomes one task by itself"),
        ("idempotency", idempotency.is_some(), "each tick becomes one task by itself"),
        ("idempotencyTtlMs", idempotency_ttl_ms.is_some(), "each tick becomes one task by itself"),
    ] {
        if given {
            let message = format!("The task of a schedule has no `{field}`: {why}. Leave it out.");
            return Err(ApiError::invalid_field(format!("task.{field}"), message));
        }
    }
    Ok(task)
}

/// A mistake in the task's fields, named as the schedule's.
fn of_task(mut error: ApiError) -> ApiError {
    for (name, value) in &mut error.detail {
        if *name == "field" {
            *value = format!("task.{value}");
        }
    }
    error
}

fn time(field: &str, asked: Option<Cow<'_, str>>) -> Result<Option<UnixMs>, ApiError> {
    let read = |text: Cow<'_, str>| {
        parse_rfc3339(&text).ok_or_else(|| {
            let message = format!("`{field}` is a time such as 2026-11-23T13:05:09.042Z (RFC 3339).");
            ApiError::invalid_field(field, message).with("value", text)
        })
    };
    asked.map(read).transpose()
}

fn one_of<T: Copy + Default>(
    field: &str,
    asked: Option<Cow<'_, str>>,
    words: &[(&str, T)],
) -> Result<T, ApiError> {
    let Some(asked) = asked else { return Ok(T::default()) };
    let found = words.iter().find(|(word, _)| *word == asked).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        ApiError::invalid_field(field, format!("`{field}` is one of {}.", words.join(", ")))
            .with("value", asked)
    })
}

/// A schedule's name.
///
/// # Errors
/// When it is none.
pub fn schedule_name(text: &str) -> Result<ScheduleName, ApiError> {
    ScheduleName::new(text)
        .map_err(|error| ApiError::new(ErrorCode::InvalidName, format!("`{text}` is no name: {error}.")))
}

/// What a schedule may be too large for.
#[must_use]
pub fn schedule_too_large(bytes: usize) -> ApiError {
    let most = limits::SCHEDULE_MAX_BYTES;
    let message = format!(
        "A schedule has at most {most} bytes; store large data elsewhere and have the task carry a reference."
    );
    ApiError::new(ErrorCode::PayloadTooLarge, message).with("bytes", bytes)
}

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where its tasks go.
    pub queue: &'a str,
    /// When they come.
    pub cron: &'a str,
    /// Time zone of `cron`.
    pub time_zone: &'a str,
    /// The task as it was sent.
    #[schema(value_type = AnyJson)]
    pub task: &'a RawValue,
    pub overlap: Overlap,
    pub missed: Missed,
    /// No tick before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<String>,
    /// No tick after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_at: Option<String>,
    /// Whether it rests.
    pub paused: bool,
    /// The next tick; left out when there is none: it rests, or has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// The last tick that became a task, or when it was triggered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_at: Option<String>,
    /// That task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_task_id: Option<&'a str>,
    /// The last tick that became none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_skipped: Option<SkippedView<'a>>,
}

/// A tick that became no task.
#[derive(Debug, Serialize, ToSchema)]
pub struct SkippedView<'a> {
    /// The tick.
    pub at: String,
    /// `overlap`: the task before had not ended; `missed`: no server was there for it; `refused`: the queue did not take it.
    pub reason: &'a str,
    /// What the queue said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

/// A page of the tenant's schedules, by name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleList<'a> {
    /// Those of the page whose queue the token covers.
    pub schedules: Vec<ScheduleView<'a>>,
    /// `cursor` of the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use brisq_model::{QueueNumber, Shard};

    use super::*;

    fn spec(body: &str) -> Result<ScheduleSpec, ApiError> {
        let now = TaskId::new(1_700_000_000_000, Shard::first(QueueNumber::new(1).unwrap()), 0);
        crate::parse::<ScheduleRequest<'_>>(body.as_bytes())?.into_spec(now)
    }

    #[test]
    fn what_is_absent_takes_its_default_and_the_task_comes_back_as_it_was() {
        let spec = spec(r#"{"queue":"q","cron":"@daily","task":{"payload": [1,  2] }}"#).unwrap();
        assert_eq!((spec.overlap, spec.missed, spec.paused), (Overlap::Allow, Missed::Skip, false));
        assert_eq!((spec.time_zone.as_str(), spec.task.get()), ("UTC", r#"{"payload": [1,  2] }"#));
    }

    #[test]
    fn each_mistake_names_its_field() {
        let of = |more: &str| format!(r#"{{"queue":"q","cron":"@daily","task":{{"payload":1}},{more}}}"#);
        let task = |task: &str| format!(r#"{{"queue":"q","cron":"@daily","task":{task}}}"#);
        for (body, field, part) in [
            (r#"{"cron":"@daily","task":{"payload":1}}"#.to_owned(), "queue", "missing"),
            (r#"{"queue":"q","task":{"payload":1}}"#.to_owned(), "cron", "missing"),
            (r#"{"queue":"q","cron":"@daily"}"#.to_owned(), "task", "has a `task`"),
            (r#"{"queue":"-q","cron":"@daily","task":{"payload":1}}"#.to_owned(), "queue", "1 to 80"),
            (task("{}"), "task.payload", "payload"),
            (task(r#"{"payload":1,"priority":10}"#), "task.priority", "0 to 9"),
            (task(r#"{"payload":1,"prioritet":1}"#), "task.prioritet", "prioritet"),
            (task(r#"{"payload":1,"runAt":"2026-11-23T13:05:09Z"}"#), "task.runAt", "the schedule says when"),
            (task(r#"{"payload":1,"idempotencyKey":"k"}"#), "task.idempotencyKey", "each tick"),
            (task(r#"{"payload":1,"idempotencyTtlMs":5}"#), "task.idempotencyTtlMs", "each tick"),
            (of(r#""overlap":"queue""#), "overlap", "allow, skip"),
            (of(r#""missed":"none""#), "missed", "skip, one, all"),
            (of(r#""startAt":"tomorrow""#), "startAt", "RFC 3339"),
            (
                of(r#""startAt":"2026-11-23T13:05:09Z","endAt":"2026-11-23T13:05:08Z""#),
                "endAt",
                "before `startAt`",
            ),
            (of(r#""paused":"yes""#), "paused", "true or false"),
        ] {
            let error = spec(&body).unwrap_err();
            assert_eq!(error.envelope().error.detail["field"], field, "{body}");
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
    }
}
