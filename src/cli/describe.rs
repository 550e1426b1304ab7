//! `atoll describe KIND NAME`: one object for people: what is wanted, how it is, what happened to it.

use std::fmt::Write as _;
use std::sync::Arc;

use atoll_api::ingress::{Data, INGRESS_CLASS, Options, is_served, streams, translate};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::Globals;
use super::connect::Connection;
use super::failure::Outcome;
use super::get::plain;
use super::kinds::{self, Kind};
use super::output::{Output, age, columns, yaml};

/// Classes of Ingresses that a gateway may serve, beside those that name it.
const SERVED: [&str; 2] = [INGRESS_CLASS, "nginx"];

/// Show one object with its conditions and events.
#[derive(Debug, clap::Args)]
pub(crate) struct Describe {
    /// KIND NAME or KIND/NAME
    #[arg(required = true, num_args = 1..=2, value_name = "KIND NAME")]
    object: Vec<String>,
}

impl Describe {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let (word, name) = kinds::one(&self.object)?;
        let at = globals.hub().await?;
        let kind = kinds::find(&at.client, &word).await?;
        let object = kinds::read(&at, &kind, &name).await?;
        let events = events_of(&at, &kind, &object).await;
        let refused = refused(&at, &kind, &object).await;
        let value = plain(&kind, object);
        match globals.output {
            Output::Json | Output::Yaml => {
                globals.output.show(&json!({"object": value, "events": events, "refused": refused}), String::new)
            }
            _ => globals.output.show(&(), || text(&value, &events, &refused, Timestamp::now())),
        }
    }
}

/// Events about the object; none where they may not be read.
async fn events_of(at: &Connection, kind: &Kind, object: &DynamicObject) -> Vec<Event> {
    let namespace = object.metadata.namespace.as_deref().filter(|_| kind.namespaced).unwrap_or("default");
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let fields = format!("involvedObject.name={name},involvedObject.kind={}", kind.resource.kind);
    let api: Api<Event> = Api::namespaced(at.client.clone(), namespace);
    let list = api.list(&ListParams::default().fields(&fields)).await;
    let mut events = list.map(|list| list.items).unwrap_or_default();
    events.sort_by_key(super::events::time_of);
    events
}

/// What of an Ingress the gateway doesn't carry out, a line each; hosts and canaries are shared with the others of its class.
async fn refused(at: &Connection, kind: &Kind, object: &DynamicObject) -> Vec<String> {
    if kind.resource.kind == "ConfigMap" && kind.resource.group.is_empty() {
        return unpassed(object);
    }
    if kind.resource.kind != "Ingress" || kind.resource.group != "networking.k8s.io" {
        return Vec::new();
    }
    let api: Api<Ingress> = Api::all(at.client.clone());
    let list = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    let mut all: Vec<Arc<Ingress>> = list.into_iter().map(Arc::new).collect();
    let classes: Api<IngressClass> = Api::all(at.client.clone());
    let classes = classes.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    let classes: Vec<Arc<IngressClass>> = classes.into_iter().map(Arc::new).collect();
    all.retain(|ingress| is_served(ingress, &classes, &SERVED.map(str::to_owned)));
    let class = |ingress: &Ingress| ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.clone());
    let is_it = |i: &&Arc<Ingress>| {
        i.metadata.name == object.metadata.name && i.metadata.namespace == object.metadata.namespace
    };
    let Some(own) = all.iter().find(is_it).map(|found| class(found)) else { return Vec::new() };
    all.retain(|ingress| class(ingress) == own);
    let translation = translate(&all, &Options::default());
    let name =
        (object.metadata.namespace.clone().unwrap_or_default(), object.metadata.name.clone().unwrap_or_default());
    translation.parts.get(&name).map(|part| part.findings.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// Ports of a ConfigMap `tcp-services` or `udp-services` that are not passed on, a line each.
fn unpassed(object: &DynamicObject) -> Vec<String> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let ports = serde_json::from_value(object.data["data"].clone()).unwrap_or_default();
    let data = match (name.ends_with("tcp-services"), name.ends_with("udp-services")) {
        (true, _) => Data { tcp: ports, ..Data::default() },
        (_, true) => Data { udp: ports, ..Data::default() },
        _ => return Vec::new(),
    };
    streams(&data, &Options::default()).findings.iter().map(|(_, finding)| finding.to_string()).collect()
}

