//! What policies are made of: the objects, the Secrets and backends that they refer to; and the file in which that is kept.
//!
//! In: RoutePolicies, what is known of Secrets, Services and EndpointSlices, the topology, what was last good. Out: [`Materials`]. Where the
//! same is found again nothing is made anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use atoll_api::kinds::route_policy::filters::BackendRef;
use atoll_api::kinds::{CLUSTER_SET_LABEL, FilterStep, RoutePolicy};
use atoll_api::topology::Topology;
use atoll_wire::kept::{self, Unusable};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use super::backends::Backends;
use super::peer::At;
use crate::LastGood;
use crate::ingress;
use crate::watch::Known;

const FILE: &str = "policies.last-good";
const FORM: &str = "atoll-gateway-policies-2";

/// The data of Secrets, by `namespace/name`.
pub(super) type Secrets = BTreeMap<String, BTreeMap<String, Vec<u8>>>;
/// Where backends are, by [`key`].
pub(super) type Found = HashMap<String, Result<Vec<At>, String>>;

/// What policies are made of.
pub(super) struct Materials {
    pub(super) objects: Vec<Arc<RoutePolicy>>,
    pub(super) secrets: Secrets,
    pub(super) backends: Found,
}

/// Where that is looked up.
pub(super) struct Sources<'a> {
    pub(super) opaque: &'a Known<Secret>,
    pub(super) users: &'a Known<Secret>,
    pub(super) backends: &'a Backends,
    pub(super) topology: &'a Topology,
    /// What was last good, where nothing was listed yet.
    pub(super) good: Option<&'a Good>,
}

/// What is kept on disk.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Good {
    pub(super) policies: Vec<RoutePolicy>,
    /// By `namespace/name`: those that policies name.
    secrets: Secrets,
    /// Where backends of filters were.
    backends: BTreeMap<String, Vec<Kept>>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    cluster: Option<String>,
    host: String,
    port: u16,
}

impl Sources<'_> {
    /// What the policies refer to, as it is now.
    pub(super) fn referred(&self, objects: &[Arc<RoutePolicy>]) -> (Secrets, Found) {
        let (mut secrets, mut found) = (Secrets::new(), Found::new());
        let slices = self.backends.slices_of(&services(objects));
        for policy in objects {
            let namespace = policy.namespace().unwrap_or_default();
            let set = policy.labels().get(CLUSTER_SET_LABEL).map(String::as_str);
            for step in &policy.spec.filters {
                if let Some(name) = step.parameters.get("secretRef").and_then(|r| r.get("name")?.as_str()) {
                    secrets.extend(self.secret(&namespace, name));
                }
                for written in named(step) {
                    let key = key(&written, &namespace, set);
                    let now = self.backends.find(&slices, &written, &namespace, set, self.topology);
                    let at = now.or_else(|why| {
                        let kept = self.good.and_then(|good| good.backends.get(&key));
                        let back = |k: &Kept| At { cluster: k.cluster.clone(), host: k.host.clone(), port: k.port };
                        kept.map(|all| all.iter().map(back).collect()).ok_or(why)
                    });
                    found.insert(key, at);
                }
            }
        }
        (secrets, found)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<(String, BTreeMap<String, Vec<u8>>)> {
        let at = format!("{namespace}/{name}");
        if let Some(good) = self.good {
            return good.secrets.get(&at).map(|data| (at, data.clone()));
        }
        let secret = self.opaque.get(namespace, name).or_else(|| self.users.get(namespace, name))?;
        Some((at, secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()))
    }
}

impl Materials {
    /// Whether the same would be made of `other`: a status is nothing to make anything of.
    pub(super) fn are(&self, other: &Self) -> bool {
        let is_same = |(a, b): (&Arc<RoutePolicy>, &Arc<RoutePolicy>)| {
            let named = |p: &RoutePolicy| (p.namespace(), p.name_any());
            Arc::ptr_eq(a, b) || named(a) == named(b) && a.labels() == b.labels() && a.spec == b.spec
        };
        self.objects.len() == other.objects.len()
            && self.objects.iter().zip(&other.objects).all(is_same)
            && self.secrets == other.secrets
            && self.backends == other.backends
    }

    /// Writes them, sealed, for that hub.
    pub(super) async fn save(&self, to: Arc<LastGood>, hub: String) {
        let plain = |policy: &Arc<RoutePolicy>| {
            let mut policy = RoutePolicy::clone(policy);
            policy.metadata.managed_fields = None;
            policy
        };
        let objects = self.objects.iter().filter(|policy| !ingress::is_ours(&***policy));
        let kept = |at: &At| Kept { cluster: at.cluster.clone(), host: at.host.clone(), port: at.port };
        let backends = self.backends.iter();
        let found = backends.filter_map(|(key, at)| Some((key.clone(), at.as_ref().ok()?.iter().map(kept).collect())));
        let policies = objects.map(plain).collect();
        let good = Good { policies, secrets: self.secrets.clone(), backends: found.collect() };
        let Ok(body) = serde_json::to_vec(&good) else { return };
        let write = move || kept::write(&to.dir, FILE, &to.seal.encode(FORM, &hub, body));
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "last good policies not written"),
            Err(broken) => tracing::warn!(%broken, "last good policies not written"),
        }
    }
}

/// Reads what was last good.
pub(super) async fn load(from: Option<Arc<LastGood>>) -> Option<Good> {
    let from = from?;
    let read = tokio::task::spawn_blocking(move || {
        let body = from.seal.decode(FORM, std::fs::read(from.dir.join(FILE))?, from.hub.as_deref())?;
        serde_json::from_slice(&body).map_err(|_| Unusable::Form(FORM))
    });
    match read.await.ok()? {
        Ok(good) => Some(good),
        Err(Unusable::Read(e)) if e.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(file = FILE, %error, "last good policies not used");
            None
        }
    }
}

/// The backends that a step names: its own, and those of its pages.
fn named(step: &FilterStep) -> Vec<BackendRef> {
    let pages = step.parameters.get("pages").and_then(serde_json::Value::as_array).into_iter().flatten();
    let of_pages = pages.filter_map(|page| page.get("backendRef"));
    let all = step.parameters.get("backendRef").into_iter().chain(of_pages);
    all.filter_map(|written| serde_json::from_value(written.clone()).ok()).collect()
}

/// The Services that policies may mean.
fn services(objects: &[Arc<RoutePolicy>]) -> BTreeSet<(String, String)> {
    let of = |policy: &Arc<RoutePolicy>| {
        let namespace = policy.namespace().unwrap_or_default();
        let backends = policy.spec.filters.iter().flat_map(named);
        backends.map(|backend| (namespace.clone(), backend.name)).collect::<Vec<_>>()
    };
    objects.iter().flat_map(of).collect()
}

/// By what a backend of a namespace and cluster set is known.
pub(super) fn key(written: &BackendRef, namespace: &str, set: Option<&str>) -> String {
    let (group, kind) = (written.group.as_deref().unwrap_or(""), written.kind.as_deref().unwrap_or("Service"));
    format!("{group} {kind} {namespace}/{}:{} {}", written.name, written.port, set.unwrap_or_default())
}
