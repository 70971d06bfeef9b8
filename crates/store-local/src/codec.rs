//! How records lie on disk: a version byte, then fields in order. Integers are little endian; text and bytes carry
//! their length as 32 bits; an optional field begins with 0 or 1.

use brisq_model::{
    Attempt, Backoff, Claim, DeadReason, IdempotencyKey, LeaseEnd, LeaseToken, Pause, Priority, Retention,
    RetryPolicy, State, TaskError, TaskState,
};
use brisq_store::engine::{Body, Extra, Record};
use bytes::Bytes;

use crate::fields::{Damage, Read, Reader, Writer};

fn write_retention(w: &mut Writer, retention: Retention) {
    w.u64(retention.completed_ms);
    w.u64(retention.dead_ms);
}

fn read_retention(r: &mut Reader<'_>) -> Read<Retention> {
    Ok(Retention { completed_ms: r.u64()?, dead_ms: r.u64()? })
}

/// What never changes of a task.
pub fn body_bytes(body: &Body) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u8(body.priority.get());
    w.u32(body.max_attempts);
    match &body.retry.backoff {
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
            w.u32(u32::try_from(delays_ms.len()).unwrap_or(u32::MAX));
            for ms in delays_ms {
                w.u64(*ms);
            }
        }
    }
    w.u16(body.retry.jitter_permille);
    write_retention(&mut w, body.retention);
    w.option(body.idempotency_key.as_ref(), |w, key| w.bytes(key.as_str().as_bytes()));
    w.u64(body.created_at.0);
    w.bytes(&body.payload);
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
    let backoff = match r.u8()? {
        0 => Backoff::Exponential { delay_ms: r.u64()?, max_delay_ms: r.u64()? },
        1 => Backoff::Fixed { delay_ms: r.u64()? },
        2 => Backoff::List { delays_ms: r.list(Reader::u64)? },
        _ => return Err(Damage("a retry policy")),
    };
    let retry = RetryPolicy { backoff, jitter_permille: r.u16()? };
    let retention = read_retention(&mut r)?;
    let key = r.option(|r| IdempotencyKey::new(r.text()?).map_err(|_| Damage("an idempotency key")))?;
    let created_at = r.ms()?;
    Ok(Body {
        payload: payload(&mut r)?,
        priority,
        max_attempts,
        retry,
        retention,
        idempotency_key: key,
        created_at,
    })
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
        State::Delayed | State::Ready => (record.ready_at, None),
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
    w.0
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
    if band > Priority::HIGHEST {
        return Err(Damage("a band"));
    }
    let (state, last) = State::from_fields(state, until, reason, lease)
        .ok_or(Damage("a state that contradicts its lease"))?;
    let last = last.map(Box::new);
    Ok(Record { state, last, keyed, cancel_requested, band, seq, failed, expiries, retention, ready_at })
}

fn read_lease(r: &mut Reader<'_>) -> Read<(Claim, Option<LeaseEnd>)> {
    let claim = Claim {
        token: LeaseToken::from_bytes(r.array()?),
        lease_ms: r.u64()?,
        started_at: r.ms()?,
        worker: r.option(Reader::worker)?,
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
    w.0
}

pub fn extra(bytes: &[u8]) -> Read<Extra> {
    let mut r = Reader::versioned(bytes)?;
    let attempts = r.list(|r| {
        let (number, worker, failed_at) = (r.u32()?, r.option(Reader::worker)?, r.ms()?);
        let (message, kind) = (r.text()?.to_owned(), r.text()?.to_owned());
        Ok(Attempt {
            number,
            worker,
            failed_at,
            error: TaskError { message, kind, detail: r.option(Reader::bytes)? },
        })
    })?;
    Ok(Extra { attempts, progress: r.option(Reader::bytes)?, result: r.option(Reader::bytes)? })
}

#[cfg(test)]
mod tests {
    use brisq_model::{Ending, PastLease, UnixMs, WorkerName};

    use super::*;

    fn claim() -> Claim {
        Claim {
            token: LeaseToken::new(9),
            lease_ms: 1,
            started_at: UnixMs(2),
            worker: WorkerName::new("w").ok(),
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
            created_at: UnixMs(5),
        };
        let record = Record {
            state: State::Ended { how: Ending::Dead(DeadReason::Quarantined), at: UnixMs(4) },
            last: Some(Box::new(PastLease { claim: claim(), end: LeaseEnd::Failed })),
            keyed: true,
            cancel_requested: false,
            band: 5,
            seq: 1 << 40,
            failed: 2,
            expiries: 1,
            retention: body.retention,
            ready_at: UnixMs(3),
        };
        let error =
            TaskError { message: "m".into(), kind: "k".into(), detail: Some(Bytes::from_static(b"1")) };
        let attempt = Attempt { number: 1, worker: None, failed_at: UnixMs(6), error };
        let extra =
            Extra { attempts: vec![attempt], progress: None, result: Some(Bytes::from_static(b"null")) };
        (body, record, extra)
    }

    /// A record in each state, with and without a lease before.
    fn records() -> Vec<Record> {
        let ended = |how| State::Ended { how, at: UnixMs(4) };
        let states = [
            State::Delayed,
            State::Ready,
            ended(Ending::Completed),
            ended(Ending::Cancelled),
            ended(Ending::Failed(DeadReason::Exhausted)),
            ended(Ending::Dead(DeadReason::Corrupt)),
        ];
        let lasts = [None, Some(LeaseEnd::Released), Some(LeaseEnd::Completed)];
        let (_, sample, _) = sample();
        let leased = State::Leased { claim: Box::new(claim()), until: UnixMs(8) };
        let mut records = vec![Record { state: leased, last: None, ..sample.clone() }];
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
        assert_eq!(body(&body_bytes(&b)), Ok(b.clone()));
        assert_eq!(body_without_payload(&body_bytes(&b)), Ok(Body { payload: Bytes::new(), ..b }));
        assert_eq!(extra(&extra_bytes(&e)), Ok(e));
        let p = Pause { since: UnixMs(7), by: "me".into(), reason: "größer".into() };
        assert_eq!(pause(&pause_bytes(&p)), Ok(p));
        for r in records() {
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
