//! What is said of an object: its conditions out of what was wanted and what the balancer answered. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use atoll_api::kinds::Condition;
use atoll_api::kinds::gateway::{
    GATEWAY_GROUP, Gateway, GatewayAddress, GatewayStatus, Listener, ListenerSet, ListenerSetStatus, ListenerStatus,
    RouteGroupKind,
};
use atoll_api::provider::{Answer, Owner, Refused};
use atoll_api::topology::{BalancerFacts, BalancerPort, BalancerProblem, BalancerState};
use jiff::Timestamp;

use super::Told;
use crate::foreign::wanted::{Unattached, Wanted, kinds, owner};
use crate::objects::name_of;
use crate::status::{Verdict, replace};

/// The reason of what a balancer does not do.
pub(super) const REFUSED: &str = "RefusedByBalancer";
/// The condition that says how the servers do, where the balancer says so.
const SERVERS: &str = "atoll.dev/ServersHealthy";
/// Servers that are named in a message.
const SHOWN_MAX: usize = 5;

/// What of an owner's fields below `prefix` is refused.
fn refused<'a>(
    owner: &'a Owner,
    prefix: &'a str,
    wanted: &'a Wanted,
    told: &'a Told,
) -> impl Iterator<Item = &'a Refused> {
    let all = told.as_ref().map_or(wanted.refused.as_slice(), |answer| answer.refused.as_slice());
    all.iter().filter(move |r| r.owner == *owner && is_below(&r.field, prefix))
}

/// Whether a field is another, or below it: `spec.listeners[1]` is not above `spec.listeners[10]`.
fn is_below(field: &str, prefix: &str) -> bool {
    field.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

fn listed<'a>(all: impl Iterator<Item = &'a Refused>) -> String {
    all.map(|r| format!("{}: {}", r.field, r.message)).collect::<Vec<_>>().join("; ")
}

/// How the servers of an owner do; nothing where the balancer says nothing of them.
fn servers(owner: &Owner, wanted: &Wanted, answer: &Answer) -> Option<Verdict> {
    let (mut known, mut ill) = (0_usize, Vec::new());
    for (backend, server) in wanted.servers(owner) {
        let at = std::net::SocketAddr::new(server.address, server.port).to_string();
        let Some(health) = answer.health.iter().find(|h| h.backend == backend && h.server == at) else { continue };
        known += 1;
        if !health.healthy {
            let why = if health.reason.is_empty() { String::new() } else { format!(" ({})", health.reason) };
            ill.push(format!("{at}{why}"));
        }
    }
    let count = |n: usize| if n == 1 { "1 server".to_owned() } else { format!("{n} servers") };
    match (known, ill.len()) {
        (0, _) => None,
        (_, 0) => Some(Verdict::new(
            SERVERS,
            true,
            "ServersHealthy",
            format!("{} as the balancer sees it: all well", count(known)),
        )),
        (_, sick) => {
            let more = if sick > SHOWN_MAX { format!(" and {} more", sick - SHOWN_MAX) } else { String::new() };
            ill.truncate(SHOWN_MAX);
            let why = format!("{sick} of {} not well, as the balancer sees it: {}{more}", count(known), ill.join(", "));
            Some(Verdict::new(SERVERS, false, "ServersUnhealthy", why))
        }
    }
}

/// The conditions of a Service, whose others are somebody else's, with how its servers do.
pub(super) fn with_servers(
    held: &[Condition],
    owner: &Owner,
    wanted: &Wanted,
    answer: &Answer,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (ours, others): (Vec<Condition>, Vec<Condition>) = held.iter().cloned().partition(|c| c.type_ == SERVERS);
    let said = replace(&ours, servers(owner, wanted, answer).into_iter().collect(), generation, now);
    others.into_iter().chain(said).collect()
}

/// What is stated of a Service of a member.
pub(super) fn member(owner: &Owner, facts: &BalancerFacts, wanted: &Wanted, answer: &Answer) -> BalancerState {
    let mut state = BalancerState::default();
    let refused: Vec<&Refused> = answer.refused.iter().filter(|r| r.owner == *owner).collect();
    let problem = |reason: &str, message: String| BalancerProblem { reason: reason.to_owned(), message };
    state.problems = refused.iter().map(|r| problem(REFUSED, format!("{}: {}", r.field, r.message))).collect();
    state.problems.extend(
        servers(owner, wanted, answer).filter(|said| !said.status).map(|said| problem(said.reason, said.message)),
    );
    for at in super::reached(owner, answer) {
        match at.parse::<IpAddr>() {
            Ok(ip) => state.addresses.push(ip),
            Err(_) => state.hostnames.push(at.clone()),
        }
    }
    let port = |(at, port): (usize, &atoll_api::topology::ServicePort)| {
        let is_refused = refused.iter().any(|r| is_below(&r.field, &format!("spec.ports[{at}]")));
        let error = is_refused.then(|| REFUSED.to_owned());
        BalancerPort { port: port.port, protocol: port.protocol.clone(), error }
    };
    state.ports = facts.ports.iter().enumerate().map(port).collect();
    state
}

