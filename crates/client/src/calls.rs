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
    /// `manifest` where its policy stands in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
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
    /// Held back by a gate of their keys.
    #[serde(default)]
    pub blocked: u64,
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

/// What a purge did.
#[derive(Debug, Deserialize, Serialize)]
pub struct Purged {
    /// Tasks that were in the states.
    pub matched: u64,
    /// Those that are gone.
    pub purged: u64,
}

/// Which dead letters are to be tasks again, and how.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedriveWish {
    /// Which; all that is given must hold.
    pub filter: RedriveFilter,
    /// Most tasks, 1 to 10,000.
    pub limit: u64,
    /// Tasks that become claimable a second; all at once when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// Only count.
    pub dry_run: bool,
    /// `cursor` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Which dead letters.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedriveFilter {
    /// These.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// Kind of the last error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
    /// Why they are dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_after: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_before: Option<String>,
}

/// What a redrive did.
#[derive(Debug, Deserialize, Serialize)]
pub struct Redriven {
    /// Dead letters that match, counted up to 10,000.
    pub matched: u64,
    /// Those that are tasks again.
    pub redriven: u64,
    /// Where the next call would go on, if something is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Why a task, or the first task of a queue, is where it is.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// State of the task; `empty` where a queue has none.
    pub state: String,
    /// The one reason that explains most.
    pub reason: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// One sentence.
    pub summary: String,
    /// What it is concluded from.
    pub evidence: Vec<Evidence>,
    /// What to do about it.
    pub next_step: String,
    /// Place of a ready task in the line, 1 for the head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

/// A fact.
#[derive(Debug, Deserialize, Serialize)]
pub struct Evidence {
    /// Such as `worker`.
    pub name: String,
    /// As text.
    pub value: String,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<Event>,
}

/// Something that happened to a task.
#[derive(Debug, Deserialize, Serialize)]
pub struct Event {
    /// RFC 3339.
    pub at: String,
    /// Such as `claimed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who held the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Number of the attempt that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why it is dead, or the kind of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the worker said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TaskPage {
    tasks: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
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

pub(crate) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ClientError> {
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

    /// Takes a queue away that holds no live task.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn delete_queue(&mut self, queue: &str) -> Result<(), ClientError> {
        self.call("DELETE", &path_of(queue, ""), b"").await.map(|_| ())
    }

    /// At most `limit` tasks of a queue, those in `state` or all, each as the server says it.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn tasks(
        &mut self,
        queue: &str,
        state: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, ClientError> {
        let state = state.map_or_else(String::new, |state| format!("&state={}", segment(state)));
        let mut all = Vec::new();
        let mut cursor = String::new();
        while all.len() < limit {
            let most = PAGE_MAX.min(limit - all.len());
            let path = path_of(queue, &format!("/tasks?limit={most}{state}{cursor}"));
            let page: TaskPage = read(self.call("GET", &path, b"").await?)?;
            all.extend(page.tasks);
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        Ok(all)
    }

    /// One task, as the server says it.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn task(&mut self, id: &str) -> Result<Box<RawValue>, ClientError> {
        read(self.call("GET", &format!("/v1/tasks/{}", segment(id)), b"").await?)
    }

    /// Why a task is where it is.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn explain_task(&mut self, id: &str) -> Result<Explanation, ClientError> {
        read(self.call("GET", &format!("/v1/tasks/{}/explain", segment(id)), b"").await?)
    }

    /// Why the first task of a queue is where it is.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn explain_queue(&mut self, queue: &str) -> Result<Explanation, ClientError> {
        read(self.call("GET", &path_of(queue, "/explain"), b"").await?)
    }

    /// What happened to a task, oldest first.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn events(&mut self, id: &str) -> Result<Vec<Event>, ClientError> {
        let answer: Events =
            read(self.call("GET", &format!("/v1/tasks/{}/events", segment(id)), b"").await?)?;
        Ok(answer.events)
    }

    /// Takes a task back, and answers it as the server says it.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn cancel(&mut self, id: &str) -> Result<Box<RawValue>, ClientError> {
        read(self.call("DELETE", &format!("/v1/tasks/{}", segment(id)), b"").await?)
    }

    /// Takes the tasks of a queue away that are in some states.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn purge(
        &mut self,
        queue: &str,
        states: &[String],
        dry_run: bool,
    ) -> Result<Purged, ClientError> {
        let body = serde_json::json!({ "states": states, "dryRun": dry_run }).to_string();
        read(self.call("POST", &path_of(queue, "/purge"), body.as_bytes()).await?)
    }

    /// Makes dead letters of a queue tasks again.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn redrive(&mut self, queue: &str, wish: &RedriveWish) -> Result<Redriven, ClientError> {
        let body = serde_json::to_vec(wish).map_err(|error| ClientError::Answer(error.to_string()))?;
        read(self.call("POST", &path_of(queue, "/redrive"), &body).await?)
    }
}

/// Most tasks that the server answers in a page.
const PAGE_MAX: usize = 1_000;

fn path_of(queue: &str, act: &str) -> String {
    format!("/v1/queues/{}{act}", segment(queue))
}

/// What a person typed is one segment of a path, whatever it is.
pub(crate) fn segment(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
