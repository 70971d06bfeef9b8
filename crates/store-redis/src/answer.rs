//! What the library's functions answer, as the store's types.

use std::time::Duration;

use brisq_model::{
    Attempt, Claim, DeadReason, Event, EventKind, Facts, Gate, IdempotencyKey, KeyRule, LeaseEnd, LeaseToken,
    Mark, OnFailure, Pause, Policy, Priority, Rate, Retention, State, Task, TaskError, TaskId, TaskKey,
    TaskKeys, TaskState, UnixMs, WorkerName,
};
use brisq_store::{
    Answer, Barrier, Enqueued, Place, QueueCounts, Refused, Standing, StoreError, TaskPage, WorkDone,
    WorkResult,
};
use bytes::Bytes;
use redis::Value;

use crate::args;

type Read<T> = Result<T, StoreError>;

fn strange(what: &str) -> StoreError {
    StoreError::Corrupt(format!("Redis answered something else than {what}"))
}

/// The elements of an array, taken in order.
struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    fn of(value: Value, what: &str) -> Read<Self> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            _ => Err(strange(what)),
        }
    }

    fn next(&mut self) -> Read<Value> {
        self.0.next().ok_or_else(|| strange("all fields"))
    }

    fn int(&mut self) -> Read<i64> {
        match self.next()? {
            Value::Int(n) => Ok(n),
            _ => Err(strange("a number")),
        }
    }

    fn ms(&mut self) -> Read<UnixMs> {
        self.int().map(|ms| UnixMs(u64::try_from(ms).unwrap_or(0)))
    }

    /// A time, where -1 stands for none.
    fn optional_ms(&mut self) -> Read<Option<UnixMs>> {
        self.int().map(|ms| u64::try_from(ms).ok().map(UnixMs))
    }

    fn ids(&mut self) -> Read<Vec<TaskId>> {
        match self.next()? {
            Value::Array(items) => items.into_iter().map(|item| Self(vec![item].into_iter()).id()).collect(),
            _ => Err(strange("ids")),
        }
    }

    fn id(&mut self) -> Read<TaskId> {
        let bytes: [u8; 16] = self.bytes()?.as_ref().try_into().map_err(|_| strange("an id"))?;
        TaskId::from_bytes(bytes).map_err(|_| strange("an id"))
    }

    fn u32(&mut self) -> Read<u32> {
        u32::try_from(self.int()?).map_err(|_| strange("a small number"))
    }

    fn bytes(&mut self) -> Read<Bytes> {
        self.optional_bytes()?.ok_or_else(|| strange("bytes"))
    }

    fn optional_bytes(&mut self) -> Read<Option<Bytes>> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(Some(bytes.into())),
            Value::SimpleString(text) => Ok(Some(text.into())),
            Value::Nil => Ok(None),
            _ => Err(strange("bytes")),
        }
    }

    fn text(&mut self) -> Read<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| strange("text"))
    }

    fn worker(&mut self) -> Read<Option<WorkerName>> {
        let name = self.text()?;
        if name.is_empty() {
            return Ok(None);
        }
        WorkerName::new(&name).map(Some).map_err(|_| strange("a worker's name"))
    }

    /// A gate, where -1 stands for none.
    fn gate(&mut self) -> Read<Option<Gate>> {
        self.int().map(|code| u8::try_from(code).ok().and_then(Gate::from_code))
    }

    /// A key, where an empty one stands for none.
    fn key(&mut self) -> Read<Option<TaskKey>> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        TaskKey::new(&text).map(Some).map_err(|_| strange("a key"))
    }

    fn state(&mut self) -> Read<TaskState> {
        let code = u8::try_from(self.int()?).ok();
        code.and_then(TaskState::from_code).ok_or_else(|| strange("a state"))
    }
}

/// An answer, and what it says to the driver alone.
pub(crate) struct Framed<T> {
    pub(crate) answer: Answer<T>,
    /// When the next task is past its retention.
    pub(crate) next_end: Option<UnixMs>,
    /// Tasks whose records could not be read; they are among the ended ones.
    pub(crate) corrupt: Vec<TaskId>,
}

