/// Why one operation was refused, while the call itself succeeded. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such task, or it is no longer kept.
    #[error("no such task")]
    TaskNotFound,
    /// The token is not the one of the task's present lease.
    #[error("the lease is not held with this token any more")]
    LeaseLost,
    /// The task has ended; it cannot be cancelled.
    #[error("the task has ended")]
    AlreadyFinished,
    /// The task is no dead letter.
    #[error("the task is not dead")]
    NotDead,
    /// A new task's id exists; draw another.
    #[error("the id is taken")]
    IdTaken,
    /// The store has no room for this new task; others of the call have found some.
    #[error("the store has no room for the task")]
    NoRoom,
    /// What the store holds of the task is not understood here. The operation may have been carried out.
    #[error("what the store holds of the task is not understood")]
    Unreadable,
}

/// Why a whole call failed. Each operation of it may or may not have happened: all are idempotent or fenced.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or did not answer in time.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The store has no room for new tasks. Work on existing ones goes on.
    #[error("the store is full: {0}")]
    Full(String),
    /// The tenant, or the whole store, has as many queues as it may: [`brisq_model::limits::QUEUES_PER_TENANT_MAX`] and
    /// [`brisq_model::limits::QUEUES_MAX`].
    #[error("there are {0} queues, which is the limit")]
    TooManyQueues(u32),
    /// The tenant, or the whole store, has as many schedules as it may, or as many bytes of them: the text says which.
    #[error("{0}")]
    TooManySchedules(String),
    /// The store holds no queue under this number: it was emptied, or came back older. Nothing was done.
    #[error("the store does not know the queue under this number")]
    UnknownQueue,
    /// A newer server wrote this, in a layout that this one would break.
    #[error("the data has schema {found}, and this server knows {known} at most")]
    Newer {
        /// Of the data.
        found: u32,
        /// The highest that this program knows.
        known: u32,
    },
    /// The store answered something that it never should; the text is for the log.
    #[error("the store's data or answer is not understood: {0}")]
    Corrupt(String),
}
