//! What a balancer that others own is told: the Gateways of its classes with their ListenerSets and the routes that attach there, the Services of
//! its classes, of the hub's API and of members, and the endpoints of all, of those clusters that the gateway itself would ask first. Pure.
//!
//! In: objects, topology, the provider's classes. Out: [`Wanted`]. What a field names and is not there is refused here, before anybody is told.

mod parent;
mod route;
mod servers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::kinds::CLUSTER_SET_LABEL;
use atoll_api::kinds::gateway::{Gateway, Listener, ListenerSet, ParentReference, SecretObjectReference};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::provider::{
    Backend, Certificate, Frontend, Owner, PROVIDER_CONTROLLER, Push, Refused, Route as Told, Server,
};
use atoll_api::topology::{BALANCER_CLASS_PREFIX, BalancerFacts, ServicePort, Topology, is_balancer_of};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;

use crate::objects::{Name, Objects, name_of};
use crate::table::{From as Who, Part, To, Wants, allows, local_parts, member_parts, permits, sets};
use parent::{Attached, Parent};
use route::Route;
use servers::weighed;

pub(super) use parent::{Unattached, kinds};

/// What is told, and what is not even told.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) push: Push,
    pub(super) refused: Vec<Refused>,
    /// GatewayClasses, Gateways, their ListenerSets and Services that are the provider's.
    pub(super) classes: Vec<String>,
    pub(super) gateways: Vec<Name>,
    /// Each with the Gateway that it names.
    pub(super) sets: Vec<(Name, Name)>,
    pub(super) services: Vec<Name>,
    /// Those of members.
    pub(super) members: Vec<(ClusterName, ServiceName, Arc<BalancerFacts>)>,
    /// Routes with the parents of ours that they name, and why they attach to none of their listeners, by kind and name.
    pub(super) routes: BTreeMap<(&'static str, Name), BTreeMap<ParentReference, Option<Unattached>>>,
}

/// Gathers it. `classes`: the provider's.
pub(super) fn wanted(objects: &Objects, topology: &Topology, provider: &str, classes: &[String]) -> Wanted {
    let push = Push { version: "v1".to_owned(), provider: provider.to_owned(), ..Push::default() };
    let mut gather = Gather { objects, topology, routes: Vec::new(), wanted: Wanted { push, ..Wanted::default() } };
    let ours = objects.classes.iter().filter(|class| class.spec.controller_name == PROVIDER_CONTROLLER);
    let ours = ours.map(|class| class.name_any()).filter(|name| classes.contains(name));
    gather.wanted.classes = ours.collect();
    let is_ours = |gateway: &&Arc<Gateway>| gather.wanted.classes.contains(&gateway.spec.gateway_class_name);
    let gateways: Vec<&Arc<Gateway>> = objects.gateways.iter().filter(is_ours).collect();
    if !gateways.is_empty() {
        gather.routes = route::all(objects);
    }
    for gateway in gateways {
        gather.gateway(gateway);
    }
    for service in objects.services.iter() {
        if classes.iter().any(|class| is_balancer_of(service, &format!("{BALANCER_CLASS_PREFIX}{class}"))) {
            gather.service(service);
        }
    }
    let members = topology.balancers.iter().filter(|(cluster, _)| topology.clusters.contains_key(cluster.as_str()));
    for (cluster, services) in members {
        let ours = |facts: &BalancerFacts| facts.class.as_ref().is_some_and(|class| classes.contains(class));
        for (service, facts) in services.into_iter().filter(|(_, facts)| ours(facts)) {
            gather.member(cluster, service, facts);
        }
    }
    gather.wanted
}

struct Gather<'a> {
    objects: &'a Objects,
    topology: &'a Topology,
    /// The oldest first.
    routes: Vec<Route<'a>>,
    wanted: Wanted,
}

/// A rule on its way: whose it is, and the cluster set whose services it reaches.
struct Rule<'a> {
    owner: &'a Owner,
    field: String,
    set: &'a str,
}

impl<'a> Gather<'a> {
    fn refuse(&mut self, owner: &Owner, field: impl Into<String>, message: impl Into<String>) {
        self.wanted.refused.push(Refused { owner: owner.clone(), field: field.into(), message: message.into() });
    }

