//! `GRPCRoute` of the Gateway API. Pure.

use std::sync::Arc;

use crate::attach::rules::{Matches, Route, Written, provide as provide_rules};
use crate::objects::{Kind, Name, created};
use crate::table::{Draft, Match, Wants};
use atoll_api::kinds::gateway::{GRPCRouteMatch, GRPCRouteRule};

pub(super) const ROW: Kind = Kind::Grpc;
pub(super) const KIND: &str = "GRPCRoute";

/// Attaches the one of that name.
pub(super) fn provide(draft: &mut Draft<'_>, name: &Name) {
    let Some(object) = draft.objects.grpc.at(name).cloned() else { return };
    let object_of_status = Arc::clone(&object);
    let rules = draft.rules(&object.spec.rules, rule);
    let spec = &object.spec;
    let route = Route {
        kind: KIND,
        namespace: &name.0,
        name: &name.1,
        hostnames: &spec.hostnames,
        parents: &spec.parent_refs,
        wants: Wants::Grpc,
        created: created(&*object),
        port_names: &[],
        stand_in: None,
        key: None,
        own_tls: None,
        rules,
    };
    provide_rules(draft, object_of_status, &[route]);
}

fn rule(written: &GRPCRouteRule) -> Written<'_> {
    Written {
        name: written.name.as_ref(),
        matches: matches(written),
        filters: &written.filters,
        backends: &written.backend_refs,
        timeouts: None,
        retry: None,
        session: written.session_persistence.as_deref(),
    }
}

fn matches(written: &GRPCRouteRule) -> Matches {
    if written.matches.is_empty() {
        return vec![Match::compile_grpc(&GRPCRouteMatch::default()).map(Match::shared)];
    }
    written.matches.iter().map(|m| Match::compile_grpc(m).map(Match::shared)).collect()
}