pub(super) fn route(owner: &Owner, unattached: Option<Unattached>, wanted: &Wanted, told: &Told) -> Vec<Verdict> {
    // A backend that is missing is not a field that is not understood; the rest of the route is served.
    let missing = |r: &&Refused| r.field.contains(".backendRefs[") && wanted.refused.contains(*r);
    let why = listed(refused(owner, "", wanted, told).filter(|r| !missing(r)));
    let accepted = match (unattached, told) {
        (Some(unattached), _) => {
            let (reason, why) = unattached.said();
            return vec![Verdict::new("Accepted", false, reason, why), Verdict::resolved()];
        }
        (None, Err(why)) => Verdict::new("Accepted", false, "Pending", why.as_str()),
        (None, Ok(_)) if why.is_empty() => Verdict::new("Accepted", true, "Accepted", "the balancer serves the route"),
        (None, Ok(_)) => Verdict::new("Accepted", false, "UnsupportedValue", why),
    };
    let unresolved = listed(wanted.refused.iter().filter(|r| r.owner == *owner).filter(missing));
    let resolved = match unresolved.is_empty() {
        true => Verdict::resolved(),
        false => Verdict::new("ResolvedRefs", false, "BackendNotFound", unresolved),
    };
    let servers = told.as_ref().ok().and_then(|answer| servers(owner, wanted, answer));
    [accepted, resolved].into_iter().chain(servers).collect()
}

/// What is said of the listeners of a Gateway or a ListenerSet, and how many are served.
fn listeners(
    owner: &Owner,
    spec: &[Listener],
    old: &[ListenerStatus],
    generation: Option<i64>,
    (wanted, told, now): (&Wanted, &Told, Timestamp),
) -> (Vec<ListenerStatus>, usize) {
    let mut served = 0;
    let mut all = Vec::new();
    for (at, listener) in spec.iter().enumerate() {
        let field = format!("spec.listeners[{at}]");
        let why = listed(refused(owner, &field, wanted, told));
        let (accepted, programmed) = match told {
            Err(why) => (
                Verdict::new("Accepted", true, "Accepted", "the balancer is to be told"),
                Verdict::new("Programmed", false, "Pending", why.as_str()),
            ),
            Ok(_) if why.is_empty() => {
                served += 1;
                (
                    Verdict::new("Accepted", true, "Accepted", "the balancer has the listener"),
                    Verdict::new("Programmed", true, "Programmed", "the balancer serves it"),
                )
            }
            Ok(_) => (
                Verdict::new("Accepted", false, "UnsupportedValue", why.as_str()),
                Verdict::new("Programmed", false, "Invalid", why.as_str()),
            ),
        };
        let below = format!("{field}.tls");
        let missing = listed(wanted.refused.iter().filter(|r| r.owner == *owner && is_below(&r.field, &below)));
        let resolved = match missing.is_empty() {
            true => Verdict::resolved(),
            false => Verdict::new("ResolvedRefs", false, "InvalidCertificateRef", missing),
        };
        let claimed = wanted.refused.iter().find(|r| r.owner == *owner && r.field == field);
        let conflicted = match claimed {
            Some(refused) => Verdict::new("Conflicted", true, "HostnameConflict", refused.message.as_str()),
            None => Verdict::new("Conflicted", false, "NoConflicts", "no other listener of the Gateway is like it"),
        };
        let kind = |kind: &str| RouteGroupKind { group: Some(GATEWAY_GROUP.to_owned()), kind: kind.to_owned() };
        let frontend = wanted.push.frontends.iter().find(|f| f.owner == *owner && f.field == field);
        let routes: BTreeSet<&Owner> = frontend.iter().flat_map(|f| &f.routes).map(|r| &r.owner).collect();
        let before = old.iter().find(|l| l.name == listener.name);
        let kept = before.map(|l| l.conditions.as_slice()).unwrap_or_default();
        all.push(ListenerStatus {
            name: listener.name.clone(),
            supported_kinds: kinds(listener).map(kind).collect(),
            attached_routes: i32::try_from(routes.len()).unwrap_or(i32::MAX),
            conditions: replace(kept, vec![accepted, programmed, resolved, conflicted], generation, now),
        });
    }
    (all, served)
}

