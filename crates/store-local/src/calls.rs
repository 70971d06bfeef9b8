//! What callers ask of the writer.

use brisq_model::{NewTask, QueueName, QueueNumber, ScheduleName, Shard, Task, TaskId, TenantName, UnixMs};
use brisq_store::{
    Answer, Deletion, DueSchedules, Enqueued, PageOf, QueueCounts, QueueInfo, Refused, Schedule, Standing,
    StoreError, TaskPage, WorkOp, WorkResult,
};
use tokio::sync::oneshot;

/// Calls that wait for the writer; a caller beyond it waits for room.
pub const CALLS_PENDING_MAX: usize = 4_096;

/// What a schedule costs on disk beside its body, bytes.
const SCHEDULE_BYTES: u64 = 4_096;

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub enum Call {
    Enqueue(QueueInfo, Vec<NewTask>, Reply<Answer<Result<Enqueued, Refused>>>),
    Work(QueueInfo, Vec<WorkOp>, Reply<Answer<WorkResult>>),
    Open(TenantName, QueueName, Reply<QueueNumber>),
    ChangeSchedule(Box<ScheduleChange>, Reply<bool>),
    Delete(QueueInfo, Reply<Deletion>),
    Read(Read),
    /// Sync, close the file, and end.
    Close(Reply<()>),
}

/// What a schedule is to be, if it is what is said.
pub struct ScheduleChange {
    pub tenant: TenantName,
    pub name: ScheduleName,
    pub before: Option<u64>,
    pub after: Option<Schedule>,
}

impl ScheduleChange {
    /// Bytes on disk of one that is new. What replaces another needs about as much as that has.
    pub fn grows_to(&self) -> u64 {
        let new = self.after.as_ref().filter(|_| self.before.is_none());
        new.map_or(0, |after| 2 * after.body.len() as u64 + SCHEDULE_BYTES)
    }
}

/// A question that changes nothing.
pub enum Read {
    Task(TaskId, Reply<Option<Task>>),
    Outcome(TaskId, Reply<Option<Task>>),
    Tasks(Shard, PageOf, Reply<TaskPage>),
    Standing(TaskId, Reply<Option<Standing>>),
    Counts(Vec<Shard>, Reply<Vec<QueueCounts>>),
    Number(TenantName, QueueName, Reply<Option<QueueNumber>>),
    Queue(QueueNumber, Reply<Option<QueueInfo>>),
    Queues(TenantName, Option<QueueName>, usize, Reply<Vec<QueueInfo>>),
    Schedule(TenantName, ScheduleName, Reply<(Option<Schedule>, UnixMs)>),
    Schedules(TenantName, Option<ScheduleName>, usize, Reply<Vec<Schedule>>),
    DueSchedules(usize, Reply<DueSchedules>),
    Ready(Reply<()>),
}

impl Call {
    /// Answers that it cannot be carried out.
    pub fn refuse(self, error: &StoreError) {
        match self {
            Self::Enqueue(.., reply) => refuse(reply, error.clone()),
            Self::Open(.., reply) => refuse(reply, error.clone()),
            Self::ChangeSchedule(.., reply) => refuse(reply, error.clone()),
            Self::Work(.., reply) => refuse(reply, beside_new_tasks(error)),
            Self::Delete(_, reply) => refuse(reply, beside_new_tasks(error)),
            Self::Close(reply) => refuse(reply, beside_new_tasks(error)),
            Self::Read(read) => read.refuse(error),
        }
    }
}

impl Read {
    fn refuse(self, error: &StoreError) {
        let error = beside_new_tasks(error);
        match self {
            Self::Task(_, reply) | Self::Outcome(_, reply) => refuse(reply, error),
            Self::Tasks(.., reply) => refuse(reply, error),
            Self::Standing(_, reply) => refuse(reply, error),
            Self::Counts(_, reply) => refuse(reply, error),
            Self::Number(.., reply) => refuse(reply, error),
            Self::Queue(_, reply) => refuse(reply, error),
            Self::Queues(.., reply) => refuse(reply, error),
            Self::Schedule(.., reply) => refuse(reply, error),
            Self::Schedules(.., reply) => refuse(reply, error),
            Self::DueSchedules(_, reply) => refuse(reply, error),
            Self::Ready(reply) => refuse(reply, error),
        }
    }
}

fn refuse<T>(reply: Reply<T>, error: StoreError) {
    let _ = reply.send(Err(error));
}

/// The error as those hear it who bring no new task: that there is no room is no answer to them.
fn beside_new_tasks(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(text) => StoreError::Unavailable(text.clone()),
        other => other.clone(),
    }
}

/// What answers a call once its group is committed, or could not be.
pub type Deliver = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// Sends `value` once the commit has succeeded, else the commit's error. A caller that went away is no concern here:
/// whoever waits for claims gives them back by their lease.
pub fn later<T: Send + 'static>(reply: Reply<T>, value: T) -> Deliver {
    Box::new(move |error| {
        let _ = reply.send(error.map_or(Ok(value), |error| Err(beside_new_tasks(error))));
    })
}

/// As [`later`], for new tasks and queues.
pub fn later_or_full<T: Send + 'static>(reply: Reply<T>, value: T) -> Deliver {
    Box::new(move |error| {
        let _ = reply.send(error.map_or(Ok(value), |error| Err(error.clone())));
    })
}
