//! The upstreams that backends lead to: each made once for each service, port and way of speaking to it, and kept in its place for as long as
//! any rule leads there. Pure.
//!
//! In: what a reference was resolved to. Out: a place that holds over the next tables. Whoever follows endpoints finds those of a service here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use atoll_api::names::ServiceName;
use atoll_api::topology::{ServicePort, Topology};

use super::backend::{import_parts, local_parts};
use super::balanced::member_parts;
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
    free: Vec<usize>,
    /// In the order of places.
    pub(super) table: Vec<Arc<Upstream>>,
}

/// An upstream as a reference leads to it.
pub(super) struct Resolved {
    pub(super) known: Known,
    pub(super) upstream: Upstream,
    pub(super) port: ServicePort,
    pub(super) wants: Wants,
    pub(super) closed: bool,
}

impl UpstreamId {
    /// The service.
    pub(crate) fn service(&self) -> &ServiceName {
        match self {
            Self::Local(service, _) | Self::Set(_, service, _) | Self::Member(_, service, _) => service,
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
        let Resolved { known, upstream, port, wants, closed } = resolved;
        if let Some(at) = self.by_known.get(&known).copied() {
            let users = self.held[at].as_ref().map_or(0, |held| held.users) + 1;
            if !is_same(&self.table[at], &upstream) {
                self.table[at] = Arc::new(upstream);
            }
            self.held[at] = Some(Held { known, port, wants, closed, users });
            return at;
        }
        let at = self.free.pop().unwrap_or(self.held.len());
        self.by_known.insert(known.clone(), at);
        self.by_service.entry(known.0.service().clone()).or_default().insert(at);
        let held = Some(Held { known, port, wants, closed, users: 1 });
        if at == self.held.len() {
            self.held.push(held);
            self.table.push(Arc::new(upstream));
        } else {
            (self.held[at], self.table[at]) = (held, Arc::new(upstream));
        }
        at
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
            self.table[at] = Arc::new(Upstream { clusters: Vec::new(), policy: None, ..of(&held) });
        }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Looks up the endpoints of a service again.
    pub(super) fn refresh(&mut self, service: &ServiceName, objects: &Objects, topology: &Topology) {
        let places = self.by_service.get(service).into_iter().flatten();
        for at in places.copied() {
            let Some(held) = &self.held[at] else { continue };
            let clusters: Vec<Part> = match &held.known.0 {
                _ if held.closed => continue,
                UpstreamId::Local(service, _) => local_parts(objects, service, &held.port, held.wants),
                UpstreamId::Set(set, service, _) => import_parts(topology, set, service, &held.port, held.wants),
                UpstreamId::Member(cluster, service, _) => {
                    member_parts(topology, cluster, service, &held.port, held.wants)
                }
            };
            let upstream = Upstream { clusters, policy: self.table[at].policy.clone(), ..of(held) };
            if !is_same(&self.table[at], &upstream) {
                self.table[at] = Arc::new(upstream);
            }
        }
    }
}

fn of(held: &Held) -> Upstream {
    let (id, wants, tls) = held.known.clone();
    Upstream { id, h2: wants == Wants::Grpc, udp: wants == Wants::Udp, tls, clusters: Vec::new(), policy: None }
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
        && (&a.id, a.h2, a.udp, &a.tls) == (&b.id, b.h2, b.udp, &b.tls)
        && a.clusters.len() == b.clusters.len()
        && a.clusters.iter().zip(&b.clusters).all(|(a, b)| facts(a, b) && a.endpoints == b.endpoints)
}
