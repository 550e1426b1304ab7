//! What the change of one object means for a table: much less, mostly, than building it anew. Pure.
//!
//! In: an object as it was and as it is. Out: an [`Edit`]. Statuses are written all the time and change no table.

use std::collections::BTreeSet;
use std::sync::Arc;

use atoll_api::kinds::gateway::{BackendTLSPolicy, Gateway, GatewayClass, ListenerSet, ReferenceGrant};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::shelf::service_of;
use super::{GrpcRoute, HttpRoute, Identify, Name, Objects, TcpRoute, TlsRoute, UdpRoute};
use crate::balancer;
use crate::names::Found;
use crate::pods::Labelled;
use crate::table::is_front;

/// The kinds that tables are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Definition,
    Class,
    Gateway,
    Set,
    Http,
    Grpc,
    Tls,
    Tcp,
    Udp,
    Policy,
    Grant,
    Secret,
    Config,
    Service,
    Slice,
    Namespace,
    Ingress,
    IngressClass,
}

/// What a change means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Nothing.
    Nothing,
    /// Everything may be another.
    Whole,
    /// The object says something else of itself, or its status does: statuses are to be compared again.
    Said(Kind, Name),
    /// A route is there, another, or gone.
    Route(Kind, Name),
    /// What Ingresses become is to be looked at.
    Ingress,
    /// A certificate.
    Secret(Name),
    /// The ports of a Service.
    Service(Name),
    /// The endpoints of a Service.
    Endpoints(Name),
    /// Labels of pods of a namespace.
    Pods(String),
    /// What the name of a backend leads to; `told`: also what is said of it in statuses.
    Named { name: Arc<str>, told: bool },
}

/// A kind that tables are made of.
pub(crate) trait Kept: Identify + Sized + 'static {
    const KIND: Kind;

    /// Puts an object in the place of the one before, or takes that away.
    fn set(objects: &mut Objects, name: &Name, object: Option<Arc<Self>>) -> Option<Arc<Self>>;

    /// What it means that `old` became `new`; one of them is there.
    fn edits(name: &Name, old: Option<&Self>, new: Option<&Self>) -> Vec<Edit>;
}

impl Objects {
    /// Takes over an object as it is now, and says what that means.
    pub(crate) fn take<K: Kept>(&mut self, name: &Name, object: Option<Arc<K>>) -> Vec<Edit> {
        let before = K::set(self, name, object.clone());
        if before.is_none() && object.is_none() {
            return Vec::new();
        }
        K::edits(name, before.as_deref(), object.as_deref())
    }
}

impl Objects {
    /// Takes over what names lead to, and says what that means.
    pub(crate) fn lead(&mut self, found: Arc<Found>) -> Vec<Edit> {
        let before = std::mem::replace(&mut self.names, found);
        if Arc::ptr_eq(&before, &self.names) {
            return Vec::new();
        }
        let differing = self.names.iter().filter(|(name, leads)| before.get(*name) != Some(*leads));
        let edits = differing.map(|(name, leads)| {
            let told = before.get(name).map_or(!leads.refused.is_empty(), |known| known.refused != leads.refused);
            Edit::Named { name: Arc::clone(name), told }
        });
        let gone = before.iter().filter(|(name, _)| !self.names.contains_key(*name));
        let gone = gone.map(|(name, known)| Edit::Named { name: Arc::clone(name), told: !known.refused.is_empty() });
        edits.chain(gone).collect()
    }
}

impl Objects {
    /// Takes over the labels of pods, and says what that means.
    pub(crate) fn label(&mut self, labelled: Labelled) -> Vec<Edit> {
        let before = std::mem::replace(&mut self.pods, labelled);
        let mut namespaces = BTreeSet::new();
        before.differing(&self.pods, |(namespace, _), _, _| namespaces.extend([namespace.clone()]));
        namespaces.into_iter().map(Edit::Pods).collect()
    }
}

/// Whether two are the same object, as far as whoever wrote it is concerned.
fn alike(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.generation == b.generation
        && a.labels == b.labels
        && a.creation_timestamp == b.creation_timestamp
        && a.uid == b.uid
        && a.deletion_timestamp == b.deletion_timestamp
}

macro_rules! kept {
    ($kind:ty, $row:ident, $shelf:ident, |$name:pat_param, $old:ident, $new:ident| $edits:expr) => {
        impl Kept for $kind {
            const KIND: Kind = Kind::$row;

            fn set(objects: &mut Objects, name: &Name, object: Option<Arc<Self>>) -> Option<Arc<Self>> {
                objects.$shelf.set(name, object)
            }

            fn edits($name: &Name, $old: Option<&Self>, $new: Option<&Self>) -> Vec<Edit> {
                $edits
            }
        }
    };
}

