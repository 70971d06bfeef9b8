//! Whether the server can work, asked of the store as seldom as that can be told: the route is open to everybody.

use std::time::Duration;

use brisq_store::Store;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// For how long an answer of the store counts.
const COUNTS_FOR: Duration = Duration::from_millis(500);

/// The last answer.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// Whether `store` can be worked with, or why not. Of those who ask together one asks the store, and the others wait
    /// for its answer.
    pub async fn judge(&self, store: &dyn Store) -> Result<(), String> {
        let mut last = self.0.lock().await;
        match &*last {
            Some((at, judged)) if at.elapsed() < COUNTS_FOR => judged.clone(),
            _ => {
                let judged = store.ready().await.map_err(|error| error.to_string());
                *last = Some((Instant::now(), judged.clone()));
                judged
            }
        }
    }
}
