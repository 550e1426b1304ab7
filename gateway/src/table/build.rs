//! Builds the table and the statuses out of objects and topology, in one go. Pure.
//!
//! In: [`Input`]. Out: [`Built`]. The same input gives the same table. A bad object is refused alone; whatever it says, the others are built as if
//! it were not there. What is made is kept ([`Made`]), so that the next change need not build everything again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::topology::{BalancerState, ServedGateway, Topology};
use ipnet::IpNet;
use jiff::Timestamp;

use super::address::Allotted;
use super::front::{Targets, strays};
use super::made::{Made, Touched, parts};
use super::traffic::{host_policies, service_policies};
use super::{GatewayDraft, Slot, Table, entry, policy};
use crate::acme::{self, Proving, Standing, Wanted};
use crate::fleet::Fleet;
use crate::kinds::KINDS;
use crate::objects::{Name, Objects};
use crate::status::Statuses;
use crate::tls::Keys;

/// The ports that are ours, and those that could not be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Where HTTP is served.
    pub(crate) http: u16,
    /// Where HTTPS is served.
    pub(crate) https: u16,
    /// Whether that is answered by HTTP/3, too.
    pub(crate) http3: bool,
    /// Further ports that could not be opened, and why.
    pub(crate) failed: BTreeMap<Slot, Unopened>,
    /// Ports of HTTPS that are not answered by HTTP/3 although they were to be, and why.
    pub(crate) unanswered: BTreeMap<Slot, String>,
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
    /// Whether a Service of type LoadBalancer is made for each Gateway.
    pub(crate) service: bool,
    /// This process's own addresses and node, for these.
    pub(crate) own: &'a [IpAddr],
    pub(crate) node: Option<&'a str>,
    /// What this replica and those beside it serve.
    pub(crate) fleet: &'a Fleet,
    /// What became of certificates that were ordered; how their hosts are proven, where any are.
    pub(crate) certificates: &'a Standing,
    pub(crate) orders: Option<Proving>,
    pub(crate) now: Timestamp,
}

/// What building remembers from one table to the next.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) keys: Keys,
    pub(crate) allotted: Allotted,
    pub(super) targets: BTreeMap<Name, Targets>,
    pub(super) made: Made,
}

impl Memory {
    /// Nothing was built yet.
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys, ..Self::default() }
    }
}

/// What was built.
#[derive(Debug, Default)]
pub(crate) struct Built {
    pub(crate) table: Table,
    pub(crate) statuses: Statuses,
    /// What this replica states of Gateways once the table is in use.
    pub(crate) served: BTreeMap<String, ServedGateway>,
    /// And of Services of type LoadBalancer, by `cluster/namespace/name`.
    pub(crate) balanced: BTreeMap<String, BalancerState>,
    /// Ports beside the shared ones that are to be open, or to be tried again.
    pub(crate) wanted: BTreeSet<Slot>,
    pub(crate) certified: Certified,
    /// Certificates that are to be ordered.
    pub(crate) ordered: Vec<Wanted>,
    /// The names by which backends are reached.
    pub(crate) names: BTreeSet<Arc<str>>,
}

/// When the certificates of listeners end, in seconds since 1970, by the listener's id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certified {
    /// There are no others.
    pub(crate) all: bool,
    /// Nothing: it shows none.
    pub(crate) listeners: Vec<(Arc<str>, Option<i64>)>,
}

/// Builds everything anew. `memory` holds what was made before.
pub(crate) fn build(input: &Input<'_>, memory: &mut Memory) -> Built {
    memory.keys.retain(&input.objects.secrets, &input.objects.configs);
    let (gateways, wanted) = entry::gateways(input, memory);
    let policies = policy::judge(input, &mut memory.keys);
    let mut upstreams = std::mem::take(&mut memory.made.upstreams);
    upstreams.begin();
    memory.made = Made {
        gateways,
        policies,
        upstreams,
        wanted,
        traffic: service_policies(input.topology),
        ports: input.ports.clone(),
        addresses: input.addresses.to_vec(),
        ..Made::default()
    };
    let (made, keys) = parts(memory);
    let mut touched = Touched::default();
    for provider in KINDS {
        for name in (provider.names)(input.objects) {
            made.attach(input, keys, &(provider.row, name), &mut touched);
        }
    }
    touched.gateways = (0..made.gateways.len()).collect();
    touched.policies = (0..made.policies.all.len()).collect();
    touched.released = (0..made.upstreams.len()).collect();
    let listeners =
        made.gateways.iter().enumerate().flat_map(|(g, draft)| (0..draft.listeners.len()).map(move |l| (g, l)));
    touched.listeners = listeners.collect();
    made.table.host_policies = Arc::new(host_policies(input.topology));
    made.sheet.classes(input);
    made.sheet.left(input);
    made.sheet.unmade = strays(input.objects, input.fleet, &fronts(&made.gateways));
    let built = finish(input, memory, &touched, true);
    memory.keys.sweep();
    built
}

/// The Services that Gateways want.
fn fronts(gateways: &[GatewayDraft]) -> BTreeSet<Name> {
    let wanted = gateways.iter().filter_map(|draft| Some((draft, draft.front.as_ref()?)));
    wanted
        .filter(|(_, front)| front.is_ours())
        .map(|(draft, front)| (draft.namespace.clone(), front.name.clone()))
        .collect()
}

/// Puts into the table and its statuses what was touched.
pub(super) fn finish(input: &Input<'_>, memory: &mut Memory, touched: &Touched, whole: bool) -> Built {
    let (made, keys) = parts(memory);
    made.publish(input, keys, touched);
    made.judge(input, touched);
    let listeners = touched.listeners.iter().map(|(gateway, listener)| {
        let gateway = &made.gateways[*gateway];
        let draft = &gateway.listeners[*listener];
        let end = draft.certificates.iter().map(|c| c.not_after).min().filter(|_| !draft.served.is_empty());
        (Arc::clone(&draft.id), end)
    });
    Built {
        certified: Certified { all: whole, listeners: listeners.collect() },
        table: made.table.clone(),
        statuses: made.sheet.statuses(),
        served: made.served.clone(),
        balanced: made.balanced.clone(),
        wanted: made.wanted.clone(),
        names: made.upstreams.names(),
        ordered: input.orders.map(|by| acme::wanted(&made.gateways, input, by)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
