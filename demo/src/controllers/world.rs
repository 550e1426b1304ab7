//! What the controllers of one member know: its objects, as of the newest that a watch or an answer said.
//!
//! An answer to a write counts at once, so that the next look never acts on what was just changed; an older word never overwrites a
//! newer one, and what we deleted does not come back by an event that was under way.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Resource, ResourceExt, api::ObjectMeta, runtime::watcher::Event};
use serde_json::Value;

/// Namespace and name.
pub(super) type Key = (String, String);

/// Uids remembered as deleted, at most.
const GONE_MAX: usize = 10_000;

/// Objects of one kind.
#[derive(Debug)]
pub(super) struct Kept<K> {
    items: BTreeMap<Key, K>,
    gone: BTreeSet<String>,
    listing: Option<BTreeSet<Key>>,
    listed: bool,
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), gone: BTreeSet::new(), listing: None, listed: false }
    }
}

fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<K: Resource> Kept<K> {
    /// Every object, by namespace and name.
    pub(super) fn all(&self) -> impl Iterator<Item = &K> + Clone {
        self.items.values()
    }

    /// The objects of a namespace.
    pub(super) fn within<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a K> {
        self.items
            .range((namespace.to_owned(), String::new())..)
            .take_while(move |((n, _), _)| n == namespace)
            .map(|(_, k)| k)
    }

    /// One object.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&K> {
        self.items.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Takes note of an object, unless we know newer.
    pub(super) fn put(&mut self, object: K) {
        let key = key(&object);
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        let newer = self.items.get(&key).is_none_or(|old| revision(old.meta()) <= revision(object.meta()));
        if newer && !object.meta().uid.as_ref().is_some_and(|uid| self.gone.contains(uid)) {
            self.items.insert(key, object);
        }
    }

    /// Takes note that we deleted an object.
    pub(super) fn delete(&mut self, key: &Key) {
        if let Some(object) = self.items.remove(key) {
            if self.gone.len() >= GONE_MAX {
                self.gone.clear();
            }
            self.gone.extend(object.meta().uid.clone());
        }
    }

    /// Takes note of a watch's event.
    pub(super) fn observe(&mut self, event: Event<K>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => self.put(object),
            Event::Delete(object) => {
                let key = key(&object);
                let older = self.items.get(&key).is_some_and(|known| known.meta().uid == object.meta().uid);
                if older {
                    self.items.remove(&key);
                }
                if let Some(uid) = &object.meta().uid {
                    self.gone.remove(uid);
                }
            }
            Event::Init => self.listing = Some(BTreeSet::new()),
            Event::InitDone => {
                self.listed = true;
                if let Some(listed) = self.listing.take() {
                    self.items.retain(|key, _| listed.contains(key));
                    self.gone.clear();
                }
            }
        }
    }
}

/// All objects that the controllers look at.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) namespaces: Kept<Namespace>,
    pub(super) nodes: Kept<Node>,
    pub(super) services: Kept<Service>,
    pub(super) deployments: Kept<Deployment>,
    pub(super) replica_sets: Kept<ReplicaSet>,
    pub(super) pods: Kept<Pod>,
    pub(super) slices: Kept<EndpointSlice>,
}

/// An event of any kind.
pub(super) enum Seen {
    Namespace(Event<Namespace>),
    Node(Event<Node>),
    Service(Event<Service>),
    Deployment(Event<Deployment>),
    ReplicaSet(Event<ReplicaSet>),
    Pod(Event<Pod>),
    Slice(Event<EndpointSlice>),
}

impl World {
    /// Whether every kind was listed once; before that, what is not known is not absent.
    pub(super) fn is_whole(&self) -> bool {
        self.namespaces.listed
            && self.nodes.listed
            && self.services.listed
            && self.deployments.listed
            && self.replica_sets.listed
            && self.pods.listed
            && self.slices.listed
    }

    /// Takes note of a watch's event.
    pub(super) fn observe(&mut self, seen: Seen) {
        match seen {
            Seen::Namespace(e) => self.namespaces.observe(e),
            Seen::Node(e) => self.nodes.observe(e),
            Seen::Service(e) => self.services.observe(e),
            Seen::Deployment(e) => self.deployments.observe(e),
            Seen::ReplicaSet(e) => self.replica_sets.observe(e),
            Seen::Pod(e) => self.pods.observe(e),
            Seen::Slice(e) => self.slices.observe(e),
        }
    }

    /// Takes note of what the API server answered to a write.
    pub(super) fn answered(&mut self, value: Value) -> Result<(), serde_json::Error> {
        match value["kind"].as_str().unwrap_or_default() {
            "Node" => self.nodes.put(serde_json::from_value(value)?),
            "Service" => self.services.put(serde_json::from_value(value)?),
            "Deployment" => self.deployments.put(serde_json::from_value(value)?),
            "ReplicaSet" => self.replica_sets.put(serde_json::from_value(value)?),
            "Pod" => self.pods.put(serde_json::from_value(value)?),
            "EndpointSlice" => self.slices.put(serde_json::from_value(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// Whether `object` is controlled by the object with this uid.
pub(super) fn controlled_by<K: Resource>(object: &K, uid: &str) -> bool {
    object.meta().owner_references.iter().flatten().any(|o| o.controller == Some(true) && o.uid == uid)
}

/// Whether a pod counts: not on its way out, not ended.
pub(super) fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether a pod's condition Ready is true.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, revision: u32) -> Pod {
        let meta = json!({"name": name, "namespace": "shop", "uid": uid, "resourceVersion": revision.to_string()});
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    fn known(kept: &Kept<Pod>) -> Vec<String> {
        kept.all().map(|p| format!("{}@{}", p.metadata.uid.as_deref().unwrap(), revision(&p.metadata))).collect()
    }

    #[test]
    fn an_older_word_never_overwrites_a_newer_one() {
        let mut kept = Kept::default();
        kept.put(pod("web", "a", 7));
        kept.observe(Event::Apply(pod("web", "a", 5)));
        assert_eq!(known(&kept), ["a@7"]);
        kept.observe(Event::Apply(pod("web", "a", 8)));
        assert_eq!(known(&kept), ["a@8"]);
    }

    #[test]
    fn what_we_deleted_does_not_come_back_but_a_new_one_by_its_name_does() {
        let mut kept = Kept::default();
        kept.put(pod("web", "a", 7));
        kept.delete(&("shop".into(), "web".into()));
        kept.observe(Event::Apply(pod("web", "a", 7)));
        assert_eq!(known(&kept), Vec::<String>::new());
        kept.put(pod("web", "b", 9));
        kept.observe(Event::Delete(pod("web", "a", 8)));
        assert_eq!(known(&kept), ["b@9"]);
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name() {
        let mut kept = Kept::default();
        kept.put(pod("old", "a", 1));
        for event in [Event::Init, Event::InitApply(pod("new", "b", 2)), Event::InitDone] {
            kept.observe(event);
        }
        assert_eq!(known(&kept), ["b@2"]);
    }
}