/// A result that does not read is refused alone: the call was carried out for all others.
fn framed<T>(
    value: Value,
    read: impl Fn(Value) -> Read<Result<T, Refused>>,
) -> Read<Framed<Result<T, Refused>>> {
    let mut fields = Fields::of(value, "an answer")?;
    let (now, ready, next_due) = (fields.ms()?, fields.int()?, fields.int()?);
    let Value::Array(results) = fields.next()? else { return Err(strange("results")) };
    let next_end = fields.optional_ms()?;
    let (ended, corrupt) = (fields.ids()?, fields.ids()?);
    let resumed_at = fields.optional_ms()?;
    let unreadable = |error| {
        tracing::error!(%error, "a result of a call cannot be read");
        Err(Refused::Unreadable)
    };
    let answer = Answer {
        results: results.into_iter().map(|value| read(value).unwrap_or_else(unreadable)).collect(),
        now,
        ready: u64::try_from(ready).unwrap_or(0),
        next_due: u64::try_from(next_due).ok().map(Duration::from_millis),
        resumed_at,
        ended,
    };
    Ok(Framed { answer, next_end, corrupt })
}

/// Answer of `sweep`: the time of the call, and when the next task is past its retention.
pub(crate) fn swept(value: Value) -> Read<(UnixMs, Option<UnixMs>)> {
    let mut fields = Fields::of(value, "a sweep's answer")?;
    Ok((fields.ms()?, fields.optional_ms()?))
}

/// A result that is one letter: why the operation was refused.
fn refused(value: &Value) -> Option<Refused> {
    let letter = match value {
        Value::BulkString(bytes) => bytes.as_slice(),
        Value::SimpleString(text) => text.as_bytes(),
        _ => return None,
    };
    match letter {
        b"M" => Some(Refused::TaskNotFound),
        b"L" => Some(Refused::LeaseLost),
        b"A" => Some(Refused::AlreadyFinished),
        b"T" => Some(Refused::IdTaken),
        b"N" => Some(Refused::NotDead),
        _ => None,
    }
}

/// Answer of `enqueue`.
pub(crate) fn enqueued(value: Value) -> Read<Framed<Result<Enqueued, Refused>>> {
    framed(value, |value| {
        if let Some(refused) = refused(&value) {
            return Ok(Err(refused));
        }
        let mut fields = Fields::of(value, "an enqueue's result")?;
        match fields.text()?.as_str() {
            "N" => Ok(Ok(Enqueued::Created { state: fields.state()?, ready_at: fields.ms()? })),
            "W" => {
                let (id, state, ready_at) = (fields.id()?, fields.state()?, fields.ms()?);
                Ok(Ok(Enqueued::Replaced { id, state, ready_at }))
            }
            "I" => Ok(Ok(Enqueued::Fired(fields.id()?))),
            "E" => Ok(Ok(Enqueued::Existing(Box::new(task(fields.next()?)?)))),
            _ => Err(strange("an enqueue's result")),
        }
    })
}

/// Answer of `work`.
pub(crate) fn worked(value: Value) -> Read<Framed<WorkResult>> {
    framed(value, |value| {
        if let Some(refused) = refused(&value) {
            return Ok(Err(refused));
        }
        let mut fields = Fields::of(value, "a result")?;
        Ok(Ok(match fields.text()?.as_str() {
            "C" => WorkDone::Claimed(tasks(fields.next()?)?),
            "D" => WorkDone::Completed,
            "F" => {
                let (state, at) = (fields.state()?, fields.int()?);
                WorkDone::Failed { state, next_attempt_at: u64::try_from(at).ok().map(UnixMs) }
            }
            "R" => WorkDone::Released,
            "H" => WorkDone::Extended { expires_at: fields.ms()?, cancel_requested: fields.int()? == 1 },
            "X" => WorkDone::Cancelled(Box::new(task(fields.next()?)?)),
            "G" => WorkDone::Purged(fields.int()? == 1),
            "V" => WorkDone::Redriven(fields.state()?),
            "Y" => WorkDone::Governed,
            "M" => WorkDone::Declared(fields.int()? == 1),
            "P" => WorkDone::Paused,
            "U" => WorkDone::Resumed,
            _ => return Err(strange("a result")),
        }))
    })
}