    fn gateway(&mut self, gateway: &'a Gateway) {
        let own = owner("Gateway", gateway);
        self.wanted.gateways.push(name_of(gateway));
        let set = gateway.labels().get(CLUSTER_SET_LABEL).cloned();
        let set = set.unwrap_or_else(|| self.topology.settings.default_set.clone());
        let addresses: Vec<String> =
            gateway.spec.addresses.iter().map(|a| a.value.clone()).filter(|a| !a.is_empty()).collect();
        let mut claimed = Vec::new();
        self.listeners(
            &Parent { owner: &own, addresses: &addresses, set: &set },
            &gateway.spec.listeners,
            &mut claimed,
        );
        for draft in sets(self.objects, gateway) {
            let object: &ListenerSet = &draft.object;
            let owner = owner("ListenerSet", object);
            self.wanted.sets.push((name_of(object), name_of(gateway)));
            if let Some(problem) = draft.refused {
                self.refuse(&owner, "spec.parentRef", problem.message);
                continue;
            }
            self.listeners(
                &Parent { owner: &owner, addresses: &addresses, set: &set },
                &object.spec.listeners,
                &mut claimed,
            );
        }
    }

    /// Tells listeners. `claimed`: ports, protocols and host names of those before; the first keeps them.
    fn listeners(
        &mut self,
        parent: &Parent<'_>,
        listeners: &[Listener],
        claimed: &mut Vec<(i32, bool, Option<String>)>,
    ) {
        for (at, listener) in listeners.iter().enumerate() {
            let field = format!("spec.listeners[{at}]");
            let hostname = listener.hostname.clone().filter(|host| !host.is_empty());
            let claim = (listener.port, listener.protocol == "UDP", hostname.clone());
            if claimed.contains(&claim) {
                let why = format!("another listener before it has port {} and its host name", listener.port);
                self.refuse(parent.owner, field, why);
                continue;
            }
            claimed.push(claim);
            let certificates = listener.tls.iter().flat_map(|tls| &tls.certificate_refs).enumerate();
            let certificates = certificates
                .filter_map(|(n, reference)| {
                    self.certificate(parent.owner, &format!("{field}.tls.certificateRefs[{n}]"), reference)
                })
                .collect();
            let mode =
                || listener.tls.as_ref().and_then(|tls| tls.mode.clone()).unwrap_or_else(|| "Terminate".to_owned());
            let frontend = Frontend {
                owner: parent.owner.clone(),
                field,
                name: listener.name.clone(),
                protocol: listener.protocol.clone(),
                tls_mode: (listener.protocol == "TLS").then(mode),
                port: u16::try_from(listener.port).unwrap_or_default(),
                hostname,
                addresses: parent.addresses.to_vec(),
                certificates,
                routes: self.attach(parent, listener),
                ..Frontend::default()
            };
            self.wanted.push.frontends.push(frontend);
        }
    }

    fn certificate(&mut self, owner: &Owner, field: &str, reference: &SecretObjectReference) -> Option<String> {
        let at = reference.namespace.as_deref().unwrap_or(&owner.namespace);
        let name = format!("{at}/{}", reference.name);
        let to = To { group: "", kind: "Secret", namespace: at, name: &reference.name };
        let who = Who { kind: parent::kind_of(owner), namespace: &owner.namespace };
        if !permits(&self.objects.grants, who, to) {
            self.refuse(owner, field, format!("Secret `{name}`: no ReferenceGrant there permits it"));
            return None;
        }
        let data = self.objects.secrets.get(at, &reference.name).and_then(|secret| secret.data.clone());
        let text = |key: &str| String::from_utf8(data.as_ref()?.get(key)?.0.clone()).ok();
        let (Some(chain), Some(key)) = (text("tls.crt"), text("tls.key")) else {
            self.refuse(owner, field, format!("Secret `{name}`: does not exist, or is not of type kubernetes.io/tls"));
            return None;
        };
        let known = self.wanted.push.certificates.iter().any(|known| known.name == name);
        if !known {
            let certificate =
                Certificate { name: name.clone(), owner: owner.clone(), field: field.to_owned(), chain, key };
            self.wanted.push.certificates.push(certificate);
        }
        Some(name)
    }

