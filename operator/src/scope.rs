//! Which namespaces are served, what is watched there, and how watches recover.

use std::time::Duration;

use brisq_crd::{ProfileCapture, ProfilingPolicy, TaskQueue};
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::utils::Backoff;
use kube::runtime::{controller, watcher};
use kube::{Client, Resource};

/// A TaskQueue, or why it cannot be read: one bad object must not stop the watch. The other kinds alike.
pub type Queue = DeserializeGuard<TaskQueue>;
pub type Policy = DeserializeGuard<ProfilingPolicy>;
pub type Capture = DeserializeGuard<ProfileCapture>;

/// All namespaces, or one.
#[derive(Clone, Debug)]
pub struct Scope(Option<String>);

/// One scope over everything, or one a listed namespace.
pub fn all(namespaces: &[String]) -> Vec<Scope> {
    match namespaces {
        [] => vec![Scope(None)],
        listed => listed.iter().map(|namespace| Scope(Some(namespace.clone()))).collect(),
    }
}

impl Scope {
    /// Objects of a kind in this scope.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.0 {
            None => Api::all(client.clone()),
            Some(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    /// The metadata of objects of a kind that is known by name.
    pub fn metadata(&self, client: &Client, resource: &ApiResource) -> Api<PartialObjectMeta<DynamicObject>> {
        match &self.0 {
            None => Api::all_with(client.clone(), resource),
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        }
    }
}

/// After a watch that failed, always the same pause. A growing one is shared by all watches of a controller and is not
/// reset by an API server that came back: five minutes after a stall new objects were still not seen.
#[derive(Clone, Copy, Debug)]
pub struct FixedPause;

const PAUSE: Duration = Duration::from_secs(1);

impl Iterator for FixedPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(PAUSE)
    }
}

impl Backoff for FixedPause {
    fn reset(&mut self) {}
}

/// Watches end after this long without a word, so that one whose server is frozen is not waited for.
const WATCH_SECONDS: u32 = 60;
/// Objects reconciled at a time.
const CONCURRENCY: u16 = 8;
/// Changes that come together are reconciled once.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// How everything is watched.
pub fn watched() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// How every controller works.
pub fn paced() -> controller::Config {
    controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE)
}
