//! What became of every object: verdicts turned into statuses, which change only where they say something else. Pure.
//!
//! In: the draft, and the statuses that the objects bear. Out: [`Statuses`], those to be written. `write` writes them.

pub(crate) mod write;

use std::sync::Arc;

use atoll_api::kinds::Condition;
use atoll_api::kinds::gateway::{
    GATEWAY_CONTROLLER, Gateway, GatewayAddress, GatewayClass, GatewayClassStatus, GatewayStatus, HTTPRoute,
    ListenerStatus, ParentReference, RouteParentStatus, RouteStatus, SupportedFeature,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::table::{GatewayDraft, Input, ListenerDraft};

/// Conformance names of what is served, in their order.
const FEATURES: &[&str] = &[
    "Gateway",
    "GatewayHTTPListenerIsolation",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
];

/// One condition as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) kind: &'static str,
    pub(crate) status: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn new(kind: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// What became of a route at one parent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParentVerdict {
    pub(crate) parent: ParentReference,
    pub(crate) verdicts: Vec<Verdict>,
}

/// What became of a route.
#[derive(Debug, Clone)]
pub(crate) struct RouteVerdicts {
    pub(crate) object: Arc<HTTPRoute>,
    pub(crate) parents: Vec<ParentVerdict>,
}

/// Statuses that differ from what the objects bear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statuses {
    pub(crate) classes: Vec<(Arc<GatewayClass>, GatewayClassStatus)>,
    pub(crate) gateways: Vec<(Arc<Gateway>, GatewayStatus)>,
    pub(crate) routes: Vec<(Arc<HTTPRoute>, RouteStatus)>,
}

/// Judges everything.
pub(crate) fn judge(input: &Input<'_>, gateways: &[GatewayDraft], routes: Vec<RouteVerdicts>) -> Statuses {
    let classes = input.objects.classes.iter().filter(|c| c.spec.controller_name == GATEWAY_CONTROLLER);
    let changed = |new: &GatewayClassStatus, old: &Option<GatewayClassStatus>| old.as_ref() != Some(new);
    Statuses {
        classes: classes
            .map(|c| (Arc::clone(c), class(c, input.now)))
            .filter(|(c, status)| changed(status, &c.status))
            .collect(),
        gateways: gateways
            .iter()
            .map(|draft| (Arc::clone(&draft.object), gateway(draft, input)))
            .filter(|(object, status)| object.status.as_ref() != Some(status))
            .collect(),
        routes: routes
            .into_iter()
            .map(|verdicts| (Arc::clone(&verdicts.object), route(&verdicts, input.now)))
            .filter(|(object, status)| object.status.clone().unwrap_or_default() != *status)
            .collect(),
    }
}

fn class(class: &GatewayClass, now: Timestamp) -> GatewayClassStatus {
    let old = class.status.clone().unwrap_or_default();
    let verdict = match &class.spec.parameters_ref {
        None => Verdict::new("Accepted", true, "Accepted", "Gateways of this class are served"),
        Some(_) => Verdict::new("Accepted", false, "InvalidParameters", "this controller takes no parameters"),
    };
    GatewayClassStatus {
        conditions: merge(&old.conditions, [verdict], class.metadata.generation, now),
        supported_features: FEATURES.iter().map(|name| SupportedFeature { name: (*name).to_owned() }).collect(),
    }
}

fn gateway(draft: &GatewayDraft, input: &Input<'_>) -> GatewayStatus {
    let old = draft.object.status.clone().unwrap_or_default();
    let generation = draft.object.metadata.generation;
    let served = draft.listeners.iter().filter(|l| l.is_programmed()).count();
    let whole = served == draft.listeners.len();
    let (accepted, programmed) = match &draft.refused {
        Some(problem) => {
            let unusable = problem.reason == "AddressNotUsable";
            let accepted_reason = if unusable { "Accepted" } else { problem.reason };
            let programmed_reason = if unusable { problem.reason } else { "Invalid" };
            (
                Verdict::new("Accepted", unusable, accepted_reason, problem.message.as_str()),
                Verdict::new("Programmed", false, programmed_reason, problem.message.as_str()),
            )
        }
        None => {
            let reason = if whole { "Accepted" } else { "ListenersNotValid" };
            let message = format!("{served} of {} listeners are served", draft.listeners.len());
            let programmed = if served > 0 { "Programmed" } else { "Invalid" };
            (
                Verdict::new("Accepted", served > 0, reason, message.as_str()),
                Verdict::new("Programmed", served > 0, programmed, message),
            )
        }
    };
    let is_served = programmed.status;
    let listeners = draft.listeners.iter().map(|l| {
        let before = old.listeners.iter().find(|b| b.name == l.spec.name);
        listener(l, draft.refused.is_none(), before, generation, input.now)
    });
    GatewayStatus {
        addresses: if is_served { addresses(draft, input) } else { Vec::new() },
        listeners: listeners.collect(),
        conditions: merge(&old.conditions, [accepted, programmed], generation, input.now),
    }
}

