//! TaskQueues: observe, validate, build, apply, then status.

mod apply;
mod conditions;
mod observe;
mod status;
mod trouble;
mod validate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_crd::TaskQueue;
use futures_util::{Future, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{Controller, WatchStreamExt, watcher};

pub use self::conditions::{State, is_true};
pub use self::status::objective;
pub use self::validate::effective_policy;
use crate::build::MANAGED_SERVERS;
use crate::context::Context;
use crate::error::Error;
use crate::scope::{FixedPause, Policy, Queue, Scope, paced, watched};

/// Without a change: what is not watched (Secrets) is put right at the latest then.
const RESYNC: Duration = Duration::from_secs(30);
/// While something is not ready: what keeps it from that shows on its pods, which are not watched for it.
const WAITING: Duration = Duration::from_secs(5);
/// A reconcile ends within this time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is known of the cluster without asking again.
#[derive(Clone)]
pub struct Stores {
    /// TaskQueues.
    pub queues: Store<Queue>,
    /// Pods of servers.
    pub pods: Store<Pod>,
}

/// The controller of a scope, to be spawned, and what it sees.
pub fn controller(context: &Arc<Context>, scope: &Scope) -> (impl Future<Output = ()> + use<>, Stores) {
    let client = &context.client;
    let ours = || watched().labels("app.kubernetes.io/managed-by=brisq-operator");
    let controller = Controller::new(scope.api::<Queue>(client), watched());
    let queues = controller.store();
    let referred = queues.clone();
    let controller = controller
        .with_config(paced())
        .trigger_backoff(FixedPause)
        .owns(scope.api::<Deployment>(client), ours())
        .owns(scope.api::<StatefulSet>(client), ours())
        .owns(scope.api::<Service>(client), ours())
        .owns(scope.api::<ConfigMap>(client), ours())
        .owns(scope.api::<ServiceAccount>(client), ours())
        .owns(scope.api::<NetworkPolicy>(client), ours())
        .owns(scope.api::<PodDisruptionBudget>(client), ours())
        .watches(scope.api::<Policy>(client), watched(), move |policy| refer_to(&referred, &policy));
    let (reader, writer) = store();
    let pods = watcher(scope.api::<Pod>(client), watched().labels(MANAGED_SERVERS))
        .backoff(FixedPause)
        .reflect(writer)
        .for_each(|_| std::future::ready(()));
    let context = Arc::clone(context);
    let run = async move {
        let controller = controller.run(reconcile, on_error, context).for_each(|_| std::future::ready(()));
        tokio::join!(controller, pods);
    };
    (run, Stores { queues, pods: reader })
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

async fn reconcile(queue: Arc<Queue>, context: Arc<Context>) -> Result<Action, Error> {
    let ended = tokio::time::timeout(TIMEOUT, one(&queue, &context)).await;
    let result = ended.unwrap_or(Err(Error::TimedOut(TIMEOUT)));
    context.health.reconciled(result.is_ok());
    if result.is_ok() {
        context.backoff.succeeded(queue.namespace().unwrap_or_default(), queue.name_any());
    }
    result
}

fn on_error(queue: Arc<Queue>, error: &Error, context: Arc<Context>) -> Action {
    let (namespace, name) = (queue.namespace().unwrap_or_default(), queue.name_any());
    tracing::warn!(queue = name, %error, "a TaskQueue could not be reconciled; trying again");
    Action::requeue(context.backoff.failed(namespace, name, Instant::now(), rand::random()))
}

async fn one(queue: &Queue, context: &Context) -> Result<Action, Error> {
    let queue = match &queue.0 {
        Ok(queue) => queue,
        Err(invalid) => {
            tracing::error!(queue = queue.name_any(), error = invalid.error, "a TaskQueue cannot be read");
            status::write_unreadable(queue, &invalid.error, context).await?;
            return Ok(Action::await_change());
        }
    };
    // What it owns is deleted with it, by the API server.
    if queue.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let result = make_true(queue, context).await;
    let observed = observe::observe(queue, context).await?;
    status::write(queue, &observed, result.as_ref().err(), context).await?;
    match result {
        Err(error) if error.terminal().is_some() => Ok(Action::requeue(RESYNC)),
        result => result.map(|()| Action::requeue(if observed.is_ready() { RESYNC } else { WAITING })),
    }
}

async fn make_true(queue: &TaskQueue, context: &Context) -> Result<(), Error> {
    let observed = observe::observe(queue, context).await?;
    let plan = validate::validate(queue, &observed, context)?;
    if !is_settled(queue) {
        apply::refuse_names_of_others(&plan, context).await?;
    }
    apply::apply(&plan, &observed, context).await
}

/// Whether all of it was made before, as it is now.
fn is_settled(queue: &TaskQueue) -> bool {
    queue.status.as_ref().is_some_and(|status| {
        status.observed_generation == queue.metadata.generation
            && status.conditions.iter().any(|c| c.type_ == "Stalled" && c.status == "False")
    })
}
