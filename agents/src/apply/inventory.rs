//! The inventory: what this agent applied for each Bundle, written down in the member before it is applied.
//!
//! In and out: one ConfigMap a Bundle in `atoll-system`. It is what pruning goes by: a crash leaves an entry too many, never
//! an object that nobody knows.

use std::collections::BTreeMap;

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::AgentError;

/// Label of every inventory.
const LABEL: &str = "atoll.dev/inventory";
/// Objects of one Bundle.
pub(crate) const OBJECTS_MAX: usize = 2000;

/// One object that was applied, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owned {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Known once it was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
}

impl Owned {
    /// Whether both mean the same place, whatever stands there. The version of the API plays no part.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        group(&self.api_version) == group(&other.api_version)
            && self.kind == other.kind
            && self.namespace == other.namespace
            && self.name == other.name
    }
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// What was applied for one Bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inventory {
    /// `namespace/name`.
    pub(crate) bundle: String,
    pub(crate) objects: Vec<Owned>,
}

impl Inventory {
    /// The uid written down for this place.
    pub(crate) fn uid_of(&self, place: &Owned) -> Option<&str> {
        self.objects.iter().find(|o| o.is_same_place(place))?.uid.as_deref()
    }

    /// Adds a place that is not in it yet.
    pub(crate) fn include(&mut self, place: &Owned) {
        if !self.objects.iter().any(|o| o.is_same_place(place)) {
            self.objects.push(place.clone());
        }
    }
}

/// Reads all inventories of the member, by Bundle.
pub(crate) async fn load(client: &kube::Client) -> Result<BTreeMap<String, Inventory>, AgentError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let mut params = ListParams::default().labels(LABEL).limit(500);
    let mut found = BTreeMap::new();
    loop {
        let page = maps.list(&params).await.map_err(AgentError::member("listing inventories"))?;
        for map in page.items {
            let text = map.data.and_then(|mut data| data.remove("inventory")).unwrap_or_default();
            let name = map.metadata.name.unwrap_or_default();
            match serde_json::from_str::<Inventory>(&text) {
                Ok(inventory) if map_name(&inventory.bundle) == name => {
                    found.insert(inventory.bundle.clone(), inventory);
                }
                // Left alone: pruning by something we can't read could take what is not ours.
                _ => tracing::warn!(name, "an inventory can't be read, what it lists is left alone"),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Writes an inventory.
pub(crate) async fn save(client: &kube::Client, inventory: &Inventory) -> Result<(), AgentError> {
    let name = map_name(&inventory.bundle);
    let text = serde_json::to_string(inventory).expect("an inventory is plain JSON");
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(SYSTEM_NAMESPACE.to_owned()),
        labels: Some([(LABEL.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    };
    let map = ConfigMap { metadata, data: Some([("inventory".to_owned(), text)].into()), ..ConfigMap::default() };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    maps.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&map))
        .await
        .map_err(AgentError::member(format!("writing inventory {name}")))?;
    Ok(())
}

/// Deletes the inventory of a Bundle of which nothing is left.
pub(crate) async fn forget(client: &kube::Client, bundle: &str) -> Result<(), AgentError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let name = map_name(bundle);
    match maps.delete(&name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(AgentError::member(format!("deleting inventory {name}"))(error)),
    }
}

/// The value of the owner label: `namespace.name`, shortened with a digest where a label can't hold it.
pub(crate) fn owner(bundle: &str) -> String {
    short(&bundle.replacen('/', ".", 1), 63)
}

fn map_name(bundle: &str) -> String {
    short(&format!("inventory.{}", bundle.replacen('/', ".", 1)), 253)
}

fn short(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let digest: String = Sha256::digest(text).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let head: String = text.chars().take(max - 17).collect();
    format!("{}-{digest}", head.trim_end_matches(['-', '.', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_labels_are_valid_and_distinct_however_long_the_names() {
        let long = format!("shop/{}", "a".repeat(100));
        let longer = format!("shop/{}", "a".repeat(101));
        assert_eq!(owner("shop/web"), "shop.web");
        assert!(owner(&long).len() <= 63 && owner(&long) != owner(&longer));
    }

    #[test]
    fn another_version_of_an_api_is_the_same_place() {
        let at = |api_version: &str| Owned {
            api_version: api_version.into(),
            kind: "Deployment".into(),
            namespace: Some("shop".into()),
            name: "web".into(),
            uid: None,
        };
        assert!(at("apps/v1").is_same_place(&at("apps/v1beta1")));
        assert!(!at("apps/v1").is_same_place(&at("v1")));
    }
}
