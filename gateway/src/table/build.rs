//! Builds the table and the statuses out of objects and topology, in one go. Pure.
//!
//! In: [`Input`]. Out: [`Built`]. The same input gives the same table. A bad object is refused alone; whatever it says, the others are built as if
//! it were not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::topology::Topology;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::backend::{Resolver, host_policies};
use super::entry::{self, GatewayDraft};
use super::{Entry, ListenerTable, Slot, SlotTable, Table};
use crate::objects::Objects;
use crate::provider::PROVIDERS;
use crate::status::{self, RouteVerdicts, Statuses};
use crate::tls::Certificates;

/// The ports that are ours, and those that could not be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Where HTTP is served.
    pub(crate) http: u16,
    /// Where HTTPS is served.
    pub(crate) https: u16,
    /// Further ports that could not be opened, and why.
    pub(crate) failed: BTreeMap<u16, String>,
}

/// What a table is built from.
pub(crate) struct Input<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) topology: &'a Arc<Topology>,
    pub(crate) ports: &'a Ports,
    /// What the status of Gateways gives as their addresses.
    pub(crate) addresses: &'a [String],
    pub(crate) now: Timestamp,
}

/// What was built.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) table: Table,
    pub(crate) statuses: Statuses,
    /// Ports beside the shared ones that are to be open, or to be tried again.
    pub(crate) wanted: BTreeSet<u16>,
}

/// What providers work on.
pub(crate) struct Draft<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) resolver: Resolver<'a>,
    /// Oldest first.
    pub(crate) gateways: Vec<GatewayDraft>,
    pub(crate) routes: Vec<RouteVerdicts>,
}

impl Draft<'_> {
    /// The place of a Gateway of ours.
    pub(crate) fn gateway(&self, namespace: &str, name: &str) -> Option<usize> {
        self.gateways.iter().position(|g| g.namespace == namespace && g.object.name_any() == name)
    }
}

/// Builds everything anew. `certificates` remembers what was parsed before.
pub(crate) fn build(input: &Input<'_>, certificates: &mut Certificates) -> Built {
    let (gateways, mut wanted) = entry::gateways(input, certificates);
    wanted.extend(input.ports.failed.keys().filter(|port| wants(&gateways, **port)));
    let resolver = Resolver::new(input.objects, input.topology);
    let mut draft = Draft { objects: input.objects, resolver, gateways, routes: Vec::new() };
    for provider in PROVIDERS {
        (provider.provide)(&mut draft);
    }
    let Draft { resolver, gateways, routes, .. } = draft;
    let statuses = status::judge(input, &gateways, routes);
    let table = Table {
        slots: slots(gateways),
        upstreams: resolver.upstreams,
        host_policies: host_policies(input.topology),
        topology: Arc::clone(input.topology),
    };
    Built { table, statuses, wanted }
}

fn wants(gateways: &[GatewayDraft], port: u16) -> bool {
    let mut listeners = gateways.iter().flat_map(|g| &g.listeners);
    listeners.any(|l| l.port == port && matches!(l.spec.protocol.as_str(), "HTTP" | "HTTPS"))
}

fn slots(gateways: Vec<GatewayDraft>) -> BTreeMap<Slot, SlotTable> {
    let mut slots: BTreeMap<Slot, SlotTable> = BTreeMap::new();
    for gateway in gateways.into_iter().filter(|g| g.refused.is_none()) {
        let name = format!("{}/{}", gateway.namespace, gateway.object.name_any());
        for mut listener in gateway.listeners.into_iter().filter(|l| l.is_programmed()) {
            let Some(slot) = listener.slot else { continue };
            listener.routes.values_mut().for_each(|entries| entries.sort_by(precedence));
            let slot = slots.entry(slot).or_default();
            slot.tls = listener.tls;
            let table = ListenerTable {
                gateway: name.clone(),
                id: format!("{name}/{}", listener.spec.name).into(),
                name: listener.spec.name,
                port: listener.port,
                host: listener.host.clone(),
                certificates: listener.certificates,
                routes: listener.routes,
            };
            slot.listeners.entry(listener.host.as_ref(), || Arc::new(table));
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
