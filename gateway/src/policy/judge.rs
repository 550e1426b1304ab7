//! What becomes of each policy: its guards, and what is said of it.
//!
//! In: policies, the oldest first, and what their filters refer to. Out: [`Policies`], and a verdict of each. A filter that can't be made is
//! closed where it would count; the other filters of its policy, and other policies, go on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use atoll_api::kinds::gateway::GATEWAY_GROUP;
use atoll_api::kinds::route_policy::filters::BackendRef;
use atoll_api::kinds::{CLUSTER_SET_LABEL, RoutePolicy, TargetRef};
use kube::ResourceExt as _;

use super::peer::{At, Peer};
use super::precedence::{Index, Said, Target};
use super::shares::Shares;
use super::stores::Stores;
use super::{Guards, Policies};
use crate::filter::{self, Closed, Data, Guard, Making};
use crate::status::Verdict;
use crate::table::INGRESS_GROUP;

/// Kinds of the Gateway API that a policy may target.
const KINDS: &[&str] = &["Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"];

/// Where a backend of a namespace and cluster set is.
type FindBackend<'a> = dyn Fn(&BackendRef, &str, Option<&str>) -> Result<Vec<At>, String> + 'a;

/// What policies refer to.
pub(crate) struct World<'a> {
    /// The data of a Secret.
    pub(crate) secret: &'a dyn Fn(&str, &str) -> Option<Data>,
    /// Where a backend of a namespace and cluster set is.
    pub(crate) backend: &'a FindBackend<'a>,
    pub(crate) stores: &'a Stores,
    pub(crate) shares: &'a Shares,
}

/// What is said of a policy, before it is known whether its targets are there.
pub(crate) struct Judged {
    pub(crate) object: Arc<RoutePolicy>,
    pub(crate) targets: Vec<Target>,
    pub(crate) accepted: Verdict,
    /// What of it can't be carried out.
    pub(crate) problems: Vec<String>,
}

/// Judges all policies, the oldest first.
pub(crate) fn judge(objects: &[Arc<RoutePolicy>], world: &World<'_>) -> (Policies, Vec<Judged>) {
    let mut said = Vec::new();
    let mut guards = Vec::new();
    let mut names = Vec::new();
    let mut found = Vec::new();
    for object in objects {
        let namespace = object.namespace().unwrap_or_default();
        let mut problems = Vec::new();
        let targets: Vec<Target> =
            object.spec.target_refs.iter().filter_map(|t| target(t, &namespace, &mut problems)).collect();
        guards.push(make(object, &namespace, world, &mut problems));
        let mut filters: Vec<String> = object.spec.filters.iter().map(|f| f.filter.clone()).collect();
        filters.sort_unstable();
        filters.dedup();
        names.push(format!("{namespace}/{}", object.name_any()));
        said.push(Said { targets: targets.clone(), filters });
        found.push((Arc::clone(object), targets, problems));
    }
    let index = Index::new(said);
    let judged = found.into_iter().enumerate().map(|(at, (object, targets, problems))| {
        let lost = index.lost(at, &targets);
        let all = object.spec.filters.iter().all(|f| lost.contains_key(f.filter.as_str()));
        let older: Vec<String> =
            lost.iter().map(|(filter, other)| format!("`{filter}` is given by {}", names[*other])).collect();
        let accepted = if !problems.is_empty() {
            let closed = "until that is mended its routes answer 503";
            Verdict::new("Accepted", false, "Invalid", format!("{}; {closed}", problems.join("; ")))
        } else if !older.is_empty() && all {
            Verdict::new(
                "Accepted",
                false,
                "Conflicted",
                format!("older policies have the same targets: {}", older.join(", ")),
            )
        } else if !older.is_empty() {
            Verdict::new(
                "Accepted",
                true,
                "Accepted",
                format!("in force, but an older policy goes before: {}", older.join(", ")),
            )
        } else {
            Verdict::new("Accepted", true, "Accepted", "the policy is in force")
        };
        Judged { object, targets, accepted, problems }
    });
    let judged = judged.collect();
    (Policies::new(index, guards, names), judged)
}

fn target(written: &TargetRef, namespace: &str, problems: &mut Vec<String>) -> Option<Target> {
    let known = match written.group.as_str() {
        GATEWAY_GROUP => KINDS.contains(&written.kind.as_str()),
        // Only what is made of annotations names sections of it.
        INGRESS_GROUP => written.kind == "Ingress",
        _ => false,
    };
    if !known {
        problems.push(format!("targetRefs: {} of group `{}` is no target", written.said(), written.group));
        return None;
    }
    Some(Target::new(&written.kind, namespace, &written.name, written.section_name.as_deref()))
}

/// The guards of a policy; what can't be made is closed.
fn make(object: &RoutePolicy, namespace: &str, world: &World<'_>, problems: &mut Vec<String>) -> Guards {
    let set = object.labels().get(CLUSTER_SET_LABEL).map(String::as_str);
    let peers: RefCell<HashMap<String, Arc<Peer>>> = RefCell::default();
    let peer = |written: &BackendRef, h2: bool| -> Result<Arc<Peer>, String> {
        let at = (world.backend)(written, namespace, set)?;
        let name =
            format!("{} {namespace}/{}:{}", written.kind.as_deref().unwrap_or("Service"), written.name, written.port);
        let host = format!("{}.{namespace}:{}", written.name, written.port);
        let id = format!("peer {name} {h2} {at:?}");
        let made = world.stores.keep(&id, || Peer::backend(name, host, at, h2));
        peers.borrow_mut().insert(id, Arc::clone(&made));
        Ok(made)
    };
    let mut guards = Guards::new();
    for (at, step) in object.spec.filters.iter().enumerate() {
        let kinds = object.spec.target_refs.iter().map(|t| t.kind.as_str());
        let odd = kinds.into_iter().find(|kind| !filter::makes_sense(&step.filter, kind));
        let parameters = serde_json::Value::Object(step.parameters.clone());
        let id = format!("{namespace}/{} {} {at} {parameters}", object.name_any(), step.filter);
        let secret = |name: &str| (world.secret)(namespace, name);
        let making = Making { id, secret: &secret, peer: &peer, stores: world.stores, shares: world.shares };
        let made = match odd {
            Some(kind) => Err(format!("filter `{}`: it makes no sense on a {kind}", step.filter)),
            None => filter::guard(&step.filter, &step.parameters, &making),
        };
        let guard: Arc<dyn Guard> = made.unwrap_or_else(|why| {
            let closed = Closed(format!("policy `{namespace}/{}`: {why}", object.name_any()));
            problems.push(why);
            Arc::new(closed)
        });
        guards.entry(step.filter.clone()).or_default().push(guard);
    }
    guards
}
