//! Whether an object may refer to one of another namespace. Pure. Source: Gateway API, ReferenceGrant.

use atoll_api::kinds::gateway::{GATEWAY_GROUP, ReferenceGrant};
use kube::ResourceExt as _;

use crate::objects::Shelf;

/// The group of Ingresses.
pub(crate) const INGRESS_GROUP: &str = "networking.k8s.io";

/// Who refers: a kind of the Gateway API, or Ingress, in a namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From<'a> {
    pub(crate) kind: &'a str,
    pub(crate) namespace: &'a str,
}

/// To what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct To<'a> {
    pub(crate) group: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// Whether `from` may refer to `to`.
pub(crate) fn permits(grants: &Shelf<ReferenceGrant>, from: From<'_>, to: To<'_>) -> bool {
    if from.namespace == to.namespace {
        return true;
    }
    let group = if from.kind == "Ingress" { INGRESS_GROUP } else { GATEWAY_GROUP };
    grants.iter().filter(|g| g.namespace().as_deref() == Some(to.namespace)).any(|g| {
        let who = |f: &atoll_api::kinds::gateway::ReferenceGrantFrom| {
            f.group == group && f.kind == from.kind && f.namespace == from.namespace
        };
        let what = |t: &atoll_api::kinds::gateway::ReferenceGrantTo| {
            t.group == to.group && t.kind == to.kind && t.name.as_deref().is_none_or(|n| n.is_empty() || n == to.name)
        };
        g.spec.from.iter().any(who) && g.spec.to.iter().any(what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_granted_may_be_referred_to() {
        let grant: ReferenceGrant = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "g", "namespace": "b"},
            "spec": {"from": [{"group": GATEWAY_GROUP, "kind": "HTTPRoute", "namespace": "a"}],
                "to": [{"group": "", "kind": "Service", "name": "web"}, {"group": "", "kind": "Secret"}]}
        }))
        .unwrap();
        let grants = [std::sync::Arc::new(grant)].into_iter().collect();
        for (from, namespace, kind, name, permitted) in [
            (("HTTPRoute", "a"), "b", "Service", "web", true),
            (("HTTPRoute", "a"), "b", "Service", "other", false),
            (("HTTPRoute", "a"), "b", "Secret", "any", true),
            (("HTTPRoute", "c"), "b", "Service", "web", false),
            (("Gateway", "a"), "b", "Secret", "any", false),
            (("HTTPRoute", "a"), "c", "Service", "web", false),
            (("HTTPRoute", "a"), "a", "Service", "anything", true),
        ] {
            let from = From { kind: from.0, namespace: from.1 };
            let found = permits(&grants, from, To { group: "", kind, namespace, name });
            assert_eq!(found, permitted, "{from:?} to {kind} {namespace}/{name}");
        }
    }
}
