//! A responder over a topology, with nobody to ask and no hub: what tests and fuzzers put packets into.
//!
//! In: a configuration, a topology. Out: a [`Responder`]; for fuzzers a federation that has something of everything: members that nobody
//! can ask, services, hosts, own zones of which one is signed, keys. Sends nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use atoll_api::facts::Facts;
use atoll_api::topology::{Topology, Version};
use atoll_reach::{Dialer, RelayTable, Routes, System};
use atoll_wire::follow::{Line, Snapshot};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Authority;
use crate::config::Config;
use crate::edge::Edge;
use crate::forward::Forwarder;
use crate::gate::Gate;
use crate::geo::Geo;
use crate::health::Probes;
use crate::lookup::Lookups;
use crate::metrics::Metrics;
use crate::outside::Guard;
use crate::resolve::Resolver;
use crate::respond::Responder;
use crate::tap::Taps;
use crate::wire::Wire;
use crate::world::World;

/// Facts by key. The signing key is nobody's.
const FEDERATION: &str = r#"{
  "settings": {"apex": "atoll.internal", "defaultSet": "prod"},
  "cluster/eu": {"name": "eu", "ready": true, "dnsReady": true, "spec": {"environment": "prod", "region": "eu"},
    "cidrs": {"pods": ["10.1.0.0/17"], "services": ["10.1.128.0/18"]}, "dns": {"kind": "Kubernetes"}},
  "cluster/dc1": {"name": "dc1", "ready": true, "dnsReady": true, "spec": {"environment": "prod", "region": "us", "reach": "Relay"},
    "cidrs": {"pods": ["10.2.0.0/17", "fd00:2::/64"]}, "dns": {"kind": "MesosDNS"}},
  "service/prod/shop/web": {"clusters": ["eu", "dc1"], "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
  "service/prod/shop/db": {"clusters": ["eu"], "headless": true, "ports": [{"name": "sql", "protocol": "TCP", "port": 5432}]},
  "endpoints/eu/shop/web": {"clusterIps": ["10.1.128.80"], "endpoints": [{"address": "10.1.0.1", "ready": true}, {"address": "10.1.0.2", "ready": true}]},
  "endpoints/dc1/shop/web": {"endpoints": [{"address": "10.2.0.1", "ready": true}, {"address": "fd00:2::1", "ready": true}]},
  "endpoints/eu/shop/db": {"endpoints": [{"address": "10.1.0.9", "ready": true, "hostname": "db-0"}]},
  "traffic/shop/hosts": {"hosts": ["shop.example.com", "*.apps.example.net"], "ttlSeconds": 7},
  "site/gw": {"instance": "gw", "kind": "gateway", "addresses": ["192.0.2.80"], "cluster": "eu"},
  "site/dns": {"instance": "dns", "kind": "dns", "addresses": ["192.0.2.53"], "cluster": "eu"},
  "zone/com": {"serial": 3, "spec": {"apex": "example.com", "ns": ["ns1.example.com"],
    "allow": {"transfer": [{"cidr": "127.0.0.0/8"}], "update": [{"cidr": "127.0.0.0/8"}]},
    "records": [
      {"name": "www", "type": "CNAME", "values": ["web.shop.svc.atoll.internal."]},
      {"name": "loop", "type": "CNAME", "values": ["loop.example.com."]},
      {"name": "*", "type": "A", "values": ["192.0.2.99"]},
      {"name": "a.b", "type": "TXT", "values": ["hello world"]},
      {"name": "old", "type": "DNAME", "values": ["example.net."]},
      {"name": "sub", "type": "NS", "values": ["ns.sub.example.com"]},
      {"name": "ns.sub", "type": "A", "values": ["192.0.2.53"]},
      {"name": "many", "type": "A", "values": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]}]}},
  "zone/net": {"serial": 3, "spec": {"apex": "example.net", "ns": ["ns1.example.com"], "dnssec": {"enabled": true},
    "records": [{"name": "www", "type": "A", "values": ["192.0.2.7"]}, {"name": "*.w", "type": "TXT", "values": ["w"]}]}},
  "zone-keys/net": {"signing": [{"generation": 1, "pkcs8": "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOc6ZzG82zAD9iSWy8WzMGFTUybjQEhHVHS4GzN+0FvChRANCAASdItnc3Dw1YEUDQND9TooLHbLclMamEyUMCj2FeU2xfCQPFe4FuITjJS68MdZA0HYHJESLV6+jVoHkd3/pjXJW"}]},
  "zone-keys/com": {"tsig": {"k1": {"algorithm": "hmac-sha256", "secret": "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g="}}},
  "records/ops/a": {"revision": 1, "endpoints": [
    {"dnsName": "db.atoll.internal", "recordType": "A", "recordTTL": 30, "targets": ["192.0.2.7"]},
    {"dnsName": "mail.example.org", "recordType": "MX", "targets": ["10 db.atoll.internal."]}]}
}"#;

/// The federation; `None` only when the text above is none.
pub(super) fn federation() -> Option<Topology> {
    let values: BTreeMap<String, Value> = serde_json::from_str(FEDERATION).ok()?;
    let mut facts = Facts::default();
    for (key, value) in &values {
        facts.put(key.as_str(), value);
    }
    let topology = Topology::from_facts(Version { epoch: 1, generation: 1 }, &facts);
    topology.unread.is_empty().then_some(topology)
}

/// A responder over `topology` whose wire cache has so many bytes; to be called on a runtime.
///
/// # Errors
/// When metrics can't be registered.
pub(crate) fn responder(
    config: &Config,
    topology: Topology,
    wire_bytes: usize,
) -> Result<Responder, prometheus::Error> {
    let metrics = Metrics::new(&prometheus::Registry::new())?;
    let (tasks, shutdown, now) = (TaskTracker::new(), CancellationToken::new(), Instant::now());
    let system = Arc::new(System::default());
    let dialer = Dialer::new(Arc::new(System::default()), RelayTable::default(), Routes::default());
    let forwarder =
        Forwarder::new(dialer.clone(), system.clone(), system, Vec::new(), metrics.clone(), &tasks, &shutdown);
    let forwarder = Arc::new(forwarder);
    let snapshot = Snapshot { topology: Arc::new(topology), heard: Some(now) };
    let (world, _) = World::new(None, &snapshot, &Probes::default(), &dialer, (config, &Geo::default()), now);
    let gate = Arc::new(Gate::new(&metrics));
    gate.follow(None, &world, &forwarder);
    let lookups = Lookups::new(&config.caching, forwarder, metrics.clone(), (tasks, shutdown));
    let authority = Arc::new(Authority::new(Line::dead(), Arc::clone(&world.table)));
    let signatures = Arc::clone(&authority.signatures);
    let guard = Guard::new(true, vec![], vec![]);
    let resolver = Arc::new(Resolver { world: ArcSwap::from_pointee(world), lookups, guard, signatures });
    let (edge, wire) = (Arc::new(Edge::new(config, None)), Arc::new(Wire::new(wire_bytes, now)));
    Ok(Responder { resolver, edge, authority, metrics, wire, taps: Taps::default(), gate })
}
