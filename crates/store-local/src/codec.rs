//! How records lie on disk: a version byte, then fields in order. Integers are little endian; text and bytes carry
//! their length as 32 bits; an optional field begins with 0 or 1.

use std::sync::Arc;

use brisq_model::{
    Attempt, Backoff, Claim, DeadReason, Declared, Event, EventKind, Gate, IdempotencyKey, KeyRule, LeaseEnd,
    LeaseToken, Mark, OnFailure, Pause, Policy, Priority, Rate, Retention, RetryPolicy, State, TaskError,
    TaskKey, TaskKeys, TaskState, UnixMs,
};
use brisq_store::engine::{Body, Extra, Holds, Record, Rules, Tokens};
use bytes::Bytes;

use crate::fields::{Damage, Read, Reader, Writer};

/// Tags of fields that most records lack.
const KEY_UNTIL: u8 = 1;
const DEADLINE: u8 = 2;
const BEAT: u8 = 3;
const COST: u8 = 4;
const TAG: u8 = 5;
const GATE: u8 = 6;
const KEYS: u8 = 7;
/// Bits of the field [`GATE`], above the gate's code and one.
const HOLDS_KEY: u64 = 1 << 8;
const HOLDS_SLOT: u64 = 1 << 9;
const AGAIN: u64 = 1 << 10;
const BY_KEYS: u64 = 1 << 11;
/// Tag of what a policy may lack; no other than those of what follows it.
const BY_KEY: u8 = 2;
/// Tags of what an extra may lack.
const STARTED: u8 = 1;
const EVENTS: u8 = 2;
/// Tag of what rules may lack.
const DECLARED: u8 = 1;

fn write_retention(w: &mut Writer, retention: Retention) {
    w.u64(retention.completed_ms);
    w.u64(retention.dead_ms);
}

fn read_retention(r: &mut Reader<'_>) -> Read<Retention> {
    Ok(Retention { completed_ms: r.u64()?, dead_ms: r.u64()? })
}

fn write_retry(w: &mut Writer, retry: &RetryPolicy) {
    match &retry.backoff {
        Backoff::Exponential { delay_ms, max_delay_ms } => {
            w.u8(0);
            w.u64(*delay_ms);
            w.u64(*max_delay_ms);
        }
        Backoff::Fixed { delay_ms } => {
            w.u8(1);
            w.u64(*delay_ms);
        }
        Backoff::List { delays_ms } => {
            w.u8(2);
            w.list(delays_ms, |w, ms| w.u64(*ms));
        }
    }
    w.u16(retry.jitter_permille);
}

fn read_retry(r: &mut Reader<'_>) -> Read<RetryPolicy> {
    let backoff = match r.u8()? {
        0 => Backoff::Exponential { delay_ms: r.u64()?, max_delay_ms: r.u64()? },
        1 => Backoff::Fixed { delay_ms: r.u64()? },
        2 => Backoff::List { delays_ms: r.list(Reader::u64)? },
        _ => return Err(Damage("a retry policy")),
    };
    Ok(RetryPolicy { backoff, jitter_permille: r.u16()? })
}

/// What holds for all tasks of a queue.
pub fn rules_bytes(rules: &Rules) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u64(rules.paid_us);
    w.option(rules.policy.as_deref(), |w, policy| {
        write_retry(w, &policy.retry);
        write_retention(w, policy.retention);
        w.u64(policy.kept_max);
        w.option(policy.in_flight_max, Writer::u32);
        w.option(policy.rate, write_rate);
        w.u64(policy.aging_ms);
        w.u32(policy.expiries_max);
        if is_by_key(policy) {
            write_by_key(w, policy);
        }
    });
    if let Some(Declared { mark, paused }) = rules.declared {
        w.u8(DECLARED);
        w.u64(mark.epoch);
        w.u64(mark.generation);
        w.u8(paused.into());
    }
    w.0
}

/// Whether the policy says something of keys. Programs of before read one that does not.
pub fn is_by_key(policy: &Policy) -> bool {
    let none = policy.key_rules.is_empty() && policy.weights.is_empty();
    !none || policy.on_failure != OnFailure::default()
}

