//! The condition Accepted of objects that nobody else judges.
//!
//! In: objects. Out: a condition on each that says whether it makes sense, and what does not. A bad object is rejected alone, and the
//! others go on.

mod rules;
pub(crate) mod traffic;

use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::PolicyStatus;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt as _};

use crate::conditions::{Found, merge};
use crate::membership::patch_status;
use crate::objects::Objects;
use crate::placement::check as placement_rules;
use crate::pulse::Pulse;
use crate::zones::Judge;
pub(crate) use rules::zone;
use rules::{catalog, endpoint, registry, replication, word};

/// The zone of the cluster set (KEP-1645).
const CLUSTERSET: &str = "clusterset.local";

/// Writes the condition Accepted of every object that has nobody else to judge it.
pub(crate) struct Accept {
    pub(crate) client: Client,
    pub(crate) objects: Arc<Objects>,
    /// The names that belong to a zone without a Zone object.
    pub(crate) apex: String,
}

impl Accept {
    /// Runs until cancelled.
    pub(crate) async fn run(self) {
        let mut pulse = Pulse::new(vec![self.objects.changes()], Duration::from_secs(60));
        let mut zones = Judge::default();
        loop {
            let o = &self.objects;
            for (zone, found) in zones.verdicts(o) {
                self.judge(Api::all(self.client.clone()), &*zone, zone.status.as_ref(), found).await;
            }
            for judged in traffic::judge(o.traffic.state()) {
                let policy = &*judged.policy;
                self.judge(self.of(policy), policy, policy.status.as_ref(), judged.found()).await;
            }
            for policy in o.placement_policies.state() {
                let verdict = placement_rules(&policy.spec.rules);
                self.judge(self.of(&*policy), &*policy, policy.status.as_ref(), word(verdict)).await;
            }
            for registry_ in o.registries.state() {
                let there = |name: &str| o.clusters.get(&ObjectRef::new(name)).is_some();
                let verdict = registry(&registry_.spec, there);
                self.judge(Api::all(self.client.clone()), &*registry_, registry_.status.as_ref(), word(verdict)).await;
            }
            for policy in o.replication_policies.state() {
                let there = |name: &str| o.registries.get(&ObjectRef::new(name)).is_some();
                let verdict = replication(&policy.spec, there);
                self.judge(self.of(&*policy), &*policy, policy.status.as_ref(), word(verdict)).await;
            }
            for catalog_ in o.catalogs.state() {
                self.judge(self.of(&*catalog_), &*catalog_, catalog_.status.as_ref(), word(catalog(&catalog_.spec)))
                    .await;
            }
            self.records().await;
            pulse.next().await;
        }
    }

    /// DNSEndpoints. Their definition may be another's, whose status holds no conditions: then they are written once.
    async fn records(&self) {
        let zones = self.objects.zones.state();
        let own = zones.iter().filter(|z| zone(&z.spec).is_ok()).map(|z| z.spec.apex.as_str());
        let apexes: Vec<&str> = own.chain([self.apex.as_str(), CLUSTERSET]).collect();
        for object in self.objects.records.state() {
            let old = object.status.as_ref();
            let generation = object.metadata.generation;
            if old.is_some_and(|s| s.conditions.is_empty() && s.observed_generation == generation) {
                continue;
            }
            self.judge(self.of(&*object), &*object, old, endpoint(&object.spec, &apexes)).await;
        }
    }

    fn of<K>(&self, object: &K) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }

    async fn judge<K>(&self, api: Api<K>, object: &K, old: Option<&PolicyStatus>, found: Found)
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let generation = object.meta().generation;
        let before = old.cloned().unwrap_or_default();
        let conditions = merge(&before.conditions, [found], generation, Timestamp::now());
        let status = PolicyStatus { observed_generation: generation, conditions };
        if old == Some(&status) {
            return;
        }
        if let Err(error) = patch_status(&api, &object.name_any(), &status).await {
            let kind = K::kind(&K::DynamicType::default()).into_owned();
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            tracing::warn!(kind, namespace, name, %error, "condition Accepted not written");
        }
    }
}
