//! Enqueueing: what a producer may say of a task.

use std::borrow::Cow;

use brisq_model::{
    Backoff, Idempotency, IdempotencyKey, NewTask, Priority, RetentionWish, RetryPolicy, Start, TaskId,
    TaskKey, TaskKeys, limits,
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::raw::bytes_of;
use crate::read::{Fields, Request, batch};
use crate::value::within;
use crate::{AnyJson, ApiError, ErrorCode, parse_rfc3339};

/// Body of an enqueue: one task, or `tasks` with up to 1,000 of them. In a batch each task is checked alone, and a rejected
/// one never fails its neighbours.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once a request and taken apart at once: a box would be one allocation more"
)]
pub enum EnqueueRequest<'a> {
    /// One task.
    One(TaskRequest<'a>),
    /// A batch.
    #[serde(deny_unknown_fields)]
    Batch {
        /// Up to 1,000 tasks.
        #[schema(value_type = Vec<TaskRequest>, max_items = 1000)]
        tasks: Vec<&'a RawValue>,
    },
}

impl<'a> Request<'a> for EnqueueRequest<'a> {
    const FIELDS: &'static [&'static str] = &[
        "tasks",
        "payload",
        "priority",
        "delayMs",
        "runAt",
        "maxAttempts",
        "idempotencyKey",
        "idempotency",
        "idempotencyTtlMs",
        "deadlineMs",
        "cost",
        "orderingKey",
        "limitKey",
        "fairnessKey",
        "retry",
        "retention",
    ];
    const NOT_YET: &'static [&'static str] = TaskRequest::NOT_YET;

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        let Some(tasks) = batch(fields, "tasks")? else { return TaskRequest::of(fields).map(Self::One) };
        match fields.beside("tasks") {
            None => Ok(Self::Batch { tasks }),
            Some(field) => {
                let message = format!(
                    "`{field}` stands beside `tasks` and would have no effect. Put it into each task."
                );
                Err(ApiError::invalid_field(field, message))
            }
        }
    }
}

/// One task to enqueue.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskRequest<'a> {
    /// Any JSON, at most 1 MiB; comes back byte for byte.
    #[schema(value_type = AnyJson, required = true)]
    pub payload: Option<&'a RawValue>,
    /// 0 to 9, 9 first; 4 when absent.
    #[schema(minimum = 0, maximum = 9)]
    pub priority: Option<u64>,
    /// Not claimable before this many ms from now, at most a year. Not together with `runAt`.
    #[schema(maximum = 31_536_000_000_u64)]
    pub delay_ms: Option<u64>,
    /// Not claimable before this time, RFC 3339; at most a year ahead.
    #[schema(value_type = Option<String>)]
    pub run_at: Option<Cow<'a, str>>,
    /// Attempts before it is dead, 1 to 100; 5 when absent.
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<u64>,
    /// Of all tasks that are kept in the queue one has this key.
    #[schema(value_type = Option<String>)]
    pub idempotency_key: Option<Cow<'a, str>>,
    /// Where a task has the key: `existing` (default) answers that task, `reject` is 409 `idempotency_conflict` with its id, and
    /// `replace` puts this one in its place while it is delayed, blocked or ready: under its id, all else new, at the end of the line;
    /// one that is leased or has ended is answered.
    #[schema(value_type = Option<String>)]
    pub idempotency: Option<Cow<'a, str>>,
    /// The key is free this many ms after the enqueue, 1 to a year, or once its task is gone, whichever comes first; when absent
    /// it holds while its task is kept.
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub idempotency_ttl_ms: Option<u64>,
    /// Dead with the reason `deadline` this many ms after the enqueue, 1 to a year, unless a worker holds it then. Who holds it may
    /// still complete it; it is not tried again.
    #[schema(minimum = 1, maximum = 31_536_000_000_u64)]
    pub deadline_ms: Option<u64>,
    /// Tokens that its start takes of the queue's `limits.perSecond`, 1 to 1,000,000; 1 when absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub cost: Option<u64>,
    /// Of the tasks with this key one runs at a time, in the order of their enqueues; 1 to 256 bytes. The others are `blocked`.
    #[schema(value_type = Option<String>)]
    pub ordering_key: Option<Cow<'a, str>>,
    /// The tasks with this key share the limits of the first of the queue's `limits.keys` that matches it; 1 to 256 bytes.
    #[schema(value_type = Option<String>)]
    pub limit_key: Option<Cow<'a, str>>,
    /// Claims take turns between these keys, by the weights of the queue's `fairness`; 1 to 256 bytes. Tasks without one are as one
    /// key.
    #[schema(value_type = Option<String>)]
    pub fairness_key: Option<Cow<'a, str>>,
    /// When a failed attempt is tried again; as its queue's policy says when absent.
    pub retry: Option<RetryRequest>,
    /// How long it can be looked up when finished; as its queue's policy says what is absent.
    pub retention: Option<RetentionRequest>,
}

