//! Keyed facts and their deltas: the one form in which parts tell each other what they know.
//!
//! A set maps keys to JSON values. A sender keeps what it last sent; [`Facts::diff`] gives the change, [`Facts::apply`]
//! takes it. A key that is absent from a change is never a deletion: removals are listed, or a full change replaces the set. An
//! order-independent [`Digest`] tells both sides whether they agree.
//!
//! Keys are paths: `cluster/prod-eu`, `service/shop/web`, `endpoints/shop/web`, `bundle/shop/web`. [`key`] has the words.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::ordered::Ordered;

/// The first word of a key, which says what the value is.
pub mod key {
    /// Topology: `cluster/<name>` → [`crate::topology::ClusterFacts`].
    pub const CLUSTER: &str = "cluster";
    /// Topology: `service/<set>/<namespace>/<name>` → [`crate::topology::ServiceFacts`]. Agent: `service/<namespace>/<name>` → [`crate::topology::MemberService`].
    pub const SERVICE: &str = "service";
    /// Topology: `endpoints/<cluster>/<namespace>/<name>`. Agent: `endpoints/<namespace>/<name>`. → [`crate::topology::Endpoints`].
    pub const ENDPOINTS: &str = "endpoints";
    /// Topology: `balancer/<cluster>/<namespace>/<name>`. Agent: `balancer/<namespace>/<name>`. → [`crate::topology::BalancerFacts`].
    /// Desired: `balancer/<namespace>/<name>` → [`crate::topology::BalancerState`].
    pub const BALANCER: &str = "balancer";
    /// Topology: `zone/<name>` → [`crate::topology::ZoneFacts`].
    pub const ZONE: &str = "zone";
    /// Topology: `records/<namespace>/<name>` → [`crate::topology::RecordsFacts`].
    pub const RECORDS: &str = "records";
    /// Topology, DNS servers alone: `zone-keys/<name>` → [`crate::topology::ZoneKeys`].
    pub const ZONE_KEYS: &str = "zone-keys";
    /// Topology: `traffic/<namespace>/<name>` → [`crate::topology::TrafficFacts`].
    pub const TRAFFIC: &str = "traffic";
    /// Topology and desired: `site/<instance>` → [`crate::topology::Site`].
    pub const SITE: &str = "site";
    /// Topology: `rtt/<region>` → round-trip times in ms by member.
    pub const RTT: &str = "rtt";
    /// Topology: `failing/<namespace>/<policy>` → [`crate::topology::FailingFacts`].
    pub const FAILING: &str = "failing";
    /// Topology: `settings` → [`crate::topology::Settings`].
    pub const SETTINGS: &str = "settings";
    /// Agent: `member` → [`crate::topology::MemberFacts`].
    pub const MEMBER: &str = "member";
    /// Agent: `export/<namespace>/<name>` → [`crate::topology::ExportFacts`].
    pub const EXPORT: &str = "export";
    /// Desired and status: `bundle/<namespace>/<name>` → [`crate::topology::DesiredBundle`], [`crate::topology::BundleReport`].
    pub const BUNDLE: &str = "bundle";
    /// Desired and status: `copy/<namespace>/<request>` → [`crate::copy::CopyJob`], [`crate::copy::CopyReport`].
    pub const COPY: &str = "copy";
    /// Desired and status: `stub` → [`crate::topology::StubFacts`], [`crate::topology::StubReport`].
    pub const STUB: &str = "stub";
    /// Desired: `labels/<namespace>/<service>` → the keys of the labels that the endpoints of that service are to be told with.
    pub const LABELS: &str = "labels";
    /// Desired: the uid of kube-system in the hub's API, by which an agent sees that its member's API is that one.
    pub const HUB: &str = "hub";
    /// Desired and status: `check/<namespace>/<request>` → [`crate::copy::CheckJob`], [`crate::copy::CheckReport`].
    pub const CHECK: &str = "check";
}

/// A digest of a set of facts: the sum, modulo 2²⁵⁶ by lanes, of the SHA-256 of every (key, value). Independent of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest([u64; 4]);

