//! What the watches keep. All that a reconcile and a look at the objective want to know of the cluster comes from here: a
//! TaskQueue at rest costs the API server nothing but the watches.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use brisq_crd::TaskQueue;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use crate::build::managed;
use crate::scope::{FixedPause, Policy, Queue, Scope, watched};

/// An object of which only the metadata is kept.
type Meta = PartialObjectMeta<DynamicObject>;

/// What is known of a scope without asking.
#[derive(Clone)]
pub struct Stores {
    pub queues: Store<Queue>,
    pub policies: Store<Policy>,
    /// Pods of servers and Redis, without their specs.
    pub pods: Store<Pod>,
    pub deployments: Store<Deployment>,
    pub stateful_sets: Store<StatefulSet>,
    /// Other children, by kind.
    plain: HashMap<String, (ApiResource, Store<Meta>)>,
    synced: Arc<OnceCell<()>>,
}

impl Stores {
    /// The controller of a scope's TaskQueues, with the watches that fill its stores.
    pub fn watch(client: &Client, scope: &Scope) -> (Controller<Queue>, Self) {
        let controller = Controller::new(scope.api::<Queue>(client), watched());
        let queues = controller.store();
        let ours = || watched().labels(&managed());
        let (policies, policy_changes) = kept(scope.api::<Policy>(client), watched(), |_| {});
        let (pods, pod_changes) = kept(scope.api::<Pod>(client), ours(), |pod| pod.spec = None);
        let (deployments, deployment_changes) = kept(scope.api::<Deployment>(client), ours(), |_| {});
        let (stateful_sets, set_changes) = kept(scope.api::<StatefulSet>(client), ours(), |_| {});
        let referred = queues.clone();
        let mut controller = controller
            .owns_stream(deployment_changes)
            .owns_stream(set_changes)
            .watches_stream(pod_changes, |pod| queue_of(&pod))
            .watches_stream(policy_changes, move |policy| refer_to(&referred, &policy));
        let mut plain = HashMap::new();
        for resource in plain_kinds() {
            let (store, changes) = kept_metadata(scope.metadata(client, &resource), &resource);
            controller = controller.owns_stream_with(changes, resource.clone());
            plain.insert(resource.kind.clone(), (resource, store));
        }
        let synced = Arc::default();
        (controller, Self { queues, policies, pods, deployments, stateful_sets, plain, synced })
    }

    /// Returns once every store but that of the TaskQueues has been filled: before, all that is there would look as if it were
    /// not. One caller waits for the watches and all others for it, since kube wakes only the last waiter of a store.
    pub async fn synced(&self) {
        let fill = || async {
            // A writer is dropped when the controllers are: then nobody waits any more.
            let _ = self.policies.wait_until_ready().await;
            let _ = self.pods.wait_until_ready().await;
            let _ = self.deployments.wait_until_ready().await;
            let _ = self.stateful_sets.wait_until_ready().await;
            for (_, store) in self.plain.values() {
                let _ = store.wait_until_ready().await;
            }
        };
        self.synced.get_or_init(fill).await;
    }

    /// Whether changes of a kind are seen. Secrets are not watched: to watch is to read.
    pub fn watches(&self, kind: &str) -> bool {
        ["Deployment", "StatefulSet"].contains(&kind) || self.plain.contains_key(kind)
    }

    /// The metadata of a child of a watched kind.
    pub fn metadata(&self, kind: &str, namespace: &str, name: &str) -> Option<ObjectMeta> {
        match kind {
            "Deployment" => found(&self.deployments, namespace, name).map(|found| found.metadata.clone()),
            "StatefulSet" => found(&self.stateful_sets, namespace, name).map(|found| found.metadata.clone()),
            _ => {
                let (resource, store) = self.plain.get(kind)?;
                found_of(resource, store, namespace, name).map(|found| found.metadata.clone())
            }
        }
    }

    /// The policy that a TaskQueue refers to.
    pub fn policy_of(&self, queue: &TaskQueue) -> Option<Arc<Policy>> {
        let policy = queue.spec.profiling.policy_ref.as_ref()?;
        found(&self.policies, &queue.namespace().unwrap_or_default(), &policy.name)
    }

    /// All pods of a TaskQueue.
    pub fn pods_of(&self, queue: &TaskQueue) -> Vec<Arc<Pod>> {
        let reference = ObjectRef::from_obj(queue);
        let own = |pod: &Pod| {
            queue_of(pod).is_some_and(|of| of.name == reference.name && of.namespace == reference.namespace)
        };
        self.pods.state().into_iter().filter(|pod| own(pod)).collect()
    }

    /// The pods of all TaskQueues, by namespace and name of theirs.
    pub fn pods_by_queue(&self) -> HashMap<(String, String), Vec<Arc<Pod>>> {
        by_queue(&self.pods)
    }
}

