//! What the objects of ACME have in common: the labels by which they are found, and how those of orders that are over go.

use std::collections::BTreeMap;
use std::fmt::Debug;

use atoll_api::kinds::{MANAGED_BY, SYSTEM_NAMESPACE};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::{FLEET_LABEL, LABEL, ORDER_LABEL};
use crate::table::MANAGER;

/// The labels of one. `what`: as [`LABEL`] says it; `more`: those of its own.
pub(super) fn labels(what: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let all = [(LABEL, what), (MANAGED_BY, MANAGER)].into_iter().chain(more.iter().copied());
    all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Takes away what a fleet's orders showed that are not open.
pub(super) async fn remove<K>(client: &Client, what: &str, fleet: &str, open: impl Fn(&str) -> bool)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let of_fleet = format!("{LABEL}={what},{FLEET_LABEL}={fleet}");
    let all = match api.list(&ListParams::default().labels(&of_fleet)).await {
        Ok(all) => all,
        // Where there is no such kind there is nothing to take away.
        Err(error) => return tracing::debug!(%error, what, "what is over stays for now"),
    };
    for object in all {
        let is_open = object.labels().get(ORDER_LABEL).is_some_and(|order| open(order));
        if !is_open && let Err(error) = api.delete(&object.name_any(), &DeleteParams::default()).await {
            tracing::debug!(%error, what, name = object.name_any(), "what is over stays for now");
        }
    }
}
