//! One Bundle: applied, pruned, removed.
//!
//! In: what the hub wants of it, its inventory. Out: what is in the member now, and what went wrong with which object. A
//! bad object is left out alone; nothing is pruned while something could not be applied; nothing is touched that isn't ours.

use atoll_api::guard::{self, OptIn};
use atoll_api::kinds::{BUNDLE_LABEL, FIELD_MANAGER};
use atoll_api::topology::DesiredBundle;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::inventory::{self, Inventory, OBJECTS_MAX, Owned, owner};
use super::kinds::{Kind, Kinds};
use crate::error::AgentError;
use crate::namespace;

/// Annotation by which a member's operator hands an existing object over to a Bundle (`namespace/name`).
const ADOPT: &str = "atoll.dev/adopt";

/// What it takes to act in the member.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) client: kube::Client,
    pub(crate) kinds: Kinds,
    pub(crate) opt_in: OptIn,
}

/// An object as it was when we applied it.
#[derive(Debug, Clone)]
pub(crate) struct AppliedObject {
    pub(crate) place: Owned,
    pub(crate) kind: Kind,
    pub(crate) generation: Option<i64>,
    pub(crate) resource_version: String,
}

/// How applying a Bundle went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) inventory: Inventory,
    pub(crate) objects: Vec<AppliedObject>,
    /// What could not be applied, and why.
    pub(crate) failures: Vec<String>,
}

impl Hands {
    /// Brings a Bundle to what the hub wants. `before` is its inventory.
    ///
    /// # Errors
    /// When the member's API can't be reached or the inventory can't be written. What fails for one object is in the outcome.
    pub(crate) async fn apply(&self, bundle: &DesiredBundle, before: &Inventory) -> Result<Outcome, AgentError> {
        let name = format!("{}/{}", bundle.namespace, bundle.name);
        let mut outcome = Outcome { inventory: before.clone(), ..Outcome::default() };
        outcome.inventory.bundle.clone_from(&name);
        let mut checked = Vec::new();
        for manifest in manifests(bundle) {
            match self.check(&manifest, bundle).await {
                Ok((kind, place)) => checked.push((kind, place, manifest)),
                Err(why) => outcome.failures.push(format!("{}: {why}", label(&manifest))),
            }
        }
        if checked.len() > OBJECTS_MAX {
            outcome.failures.push(format!("{} objects, {OBJECTS_MAX} are allowed", checked.len()));
            return Ok(outcome);
        }
        // Written down before it is done.
        for (_, place, _) in &checked {
            outcome.inventory.include(place);
        }
        if outcome.inventory != *before {
            inventory::save(&self.client, &outcome.inventory).await?;
        }
        if checked.iter().any(|(kind, ..)| kind.namespaced) {
            namespace::bring(&self.client, &bundle.namespace).await?;
        }
        for (kind, place, manifest) in checked {
            match self.apply_one(&name, &kind, &place, manifest, before).await {
                Ok(applied) => outcome.objects.push(applied),
                Err(why) => outcome.failures.push(format!("{} {}: {why}", place.kind, place.name)),
            }
        }
        self.settle(&name, &mut outcome).await?;
        Ok(outcome)
    }

    /// Prunes what is no longer wanted, once everything wanted is there, and writes down what is.
    async fn settle(&self, name: &str, outcome: &mut Outcome) -> Result<(), AgentError> {
        let written = outcome.inventory.clone();
        for object in &outcome.objects {
            if let Some(entry) = outcome.inventory.objects.iter_mut().find(|o| o.is_same_place(&object.place)) {
                *entry = object.place.clone();
            }
        }
        if outcome.failures.is_empty() {
            let wanted = |place: &Owned| outcome.objects.iter().any(|o| o.place.is_same_place(place));
            let (keep, prune): (Vec<_>, Vec<_>) = outcome.inventory.objects.iter().cloned().partition(wanted);
            outcome.inventory.objects = keep;
            for place in prune.iter().rev() {
                match self.delete(name, place).await {
                    Ok(true) => {}
                    Ok(false) => outcome.inventory.objects.push(place.clone()),
                    Err(why) => {
                        outcome.inventory.objects.push(place.clone());
                        outcome.failures.push(format!("{} {}: {why}", place.kind, place.name));
                    }
                }
            }
        }
        if outcome.inventory != written {
            inventory::save(&self.client, &outcome.inventory).await?;
        }
        Ok(())
    }

