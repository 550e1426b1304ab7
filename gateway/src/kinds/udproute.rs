//! `UDPRoute` of the Gateway API. Pure.

use std::sync::Arc;

use crate::attach::streams::{Route, provide as provide_streams};
use crate::ingress;
use crate::objects::{Kind, Name};
use crate::table::{Draft, Wants};

pub(super) const ROW: Kind = Kind::Udp;
pub(super) const KIND: &str = "UDPRoute";

/// Attaches the one of that name.
pub(super) fn provide(draft: &mut Draft<'_>, name: &Name) {
    let Some(object) = draft.objects.udp.at(name).cloned() else { return };
    let spec = &object.spec;
    let route = Route {
        kind: KIND,
        namespace: &name.0,
        label: &object.label,
        hostnames: &[],
        parents: &spec.parent_refs,
        wants: Wants::Udp,
        created: object.created,
        port_names: &[],
        is_ours: ingress::is_ours(&*object),
        rules: &spec.rules,
    };
    provide_streams(draft, Arc::clone(&object) as _, &route);
}
