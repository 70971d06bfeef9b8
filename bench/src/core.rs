//! Create, claim, complete through the `Store` trait, one operation a call: what the queue costs without HTTP.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use brisq_model::{LeaseToken, NewTask, QueueName, TaskId, TenantName};
use brisq_store::{ClaimOp, MemoryStore, QueueInfo, Store, WorkDone, WorkOp};
use brisq_testkit::{Redis, RedisOptions};
use bytes::Bytes;
use stats_alloc::Region;

use crate::table::Table;
use crate::{ALLOCATOR, Span};

/// Cycles before the clock starts.
const WARM_UP: u64 = 200;

pub fn run(span: Span, table: &mut Table) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(brisq_recorder::register_current_thread)
        .build()?;
    runtime.block_on(async {
        measure(Arc::new(MemoryStore::default()), "in memory", span, table).await?;
        for (fsync, how) in [(false, "embedded, relaxed"), (true, "embedded, fsync")] {
            let folder = tempfile::tempdir()?;
            let opened = brisq_stores::embedded(folder.path().to_owned(), fsync, |_, _| {}).await?;
            measure(opened.store, how, span, table).await?;
        }
        for (appendfsync, how) in [("everysec", "Redis, everysec"), ("always", "Redis, always")] {
            let redis = Redis::start(RedisOptions { appendfsync, ..RedisOptions::default() })?;
            measure(brisq_stores::redis(&[redis.url()]).await?.store, how, span, table).await?;
        }
        Ok(())
    })
}

async fn measure(store: Arc<dyn Store>, how: &str, span: Span, table: &mut Table) -> anyhow::Result<()> {
    let (tenant, name) = (TenantName::new("bench")?, QueueName::new("core")?);
    let number = store.open_queue(&tenant, &name).await?;
    let queue = QueueInfo { number, tenant, name };
    for n in 0..WARM_UP {
        cycle(&store, &queue, n).await?;
    }
    let region = Region::new(ALLOCATOR);
    let began = Instant::now();
    let mut cycles = 0_u64;
    while began.elapsed() < span.length {
        cycle(&store, &queue, WARM_UP + cycles).await?;
        cycles += 1;
    }
    let (took, change) = (began.elapsed(), region.change());
    let each = |total: f64| total / cycles as f64;
    table.add(
        "create-claim-complete",
        how,
        &[
            ("ns/op", each(took.as_nanos() as f64)),
            ("bytes/op", each(change.bytes_allocated as f64)),
            ("allocs/op", each((change.allocations + change.reallocations) as f64)),
        ],
    );
    Ok(())
}

async fn cycle(store: &Arc<dyn Store>, queue: &QueueInfo, n: u64) -> anyhow::Result<()> {
    let task = NewTask::new(
        TaskId::new(1_700_000_000_000 + (n >> 20), queue.shard(), n),
        Bytes::from_static(br#"{"n":12345678}"#),
    );
    store.enqueue(queue, vec![task]).await?.results.remove(0)?;
    let token = LeaseToken::new(u128::from(n) << 64 | 1);
    let claim = WorkOp::Claim(ClaimOp { max: 1, lease_ms: 60_000, worker: None, token });
    let claimed = store.work(queue, vec![claim]).await?.results.remove(0)?;
    let WorkDone::Claimed(tasks) = claimed else { anyhow::bail!("a claim answered something else") };
    let id = tasks.first().context("the task is there")?.id;
    let complete = WorkOp::Complete { id, token, result: None, used_cost: None };
    let done = store.work(queue, vec![complete]).await?.results.remove(0)?;
    ensure!(done == WorkDone::Completed, "a complete answered something else");
    Ok(())
}
