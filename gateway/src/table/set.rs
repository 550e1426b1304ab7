//! Which ListenerSets a Gateway takes. Pure. Source: Gateway API (ListenerSet), GEP-1713.

use std::sync::Arc;

use atoll_api::kinds::gateway::{GATEWAY_GROUP, Gateway, ListenerSet, RouteNamespaces};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::core::{Selector, SelectorExt as _};

use super::backend::Problem;
use super::entry::SetDraft;
use crate::objects::{Objects, Shelf, age};

/// The ListenerSets that name a Gateway, the oldest first, each with why it is not taken.
pub(crate) fn sets(objects: &Objects, gateway: &Gateway) -> Vec<SetDraft> {
    let own = gateway.namespace().unwrap_or_default();
    let meant = objects.sets.iter().filter(|set| is_meant(set, &own, &gateway.name_any()));
    let mut meant: Vec<&Arc<ListenerSet>> = meant.collect();
    meant.sort_by_cached_key(|set| age(&***set));
    let from = gateway.spec.allowed_listeners.as_ref().and_then(|a| a.namespaces.as_ref());
    let drafts = meant.into_iter().map(|set| {
        let namespace = set.namespace().unwrap_or_default();
        let taken = allows(from, "None", &own, &namespace, &objects.namespaces);
        let why = || Problem::new("NotAllowed", "the Gateway takes no listeners from this namespace");
        SetDraft { object: Arc::clone(set), namespace, refused: (!taken).then(why) }
    });
    drafts.collect()
}

fn is_meant(set: &ListenerSet, namespace: &str, name: &str) -> bool {
    let parent = &set.spec.parent_ref;
    parent.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
        && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway"
        && parent.name == name
        && parent.namespace.clone().or_else(|| set.namespace()).as_deref() == Some(namespace)
}

/// Whether objects of `namespace` may attach to something of `own`.
pub(crate) fn allows(
    said: Option<&RouteNamespaces>,
    absent: &str,
    own: &str,
    namespace: &str,
    namespaces: &Shelf<Namespace>,
) -> bool {
    match said.and_then(|n| n.from.as_deref()).unwrap_or(absent) {
        "All" => true,
        "Same" => own == namespace,
        "Selector" => {
            let selector = said.and_then(|n| n.selector.clone()).and_then(|s| Selector::try_from(s).ok());
            let object = namespaces.get("", namespace);
            selector.zip(object).is_some_and(|(selector, object)| selector.matches(object.labels()))
        }
        _ => false,
    }
}
