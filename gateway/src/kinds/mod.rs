//! Kinds of object that make routes. A new one is one file and one row. Pure.

mod grpcroute;
mod httproute;
mod ingress;
mod service;
mod tcproute;
mod tlsroute;
mod udproute;

use std::sync::Arc;

use crate::objects::{Kind, Name, Objects};
use crate::status::RouteObject;
use crate::table::Draft;

/// A row of the table.
pub(crate) struct RouteKind {
    /// The kind, as listeners allow it and routes name themselves.
    pub(crate) kind: &'static str,
    /// Protocols of listeners that take it.
    pub(crate) protocols: &'static [&'static str],
    /// The same as changes name it.
    pub(crate) row: Kind,
    /// The names of all objects.
    pub(crate) names: fn(&Objects) -> Vec<Name>,
    /// An object, for its status.
    pub(crate) object: fn(&Objects, &Name) -> Option<Arc<dyn RouteObject>>,
    /// Attaches one object to the listeners of the draft, and says what became of it; nothing where there is none.
    pub(crate) provide: fn(&mut Draft<'_>, &Name),
}

/// Every kind that makes routes.
pub(crate) const KINDS: &[RouteKind] = &[
    RouteKind {
        kind: httproute::KIND,
        protocols: &["HTTP", "HTTPS"],
        row: httproute::ROW,
        names: |objects| objects.routes.names().collect(),
        object: |objects, name| objects.routes.at(name).map(|object| Arc::clone(object) as _),
        provide: httproute::provide,
    },
    RouteKind {
        kind: grpcroute::KIND,
        protocols: &["HTTP", "HTTPS"],
        row: grpcroute::ROW,
        names: |objects| objects.grpc.names().collect(),
        object: |objects, name| objects.grpc.at(name).map(|object| Arc::clone(object) as _),
        provide: grpcroute::provide,
    },
    RouteKind {
        kind: ingress::KIND,
        // No listener of a Gateway takes them.
        protocols: &[],
        row: ingress::ROW,
        names: |objects| objects.derived.live.keys().cloned().collect(),
        object: |objects, name| objects.ingresses.at(name).map(|object| Arc::clone(object) as _),
        provide: ingress::provide,
    },
    RouteKind {
        kind: service::KIND,
        // They have Gateways of their own, which take nothing else.
        protocols: &[],
        row: service::ROW,
        names: |objects| objects.balancers.all.keys().cloned().collect(),
        object: |objects, name| objects.gateways.at(name).map(|object| Arc::clone(object) as _),
        provide: service::provide,
    },
    RouteKind {
        kind: tlsroute::KIND,
        protocols: &["TLS"],
        row: tlsroute::ROW,
        names: |objects| objects.tls.names().collect(),
        object: |objects, name| objects.tls.at(name).map(|object| Arc::clone(object) as _),
        provide: tlsroute::provide,
    },
    RouteKind {
        kind: tcproute::KIND,
        protocols: &["TCP"],
        row: tcproute::ROW,
        names: |objects| objects.tcp.names().collect(),
        object: |objects, name| objects.tcp.at(name).map(|object| Arc::clone(object) as _),
        provide: tcproute::provide,
    },
    RouteKind {
        kind: udproute::KIND,
        protocols: &["UDP"],
        row: udproute::ROW,
        names: |objects| objects.udp.names().collect(),
        object: |objects, name| objects.udp.at(name).map(|object| Arc::clone(object) as _),
        provide: udproute::provide,
    },
];
