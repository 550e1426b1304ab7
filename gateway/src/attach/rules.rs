//! Rules for requests, of HTTPRoutes and GRPCRoutes alike. Pure.
//!
//! In: a route, the draft with its listeners. Out: entries at the listeners that take it, and a verdict for each parent. Rules that can't be
//! served (a match that does not compile, a filter that can't be made) answer with an error to whatever of their matches can be read, so that
//! nobody gets past what they keep out. So do those of a route that is over the bounds of its namespace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::duration;
use atoll_api::ingress::KeyPart;
use atoll_api::kinds::gateway::{
    BackendObjectReference, HTTPBackendRef, HTTPRouteFilter, HTTPRouteRetry, HTTPRouteTimeouts, ParentReference,
    SessionPersistence,
};
use jiff::Timestamp;

use super::{Compiled, Hosts, find, verdict};
use crate::filter::{self, Filter, Resolve};
use crate::session::Session;
use crate::status::{ParentVerdict, RouteObject, RouteVerdicts};
use crate::table::{
    Backend, Draft, Entry, From, ListenerDraft, Match, OwnTls, Problem, Resolver, Retry, Rule, Scope, Spot, Unserved,
    Wants, subset_named, subset_of, subset_suffix,
};

/// Retries of a rule that does not say how many.
const RETRIES: usize = 1;
/// And never more.
const RETRIES_MAX: usize = 10;

/// Compiled matches, and why others can't be.
pub(crate) type Matches = Vec<Result<Arc<Match>, String>>;

/// A rule as it is written.
pub(crate) struct Written<'a> {
    pub(crate) name: Option<&'a String>,
    pub(crate) matches: Matches,
    pub(crate) filters: &'a [HTTPRouteFilter],
    pub(crate) backends: &'a [HTTPBackendRef],
    pub(crate) timeouts: Option<&'a HTTPRouteTimeouts>,
    pub(crate) retry: Option<&'a HTTPRouteRetry>,
    pub(crate) session: Option<&'a SessionPersistence>,
}

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
    /// Ports by name, which backends of Ingresses have; a number below 0 is a place here.
    pub(crate) port_names: &'a [String],
    /// Who answers where a backend has no endpoint.
    pub(crate) stand_in: Option<&'a HTTPBackendRef>,
    /// By what endpoints are chosen.
    pub(crate) key: Option<&'a [KeyPart]>,
    /// How TLS is spoken to backends for which no BackendTLSPolicy says it.
    pub(crate) own_tls: Option<&'a Result<OwnTls, String>>,
    pub(crate) rules: Vec<Written<'a>>,
}

type Rules = Vec<(Vec<Arc<Match>>, Arc<Rule>)>;

/// Attaches the routes of an object, each to all of its parents.
pub(crate) fn provide(draft: &mut Draft<'_>, object: Arc<dyn RouteObject>, routes: &[Route<'_>]) {
    let (mut parents, mut spots) = (Vec::new(), Vec::new());
    for route in routes {
        attach(draft, route, &mut parents, &mut spots);
    }
    draft.attached(RouteVerdicts::new(object, parents), spots);
}

/// Attaches one of an object's routes; what became of it is added to what is there.
pub(crate) fn attach(
    draft: &mut Draft<'_>,
    route: &Route<'_>,
    parents: &mut Vec<ParentVerdict>,
    spots: &mut Vec<Spot>,
) {
    let mut compiled: BTreeMap<usize, Compiled<Rules>> = BTreeMap::new();
    let meant =
        super::Route { kind: route.kind, namespace: route.namespace, hostnames: route.hostnames, is_ours: false };
    for (nth, parent) in route.parents.iter().enumerate() {
        let Some(place) = find(draft, &meant, parent) else { continue };
        let scope = Scope { own: route.own_tls.cloned(), ..Scope::of(place.gateway, &draft.gateways[place.gateway]) };
        let compiled = compiled.entry(place.gateway).or_insert_with(|| match &draft.over {
            Some(why) => refuse(route, why),
            None => compile(&mut draft.resolver, route, &scope),
        });
        // Where nothing of it is served its requests are refused: a route that takes more would not keep out whom it keeps out.
        let served = compiled.is_served();
        for (at, hosts) in place.listeners.iter().filter(|_| served || !compiled.rules.is_empty()) {
            let listener = &mut draft.gateways[place.gateway].listeners[*at];
            put(listener, hosts, &compiled.rules);
            listener.attached += i32::from(served);
            spots.push(Spot::new(place.gateway, *at, hosts).counted(served));
        }
        parents.push(verdict(nth, &place, compiled));
    }
}

