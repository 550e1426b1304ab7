//! What there is, as JSON for people and commands: routes, upstreams, connections, and what the gateway was told.
//!
//! In: the snapshot that requests read. Changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use atoll_api::topology::Standing;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::Config;
use crate::explain::{endpoint, fill, known, names};
use crate::plane::Plane;
use crate::provider::Settings as ProviderSettings;
use crate::table::{ListenerTable, Mode, Slot};

/// Rows that are shown; how many there are in all is said beside them.
const ROWS_MAX: usize = 2000;

/// Every route with where it is served, its hosts, rules and backends.
pub(crate) fn routes(plane: &Plane) -> Value {
    let Some(snapshot) = plane.snapshots.load_full() else { return json!({"routes": []}) };
    // One row for each rule at each listener; its matches and hosts are gathered.
    let mut rows = Rows::new();
    for (slot, table) in &snapshot.table.slots {
        for listener in table.listeners.values() {
            of_listener(*slot, listener, &mut rows);
        }
    }
    let all = rows.len();
    let row = |((at, route, rule), (hosts, matches, backends)): (
        _,
        (BTreeSet<String>, BTreeSet<String>, Vec<Value>),
    )| {
        json!({"listener": at, "route": route, "rule": rule, "hosts": hosts, "matches": matches, "backends": backends})
    };
    let rows: Vec<Value> = rows.into_iter().take(ROWS_MAX).map(row).collect();
    json!({"all": all, "routes": rows})
}

type Rows = BTreeMap<(String, String, usize), (BTreeSet<String>, BTreeSet<String>, Vec<Value>)>;

fn of_listener(slot: Slot, listener: &ListenerTable, rows: &mut Rows) {
    let at = format!("{} at {slot}", listener.id);
    if listener.mode != Mode::Requests {
        for (name, rule) in listener.streams.names().zip(listener.streams.values()) {
            let row = rows.entry((at.clone(), rule.route.to_string(), 0)).or_default();
            row.0.insert(name);
            row.2 = rule.backends.iter().map(|b| json!({"backend": b.name, "weight": b.weight})).collect();
        }
        return;
    }
    for (name, level) in listener.routes.names().zip(listener.routes.values()) {
        for entry in level.iter() {
            let row = rows.entry((at.clone(), entry.rule.route.to_string(), entry.rule.index)).or_default();
            row.0.insert(name.clone());
            row.1.insert(entry.matcher.to_string());
            let backend = |b: &crate::table::Backend| json!({"backend": b.name, "weight": b.weight, "error": b.target.as_ref().err()});
            row.2 = entry.rule.backends.iter().map(backend).collect();
        }
    }
}

/// Every service that routes lead to, with its clusters and endpoints.
pub(crate) fn upstreams(plane: &Plane) -> Value {
    let Some(snapshot) = plane.snapshots.load_full() else { return json!({"upstreams": []}) };
    let used = snapshot.table.upstreams.iter().zip(&snapshot.live).filter(|(_, live)| !live.parts.is_empty());
    let all = used.clone().count();
    let one = |(upstream, live): (&Arc<crate::table::Upstream>, &Arc<crate::endpoint::Live>)| {
        let clusters = live.parts.iter().map(|part| {
            let mut said = known(&snapshot, part).unwrap_or_else(|| json!({"cluster": null}));
            said["capacity"] = upstream.policy.as_deref().and_then(|policy| fill(plane, policy, live, part)).into();
            said["endpoints"] = part.endpoints.iter().map(|e| endpoint(plane, e)).collect();
            said
        });
        let mut said = json!({"upstream": upstream.id.to_string(), "policy": upstream.policy.as_ref().map(|p| &p.name), "http2": upstream.h2,
            "tls": upstream.tls.is_some(), "clusters": clusters.collect::<Value>()});
        if !upstream.names.is_empty() {
            said["names"] = names(plane, upstream);
        }
        said
    };
    json!({"all": all, "upstreams": used.take(ROWS_MAX).map(one).collect::<Value>()})
}

