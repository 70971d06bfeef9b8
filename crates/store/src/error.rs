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
    /// A new task's id exists; draw another.
    #[error("the id is taken")]
    IdTaken,
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
    /// The store holds more queues than [`brisq_model::limits::QUEUES_MAX`].
    #[error("the store has {0} queues, which is its limit")]
    TooManyQueues(u32),
    /// The store answered something that it never should; the text is for the log.
    #[error("the store's data or answer is not understood: {0}")]
    Corrupt(String),
}
