//! kube-dns: keys of ours in `stubDomains` of ConfigMap `kube-system/kube-dns`, a JSON map of zones to servers.
//!
//! In: zones and servers. Out: the map with our keys beside those of others; an annotation says which are ours and what stood there before,
//! so that it stands there again when ours are taken out. A key of somebody else's is never replaced.
//! Source: kubernetes/dns, `pkg/dns/config`: values are IP or IP:port.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use atoll_api::kinds::FIELD_MANAGER;
use atoll_api::topology::StubFacts;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::coredns::NAMESPACE;
use super::{Done, StubError, zones};

const NAME: &str = "kube-dns";
const KEY: &str = "stubDomains";
/// On the ConfigMap: [`Ours`].
const OURS: &str = "atoll.dev/stub-domains";

type Domains = BTreeMap<String, Value>;

/// What we did to the map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ours {
    zones: Vec<String>,
    /// The text before, where there was one.
    before: Option<String>,
    /// The ConfigMap is ours.
    made: bool,
}

/// The map's text with `wanted`, and the note on it.
fn with(text: Option<&str>, ours: Option<Ours>, wanted: &Domains) -> Result<(String, Ours), String> {
    let first = ours.is_none();
    let mut ours = ours.unwrap_or_default();
    let mut domains = parse(text)?;
    domains.retain(|zone, _| !ours.zones.contains(zone));
    if let Some(zone) = wanted.keys().find(|zone| domains.contains_key(*zone)) {
        return Err(format!(
            "zone `{zone}` is in {KEY} of ConfigMap {NAMESPACE}/{NAME} already: take it out, or switch agent.stub off"
        ));
    }
    if first {
        ours.before = text.map(str::to_owned);
    }
    ours.zones = wanted.keys().cloned().collect();
    domains.extend(wanted.clone());
    Ok((json!(domains).to_string(), ours))
}

/// The map's text without ours; `None`: there is none then.
fn without(text: Option<&str>, ours: &Ours) -> Result<Option<String>, String> {
    let mut domains = parse(text)?;
    domains.retain(|zone, _| !ours.zones.contains(zone));
    // As it was written, unless somebody has changed it since.
    let same = parse(ours.before.as_deref()).is_ok_and(|before| before == domains);
    Ok(if same { ours.before.clone() } else { Some(json!(domains).to_string()) })
}

fn parse(text: Option<&str>) -> Result<Domains, String> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Domains::new()) };
    serde_json::from_str(text).map_err(|e| format!("{KEY} of ConfigMap {NAMESPACE}/{NAME} can't be read: {e}"))
}

fn wanted(facts: &StubFacts) -> Domains {
    let server = |at: &String| match at.parse::<SocketAddr>() {
        Ok(at) if at.port() == 53 => at.ip().to_string(),
        _ => at.clone(),
    };
    let servers: Vec<String> = facts.servers.iter().map(server).collect();
    zones(facts).into_iter().map(|zone| (zone.to_owned(), json!(servers))).collect()
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn read(maps: &Api<ConfigMap>) -> Result<Option<ConfigMap>, StubError> {
    maps.get_opt(NAME).await.map_err(StubError::api(&format!("read ConfigMap {NAMESPACE}/{NAME}")))
}

fn held(map: &ConfigMap) -> (Option<&str>, Option<Ours>) {
    let text = map.data.as_ref().and_then(|data| data.get(KEY)).map(String::as_str);
    (text, map.annotations().get(OURS).and_then(|note| serde_json::from_str(note).ok()))
}

/// Puts our zones in.
pub(super) async fn put(client: &Client, facts: &StubFacts) -> Result<Done, StubError> {
    let maps = maps(client);
    let map = read(&maps).await?;
    let (text, ours) = map.as_ref().map_or((None, None), held);
    let (next, mut note) = with(text, ours.clone(), &wanted(facts)).map_err(StubError::Refused)?;
    note.made |= map.is_none();
    let same = ours.as_ref() == Some(&note) && parse(text).ok() == parse(Some(&next)).ok();
    if !same {
        let note = json!(note).to_string();
        let annotations = json!({OURS: note});
        let done = match &map {
            None => {
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": NAME, "namespace": NAMESPACE, "annotations": annotations}, "data": {KEY: next},
                });
                maps.patch(NAME, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&object)).await.map(drop)
            }
            Some(map) => {
                merge(&maps, map, json!({"metadata": {"annotations": annotations}, "data": {KEY: next}})).await
            }
        };
        done.map_err(StubError::api(&format!("write ConfigMap {NAMESPACE}/{NAME}")))?;
    }
    Ok(Done { changed: !same, place: format!("kube-dns, by {KEY} in ConfigMap {NAMESPACE}/{NAME},") })
}

