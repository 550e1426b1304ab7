//! The upstreams that backends lead to: each made once for each service, port and way of speaking to it, and kept in its place for as long as
//! any rule leads there. Pure.
//!
//! In: what a reference was resolved to. Out: a place that holds over the next tables. Whoever follows endpoints finds those of a service here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use atoll_api::kinds::Subset;
use atoll_api::names::ServiceName;
use atoll_api::topology::{ServicePort, Topology};

use super::backend::import_parts;
use super::balanced::member_parts;
use super::local::local_offer;
use super::{Part, Upstream, UpstreamId, Wants};
use crate::objects::Objects;
use crate::tls::BackendTls;

/// What makes an upstream another one.
pub(super) type Known = (UpstreamId, Wants, Option<Arc<BackendTls>>);

/// One of them, and what its endpoints are looked up by.
#[derive(Debug)]
struct Held {
    known: Known,
    port: ServicePort,
    subset: Option<Arc<Subset>>,
    wants: Wants,
    /// Nobody may be reached: TLS can't be spoken as it must.
    closed: bool,
    /// Backends and filters that lead here.
    users: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    held: Vec<Option<Held>>,
    by_known: HashMap<Known, usize>,
    by_service: HashMap<ServiceName, BTreeSet<usize>>,
    /// Places by the names that they are reached by.
    by_name: BTreeMap<Arc<str>, BTreeSet<usize>>,
    free: Vec<usize>,
    /// In the order of places.
    pub(super) table: Vec<Arc<Upstream>>,
}

/// An upstream as a reference leads to it.
pub(super) struct Resolved {
    pub(super) known: Known,
    pub(super) upstream: Upstream,
    pub(super) port: ServicePort,
    pub(super) subset: Option<Arc<Subset>>,
    pub(super) wants: Wants,
    pub(super) closed: bool,
}

impl UpstreamId {
    /// The service.
    pub(crate) fn service(&self) -> &ServiceName {
        match self {
            Self::Local(service, ..) | Self::Set(_, service, ..) | Self::Member(_, service, _) => service,
        }
    }
}

impl Upstreams {
    /// Nobody uses any; [`Self::sweep`] forgets those that nobody came to use since.
    pub(super) fn begin(&mut self) {
        self.held.iter_mut().flatten().for_each(|held| held.users = 0);
    }

    /// One more uses it. Returns its place.
    pub(super) fn hold(&mut self, resolved: Resolved) -> usize {
        let Resolved { known, upstream, port, subset, wants, closed } = resolved;
        if let Some(at) = self.by_known.get(&known).copied() {
            let users = self.held[at].as_ref().map_or(0, |held| held.users) + 1;
            if !is_same(&self.table[at], &upstream) {
                self.put(at, upstream);
            }
            self.held[at] = Some(Held { known, port, subset, wants, closed, users });
            return at;
        }
        let at = self.free.pop().unwrap_or(self.held.len());
        self.by_known.insert(known.clone(), at);
        self.by_service.entry(known.0.service().clone()).or_default().insert(at);
        let held = Held { known, port, subset, wants, closed, users: 1 };
        if at == self.held.len() {
            self.table.push(Arc::new(of(&held)));
            self.held.push(Some(held));
        } else {
            self.held[at] = Some(held);
        }
        self.put(at, upstream);
        at
    }

    /// Puts one in its place.
    fn put(&mut self, at: usize, upstream: Upstream) {
        if self.table[at].names != upstream.names {
            for name in &self.table[at].names {
                if let Some(places) = self.by_name.get_mut(name) {
                    places.remove(&at);
                    if places.is_empty() {
                        self.by_name.remove(name);
                    }
                }
            }
            for name in &upstream.names {
                self.by_name.entry(Arc::clone(name)).or_default().insert(at);
            }
        }
        self.table[at] = Arc::new(upstream);
    }

    /// The names by which any of them is reached.
    pub(super) fn names(&self) -> BTreeSet<Arc<str>> {
        self.by_name.keys().cloned().collect()
    }

    /// The services that are reached by a name.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &ServiceName> {
        let places = self.by_name.get(name).into_iter().flatten();
        places.filter_map(|at| Some(self.held[*at].as_ref()?.known.0.service()))
    }

    /// The hub's own Services of a namespace of which subsets are used.
    pub(super) fn divided(&self, namespace: &str) -> impl Iterator<Item = &ServiceName> {
        let ids = self.held.iter().flatten().map(|held| &held.known.0);
        let own = ids.filter(|id| matches!(id, UpstreamId::Local(.., Some(_))));
        own.map(UpstreamId::service).filter(move |service| service.namespace == namespace)
    }

    /// One fewer uses it.
    pub(super) fn release(&mut self, at: usize) {
        let Some(held) = self.held[at].as_mut() else { return };
        held.users = held.users.saturating_sub(1);
    }

    /// Forgets those that nobody uses. Their places are given to others.
    pub(super) fn sweep(&mut self, among: impl IntoIterator<Item = usize>) {
        for at in among {
            if self.held.get(at).and_then(Option::as_ref).is_none_or(|held| held.users > 0) {
                continue;
            }
            let Some(held) = self.held[at].take() else { continue };
            let service = held.known.0.service();
            if let Some(places) = self.by_service.get_mut(service) {
                places.remove(&at);
                if places.is_empty() {
                    self.by_service.remove(service);
                }
            }
            self.by_known.remove(&held.known);
            self.free.push(at);
            self.put(at, of(&held));
        }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Looks up the endpoints of a service again. Returns whether it is reached by other names than before.
    pub(super) fn refresh(&mut self, service: &ServiceName, objects: &Objects, topology: &Topology) -> bool {
        let mut is_other = false;
        let places: Vec<usize> = self.by_service.get(service).into_iter().flatten().copied().collect();
        for at in places {
            let Some(held) = &self.held[at] else { continue };
            let (port, subset, wants) = (&held.port, held.subset.as_deref(), held.wants);
            let (mut clusters, names): (Vec<Part>, _) = match &held.known.0 {
                UpstreamId::Local(service, ..) => local_offer(objects, service, port, subset, wants),
                UpstreamId::Set(set, service, ..) => {
                    (import_parts(topology, set, service, port, subset, wants), Box::default())
                }
                UpstreamId::Member(cluster, service, _) => {
                    (member_parts(topology, cluster, service, port, wants), Box::default())
                }
            };
            if held.closed {
                clusters.iter_mut().for_each(|part| part.endpoints.clear());
            }
            is_other |= self.table[at].names != names;
            let upstream = Upstream { clusters, names, policy: self.table[at].policy.clone(), ..of(held) };
            if !is_same(&self.table[at], &upstream) {
                self.put(at, upstream);
            }
        }
        is_other
    }
}

/// Without endpoints.
fn of(held: &Held) -> Upstream {
    let (id, wants, tls) = held.known.clone();
    let (h2, udp) = (wants == Wants::Grpc, wants == Wants::Udp);
    Upstream { id, h2, udp, tls, clusters: Vec::new(), names: Box::default(), policy: None }
}

fn is_same(a: &Upstream, b: &Upstream) -> bool {
    let facts = |a: &Part, b: &Part| match (&a.cluster, &b.cluster) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    let policy = match (&a.policy, &b.policy) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    policy
        && (&a.id, a.h2, a.udp, &a.tls, &a.names) == (&b.id, b.h2, b.udp, &b.tls, &b.names)
        && a.clusters.len() == b.clusters.len()
        && a.clusters.iter().zip(&b.clusters).all(|(a, b)| facts(a, b) && a.endpoints == b.endpoints)
}