fn write_by_key(w: &mut Writer, policy: &Policy) {
    w.u8(BY_KEY);
    w.list(&policy.key_rules, |w, rule| {
        w.bytes(rule.pattern.as_str().as_bytes());
        w.option(rule.in_flight_max, Writer::u32);
        w.option(rule.rate, write_rate);
    });
    let weights: Vec<_> = policy.weights.iter().collect();
    w.list(&weights, |w, (key, weight)| {
        w.bytes(key.as_str().as_bytes());
        w.u16(**weight);
    });
    w.u8((policy.on_failure == OnFailure::Skip).into());
}

fn read_by_key(r: &mut Reader<'_>, policy: &mut Policy) -> Read<()> {
    policy.key_rules = r.list(|r| {
        let pattern = read_key(r)?;
        Ok(KeyRule { pattern, in_flight_max: r.option(Reader::u32)?, rate: r.option(read_rate)? })
    })?;
    policy.weights = r.list(|r| Ok((read_key(r)?, r.u16()?)))?.into_iter().collect();
    policy.on_failure = if r.u8()? == 0 { OnFailure::Hold } else { OnFailure::Skip };
    Ok(())
}

fn write_rate(w: &mut Writer, rate: Rate) {
    w.u64(rate.milli_per_second);
    w.u32(rate.burst);
}

fn read_rate(r: &mut Reader<'_>) -> Read<Rate> {
    Ok(Rate { milli_per_second: r.u64()?, burst: r.u32()? })
}

fn read_key(r: &mut Reader<'_>) -> Read<TaskKey> {
    TaskKey::new(r.text()?).map_err(|_| Damage("a key"))
}

/// How far the tokens of a limit key are taken.
pub fn tokens_bytes(tokens: Tokens) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u64(tokens.paid_us);
    w.u64(tokens.interval_us);
    w.0
}

pub fn tokens(bytes: &[u8]) -> Read<Tokens> {
    let mut r = Reader::versioned(bytes)?;
    Ok(Tokens { paid_us: r.u64()?, interval_us: r.u64()? })
}

pub fn rules(bytes: &[u8]) -> Read<Rules> {
    let mut r = Reader::versioned(bytes)?;
    let paid_us = r.u64()?;
    let policy = r.option(|r| {
        let mut policy = Box::new(Policy {
            retry: read_retry(r)?,
            retention: read_retention(r)?,
            kept_max: r.u64()?,
            in_flight_max: r.option(Reader::u32)?,
            rate: r.option(read_rate)?,
            aging_ms: r.u64()?,
            expiries_max: r.u32()?,
            ..Policy::default()
        });
        if r.is_next(BY_KEY)? {
            read_by_key(r, &mut policy)?;
        }
        Ok(policy)
    })?;
    let declared = r.is_next(DECLARED)?.then(|| {
        let mark = Mark { epoch: r.u64()?, generation: r.u64()? };
        Ok(Declared { mark, paused: r.u8()? == 1 })
    });
    Ok(Rules { policy, paid_us, declared: declared.transpose()? })
}

/// What never changes of a task.
pub fn body_bytes(body: &Body) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u8(body.priority.get());
    w.u32(body.max_attempts);
    write_retry(&mut w, &body.retry);
    write_retention(&mut w, body.retention);
    w.option(body.idempotency_key.as_ref(), |w, key| w.bytes(key.as_str().as_bytes()));
    w.u64(body.created_at.0);
    w.bytes(&body.payload);
    w.tagged(KEY_UNTIL, body.key_until.map(|at| at.0));
    w.tagged(DEADLINE, body.deadline_ms);
    if let Some(keys) = &body.keys {
        w.u8(KEYS);
        for key in [&keys.ordering, &keys.limit, &keys.fairness] {
            w.option(key.as_ref(), |w, key| w.bytes(key.as_str().as_bytes()));
        }
    }
    w.0
}

pub fn body(bytes: &[u8]) -> Read<Body> {
    body_with(bytes, |r| r.slice().map(Bytes::copy_from_slice))
}

