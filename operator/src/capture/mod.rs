//! ProfileCaptures: from the order to the bundle. Sidecars do the work; here it is ordered again until it is done, and told.

mod conditions;
mod drive;
pub mod retention;

use std::sync::Arc;
use std::time::Duration;

use brisq_crd::{ProfileCapture, ProfileCaptureStatus, TaskQueue};
use futures_util::{Future, StreamExt};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::scope::{Capture, FixedPause, Scope, paced, watched};
use crate::status::{self, Against};
use crate::task_queue::{Stores, is_true};

const MANAGER: &str = "brisq-operator/status";
/// Sidecars are asked this often while a capture is being made.
const ASK_EVERY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(30);

struct Captures {
    context: Arc<Context>,
    stores: Stores,
    /// All captures of the scope.
    known: Store<Capture>,
}

/// The controller of a scope, to be spawned, and the captures that it sees.
pub fn controller(
    context: &Arc<Context>,
    scope: &Scope,
    stores: Stores,
) -> (impl Future<Output = ()> + use<>, Store<Capture>) {
    let controller = Controller::new(scope.api::<Capture>(&context.client), watched())
        .with_config(paced())
        .trigger_backoff(FixedPause);
    let known = controller.store();
    let all = Arc::new(Captures { context: Arc::clone(context), stores, known: known.clone() });
    let run = controller.run(reconcile, on_error, all).for_each(|_| std::future::ready(()));
    (run, known)
}

fn on_error(capture: Arc<Capture>, error: &Error, _: Arc<Captures>) -> Action {
    tracing::warn!(capture = capture.name_any(), %error, "a capture could not be driven; trying again");
    Action::requeue(ASK_EVERY)
}

async fn reconcile(capture: Arc<Capture>, all: Arc<Captures>) -> Result<Action, Error> {
    let ended = tokio::time::timeout(TIMEOUT, one(&capture, &all)).await;
    let result = ended.unwrap_or(Err(Error::TimedOut(TIMEOUT)));
    all.context.health.reconciled(result.is_ok());
    result
}

async fn one(capture: &Capture, all: &Captures) -> Result<Action, Error> {
    let capture = match &capture.0 {
        Ok(capture) => capture,
        Err(invalid) => {
            tracing::error!(capture = capture.name_any(), error = invalid.error, "a capture cannot be read");
            return Ok(Action::await_change());
        }
    };
    let before = capture.status.clone().unwrap_or_default();
    if conditions::is_final(&before.conditions) || capture.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    all.stores.synced().await;
    let namespace = capture.namespace().unwrap_or_default();
    let queues: Api<TaskQueue> = Api::namespaced(all.context.client.clone(), &namespace);
    let queue = queues.get_opt(&capture.spec.task_queue_ref.name).await?;
    let status = if drive::is_new(&before) && retention::is_over_quota(capture, &all.known) {
        drive::suppressed(capture)
    } else {
        drive::drive(capture, queue.as_ref(), &all.stores, &all.context).await?
    };
    if status != before {
        write(capture, queue.as_ref(), &before, &status, &all.context).await?;
        tell(capture, queue.as_ref(), &status, &all.context).await;
    }
    if conditions::is_final(&status.conditions) {
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(ASK_EVERY))
}

async fn write(
    capture: &ProfileCapture,
    queue: Option<&TaskQueue>,
    before: &ProfileCaptureStatus,
    status: &ProfileCaptureStatus,
    context: &Context,
) -> Result<(), Error> {
    // One that a user made goes with its TaskQueue too.
    if let Some(owner) =
        queue.and_then(|queue| queue.owner_ref(&())).filter(|_| capture.owner_references().is_empty())
    {
        let owned = json!({
            "apiVersion": ProfileCapture::api_version(&()),
            "kind": ProfileCapture::kind(&()),
            "metadata": {"name": capture.name_any(), "ownerReferences": [owner]},
        });
        let api: Api<ProfileCapture> =
            Api::namespaced(context.client.clone(), &capture.namespace().unwrap_or_default());
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&capture.name_any(), &params, &Patch::Apply(&owned)).await?;
    }
    status::write(capture, &json!(before), json!(status), MANAGER, Against::Any, &context.client).await
}

async fn tell(
    capture: &ProfileCapture,
    queue: Option<&TaskQueue>,
    status: &ProfileCaptureStatus,
    context: &Context,
) {
    let is = |kind: &str| is_true(&status.conditions, kind);
    let name = capture.name_any();
    let (warning, reason, note) = if is("Failed") {
        (
            true,
            "CaptureFailed",
            format!("ProfileCapture {name} failed: {}", conditions::message(&status.conditions, "Failed")),
        )
    } else if is("Complete") {
        let cause = status.cause.as_deref().unwrap_or("Unknown");
        (false, "CaptureComplete", format!("ProfileCapture {name} is complete: {cause}"))
    } else {
        return;
    };
    context.tell(capture, warning, reason, note.clone()).await;
    if let Some(queue) = queue {
        context.tell(queue, warning, reason, note).await;
    }
}
