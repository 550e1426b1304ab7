//! Which listeners of a balancer of others take a route. Pure. Source: Gateway API (ParentReference, AllowedRoutes).

use atoll_api::kinds::gateway::{GATEWAY_GROUP, Listener, ParentReference};
use atoll_api::provider::Owner;

use super::route::Route;
use crate::kinds::KINDS;
use crate::table::Host;

/// A Gateway or ListenerSet of ours.
pub(super) struct Parent<'a> {
    pub(super) owner: &'a Owner,
    /// Wished for by the Gateway.
    pub(super) addresses: &'a [String],
    /// The cluster set whose services it reaches.
    pub(super) set: &'a str,
}

/// Why no listener of a parent takes a route: that which came nearest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::foreign) enum Unattached {
    NoListener,
    NotAllowed,
    NoHostname,
}

impl Unattached {
    /// The reason and the message of a condition.
    pub(in crate::foreign) fn said(self) -> (&'static str, &'static str) {
        match self {
            Self::NoListener => ("NoMatchingParent", "the parent has no such listener"),
            Self::NotAllowed => ("NotAllowedByListeners", "no listener takes routes of this kind and namespace"),
            Self::NoHostname => ("NoMatchingListenerHostname", "no host name of the route is one of a listener's"),
        }
    }
}

/// What became of a route at one listener.
pub(super) enum Attached {
    /// With the host names that both have; none: any.
    To(Vec<String>),
    Not(Unattached),
}

impl Parent<'_> {
    /// Whether a reference of a route in `namespace` means it.
    pub(super) fn is_meant(&self, reference: &ParentReference, namespace: &str) -> bool {
        reference.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
            && reference.kind.as_deref().unwrap_or("Gateway") == self.owner.kind
            && reference.name == self.owner.name
            && reference.namespace.as_deref().unwrap_or(namespace) == self.owner.namespace
    }
}

/// What becomes of a route that names the parent of a listener. `may_come`: routes of its namespace may.
pub(super) fn attached(reference: &ParentReference, listener: &Listener, route: Route<'_>, may_come: bool) -> Attached {
    let is_meant = reference.section_name.as_deref().is_none_or(|name| name == listener.name)
        && reference.port.is_none_or(|port| port == listener.port);
    if !is_meant {
        return Attached::Not(Unattached::NoListener);
    }
    if !may_come || !kinds(listener).any(|kind| kind == route.kind()) {
        return Attached::Not(Unattached::NotAllowed);
    }
    let own = listener.hostname.as_deref().filter(|host| !host.is_empty()).map(Host::parse);
    let named: Vec<Host> = route.hostnames().iter().map(|name| Host::parse(name)).collect();
    let both: Vec<String> = match (&own, named.as_slice()) {
        (None, named) => named.iter().map(ToString::to_string).collect(),
        (Some(own), []) if matches!(route, Route::Http(_) | Route::Grpc(_) | Route::Tls(_)) => vec![own.to_string()],
        (Some(_), []) => Vec::new(),
        (Some(own), named) => named.iter().filter_map(|host| Some(own.meet(host)?.to_string())).collect(),
    };
    if both.is_empty() && !named.is_empty() { Attached::Not(Unattached::NoHostname) } else { Attached::To(both) }
}

/// The kinds of routes that a listener takes.
pub(in crate::foreign) fn kinds(listener: &Listener) -> impl Iterator<Item = &'static str> + use<'_> {
    let allowed = listener.allowed_routes.as_ref().map(|a| a.kinds.as_slice()).unwrap_or_default();
    let of_protocol = KINDS.iter().filter(|row| row.protocols.contains(&listener.protocol.as_str()));
    let named = |kind: &str| {
        allowed.iter().any(|k| k.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP && k.kind == kind)
    };
    of_protocol.map(|row| row.kind).filter(move |kind| allowed.is_empty() || named(kind))
}

/// The kind of an owner, as grants name it.
pub(super) fn kind_of(owner: &Owner) -> &'static str {
    if owner.kind == "ListenerSet" { "ListenerSet" } else { "Gateway" }
}
