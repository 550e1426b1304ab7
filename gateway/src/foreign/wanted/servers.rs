//! The servers of a rule: endpoints of Services and ServiceImports, of the clusters that come first, with weights. Pure.

use std::collections::BTreeMap;

use atoll_api::kinds::Subset;
use atoll_api::kinds::gateway::BackendObjectReference;
use atoll_api::names::ServiceName;
use atoll_api::provider::{Backend, Server};
use atoll_api::routing::{Asker, Candidate, Chain, choose};
use atoll_api::topology::TrafficFacts;

use super::route::Reference;
use super::{Gather, Rule};
use crate::table::{
    From as Who, IMPORT_GROUP, Part, To, Wants, find_subset, import_parts, is_external, local_parts, permits,
    pick_port, service_port,
};

/// The highest weight of a server.
const WEIGHT_MAX: f64 = 256.0;

impl Gather<'_> {
    /// The backend of a rule; its name. What can't be resolved is refused, and the others serve; nothing where another owner has the name.
    pub(super) fn backend(
        &mut self,
        rule: &Rule<'_>,
        suffix: &str,
        refs: &[Reference],
        wants: Wants,
    ) -> Option<String> {
        let name = format!("{}_{suffix}", rule.owner.namespace);
        if let Some(known) = self.wanted.push.backends.iter().find(|known| known.name == name) {
            if known.owner != *rule.owner {
                let why = format!("{} has the backend `{name}` already: give this one another name", known.owner);
                self.refuse(rule.owner, "metadata.name", why);
                return None;
            }
            return Some(name);
        }
        let mut found = Vec::new();
        for (at, reference) in refs.iter().enumerate() {
            let weight = u32::try_from(reference.to.weight.unwrap_or(1)).unwrap_or_default();
            let subset = reference.subset.clone();
            match subset.and_then(|subset| self.resolve(rule, &reference.to.target, subset.as_deref(), wants)) {
                Ok(parts) => found.push((weight, parts)),
                Err(why) => self.refuse(rule.owner, format!("{}.backendRefs[{at}]", rule.field), why),
            }
        }
        let protocol = match wants {
            Wants::Udp => "UDP",
            Wants::Tcp => "TCP",
            Wants::Grpc => "GRPC",
            Wants::Http => "HTTP",
        };
        self.wanted.push.backends.push(Backend {
            name: name.clone(),
            owner: rule.owner.clone(),
            field: format!("{}.backendRefs", rule.field),
            protocol: protocol.to_owned(),
            servers: weighed(found),
        });
        Some(name)
    }

    fn resolve(
        &self,
        rule: &Rule<'_>,
        target: &BackendObjectReference,
        subset: Option<&str>,
        wants: Wants,
    ) -> Result<Vec<Part>, String> {
        let (group, kind) = (target.group.as_deref().unwrap_or(""), target.kind.as_deref().unwrap_or("Service"));
        let namespace = target.namespace.as_deref().unwrap_or(&rule.owner.namespace);
        let to = To { group, kind, namespace, name: &target.name };
        if !permits(&self.objects.grants, Who { kind: &rule.owner.kind, namespace: &rule.owner.namespace }, to) {
            return Err(format!("`{namespace}/{}`: no ReferenceGrant there permits it", target.name));
        }
        let service = ServiceName::new(namespace, &target.name);
        let subset = subset.map(|name| self.subset(&service, name)).transpose()?;
        match (group, kind) {
            ("", "Service") => {
                let found = self.objects.services.get(namespace, &target.name).ok_or("the Service does not exist")?;
                if is_external(found) {
                    return Err(
                        "the Service is an ExternalName: names are followed by Atoll's own listeners".to_owned()
                    );
                }
                let ports: Vec<_> =
                    found.spec.iter().flat_map(|s| s.ports.clone().unwrap_or_default()).map(service_port).collect();
                let port = pick_port(&ports, target.port, wants).ok_or("the Service has no such port")?;
                Ok(local_parts(self.objects, &service, port, subset, wants))
            }
            (IMPORT_GROUP, "ServiceImport") => {
                let facts = self.topology.services.get(rule.set).and_then(|services| services.get(&service));
                let facts = facts.ok_or_else(|| format!("cluster set {} has no such service", rule.set))?;
                let port = pick_port(&facts.ports, target.port, wants).ok_or("the service has no such port")?;
                let parts = import_parts(self.topology, rule.set, &service, port, subset, wants);
                Ok(self.best(rule.set, &service, parts.into_iter().map(Part::well).collect()))
            }
            _ => Err(format!("kind {kind} is not served")),
        }
    }

    /// Its TrafficPolicy: the hub tells one of each service.
    fn policy(&self, service: &ServiceName) -> Option<(&ServiceName, &TrafficFacts, Chain)> {
        let of = |at: &ServiceName, spec: &TrafficFacts| {
            at.namespace == service.namespace && spec.service.as_ref() == Some(&service.name)
        };
        let mut policies = self.topology.traffic.iter().filter(|(at, spec)| of(at, spec));
        policies.find_map(|(at, spec)| Some((at, &**spec, Chain::parse(&spec.strategy, spec.all_down).ok()?)))
    }

    fn subset(&self, service: &ServiceName, name: &str) -> Result<&Subset, String> {
        let policy = self.policy(service).map(|(at, spec, _)| (at.to_string(), &*spec.subsets));
        find_subset(policy.as_ref().map(|(at, subsets)| (&**at, *subsets)), name)
            .map_err(|why| format!("service `{service}`: {why}"))
    }

    /// The clusters that are asked first, as its TrafficPolicy says.
    fn best(&self, set: &str, service: &ServiceName, parts: Vec<Part>) -> Vec<Part> {
        let chain = self.policy(service).map(|(.., chain)| chain).unwrap_or_default();
        let known: Vec<&Part> = parts.iter().filter(|part| part.cluster.is_some()).collect();
        let candidates: Vec<Candidate<'_>> = known
            .iter()
            .filter_map(|part| {
                part.cluster.as_deref().map(|facts| Candidate::new(facts, facts.ready, part.endpoints.len()))
            })
            .collect();
        let asker =
            Asker { cluster: None, set, region: None, zone: None, location: None, rtt: None, client: 0, dice: 0 };
        let first = choose(&asker, &candidates, &chain).tiers.into_iter().next().unwrap_or_default();
        first.into_iter().map(|at| known[at].clone()).collect()
    }
}

/// Servers with their weights: what each reference has is divided among its endpoints, and the largest share is the highest weight.
pub(super) fn weighed(refs: Vec<(u32, Vec<Part>)>) -> Vec<Server> {
    let mut shares: BTreeMap<(std::net::IpAddr, u16), (f64, Option<String>)> = BTreeMap::new();
    for (weight, parts) in refs.iter().filter(|(weight, _)| *weight > 0) {
        let all: Vec<_> = parts.iter().flat_map(|part| part.endpoints.iter().map(move |e| (part, e))).collect();
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        for (part, endpoint) in all {
            let cluster = part.name().map(ToString::to_string);
            let entry = shares.entry((endpoint.address, endpoint.port)).or_insert((0.0, cluster));
            entry.0 += f64::from(*weight) / f64::from(count);
        }
    }
    let largest = shares.values().map(|(share, _)| *share).fold(0.0, f64::max);
    let server = |((address, port), (share, cluster)): (_, (f64, _))| Server {
        address,
        port,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 256")]
        weight: (share / largest * WEIGHT_MAX).round().clamp(1.0, WEIGHT_MAX) as u16,
        cluster,
    };
    shares.into_iter().map(server).collect()
}
