//! Writes what placement decided: Assignments (only what changed) and the status of Bundles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::kinds::{AssignedBundle, Assignment, AssignmentSpec, Bundle, BundleStatus, FIELD_MANAGER};
use atoll_api::names::ClusterName;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};

use super::shards::shards;
use crate::error::Error;
use crate::lead::make_namespace;
use crate::membership::patch_status;

/// Writes through one client, as one epoch.
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) epoch: u64,
    /// Namespaces that are there.
    pub(super) namespaces: BTreeSet<String>,
}

impl Writer {
    /// Makes the Assignments what `wanted` says. Returns the clusters for which that failed: they are to be told nothing new.
    pub(super) async fn assignments(
        &mut self,
        held: &[Arc<Assignment>],
        wanted: BTreeMap<ClusterName, Vec<AssignedBundle>>,
    ) -> BTreeMap<ClusterName, Error> {
        let mut there: BTreeMap<(String, String), &AssignmentSpec> =
            held.iter().map(|a| ((a.namespace().unwrap_or_default(), a.name_any()), &a.spec)).collect();
        let mut failed = BTreeMap::new();
        for (cluster, bundles) in wanted {
            let namespace = cluster.namespace();
            for (name, spec) in shards(cluster.as_str(), self.epoch, bundles) {
                let old = there.remove(&(namespace.clone(), name.clone()));
                // Another epoch alone is no change: what runs is what is told.
                if old.is_none_or(|old| old.bundles != spec.bundles || old.cluster != spec.cluster)
                    && let Err(error) = self.assign(&namespace, &name, spec).await
                {
                    // The namespace may have gone under our hands.
                    self.namespaces.remove(&namespace);
                    failed.insert(cluster.clone(), error);
                }
            }
        }
        let gone = there.into_keys().filter(|(namespace, _)| failed.keys().all(|c| c.namespace() != *namespace));
        for (namespace, name) in gone {
            let api: Api<Assignment> = Api::namespaced(self.client.clone(), &namespace);
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !crate::error::is_missing(&error) => {
                    tracing::warn!(namespace, name, %error, "assignment not deleted");
                }
                _ => {}
            }
        }
        failed
    }

    async fn assign(&mut self, namespace: &str, name: &str, spec: AssignmentSpec) -> Result<(), Error> {
        if !self.namespaces.contains(namespace) {
            make_namespace(&self.client, namespace).await?;
            self.namespaces.insert(namespace.to_owned());
        }
        let api: Api<Assignment> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let done = api.patch(name, &params, &Patch::Apply(&Assignment::new(name, spec))).await;
        done.map(drop).map_err(Error::api(format!("write assignment {namespace}/{name}")))
    }

    /// Writes the status of a Bundle where it differs.
    pub(super) async fn bundle(&self, bundle: &Bundle, status: &BundleStatus) {
        if bundle.status.as_ref() == Some(status) {
            return;
        }
        let (namespace, name) = (bundle.namespace().unwrap_or_default(), bundle.name_any());
        let api: Api<Bundle> = Api::namespaced(self.client.clone(), &namespace);
        match patch_status(&api, &name, status).await {
            Err(e) if !crate::error::is_missing(&e) => {
                tracing::warn!(bundle = format!("{namespace}/{name}"), error = %e, "bundle status not written");
            }
            _ => {}
        }
    }
}