/// Those that read. The lease of another one ends by time, and with its last one the task is a dead letter.
fn tasks(value: Value) -> Read<Vec<Task>> {
    match value {
        Value::Array(items) => Ok(items.into_iter().filter_map(|item| task(item).ok()).collect()),
        _ => Err(strange("tasks")),
    }
}

/// Answer of `tasks`.
pub(crate) fn page(value: Value) -> Read<TaskPage> {
    let mut fields = Fields::of(value, "a page")?;
    let tasks = tasks(fields.next()?)?;
    let rank = u64::try_from(fields.int()?).ok();
    let next = rank.map(|rank| Ok(Place { rank, tie: 0, id: fields.id()? })).transpose()?;
    Ok(TaskPage { tasks, next })
}

/// Answer of `standing`.
pub(crate) fn standing(value: Value) -> Read<Option<Standing>> {
    let mut fields = Fields::of(value, "a standing")?;
    let Some(before) = fields.0.next() else { return Ok(None) };
    let before = match before {
        Value::Int(before) => u64::try_from(before).unwrap_or(0),
        _ => return Err(strange("a standing")),
    };
    if fields.0.len() == 0 {
        return Ok(Some(Standing { before, barrier: None }));
    }
    let gate = fields.gate()?.ok_or_else(|| strange("a gate"))?;
    let key = fields.key()?.ok_or_else(|| strange("a key"))?;
    let barrier = match gate {
        Gate::Ordering => Barrier::Ordering { key, holder: fields.id()? },
        Gate::InFlight => {
            let (pattern, held, most) = (fields.key()?, fields.u32()?, fields.int()?);
            Barrier::InFlight { key, pattern, held, most: u32::try_from(most).unwrap_or(u32::MAX) }
        }
        Gate::Rate => Barrier::Rate { key, pattern: fields.key()?, until: fields.optional_ms()? },
    };
    Ok(Some(Standing { before, barrier: Some(barrier) }))
}

/// Answer of `get` and `outcome`.
pub(crate) fn optional_task(value: Value) -> Read<Option<Task>> {
    match value {
        Value::Nil => Ok(None),
        value => task(value).map(Some),
    }
}

/// The library's `view`.
fn task(value: Value) -> Read<Task> {
    let mut fields = Fields::of(value, "a task")?;
    let id = fields.id()?;
    task_of(id, fields).inspect_err(|error| tracing::error!(%id, %error, "a task in Redis cannot be read"))
}

