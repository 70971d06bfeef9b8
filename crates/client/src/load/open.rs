use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::record::{Call, Record};
use super::{DRAIN_TIMEOUT, LEASE_MS, Load, OPEN_CONNECTIONS_MAX};
use crate::calls::ClaimedTask;
use crate::connection::{ClientError, Connection};

/// How long a waiting claim waits.
const CLAIM_WAIT_MS: u64 = 500;
/// After a failed call.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Producers keep to their times; workers claim whatever is there.
pub(super) async fn run(load: &Load, rate: f64, record: &Arc<Record>, began: Instant) {
    let interval = Duration::from_secs_f64(load.batch as f64 / rate);
    let calls = (load.duration.as_secs_f64() / interval.as_secs_f64()).ceil() as u64;
    // Enough connections that a call of a tenth of a second delays no other: few when the rate is low.
    let connections = ((rate / load.batch as f64 / 10.0).ceil() as usize).clamp(4, OPEN_CONNECTIONS_MAX);
    let mut producers = JoinSet::new();
    for lane in 0..connections as u64 {
        let (load, record) = (load.clone(), Arc::clone(record));
        producers.spawn(async move {
            let mut connection = Connection::new(&load.target);
            for call in (lane..calls).step_by(connections) {
                let meant = began + interval.mul_f64(call as f64);
                tokio::time::sleep_until(meant.into()).await;
                produce(&mut connection, &load, &record, meant).await;
            }
        });
    }
    let workers = spawn_workers(load, record, connections);
    while producers.join_next().await.is_some() {}
    wait_for_all(record).await;
    drop(workers);
}

async fn produce(connection: &mut Connection, load: &Load, record: &Record, meant: Instant) {
    let Some(first) = record.numbers(load.batch) else { return };
    match enqueue(connection, load, record, first, meant).await {
        Ok(()) => record.time(Call::Enqueue, meant.elapsed()),
        Err(error) => record.failed(&error),
    }
}

/// Claims what is left, until all that was acknowledged is claimed.
pub(super) async fn drain(load: &Load, record: &Arc<Record>, workers: usize) {
    let workers = spawn_workers(load, record, workers);
    wait_for_all(record).await;
    drop(workers);
}

async fn wait_for_all(record: &Record) {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let missing = || record.claimed.load(Ordering::Relaxed) < record.acknowledged.load(Ordering::Relaxed);
    while missing() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Completes of the last claims are still on their way.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn spawn_workers(load: &Load, record: &Arc<Record>, count: usize) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    for _ in 0..count {
        let (load, record) = (load.clone(), Arc::clone(record));
        workers.spawn(async move {
            let mut connection = Connection::new(&load.target);
            loop {
                if let Err(error) = work(&mut connection, &load, &record).await {
                    record.failed(&error);
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        });
    }
    workers
}

async fn work(connection: &mut Connection, load: &Load, record: &Record) -> Result<(), ClientError> {
    let sent = Instant::now();
    let tasks = connection.claim(&load.queue, load.batch, CLAIM_WAIT_MS, LEASE_MS).await?;
    let answered = Instant::now();
    for task in &tasks {
        if let Some(stamp) = record.stamp(task.payload.get()) {
            record.time(Call::Claim, answered.saturating_duration_since(stamp.meant.max(sent)));
        }
    }
    finish(connection, record, &tasks).await
}

/// Enqueues numbers from `first` on, as one task or as a batch.
pub(super) async fn enqueue(
    connection: &mut Connection,
    load: &Load,
    record: &Record,
    first: u64,
    meant: Instant,
) -> Result<(), ClientError> {
    let path = format!("/v1/queues/{}/tasks", load.queue);
    let numbers = first..first + load.batch as u64;
    let body = if load.batch == 1 {
        format!(r#"{{"payload":{}}}"#, record.payload(first, meant))
    } else {
        let tasks: Vec<String> =
            numbers.clone().map(|n| format!(r#"{{"payload":{}}}"#, record.payload(n, meant))).collect();
        format!(r#"{{"tasks":[{}]}}"#, tasks.join(","))
    };
    connection.call("POST", &path, body.as_bytes()).await?;
    numbers.for_each(|number| record.acknowledge(number));
    Ok(())
}

/// Completes claimed tasks: alone, or as a batch.
pub(super) async fn finish(
    connection: &mut Connection,
    record: &Record,
    tasks: &[ClaimedTask],
) -> Result<(), ClientError> {
    let own = tasks.iter().filter_map(|task| record.stamp(task.payload.get()));
    let own = own.map(|stamp| record.claim(stamp.number)).count() as u64;
    let sent = Instant::now();
    match tasks {
        [] => return Ok(()),
        [task] => connection.complete(&task.id, &task.lease.token).await?,
        tasks => {
            let item =
                |task: &ClaimedTask| format!(r#"{{"id":"{}","token":"{}"}}"#, task.id, task.lease.token);
            let items: Vec<String> = tasks.iter().map(item).collect();
            let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
            connection.call("POST", "/v1/leases/complete", body.as_bytes()).await?;
        }
    }
    record.time(Call::Complete, sent.elapsed());
    record.complete(own);
    Ok(())
}
