//! `HTTPRoute` of the Gateway API. Pure.

use std::sync::Arc;

use atoll_api::kinds::gateway::{HTTPRouteMatch, HTTPRouteRule};
use kube::ResourceExt as _;

use crate::attach::by_age;
use crate::attach::rules::{Matches, Route, Written, provide as provide_rules};
use crate::table::{Draft, Match, Wants};

pub(super) const KIND: &str = "HTTPRoute";

/// Attaches every HTTPRoute.
pub(super) fn provide(draft: &mut Draft<'_>) {
    for (age, object) in by_age(&draft.objects.routes).into_iter().enumerate() {
        let (namespace, object_of_status) = (object.namespace().unwrap_or_default(), Arc::clone(&object));
        let rules = object.spec.rules.iter().map(rule).collect();
        let spec = &object.spec;
        let route = Route {
            kind: KIND,
            namespace: &namespace,
            name: &object.name_any(),
            hostnames: &spec.hostnames,
            parents: &spec.parent_refs,
            wants: Wants::Http,
            age,
            rules,
        };
        provide_rules(draft, object_of_status, &route);
    }
}

fn rule(written: &HTTPRouteRule) -> Written<'_> {
    Written {
        name: written.name.as_ref(),
        matches: matches(written),
        filters: &written.filters,
        backends: &written.backend_refs,
        timeouts: written.timeouts.as_ref(),
        retry: written.retry.as_ref(),
        session: written.session_persistence.as_ref(),
    }
}

fn matches(written: &HTTPRouteRule) -> Matches {
    if written.matches.is_empty() {
        return Ok(vec![Arc::new(Match::compile(&HTTPRouteMatch::default())?)]);
    }
    written.matches.iter().map(|m| Match::compile(m).map(Arc::new)).collect()
}
