//! `GRPCRoute` of the Gateway API. Pure.

use std::sync::Arc;

use atoll_api::kinds::gateway::{GRPCRouteMatch, GRPCRouteRule};
use kube::ResourceExt as _;

use crate::attach::by_age;
use crate::attach::rules::{Matches, Route, Written, provide as provide_rules};
use crate::table::{Draft, Match, Wants};

pub(super) const KIND: &str = "GRPCRoute";

/// Attaches every GRPCRoute.
pub(super) fn provide(draft: &mut Draft<'_>) {
    for (age, object) in by_age(&draft.objects.grpc).into_iter().enumerate() {
        let (namespace, object_of_status) = (object.namespace().unwrap_or_default(), Arc::clone(&object));
        let rules = object.spec.rules.iter().map(rule).collect();
        let spec = &object.spec;
        let route = Route {
            kind: KIND,
            namespace: &namespace,
            name: &object.name_any(),
            hostnames: &spec.hostnames,
            parents: &spec.parent_refs,
            wants: Wants::Grpc,
            age,
            rules,
        };
        provide_rules(draft, object_of_status, &route);
    }
}

fn rule(written: &GRPCRouteRule) -> Written<'_> {
    Written {
        name: written.name.as_ref(),
        matches: matches(written),
        filters: &written.filters,
        backends: &written.backend_refs,
        timeouts: None,
        retry: None,
        session: written.session_persistence.as_ref(),
    }
}

fn matches(written: &GRPCRouteRule) -> Matches {
    if written.matches.is_empty() {
        return Ok(vec![Arc::new(Match::compile_grpc(&GRPCRouteMatch::default())?)]);
    }
    written.matches.iter().map(|m| Match::compile_grpc(m).map(Arc::new)).collect()
}
