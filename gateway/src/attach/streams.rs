//! Routes of streams and packets: TLS, TCP, UDP. Pure.
//!
//! Of several routes for one listener and name the oldest is served; the others are accepted and wait (Gateway API, conflicts).

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::kinds::gateway::{L4Rule, ParentReference};
use jiff::Timestamp;

use super::rules::backend_name;
use super::{Compiled, find, verdict};
use crate::objects::seniority;
use crate::status::{ParentVerdict, RouteObject, RouteVerdicts};
use crate::table::{Backend, Draft, From, Problem, Resolver, Scope, Spot, StreamRule, Wants};

/// A route as it is written.
pub(crate) struct Route<'a> {
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'a str,
    /// kind namespace/name.
    pub(crate) label: &'a Arc<str>,
    pub(crate) hostnames: &'a [String],
    pub(crate) parents: &'a [ParentReference],
    pub(crate) wants: Wants,
    pub(crate) created: Option<Timestamp>,
    /// Ports by name; a number below 0 is a place here.
    pub(crate) port_names: &'a [String],
    /// It is made of what belongs to Ingresses: it stands at their Gateway, and a Service that isn't there means the ServiceImport.
    pub(crate) is_ours: bool,
    pub(crate) rules: &'a [L4Rule],
}

/// Attaches a route to all of its parents.
pub(crate) fn provide(draft: &mut Draft<'_>, object: Arc<dyn RouteObject>, route: &Route<'_>) {
    let (mut parents, mut spots) = (Vec::new(), Vec::new());
    attach(draft, route, &mut parents, &mut spots);
    draft.attached(RouteVerdicts::new(object, parents), spots);
}

/// Attaches one of an object's routes; what became of it is added to what is there.
pub(crate) fn attach(
    draft: &mut Draft<'_>,
    route: &Route<'_>,
    parents: &mut Vec<ParentVerdict>,
    spots: &mut Vec<Spot>,
) {
    let mut compiled: BTreeMap<usize, Compiled<Option<Arc<StreamRule>>>> = BTreeMap::new();
    let Route { kind, namespace, hostnames, is_ours, .. } = *route;
    let meant = super::Route { kind, namespace, hostnames, is_ours };
    for (nth, parent) in route.parents.iter().enumerate() {
        let Some(place) = find(draft, &meant, parent) else { continue };
        let scope = Scope::of(place.gateway, &draft.gateways[place.gateway]);
        let compiled = compiled.entry(place.gateway).or_insert_with(|| match &draft.over {
            Some(why) => Compiled::over(Some(Arc::new(rule(route, Vec::new(), Some(Arc::clone(why))))), why),
            None => compile(&mut draft.resolver, route, &scope),
        });
        // Where it is over a bound its clients are refused: a route that takes more would not keep out whom it keeps out.
        let served = compiled.is_served();
        for (at, hosts) in &place.listeners {
            let listener = &mut draft.gateways[place.gateway].listeners[*at];
            listener.attached += i32::from(served);
            for (host, _) in hosts {
                if let Some(rule) = &compiled.rules {
                    put(listener.streams.entry(host.as_ref(), Vec::new), rule);
                }
            }
            spots.push(Spot::new(place.gateway, *at, hosts).counted(served));
        }
        parents.push(verdict(nth, &place, compiled));
    }
}

/// The older goes before the younger; each stands there once.
fn put(waiting: &mut Vec<Arc<StreamRule>>, new: &Arc<StreamRule>) {
    let is_older = |old: &Arc<StreamRule>| seniority(old.created, &old.route) < seniority(new.created, &new.route);
    let at = waiting.partition_point(is_older);
    if waiting.get(at).is_none_or(|other| other.route != new.route) {
        waiting.insert(at, Arc::clone(new));
    }
}

fn compile(resolver: &mut Resolver<'_>, route: &Route<'_>, scope: &Scope) -> Compiled<Option<Arc<StreamRule>>> {
    let mut compiled = Compiled { whole: 1, ..Compiled::default() };
    let mut backends = Vec::new();
    for b in route.rules.iter().flat_map(|rule| &rule.backend_refs) {
        let kind = if route.is_ours { "Ingress" } else { route.kind };
        let target = resolver.numbered(&b.target, route.namespace, route.port_names, &scope.set);
        let found = resolver.resolve(&target, None, From { kind, namespace: route.namespace }, scope, route.wants);
        if let Err(problem) = &found {
            Problem::note(&mut compiled.unresolved, problem);
        }
        let weight = u32::try_from(b.weight.unwrap_or(1)).unwrap_or_default();
        if weight > 0 {
            let target = found.map_err(|p| p.message);
            backends.push(Backend { weight, name: backend_name(&b.target), target, filters: Vec::new() });
        }
    }
    compiled.left_out = resolver.noted.left_out.take();
    compiled.rules = Some(Arc::new(rule(route, backends, None)));
    compiled
}

fn rule(route: &Route<'_>, backends: Vec<Backend>, over: Option<Arc<str>>) -> StreamRule {
    StreamRule { created: route.created, route: Arc::clone(route.label), backends, terms: None, over }
}
