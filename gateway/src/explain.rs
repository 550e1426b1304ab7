//! What a request would go through, as JSON for people and commands: listener, route, rule, backends, tiers and why, endpoints.
//!
//! In: host, path, region. Reads what requests read and decides as they do, but sends nothing.

mod endpoints;

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_api::health::Source;
use atoll_api::kinds::BalanceMethod;
use atoll_api::topology::Standing;
use http::request::Parts;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::balance::is_in_panic;
use crate::choose::{Capacity, Question, bound, place, room};
use crate::endpoint::{Live, LivePart};
use crate::plane::{Plane, Snapshot};
use crate::table::{Backend, ListenerTable, Mode, Policy, Slot, Unserved, Upstream};
use crate::tls::Certificate;
pub(crate) use endpoints::endpoint;

/// Explains a GET of `path` at `host` for somebody in `from`; absent: where the gateway stands.
pub(crate) fn explain(plane: &Plane, host: &str, path: &str, from: Option<&str>) -> Value {
    let host = host.split_once(':').map_or(host, |(host, _)| host).trim_end_matches('.').to_ascii_lowercase();
    let mut said = json!({"host": host, "path": path});
    let Some(snapshot) = plane.snapshots.load_full() else {
        said["error"] = "no routes are known yet".into();
        return said;
    };
    let standing = plane.clients.standing_in(from);
    said["from"] = serde_json::to_value(place(&standing, &snapshot.table.topology)).unwrap_or_default();
    said["table"] = json!({"lastGood": snapshot.last_good, "topology": {
        "epoch": snapshot.table.topology.version.epoch, "generation": snapshot.table.topology.version.generation}});
    said["health"] = match plane.health.view().source() {
        Source::Hub => "Hub: its view is fresh".into(),
        Source::Probes => "Probes: the hub is silent, own probes count".into(),
        Source::Panic => "Panic: the hub is silent and own probes see almost nobody, so its last word counts".into(),
    };
    let slots = snapshot.table.slots.keys().copied();
    let found: Vec<Value> = slots.filter_map(|slot| at_slot(plane, &snapshot, slot, &host, path, &standing)).collect();
    if found.is_empty() {
        said["error"] =
            "404: no listener takes this host: `atoll gateway routes` lists the hosts that are served".into();
    }
    let regions: BTreeSet<&str> =
        snapshot.table.topology.clusters.values().filter_map(|c| c.spec.region.as_deref()).collect();
    if let Some(from) = from.filter(|from| !regions.contains(from)) {
        let known = regions.into_iter().collect::<Vec<_>>().join(", ");
        said["note"] = format!("no cluster is in region `{from}`: there are {known}").into();
    }
    said["listeners"] = found.into();
    said
}

fn at_slot(
    plane: &Plane,
    snapshot: &Snapshot,
    slot: Slot,
    host: &str,
    path: &str,
    standing: &Standing,
) -> Option<Value> {
    // Streams and packets have no paths.
    let listener = snapshot.table.listener(slot, host).filter(|l| l.mode == Mode::Requests)?;
    let mut said = json!({
        "servedAt": slot.to_string(), "gateway": listener.gateway, "listener": listener.name, "port": listener.port,
        "hostname": listener.host.as_ref().map(ToString::to_string),
    });
    if listener.server.is_some() {
        said["certificate"] = Certificate::of(host, &listener.certificates).map(|shown| shown.said()).into();
    }
    let head = request(host, path).map_err(|e| e.to_string());
    match head.and_then(|mut head| crate::policy::normalise(&mut head).map(|()| head).map_err(str::to_owned)) {
        Ok(head) => route(plane, snapshot, listener, host, &head, standing, &mut said),
        Err(why) => said["error"] = format!("400: {why}").into(),
    }
    Some(said)
}

fn request(host: &str, path: &str) -> Result<Parts, http::Error> {
    let request = http::Request::builder().uri(path).header(http::header::HOST, host).body(())?;
    Ok(request.into_parts().0)
}

fn route(
    plane: &Plane,
    snapshot: &Snapshot,
    listener: &ListenerTable,
    host: &str,
    head: &Parts,
    standing: &Standing,
    said: &mut Value,
) {
    let Some(entry) = listener.route(host, head) else {
        let why = "404: no route takes this: `atoll gateway routes` lists what is served";
        said["error"] = why.into();
        return;
    };
    let rule = &entry.rule;
    said["route"] = (*rule.route).into();
    said["rule"] = json!({"index": rule.index, "name": rule.name, "match": entry.matcher.to_string(),
        "filters": rule.filters.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>()});
    // Which policy gives each filter, in the order in which they work.
    let policies = plane.policies.load_full();
    let chain = policies.and_then(|p| p.chain(listener, &rule.route, rule.name.as_ref()));
    let given = chain.iter().flat_map(|chain| &chain.given);
    said["policies"] = given.map(|(filter, policy)| json!({"filter": filter, "policy": policy})).collect();
    match rule.refused.as_deref() {
        None => {}
        Some(Unserved::Broken(why)) => return said["error"] = format!("500: {why}").into(),
        Some(Unserved::Over(why)) => return said["error"] = format!("503: {why}").into(),
    }
    let backends = rule.backends.iter().map(|b| backend(plane, snapshot, b, host, standing));
    said["backends"] = backends.collect();
}

