//! Routes of every kind as far as balancers of others are told of them: parents, host names, rules. Pure.
//!
//! Matches and filters go as the object has them; backends as references with weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::kinds::gateway::{BackendRef, HTTPBackendRef, HTTPRouteFilter, L4Rule, ParentReference};
use serde::Serialize;
use serde_json::Value;

use crate::objects::{Age, GrpcRoute, HttpRoute, Name, Objects, TcpRoute, TlsRoute, UdpRoute, age, name_of};
use crate::table::{Wants, subset_named, subset_of};

/// A route of any kind.
#[derive(Clone, Copy)]
pub(super) enum Route<'a> {
    Http(&'a HttpRoute),
    Grpc(&'a GrpcRoute),
    Tls(&'a TlsRoute),
    Tcp(&'a TcpRoute),
    Udp(&'a UdpRoute),
}

/// A rule of one.
pub(super) struct Rule {
    pub(super) matches: Vec<Value>,
    pub(super) filters: Vec<Value>,
    pub(super) settings: BTreeMap<String, Value>,
    pub(super) refs: Vec<Reference>,
}

/// A backend, and which subset of it is meant.
pub(super) struct Reference {
    pub(super) to: BackendRef,
    /// Or why none can be.
    pub(super) subset: Result<Option<String>, String>,
}

impl From<BackendRef> for Reference {
    fn from(to: BackendRef) -> Self {
        Self { to, subset: Ok(None) }
    }
}

/// All of them, the oldest first: it keeps what others claim, too.
pub(super) fn all(objects: &Objects) -> Vec<Route<'_>> {
    let http = objects.routes.iter().map(|r: &Arc<_>| Route::Http(r));
    let grpc = objects.grpc.iter().map(|r: &Arc<_>| Route::Grpc(r));
    let tls = objects.tls.iter().map(|r: &Arc<_>| Route::Tls(r));
    let l4 =
        objects.tcp.iter().map(|r: &Arc<_>| Route::Tcp(r)).chain(objects.udp.iter().map(|r: &Arc<_>| Route::Udp(r)));
    let mut all: Vec<Route<'_>> = http.chain(grpc).chain(tls).chain(l4).collect();
    all.sort_by_cached_key(Route::age);
    all
}

impl<'a> Route<'a> {
    fn age(&self) -> Age {
        match self {
            Self::Http(route) => age(*route),
            Self::Grpc(route) => age(*route),
            Self::Tls(route) => age(*route),
            Self::Tcp(route) => age(*route),
            Self::Udp(route) => age(*route),
        }
    }

    pub(super) fn name(&self) -> Name {
        match self {
            Self::Http(route) => name_of(*route),
            Self::Grpc(route) => name_of(*route),
            Self::Tls(route) => name_of(*route),
            Self::Tcp(route) => name_of(*route),
            Self::Udp(route) => name_of(*route),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTPRoute",
            Self::Grpc(_) => "GRPCRoute",
            Self::Tls(_) => "TLSRoute",
            Self::Tcp(_) => "TCPRoute",
            Self::Udp(_) => "UDPRoute",
        }
    }

    pub(super) fn wants(&self) -> Wants {
        match self {
            Self::Http(_) => Wants::Http,
            Self::Grpc(_) => Wants::Grpc,
            Self::Tls(_) | Self::Tcp(_) => Wants::Tcp,
            Self::Udp(_) => Wants::Udp,
        }
    }

    pub(super) fn parents(&self) -> &'a [ParentReference] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
            Self::Tls(route) => &route.spec.parent_refs,
            Self::Tcp(route) => &route.spec.parent_refs,
            Self::Udp(route) => &route.spec.parent_refs,
        }
    }

    pub(super) fn hostnames(&self) -> &'a [String] {
        match self {
            Self::Http(route) => &route.spec.hostnames,
            Self::Grpc(route) => &route.spec.hostnames,
            Self::Tls(route) => &route.spec.hostnames,
            Self::Tcp(_) | Self::Udp(_) => &[],
        }
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        match self {
            Self::Http(route) => {
                let rule = |r: &atoll_api::kinds::gateway::HTTPRouteRule| {
                    let said = [
                        ("timeouts", r.timeouts.as_ref().map(json)),
                        ("retry", r.retry.as_ref().map(json)),
                        ("sessionPersistence", r.session_persistence.as_ref().map(json)),
                    ];
                    requests(r.matches.iter().map(json).collect(), &r.filters, &said, &r.backend_refs)
                };
                route.spec.rules.iter().map(rule).collect()
            }
            Self::Grpc(route) => {
                let rule = |r: &atoll_api::kinds::gateway::GRPCRouteRule| {
                    let said = [("sessionPersistence", r.session_persistence.as_ref().map(json))];
                    requests(r.matches.iter().map(json).collect(), &r.filters, &said, &r.backend_refs)
                };
                route.spec.rules.iter().map(rule).collect()
            }
            Self::Tls(route) => route.spec.rules.iter().map(stream).collect(),
            Self::Tcp(route) => route.spec.rules.iter().map(stream).collect(),
            Self::Udp(route) => route.spec.rules.iter().map(stream).collect(),
        }
    }
}

fn requests(
    matches: Vec<Value>,
    filters: &[HTTPRouteFilter],
    said: &[(&str, Option<Value>)],
    refs: &[HTTPBackendRef],
) -> Rule {
    // Which endpoints a subset has is said by the servers.
    let per_backend = refs.iter().flat_map(|b| &b.filters).filter(|f| subset_of(f).is_none());
    let reference = |b: &HTTPBackendRef| Reference {
        to: BackendRef { target: b.target.clone(), weight: b.weight },
        subset: subset_named(&b.filters).map(|named| named.map(str::to_owned)).map_err(|problem| problem.message),
    };
    Rule {
        matches,
        filters: filters.iter().chain(per_backend).map(json).collect(),
        settings: said.iter().filter_map(|(name, set)| Some(((*name).to_owned(), set.clone()?))).collect(),
        refs: refs.iter().map(reference).collect(),
    }
}

fn stream(rule: &L4Rule) -> Rule {
    let (matches, filters, settings) = (Vec::new(), Vec::new(), BTreeMap::new());
    let refs = rule.backend_refs.iter().cloned().map(Into::into).collect();
    Rule { matches, filters, settings, refs }
}

fn json(said: &impl Serialize) -> Value {
    serde_json::to_value(said).unwrap_or_default()
}
