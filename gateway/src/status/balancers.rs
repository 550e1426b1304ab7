//! Statuses of Services of type LoadBalancer: where they are served, and what is not as they ask. Pure.
//!
//! An address is said once every live replica serves the Service there; what is said stays while one lags. Of members' Services the state is
//! stated for the hub, which hands it to their agents. Source: Kubernetes, "Service" (`status.loadBalancer`).

use std::sync::Arc;

use atoll_api::topology::{BalancerFacts, BalancerPort, BalancerProblem, BalancerState, Topology, balancer_addresses};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::Update;
use crate::balancer::{Balanced, is_left, section};
use crate::fleet::Fleet;
use crate::ingress::mark;
use crate::objects::{Objects, name_of};
use crate::table::{GatewayDraft, Input, ListenerDraft};

/// What is to be told of an object of the hub's API, by a Warning Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// Version and kind.
    pub(crate) kind: (&'static str, &'static str),
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
    pub(crate) problem: BalancerProblem,
}

/// What became of the Service that a Gateway stands for, with its place; nothing where it stands for none.
pub(crate) fn state(draft: &GatewayDraft, objects: &Objects) -> Option<(String, BalancerState)> {
    let balanced = objects.balancers.all.get(&name_of(&*draft.object))?;
    // What its status says is not what it asks for.
    let asked = BalancerFacts { has: Vec::new(), ..BalancerFacts::clone(&balanced.facts) };
    let said = serde_json::to_string(&(asked, &draft.addresses)).unwrap_or_default();
    let mut state = BalancerState { mark: mark(&said), ..BalancerState::default() };
    if let Some(problem) = &draft.refused {
        state.problems.push(told(problem.reason, &problem.message));
        return Some((balanced.place(), state));
    }
    for port in &balanced.facts.ports {
        let section = section(&port.protocol, port.port);
        let listener = draft.listeners.iter().find(|l| Some(&l.spec.name) == section.as_ref());
        let error = match listener {
            None => Some(told("UnsupportedProtocol", &format!("port {}: {} is not served", port.port, port.protocol))),
            Some(listener) => hindered(listener),
        };
        let word = error.as_ref().map(|problem| problem.reason.clone());
        state.ports.push(BalancerPort { port: port.port, protocol: port.protocol.clone(), error: word });
        state.problems.extend(error);
    }
    if state.ports.iter().any(|port| port.error.is_none()) {
        state.addresses.clone_from(&draft.addresses);
    }
    Some((balanced.place(), state))
}

fn told(reason: &str, message: &str) -> BalancerProblem {
    BalancerProblem { reason: reason.to_owned(), message: message.to_owned() }
}

/// Why a port is not served.
fn hindered(listener: &ListenerDraft) -> Option<BalancerProblem> {
    let at = |why: &str| format!("port {}: {why}", listener.port);
    if listener.conflicted.status {
        return Some(told("PortConflict", &at(&listener.conflicted.message)));
    }
    (!listener.accepted.status).then(|| told(listener.accepted.reason, &at(&listener.accepted.message)))
}

/// What the status of a Service of the hub's API is to say, where that is something else.
pub(super) fn update(
    draft: &GatewayDraft,
    balanced: &Balanced,
    object: &Arc<Service>,
    input: &Input<'_>,
) -> Option<Update> {
    let (place, state) = state(draft, input.objects)?;
    let is_fresh = state.addresses.iter().any(|ip| !balanced.facts.has.contains(ip));
    if is_fresh && lags(input.topology, input.fleet, input.instance, &place, &state.mark) {
        return None;
    }
    let wanted = state.ingress();
    let is = object.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.clone());
    (is.unwrap_or_default() != wanted)
        .then(|| written(object, if wanted.is_empty() { Value::Null } else { json!(wanted) }))
        .flatten()
}

/// Whether a live replica does not serve a Service as it is now.
fn lags(topology: &Topology, fleet: &Fleet, instance: &str, place: &str, mark: &str) -> bool {
    let mut others = topology.sites.values().filter(|s| fleet.has(s) && !s.silent && s.instance != instance);
    others.any(|site| site.gateways.is_some() && site.balancers.get(place).is_none_or(|state| state.mark != mark))
}

/// What is to be told of a Service of the hub's API.
pub(super) fn warnings(draft: &GatewayDraft, object: &Service, objects: &Objects) -> Vec<Warning> {
    let problems = state(draft, objects).map(|(_, state)| state.problems).unwrap_or_default();
    let (namespace, name) = name_of(object);
    let of = |problem| {
        let (kind, namespace, name) = (("v1", "Service"), namespace.clone(), name.clone());
        Warning { kind, namespace, name, uid: object.uid(), problem }
    };
    problems.into_iter().map(of).collect()
}

/// Takes addresses of the pool out of a status, where its Service asks for none.
pub(super) fn left(object: &Arc<Service>, input: &Input<'_>) -> Option<Update> {
    let ours = |ip| input.pool.iter().any(|range| range.contains(ip));
    let takes = is_left(object) && balancer_addresses(object).iter().any(ours);
    takes.then(|| written(object, Value::Null)).flatten()
}

fn written(object: &Arc<Service>, ingress: Value) -> Option<Update> {
    let update = Update::of(&**object, &json!({"loadBalancer": {"ingress": ingress}}));
    // Whatever else changed meanwhile has nothing to do with where it is served.
    update.map(|update| Update { version: None, ..update })
}
