//! Builds the next table out of the one before and what changed. Pure.
//!
//! In: [`Input`] as it is now, and the edits since the last table. Out: what [`super::build::build`] would give. A route touches its hosts,
//! a certificate its listeners, endpoints nothing but their upstream; what is rare (Gateways, grants, policies, members) builds everything.

use std::collections::BTreeSet;

use atoll_api::ingress::option;
use atoll_api::kinds::gateway::Gateway;
use atoll_api::names::ServiceName;

use super::build::{Built, Input, Memory, build, finish};
use super::differ::difference;
use super::entry::GatewayDraft;
use super::listener::{ListenerDraft, recertify};
use super::made::{Made, RouteName, Touched, parts};
use crate::objects::{Edit, Kind, Name};
use crate::tls::Keys;

/// What is to be done.
#[derive(Default)]
struct Plan {
    /// To be attached again.
    routes: BTreeSet<RouteName>,
    /// Whose endpoints are to be looked up again.
    endpoints: BTreeSet<ServiceName>,
    secrets: BTreeSet<Name>,
    classes: bool,
    touched: Touched,
}

/// Builds the next table. `edits`: what changed since the last one; the topology is compared with that of the last one.
pub(crate) fn rebuild(input: &Input<'_>, memory: &mut Memory, edits: &[Edit]) -> Built {
    let Some(mut plan) = plan(input, &mut memory.made, edits) else { return build(input, memory) };
    let (made, keys) = parts(memory);
    for secret in &plan.secrets {
        certify(input, made, keys, secret, &mut plan.touched);
    }
    for service in &plan.endpoints {
        if made.upstreams.refresh(service, input.objects, input.topology) {
            // Routes say what of names is not used.
            plan.routes.extend(made.routes_of(service));
        }
    }
    for route in &plan.routes {
        made.detach(route, &mut plan.touched);
        made.attach(input, keys, route, &mut plan.touched);
    }
    if plan.classes {
        made.sheet.classes(input);
    }
    finish(input, memory, &plan.touched, false)
}

/// What is to be done; nothing where everything is to be built anew.
fn plan(input: &Input<'_>, made: &mut Made, edits: &[Edit]) -> Option<Plan> {
    let differs = difference(&made.table.topology, input.topology);
    let elsewhere = made.ports != *input.ports || made.addresses != input.addresses;
    if differs.whole || elsewhere || edits.contains(&Edit::Whole) {
        return None;
    }
    let mut plan = Plan { endpoints: differs.endpoints, ..Plan::default() };
    for service in &differs.services {
        plan.routes.extend(made.routes_of(service));
    }
    if differs.sites {
        plan.touched.gateways.extend(0..made.gateways.len());
    }
    for edit in edits {
        match edit {
            Edit::Nothing | Edit::Whole | Edit::Ingress => {}
            Edit::Route(kind, name) => drop(plan.routes.insert((*kind, name.clone()))),
            // Somebody else's Service may have been in the way of a Gateway's.
            Edit::Service(name) if before(input, made, name).is_some() => return None,
            Edit::Service(name) => plan.routes.extend(made.routes_of(&service(name))),
            Edit::Endpoints(name) => {
                plan.endpoints.insert(service(name));
                plan.touched.gateways.extend(before(input, made, name));
            }
            Edit::Named { name, told } => {
                for service in made.upstreams.named(name) {
                    plan.endpoints.insert(service.clone());
                    if *told {
                        plan.routes.extend(made.routes_of(service));
                    }
                }
            }
            Edit::Pods(namespace) => plan.endpoints.extend(made.upstreams.divided(namespace).cloned()),
            Edit::Secret(name) if shows_to_backends(made, name) || vouches(input, made, name) => return None,
            Edit::Secret(name) => drop(plan.secrets.insert(name.clone())),
            Edit::Said(kind, name) => retell(input, made, *kind, name, &mut plan)?,
        }
    }
    Some(plan)
}

/// The place of the Gateway that has, or wants, a Service of that name before it.
fn before(input: &Input<'_>, made: &Made, name: &Name) -> Option<usize> {
    let is_it = |d: &GatewayDraft| d.namespace == name.0 && d.front.as_ref().is_some_and(|front| front.name == name.1);
    if input.service { made.gateways.iter().position(is_it) } else { None }
}

fn service(name: &Name) -> ServiceName {
    ServiceName::new(&name.0, &name.1)
}