fn backend(plane: &Plane, snapshot: &Snapshot, backend: &Backend, host: &str, standing: &Standing) -> Value {
    let mut said = json!({"backend": backend.name, "weight": backend.weight});
    let index = match &backend.target {
        Ok(index) => *index,
        Err(why) => {
            said["error"] = format!("500: {why}").into();
            return said;
        }
    };
    let (upstream, live) = (&snapshot.table.upstreams[index], &snapshot.live[index]);
    let question =
        Question { table: &snapshot.table, upstream, live, host, standing, client: 0, dice: plane.dice.roll() };
    let choice = question.choice(&plane.health);
    said["upstream"] = upstream.id.to_string().into();
    if !upstream.names.is_empty() {
        said["names"] = names(plane, upstream);
    }
    said["policy"] = question.policy().map(|p| p.name.clone()).into();
    let method = question.policy().map_or_else(BalanceMethod::default, |p| p.balance.method);
    said["balance"] = serde_json::to_value(method).unwrap_or_default();
    said["why"] = choice.why.into();
    said["lastResort"] = choice.resort.is_some().into();
    said["clusters"] = live.parts.iter().filter_map(|part| known(snapshot, part)).collect();
    said["capacity"] = match question.policy().and_then(|p| p.capacity) {
        None => "none: a cluster is sent whatever comes".into(),
        Some(Capacity::PerEndpoint(n)) => format!("{n} requests at once for each endpoint that is well").into(),
        Some(Capacity::Total(n)) => format!("{n} requests at once for each cluster").into(),
    };
    let policy = question.policy().map(Arc::as_ref);
    said["retryBudget"] = json!({"left": plane.budget.left(Instant::now()), "of": "the gateway"});
    let of_tier = |tier: &Vec<usize>| tier.iter().map(|part| cluster(plane, live, policy, *part)).collect::<Value>();
    let tiers = choice.tiers.iter().map(of_tier);
    said["tiers"] = tiers.collect();
    if let Some(policy) = policy {
        spared(plane, live, policy, &choice.tiers, &mut said);
    }
    if choice.tiers.is_empty() || live.parts.iter().all(|p| p.endpoints.is_empty()) {
        said["error"] = "503: no endpoint is ready".into();
    }
    said
}

/// Tiers that are passed over because too few there are well, and what is left of the policy's own retry budget.
fn spared(plane: &Plane, live: &Live, policy: &Policy, tiers: &[Vec<usize>], said: &mut Value) {
    let (care, heeded, now) = (&policy.care, plane.health.heeds(), Instant::now());
    if care.panic_percent > 0 {
        let is_over = |tier: &&Vec<usize>| is_in_panic(live, tier, care, heeded, now);
        let over: Vec<&Vec<usize>> = tiers.iter().filter(is_over).collect();
        let names = |tier: &&Vec<usize>| tier.iter().map(|part| live.parts[*part].name()).collect::<Vec<_>>();
        said["panic"] = json!({"percent": care.panic_percent, "passedOver": over.iter().map(names).collect::<Vec<_>>(),
            "ignored": !tiers.is_empty() && over.len() == tiers.len()});
    }
    if let Some(budget) = &care.budget {
        said["retryBudget"] = json!({"left": budget.left(now), "of": "the policy"});
    }
}

/// What the names of a backend lead to, and when they are asked again.
pub(crate) fn names(plane: &Plane, upstream: &Upstream) -> Value {
    let now = Instant::now();
    upstream.names.iter().map(|name| plane.names.view(name, now)).collect()
}

/// What hub and own eyes say of a cluster that offers the service.
pub(crate) fn known(snapshot: &Snapshot, part: &LivePart) -> Option<Value> {
    let facts = part.facts.as_ref()?;
    let newest = snapshot.table.topology.clusters.get(facts.name.as_str());
    let mut said = json!({
        "cluster": facts.name.as_str(), "set": facts.set(), "role": format!("{:?}", facts.role()),
        "hubSays": if newest.is_some_and(|c| c.ready) { "ready" } else { "not ready" },
        "weSee": if part.is_cluster_out() { "out" } else { "well" }, "endpoints": part.endpoints.len(),
    });
    if part.is_service_out() {
        said["service"] = "out: none of its endpoints here is well".into();
    }
    // Its endpoints are not among those that there are.
    let taken: serde_json::Map<String, Value> =
        newest.into_iter().flat_map(|c| c.taken_out()).map(|(whose, word)| (whose, word.into())).collect();
    if !taken.is_empty() {
        said["takenOut"] = taken.into();
    }
    Some(said)
}

fn cluster(plane: &Plane, live: &Live, policy: Option<&Policy>, part: usize) -> Value {
    let part = &live.parts[part];
    let name = part.facts.as_ref().map(|facts| facts.name.as_str());
    json!({
        "cluster": name,
        "reach": name.map(|name| format!("{:?}", plane.pool.dialer.route(name))),
        "out": part.is_out(),
        "capacity": policy.and_then(|policy| fill(plane, policy, live, part)),
        "endpoints": part.endpoints.iter().map(|e| endpoint(plane, e)).collect::<Value>(),
    })
}

/// How full a cluster is, where a policy bounds it: its bound, this gateway's part of that, and what is taken of it.
pub(crate) fn fill(plane: &Plane, policy: &Policy, live: &Live, part: &LivePart) -> Option<Value> {
    let bound = bound(policy.capacity?, part, plane.health.heeds(), Instant::now());
    let room = room(plane, policy, policy.capacity?, live, part);
    Some(json!({"bound": bound, "here": room.seats(bound), "taken": room.taken()}))
}
