//! TaskQueues: observe, validate, build, apply, then status.

mod apply;
mod conditions;
mod memory;
mod observe;
mod status;
mod stores;
mod trouble;
mod validate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_crd::TaskQueue;
use futures_util::{Future, StreamExt};
use kube::ResourceExt;
use kube::runtime::controller::{Action, Error as Ended};

use self::apply::Apply;
pub use self::conditions::{State, is_true};
use self::memory::{LAG, Memories, Memory};
use self::observe::Observed;
pub use self::status::objective;
pub use self::stores::{Stores, found, refer_to};
pub use self::validate::effective_policy;
use crate::context::Context;
use crate::error::Error;
use crate::scope::{FixedPause, Queue, Scope, paced};

/// While something is not ready: a pod that begins is late after a while, and no change tells of that.
const WAITING: Duration = Duration::from_secs(15);
/// While nothing can be done: what hinders (a quota, a policy, a missing right) may end without a change that is watched.
const STALLED: Duration = Duration::from_secs(30);
/// A reconcile ends within this time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The TaskQueues of a scope.
struct Queues {
    context: Arc<Context>,
    stores: Stores,
    memories: Memories,
}

/// The controller of a scope, to be spawned, and what it sees.
pub fn controller(context: &Arc<Context>, scope: &Scope) -> (impl Future<Output = ()> + use<>, Stores) {
    let (controller, stores) = Stores::watch(&context.client, scope);
    let queues =
        Queues { context: Arc::clone(context), stores: stores.clone(), memories: Memories::default() };
    let queues = Arc::new(queues);
    let run = controller
        .with_config(paced())
        .trigger_backoff(FixedPause)
        .run(reconcile, on_error, Arc::clone(&queues))
        .for_each(move |ended| {
            if let Err(Ended::ObjectNotFound(gone)) = ended {
                queues.memories.forget(&(gone.namespace.unwrap_or_default(), gone.name));
            }
            std::future::ready(())
        });
    (run, stores)
}

async fn reconcile(queue: Arc<Queue>, queues: Arc<Queues>) -> Result<Action, Error> {
    let ended = tokio::time::timeout(TIMEOUT, queues.one(&queue)).await;
    let result = ended.unwrap_or(Err(Error::TimedOut(TIMEOUT)));
    queues.context.health.reconciled(result.is_ok());
    if result.is_ok() {
        queues.context.backoff.succeeded(queue.namespace().unwrap_or_default(), queue.name_any());
    }
    result
}

fn on_error(queue: Arc<Queue>, error: &Error, queues: Arc<Queues>) -> Action {
    let (namespace, name) = (queue.namespace().unwrap_or_default(), queue.name_any());
    tracing::warn!(queue = name, %error, "a TaskQueue could not be reconciled; trying again");
    Action::requeue(queues.context.backoff.failed(namespace, name, Instant::now(), rand::random()))
}

impl Queues {
    async fn one(&self, queue: &Queue) -> Result<Action, Error> {
        let queue = match &queue.0 {
            Ok(queue) => queue,
            Err(invalid) => {
                tracing::error!(
                    queue = queue.name_any(),
                    error = invalid.error,
                    "a TaskQueue cannot be read"
                );
                status::write_unreadable(queue, &invalid.error, &self.context).await?;
                return Ok(Action::await_change());
            }
        };
        // What it owns is deleted with it, by the API server.
        if queue.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        self.stores.synced().await;
        let key = (queue.namespace().unwrap_or_default(), queue.name_any());
        let of = (queue.metadata.uid.as_deref().unwrap_or_default(), queue.metadata.generation);
        let mut memory = self.memories.take(&key, of, |kind| self.stores.watches(kind), Instant::now());
        let result = self.make_true(queue, &mut memory).await;
        let observed = observe::of_watches(queue, &self.stores);
        let action = self.settle(&result, &observed, &mut memory);
        self.memories.put(key, memory);
        status::write(queue, &observed, result.as_ref().err(), &self.context).await?;
        match result {
            Err(error) if error.terminal().is_none() => Err(error),
            _ => Ok(action),
        }
    }

    async fn make_true(&self, queue: &TaskQueue, memory: &mut Memory) -> Result<(), Error> {
        let client = &self.context.client;
        let observed = observe::observe(queue, &self.stores, memory, client).await?;
        let plan = validate::validate(queue, &observed, &self.context)?;
        let apply = Apply { plan: &plan, stores: &self.stores, memory, client };
        apply.all(&observed.claims).await
    }

    /// When to look again, without a change.
    fn settle(&self, result: &Result<(), Error>, observed: &Observed, memory: &mut Memory) -> Action {
        let now = Instant::now();
        let ready = result.is_ok() && observed.is_ready();
        if ready {
            memory.settled();
        } else {
            memory.unsettled(now);
        }
        Action::requeue(match result {
            Err(_) => STALLED,
            Ok(()) if memory.unclear => LAG,
            Ok(()) if ready => memory.until_resync(now),
            Ok(()) => WAITING,
        })
    }
}
