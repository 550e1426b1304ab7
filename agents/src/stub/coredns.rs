//! CoreDNS in a cluster: our block in the Corefile of ConfigMap `kube-system/coredns`, or our key in `coredns-custom` where it imports that.
//!
//! In: the block and its zones. Out: the ConfigMap changed, only if it is still the one that was read. CoreDNS notices by itself (`reload`).

use std::collections::BTreeMap;

use atoll_api::kinds::FIELD_MANAGER;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::corefile;
use super::{Done, StubError};
use crate::namespace::BROUGHT;

pub(super) const NAMESPACE: &str = "kube-system";
const COREDNS: &str = "coredns";
const COREFILE: &str = "Corefile";
const CUSTOM: &str = "coredns-custom";
/// Our key in it: the Corefile imports `*.server`.
const KEY: &str = "atoll.server";

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn read(maps: &Api<ConfigMap>, name: &str) -> Result<Option<ConfigMap>, StubError> {
    maps.get_opt(name).await.map_err(StubError::api(&format!("read ConfigMap {NAMESPACE}/{name}")))
}

/// Puts the block in.
pub(super) async fn put(client: &Client, block: &str, zones: &[&str]) -> Result<Done, StubError> {
    let maps = maps(client);
    let missing =
        || StubError::Refused(format!("ConfigMap {NAMESPACE}/{COREDNS} has no {COREFILE}: is CoreDNS the DNS here?"));
    let map = read(&maps, COREDNS).await?.ok_or_else(missing)?;
    let text = map.data.as_ref().and_then(|data| data.get(COREFILE)).ok_or_else(missing)?;
    if corefile::imports_custom(text) {
        return put_custom(&maps, text, block, zones).await;
    }
    let (next, remark) = corefile::with(text, block, zones).map_err(StubError::Refused)?;
    let changed = next != *text;
    if changed {
        write(&maps, &map, &next).await?;
    }
    let remark = remark.map(|remark| format!(" ({remark})")).unwrap_or_default();
    Ok(Done { changed, place: format!("CoreDNS, by a block in ConfigMap {NAMESPACE}/{COREDNS}{remark},") })
}

async fn put_custom(maps: &Api<ConfigMap>, text: &str, block: &str, zones: &[&str]) -> Result<Done, StubError> {
    let custom = read(maps, CUSTOM).await?;
    let data: BTreeMap<String, String> = custom.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
    let others = data.iter().filter(|(key, _)| *key != KEY && key.ends_with(".server")).map(|(_, text)| text.as_str());
    let file = corefile::beside(text, others, block, zones).map_err(StubError::Refused)?;
    let changed = data.get(KEY) != Some(&file);
    if changed {
        let brought = custom.is_none().then(|| json!({BROUGHT: "agent"}));
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": CUSTOM, "namespace": NAMESPACE, "annotations": brought},
            "data": {KEY: file},
        });
        let patched = match custom {
            None => maps.patch(CUSTOM, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&map)).await,
            Some(_) => maps.patch(CUSTOM, &PatchParams::default(), &Patch::Merge(json!({"data": {KEY: file}}))).await,
        };
        patched.map_err(StubError::api(&format!("write ConfigMap {NAMESPACE}/{CUSTOM}")))?;
    }
    Ok(Done { changed, place: format!("CoreDNS, by {KEY} in ConfigMap {NAMESPACE}/{CUSTOM},") })
}

/// Takes it out, wherever it is.
pub(super) async fn remove(client: &Client) -> Result<Done, StubError> {
    let maps = maps(client);
    let mut changed = false;
    if let Some(map) = read(&maps, COREDNS).await?
        && let Some(text) = map.data.as_ref().and_then(|data| data.get(COREFILE))
    {
        let next = corefile::without(text).map_err(StubError::Refused)?;
        if next != *text {
            write(&maps, &map, &next).await?;
            changed = true;
        }
    }
    if let Some(map) =
        read(&maps, CUSTOM).await?.filter(|map| map.data.as_ref().is_some_and(|data| data.contains_key(KEY)))
    {
        let only_ours =
            map.data.as_ref().is_some_and(|data| data.len() == 1) && map.annotations().contains_key(BROUGHT);
        remove_custom(&maps, &map, only_ours).await?;
        changed = true;
    }
    Ok(Done { changed, place: "CoreDNS".to_owned() })
}

async fn remove_custom(maps: &Api<ConfigMap>, map: &ConfigMap, whole: bool) -> Result<(), StubError> {
    let done = if whole {
        let held = Preconditions { resource_version: map.resource_version(), uid: map.uid() };
        let params = DeleteParams { preconditions: Some(held), ..DeleteParams::default() };
        maps.delete(CUSTOM, &params).await.map(drop)
    } else {
        maps.patch(CUSTOM, &PatchParams::default(), &Patch::Merge(json!({"data": {KEY: null}}))).await.map(drop)
    };
    done.map_err(StubError::api(&format!("take {KEY} out of ConfigMap {NAMESPACE}/{CUSTOM}")))
}

/// Writes the Corefile, unless somebody has written it since it was read: then the next look begins anew.
async fn write(maps: &Api<ConfigMap>, read: &ConfigMap, text: &str) -> Result<(), StubError> {
    let patch = json!({"metadata": {"resourceVersion": read.resource_version()}, "data": {COREFILE: text}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let written = maps.patch(COREDNS, &params, &Patch::Merge(patch)).await;
    written.map(drop).map_err(StubError::api(&format!("write ConfigMap {NAMESPACE}/{COREDNS}")))
}
