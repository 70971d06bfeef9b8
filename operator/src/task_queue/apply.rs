use brisq_crd::Quantity;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::observe::Observed;
use crate::build::{absent, children};
use crate::context::Context;
use crate::error::Error;
use crate::plan::Plan;

/// Field manager of everything that is built.
const MANAGER: &str = "brisq-operator/children";

/// Makes the plan true. A child that is as it should be is not changed: its version stays.
pub async fn apply(plan: &Plan, observed: &Observed, context: &Context) -> Result<(), Error> {
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(MANAGER).force()
    };
    for child in children(plan) {
        let name = child.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        api_of(&context.client, &child, &plan.namespace)?
            .patch(&name, &params, &Patch::Apply(&child))
            .await?;
    }
    for (kind, name) in absent(plan) {
        delete_own(plan, kind, &name, context).await?;
    }
    // At the end: a volume that cannot grow keeps nothing else from what it is to be.
    grow_claim(plan, observed, context).await
}

/// Refuses to take over what somebody else made under a name of ours: it would be changed, and deleted with the TaskQueue.
pub async fn refuse_names_of_others(plan: &Plan, context: &Context) -> Result<(), Error> {
    for child in children(plan) {
        let text = |path: &str| child.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let labels = child.pointer("/metadata/labels").and_then(Value::as_object);
        // A patch that only tests changes nothing, and needs no right to read.
        let tests = labels.into_iter().flatten().map(|(label, value)| {
            json!({"op": "test", "path": format!("/metadata/labels/{}", label.replace('/', "~1")), "value": value})
        });
        let ours = serde_json::from_value(tests.collect()).map_err(kube::Error::SerdeError)?;
        let name = text("/metadata/name");
        let api = api_of(&context.client, &child, &plan.namespace)?;
        match api.patch(name, &PatchParams::default(), &Patch::Json::<()>(ours)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(kube::Error::Api(status)) if status.code == 422 => {
                let kind = text("/kind");
                let message = format!(
                    "{kind} {name} is there and is not of this TaskQueue: delete it, or give the TaskQueue another name"
                );
                return Err(Error::Terminal { reason: "NameTaken", message });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn api_of(client: &Client, child: &Value, namespace: &str) -> Result<Api<DynamicObject>, Error> {
    let text = |field: &str| child.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let types = TypeMeta { api_version: text("apiVersion"), kind: text("kind") };
    let gvk = GroupVersionKind::try_from(types).map_err(|error| Error::Terminal {
        reason: "InternalError",
        message: format!("an object of ours has no kind: {error}"),
    })?;
    Ok(Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&gvk)))
}

/// A volume can grow; the template of its StatefulSet cannot be changed and stays as it was.
async fn grow_claim(plan: &Plan, observed: &Observed, context: &Context) -> Result<(), Error> {
    let (Some(standalone), Some(claim)) = (plan.standalone(), &observed.claim) else { return Ok(()) };
    let wanted = &standalone.storage.size;
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let has = requests.and_then(|requests| requests.get("storage")).map(|size| Quantity(size.0.clone()));
    let (Some(wanted_bytes), Some(has_bytes)) = (wanted.value(), has.and_then(|size| size.value())) else {
        return Ok(());
    };
    if wanted_bytes <= has_bytes {
        return Ok(());
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &plan.namespace);
    let grown = json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
    let name = claim.name_any();
    let told = claims.patch(&name, &PatchParams::default(), &Patch::Merge(&grown)).await;
    told.map_err(Error::from).map_err(|error| match error.terminal() {
        Some((_, said)) => {
            let message = format!("PersistentVolumeClaim {name} cannot grow to {wanted}: {said}");
            Error::Terminal { reason: "VolumeNotGrown", message }
        }
        None => error,
    })?;
    tracing::info!(claim = name, %wanted, "a volume is told to grow");
    Ok(())
}

/// Deletes what this TaskQueue had, and nothing of the same name that somebody else made.
async fn delete_own(plan: &Plan, kind: &str, name: &str, context: &Context) -> Result<(), Error> {
    debug_assert_eq!(kind, "PodDisruptionBudget", "the only kind that comes and goes");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(context.client.clone(), &plan.namespace);
    let Some(found) = budgets.get_opt(name).await? else { return Ok(()) };
    if found.owner_references().iter().any(|owner| owner.uid == plan.owner.uid) {
        budgets.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}