fn text(object: &Value, events: &[Event], refused: &[String], now: Timestamp) -> String {
    let mut out = String::new();
    let meta = &object["metadata"];
    for (label, value) in [
        ("Kind", &object["kind"]),
        ("Name", &meta["name"]),
        ("Namespace", &meta["namespace"]),
        ("Created", &meta["creationTimestamp"]),
        ("Deleting since", &meta["deletionTimestamp"]),
    ] {
        if let Some(value) = value.as_str() {
            let _ = writeln!(out, "{:<12} {value}", format!("{label}:"));
        }
    }
    for (label, key) in [("Labels", "labels"), ("Annotations", "annotations")] {
        section(&mut out, label, &meta[key]);
    }
    section(&mut out, "Spec", &object["spec"]);
    for key in ["data", "rules", "subjects"] {
        section(&mut out, key, &object[key]);
    }
    status(&mut out, &object["status"], now);
    if !refused.is_empty() {
        let _ = writeln!(out, "Not carried out:\n{}", indent(&refused.join("\n")));
    }
    if !events.is_empty() {
        let rows = events.iter().map(|e| {
            let message = e.message.clone().unwrap_or_default();
            vec![age(super::events::time_of(e), now), e.reason.clone().unwrap_or_default(), message]
        });
        let _ = writeln!(out, "Events:\n{}", indent(&columns(&["Age", "Reason", "Message"], rows)));
    }
    out
}

fn status(out: &mut String, status: &Value, now: Timestamp) {
    let mut rest = status.clone();
    let Some(map) = rest.as_object_mut() else { return };
    let conditions = map.remove("conditions");
    let clusters = map.remove("clusters").filter(|c| c[0]["state"].is_string());
    map.remove("observedGeneration");
    section(out, "Status", &rest);
    if let Some(clusters) = clusters.as_ref().and_then(Value::as_array) {
        let rows =
            clusters.iter().map(|c| ["name", "state", "replicas", "ready", "message"].map(|k| word(&c[k])).to_vec());
        let table = columns(&["Cluster", "State", "Replicas", "Ready", "Why"], rows);
        let _ = writeln!(out, "Clusters:\n{}", indent(&table));
    }
    if let Some(conditions) = conditions.as_ref().and_then(Value::as_array) {
        let rows = conditions.iter().map(|c| {
            let since = c["lastTransitionTime"].as_str().and_then(|t| t.parse().ok());
            vec![word(&c["type"]), word(&c["status"]), age(since, now), word(&c["reason"]), word(&c["message"])]
        });
        let table = columns(&["Type", "Status", "For", "Reason", "Message"], rows);
        let _ = writeln!(out, "Conditions:\n{}", indent(&table));
    }
}

fn section(out: &mut String, label: &str, value: &Value) {
    let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if is_empty {
        return;
    }
    let text = yaml(value).unwrap_or_else(|_| value.to_string());
    let _ = writeln!(out, "{label}:\n{}", indent(text.trim_end()));
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_told_with_its_clusters_and_conditions() {
        let object = json!({
            "kind": "Bundle", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"exports": ["web"]},
            "status": {
                "observedGeneration": 1, "summary": "prod-eu 2/2",
                "clusters": [{"name": "prod-eu", "state": "Ready", "replicas": 2, "ready": 2}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "AllReady", "message": "fine"}],
            },
        });
        let text = text(&object, &[], &[], Timestamp::UNIX_EPOCH);
        for line in [
            "Name:        web",
            "  summary: prod-eu 2/2",
            "  CLUSTER   STATE   REPLICAS   READY   WHY",
            "  Ready   True     <unknown>   AllReady   fine",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("observedGeneration"));
    }
}
