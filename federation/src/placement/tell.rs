//! The end of a placement pass: what was decided is written down, and then told.
//!
//! In: decisions. Out: Assignments, and what each member's link is to send. A cluster whose Assignment can't be written is told nothing
//! new.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::facts::{Facts, key};
use atoll_api::kinds::{AssignedBundle, Bundle};
use atoll_api::names::ClusterName;
use atoll_api::topology::DesiredBundle;

use super::controller::{Decision, Pass, Placement};
use super::gather::{Key, Tellings, Told};
use super::render::{demand, objects};
use crate::sessions::Part;

impl Placement {
    /// Assignments first, then the links: what a member runs is always written down.
    pub(super) async fn tell(&mut self, pass: &Pass, decisions: &BTreeMap<Key, (Arc<Bundle>, Decision)>) {
        let mut assigned: BTreeMap<ClusterName, Vec<AssignedBundle>> = BTreeMap::new();
        let mut facts: BTreeMap<ClusterName, Facts> =
            pass.judged.keys().map(|n| (n.clone(), Facts::default())).collect();
        let (mut told, mut sent) = (Tellings::new(), BTreeMap::new());
        for (key, (bundle, decision)) in decisions {
            let divided = demand(&bundle.spec).0.is_some();
            for (cluster, desired) in &decision.desired {
                let (Some((name, _)), Some(t)) =
                    (pass.judged.get_key_value(cluster.as_str()), decision.told.get(cluster))
                else {
                    continue;
                };
                assigned.entry(name.clone()).or_default().push(AssignedBundle {
                    namespace: key.0.clone(),
                    name: key.1.clone(),
                    revision: t.revision.clone(),
                    replicas: divided.then_some(t.replicas),
                    leaving: t.leaving.clone(),
                    objects: objects(desired),
                });
                let held = facts.entry(name.clone()).or_default();
                held.put(format!("{}/{}/{}", key::BUNDLE, key.0, key.1), desired);
                sent.insert((key.clone(), cluster.clone()), desired.clone());
            }
            if !decision.told.is_empty() {
                told.insert(key.clone(), decision.told.clone());
            }
        }
        let failed = self.writer.assignments(&self.membership.objects.assignments.state(), assigned).await;
        for (cluster, error) in &failed {
            tracing::warn!(%cluster, %error, "assignment not written, the cluster is told nothing new");
            facts.insert(cluster.clone(), self.as_before(cluster, &mut told, &mut sent));
        }
        self.membership.sessions.set_desired(Part::Bundles, facts);
        self.lost.retain(|(key, _)| decisions.contains_key(key));
        (self.told, self.sent) = (told, sent);
    }

    /// Puts back what `cluster` was told before; returns what it was sent.
    fn as_before(
        &self,
        cluster: &ClusterName,
        told: &mut Tellings,
        sent: &mut BTreeMap<(Key, String), DesiredBundle>,
    ) -> Facts {
        let mut facts = Facts::default();
        sent.retain(|(_, of), _| of != cluster.as_str());
        for clusters in told.values_mut() {
            clusters.remove(cluster.as_str());
        }
        for (key, clusters) in &self.told {
            let Some(before) = clusters.get(cluster.as_str()) else { continue };
            let desired = self.again(key, cluster.as_str(), before);
            facts.put(format!("{}/{}/{}", key::BUNDLE, key.0, key.1), &desired);
            told.entry(key.clone()).or_default().insert(cluster.to_string(), before.clone());
            sent.insert((key.clone(), cluster.to_string()), desired);
        }
        told.retain(|_, clusters| !clusters.is_empty());
        facts
    }

    /// What a cluster was sent before; where that is not known (the hub has just started), the word to touch nothing.
    pub(super) fn again(&self, key: &Key, cluster: &str, told: &Told) -> DesiredBundle {
        let untouched = || DesiredBundle {
            namespace: key.0.clone(),
            name: key.1.clone(),
            revision: told.revision.clone(),
            epoch: self.epoch,
            suspend: true,
            ..DesiredBundle::default()
        };
        self.sent.get(&(key.clone(), cluster.to_owned())).cloned().unwrap_or_else(untouched)
    }
}