fn put(listener: &mut ListenerDraft, hosts: &Hosts, rules: &Rules) {
    let routes = Arc::make_mut(&mut listener.routes);
    for (host, host_rank) in hosts {
        listener.unsorted.insert(host.clone());
        let entries = Arc::make_mut(routes.entry(host.as_ref(), Arc::default));
        if entries.is_empty() {
            entries.reserve_exact(rules.iter().map(|(matches, _)| matches.len()).sum());
        }
        for (matches, rule) in rules {
            let entry =
                |m: &Arc<Match>| Entry { matcher: Arc::clone(m), rule: Arc::clone(rule), host_rank: *host_rank };
            entries.extend(matches.iter().map(entry));
        }
    }
}

/// Rules that answer everything with an error: the route is over a bound.
fn refuse(route: &Route<'_>, why: &Arc<str>) -> Compiled<Rules> {
    let rule = |index: usize, written: &Written<'_>| Rule {
        created: route.created,
        route: Arc::clone(route.label),
        index,
        name: written.name.cloned(),
        filters: Vec::new(),
        backends: Vec::new(),
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        session: None,
        stand_in: None,
        key: None,
        refused: Some(Box::new(Unserved::Over(Arc::clone(why)))),
    };
    let each = route.rules.iter().enumerate();
    let rules = each.map(|(index, written)| {
        let matches = written.matches.iter().flatten().cloned().collect();
        (matches, Arc::new(rule(index, written)))
    });
    Compiled::over(rules.collect(), why)
}

fn compile(resolver: &mut Resolver<'_>, route: &Route<'_>, scope: &Scope) -> Compiled<Rules> {
    let mut resolve = Backends { resolver, route, scope, unresolved: None };
    let mut compiled: Compiled<Rules> = Compiled::default();
    for (index, written) in route.rules.iter().enumerate() {
        let matches: Vec<Arc<Match>> = written.matches.iter().flatten().cloned().collect();
        let (rule, refused) = rule(&mut resolve, route.label, index, written, &matches);
        match refused {
            Some(problem) => drop(compiled.refused.get_or_insert(problem)),
            None => compiled.whole += 1,
        }
        if !matches.is_empty() {
            compiled.rules.push((matches, Arc::new(rule)));
        }
    }
    compiled.unresolved = resolve.unresolved;
    compiled.left_out = resolver.noted.left_out.take();
    compiled
}

