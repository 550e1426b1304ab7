//! Builds the table and the statuses out of objects and topology, in one go. Pure.
//!
//! In: [`Input`]. Out: [`Built`]. The same input gives the same table. A bad object is refused alone; whatever it says, the others are built as if
//! it were not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::topology::{ServedGateway, Topology};
use ipnet::IpNet;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::address::Allotted;
use super::backend::{Resolver, host_policies};
use super::entry::{self, GatewayDraft};
use super::served::served;
use super::{Entry, ListenerTable, Slot, SlotTable, Table, policy};
use crate::objects::Objects;
use crate::provider::PROVIDERS;
use crate::status::{self, RouteVerdicts, Statuses};
use crate::tls::Keys;

/// The ports that are ours, and those that could not be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Where HTTP is served.
    pub(crate) http: u16,
    /// Where HTTPS is served.
    pub(crate) https: u16,
    /// Further ports that could not be opened, and why.
    pub(crate) failed: BTreeMap<Slot, Unopened>,
}

/// Why a port could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unopened {
    /// Its address is none of this machine's.
    pub(crate) foreign: bool,
    pub(crate) why: String,
}

/// What a table is built from.
pub(crate) struct Input<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) topology: &'a Arc<Topology>,
    /// This replica's name.
    pub(crate) instance: &'a str,
    pub(crate) ports: &'a Ports,
    /// What the status of Gateways gives as their addresses, where they share the ports.
    pub(crate) addresses: &'a [String],
    /// From which each Gateway gets addresses of its own; none: they share the ports.
    pub(crate) pool: &'a [IpNet],
    pub(crate) now: Timestamp,
}

/// What building remembers from one table to the next.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) keys: Keys,
    pub(crate) allotted: Allotted,
}

/// What was built.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) table: Table,
    pub(crate) statuses: Statuses,
    /// What this replica states of Gateways once the table is in use.
    pub(crate) served: BTreeMap<String, ServedGateway>,
    /// Ports beside the shared ones that are to be open, or to be tried again.
    pub(crate) wanted: BTreeSet<Slot>,
}

/// What providers work on.
pub(crate) struct Draft<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) resolver: Resolver<'a>,
    /// Oldest first.
    pub(crate) gateways: Vec<GatewayDraft>,
    pub(crate) routes: Vec<RouteVerdicts>,
}

/// Builds everything anew. `memory` holds what was made before.
pub(crate) fn build(input: &Input<'_>, memory: &mut Memory) -> Built {
    let (gateways, wanted) = entry::gateways(input, memory);
    let policies = policy::judge(input, &mut memory.keys);
    let resolver = Resolver::new(input.objects, input.topology, &policies, &mut memory.keys);
    let mut draft = Draft { objects: input.objects, resolver, gateways, routes: Vec::new() };
    for provider in PROVIDERS {
        (provider.provide)(&mut draft);
    }
    let Draft { resolver, gateways, routes, .. } = draft;
    let Resolver { upstreams, ancestors, .. } = resolver;
    let statuses = status::judge(input, &gateways, &routes, &policies, &ancestors);
    let served = served(&gateways);
    let table = Table {
        slots: slots(gateways, &mut memory.keys),
        upstreams,
        host_policies: host_policies(input.topology),
        topology: Arc::clone(input.topology),
    };
    memory.keys.sweep();
    Built { table, statuses, served, wanted }
}

fn slots(gateways: Vec<GatewayDraft>, keys: &mut Keys) -> BTreeMap<Slot, SlotTable> {
    let mut slots: BTreeMap<Slot, SlotTable> = BTreeMap::new();
    for gateway in gateways.into_iter().filter(|g| g.refused.is_none()) {
        let name = format!("{}/{}", gateway.namespace, gateway.object.name_any());
        for mut listener in gateway.listeners.into_iter().filter(|l| l.is_programmed()) {
            listener.routes.values_mut().for_each(|entries| entries.sort_by(precedence));
            let server = listener.server(keys);
            let table = Arc::new(ListenerTable {
                gateway: name.clone(),
                id: format!("{name}/{}", listener.spec.name).into(),
                name: listener.spec.name,
                port: listener.port,
                host: listener.host.clone(),
                mode: listener.mode,
                certificates: listener.certificates,
                server,
                routes: listener.routes,
                streams: listener.streams,
            });
            for slot in listener.slots {
                let slot = slots.entry(slot).or_default();
                slot.protocol = listener.protocol;
                slot.listeners.entry(listener.host.as_ref(), || Arc::clone(&table));
            }
        }
    }
    slots
}

/// "precedence must be given to the largest number of characters in a matching non-wildcard hostname, … in a matching hostname", then by
/// match, then the older route, then by name, then the earlier rule.
fn precedence(a: &Entry, b: &Entry) -> std::cmp::Ordering {
    (b.host_rank.cmp(&a.host_rank))
        .then_with(|| a.matcher.order(&b.matcher))
        .then_with(|| (a.age, a.rule.index).cmp(&(b.age, b.rule.index)))
}

#[cfg(test)]
mod tests;