/// As [`body`], with an empty payload.
pub fn body_without_payload(bytes: &[u8]) -> Read<Body> {
    body_with(bytes, |r| r.slice().map(|_| Bytes::new()))
}

fn body_with(bytes: &[u8], payload: impl FnOnce(&mut Reader<'_>) -> Read<Bytes>) -> Read<Body> {
    let mut r = Reader::versioned(bytes)?;
    let priority = Priority::new(r.u8()?).ok_or(Damage("a priority"))?;
    let max_attempts = r.u32()?;
    let retry = read_retry(&mut r)?;
    let retention = read_retention(&mut r)?;
    let key = r.option(|r| IdempotencyKey::new(r.text()?).map_err(|_| Damage("an idempotency key")))?;
    let (created_at, payload) = (r.ms()?, payload(&mut r)?);
    let (key_until, deadline_ms) = (r.tagged(KEY_UNTIL)?.map(UnixMs), r.tagged(DEADLINE)?);
    let keys = if r.is_next(KEYS)? { Some(Arc::new(read_keys(&mut r)?)) } else { None };
    let idempotency_key = key;
    Ok(Body {
        payload,
        priority,
        max_attempts,
        retry,
        retention,
        idempotency_key,
        key_until,
        deadline_ms,
        keys,
        created_at,
    })
}

fn read_keys(r: &mut Reader<'_>) -> Read<TaskKeys> {
    Ok(TaskKeys { ordering: r.option(read_key)?, limit: r.option(read_key)?, fairness: r.option(read_key)? })
}

/// Why a queue hands out nothing.
pub fn pause_bytes(pause: &Pause) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u64(pause.since.0);
    w.bytes(pause.by.as_bytes());
    w.bytes(pause.reason.as_bytes());
    w.0
}

pub fn pause(bytes: &[u8]) -> Read<Pause> {
    let mut r = Reader::versioned(bytes)?;
    Ok(Pause { since: r.ms()?, by: r.text()?.to_owned(), reason: r.text()?.to_owned() })
}

/// What changes of a task.
pub fn record_bytes(record: &Record) -> Vec<u8> {
    let (until, running) = match &record.state {
        State::Delayed | State::Blocked(_) | State::Ready => (record.ready_at, None),
        State::Leased { claim, until } => (*until, Some(&**claim)),
        State::Ended { at, .. } => (*at, None),
    };
    let last = record.last.as_ref().map(|last| (&last.claim, Some(last.end)));
    let mut w = Writer::versioned();
    w.u8(record.state.kind().code());
    w.u8(record.keyed.into());
    w.u8(record.cancel_requested.into());
    w.option(record.state.dead_reason(), |w, reason| w.u8(reason.code()));
    w.u8(record.band);
    w.u64(record.seq);
    w.u32(record.failed);
    w.u32(record.expiries);
    write_retention(&mut w, record.retention);
    w.u64(record.ready_at.0);
    w.u64(until.0);
    w.option(running.map(|claim| (claim, None)).or(last), |w, (claim, end)| write_lease(w, claim, end));
    w.tagged(DEADLINE, record.deadline.map(|at| at.0));
    w.tagged(BEAT, running.and_then(|claim| claim.beat_at).map(|at| at.0));
    w.tagged(COST, Some(u64::from(record.cost)).filter(|cost| *cost != 1));
    w.tagged(TAG, record.tag.filter(|tag| *tag != record.seq));
    w.tagged(GATE, Some(gate_bits(record)).filter(|bits| *bits != 0));
    w.0
}

/// Which gate holds the task back, what it holds, and that its body has keys.
fn gate_bits(record: &Record) -> u64 {
    let gate = match record.state {
        State::Blocked(gate) => u64::from(gate.code()) + 1,
        _ => 0,
    };
    let bit = |is: bool, bit: u64| if is { bit } else { 0 };
    let Holds { key, slot } = record.holds;
    gate | bit(key, HOLDS_KEY)
        | bit(slot, HOLDS_SLOT)
        | bit(record.again, AGAIN)
        | bit(record.keys.is_some(), BY_KEYS)
}

