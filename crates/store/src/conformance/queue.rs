use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brisq_model::{LeaseToken, NewTask, QueueName, Shard, Task, TaskError, TaskId, TaskState, TenantName};
use bytes::Bytes;

use crate::{
    Answer, ClaimOp, Enqueued, FailOp, HeartbeatOp, QueueCounts, QueueInfo, Refused, Store, WorkDone, WorkOp,
    WorkResult,
};

/// Long enough for every case that is not about expiry.
pub(super) const LEASE_MS: u64 = 60_000;

static QUEUES: AtomicU64 = AtomicU64::new(1);

/// A fresh queue in a store, with short words for what cases do. With several handles on the store each call goes through the
/// next of them, so that every case also says what one server sees of what another did.
pub struct Queue {
    pub(super) handles: Vec<Arc<dyn Store>>,
    turn: AtomicUsize,
    pub(super) tenant: TenantName,
    pub(super) name: QueueName,
    pub(super) shard: Shard,
    pub(super) info: QueueInfo,
    random: AtomicU64,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Queue {
    /// A queue that nobody used before, of a tenant of its own.
    pub async fn new(store: Arc<dyn Store>) -> Self {
        Self::shared(vec![store]).await
    }

    /// As [`Self::new`], through several handles on the same store.
    pub async fn shared(handles: Vec<Arc<dyn Store>>) -> Self {
        let number = QUEUES.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let tenant = TenantName::new(&format!("t{nanos:x}-{number}")).unwrap();
        let name = QueueName::new("cases").unwrap();
        Self::open(handles, tenant, name).await
    }

    pub(super) async fn open(handles: Vec<Arc<dyn Store>>, tenant: TenantName, name: QueueName) -> Self {
        let number = handles[0].open_queue(&tenant, &name).await.unwrap();
        let info = QueueInfo { number, tenant: tenant.clone(), name: name.clone() };
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        Self {
            handles,
            turn: AtomicUsize::new(0),
            tenant,
            name,
            shard: info.shard(),
            info,
            random: AtomicU64::new(nanos),
        }
    }

    /// Another queue of the same tenant.
    pub(super) async fn neighbour(&self, name: &str) -> Self {
        Self::open(self.handles.clone(), self.tenant.clone(), QueueName::new(name).unwrap()).await
    }

    /// The handle whose turn it is.
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.handles[self.turn.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }

    /// Different for every call.
    pub(super) fn random(&self) -> u64 {
        self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    pub(super) fn id(&self) -> TaskId {
        TaskId::new(1_700_000_000_000, self.shard, self.random())
    }

    /// An id whose place among others tells nothing about when it was drawn.
    pub(super) fn scattered_id(&self) -> TaskId {
        TaskId::new(1_700_000_000_000 + self.random() % 1_000_000, self.shard, self.random())
    }

    pub(super) fn token(&self) -> LeaseToken {
        LeaseToken::new(u128::from(self.random()) << 64 | u128::from(self.random()))
    }

    /// A task as most cases want it.
    pub(super) fn task(&self, payload: &str) -> NewTask {
        NewTask { max_attempts: 3, ..NewTask::new(self.id(), Bytes::copy_from_slice(payload.as_bytes())) }
    }

    pub(super) async fn enqueue_all(&self, tasks: Vec<NewTask>) -> Answer<Result<Enqueued, Refused>> {
        let count = tasks.len();
        let answer = self.store().enqueue(&self.info, tasks).await.unwrap();
        assert_eq!(answer.results.len(), count, "one answer for each task");
        answer
    }

    pub(super) async fn enqueue(&self, task: NewTask) -> TaskId {
        let id = task.id;
        let answer = self.enqueue_all(vec![task]).await;
        assert!(matches!(answer.results[0], Ok(Enqueued::Created { .. })), "{:?}", answer.results);
        id
    }

    /// Adds plain tasks with these payloads.
    pub(super) async fn add(&self, payloads: &[&str]) -> Vec<TaskId> {
        let tasks: Vec<NewTask> = payloads.iter().map(|payload| self.task(payload)).collect();
        let ids = tasks.iter().map(|task| task.id).collect();
        self.enqueue_all(tasks).await;
        ids
    }

    pub(super) async fn work(&self, ops: Vec<WorkOp>) -> Answer<WorkResult> {
        let count = ops.len();
        let answer = self.store().work(&self.info, ops).await.unwrap();
        assert_eq!(answer.results.len(), count, "one answer for each operation");
        answer
    }

    pub(super) async fn act(&self, op: WorkOp) -> WorkResult {
        self.work(vec![op]).await.results.remove(0)
    }

    pub(super) fn claim_op(&self, max: u16, lease_ms: u64) -> WorkOp {
        WorkOp::Claim(ClaimOp { max, lease_ms, worker: None, token: self.token() })
    }

    pub(super) async fn claim_for(&self, max: u16, lease_ms: u64) -> Vec<Task> {
        claimed(self.act(self.claim_op(max, lease_ms)).await)
    }

    pub(super) async fn claim(&self, max: u16) -> Vec<Task> {
        self.claim_for(max, LEASE_MS).await
    }

    /// The one task that is to be had.
    pub(super) async fn one(&self) -> Task {
        let mut tasks = self.claim(1).await;
        assert_eq!(tasks.len(), 1, "a task is to be had");
        tasks.remove(0)
    }

    pub(super) async fn complete(&self, task: &Task) -> WorkResult {
        self.act(complete(task, None)).await
    }

    pub(super) async fn release(&self, task: &Task, delay_ms: u64) -> WorkResult {
        self.act(WorkOp::Release { id: task.id, token: token_of(task), delay_ms }).await
    }

    pub(super) async fn heartbeat(&self, task: &Task, extend_ms: Option<u64>) -> WorkResult {
        self.act(WorkOp::Heartbeat(HeartbeatOp {
            id: task.id,
            token: token_of(task),
            extend_ms,
            progress: None,
        }))
        .await
    }

    pub(super) async fn fail(&self, task: &Task, delay_ms: Option<u64>) -> WorkResult {
        self.act(WorkOp::Fail(FailOp { delay_ms, ..failure(task) })).await
    }

    pub(super) async fn cancel(&self, id: TaskId) -> WorkResult {
        self.act(WorkOp::Cancel { id }).await
    }

    pub(super) async fn find(&self, id: TaskId) -> Option<Task> {
        self.store().get(id).await.unwrap()
    }

    pub(super) async fn get(&self, id: TaskId) -> Task {
        self.find(id).await.unwrap_or_else(|| panic!("task {id} is kept"))
    }

    pub(super) async fn state(&self, id: TaskId) -> TaskState {
        self.get(id).await.state
    }

    pub(super) async fn counts(&self) -> QueueCounts {
        self.store().counts(&[self.shard]).await.unwrap().remove(0)
    }
}

pub(super) fn claimed(result: WorkResult) -> Vec<Task> {
    match result {
        Ok(WorkDone::Claimed(tasks)) => tasks,
        other => panic!("a claim answers tasks: {other:?}"),
    }
}

pub(super) fn token_of(task: &Task) -> LeaseToken {
    task.lease.as_ref().map(|lease| lease.token).unwrap()
}

pub(super) fn complete(task: &Task, result: Option<&str>) -> WorkOp {
    let result = result.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    WorkOp::Complete { id: task.id, token: token_of(task), result, used_cost: None }
}

pub(super) fn failure(task: &Task) -> FailOp {
    FailOp {
        id: task.id,
        token: token_of(task),
        error: TaskError { message: "no".into(), kind: "test".into(), detail: None },
        retryable: true,
        delay_ms: None,
        dice: 0,
    }
}

pub(super) fn payloads(tasks: &[Task]) -> Vec<&str> {
    tasks.iter().map(|task| std::str::from_utf8(&task.payload).unwrap()).collect()
}

pub(super) async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
