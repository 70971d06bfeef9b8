use std::borrow::Cow;

use brisq_model::{Pause, limits};
use serde::Serialize;
use utoipa::ToSchema;

use crate::read::{Fields, Request};
use crate::{ApiError, PolicyView, rfc3339};

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
    /// Why it hands out nothing; left out while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseView>,
    /// Claims parked at this server, waiting for a task.
    pub claimers_waiting: u64,
    /// What holds for its tasks; left out in lists of queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyView>,
    /// Who says what its policy is, where that is not `PUT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<ManagedBy>,
}

/// Who says what a queue's policy is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ManagedBy {
    /// The manifest that this server follows declares the queue.
    Manifest,
}

/// A pause: the queue takes tasks and every act on a lease, and hands out nothing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PauseView {
    /// When it began, by the store's clock.
    #[schema(format = DateTime)]
    pub since: String,
    /// Name of the token that asked for it last; left out where no tokens are needed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// The reason that was given last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl PauseView {
    #[must_use]
    pub fn of(pause: Pause) -> Self {
        let Pause { since, by, reason } = pause;
        Self { since: rfc3339(since), by, reason }
    }
}

/// Body of a pause; `{}` gives no reason.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PauseRequest<'a> {
    /// For those who ask why nothing moves, 1,024 bytes at most.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> for PauseRequest<'a> {
    const FIELDS: &'static [&'static str] = &["reason"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        Ok(Self { reason: fields.text("reason")? })
    }
}

impl PauseRequest<'_> {
    /// The reason, empty where none is given.
    ///
    /// # Errors
    /// When it is too long.
    pub fn into_reason(self) -> Result<String, ApiError> {
        let reason = self.reason.map(Cow::into_owned).unwrap_or_default();
        if reason.len() > limits::PAUSE_REASON_MAX_BYTES {
            let message = format!("`reason` has at most {} bytes.", limits::PAUSE_REASON_MAX_BYTES);
            return Err(ApiError::invalid_field("reason", message));
        }
        Ok(reason)
    }
}

/// Number of tasks in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct StateCounts {
    /// Not claimable yet.
    pub delayed: u64,
    /// Held back by a gate of their keys.
    pub blocked: u64,
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