/// The rule, and why it answers with errors only.
fn rule(
    resolve: &mut Backends<'_, '_>,
    route: &Arc<str>,
    index: usize,
    written: &Written<'_>,
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
    if let Some(Err(why)) = written.matches.iter().find(|m| m.is_err()) {
        note(Err(Problem::new("UnsupportedValue", why.clone())));
    }
    let made = exclusive(written.filters).and_then(|()| filters(plain(written.filters), prefixed, resolve));
    let filters_of_rule = note(made);
    if let Some(subset) = written.filters.iter().find_map(subset_of) {
        let why = format!("filter `ExtensionRef`: subset `{subset}` is to be named among the filters of a backendRef");
        note(Err(Problem::new("UnsupportedValue", why)));
    }
    let mut backends = Vec::new();
    for b in written.backends {
        // A backend without weight takes nothing, but must be there all the same.
        let (subset, twice) = subset_named(&b.filters).map_or_else(|p| (None, Err(p)), |subset| (subset, Ok(())));
        let target = resolve.backend(&b.target, subset).map_err(|p| p.message);
        let made =
            twice.and_then(|()| exclusive(&b.filters)).and_then(|()| filters(plain(&b.filters), prefixed, resolve));
        let weight = u32::try_from(b.weight.unwrap_or(1)).unwrap_or_default();
        let name = backend_name(&b.target) + &subset_suffix(subset);
        let backend = Backend { weight, name, target, filters: note(made) };
        if weight > 0 {
            backends.push(backend);
        }
    }
    backends.shrink_to_fit();
    let session = written.session.map(|s| {
        let rule = written.name.map_or_else(|| format!("{route} {index}"), |name| format!("{route} {name}"));
        Session::parse(s, &rule, matches)
    });
    if let Some(Err(why)) = &session {
        note(Err(Problem::new("UnsupportedValue", why.clone())));
    }
    let mut time = |text: Option<&String>| match text.map(|text| duration::parse(text)) {
        None => None,
        Some(Ok(time)) => Some(time).filter(|t| !t.is_zero()),
        Some(Err(bad)) => {
            note(Err(Problem::new("UnsupportedValue", bad.to_string())));
            None
        }
    };
    let retry = written.retry.map(|r| {
        Box::new(Retry {
            codes: r.codes.clone(),
            attempts: r.attempts.map_or(RETRIES, |n| usize::try_from(n).unwrap_or_default()).min(RETRIES_MAX),
            counted: r.attempts.is_some(),
            backoff: time(r.backoff.as_ref()).unwrap_or(Duration::ZERO),
        })
    });
    let stand_in = resolve.route.stand_in.map(|b| {
        Box::new(Backend {
            weight: 1,
            name: backend_name(&b.target),
            target: resolve.backend(&b.target, None).map_err(|p| p.message),
            filters: Vec::new(),
        })
    });
    let rule = Rule {
        stand_in,
        key: resolve.route.key.map(Into::into),
        created: resolve.route.created,
        route: Arc::clone(route),
        index,
        name: written.name.cloned(),
        filters: filters_of_rule,
        backends,
        request_timeout: time(written.timeouts.and_then(|t| t.request.as_ref())),
        backend_timeout: time(written.timeouts.and_then(|t| t.backend_request.as_ref())),
        retry,
        session: session.and_then(Result::ok).map(Box::new),
        refused: None,
    };
    let broken = |p: &Problem| Box::new(Unserved::Broken(p.message.clone()));
    (Rule { refused: refused.as_ref().map(broken), ..rule }, refused)
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

/// Those that do something to requests: a subset says only where they go.
fn plain(written: &[HTTPRouteFilter]) -> impl Iterator<Item = &HTTPRouteFilter> {
    written.iter().filter(|f| subset_of(f).is_none())
}

fn filters<'f>(
    written: impl Iterator<Item = &'f HTTPRouteFilter>,
    prefixed: bool,
    resolve: &mut Backends<'_, '_>,
) -> Result<Vec<Box<dyn Filter>>, Problem> {
    let made = written.map(|f| filter::make(f, prefixed, resolve));
    Ok(made.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// A backend as its route names it.
pub(crate) fn backend_name(target: &BackendObjectReference) -> String {
    let port = target.port.map(|p| format!(":{p}")).unwrap_or_default();
    format!("{} {}{port}", target.kind.as_deref().unwrap_or("Service"), target.name)
}

/// Resolves for one route, and notes the references that lead nowhere.
struct Backends<'r, 'a> {
    resolver: &'r mut Resolver<'a>,
    route: &'r Route<'r>,
    scope: &'r Scope,
    unresolved: Option<Problem>,
}

impl Backends<'_, '_> {
    fn backend(&mut self, target: &BackendObjectReference, subset: Option<&str>) -> Result<usize, Problem> {
        let from = From { kind: self.route.kind, namespace: self.route.namespace };
        let target = self.resolver.numbered(target, self.route.namespace, self.route.port_names, &self.scope.set);
        let found = self.resolver.resolve(&target, subset, from, self.scope, self.route.wants);
        if let Err(problem) = &found {
            Problem::note(&mut self.unresolved, problem);
        }
        found
    }
}

impl Resolve for Backends<'_, '_> {
    fn resolve(&mut self, target: &BackendObjectReference) -> Option<usize> {
        self.backend(target, None).ok()
    }
}