impl<'a> Request<'a> for TaskRequest<'a> {
    const FIELDS: &'static [&'static str] = &[
        "payload",
        "priority",
        "delayMs",
        "runAt",
        "maxAttempts",
        "idempotencyKey",
        "idempotency",
        "idempotencyTtlMs",
        "deadlineMs",
        "cost",
        "orderingKey",
        "limitKey",
        "fairnessKey",
        "retry",
        "retention",
    ];
    const NOT_YET: &'static [&'static str] = &["callbackUrl"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        Ok(Self {
            payload: fields.raw("payload"),
            priority: fields.whole("priority")?,
            delay_ms: fields.whole("delayMs")?,
            run_at: fields.text("runAt")?,
            max_attempts: fields.whole("maxAttempts")?,
            idempotency_key: fields.text("idempotencyKey")?,
            idempotency: fields.text("idempotency")?,
            idempotency_ttl_ms: fields.whole("idempotencyTtlMs")?,
            deadline_ms: fields.whole("deadlineMs")?,
            cost: fields.whole("cost")?,
            ordering_key: fields.text("orderingKey")?,
            limit_key: fields.text("limitKey")?,
            fairness_key: fields.text("fairnessKey")?,
            retry: fields.object("retry")?,
            retention: fields.object("retention")?,
        })
    }
}

/// When a failed attempt is tried again.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryRequest {
    /// `exponential` (default), `fixed` or `list`.
    pub policy: Option<String>,
    /// First or only delay; 1,000 when absent.
    pub delay_ms: Option<u64>,
    /// Longest delay of `exponential`; 300,000 when absent.
    pub max_delay_ms: Option<u64>,
    /// Delays of `list`, 1 to 32; the last one repeats.
    #[schema(min_items = 1, max_items = 32)]
    pub delays_ms: Option<Vec<u64>>,
    /// Share of the delay that is drawn at random, 0 to 1; 0.2 when absent.
    #[schema(minimum = 0, maximum = 1)]
    pub jitter: Option<f64>,
}

impl Request<'_> for RetryRequest {
    const FIELDS: &'static [&'static str] = &["policy", "delayMs", "maxDelayMs", "delaysMs", "jitter"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        // One that is too long counts as one that is empty: neither has 1 to 32 delays.
        let list = fields.list("delaysMs", limits::RETRY_DELAYS_MAX)?.map(Option::unwrap_or_default);
        let whole = |raw: &&RawValue| crate::value::whole("retry.delaysMs", raw);
        Ok(Self {
            policy: fields.text("policy")?.map(Cow::into_owned),
            delay_ms: fields.whole("delayMs")?,
            max_delay_ms: fields.whole("maxDelayMs")?,
            delays_ms: list.map(|list| list.iter().map(whole).collect()).transpose()?,
            jitter: fields.number("jitter")?,
        })
    }
}

/// How long a finished task can be looked up.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionRequest {
    /// After completion or cancellation; 3,600,000 when absent. At most 200,000 are kept per queue.
    pub completed_ms: Option<u64>,
    /// After death; 1,209,600,000 (14 days) when absent. With 0 the task ends `failed`.
    pub dead_ms: Option<u64>,
}

impl Request<'_> for RetentionRequest {
    const FIELDS: &'static [&'static str] = &["completedMs", "deadMs"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { completed_ms: fields.whole("completedMs")?, dead_ms: fields.whole("deadMs")? })
    }
}

