//! `GRPCRoute` of the Gateway API. Pure.

use std::sync::Arc;

use crate::attach::rules::{Matches, Route, Written, provide as provide_rules};
use crate::objects::{Kind, Name};
use crate::table::{Draft, Match, Wants};
use atoll_api::kinds::gateway::{GRPCRouteMatch, GRPCRouteRule};

pub(super) const ROW: Kind = Kind::Grpc;
pub(super) const KIND: &str = "GRPCRoute";

/// Attaches the one of that name.
pub(super) fn provide(draft: &mut Draft<'_>, name: &Name) {
    let Some(object) = draft.objects.grpc.at(name).cloned() else { return };
    let object_of_status = Arc::clone(&object);
    let rules = object.spec.rules.iter().map(|written| rule(written, draft.over.is_some())).collect();
    let spec = &object.spec;
    let route = Route {
        kind: KIND,
        namespace: &name.0,
        label: &object.label,
        hostnames: &spec.hostnames,
        parents: &spec.parent_refs,
        wants: Wants::Grpc,
        created: object.created,
        port_names: &[],
        stand_in: None,
        key: None,
        own_tls: None,
        rules,
    };
    provide_rules(draft, object_of_status, &[route]);
}

fn rule(written: &GRPCRouteRule, over: bool) -> Written<'_> {
    Written {
        name: written.name.as_ref(),
        matches: matches(written, if over { |m| Ok(Match::outline_grpc(m)) } else { Match::compile_grpc }),
        filters: &written.filters,
        backends: &written.backend_refs,
        timeouts: None,
        retry: None,
        session: written.session_persistence.as_deref(),
    }
}

fn matches(written: &GRPCRouteRule, compile: fn(&GRPCRouteMatch) -> Result<Match, String>) -> Matches {
    if written.matches.is_empty() {
        return vec![compile(&GRPCRouteMatch::default()).map(Match::shared)];
    }
    written.matches.iter().map(|m| compile(m).map(Match::shared)).collect()
}