fn write_lease(w: &mut Writer, claim: &Claim, end: Option<LeaseEnd>) {
    w.0.extend_from_slice(&claim.token.to_bytes());
    w.u64(claim.lease_ms);
    w.u64(claim.started_at.0);
    w.option(claim.worker.as_ref(), |w, worker| w.bytes(worker.as_str().as_bytes()));
    let code = LeaseEnd::BY_CODE.iter().position(|known| *known == end);
    w.u8(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(0));
}

pub fn record(bytes: &[u8]) -> Read<Record> {
    let mut r = Reader::versioned(bytes)?;
    let state = TaskState::from_code(r.u8()?).ok_or(Damage("a state"))?;
    let (keyed, cancel_requested) = (r.u8()? != 0, r.u8()? != 0);
    let reason = r.option(|r| DeadReason::from_code(r.u8()?).ok_or(Damage("a reason")))?;
    let (band, seq, failed, expiries) = (r.u8()?, r.u64()?, r.u32()?, r.u32()?);
    let retention = read_retention(&mut r)?;
    let (ready_at, until) = (r.ms()?, r.ms()?);
    let lease = r.option(read_lease)?;
    let (deadline, beat_at) = (r.tagged(DEADLINE)?.map(UnixMs), r.tagged(BEAT)?.map(UnixMs));
    let cost = r.tagged(COST)?.map_or(Ok(1), u32::try_from).map_err(|_| Damage("a cost"))?;
    let (tag, bits) = (r.tagged(TAG)?.unwrap_or(seq), r.tagged(GATE)?.unwrap_or(0));
    let gate = (bits & 0xff).checked_sub(1).and_then(|code| Gate::from_code(u8::try_from(code).ok()?));
    if band > Priority::HIGHEST {
        return Err(Damage("a band"));
    }
    let lease = lease.map(|(claim, end)| (Claim { beat_at, ..claim }, end));
    let (state, last) = State::from_fields(state, until, gate, reason, lease)
        .ok_or(Damage("a state that contradicts its lease"))?;
    let last = last.map(Box::new);
    Ok(Record {
        state,
        last,
        keyed,
        // Those of its body take the place of these.
        keys: (bits & BY_KEYS != 0).then(Arc::default),
        holds: Holds { key: bits & HOLDS_KEY != 0, slot: bits & HOLDS_SLOT != 0 },
        again: bits & AGAIN != 0,
        cancel_requested,
        band,
        seq,
        tag: Some(tag),
        failed,
        expiries,
        retention,
        ready_at,
        deadline,
        cost,
    })
}

fn read_lease(r: &mut Reader<'_>) -> Read<(Claim, Option<LeaseEnd>)> {
    let claim = Claim {
        token: LeaseToken::from_bytes(r.array()?),
        lease_ms: r.u64()?,
        started_at: r.ms()?,
        worker: r.option(Reader::worker)?,
        beat_at: None,
    };
    let end = LeaseEnd::BY_CODE.get(usize::from(r.u8()?)).ok_or(Damage("the end of a lease"))?;
    Ok((claim, *end))
}

/// What grows of a task.
pub fn extra_bytes(extra: &Extra) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u32(u32::try_from(extra.attempts.len()).unwrap_or(u32::MAX));
    for attempt in &extra.attempts {
        w.u32(attempt.number);
        w.option(attempt.worker.as_ref(), |w, worker| w.bytes(worker.as_str().as_bytes()));
        w.u64(attempt.failed_at.0);
        w.bytes(attempt.error.message.as_bytes());
        w.bytes(attempt.error.kind.as_bytes());
        w.option(attempt.error.detail.as_deref(), Writer::bytes);
    }
    w.option(extra.progress.as_deref(), Writer::bytes);
    w.option(extra.result.as_deref(), Writer::bytes);
    if !extra.attempts.is_empty() {
        w.u8(STARTED);
        w.list(&extra.attempts, |w, attempt| w.u64(attempt.started_at.map_or(0, |at| at.0)));
    }
    if !extra.events.is_empty() {
        w.u8(EVENTS);
        w.list(&extra.events, |w, event| {
            w.u64(event.at.0);
            match &event.kind {
                EventKind::Expired { worker, started_at } => {
                    w.u8(0);
                    w.option(worker.as_ref(), |w, worker| w.bytes(worker.as_str().as_bytes()));
                    w.u64(started_at.0);
                }
                EventKind::Redriven => w.u8(1),
            }
        });
    }
    w.0
}

