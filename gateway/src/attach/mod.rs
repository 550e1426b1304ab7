//! Which listeners a parent reference of a route means, and which of them take it. Pure. Source: Gateway API (ParentReference, AllowedRoutes).

pub(crate) mod rules;
pub(crate) mod streams;

use std::borrow::Cow;
use std::sync::Arc;

use atoll_api::kinds::gateway::{GATEWAY_GROUP, ParentReference};

use crate::balancer;
use crate::ingress;
use crate::status::{LEFT_OUT, ParentVerdict, SERVED, Verdict};
use crate::table::{Draft, Host, ListenerDraft, Problem, allows};

/// Reason of what is over the bounds of its namespace.
const OVER: &str = "NamespaceLimit";

/// What of a route decides where it attaches.
pub(crate) struct Route<'a> {
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'a str,
    pub(crate) hostnames: &'a [String],
    /// It is made of what belongs to Ingresses.
    pub(crate) is_ours: bool,
}

/// Host names that a listener and a route have in common, each with the rank of the route's own name.
pub(crate) type Hosts = Vec<(Option<Host>, (u8, usize))>;

/// A parent that is one of ours.
pub(crate) struct Place {
    pub(crate) gateway: usize,
    /// Listeners that take the route, by their place in the Gateway.
    pub(crate) listeners: Vec<(usize, Hosts)>,
    /// Why none does.
    why: (&'static str, Cow<'static, str>),
}

/// What became of a route's rules.
#[derive(Default)]
pub(crate) struct Compiled<T> {
    pub(crate) rules: T,
    /// How many are served as they are written.
    pub(crate) whole: usize,
    pub(crate) refused: Option<Problem>,
    pub(crate) unresolved: Option<Problem>,
    /// What of its backends is left out all the same.
    pub(crate) left_out: Option<String>,
}

impl<T> Compiled<T> {
    /// What refuses all requests: the route is over the bounds of its namespace.
    pub(crate) fn over(rules: T, why: &str) -> Self {
        let refused = Some(Problem::new(OVER, why));
        Self { rules, whole: 0, refused, unresolved: None, left_out: None }
    }

    /// Whether any of it is served.
    pub(crate) fn is_served(&self) -> bool {
        self.whole > 0 || self.refused.is_none()
    }
}

/// Finds the listeners that take a route by one of its parents; nothing where that is none of ours.
pub(crate) fn find(draft: &Draft<'_>, route: &Route<'_>, parent: &ParentReference) -> Option<Place> {
    let (gateway, set) = owner(draft, route, parent)?;
    let owner = &draft.gateways[gateway];
    // Ingresses have a Gateway of their own, which takes nothing else.
    let is_ingress = route.kind == "Ingress" || route.is_ours;
    if ingress::is_ours(&*owner.object) != is_ingress || balancer::is_ours(&*owner.object) {
        return None;
    }
    let mut place =
        Place { gateway, listeners: Vec::new(), why: ("NoMatchingParent", "the parent has no such listener".into()) };
    // Listeners share the names.
    let parse = if is_ingress { Host::of_ingress } else { Host::parse };
    let named: Vec<Host> = route.hostnames.iter().map(|name| parse(name)).collect();
    for (at, listener) in owner.listeners.iter().enumerate().filter(|(_, l)| l.set == set && is_meant(parent, l)) {
        let from = listener.spec.allowed_routes.as_ref().and_then(|a| a.namespaces.as_ref());
        let namespaces = &draft.objects.namespaces;
        if !(is_ingress || listener.kinds.iter().any(|k| k.kind == route.kind))
            || !allows(from, "Same", &listener.namespace, route.namespace, namespaces)
        {
            if place.why.0 == "NoMatchingParent" {
                place.why = ("NotAllowedByListeners", "no listener takes routes of this kind and namespace".into());
            }
            continue;
        }
        let hosts = hosts(listener.host.as_ref(), &named);
        if hosts.is_empty() {
            place.why = ("NoMatchingListenerHostname", "no host name of the route is one of a listener's".into());
            continue;
        }
        place.listeners.push((at, hosts));
    }
    if let Some(over) = &draft.over {
        place.why = (OVER, over.to_string().into());
    }
    Some(place)
}

/// The Gateway that a parent reference means, and which of its ListenerSets.
fn owner(draft: &Draft<'_>, route: &Route<'_>, parent: &ParentReference) -> Option<(usize, Option<usize>)> {
    if parent.group.as_deref().unwrap_or(GATEWAY_GROUP) != GATEWAY_GROUP {
        return None;
    }
    let namespace = parent.namespace.as_deref().unwrap_or(route.namespace);
    let mut gateways = draft.gateways.iter().enumerate();
    match parent.kind.as_deref().unwrap_or("Gateway") {
        "Gateway" => {
            let found = gateways
                .find(|(_, g)| g.namespace == namespace && g.object.metadata.name.as_ref() == Some(&parent.name));
            found.map(|(at, _)| (at, None))
        }
        "ListenerSet" => gateways.find_map(|(at, g)| {
            let mut sets = g.sets.iter();
            let set =
                sets.position(|s| s.namespace == namespace && s.object.metadata.name.as_ref() == Some(&parent.name));
            set.map(|set| (at, Some(set)))
        }),
        _ => None,
    }
}

/// Whether a parent reference means this listener.
fn is_meant(parent: &ParentReference, listener: &ListenerDraft) -> bool {
    parent.section_name.as_deref().is_none_or(|name| name == listener.spec.name)
        && parent.port.is_none_or(|port| port == listener.spec.port)
}

fn hosts(listener: Option<&Host>, route: &[Host]) -> Hosts {
    if route.is_empty() {
        return vec![(listener.cloned(), Host::rank(None))];
    }
    let meet = |host| {
        let both = listener.map_or(Some(host), |listener| listener.meet(host))?;
        Some((Some(both.clone()), Host::rank(Some(host))))
    };
    route.iter().filter_map(meet).collect()
}

/// What is said of a route at its parent of that place.
pub(crate) fn verdict<T>(parent: usize, place: &Place, compiled: &Compiled<T>) -> ParentVerdict {
    let attached = !place.listeners.is_empty();
    if attached && compiled.refused.is_none() && compiled.unresolved.is_none() && compiled.left_out.is_none() {
        return ParentVerdict { parent, verdicts: Arc::clone(&SERVED) };
    }
    let accepted = match &compiled.refused {
        _ if !attached => Verdict::new("Accepted", false, place.why.0, place.why.1.clone()),
        Some(problem) if compiled.whole == 0 => {
            Verdict::new("Accepted", false, problem.reason, problem.message.as_str())
        }
        _ => Verdict::served(),
    };
    let mut verdicts = vec![accepted];
    verdicts.push(match (&compiled.unresolved, &compiled.left_out) {
        (Some(problem), _) => Verdict::new("ResolvedRefs", false, problem.reason, problem.message.as_str()),
        (None, Some(why)) => Verdict::new("ResolvedRefs", true, LEFT_OUT, why.as_str()),
        (None, None) => Verdict::resolved(),
    });
    if let (true, Some(problem)) = (attached && compiled.whole > 0, &compiled.refused) {
        let why = format!("Dropped Rule: {}", problem.message);
        verdicts.push(Verdict::new("PartiallyInvalid", true, problem.reason, why));
    }
    ParentVerdict { parent, verdicts: verdicts.into() }
}
