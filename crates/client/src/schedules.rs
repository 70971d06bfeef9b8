//! The calls about schedules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::calls::{read, segment};
use crate::connection::{ClientError, Connection};

/// What a schedule is to be; what is absent takes its default.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleWish {
    /// Where its tasks go.
    pub queue: String,
    /// When they come.
    pub cron: String,
    /// Time zone of `cron`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The task, as an enqueue takes it.
    pub task: Box<RawValue>,
    /// `allow` or `skip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// `skip`, `one` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// No tick before this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<String>,
    /// No tick after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_at: Option<String>,
    /// Whether it rests.
    pub paused: bool,
}

/// The members that a server takes back from its own answer.
const SAID: [&str; 9] =
    ["queue", "cron", "timeZone", "task", "overlap", "missed", "startAt", "endAt", "paused"];

/// A schedule.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// Where its tasks go.
    pub queue: String,
    /// When they come.
    pub cron: String,
    /// Time zone of `cron`.
    pub time_zone: String,
    /// The task as it was sent.
    pub task: Box<RawValue>,
    /// `allow` or `skip`.
    pub overlap: String,
    /// `skip`, `one` or `all`.
    pub missed: String,
    /// No tick before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<String>,
    /// No tick after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_at: Option<String>,
    /// Whether it rests.
    pub paused: bool,
    /// When it fires next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// The last tick that became a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<String>,
    /// That task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_task_id: Option<String>,
    /// The last tick that became none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_skipped: Option<Skipped>,
}

/// A tick that became no task.
#[derive(Debug, Deserialize, Serialize)]
pub struct Skipped {
    /// The tick.
    pub at: String,
    /// `overlap`, `missed` or `refused`.
    pub reason: String,
    /// What the queue said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    schedules: Vec<Schedule>,
    next_cursor: Option<String>,
}

fn path_of(name: &str, act: &str) -> String {
    format!("/v1/schedules/{}{act}", segment(name))
}

impl Connection {
    /// All schedules whose queues the token covers.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn schedules(&mut self) -> Result<Vec<Schedule>, ClientError> {
        let mut all = Vec::new();
        let mut path = "/v1/schedules".to_owned();
        loop {
            let page: Page = read(self.call("GET", &path, b"").await?)?;
            all.extend(page.schedules);
            let Some(cursor) = page.next_cursor else { return Ok(all) };
            path = format!("/v1/schedules?cursor={cursor}");
        }
    }

    /// One schedule.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn schedule(&mut self, name: &str) -> Result<Schedule, ClientError> {
        read(self.call("GET", &path_of(name, ""), b"").await?)
    }

    /// Makes a schedule, or replaces the one of its name.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn put_schedule(&mut self, name: &str, wish: &ScheduleWish) -> Result<Schedule, ClientError> {
        let body = serde_json::to_vec(wish).map_err(|error| ClientError::Answer(error.to_string()))?;
        read(self.call("PUT", &path_of(name, ""), &body).await?)
    }

    /// Lets a schedule rest, or go on; all else that it says stays, byte for byte.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn pause_schedule(&mut self, name: &str, paused: bool) -> Result<Schedule, ClientError> {
        let unread = |error: serde_json::Error| ClientError::Answer(error.to_string());
        let answer = self.call("GET", &path_of(name, ""), b"").await?;
        let mut said: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(answer).map_err(unread)?;
        said.retain(|member, _| SAID.contains(&member.as_str()));
        said.insert("paused".to_owned(), to_raw_value(&paused).map_err(unread)?);
        let body = serde_json::to_vec(&said).map_err(unread)?;
        read(self.call("PUT", &path_of(name, ""), &body).await?)
    }

    /// Enqueues a schedule's task now.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn trigger_schedule(&mut self, name: &str) -> Result<Schedule, ClientError> {
        read(self.call("POST", &path_of(name, "/trigger"), b"").await?)
    }

    /// Takes a schedule away.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub async fn delete_schedule(&mut self, name: &str) -> Result<(), ClientError> {
        self.call("DELETE", &path_of(name, ""), b"").await.map(drop)
    }
}
