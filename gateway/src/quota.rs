//! What one namespace may have of what all share: routes, the size of its compiled expressions, certificates. Pure.
//!
//! In: the objects, what changed, the bounds. Out: [`Over`] among the objects, and what that means for the table. The oldest objects stay, as where
//! two claim the same; what is over is refused alone, with the bound in its message, and served as soon as there is room. Where no namespace can be
//! over its bound, because all together are not, nothing is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use atoll_api::kinds::gateway::{GRPCRouteRule, HTTPRouteRule, NamedMatch};
use atoll_api::rendezvous;
use kube::ResourceExt as _;

use crate::balancer;
use crate::config::NamespaceLimits;
use crate::kinds::KINDS;
use crate::objects::{Age, Edit, Kind, Name, Objects, age, shown};
use crate::table::{RouteName, regex_bytes};

/// A regular expression, by the type of a match.
const REGEX: &str = "RegularExpression";

/// What is over the bounds of its namespace, each with why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) routes: BTreeMap<RouteName, Arc<str>>,
    /// Secrets whose certificates are not shown.
    pub(crate) certificates: BTreeMap<Name, Arc<str>>,
}

/// The bounds, and what the expressions of routes take, of those that have any.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    limits: NamespaceLimits,
    costs: HashMap<RouteName, Cost>,
}

/// What the expressions of a route take compiled, in bytes, and a hash of what is written: costing them is compiling them.
#[derive(Debug, Clone, Copy)]
struct Cost {
    written: u64,
    bytes: usize,
}

impl Quota {
    /// Bounds for each namespace.
    pub(crate) fn new(limits: NamespaceLimits) -> Self {
        Self { limits, costs: HashMap::new() }
    }

    /// Looks what is over, and puts it among the objects. Returns what that means for the table.
    pub(crate) fn derive(&mut self, objects: &mut Objects, edits: &[Edit]) -> Vec<Edit> {
        let is_whole = edits.contains(&Edit::Whole);
        if is_whole {
            let known = std::mem::take(&mut self.costs);
            let costs =
                routes(objects).filter_map(|route| Some((route.clone(), cost(objects, &route, known.get(&route))?)));
            self.costs = costs.collect();
        }
        for edit in edits {
            let Edit::Route(kind, name) = edit else { continue };
            let route = (*kind, name.clone());
            match cost(objects, &route, self.costs.get(&route)) {
                Some(cost) => drop(self.costs.insert(route, cost)),
                None => drop(self.costs.remove(&route)),
            }
        }
        let before = Arc::clone(&objects.over);
        let certificates =
            if is_whole { certificates(objects, self.limits.certificates) } else { before.certificates.clone() };
        let now = Over { routes: self.over(objects), certificates };
        if now == *before {
            return Vec::new();
        }
        let names: BTreeSet<&RouteName> = before.routes.keys().chain(now.routes.keys()).collect();
        let other = names.into_iter().filter(|name| before.routes.get(*name) != now.routes.get(*name));
        let edits = other.map(|(kind, name)| Edit::Route(*kind, name.clone())).collect();
        objects.over = Arc::new(now);
        edits
    }

    /// Which routes are over.
    fn over(&self, objects: &Objects) -> BTreeMap<RouteName, Arc<str>> {
        let NamespaceLimits { routes: bound, regex_bytes, .. } = self.limits;
        if within(objects.routes_len(), bound) && within(self.costs.values().map(|cost| cost.bytes).sum(), regex_bytes)
        {
            return BTreeMap::new();
        }
        let mut spaces: BTreeMap<String, Vec<(Age, RouteName)>> = BTreeMap::new();
        for route in routes(objects) {
            let Some(age) = age_of(objects, &route) else { continue };
            spaces.entry(route.1.0.clone()).or_default().push((age, route));
        }
        let mut over = BTreeMap::new();
        for (namespace, mut all) in spaces {
            all.sort();
            let (mut count, mut bytes) = (0, 0);
            for (_, route) in all {
                let cost = self.costs.get(&route).map_or(0, |cost| cost.bytes);
                if !within(count + 1, bound) {
                    over.insert(route, said(&namespace, bound, "routes", "namespaceRoutes"));
                } else if cost > 0 && !within(bytes + cost, regex_bytes) {
                    let (kib, what) = (regex_bytes / 1024, "KiB of compiled regular expressions");
                    over.insert(route, said(&namespace, kib, what, "namespaceRegexKiB"));
                } else {
                    (count, bytes) = (count + 1, bytes + cost);
                }
            }
        }
        over
    }
}