fn task_of(id: TaskId, mut f: Fields) -> Read<Task> {
    let (payload, state) = (f.bytes()?, f.state()?);
    let band = u8::try_from(f.int()?).ok();
    let priority = band.and_then(Priority::of_band).ok_or_else(|| strange("a band"))?;
    let (failed, expiries, max_attempts) = (f.u32()?, f.u32()?, f.u32()?);
    let (created_at, ready_at, until, started_at) = (f.ms()?, f.ms()?, f.ms()?, f.optional_ms()?);
    let (token, worker) = (<[u8; 16]>::try_from(f.bytes()?.as_ref()).ok(), f.worker()?);
    let (end, cancel, reason) = (f.int()?, f.int()?, u8::try_from(f.int()?).ok());
    let end = usize::try_from(end).ok().and_then(|code| LeaseEnd::BY_CODE.get(code));
    let end = *end.ok_or_else(|| strange("how a lease ended"))?;
    let key = f.text()?;
    let (progress, result) = (f.optional_bytes()?, f.optional_bytes()?);
    let Value::Array(history) = f.next()? else { return Err(strange("attempts")) };
    let (mut attempts, mut events) = (Vec::new(), Vec::new());
    // History that does not read is no reason not to carry the task out.
    for entry in history.into_iter().filter_map(|item| happened(id, item)) {
        match entry {
            History::Failed(attempt) => attempts.push(attempt),
            History::Event(event) => events.push(event),
        }
    }
    let (deadline_at, beat_at, gate) = (f.optional_ms()?, f.optional_ms()?, f.gate()?);
    let keys = TaskKeys { ordering: f.key()?, limit: f.key()?, fairness: f.key()? };
    // The length of a lease is the library's to know.
    let claim = token.zip(started_at).map(|(token, started_at)| {
        let token = LeaseToken::from_bytes(token);
        (Claim { token, lease_ms: 0, started_at, worker, beat_at }, end)
    });
    let (state, last) = State::from_fields(state, until, gate, reason.and_then(DeadReason::from_code), claim)
        .ok_or_else(|| strange("a state that can be"))?;
    Ok(Task::of(Facts {
        id,
        payload,
        priority,
        max_attempts,
        idempotency_key: if key.is_empty() { None } else { IdempotencyKey::new(&key).ok() },
        keys: keys.shared(),
        created_at,
        state,
        last,
        ready_at,
        failed,
        expiries,
        cancel_requested: cancel == 1,
        deadline_at,
        attempts,
        events,
        progress,
        result,
    }))
}

/// Something that happened to a task.
enum History {
    Failed(Attempt),
    Event(Event),
}

fn happened(id: TaskId, value: Value) -> Option<History> {
    let read = || {
        let mut fields = Fields::of(value, "an attempt")?;
        let (number, at, worker) = (fields.u32()?, fields.ms()?, fields.worker()?);
        let what = fields.bytes()?;
        // Libraries of before did not say when a failed attempt was claimed.
        let started_at = fields.optional_ms().unwrap_or_default();
        if number > 0 {
            let error = unpack_error(&what)?;
            return Ok(History::Failed(Attempt { number, worker, started_at, failed_at: at, error }));
        }
        let kind = match (&*what, started_at) {
            (b"E", Some(started_at)) => EventKind::Expired { worker, started_at },
            (b"R", _) => EventKind::Redriven,
            _ => return Err(strange("an event")),
        };
        Ok(History::Event(Event { at, kind }))
    };
    let log = |error: &StoreError| tracing::warn!(%id, %error, "an attempt in Redis cannot be read: it is left out");
    read().inspect_err(log).ok()
}

/// Message and kind with their lengths, then the detail if there is one; opaque to the library.
pub(crate) fn pack_error(error: &TaskError) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in [&error.message, &error.kind] {
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    if let Some(detail) = &error.detail {
        bytes.push(1);
        bytes.extend_from_slice(detail);
    }
    bytes
}

