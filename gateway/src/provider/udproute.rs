//! `UDPRoute` of the Gateway API. Pure.

use std::sync::Arc;

use kube::ResourceExt as _;

use crate::attach::by_age;
use crate::attach::streams::{Route, provide as provide_streams};
use crate::table::{Draft, Wants};

pub(super) const KIND: &str = "UDPRoute";

/// Attaches every UDPRoute.
pub(super) fn provide(draft: &mut Draft<'_>) {
    for object in by_age(&draft.objects.udp) {
        let (namespace, spec) = (object.namespace().unwrap_or_default(), &object.spec);
        let route = Route {
            kind: KIND,
            namespace: &namespace,
            name: &object.name_any(),
            hostnames: &[],
            parents: &spec.parent_refs,
            wants: Wants::Udp,
            rules: &spec.rules,
        };
        provide_streams(draft, Arc::clone(&object) as _, &route);
    }
}
