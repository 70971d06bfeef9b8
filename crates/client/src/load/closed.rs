use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::record::{Call, Record};
use super::{LEASE_MS, Load, open};
use crate::connection::{ClientError, Connection};

/// After a failed call.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// `concurrency` connections, each going round.
pub(super) async fn run(load: &Load, concurrency: usize, record: &Arc<Record>, began: Instant) {
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let (load, record) = (load.clone(), Arc::clone(record));
        workers.spawn(async move {
            let mut connection = Connection::new(&load.target);
            while began.elapsed() < load.duration {
                if let Err(error) = cycle(&mut connection, &load, &record).await {
                    record.failed(&error);
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
    open::drain(load, record, 1).await;
}

async fn cycle(connection: &mut Connection, load: &Load, record: &Record) -> Result<(), ClientError> {
    let sent = Instant::now();
    let Some(first) = record.numbers(load.batch) else { return Ok(()) };
    open::enqueue(connection, load, record, first, sent).await?;
    record.time(Call::Enqueue, sent.elapsed());
    let sent = Instant::now();
    // Others may have taken ours, and left theirs: somebody's tasks are there, or will be soon.
    let tasks = connection.claim(&load.queue, load.batch, 1_000, LEASE_MS).await?;
    record.time(Call::Claim, sent.elapsed());
    open::finish(connection, record, &tasks).await
}
