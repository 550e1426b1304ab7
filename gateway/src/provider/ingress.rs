//! `Ingress` of Kubernetes, as it was translated. Pure.

use std::sync::Arc;

use super::httproute;
use crate::attach::rules::{Route, provide as provide_rules};
use crate::objects::{Kind, Name, age};
use crate::table::{Draft, Wants};

pub(super) const ROW: Kind = Kind::Ingress;
pub(super) const KIND: &str = "Ingress";

/// Attaches the one of that name.
pub(super) fn provide(draft: &mut Draft<'_>, name: &Name) {
    let derived = Arc::clone(&draft.objects.derived);
    let (Some(live), Some(object)) = (derived.live.get(name), draft.objects.ingresses.at(name).cloned()) else {
        return;
    };
    let part = &live.part;
    let age = Arc::new(age(&*object));
    let routes: Vec<Route<'_>> = part
        .routes
        .iter()
        .map(|route| Route {
            kind: KIND,
            namespace: &name.0,
            name: &name.1,
            hostnames: &route.spec.hostnames,
            parents: &route.spec.parent_refs,
            wants: if part.grpc { Wants::Grpc } else { Wants::Http },
            age: Arc::clone(&age),
            port_names: &part.port_names,
            rules: route.spec.rules.iter().map(httproute::rule).collect(),
        })
        .collect();
    provide_rules(draft, object, &routes);
}
