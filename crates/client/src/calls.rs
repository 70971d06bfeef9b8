//! The calls that the command line and the load make, typed.

use serde::{Deserialize, Serialize};
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
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Tasks by state.
    pub counts: QueueCounts,
    /// For how long its first task has been ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ready_age_ms: Option<u64>,
    /// Why it hands out nothing; `None` while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Claims that wait.
    pub claimers_waiting: u64,
}

/// A pause.
#[derive(Debug, Deserialize, Serialize)]
pub struct Paused {
    /// RFC 3339, by the store's clock.
    pub since: String,
    /// Name of the token that asked for it; empty where none is needed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// The reason that was given last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct QueueCounts {
    /// Not claimable yet.
    pub delayed: u64,
    /// Claimable.
    pub ready: u64,
    /// Held.
    pub leased: u64,
    /// Done.
    pub completed: u64,
    /// Out of attempts, without a dead letter.
    #[serde(default)]
    pub failed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Taken back.
    #[serde(default)]
    pub cancelled: u64,
}

#[derive(Deserialize)]
struct Tasks {
    tasks: Vec<ClaimedTask>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queues {
    queues: Vec<Queue>,
    next_cursor: Option<String>,
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

    /// All queues of the caller's tenant that the token covers, by name.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn queues(&mut self) -> Result<Vec<Queue>, ClientError> {
        let mut all = Vec::new();
        let mut path = "/v1/queues".to_owned();
        loop {
            let page: Queues = read(self.call("GET", &path, b"").await?)?;
            all.extend(page.queues);
            let Some(cursor) = page.next_cursor else { return Ok(all) };
            path = format!("/v1/queues?cursor={cursor}");
        }
    }

    /// One queue.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn queue(&mut self, queue: &str) -> Result<Queue, ClientError> {
        read(self.call("GET", &path_of(queue, ""), b"").await?)
    }

    /// Hands out nothing of a queue until it is resumed.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn pause(&mut self, queue: &str, reason: &str) -> Result<Queue, ClientError> {
        let body = serde_json::json!({ "reason": reason }).to_string();
        read(self.call("POST", &path_of(queue, "/pause"), body.as_bytes()).await?)
    }

    /// Hands out the tasks of a queue again.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn resume(&mut self, queue: &str) -> Result<Queue, ClientError> {
        read(self.call("POST", &path_of(queue, "/resume"), b"").await?)
    }
}

/// What a person typed as a queue's name is one segment of a path, whatever it is.
fn path_of(queue: &str, act: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(byte);
    let encoded: String = queue
        .bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("/v1/queues/{encoded}{act}")
}
