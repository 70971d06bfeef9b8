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

/// A page of the tenant's queues, by name.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueList {
    /// Those of the page that the token covers.
    pub queues: Vec<QueueView>,
    /// `cursor` of the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
