//! How records lie on disk: a version byte, then fields in order. Integers are little endian; text and bytes carry
//! their length as 32 bits; an optional field begins with 0 or 1.

use brisq_model::{
    Attempt, Backoff, DeadReason, IdempotencyKey, LeaseToken, Priority, Retention, RetryPolicy, TaskError,
    TaskState, UnixMs, WorkerName,
};
use brisq_store::StoreError;
use brisq_store::engine::{Body, Ended, Extra, Grip, Record};
use bytes::Bytes;

const VERSION: u8 = 1;
/// Longest list that is believed; longer ones are damage.
const LIST_MAX: u32 = 1_000;

type Read<T> = Result<T, StoreError>;

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn versioned() -> Self {
        Self(vec![VERSION])
    }

    fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    fn u16(&mut self, n: u16) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

struct Reader<'a>(&'a [u8]);

fn damage(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a record on disk is damaged: {what}"))
}

impl<'a> Reader<'a> {
    fn versioned(bytes: &'a [u8]) -> Read<Self> {
        let mut reader = Self(bytes);
        match reader.u8()? {
            VERSION => Ok(reader),
            other => Err(StoreError::Corrupt(format!(
                "a record has version {other}, this program reads {VERSION}"
            ))),
        }
    }

    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| damage("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| damage("it ends early"))
    }

    fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn ms(&mut self) -> Read<UnixMs> {
        self.u64().map(UnixMs)
    }

    fn slice(&mut self) -> Read<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn bytes(&mut self) -> Read<Bytes> {
        self.slice().map(Bytes::copy_from_slice)
    }

    fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.slice()?).map_err(|_| damage("text is not UTF-8"))
    }

    fn worker(&mut self) -> Read<WorkerName> {
        WorkerName::new(self.text()?).map_err(|_| damage("a worker's name"))
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(damage("an optional field")),
        }
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let length = self.u32()?;
        if length > LIST_MAX {
            return Err(damage("a list is too long"));
        }
        (0..length).map(|_| read(self)).collect()
    }
}

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

/// See [`body_bytes`].
pub fn body(bytes: &[u8]) -> Read<Body> {
    let mut r = Reader::versioned(bytes)?;
    let priority = Priority::new(r.u8()?).ok_or_else(|| damage("a priority"))?;
    let max_attempts = r.u32()?;
    let backoff = match r.u8()? {
        0 => Backoff::Exponential { delay_ms: r.u64()?, max_delay_ms: r.u64()? },
        1 => Backoff::Fixed { delay_ms: r.u64()? },
        2 => Backoff::List { delays_ms: r.list(Reader::u64)? },
        _ => return Err(damage("a retry policy")),
    };
    let retry = RetryPolicy { backoff, jitter_permille: r.u16()? };
    let retention = read_retention(&mut r)?;
    let key = r.option(|r| IdempotencyKey::new(r.text()?).map_err(|_| damage("an idempotency key")))?;
    let created_at = r.ms()?;
    Ok(Body {
        payload: r.bytes()?,
        priority,
        max_attempts,
        retry,
        retention,
        idempotency_key: key,
        created_at,
    })
}

const ENDED: [Ended; 5] = [Ended::NotYet, Ended::Completed, Ended::Failed, Ended::Released, Ended::Expired];

/// What changes of a task.
pub fn record_bytes(record: &Record) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u8(record.state.code());
    w.u8(record.keyed.into());
    w.u8(record.cancel_requested.into());
    w.option(record.dead_reason, |w, reason| w.u8(reason.code()));
    w.u8(record.band);
    w.u64(record.seq);
    w.u32(record.failed);
    w.u32(record.expiries);
    write_retention(&mut w, record.retention);
    w.u64(record.ready_at.0);
    w.u64(record.until.0);
    w.option(record.grip.as_deref(), |w, grip| {
        w.0.extend_from_slice(&grip.token.to_bytes());
        w.u64(grip.lease_ms);
        w.u64(grip.started_at.0);
        w.option(grip.worker.as_ref(), |w, worker| w.bytes(worker.as_str().as_bytes()));
        w.u8(ENDED
            .iter()
            .position(|ended| *ended == grip.ended)
            .and_then(|n| u8::try_from(n).ok())
            .unwrap_or(0));
    });
    w.0
}

/// See [`record_bytes`].
pub fn record(bytes: &[u8]) -> Read<Record> {
    let mut r = Reader::versioned(bytes)?;
    Ok(Record {
        state: TaskState::from_code(r.u8()?).ok_or_else(|| damage("a state"))?,
        keyed: r.u8()? != 0,
        cancel_requested: r.u8()? != 0,
        dead_reason: r.option(|r| DeadReason::from_code(r.u8()?).ok_or_else(|| damage("a reason")))?,
        band: r.u8()?,
        seq: r.u64()?,
        failed: r.u32()?,
        expiries: r.u32()?,
        retention: read_retention(&mut r)?,
        ready_at: r.ms()?,
        until: r.ms()?,
        grip: r.option(grip)?.map(Box::new),
    })
}

fn grip(r: &mut Reader<'_>) -> Read<Grip> {
    Ok(Grip {
        token: LeaseToken::from_bytes(r.array()?),
        lease_ms: r.u64()?,
        started_at: r.ms()?,
        worker: r.option(Reader::worker)?,
        ended: ENDED.get(usize::from(r.u8()?)).copied().ok_or_else(|| damage("the end of a lease"))?,
    })
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

/// See [`extra_bytes`].
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
    use super::*;

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
        let grip = Grip {
            token: LeaseToken::new(9),
            lease_ms: 1,
            started_at: UnixMs(2),
            worker: WorkerName::new("w").ok(),
            ended: Ended::Failed,
        };
        let record = Record {
            state: TaskState::Dead,
            keyed: true,
            cancel_requested: false,
            dead_reason: Some(DeadReason::Quarantined),
            band: 5,
            seq: 1 << 40,
            failed: 2,
            expiries: 1,
            retention: body.retention,
            ready_at: UnixMs(3),
            until: UnixMs(4),
            grip: Some(Box::new(grip)),
        };
        let error =
            TaskError { message: "m".into(), kind: "k".into(), detail: Some(Bytes::from_static(b"1")) };
        let attempt = Attempt { number: 1, worker: None, failed_at: UnixMs(6), error };
        let extra =
            Extra { attempts: vec![attempt], progress: None, result: Some(Bytes::from_static(b"null")) };
        (body, record, extra)
    }

    #[test]
    fn records_come_back_as_they_were() {
        let (b, r, e) = sample();
        assert_eq!(body(&body_bytes(&b)).unwrap(), b);
        assert_eq!(record(&record_bytes(&r)).unwrap(), r);
        assert_eq!(extra(&extra_bytes(&e)).unwrap(), e);
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
        assert!(matches!(record(&[]), Err(StoreError::Corrupt(_))));
        assert!(matches!(record(&[9]), Err(StoreError::Corrupt(_))));
    }
}
