//! `TLSRoute` of the Gateway API. Pure.

use std::sync::Arc;

use crate::attach::streams::{Route, provide as provide_streams};
use crate::objects::{Kind, Name};
use crate::table::{Draft, Wants};

pub(super) const ROW: Kind = Kind::Tls;
pub(super) const KIND: &str = "TLSRoute";

/// Attaches the one of that name.
pub(super) fn provide(draft: &mut Draft<'_>, name: &Name) {
    let Some(object) = draft.objects.tls.at(name).cloned() else { return };
    let spec = &object.spec;
    let route = Route {
        kind: KIND,
        namespace: &name.0,
        label: &object.label,
        hostnames: &spec.hostnames,
        parents: &spec.parent_refs,
        wants: Wants::Tcp,
        created: object.created,
        port_names: &[],
        is_ours: false,
        rules: &spec.rules,
    };
    provide_streams(draft, Arc::clone(&object) as _, &route);
}