pub fn extra(bytes: &[u8]) -> Read<Extra> {
    let mut r = Reader::versioned(bytes)?;
    let mut attempts = r.list(|r| {
        let (number, worker, failed_at) = (r.u32()?, r.option(Reader::worker)?, r.ms()?);
        let (message, kind) = (r.text()?.to_owned(), r.text()?.to_owned());
        Ok(Attempt {
            number,
            worker,
            started_at: None,
            failed_at,
            error: TaskError { message, kind, detail: r.option(Reader::bytes)? },
        })
    })?;
    let (progress, result) = (r.option(Reader::bytes)?, r.option(Reader::bytes)?);
    if r.is_next(STARTED)? {
        for (attempt, at) in attempts.iter_mut().zip(r.list(Reader::ms)?) {
            attempt.started_at = Some(at).filter(|at| *at > UnixMs(0));
        }
    }
    let events = if r.is_next(EVENTS)? { r.list(read_event)? } else { Vec::new() };
    Ok(Extra { attempts, events, progress, result })
}

fn read_event(r: &mut Reader<'_>) -> Read<Event> {
    let at = r.ms()?;
    let kind = match r.u8()? {
        0 => EventKind::Expired { worker: r.option(Reader::worker)?, started_at: r.ms()? },
        1 => EventKind::Redriven,
        _ => return Err(Damage("an event")),
    };
    Ok(Event { at, kind })
}

#[cfg(test)]
mod tests {
    use brisq_model::{Ending, PastLease, WorkerName};

    use super::*;

    fn claim() -> Claim {
        Claim {
            token: LeaseToken::new(9),
            lease_ms: 1,
            started_at: UnixMs(2),
            worker: WorkerName::new("w").ok(),
            beat_at: None,
        }
    }

    fn sample() -> (Body, Record, Extra) {
        let body = Body {
            payload: Bytes::from_static(b"{\"n\":1}"),
            priority: Priority::default(),
            max_attempts: 3,
            retry: RetryPolicy { backoff: Backoff::List { delays_ms: vec![1, 2] }, jitter_permille: 7 },
            retention: Retention::default(),
            idempotency_key: IdempotencyKey::new("k").ok(),
            key_until: Some(UnixMs(8)),
            deadline_ms: None,
            keys: None,
            created_at: UnixMs(5),
        };
        let record = Record {
            state: State::Ended { how: Ending::Dead(DeadReason::Quarantined), at: UnixMs(4) },
            last: Some(Box::new(PastLease { claim: claim(), end: LeaseEnd::Failed })),
            keyed: true,
            keys: Some(Arc::default()),
            holds: Holds { key: true, slot: false },
            again: true,
            cancel_requested: false,
            band: 5,
            seq: 1 << 40,
            tag: Some(7),
            failed: 2,
            expiries: 1,
            retention: body.retention,
            ready_at: UnixMs(3),
            deadline: Some(UnixMs(9)),
            cost: 3,
        };
        let error =
            TaskError { message: "m".into(), kind: "k".into(), detail: Some(Bytes::from_static(b"1")) };
        let attempt =
            Attempt { number: 1, worker: None, started_at: Some(UnixMs(5)), failed_at: UnixMs(6), error };
        let expired = EventKind::Expired { worker: WorkerName::new("w").ok(), started_at: UnixMs(7) };
        let events = [expired, EventKind::Redriven].map(|kind| Event { at: UnixMs(8), kind }).to_vec();
        let result = Some(Bytes::from_static(b"null"));
        let extra = Extra { attempts: vec![attempt], events, progress: None, result };
        (body, record, extra)
    }

