//! Who looks at the page, and what they were shown last.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use brisq_api::QueueView;
use brisq_model::{QueueName, TenantName};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::watch::Watch;

/// Pages that are looked at, at once.
pub const STREAMS_MAX: usize = 64;

/// What a page is told, or what is wrong.
pub type Seen = Result<Arc<Snapshot>, String>;

/// Who looks at the page.
#[derive(Debug)]
pub struct Viewers {
    pub places: Arc<Semaphore>,
    /// One look at the store for each tenant that somebody looks at.
    pub looks: Mutex<HashMap<TenantName, Weak<watch::Sender<Option<Seen>>>>>,
}

impl Default for Viewers {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS_MAX)), looks: Mutex::default() }
    }
}

#[derive(Debug)]
pub struct Snapshot {
    pub store: String,
    pub rows: Vec<Row>,
    pub watch: Watch,
}

#[derive(Debug)]
pub struct Row {
    pub name: QueueName,
    pub view: QueueRow,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueRow {
    #[serde(flatten)]
    pub queue: QueueView,
    pub enqueued_total: u64,
    pub completed_total: u64,
    pub claimed_total: u64,
}