impl TaskRequest<'_> {
    /// Checks every field and makes the task, with an id for its place.
    ///
    /// # Errors
    /// The first field that is wrong, with its bound.
    pub fn into_task(self, id: TaskId) -> Result<NewTask, ApiError> {
        let payload =
            self.payload.ok_or_else(|| ApiError::invalid_field("payload", "A task has a `payload`."))?;
        let keyed = self.idempotency_key.is_some();
        let idempotency = idempotency(self.idempotency.as_deref(), keyed)?;
        let start = start(self.delay_ms, self.run_at.as_deref(), id)?;
        Ok(NewTask {
            id,
            payload: checked_payload(payload)?,
            priority: priority(self.priority)?,
            deadline_ms: deadline(self.deadline_ms, start, id)?,
            start,
            max_attempts: max_attempts(self.max_attempts)?,
            retry: self.retry.map(RetryRequest::into_policy).transpose()?,
            retention: self.retention.unwrap_or_default().into_wish()?,
            cost: cost("cost", self.cost, 1)?,
            idempotency_key: self
                .idempotency_key
                .map(|key| IdempotencyKey::new(&key))
                .transpose()
                .map_err(|e| ApiError::invalid_field("idempotencyKey", e.to_string()))?,
            idempotency,
            idempotency_ttl_ms: key_ttl(self.idempotency_ttl_ms, keyed)?,
            keys: TaskKeys {
                ordering: task_key("orderingKey", self.ordering_key)?,
                limit: task_key("limitKey", self.limit_key)?,
                fairness: task_key("fairnessKey", self.fairness_key)?,
            }
            .shared(),
            tick: None,
        })
    }
}

/// A key by which tasks are ordered, limited or treated fairly.
pub(crate) fn task_key(field: &str, asked: Option<Cow<'_, str>>) -> Result<Option<TaskKey>, ApiError> {
    let key = asked.map(|asked| TaskKey::new(&asked)).transpose();
    key.map_err(|error| ApiError::invalid_field(field, error.to_string()))
}

fn key_ttl(asked: Option<u64>, keyed: bool) -> Result<Option<u64>, ApiError> {
    if asked.is_some() && !keyed {
        let message = "`idempotencyTtlMs` is about an `idempotencyKey`; give one, or leave it out.";
        return Err(ApiError::invalid_field("idempotencyTtlMs", message));
    }
    span("idempotencyTtlMs", asked)
}

/// A task that can be claimed only past its deadline is a mistake.
fn deadline(asked: Option<u64>, start: Start, id: TaskId) -> Result<Option<u64>, ApiError> {
    let deadline = span("deadlineMs", asked)?;
    let delay_ms = match start {
        Start::Now => 0,
        Start::InMs(ms) => ms,
        Start::At(at) => at.0.saturating_sub(id.unix_ms()),
    };
    match deadline {
        Some(ms) if ms <= delay_ms => {
            let message = "`deadlineMs` ends before the task can be claimed: it would be dead by then. It counts from the enqueue; make it longer than the delay.";
            Err(ApiError::invalid_field("deadlineMs", message).with("value", ms))
        }
        deadline => Ok(deadline),
    }
}

fn span(field: &str, asked: Option<u64>) -> Result<Option<u64>, ApiError> {
    asked.map(|_| within(field, asked, 1..=limits::DEADLINE_MAX_MS, 1)).transpose()
}

fn checked_payload(raw: &RawValue) -> Result<Bytes, ApiError> {
    if raw.get().len() > limits::PAYLOAD_MAX_BYTES {
        return Err(ApiError::new(
            ErrorCode::PayloadTooLarge,
            format!(
                "A payload has at most {} bytes; store large data elsewhere and send a reference.",
                limits::PAYLOAD_MAX_BYTES
            ),
        )
        .with("bytes", raw.get().len()));
    }
    Ok(bytes_of(raw))
}

fn priority(asked: Option<u64>) -> Result<Priority, ApiError> {
    let Some(number) = asked else { return Ok(Priority::default()) };
    let priority = u8::try_from(number).ok().and_then(Priority::new);
    priority.ok_or_else(|| {
        let message = format!("`priority` is 0 to {0}, {0} is served first.", Priority::HIGHEST);
        ApiError::invalid_field("priority", message).with("value", number)
    })
}

fn max_attempts(asked: Option<u64>) -> Result<u32, ApiError> {
    let (max, default) = (u64::from(limits::ATTEMPTS_MAX), u64::from(limits::ATTEMPTS_DEFAULT));
    let attempts = within("maxAttempts", asked, 1..=max, default)?;
    Ok(u32::try_from(attempts).unwrap_or(limits::ATTEMPTS_MAX))
}

