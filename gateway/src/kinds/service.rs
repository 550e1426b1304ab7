//! `Service` of type LoadBalancer, of the hub's API or of a member: each of its ports leads to its own endpoints. Pure.

use std::sync::Arc;

use crate::balancer::{Terms, section};
use crate::objects::{Identify, Kind, Name};
use crate::status::RouteVerdicts;
use crate::table::{Backend, Draft, Host, Spot, StreamRule, Wants};

pub(super) const ROW: Kind = Kind::Service;
pub(super) const KIND: &str = "Service";

/// Attaches the one of that name.
pub(super) fn provide(draft: &mut Draft<'_>, name: &Name) {
    let balancers = Arc::clone(&draft.objects.balancers);
    let (Some(balanced), Some(object)) = (balancers.all.get(name), draft.objects.gateways.at(name).cloned()) else {
        return;
    };
    let is_it =
        |g: &crate::table::GatewayDraft| g.namespace == name.0 && g.object.metadata.name.as_ref() == Some(&name.1);
    let Some(gateway) = draft.gateways.iter().position(is_it) else { return };
    let (created, terms) = (object.created(), Arc::new(Terms::of(balanced)));
    let route: Arc<str> = format!("{KIND} {}/{}", name.0, name.1).into();
    let (any, mut spots) = (vec![(None, Host::rank(None))], Vec::new());
    for port in &balanced.facts.ports {
        let Some(section) = section(&port.protocol, port.port) else { continue };
        let wants = if port.protocol == "UDP" { Wants::Udp } else { Wants::Tcp };
        let upstream = draft.resolver.balanced(balanced, port, wants);
        let target = Ok(upstream);
        let backend = Backend { weight: 1, name: balanced.service.to_string(), target, filters: Vec::new() };
        let (route, terms) = (Arc::clone(&route), Some(Arc::clone(&terms)));
        let rule = Arc::new(StreamRule { created, route, backends: vec![backend], terms, over: None });
        let listeners = &mut draft.gateways[gateway].listeners;
        let Some(at) = listeners.iter().position(|listener| listener.spec.name == section) else { continue };
        listeners[at].attached += 1;
        listeners[at].streams.entry(None, Vec::new).push(rule);
        spots.push(Spot::new(gateway, at, &any));
    }
    draft.attached(RouteVerdicts::new(object, Vec::new()), spots);
}
