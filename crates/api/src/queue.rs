use serde::Serialize;
use utoipa::ToSchema;

/// A queue.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Its tasks by state; finished ones while they are kept.
    pub counts: StateCounts,
    /// For how long the first task in line has been ready; left out when none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ready_age_ms: Option<u64>,
    /// Claims parked at this server, waiting for a task.
    pub claimers_waiting: u64,
}

/// Number of tasks in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct StateCounts {
    /// Not claimable yet.
    pub delayed: u64,
    /// Claimable.
    pub ready: u64,
    /// Held by a worker.
    pub leased: u64,
    /// Done.
    pub completed: u64,
    /// Out of attempts, without a dead letter.
    pub failed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Taken back.
    pub cancelled: u64,
}

/// All queues of the tenant, by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QueueList {
    /// Up to 1,000; a longer list is cut.
    pub queues: Vec<QueueView>,
}