fn idempotency(asked: Option<&str>, keyed: bool) -> Result<Idempotency, ApiError> {
    let wrong = |message| ApiError::invalid_field("idempotency", message);
    match asked {
        Some(_) if !keyed => {
            Err(wrong("`idempotency` is about an `idempotencyKey`; give one, or leave it out."))
        }
        None | Some("existing") => Ok(Idempotency::Existing),
        Some("reject") => Ok(Idempotency::Reject),
        Some("replace") => Ok(Idempotency::Replace),
        Some(other) => Err(wrong("`idempotency` is existing, reject or replace.").with("value", other)),
    }
}

/// A time is held against that of the task's id, which the server has just drawn.
fn start(delay_ms: Option<u64>, run_at: Option<&str>, id: TaskId) -> Result<Start, ApiError> {
    let wrong = |message| Err(ApiError::invalid_field("runAt", message));
    match (delay_ms, run_at) {
        (None, None) => Ok(Start::Now),
        (Some(_), Some(_)) => wrong("Give `delayMs` or `runAt`, not both."),
        (Some(_), None) => within("delayMs", delay_ms, 0..=limits::DELAY_MAX_MS, 0).map(Start::InMs),
        (None, Some(text)) => match parse_rfc3339(text) {
            None => wrong("`runAt` is a time such as 2026-11-23T13:05:09.042Z (RFC 3339)."),
            Some(at) if at.0 > id.unix_ms().saturating_add(limits::DELAY_MAX_MS) => wrong(
                "`runAt` lies more than a year ahead. Look at its year, or keep the task elsewhere until then.",
            ),
            Some(at) => Ok(Start::At(at)),
        },
    }
}

impl RetryRequest {
    pub(crate) fn into_policy(self) -> Result<RetryPolicy, ApiError> {
        let delay = |field, value, default| within(field, value, 0..=limits::DELAY_MAX_MS, default);
        let backoff = match self.policy.as_deref().unwrap_or("exponential") {
            "exponential" => Backoff::Exponential {
                delay_ms: delay("retry.delayMs", self.delay_ms, 1_000)?,
                max_delay_ms: delay("retry.maxDelayMs", self.max_delay_ms, 300_000)?,
            },
            "fixed" => Backoff::Fixed { delay_ms: delay("retry.delayMs", self.delay_ms, 1_000)? },
            "list" => Backoff::List { delays_ms: delays(self.delays_ms)? },
            other => {
                return Err(ApiError::invalid_field(
                    "retry.policy",
                    "`retry.policy` is exponential, fixed or list.",
                )
                .with("value", other));
            }
        };
        let jitter = within("retry.jitter", self.jitter, 0.0..=1.0, 0.2)?;
        Ok(RetryPolicy { backoff, jitter_permille: (jitter * 1000.0).round() as u16 })
    }
}

fn delays(asked: Option<Vec<u64>>) -> Result<Vec<u64>, ApiError> {
    let delays = asked.unwrap_or_default();
    if delays.is_empty() {
        let message = format!("A `list` policy has 1 to {} `delaysMs`.", limits::RETRY_DELAYS_MAX);
        return Err(ApiError::invalid_field("retry.delaysMs", message));
    }
    for ms in &delays {
        within("retry.delaysMs", Some(*ms), 0..=limits::DELAY_MAX_MS, 0)?;
    }
    Ok(delays)
}

impl RetentionRequest {
    pub(crate) fn into_wish(self) -> Result<RetentionWish, ApiError> {
        let span = |field, asked: Option<u64>| {
            asked.map(|_| within(field, asked, 0..=limits::RETENTION_MAX_MS, 0)).transpose()
        };
        Ok(RetentionWish {
            completed_ms: span("retention.completedMs", self.completed_ms)?,
            dead_ms: span("retention.deadMs", self.dead_ms)?,
        })
    }
}

/// A number of tokens.
pub(crate) fn cost(field: &str, asked: Option<u64>, least: u64) -> Result<u32, ApiError> {
    let cost = within(field, asked, least..=u64::from(limits::BURST_MAX), 1)?;
    Ok(u32::try_from(cost).unwrap_or(limits::BURST_MAX))
}

/// When a failed attempt is tried again.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryView {
    /// `exponential`, `fixed` or `list`.
    pub policy: &'static str,
    /// First or only delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Longest delay of `exponential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay_ms: Option<u64>,
    /// Delays of `list`; the last one repeats.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delays_ms: Vec<u64>,
    /// Share of the delay that is drawn at random, 0 to 1.
    pub jitter: f64,
}