fn addresses(draft: &GatewayDraft, input: &Input<'_>) -> Vec<GatewayAddress> {
    let wished: Vec<&String> = draft.object.spec.addresses.iter().map(|a| &a.value).collect();
    let ours = input.addresses.iter().filter(|a| wished.iter().all(|w| w.is_empty()) || wished.contains(a));
    let kind = |a: &String| if a.parse::<std::net::IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    ours.map(|a| GatewayAddress { address_type: Some(kind(a).to_owned()), value: a.clone() }).collect()
}

fn listener(
    draft: &ListenerDraft,
    gateway_is_served: bool,
    before: Option<&ListenerStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> ListenerStatus {
    let programmed = if draft.is_programmed() && gateway_is_served {
        Verdict::new("Programmed", true, "Programmed", "requests are served")
    } else {
        Verdict::new("Programmed", false, "Invalid", "not served; the other conditions say why")
    };
    let accepted = if draft.conflicted.status {
        Verdict::new("Accepted", false, draft.conflicted.reason, draft.conflicted.message.as_str())
    } else {
        draft.accepted.clone()
    };
    let verdicts = [accepted, programmed, draft.resolved.clone(), draft.conflicted.clone()];
    let old = before.map(|b| b.conditions.as_slice()).unwrap_or_default();
    ListenerStatus {
        name: draft.spec.name.clone(),
        supported_kinds: draft.kinds.clone(),
        attached_routes: draft.attached,
        conditions: merge(old, verdicts, generation, now),
    }
}

/// The parents of other controllers stay; of ours, those that are no longer named go.
fn route(verdicts: &RouteVerdicts, now: Timestamp) -> RouteStatus {
    let old = verdicts.object.status.clone().unwrap_or_default().parents;
    let generation = verdicts.object.metadata.generation;
    let ours = |p: &&RouteParentStatus| p.controller_name == GATEWAY_CONTROLLER;
    let mut parents: Vec<_> = old.iter().filter(|p| !ours(p)).cloned().collect();
    for parent in &verdicts.parents {
        let before = old.iter().filter(ours).find(|p| p.parent_ref == parent.parent);
        let kept: Vec<Condition> = before.map(|p| p.conditions.clone()).unwrap_or_default();
        let said = |c: &Condition| parent.verdicts.iter().any(|v| v.kind == c.type_);
        let kept: Vec<Condition> = kept.into_iter().filter(said).collect();
        parents.push(RouteParentStatus {
            parent_ref: parent.parent.clone(),
            controller_name: GATEWAY_CONTROLLER.to_owned(),
            conditions: merge(&kept, parent.verdicts.clone(), generation, now),
        });
    }
    RouteStatus { parents }
}

/// The old conditions with `verdicts` put in. The time of a transition moves only with the status.
fn merge(
    old: &[Condition],
    verdicts: impl IntoIterator<Item = Verdict>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.to_vec();
    for verdict in verdicts {
        let status = if verdict.status { "True" } else { "False" };
        let held = all.iter().position(|c| c.type_ == verdict.kind);
        let since = held.map(|i| &all[i]).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        let condition = Condition {
            type_: verdict.kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: verdict.message,
            observed_generation: generation,
            last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(now))),
        };
        match held {
            Some(i) => all[i] = condition,
            None => all.push(condition),
        }
    }
    all
}

/// As API servers keep times: a finer one would differ from what is read back.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
