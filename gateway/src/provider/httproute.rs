//! `HTTPRoute` of the Gateway API. Pure.
//!
//! In: the routes, the draft with its listeners. Out: entries at the listeners that take them, and a verdict for each parent. Rules that can't be
//! served are left out (matches that don't compile) or answer with an error (filters that can't be made), never skipped.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::duration;
use atoll_api::kinds::gateway::{
    BackendObjectReference, GATEWAY_GROUP, HTTPBackendRef, HTTPRoute, HTTPRouteFilter, HTTPRouteMatch, HTTPRouteRule,
    ParentReference,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use crate::filter::{self, Filter, Resolve};
use crate::status::{ParentVerdict, RouteVerdicts, Verdict};
use crate::table::{Backend, Draft, Entry, From, Host, ListenerDraft, Match, Problem, Resolver, Rule};

const KIND: &str = "HTTPRoute";

/// Attaches every HTTPRoute.
pub(super) fn provide(draft: &mut Draft<'_>) {
    let mut routes: Vec<Arc<HTTPRoute>> = draft.objects.routes.clone();
    routes.sort_by_cached_key(|r| (r.creation_timestamp().map(|t| t.0), r.namespace(), r.name_any()));
    for (age, route) in routes.iter().enumerate() {
        let mut compiled = BTreeMap::new();
        let mut parents = Vec::new();
        for parent in &route.spec.parent_refs {
            parents.extend(attach(draft, route, age, parent, &mut compiled));
        }
        draft.routes.push(RouteVerdicts { object: Arc::clone(route), parents });
    }
}

/// A route compiled for one cluster set.
struct Compiled {
    rules: Vec<(Vec<Arc<Match>>, Arc<Rule>)>,
    /// How many rules are served as they are written.
    whole: usize,
    refused: Option<Problem>,
    unresolved: Option<Problem>,
}

/// Attaches a route to one parent; nothing where that is none of ours.
fn attach(
    draft: &mut Draft<'_>,
    route: &HTTPRoute,
    age: usize,
    parent: &ParentReference,
    compiled: &mut BTreeMap<String, Compiled>,
) -> Option<ParentVerdict> {
    let group = parent.group.as_deref().unwrap_or(GATEWAY_GROUP);
    if group != GATEWAY_GROUP || parent.kind.as_deref().unwrap_or("Gateway") != "Gateway" {
        return None;
    }
    let own = route.namespace().unwrap_or_default();
    let at = draft.gateway(parent.namespace.as_deref().unwrap_or(&own), &parent.name)?;
    let set = draft.gateways[at].set.clone();
    let compiled = compiled.entry(set.clone()).or_insert_with(|| compile(&mut draft.resolver, route, &set));
    let namespaces = &draft.objects.namespaces;
    let gateway = &mut draft.gateways[at];
    let gateway_namespace = gateway.namespace.clone();
    let mut stage = ("NoMatchingParent", "the Gateway has no such listener");
    let mut attached = false;
    for listener in gateway.listeners.iter_mut().filter(|l| is_meant(parent, l)) {
        if !allows(listener, &gateway_namespace, &own, namespaces) {
            stage = stage.max(("NotAllowedByListeners", "no listener takes routes of this kind and namespace"));
            continue;
        }
        let hosts = hosts(listener.host.as_ref(), &route.spec.hostnames);
        if hosts.is_empty() {
            stage = ("NoMatchingListenerHostname", "no host name of the route is one of a listener's");
            continue;
        }
        attached = true;
        if compiled.whole > 0 || compiled.refused.is_none() {
            listener.attached += 1;
            put(listener, &hosts, age, compiled);
        }
    }
    let accepted = match &compiled.refused {
        _ if !attached => Verdict::new("Accepted", false, stage.0, stage.1),
        Some(problem) if compiled.whole == 0 => {
            Verdict::new("Accepted", false, problem.reason, problem.message.as_str())
        }
        _ => Verdict::new("Accepted", true, "Accepted", "the route is served"),
    };
    let mut verdicts = vec![accepted];
    verdicts.push(match &compiled.unresolved {
        Some(problem) => Verdict::new("ResolvedRefs", false, problem.reason, problem.message.as_str()),
        None => Verdict::new("ResolvedRefs", true, "ResolvedRefs", "everything that it names is there"),
    });
    if let (true, Some(problem)) = (attached && compiled.whole > 0, &compiled.refused) {
        let why = format!("Dropped Rule: {}", problem.message);
        verdicts.push(Verdict::new("PartiallyInvalid", true, problem.reason, why));
    }
    Some(ParentVerdict { parent: parent.clone(), verdicts })
}

/// Whether a parent reference means this listener.
fn is_meant(parent: &ParentReference, listener: &ListenerDraft) -> bool {
    parent.section_name.as_deref().is_none_or(|name| name == listener.spec.name)
        && parent.port.is_none_or(|port| port == listener.spec.port)
}

/// Whether a listener takes routes of this kind and namespace.
fn allows(listener: &ListenerDraft, gateway: &str, route: &str, namespaces: &[Arc<Namespace>]) -> bool {
    if !listener.kinds.iter().any(|k| k.kind == KIND) {
        return false;
    }
    let from = listener.spec.allowed_routes.as_ref().and_then(|a| a.namespaces.as_ref());
    match from.and_then(|n| n.from.as_deref()).unwrap_or("Same") {
        "All" => true,
        "Same" => gateway == route,
        "Selector" => {
            let selector = from.and_then(|n| n.selector.clone()).and_then(|s| Selector::try_from(s).ok());
            let object = namespaces.iter().find(|n| n.name_any() == route);
            selector.zip(object).is_some_and(|(selector, object)| selector.matches(object.labels()))
        }
        _ => false,
    }
}

/// Host names that listener and route have in common, each with the rank of the route's own name.
fn hosts(listener: Option<&Host>, route: &[String]) -> Vec<(Option<Host>, (u8, usize))> {
    if route.is_empty() {
        return vec![(listener.cloned(), Host::rank(None))];
    }
    let named = route.iter().map(|name| Host::parse(name));
    named
        .filter_map(|host| {
            let rank = Host::rank(Some(&host));
            let both = match listener {
                Some(listener) => listener.meet(&host)?.clone(),
                None => host,
            };
            Some((Some(both), rank))
        })
        .collect()
}

fn put(listener: &mut ListenerDraft, hosts: &[(Option<Host>, (u8, usize))], age: usize, compiled: &Compiled) {
    for (host, host_rank) in hosts {
        let entries = listener.routes.entry(host.as_ref(), Vec::new);
        for (matches, rule) in &compiled.rules {
            let entry =
                |m: &Arc<Match>| Entry { matcher: Arc::clone(m), rule: Arc::clone(rule), host_rank: *host_rank, age };
            entries.extend(matches.iter().map(entry));
        }
    }
}

fn compile(resolver: &mut Resolver<'_>, route: &HTTPRoute, set: &str) -> Compiled {
    let namespace = route.namespace().unwrap_or_default();
    let name: Arc<str> = format!("{KIND} {namespace}/{}", route.name_any()).into();
    let mut resolve = Backends { resolver, namespace: &namespace, set, unresolved: None };
    let mut compiled = Compiled { rules: Vec::new(), whole: 0, refused: None, unresolved: None };
    for (index, written) in route.spec.rules.iter().enumerate() {
        let matches = match matches(written) {
            Ok(matches) => matches,
            Err(why) => {
                let why = format!("rule {index}: {why}");
                compiled.refused.get_or_insert(Problem::new("UnsupportedValue", why));
                continue;
            }
        };
        let (rule, refused) = rule(&mut resolve, &name, index, written, &matches);
        match refused {
            Some(problem) => drop(compiled.refused.get_or_insert(problem)),
            None => compiled.whole += 1,
        }
        compiled.rules.push((matches, Arc::new(rule)));
    }
    compiled.unresolved = resolve.unresolved;
    compiled
}

fn matches(written: &HTTPRouteRule) -> Result<Vec<Arc<Match>>, String> {
    if written.matches.is_empty() {
        return Ok(vec![Arc::new(Match::compile(&HTTPRouteMatch::default())?)]);
    }
    written.matches.iter().map(|m| Match::compile(m).map(Arc::new)).collect()
}

/// The rule, and why it answers with errors only.
fn rule(
    resolve: &mut Backends<'_, '_>,
    route: &Arc<str>,
    index: usize,
    written: &HTTPRouteRule,
    matches: &[Arc<Match>],
) -> (Rule, Option<Problem>) {
    let prefixed = matches.iter().all(|m| m.prefix().is_some());
    let mut refused = None;
    let mut note = |made: Result<Vec<Box<dyn Filter>>, Problem>| match made {
        Ok(filters) => filters,
        Err(Problem { reason, message }) => {
            refused.get_or_insert(Problem::new(reason, format!("rule {index}: {message}")));
            Vec::new()
        }
    };
    let made = exclusive(&written.filters).and_then(|()| filters(&written.filters, prefixed, resolve));
    let filters_of_rule = note(made);
    let mut backends = Vec::new();
    for b in written.backend_refs.iter() {
        // A backend without weight takes nothing, but must be there all the same.
        let target = resolve.backend(&b.target).map_err(|p| p.message);
        let made = exclusive(&b.filters).and_then(|()| filters(&b.filters, prefixed, resolve));
        let weight = u32::try_from(b.weight.unwrap_or(1)).unwrap_or_default();
        let backend = Backend { weight, name: backend_name(b), target, filters: note(made) };
        if weight > 0 {
            backends.push(backend);
        }
    }
    let timeouts = written.timeouts.clone().unwrap_or_default();
    let mut time = |text: &Option<String>| match text.as_deref().map(duration::parse) {
        None => None,
        Some(Ok(time)) => Some(time).filter(|t| !t.is_zero()),
        Some(Err(bad)) => {
            note(Err(Problem::new("UnsupportedValue", bad.to_string())));
            None
        }
    };
    let rule = Rule {
        route: Arc::clone(route),
        index,
        name: written.name.clone(),
        filters: filters_of_rule,
        backends,
        request_timeout: time(&timeouts.request),
        backend_timeout: time(&timeouts.backend_request),
        refused: None,
    };
    (Rule { refused: refused.as_ref().map(|p: &Problem| p.message.clone()), ..rule }, refused)
}

/// A request can't be both redirected and rewritten.
fn exclusive(written: &[HTTPRouteFilter]) -> Result<(), Problem> {
    let has = |kind: &str| written.iter().any(|f| f.filter_type == kind);
    if has("RequestRedirect") && has("URLRewrite") {
        let why = "RequestRedirect and URLRewrite exclude each other";
        return Err(Problem::new("IncompatibleFilters", why));
    }
    Ok(())
}

fn filters(
    written: &[HTTPRouteFilter],
    prefixed: bool,
    resolve: &mut Backends<'_, '_>,
) -> Result<Vec<Box<dyn Filter>>, Problem> {
    let made = written.iter().map(|f| filter::make(f, prefixed, resolve));
    Ok(made.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn backend_name(b: &HTTPBackendRef) -> String {
    let port = b.target.port.map(|p| format!(":{p}")).unwrap_or_default();
    format!("{} {}{port}", b.target.kind.as_deref().unwrap_or("Service"), b.target.name)
}

/// Resolves for one route, and notes the first reference that leads nowhere.
struct Backends<'r, 'a> {
    resolver: &'r mut Resolver<'a>,
    namespace: &'r str,
    set: &'r str,
    unresolved: Option<Problem>,
}

impl Backends<'_, '_> {
    fn backend(&mut self, target: &BackendObjectReference) -> Result<usize, Problem> {
        let from = From { kind: KIND, namespace: self.namespace };
        let found = self.resolver.resolve(target, from, self.set);
        if let Err(problem) = &found {
            self.unresolved.get_or_insert(problem.clone());
        }
        found
    }
}

impl Resolve for Backends<'_, '_> {
    fn resolve(&mut self, target: &BackendObjectReference) -> Option<usize> {
        self.backend(target).ok()
    }
}
