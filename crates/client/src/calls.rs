//! The calls that the command line and the load make, typed.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::connection::{ClientError, Connection};

/// A claimed task.
#[derive(Debug, Deserialize)]
pub struct ClaimedTask {
    /// Its id.
    pub id: String,
    /// As it was sent.
    pub payload: Box<RawValue>,
    /// The lease.
    pub lease: Lease,
}

/// A lease.
#[derive(Debug, Deserialize)]
pub struct Lease {
    /// Fences it.
    pub token: String,
}

/// A queue's state.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Tasks by state.
    pub counts: QueueCounts,
    /// For how long its first task has been ready.
    pub oldest_ready_age_ms: Option<u64>,
    /// Claims that wait.
    pub claimers_waiting: u64,
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct QueueCounts {
    /// Not claimable yet.
    pub delayed: u64,
    /// Claimable.
    pub ready: u64,
    /// Held.
    pub leased: u64,
    /// Done.
    pub completed: u64,
    /// Dead letters.
    pub dead: u64,
}

#[derive(Deserialize)]
struct Tasks {
    tasks: Vec<ClaimedTask>,
}

#[derive(Deserialize)]
struct Queues {
    queues: Vec<Queue>,
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Answer(error.to_string()))
}

impl Connection {
    /// Claims up to `max` tasks.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn claim(
        &mut self,
        queue: &str,
        max: usize,
        wait_ms: u64,
        lease_ms: u64,
    ) -> Result<Vec<ClaimedTask>, ClientError> {
        let body = format!(r#"{{"max":{max},"waitMs":{wait_ms},"leaseMs":{lease_ms}}}"#);
        let answer = self.call("POST", &format!("/v1/queues/{queue}/claims"), body.as_bytes()).await?;
        read::<Tasks>(answer).map(|answer| answer.tasks)
    }

    /// Completes a task without a result.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn complete(&mut self, id: &str, token: &str) -> Result<(), ClientError> {
        let body = format!(r#"{{"token":"{token}"}}"#);
        self.call("POST", &format!("/v1/tasks/{id}/complete"), body.as_bytes()).await.map(|_| ())
    }

    /// All queues of the caller's tenant.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn queues(&mut self) -> Result<Vec<Queue>, ClientError> {
        read::<Queues>(self.call("GET", "/v1/queues", b"").await?).map(|answer| answer.queues)
    }
}