/// Takes them out.
pub(super) async fn remove(client: &Client) -> Result<Done, StubError> {
    let maps = maps(client);
    let unchanged = Done { changed: false, place: "kube-dns".to_owned() };
    let Some(map) = read(&maps).await? else { return Ok(unchanged) };
    let (text, Some(ours)) = held(&map) else { return Ok(unchanged) };
    let next = without(text, &ours).map_err(StubError::Refused)?;
    let alone = map.data.as_ref().is_none_or(|data| data.keys().all(|key| key == KEY));
    let done = if ours.made && alone && next.as_deref().is_none_or(|text| text == "{}") {
        let held = Preconditions { resource_version: map.resource_version(), uid: map.uid() };
        maps.delete(NAME, &DeleteParams { preconditions: Some(held), ..DeleteParams::default() }).await.map(drop)
    } else {
        merge(&maps, &map, json!({"metadata": {"annotations": {OURS: null}}, "data": {KEY: next}})).await
    };
    done.map_err(StubError::api(&format!("take our zones out of ConfigMap {NAMESPACE}/{NAME}")))?;
    Ok(Done { changed: true, ..unchanged })
}

/// Only if nobody has written it since it was read.
async fn merge(maps: &Api<ConfigMap>, read: &ConfigMap, mut patch: Value) -> Result<(), kube::Error> {
    patch["metadata"]["resourceVersion"] = json!(read.resource_version());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    maps.patch(NAME, &params, &Patch::Merge(patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> StubFacts {
        StubFacts {
            apex: "atoll.internal".into(),
            servers: vec!["192.0.2.53:53".into(), "192.0.2.54:5353".into()],
            reverse: vec!["2.10.in-addr.arpa".into()],
        }
    }

    #[test]
    fn our_zones_stand_beside_those_of_others_and_go_without_a_trace() {
        for before in [None, Some(""), Some("{}"), Some("{\n  \"corp.example\": [\"10.0.0.9\"]\n}")] {
            let (once, note) = with(before, None, &wanted(&facts())).unwrap();
            let domains = parse(Some(&once)).unwrap();
            assert_eq!(domains["atoll.internal"], json!(["192.0.2.53", "192.0.2.54:5353"]), "{before:?}");
            assert_eq!(domains.contains_key("corp.example"), before.is_some_and(|b| b.contains("corp")), "{before:?}");
            let again = with(Some(&once), Some(note.clone()), &wanted(&facts())).unwrap();
            assert_eq!(again, (once.clone(), note.clone()), "{before:?}: once is enough");
            let fewer = StubFacts { reverse: Vec::new(), ..facts() };
            let (less, noted) = with(Some(&once), Some(note.clone()), &wanted(&fewer)).unwrap();
            assert!(!less.contains("in-addr.arpa"), "{before:?}: what is wanted no more goes: {less}");
            assert_eq!(without(Some(&less), &noted).unwrap().as_deref(), before, "{before:?}");
            assert_eq!(without(Some(&once), &note).unwrap().as_deref(), before, "{before:?}");
        }
    }

    #[test]
    fn what_others_wrote_stays() {
        let (once, note) = with(None, None, &wanted(&facts())).unwrap();
        let mut edited = parse(Some(&once)).unwrap();
        edited.insert("corp.example".into(), json!(["10.0.0.9"]));
        let left = without(Some(&json!(edited).to_string()), &note).unwrap();
        assert_eq!(left.as_deref(), Some(r#"{"corp.example":["10.0.0.9"]}"#));
        for (text, says) in [("{", "can't be read"), (r#"{"atoll.internal": ["10.0.0.9"]}"#, "zone `atoll.internal`")] {
            assert!(with(Some(text), None, &wanted(&facts())).unwrap_err().contains(says), "{text}");
        }
    }
}
