//! What one namespace may have of what all share: routes, the size of its compiled expressions, certificates. Pure.
//!
//! In: the objects, what changed, the bounds. Out: [`Over`] among the objects, and what that means for the table. The oldest objects stay, as where
//! two claim the same; what is over is refused alone, with the bound in its message, and served as soon as there is room. Where no namespace can be
//! over its bound, because all together are not, nothing is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use atoll_api::kinds::gateway::{GRPCRouteRule, HTTPRouteRule, Listener, NamedMatch};
use kube::ResourceExt as _;

use crate::balancer;
use crate::config::NamespaceLimits;
use crate::objects::{Age, Edit, Kind, Name, Objects, age};
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
    costs: HashMap<RouteName, usize>,
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
            let rows = ROUTES.iter().flat_map(|(kind, ages)| ages(objects).into_iter().map(|(_, name)| (*kind, name)));
            self.costs = rows.filter_map(|route| Some((cost(objects, &route)?, route))).map(|(c, r)| (r, c)).collect();
        }
        for edit in edits {
            let Edit::Route(kind, name) = edit else { continue };
            let route = (*kind, name.clone());
            match cost(objects, &route) {
                Some(cost) => drop(self.costs.insert(route, cost)),
                None => drop(self.costs.remove(&route)),
            }
        }
        let before = Arc::clone(&objects.over);
        let certificates =
            if is_whole { certificates(objects, self.limits.certificates) } else { before.certificates.clone() };
        let now = Over { routes: self.routes(objects), certificates };
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
    fn routes(&self, objects: &Objects) -> BTreeMap<RouteName, Arc<str>> {
        let NamespaceLimits { routes, regex_bytes, .. } = self.limits;
        if within(objects.routes_len(), routes) && within(self.costs.values().sum(), regex_bytes) {
            return BTreeMap::new();
        }
        let mut spaces: BTreeMap<String, Vec<(Age, RouteName)>> = BTreeMap::new();
        for (kind, ages) in ROUTES {
            for (age, name) in ages(objects) {
                spaces.entry(name.0.clone()).or_default().push((age, (*kind, name)));
            }
        }
        let mut over = BTreeMap::new();
        for (namespace, mut all) in spaces {
            all.sort();
            let (mut count, mut bytes) = (0, 0);
            for (_, route) in all {
                let cost = self.costs.get(&route).copied().unwrap_or_default();
                if !within(count + 1, routes) {
                    over.insert(route, said(&namespace, routes, "routes", "namespaceRoutes"));
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

/// The kinds that count, and the age and name of each object of them.
type Ages = fn(&Objects) -> Vec<(Age, Name)>;
const ROUTES: &[(Kind, Ages)] = &[
    (Kind::Http, |o| o.routes.names().cloned().zip(o.routes.iter()).map(|(n, r)| (age(&**r), n)).collect()),
    (Kind::Grpc, |o| o.grpc.names().cloned().zip(o.grpc.iter()).map(|(n, r)| (age(&**r), n)).collect()),
    (Kind::Tls, |o| o.tls.names().cloned().zip(o.tls.iter()).map(|(n, r)| (age(&**r), n)).collect()),
    (Kind::Tcp, |o| o.tcp.names().cloned().zip(o.tcp.iter()).map(|(n, r)| (age(&**r), n)).collect()),
    (Kind::Udp, |o| o.udp.names().cloned().zip(o.udp.iter()).map(|(n, r)| (age(&**r), n)).collect()),
    (Kind::Ingress, |o| {
        let live = o.derived.live.keys();
        live.filter_map(|name| Some((age(&**o.ingresses.at(name)?), name.clone()))).collect()
    }),
];

/// What the expressions of a route take compiled, in bytes; nothing where it has none.
fn cost(objects: &Objects, (kind, name): &RouteName) -> Option<usize> {
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
    (!patterns.is_empty()).then(|| patterns.into_iter().map(regex_bytes).sum())
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
    let shows = |listeners: &[Listener], own: &str| -> Vec<Name> {
        let refs = listeners.iter().flat_map(|l| &l.tls).flat_map(|tls| &tls.certificate_refs);
        refs.map(|r| (r.namespace.clone().unwrap_or_else(|| own.to_owned()), r.name.clone())).collect()
    };
    let mut owners: Vec<(Age, Vec<Name>)> = Vec::new();
    for gateway in objects.gateways.iter().filter(|g| !balancer::is_ours(&***g)) {
        let own = gateway.namespace().unwrap_or_default();
        owners.push((age(&**gateway), shows(&gateway.spec.listeners, &own)));
    }
    for set in objects.sets.iter() {
        owners.push((age(&**set), shows(&set.spec.listeners, &set.namespace().unwrap_or_default())));
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
