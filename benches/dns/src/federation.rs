//! A made-up federation: so many names of its own, so many members, so many services in each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use atoll_api::kinds::Record;
use atoll_api::names::ServiceName;
use atoll_api::topology::{Endpoints, Settings, Topology, Version, ZoneFacts};
use serde_json::json;

use crate::Result;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// `nN.own.example`.
    pub(crate) names: usize,
    /// `mN`, all in one set, in ten regions.
    pub(crate) members: usize,
    /// `sN` in namespace `shop`; each in two members.
    pub(crate) services: usize,
}

/// The DNS of all members.
pub(crate) const MEMBERS_AT: &str = "127.0.0.1:5390";

/// Where the DNS of member `dead` would be: somebody listens there and says nothing.
pub(crate) const DEAD_AT: &str = "127.0.0.1:5389";

/// The federation.
pub(crate) fn topology(size: Size) -> Result<Topology> {
    let mut topology = Topology { version: Version { epoch: 1, generation: 1 }, ..Topology::default() };
    topology.settings = Settings { apex: "atoll.internal".into(), default_set: "prod".into(), ..Settings::default() };
    // One by one: what is made up is not to be found in the memory of who serves it.
    let record = |n: usize| Record {
        name: format!("n{n}"),
        record_type: "A".to_owned(),
        ttl: Some(300),
        values: vec![format!("192.0.2.{}", n % 250)],
    };
    let mut zone: ZoneFacts = serde_json::from_value(json!({"serial": 1, "spec": {"apex": "own.example"}}))?;
    zone.spec.records = (0..size.names).map(record).collect();
    topology.zones.insert("own".into(), Arc::new(zone));
    let dead = (size.members > 0).then(|| ("dead".to_owned(), 65_280, DEAD_AT));
    for (name, m, at) in (0..size.members).map(|m| (format!("m{m}"), m, MEMBERS_AT)).chain(dead) {
        let at: SocketAddr = at.parse()?;
        let facts = json!({
            "name": name, "ready": true, "dnsReady": true,
            "spec": {"environment": "prod", "region": format!("r{}", m % 10)},
            "cidrs": {"pods": [format!("10.{}.{}.0/24", m / 256, m % 256)]},
            "dns": {"kind": "Kubernetes", "servers": [at.to_string()]},
        });
        topology.clusters.insert(name.parse()?, Arc::new(serde_json::from_value(facts)?));
    }
    let mut services = BTreeMap::new();
    let mut endpoints: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for s in 0..size.services.min(if size.members == 0 { 0 } else { usize::MAX }) {
        let name = ServiceName::new("shop", format!("s{s}"));
        let clusters = [s % size.members, (s + 1) % size.members];
        let offered = json!({
            "clusters": clusters.map(|c| format!("m{c}")),
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        });
        services.insert(name.clone(), Arc::new(serde_json::from_value(offered)?));
        for cluster in clusters {
            endpoints
                .entry(format!("m{cluster}").parse()?)
                .or_default()
                .insert(name.clone(), Arc::new(endpoint(cluster, 1)?));
        }
    }
    topology.services.insert("prod".into(), services.into());
    topology.endpoints = endpoints.into_iter().map(|(name, services)| (name, services.into())).collect();
    Ok(topology)
}

/// The one endpoint of a service in member `cluster`.
pub(crate) fn endpoint(cluster: usize, last: u8) -> Result<Endpoints> {
    let address = format!("10.{}.{}.{last}", cluster / 256, cluster % 256);
    Ok(serde_json::from_value(json!({"endpoints": [{"address": address, "ready": true}]}))?)
}