    /// The rules of the routes that attach to a listener; every parent of ours that a route names is noted.
    fn attach(&mut self, parent: &Parent<'_>, listener: &Listener) -> Vec<Told> {
        let from = listener.allowed_routes.as_ref().and_then(|a| a.namespaces.as_ref());
        let mut all = Vec::new();
        for at in 0..self.routes.len() {
            let route = self.routes[at];
            let name = route.name();
            let may_come = allows(from, "Same", &parent.owner.namespace, &name.0, &self.objects.namespaces);
            let mut hostnames = None;
            for reference in route.parents().iter().filter(|reference| parent.is_meant(reference, &name.0)) {
                let noted = self.wanted.routes.entry((route.kind(), name.clone())).or_default();
                let noted = noted.entry(reference.clone()).or_insert(Some(Unattached::NoListener));
                match parent::attached(reference, listener, route, may_come) {
                    Attached::To(hosts) => (*noted, hostnames) = (None, Some(hosts)),
                    Attached::Not(why) => *noted = noted.map(|before| before.max(why)),
                }
            }
            let Some(hostnames) = hostnames else { continue };
            let owner = Owner { kind: route.kind().to_owned(), namespace: name.0, name: name.1, cluster: None };
            for (at, rule) in route.rules().into_iter().enumerate() {
                let meant = Rule { owner: &owner, field: format!("spec.rules[{at}]"), set: parent.set };
                let backend = self.backend(&meant, &format!("{}_{at}", owner.name), &rule.refs, route.wants());
                let Some(backend) = backend else { continue };
                all.push(Told {
                    owner: owner.clone(),
                    field: meant.field,
                    hostnames: hostnames.clone(),
                    matches: rule.matches,
                    filters: rule.filters,
                    settings: rule.settings,
                    backend,
                });
            }
        }
        all
    }

    fn service(&mut self, service: &Service) {
        let owner = owner("Service", service);
        self.wanted.services.push(name_of(service));
        let Some(facts) = BalancerFacts::read(service) else { return };
        let name = ServiceName::new(&owner.namespace, &owner.name);
        let (objects, prefix) = (self.objects, format!("{}_{}", owner.namespace, owner.name));
        self.balanced(&owner, &prefix, &facts, |port, wants| local_parts(objects, &name, port, None, wants));
    }

    /// A Service of a member, with that member's endpoints alone.
    fn member(&mut self, cluster: &ClusterName, service: &ServiceName, facts: &Arc<BalancerFacts>) {
        self.wanted.members.push((cluster.clone(), service.clone(), Arc::clone(facts)));
        let owner = member_owner(cluster, service);
        let (topology, prefix) = (self.topology, format!("{cluster}_{}_{}", service.namespace, service.name));
        self.balanced(&owner, &prefix, facts, |port, wants| {
            member_parts(topology, cluster, service, port, wants).into_iter().map(Part::well).collect()
        });
    }

    fn balanced(
        &mut self,
        owner: &Owner,
        prefix: &str,
        facts: &BalancerFacts,
        parts: impl Fn(&ServicePort, Wants) -> Vec<Part>,
    ) {
        if let Some(odd) = &facts.odd {
            return self.refuse(owner, "spec", odd.clone());
        }
        if facts.proxy.is_some() {
            let why = "what the balancer speaks to servers is for its own configuration";
            self.refuse(owner, format!("metadata.annotations[{}]", atoll_api::topology::PROXY_PROTOCOL), why);
        }
        for (at, port) in facts.ports.iter().enumerate() {
            let field = format!("spec.ports[{at}]");
            let wants = if port.protocol == "UDP" { Wants::Udp } else { Wants::Tcp };
            let servers = weighed(vec![(1, parts(port, wants))]);
            let name = format!("{prefix}_{}", port.port);
            let (backend, protocol) = (name.clone(), port.protocol.clone());
            self.wanted.push.backends.push(Backend {
                name,
                owner: owner.clone(),
                field: field.clone(),
                protocol,
                servers,
            });
            let route = Told { owner: owner.clone(), field: field.clone(), backend, ..Told::default() };
            self.wanted.push.frontends.push(Frontend {
                owner: owner.clone(),
                field,
                name: port.name.clone(),
                protocol: port.protocol.clone(),
                port: port.port,
                addresses: facts.wishes.iter().map(ToString::to_string).collect(),
                source_ranges: facts.ranges.iter().map(ToString::to_string).collect(),
                affinity_seconds: facts.affinity_s,
                routes: vec![route],
                ..Frontend::default()
            });
        }
    }
}

pub(super) fn owner(kind: &str, object: &impl kube::ResourceExt) -> Owner {
    let (namespace, name) = name_of(object);
    Owner { kind: kind.to_owned(), namespace, name, cluster: None }
}

/// A Service of a member, as the balancer hears of it.
pub(super) fn member_owner(cluster: &ClusterName, service: &ServiceName) -> Owner {
    let (namespace, name) = (service.namespace.clone(), service.name.clone());
    Owner { kind: "Service".to_owned(), namespace, name, cluster: Some(cluster.to_string()) }
}

/// The servers of an owner's backends, with the backend's name.
impl Wanted {
    pub(super) fn servers<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = (&'a str, &'a Server)> {
        let own = self.push.backends.iter().filter(move |backend| backend.owner == *owner);
        own.flat_map(|backend| backend.servers.iter().map(|server| (backend.name.as_str(), server)))
    }
}