fn unpack_error(mut bytes: &[u8]) -> Read<TaskError> {
    let mut text = || {
        let (length, rest) = bytes.split_at_checked(4)?;
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let (text, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        String::from_utf8(text.to_vec()).ok()
    };
    let (message, kind) = (text(), text());
    let (Some(message), Some(kind)) = (message, kind) else { return Err(strange("an attempt's error")) };
    let detail = bytes.get(1..).map(Bytes::copy_from_slice);
    Ok(TaskError { message, kind, detail })
}

/// Answer of `counts`.
pub(crate) fn counts(value: Value) -> Read<QueueCounts> {
    let mut fields = Fields::of(value, "counts")?;
    let (now, head_ready_at) = (fields.ms()?, fields.optional_ms()?);
    let mut counts = QueueCounts { now, head_ready_at, ..QueueCounts::default() };
    for count in &mut counts.by_state {
        *count = u64::try_from(fields.int()?).unwrap_or(0);
    }
    counts.paused = match fields.next()? {
        Value::Nil => None,
        pause => {
            let mut fields = Fields::of(pause, "a pause")?;
            Some(Pause { since: fields.ms()?, by: fields.text()?, reason: fields.text()? })
        }
    };
    counts.claimed_at = fields.optional_ms()?;
    counts.policy = match fields.next()? {
        Value::Nil => None,
        value => {
            let log =
                |error: &StoreError| tracing::error!(%error, "a queue's policy in Redis cannot be read");
            policy(value).inspect_err(log).ok().map(Box::new)
        }
    };
    counts.next_token_at = fields.optional_ms()?;
    counts.declared = match fields.next()? {
        Value::Nil => None,
        value => {
            let mut fields = Fields::of(value, "a declaration")?;
            let mut number = || fields.int().map(|number| u64::try_from(number).unwrap_or(0));
            Some(Mark { epoch: number()?, generation: number()? })
        }
    };
    if let (Some(policy), by_key @ Value::Array(_)) = (&mut counts.policy, fields.next()?) {
        let log = |error: &StoreError| tracing::error!(%error, "what a queue's policy in Redis says of keys cannot be read");
        let _ = read_by_key(by_key, policy).inspect_err(log);
    }
    Ok(counts)
}

/// What a policy says of keys, as `work.lua` has it.
fn read_by_key(value: Value, policy: &mut Policy) -> Read<()> {
    let mut fields = Fields::of(value, "rules by key")?;
    policy.on_failure = if fields.int()? == 1 { OnFailure::Skip } else { OnFailure::Hold };
    let Value::Array(rules) = fields.next()? else { return Err(strange("rules")) };
    policy.key_rules = rules.into_iter().map(key_rule).collect::<Read<_>>()?;
    let mut weights = Fields::of(fields.next()?, "weights")?;
    while weights.0.len() > 0 {
        let key = weights.key()?.ok_or_else(|| strange("a key"))?;
        let weight = u16::try_from(weights.int()?).map_err(|_| strange("a weight"))?;
        policy.weights.insert(key, weight);
    }
    Ok(())
}

fn key_rule(value: Value) -> Read<KeyRule> {
    let mut fields = Fields::of(value, "a rule")?;
    let pattern = fields.key()?.ok_or_else(|| strange("a pattern"))?;
    let (slots, _, burst, milli) = (fields.int()?, fields.int()?, fields.int()?, fields.int()?);
    let rate = u64::try_from(milli).ok().zip(u32::try_from(burst).ok());
    Ok(KeyRule {
        pattern,
        in_flight_max: u32::try_from(slots).ok(),
        rate: rate.map(|(milli_per_second, burst)| Rate { milli_per_second, burst }),
    })
}

/// A policy as `layout.lua` names its fields.
fn policy(value: Value) -> Read<Policy> {
    let mut fields = Fields::of(value, "a policy")?;
    let mut number = || fields.int().map(|number| u64::try_from(number).ok());
    let (in_flight, _, burst, aging, expiries, kept) =
        (number()?, number()?, number()?, number()?, number()?, number()?);
    let retry = args::read_retry(&fields.text()?).ok_or_else(|| strange("a retry policy"))?;
    let mut needed = || fields.int().and_then(|n| u64::try_from(n).map_err(|_| strange("a policy")));
    let retention = Retention { completed_ms: needed()?, dead_ms: needed()? };
    let milli = fields.int().map(|milli| u64::try_from(milli).ok())?;
    let small = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    let rate = milli.zip(small(burst)).map(|(milli_per_second, burst)| Rate { milli_per_second, burst });
    Ok(Policy {
        retry,
        retention,
        kept_max: kept.ok_or_else(|| strange("a policy"))?,
        in_flight_max: small(in_flight),
        rate,
        aging_ms: aging.ok_or_else(|| strange("a policy"))?,
        expiries_max: small(expiries).ok_or_else(|| strange("a policy"))?,
        ..Policy::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_back_as_they_were() {
        for detail in [None, Some(Bytes::from_static(b"{}")), Some(Bytes::new())] {
            let error = TaskError { message: "größer".into(), kind: String::new(), detail };
            assert_eq!(unpack_error(&pack_error(&error)).unwrap(), error);
        }
        assert!(unpack_error(b"\xff\xff\xff\xffx").is_err());
    }
}