    /// A record in each state, with and without a lease before.
    fn records() -> Vec<Record> {
        let ended = |how| State::Ended { how, at: UnixMs(4) };
        let states = [
            State::Delayed,
            State::Ready,
            State::Blocked(Gate::Ordering),
            State::Blocked(Gate::Rate),
            ended(Ending::Completed),
            ended(Ending::Cancelled),
            ended(Ending::Failed(DeadReason::Exhausted)),
            ended(Ending::Dead(DeadReason::Corrupt)),
        ];
        let lasts = [None, Some(LeaseEnd::Released), Some(LeaseEnd::Completed)];
        let (_, sample, _) = sample();
        let leased = State::Leased { claim: Box::new(claim()), until: UnixMs(8) };
        let beating = Claim { beat_at: Some(UnixMs(7)), ..claim() };
        let beating = State::Leased { claim: Box::new(beating), until: UnixMs(8) };
        let mut records: Vec<Record> =
            [leased, beating].map(|state| Record { state, last: None, ..sample.clone() }).to_vec();
        for state in states {
            records.extend(lasts.map(|end| Record {
                state: state.clone(),
                last: end.map(|end| Box::new(PastLease { claim: claim(), end })),
                ..sample.clone()
            }));
        }
        records
    }

    #[test]
    fn records_come_back_as_they_were() {
        let (b, _, e) = sample();
        let key = |name: &str| TaskKey::new(name).ok();
        let keys = TaskKeys { ordering: key("o"), limit: None, fairness: key("f") }.shared();
        for (key_until, deadline_ms, keys) in
            [(None, None, keys), (None, Some(3), None), (Some(UnixMs(8)), Some(3), None)]
        {
            let b = Body { key_until, deadline_ms, keys, ..b.clone() };
            assert_eq!(body(&body_bytes(&b)), Ok(b.clone()));
            assert_eq!(body_without_payload(&body_bytes(&b)), Ok(Body { payload: Bytes::new(), ..b }));
        }
        assert_eq!(extra(&extra_bytes(&e)), Ok(e.clone()));
        let plain = Extra { attempts: Vec::new(), events: Vec::new(), ..e };
        assert_eq!(extra(&extra_bytes(&plain)), Ok(plain));
        let limited = Policy {
            in_flight_max: Some(3),
            rate: Some(Rate { milli_per_second: 1_500, burst: 2 }),
            ..Policy::default()
        };
        let by_key = Policy {
            key_rules: vec![KeyRule {
                pattern: TaskKey::new("a*").unwrap(),
                in_flight_max: Some(1),
                rate: limited.rate,
            }],
            weights: [(TaskKey::new("g").unwrap(), 7)].into(),
            on_failure: OnFailure::Skip,
            ..limited.clone()
        };
        for policy in [None, Some(Policy::default()), Some(limited), Some(by_key)] {
            let mark = Mark { epoch: 1 << 40, generation: 3 };
            for declared in [None, Some(Declared { mark, paused: true }), Some(Declared::default())] {
                let r = Rules { policy: policy.clone().map(Box::new), paid_us: 1 << 50, declared };
                assert_eq!(rules(&rules_bytes(&r)), Ok(r));
            }
        }
        let p = Pause { since: UnixMs(7), by: "me".into(), reason: "größer".into() };
        assert_eq!(pause(&pause_bytes(&p)), Ok(p));
        for r in records() {
            let without = Record { deadline: None, cost: 1, ..r.clone() };
            assert_eq!(record(&record_bytes(&without)), Ok(without));
            assert_eq!(record(&record_bytes(&r)), Ok(r));
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let (b, r, e) = sample();
        for bytes in [body_bytes(&b), record_bytes(&r), extra_bytes(&e)] {
            for cut in 0..bytes.len() {
                let part = &bytes[..cut];
                let _ = (body(part), record(part), extra(part));
                let mut flipped = bytes.clone();
                flipped[cut] ^= 0xff;
                let _ = (body(&flipped), record(&flipped), extra(&flipped));
            }
        }
        assert!(record(&[]).is_err());
        assert!(record(&[9]).is_err());
    }
}
