use std::collections::HashMap;
use std::time::Instant;

use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource};
use parking_lot::Mutex;

use crate::backoff::Backoff;
use crate::health::Health;
use crate::secrets::Key;
use crate::settings::Settings;
use crate::status::cut;

/// What all controllers share.
pub struct Context {
    pub client: Client,
    pub settings: Settings,
    /// The operator's own.
    pub namespace: String,
    pub key: Key,
    pub health: Health,
    /// Pauses of TaskQueues that fail.
    pub backoff: Backoff,
    /// Since when a capture's author cannot be reached, by namespace and name of the capture.
    pub unreachable: Mutex<HashMap<(String, String), Instant>>,
    events: Recorder,
}

impl Context {
    pub fn new(client: Client, settings: Settings, namespace: String, key: Key, events: Recorder) -> Self {
        Self {
            client,
            settings,
            namespace,
            key,
            health: Health::default(),
            backoff: Backoff::default(),
            unreachable: Mutex::default(),
            events,
        }
    }

    /// Tells people by an Event. One that cannot be written costs nothing but itself.
    pub async fn tell<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        warning: bool,
        reason: &str,
        mut note: String,
    ) {
        cut(&mut note);
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, &about.object_ref(&())).await {
            tracing::warn!(%error, reason, "an event could not be written");
        }
    }
}