/// Accepted and Programmed of whoever has listeners.
fn summary(served: usize, count: usize, told: &Told) -> Vec<Verdict> {
    match told {
        Err(why) => vec![
            Verdict::new("Accepted", true, "Accepted", "the balancer is to be told"),
            Verdict::new("Programmed", false, "Pending", why.as_str()),
        ],
        Ok(_) => {
            let message = format!("the balancer serves {served} of {count} listeners");
            let reason = if served == count { "Accepted" } else { "ListenersNotValid" };
            vec![
                Verdict::new("Accepted", served > 0, reason, message.as_str()),
                Verdict::new("Programmed", served > 0, if served > 0 { "Programmed" } else { "Invalid" }, message),
            ]
        }
    }
}

pub(super) fn gateway(gateway: &Gateway, wanted: &Wanted, told: &Told, now: Timestamp) -> GatewayStatus {
    let owner = owner("Gateway", gateway);
    let (old, generation) = (gateway.status.clone().unwrap_or_default(), gateway.metadata.generation);
    let spec = &gateway.spec.listeners;
    let (listeners, served) = listeners(&owner, spec, &old.listeners, generation, (wanted, told, now));
    let reached =
        told.iter().flat_map(|answer| &answer.addresses).filter(|r| r.owner == owner).flat_map(|r| &r.addresses);
    let address = |at: &String| {
        let kind = if at.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
        GatewayAddress { address_type: Some(kind.to_owned()), value: at.clone() }
    };
    let own = name_of(gateway);
    let mut sets = wanted.sets.iter().filter(|(_, gateway)| *gateway == own).map(|(set, _)| set).peekable();
    let taken = |set: &(String, String)| {
        let is_it = |o: &Owner| o.kind == "ListenerSet" && (&o.namespace, &o.name) == (&set.0, &set.1);
        told.is_ok() && wanted.push.frontends.iter().any(|f| is_it(&f.owner))
    };
    let attached =
        sets.peek().is_some().then(|| i32::try_from(sets.filter(|set| taken(set)).count()).unwrap_or(i32::MAX));
    GatewayStatus {
        addresses: reached.filter(|_| served > 0).map(address).collect(),
        conditions: replace(&old.conditions, summary(served, spec.len(), told), generation, now),
        listeners,
        attached_listener_sets: attached,
    }
}

pub(super) fn set(set: &ListenerSet, wanted: &Wanted, told: &Told, now: Timestamp) -> ListenerSetStatus {
    let owner = owner("ListenerSet", set);
    let (old, generation) = (set.status.clone().unwrap_or_default(), set.metadata.generation);
    let closed = wanted.refused.iter().find(|r| r.owner == owner && r.field == "spec.parentRef");
    if let Some(closed) = closed {
        let not = |kind| Verdict::new(kind, false, "NotAllowed", closed.message.as_str());
        let conditions = replace(&old.conditions, vec![not("Accepted"), not("Programmed")], generation, now);
        return ListenerSetStatus { conditions, listeners: Vec::new() };
    }
    let spec = &set.spec.listeners;
    let (listeners, served) = listeners(&owner, spec, &old.listeners, generation, (wanted, told, now));
    let conditions = replace(&old.conditions, summary(served, spec.len(), told), generation, now);
    ListenerSetStatus { conditions, listeners }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_backend_is_unresolved_and_what_a_balancer_does_not_do_is_not_accepted() {
        let owner = Owner { kind: "HTTPRoute".to_owned(), ..Owner::default() };
        let no = |field: &str| Refused { owner: owner.clone(), field: field.to_owned(), message: "no".to_owned() };
        let missing = no("spec.rules[1].backendRefs[0]");
        let wanted = Wanted { refused: vec![missing.clone()], ..Wanted::default() };
        for (of_balancer, accepted) in [(None, true), (Some(no("spec.rules[0].matches[0].path")), false)] {
            let refused = of_balancer.into_iter().chain([missing.clone()]).collect();
            let said = route(&owner, None, &wanted, &Ok(Answer { refused, ..Answer::default() }));
            let told: Vec<_> = said.iter().map(|v| (v.kind, v.status, v.reason)).collect();
            let reason = if accepted { "Accepted" } else { "UnsupportedValue" };
            assert_eq!(told, [("Accepted", accepted, reason), ("ResolvedRefs", false, "BackendNotFound")]);
        }
    }
}