/// Takes over an object whose status alone is another; nothing where that is a reason to build everything.
fn retell(input: &Input<'_>, made: &mut Made, kind: Kind, name: &Name, plan: &mut Plan) -> Option<()> {
    match kind {
        Kind::Class => {
            let ours = input.objects.classes.at(name).is_some_and(|c| input.fleet.takes(c));
            plan.classes |= ours;
        }
        Kind::Gateway => {
            let object = input.objects.gateways.at(name)?;
            let drafts = made.gateways.iter_mut().enumerate();
            for (at, draft) in drafts.filter(|(_, d)| is(&d.namespace, d.object.metadata.name.as_ref(), name)) {
                // The addresses that it bears are those that it keeps.
                let addresses = |g: &Gateway| g.status.as_ref().map(|s| s.addresses.clone()).unwrap_or_default();
                if !input.pool.is_empty() && addresses(&draft.object) != addresses(object) {
                    return None;
                }
                draft.object = object.clone();
                plan.touched.gateways.insert(at);
            }
        }
        Kind::Set => {
            let object = input.objects.sets.at(name)?;
            for (at, draft) in made.gateways.iter_mut().enumerate() {
                for set in &mut draft.sets {
                    if is(&set.namespace, set.object.metadata.name.as_ref(), name) {
                        set.object = object.clone();
                        plan.touched.gateways.insert(at);
                    }
                }
            }
        }
        Kind::Policy => {
            let object = input.objects.policies.at(name)?;
            for (at, judged) in made.policies.all.iter_mut().enumerate() {
                let namespace = judged.object.metadata.namespace.as_deref().unwrap_or_default();
                if is(namespace, judged.object.metadata.name.as_ref(), name) {
                    judged.object = object.clone();
                    plan.touched.policies.insert(at);
                }
            }
        }
        _ => {
            let route = (kind, name.clone());
            made.retell(input.objects, &route);
            plan.touched.routes.insert(route);
        }
    }
    Some(())
}

fn is(namespace: &str, own: Option<&String>, name: &Name) -> bool {
    namespace == name.0 && own == Some(&name.1)
}

/// Whether a Gateway shows it to its backends: then upstreams are others.
fn shows_to_backends(made: &Made, secret: &Name) -> bool {
    made.gateways.iter().any(|draft| {
        let shown = draft.object.spec.tls.as_ref().and_then(|t| t.backend.as_ref()?.client_certificate_ref.as_ref());
        shown.is_some_and(|r| r.name == secret.1 && *r.namespace.as_ref().unwrap_or(&draft.namespace) == secret.0)
    })
}

/// Whether it says whom to trust: as clients of a listener, or as backends of an Ingress.
fn vouches(input: &Input<'_>, made: &Made, secret: &Name) -> bool {
    let mut trusting =
        input.objects.derived.live.iter().filter_map(|(at, live)| Some((at, live.part.trusts.as_ref()?)));
    let mut listeners = made.gateways.iter().flat_map(|gateway| &gateway.listeners);
    let is_named = |listener: &ListenerDraft| {
        let named = listener.spec.tls.as_ref().and_then(|tls| tls.options.get(option::CLIENT_CA));
        named.is_some_and(|named| {
            let (at, name) = named.split_once('/').unwrap_or((&listener.namespace, named));
            at == secret.0 && name == secret.1
        })
    };
    trusting.any(|(at, trusts)| at.0 == secret.0 && trusts.secret == secret.1) || listeners.any(is_named)
}

/// Looks up the certificates of the listeners that name a Secret.
fn certify(input: &Input<'_>, made: &mut Made, keys: &mut Keys, secret: &Name, touched: &mut Touched) {
    if input.objects.secrets.at(secret).is_none() {
        keys.forget(secret);
    }
    for (at, gateway) in made.gateways.iter_mut().enumerate() {
        let object = gateway.object.clone();
        for (place, listener) in gateway.listeners.iter_mut().enumerate() {
            let refs = listener.spec.tls.iter().flat_map(|tls| &tls.certificate_refs);
            let mut named = refs.map(|r| (r.namespace.as_ref().unwrap_or(&listener.namespace), &r.name));
            if named.any(|(namespace, name)| *namespace == secret.0 && *name == secret.1) {
                recertify(input, &object, listener, keys);
                touched.listeners.insert((at, place));
            }
        }
    }
}

#[cfg(test)]
mod tests;