fn by_queue(pods: &Store<Pod>) -> HashMap<(String, String), Vec<Arc<Pod>>> {
    let mut found: HashMap<_, Vec<Arc<Pod>>> = HashMap::new();
    for pod in pods.state() {
        if let Some(ObjectRef { name, namespace: Some(namespace), .. }) = queue_of(&pod) {
            found.entry((namespace, name)).or_default().push(pod);
        }
    }
    found
}

/// An object of a store.
pub fn found<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

/// The same of a kind that is known by its description: by its key, since a store has the children of all TaskQueues.
fn found_of(resource: &ApiResource, store: &Store<Meta>, namespace: &str, name: &str) -> Option<Arc<Meta>> {
    store.get(&ObjectRef::new_with(name, resource.clone()).within(namespace))
}

/// TaskQueues that a policy is in force for.
pub fn refer_to(queues: &Store<Queue>, policy: &Policy) -> Vec<ObjectRef<Queue>> {
    let refers = |queue: &Queue| {
        let spec = queue.0.as_ref().ok().map(|queue| &queue.spec);
        let name = spec.and_then(|spec| spec.profiling.policy_ref.as_ref()).map(|policy| &policy.name);
        queue.namespace() == policy.namespace() && name == Some(&policy.name_any())
    };
    queues.state().iter().filter(|queue| refers(queue)).map(|queue| ObjectRef::from_obj(&**queue)).collect()
}

/// The TaskQueue that a pod works for, by its label: a ReplicaSet stands between the two.
fn queue_of(pod: &Pod) -> Option<ObjectRef<Queue>> {
    let name = pod.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

fn plain_kinds() -> [ApiResource; 5] {
    [
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
    ]
}

type Changes<K> = std::pin::Pin<Box<dyn Stream<Item = Result<K, watcher::Error>> + Send>>;

/// A store, and the changes that reach it.
fn kept<K>(api: Api<K>, config: watcher::Config, thin: fn(&mut K)) -> (Store<K>, Changes<K>)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    keep(watcher(api, config), Writer::default(), thin)
}

fn kept_metadata(api: Api<Meta>, resource: &ApiResource) -> (Store<Meta>, Changes<Meta>) {
    let changes = watcher(api, watched().labels(&managed()));
    keep(changes, Writer::new(resource.clone()), |_| {})
}

fn keep<K>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
    writer: Writer<K>,
    thin: fn(&mut K),
) -> (Store<K>, Changes<K>)
where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    let store = writer.as_reader();
    let changes = events
        .backoff(FixedPause)
        .modify(move |object| {
            object.meta_mut().managed_fields = None;
            thin(object);
        })
        .reflect(writer)
        .touched_objects()
        // A watch that failed has paused by itself; told on, its error would make all others pause with it.
        .filter_map(|change| std::future::ready(change.inspect_err(missed).ok().map(Ok)));
    (store, changes.boxed())
}

fn missed(error: &watcher::Error) {
    tracing::debug!(%error, "a watch failed; it begins anew");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_found_by_kind_namespace_and_name() {
        let resource = ApiResource::erase::<Service>(&());
        let mut writer = Writer::new(resource.clone());
        let service = |namespace: &str, name: &str| {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            };
            Meta { types: None, metadata, _phantom: std::marker::PhantomData }
        };
        for (namespace, name) in [("shop", "orders"), ("shop", "emails"), ("shelf", "orders")] {
            writer.apply_watcher_event(&watcher::Event::Apply(service(namespace, name)));
        }
        let store = writer.as_reader();
        for (namespace, name, there) in
            [("shop", "orders", true), ("shelf", "orders", true), ("shelf", "emails", false)]
        {
            let found = found_of(&resource, &store, namespace, name);
            let key = found.map(|found| (found.namespace().unwrap_or_default(), found.name_any()));
            assert_eq!(key, there.then(|| (namespace.to_owned(), name.to_owned())));
        }
    }

    #[test]
    fn pods_are_found_by_the_task_queue_that_they_work_for() {
        let mut writer = Writer::default();
        let pod = |namespace: &str, queue: Option<&str>, name: &str| {
            let label = queue.map(|queue| ("app.kubernetes.io/instance".to_owned(), queue.to_owned()));
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(label.into_iter().collect()),
                ..ObjectMeta::default()
            };
            Pod { metadata, ..Pod::default() }
        };
        for (namespace, queue, name) in [
            ("shop", Some("orders"), "a"),
            ("shop", Some("orders"), "b"),
            ("shop", Some("emails"), "c"),
            ("shelf", Some("orders"), "d"),
            ("shop", None, "orders"),
        ] {
            writer.apply_watcher_event(&watcher::Event::Apply(pod(namespace, queue, name)));
        }
        let mut found: Vec<_> = by_queue(&writer.as_reader())
            .into_iter()
            .map(|((namespace, queue), pods)| {
                let mut names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
                names.sort();
                (namespace, queue, names.concat())
            })
            .collect();
        found.sort();
        let rows = [("shelf", "orders", "d"), ("shop", "emails", "c"), ("shop", "orders", "ab")];
        assert_eq!(found, rows.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }
}