fn within(count: usize, bound: usize) -> bool {
    bound == 0 || count <= bound
}

fn said(namespace: &str, bound: usize, what: &str, key: &str) -> Arc<str> {
    format!(
        "namespace `{namespace}` may have {bound} {what}, and older ones have them: delete some, or raise \
         gateway.limits.{key}"
    )
    .into()
}

/// Every route that counts. Services of type LoadBalancer have a bound of their own.
fn routes(objects: &Objects) -> impl Iterator<Item = RouteName> {
    let kinds = KINDS.iter().filter(|kind| kind.row != Kind::Service);
    kinds.flat_map(|kind| (kind.names)(objects).into_iter().map(|name| (kind.row, name)))
}

/// The age of a route.
fn age_of(objects: &Objects, (row, name): &RouteName) -> Option<Age> {
    let kind = KINDS.iter().find(|kind| kind.row == *row)?;
    Some(age(&*(kind.object)(objects, name)?))
}

/// What the expressions of a route take; nothing where it has none. `known`: what they took before.
fn cost(objects: &Objects, (kind, name): &RouteName, known: Option<&Cost>) -> Option<Cost> {
    let mut patterns = Vec::new();
    match kind {
        Kind::Http => http(&objects.routes.at(name)?.spec.rules, &mut patterns),
        Kind::Grpc => grpc(&objects.grpc.at(name)?.spec.rules, &mut patterns),
        Kind::Ingress => {
            let routes = &objects.derived.live.get(name)?.part.routes;
            routes.iter().for_each(|route| http(&route.spec.rules, &mut patterns));
        }
        _ => {}
    }
    if patterns.is_empty() {
        return None;
    }
    let written = patterns.iter().fold(0, |all, pattern| rendezvous::hash(all, pattern.as_bytes()));
    let same = known.filter(|known| known.written == written).copied();
    Some(same.unwrap_or_else(|| Cost { written, bytes: patterns.into_iter().map(regex_bytes).sum() }))
}

fn http<'a>(rules: &'a [HTTPRouteRule], patterns: &mut Vec<&'a str>) {
    for written in rules.iter().flat_map(|rule| &rule.matches) {
        let path = written.path.as_ref().filter(|path| path.match_type.as_deref() == Some(REGEX));
        patterns.extend(path.and_then(|path| path.value.as_deref()));
        named(written.headers.iter().chain(&written.query_params), patterns);
    }
}

fn grpc<'a>(rules: &'a [GRPCRouteRule], patterns: &mut Vec<&'a str>) {
    for written in rules.iter().flat_map(|rule| &rule.matches) {
        let method = written.method.as_ref().filter(|method| method.match_type.as_deref() == Some(REGEX));
        patterns.extend(method.into_iter().flat_map(|m| [&m.service, &m.method]).filter_map(|part| part.as_deref()));
        named(written.headers.iter(), patterns);
    }
}

fn named<'a>(all: impl Iterator<Item = &'a NamedMatch>, patterns: &mut Vec<&'a str>) {
    patterns.extend(all.filter(|m| m.match_type.as_deref() == Some(REGEX)).map(|m| m.value.as_str()));
}

/// Secrets that listeners show, of each namespace those that the oldest Gateways name; the others.
fn certificates(objects: &Objects, bound: usize) -> BTreeMap<Name, Arc<str>> {
    let mut owners: Vec<(Age, Vec<Name>)> = Vec::new();
    for gateway in objects.gateways.iter().filter(|g| !balancer::is_ours(&***g)) {
        owners.push((age(&**gateway), shown(&gateway.spec.listeners, gateway.namespace()).collect()));
    }
    for set in objects.sets.iter() {
        owners.push((age(&**set), shown(&set.spec.listeners, set.namespace()).collect()));
    }
    owners.sort();
    let mut taken: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut over = BTreeMap::new();
    for (namespace, name) in owners.into_iter().flat_map(|(_, shown)| shown) {
        let taken = taken.entry(namespace.clone()).or_default();
        if taken.contains(&name) {
            continue;
        }
        if within(taken.len() + 1, bound) {
            taken.insert(name);
        } else {
            let why = said(&namespace, bound, "certificates", "namespaceCertificates");
            over.insert((namespace, name), why);
        }
    }
    over
}

#[cfg(test)]
mod tests;