/// Where nothing but the status differs that is to be compared again; else everything is built anew.
macro_rules! stated {
    ($kind:ty, $row:ident, $shelf:ident) => {
        kept!($kind, $row, $shelf, |name, old, new| match (old, new) {
            (Some(old), Some(new)) if alike(&old.metadata, &new.metadata) && old.spec == new.spec => {
                vec![Edit::Said(Kind::$row, name.clone())]
            }
            _ => vec![Edit::Whole],
        });
    };
}

macro_rules! route {
    ($kind:ty, $row:ident, $shelf:ident) => {
        kept!($kind, $row, $shelf, |name, old, new| match (old, new) {
            (Some(old), Some(new)) if old.is_as_written(new) => {
                vec![Edit::Said(Kind::$row, name.clone())]
            }
            _ => vec![Edit::Route(Kind::$row, name.clone())],
        });
    };
}

stated!(GatewayClass, Class, classes);
stated!(Gateway, Gateway, gateways);
stated!(ListenerSet, Set, sets);
stated!(BackendTLSPolicy, Policy, policies);
route!(HttpRoute, Http, routes);
route!(GrpcRoute, Grpc, grpc);
route!(TlsRoute, Tls, tls);
route!(TcpRoute, Tcp, tcp);
route!(UdpRoute, Udp, udp);
kept!(Ingress, Ingress, ingresses, |name, old, new| match (old, new) {
    (Some(old), Some(new))
        if alike(&old.metadata, &new.metadata)
            && old.spec == new.spec
            && old.metadata.annotations == new.metadata.annotations =>
    {
        vec![Edit::Said(Kind::Ingress, name.clone())]
    }
    _ => vec![Edit::Ingress],
});
kept!(IngressClass, IngressClass, ingress_classes, |_, old, new| {
    let said = |c: &IngressClass| (c.annotations().clone(), c.spec.clone());
    vec![if old.map(said) == new.map(said) { Edit::Nothing } else { Edit::Ingress }]
});
kept!(ReferenceGrant, Grant, grants, |_, old, new| {
    vec![if old.map(|g| &g.spec) == new.map(|g| &g.spec) { Edit::Nothing } else { Edit::Whole }]
});
kept!(CustomResourceDefinition, Definition, definitions, |_, old, new| {
    let said = |d: &CustomResourceDefinition| d.annotations().clone();
    vec![if old.map(said) == new.map(said) { Edit::Nothing } else { Edit::Whole }]
});
kept!(Namespace, Namespace, namespaces, |_, old, new| {
    let said = |n: &Namespace| n.labels().clone();
    vec![if old.map(said) == new.map(said) { Edit::Nothing } else { Edit::Whole }]
});
kept!(ConfigMap, Config, configs, |_, old, new| {
    let said = |c: &ConfigMap| c.data.clone().filter(|data| !data.is_empty());
    vec![if old.and_then(said) == new.and_then(said) { Edit::Nothing } else { Edit::Whole }]
});
kept!(Secret, Secret, secrets, |name, old, new| {
    let same = old.is_some() && old.map(|s| &s.data) == new.map(|s| &s.data);
    vec![if same { Edit::Nothing } else { Edit::Secret(name.clone()) }]
});
kept!(Service, Service, services, |name, old, new| {
    if old.is_some_and(is_front) || new.is_some_and(is_front) {
        // It says at which ports a Gateway is served, and where that is.
        let said = |s: &Service| (s.labels().clone(), s.spec.clone(), s.status.clone().and_then(|s| s.load_balancer));
        return vec![if old.map(said) == new.map(said) { Edit::Nothing } else { Edit::Whole }];
    }
    if old.is_some_and(balancer::concerns) || new.is_some_and(balancer::concerns) {
        // It has a Gateway of its own, and what its status says it keeps.
        let said = |s: &Service| {
            let status = s.status.clone().and_then(|s| s.load_balancer);
            (s.annotations().clone(), s.spec.clone(), status, s.metadata.deletion_timestamp.clone())
        };
        return vec![if old.map(said) == new.map(said) { Edit::Nothing } else { Edit::Whole }];
    }
    let same = old.is_some() && old.map(|s| &s.spec) == new.map(|s| &s.spec);
    vec![if same { Edit::Nothing } else { Edit::Service(name.clone()) }]
});
kept!(EndpointSlice, Slice, slices, |_, old, new| {
    let of: Vec<Option<Name>> = [old, new].iter().map(|s| s.and_then(service_of)).collect();
    let same = |a: &EndpointSlice, b: &EndpointSlice| a.endpoints == b.endpoints && a.ports == b.ports;
    if of[0] == of[1] && old.zip(new).is_some_and(|(a, b)| same(a, b)) {
        return vec![Edit::Nothing];
    }
    of.into_iter().flatten().map(Edit::Endpoints).collect()
});