    /// Takes a Bundle out of the member, objects in the reverse order. Returns how many are still there.
    pub(crate) async fn remove(&self, inventory: &Inventory) -> Result<usize, AgentError> {
        let mut left = 0;
        for place in inventory.objects.iter().rev() {
            match self.delete(&inventory.bundle, place).await {
                Ok(gone) => left += usize::from(!gone),
                Err(error) => {
                    tracing::warn!(bundle = inventory.bundle, object = place.name, error, "can't be removed yet");
                    left += 1;
                }
            }
        }
        Ok(left)
    }

    async fn check(&self, manifest: &Value, bundle: &DesiredBundle) -> Result<(Kind, Owned), String> {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("/apiVersion"), text("/kind"));
        let resolved = self.kinds.resolve(api_version, kind).await?;
        let resolved = resolved.ok_or_else(|| format!("this member has no {kind} of {api_version}"))?;
        guard::check(manifest, &bundle.namespace, resolved.namespaced, &self.opt_in)?;
        let place = Owned {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: resolved.namespaced.then(|| bundle.namespace.clone()),
            name: text("/metadata/name").to_owned(),
            uid: None,
        };
        Ok((resolved, place))
    }

    async fn apply_one(
        &self,
        bundle: &str,
        kind: &Kind,
        place: &Owned,
        mut manifest: Value,
        before: &Inventory,
    ) -> Result<AppliedObject, String> {
        let api = self.kinds.api(kind, place);
        let live = api.get_metadata_opt(&place.name).await.map_err(|e| e.to_string())?;
        if let Some(live) = &live {
            refuse_foreign(&live.metadata, bundle, before.uid_of(place))?;
        }
        let metadata = manifest.get_mut("metadata").and_then(Value::as_object_mut).ok_or("no metadata")?;
        if let Some(namespace) = &place.namespace {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        labels
            .as_object_mut()
            .ok_or("metadata.labels is not a map")?
            .insert(BUNDLE_LABEL.to_owned(), json!(owner(bundle)));
        if let Some(object) = manifest.as_object_mut() {
            object.remove("status");
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied: DynamicObject =
            api.patch(&place.name, &params, &Patch::Apply(&manifest)).await.map_err(|e| e.to_string())?;
        Ok(AppliedObject {
            place: Owned { uid: applied.metadata.uid, ..place.clone() },
            kind: kind.clone(),
            generation: applied.metadata.generation,
            resource_version: applied.metadata.resource_version.unwrap_or_default(),
        })
    }

    /// Deletes one object of ours. True once it is gone, or turns out to be somebody else's.
    async fn delete(&self, bundle: &str, place: &Owned) -> Result<bool, String> {
        // Without its kind all objects of it are gone.
        let Some(kind) = self.kinds.resolve(&place.api_version, &place.kind).await? else { return Ok(true) };
        let api = self.kinds.api(&kind, place);
        let Some(live) = api.get_metadata_opt(&place.name).await.map_err(|e| e.to_string())? else { return Ok(true) };
        if let Err(why) = refuse_foreign(&live.metadata, bundle, place.uid.as_deref()) {
            tracing::info!(bundle, kind = place.kind, name = place.name, why, "left alone");
            return Ok(true);
        }
        if live.metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: live.metadata.uid, resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(&place.name, &params).await {
            // Without finalizers it is gone at once.
            Ok(either) => Ok(either.right().is_some()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The Bundle's manifests, and the exports that it asks for.
fn manifests(bundle: &DesiredBundle) -> Vec<Value> {
    let exports = bundle.exports.iter().map(|service| {
        json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": {"name": service}})
    });
    bundle.manifests.iter().cloned().chain(exports).collect()
}

fn label(manifest: &Value) -> String {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    format!("{} {}", text("/kind"), text("/metadata/name"))
}

/// Ours is what bears the Bundle's label, or is the very object that we wrote down, or was handed over.
fn refuse_foreign(live: &ObjectMeta, bundle: &str, known_uid: Option<&str>) -> Result<(), String> {
    let label = live.labels.as_ref().and_then(|labels| labels.get(BUNDLE_LABEL));
    if label == Some(&owner(bundle)) || known_uid.is_some() && known_uid == live.uid.as_deref() {
        return Ok(());
    }
    let adopted = live.annotations.as_ref().and_then(|a| a.get(ADOPT)).is_some_and(|to| to == bundle);
    match label {
        Some(other) => Err(format!("belongs to Bundle {other}")),
        None if adopted => Ok(()),
        None => Err(format!("exists already and is not Atoll's; annotate it {ADOPT}={bundle} to hand it over")),
    }
}