impl RetryView {
    pub(crate) fn of(retry: &RetryPolicy) -> Self {
        let jitter = f64::from(retry.jitter_permille) / 1_000.0;
        let (policy, delay_ms, max_delay_ms, delays_ms) = match &retry.backoff {
            Backoff::Exponential { delay_ms, max_delay_ms } => {
                ("exponential", Some(*delay_ms), Some(*max_delay_ms), Vec::new())
            }
            Backoff::Fixed { delay_ms } => ("fixed", Some(*delay_ms), None, Vec::new()),
            Backoff::List { delays_ms } => ("list", None, None, delays_ms.clone()),
        };
        Self { policy, delay_ms, max_delay_ms, delays_ms, jitter }
    }
}

#[cfg(test)]
mod tests {
    use brisq_model::{QueueNumber, Shard, UnixMs};

    use super::*;
    use crate::{parse, rfc3339};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn task(body: &str) -> Result<NewTask, ApiError> {
        let shard = Shard::first(QueueNumber::new(1).unwrap());
        parse::<TaskRequest<'_>>(body.as_bytes())?.into_task(TaskId::new(NOW_MS, shard, 7))
    }

    #[test]
    fn fields_beside_tasks_are_refused_and_not_ignored() {
        for beside in TaskRequest::FIELDS {
            let body = format!(r#"{{"tasks":[{{"payload":1}}],"{beside}":9}}"#);
            let error = parse::<EnqueueRequest<'_>>(body.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.detail[0].1.as_str()), (ErrorCode::InvalidField, *beside));
        }
        let both: Vec<_> = [&["tasks"], TaskRequest::FIELDS].concat();
        assert_eq!(EnqueueRequest::FIELDS, both, "a task alone has the fields of a task in a batch");
    }

    #[test]
    fn bounds_hold_and_are_named() {
        let latest = UnixMs(NOW_MS + limits::DELAY_MAX_MS);
        let at = |at: UnixMs| format!(r#"{{"payload":1,"runAt":"{}"}}"#, rfc3339(at));
        assert_eq!(task(&at(latest)).unwrap().start, Start::At(latest));
        let long = format!("[{}]", vec!["1"; 33].join(","));
        for (body, field, part) in [
            (at(UnixMs(latest.0 + 1)), "runAt", "more than a year ahead"),
            (r#"{"payload":1,"runAt":"9999-12-30T22:00:00Z"}"#.into(), "runAt", "more than a year ahead"),
            (r#"{"payload":1,"runAt":"tomorrow"}"#.into(), "runAt", "RFC 3339"),
            (r#"{"payload":1,"priority":10}"#.into(), "priority", "0 to 9"),
            (r#"{"payload":1,"priority":300}"#.into(), "priority", "0 to 9"),
            (r#"{"payload":1,"maxAttempts":101}"#.into(), "maxAttempts", "1 to 100"),
            (r#"{"payload":1,"maxAttempts":4294967301}"#.into(), "maxAttempts", "1 to 100"),
            (r#"{"payload":1,"delayMs":31536000001}"#.into(), "delayMs", "31536000000"),
            (r#"{"payload":1,"idempotencyKey":"\udfff"}"#.into(), "idempotencyKey", "surrogate"),
            (r#"{"payload":1,"idempotency":"reject"}"#.into(), "idempotency", "idempotencyKey"),
            (r#"{"payload":1,"idempotencyKey":"k","idempotency":"drop"}"#.into(), "idempotency", "replace"),
            (
                format!(r#"{{"payload":1,"retry":{{"policy":"list","delaysMs":{long}}}}}"#),
                "retry.delaysMs",
                "1 to 32",
            ),
            (
                r#"{"payload":1,"retry":{"policy":"list","delaysMs":["1"]}}"#.into(),
                "retry.delaysMs",
                "whole number",
            ),
            (r#"{"payload":1,"retry":{"jitter":2}}"#.into(), "retry.jitter", "0 to 1"),
            (r#"{"payload":1,"retention":{"deadMs":"x"}}"#.into(), "retention.deadMs", "whole number"),
            (r#"{"priority":1}"#.into(), "payload", "payload"),
        ] {
            let error = task(&body).unwrap_err();
            assert_eq!(error.envelope().error.detail["field"], field, "{body}");
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
        assert_eq!(task(r#"{"payload":null}"#).unwrap().payload, "null", "null is a payload");
        assert_eq!(
            task(r#"{"payload": "\ud800"}"#).unwrap().payload,
            r#""\ud800""#,
            "a payload is never decoded"
        );
    }
}