impl Digest {
    fn of(key: &str, json: &[u8]) -> Self {
        let mut h = Sha256::new();
        h.update((key.len() as u64).to_be_bytes());
        h.update(key);
        h.update(json);
        let bytes = h.finalize();
        let lane = |i: usize| u64::from_be_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("SHA-256 has 32 bytes"));
        Self([lane(0), lane(1), lane(2), lane(3)])
    }

    fn add(&mut self, other: Self) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a = a.wrapping_add(b);
        }
    }

    fn sub(&mut self, other: Self) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a = a.wrapping_sub(b);
        }
    }

    /// The digest as 32 bytes, big-endian lanes.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        for (i, lane) in self.0.iter().enumerate() {
            out[i * 8..i * 8 + 8].copy_from_slice(&lane.to_be_bytes());
        }
        out
    }
}

/// What an item costs beside its key and its value.
pub const ITEM_OVERHEAD_BYTES: usize = 64;

/// What an item costs in memory, about.
pub fn item_bytes(key: &str, json: &[u8]) -> usize {
    ITEM_OVERHEAD_BYTES + key.len() + json.len()
}

/// A set of keyed facts with its running digest and size. Cheap to clone: clones share what does not differ.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    items: Ordered<String, Arc<[u8]>>,
    digest: Digest,
    bytes: usize,
}

/// A change of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The set is exactly `upserts`.
    pub full: bool,
    /// New or changed items.
    pub upserts: BTreeMap<String, Arc<[u8]>>,
    /// Keys that are gone.
    pub removed: Vec<String>,
}

impl Change {
    /// Whether the change changes nothing.
    pub fn is_empty(&self) -> bool {
        !self.full && self.upserts.is_empty() && self.removed.is_empty()
    }
}

impl Facts {
    /// Puts `value` under `key`. Returns whether that changed anything.
    ///
    /// # Panics
    /// When `value` can't be written as JSON, which a type of ours always can.
    pub fn put<T: Serialize>(&mut self, key: impl Into<String>, value: &T) -> bool {
        self.put_json(key.into(), serde_json::to_vec(value).expect("our facts are plain JSON").into())
    }

    /// Puts bytes under `key`. Returns whether that changed anything.
    pub fn put_json(&mut self, key: String, json: Arc<[u8]>) -> bool {
        if self.items.get(&key).is_some_and(|old| **old == *json) {
            return false;
        }
        self.remove(&key);
        self.digest.add(Digest::of(&key, &json));
        self.bytes += item_bytes(&key, &json);
        self.items.insert(key, json);
        true
    }

    /// Removes `key`. Returns whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let Some((key, json)) = self.items.remove(key) else { return false };
        self.digest.sub(Digest::of(&key, &json));
        self.bytes -= item_bytes(&key, &json);
        true
    }

    /// The value under `key`, parsed; `None` where it is absent or of another shape.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_slice(self.items.get(key)?).ok()
    }

    /// The value under `key` as it is held.
    pub fn json(&self, key: &str) -> Option<&Arc<[u8]>> {
        self.items.get(key)
    }

    /// Every item whose key starts with `prefix/`, with the rest of its key, in key order.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Arc<[u8]>)> {
        self.items
            .from_key(format!("{prefix}/").as_str())
            .map_while(move |(k, v)| k.strip_prefix(prefix)?.strip_prefix('/').map(|rest| (rest, v)))
    }

    /// Every item, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.items.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The digest of the whole set. O(1).
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What all items cost in memory, about. O(1).
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The change that makes `newer` out of `self`. Where one was cloned from the other it costs what differs.
    pub fn diff(&self, newer: &Self) -> Change {
        let mut change = Change::default();
        self.items.differing(&newer.items, |key, _, is| match is {
            Some(json) => drop(change.upserts.insert(key.clone(), json.clone())),
            None => change.removed.push(key.clone()),
        });
        change
    }

    /// The whole set as a change.
    pub fn full(&self) -> Change {
        let upserts = self.items.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        Change { full: true, upserts, removed: Vec::new() }
    }

    /// Takes a change. Applying the same change twice is the same as once.
    pub fn apply(&mut self, change: &Change) {
        if change.full {
            *self = Self::default();
        }
        for (k, v) in &change.upserts {
            self.put_json(k.clone(), v.clone());
        }
        for k in &change.removed {
            self.remove(k);
        }
    }
}