/// Connections of clients.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, (SocketAddr, Slot, Instant)>>,
}

/// One of them, until dropped.
pub(crate) struct Open(Arc<Connections>, u64);

impl Connections {
    /// A client is there.
    pub(crate) fn open(self: &Arc<Self>, peer: SocketAddr, slot: Slot) -> Open {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (peer, slot, Instant::now()));
        Open(Arc::clone(self), number)
    }

    /// The oldest ones.
    pub(crate) fn view(&self) -> Value {
        let mut all: Vec<(u64, (SocketAddr, Slot, Instant))> =
            self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(n, c)| (*n, *c)).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        let row = |(_, (peer, slot, since)): &(u64, (SocketAddr, Slot, Instant))| json!({"client": peer.to_string(), "servedAt": slot.to_string(), "seconds": since.elapsed().as_secs()});
        json!({"all": all.len(), "connections": all.iter().take(ROWS_MAX).map(row).collect::<Value>()})
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// What a gateway was told, without secrets: there are none in it.
pub(crate) fn told(config: &Config) -> Value {
    let Config {
        instance,
        standing,
        clients,
        addresses,
        pool,
        http3,
        limits,
        trusted,
        proxies,
        access_log,
        count_routes,
        traces,
        ingress_classes,
        default_certificate,
        ingress_services,
        classes,
        service,
        own,
        node,
        providers,
        acme,
        names,
    } = config;
    let provider = |p: &ProviderSettings| json!({"name": p.name, "driver": p.driver, "classes": p.classes, "settings": p.settings});
    let providers: Value = providers.iter().map(provider).collect();
    let limits = json!({
        "connections": limits.connections_max, "clientConnections": limits.client_connections_max, "headSeconds": limits.header_timeout.as_secs(),
        "bodySeconds": limits.body_timeout.as_secs(), "writeSeconds": limits.write_timeout.as_secs(),
        "idleSeconds": limits.idle_timeout.as_secs(), "handshakeSeconds": limits.handshake_timeout.as_secs(),
        "headerBytes": limits.header_bytes_max, "headers": limits.headers_max, "targetBytes": limits.uri_bytes_max,
        "streams": limits.streams_max, "drainSeconds": limits.drain.as_secs(), "namespaceRoutes": limits.namespace.routes,
        "namespaceRegexKiB": limits.namespace.regex_bytes / 1024, "namespaceCertificates": limits.namespace.certificates,
    });
    let clients: BTreeMap<String, &Standing> =
        clients.iter().map(|(range, standing)| (range.to_string(), standing)).collect();
    let access_log = access_log.as_ref().map(|log| json!({"path": log.path, "fields": log.fields}));
    let traces = traces.as_ref().map(|to| json!({"collector": to.collector, "sample": to.sample}));
    let acme = acme.as_ref().map(|acme| {
        let account = acme.binding.as_ref().map(|binding| &binding.key_id);
        json!({"directory": acme.directory, "contact": acme.contact, "profile": acme.profile, "keyType": format!("{:?}", acme.key), "challenge": format!("{:?}", acme.proving),
            "externalAccount": account})
    });
    let named = |at: &Option<(String, String)>| at.as_ref().map(|(namespace, name)| format!("{namespace}/{name}"));
    let certificate = named(default_certificate);
    let [tcp, udp] = ingress_services;
    json!({
        "ingressClasses": ingress_classes, "ingressDefaultCertificate": certificate,
        "ingressTcpServices": named(tcp), "ingressUdpServices": named(udp),
        "acme": acme, "providers": providers, "instance": instance, "standing": standing, "clients": clients, "addresses": addresses, "pool": pool, "classes": classes,
        "service": service, "http3": http3, "own": own, "node": node, "limits": limits,
        "trustedProxies": {"cidrs": trusted.cidrs, "hops": trusted.hops},
        "names": {"servers": names.servers, "allow": names.allow, "deny": names.deny},
        "proxyProtocol": proxies, "accessLog": access_log, "metrics": {"perRoute": count_routes}, "traces": traces,
    })
}
