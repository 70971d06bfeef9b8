use std::time::Instant;

use brisq_crd::Quantity;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions,
    ValidationDirective,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::memory::{Claims, Memory, Standing};
use super::stores::Stores;
use crate::build::{Child, absent, children};
use crate::error::Error;
use crate::plan::Plan;
use crate::secrets::is_conflict;

/// Field manager of everything that is built.
const MANAGER: &str = "brisq-operator/children";
/// A version of the store before anything was written to it.
const NO_VERSION: &str = "1";

/// Makes a plan true.
pub struct Apply<'a> {
    pub plan: &'a Plan,
    pub stores: &'a Stores,
    pub memory: &'a mut Memory,
    pub client: &'a Client,
}

impl Apply<'_> {
    /// Applies each child that is not as it was applied last. Pods come last: none is made beside what belongs to somebody else.
    pub async fn all(mut self, claims: &Claims) -> Result<(), Error> {
        self.memory.unclear = false;
        for child in children(self.plan) {
            let seen = self.seen(&child.resource, &child.name);
            let watched = self.stores.watches(&child.resource.kind);
            match self.memory.standing(&child, watched, seen.as_ref(), Instant::now()) {
                Standing::Current => {}
                Standing::Unclear => self.memory.unclear = true,
                Standing::Due => {
                    let is = self.one(&child).await?;
                    self.memory.applied(&child, &is, Instant::now());
                }
            }
        }
        for (resource, name) in absent(self.plan) {
            self.delete(&resource, &name).await?;
        }
        // At the end: a volume that cannot grow keeps nothing else from what it is to be.
        self.grow(claims).await
    }

    async fn one(&self, child: &Child) -> Result<ObjectMeta, Error> {
        if !self.is_known(child) {
            if let Some(made) = self.make(child).await? {
                return Ok(made);
            }
            self.refuse_if_foreign(child).await?;
        }
        Ok(self.patch(child, &child.object).await?.metadata)
    }

    /// Makes a child where there is none of its name, in one step: applied with a version that no object has, it is refused where
    /// there is one.
    async fn make(&self, child: &Child) -> Result<Option<ObjectMeta>, Error> {
        let mut object = child.object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), NO_VERSION.into());
        }
        match self.patch(child, &object).await {
            Ok(made) => Ok(Some(made.metadata)),
            Err(kube::Error::Api(status)) if is_conflict(&status) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn patch(&self, child: &Child, object: &Value) -> kube::Result<DynamicObject> {
        let params = PatchParams {
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply(MANAGER).force()
        };
        self.api(&child.resource).patch(&child.name, &params, &Patch::Apply(object)).await
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.plan.namespace, resource)
    }

    fn seen(&self, resource: &ApiResource, name: &str) -> Option<ObjectMeta> {
        self.stores.metadata(&resource.kind, &self.plan.namespace, name)
    }

    /// Whether the watches or this process know the object as one of this TaskQueue.
    fn is_known(&self, child: &Child) -> bool {
        let seen = self.seen(&child.resource, &child.name);
        match seen {
            Some(seen) => self.owns(&seen),
            None => !self.stores.watches(&child.resource.kind) && self.memory.has(child),
        }
    }

    fn owns(&self, object: &ObjectMeta) -> bool {
        object.owner_references.iter().flatten().any(|owner| owner.uid == self.plan.owner.uid)
    }

    /// What somebody else made under a name of ours would be changed, and deleted with the TaskQueue.
    async fn refuse_if_foreign(&self, child: &Child) -> Result<(), Error> {
        let owned =
            json!([{"op": "test", "path": "/metadata/ownerReferences/0/uid", "value": self.plan.owner.uid}]);
        let labels = child.object.pointer("/metadata/labels").and_then(Value::as_object);
        let label = |(label, value): (&String, &Value)| json!({"op": "test", "path": format!("/metadata/labels/{}", label.replace('/', "~1")), "value": value});
        // Of a TaskQueue of the same name that was deleted without its children.
        let orphaned = json!([{"op": "test", "path": "/metadata/ownerReferences", "value": null}]);
        let orphaned: Value = labels
            .into_iter()
            .flatten()
            .map(label)
            .chain(orphaned.as_array().cloned().unwrap_or_default())
            .collect();
        for ours in [owned, orphaned] {
            if self.test(&child.resource, &child.name, ours).await? != Tested::No {
                return Ok(());
            }
        }
        let (kind, name) = (&child.resource.kind, &child.name);
        let message = format!(
            "{kind} {name} is there and is not of this TaskQueue: delete it, or give the TaskQueue another name"
        );
        Err(Error::Terminal { reason: "NameTaken", message })
    }

    /// A patch that only tests changes nothing, and needs no right to read.
    async fn test(&self, resource: &ApiResource, name: &str, tests: Value) -> Result<Tested, Error> {
        let tests = serde_json::from_value(tests).map_err(kube::Error::SerdeError)?;
        match self.api(resource).patch(name, &PatchParams::default(), &Patch::Json::<()>(tests)).await {
            Ok(is) => Ok(Tested::Yes(is.uid())),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Tested::Absent),
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(Tested::No),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what this TaskQueue had, and nothing of the same name that somebody else made.
    async fn delete(&mut self, resource: &ApiResource, name: &str) -> Result<(), Error> {
        let key = (resource.kind.clone(), name.to_owned());
        let uid = if self.stores.watches(&resource.kind) {
            self.seen(resource, name).filter(|seen| self.owns(seen)).and_then(|seen| seen.uid)
        } else if self.memory.gone.contains(&key) {
            None
        } else {
            let ours = json!([{"op": "test", "path": "/metadata/ownerReferences/0/uid", "value": self.plan.owner.uid}]);
            match self.test(resource, name, ours).await? {
                Tested::Yes(uid) => uid,
                Tested::No | Tested::Absent => None,
            }
        };
        if let Some(uid) = uid {
            let only = Preconditions { uid: Some(uid), resource_version: None };
            match self.api(resource).delete(name, &DeleteParams::default().preconditions(only)).await {
                Ok(_) => {
                    tracing::info!(kind = resource.kind, name, "what a TaskQueue needs no more is deleted");
                }
                // Gone already, or another of that name.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.memory.gone.retain(|gone| *gone != key);
        self.memory.gone.push(key);
        Ok(())
    }

    /// A volume can grow; the template of its StatefulSet cannot be changed and stays as it was.
    async fn grow(&mut self, claims: &Claims) -> Result<(), Error> {
        let (Some(standalone), Some(claim)) = (self.plan.standalone(), &claims.redis) else { return Ok(()) };
        let wanted = &standalone.storage.size;
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let has = requests.and_then(|requests| requests.get("storage")).map(|size| Quantity(size.0.clone()));
        let (Some(wanted_bytes), Some(has_bytes)) = (wanted.value(), has.and_then(|size| size.value()))
        else {
            return Ok(());
        };
        if wanted_bytes <= has_bytes {
            return Ok(());
        }
        // What comes of it is asked for the next time.
        self.memory.claims = None;
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.plan.namespace);
        let grown = json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
        let name = claim.name_any();
        let told = api.patch(&name, &PatchParams::default(), &Patch::Merge(&grown)).await;
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
}

/// What came of a patch that tests.
#[derive(Debug, PartialEq, Eq)]
enum Tested {
    /// It passed, at the object of this uid.
    Yes(Option<String>),
    /// It failed.
    No,
    /// There is no such object.
    Absent,
}
