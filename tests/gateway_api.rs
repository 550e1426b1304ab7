//! The Gateway API's definitions, as its Go module has them, against ours: every field and every value of an enumeration is one that
//! we have, or one that is written down here as ignored.
//!
//! ```text
//!   module's CRDs ─┬─ descriptions stripped ──► are those that `atoll crds` prints
//!                  └─ an object with every field ──► our type ──► back: what was lost?
//! ```
//!
//! Needs Go and the module: `cargo test --test gateway_api -- --ignored`, a step of `./check`.
#![allow(clippy::unwrap_used, reason = "a definition that can't be read ends the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_api::kinds::gateway::{self, Channel};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The folder whose `go.mod` says which version of the Gateway API counts.
const MODULE: &str = "testbed/go/conformance";
const GROUP: &str = "gateway.networking.k8s.io";

/// Fields that we do not read, by kind and path, and why.
const IGNORED: &[(&str, &str, &str)] = &[];

/// The values that we know, by the end of the path of the field.
const VALUES: &[(&str, &[&str])] = &[
    ("filters[].type", &FILTERS),
    ("cors.allowMethods[]", &METHODS),
    ("externalAuth.protocol", &["HTTP", "GRPC"]),
    ("path.type", &["Exact", "PathPrefix", "RegularExpression", "ReplaceFullPath", "ReplacePrefixMatch"]),
    ("requestRedirect.scheme", &["http", "https"]),
    ("requestRedirect.statusCode", &["301", "302", "303", "307", "308"]),
    ("headers[].type", &["Exact", "RegularExpression"]),
    ("queryParams[].type", &["Exact", "RegularExpression"]),
    ("method.type", &["Exact", "RegularExpression"]),
    ("matches[].method", &METHODS),
    ("cookieConfig.lifetimeType", &["Permanent", "Session"]),
    ("sessionPersistence.type", &["Cookie", "Header"]),
    ("useDefaultGateways", &["All", "None"]),
    ("defaultScope", &["All", "None"]),
    ("namespaces.from", &["All", "Selector", "Same", "None"]),
    ("tls.mode", &["Terminate", "Passthrough"]),
    ("validation.mode", &["AllowValidOnly", "AllowInsecureFallback"]),
    ("subjectAltNames[].type", &["Hostname", "URI"]),
    ("conditions[].status", &["True", "False", "Unknown"]),
];
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];
const FILTERS: [&str; 8] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "ExtensionRef",
    "CORS",
    "ExternalAuth",
];

/// An object as JSON, through our type and back.
type Through = fn(Value) -> serde_json::Result<Value>;

fn through<K: DeserializeOwned + Serialize>(object: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<K>(object)?)
}

/// Our type of each kind.
fn types() -> BTreeMap<&'static str, Through> {
    BTreeMap::from([
        ("BackendTLSPolicy", through::<gateway::BackendTLSPolicy> as Through),
        ("GRPCRoute", through::<gateway::GRPCRoute>),
        ("Gateway", through::<gateway::Gateway>),
        ("GatewayClass", through::<gateway::GatewayClass>),
        ("HTTPRoute", through::<gateway::HTTPRoute>),
        ("ListenerSet", through::<gateway::ListenerSet>),
        ("ReferenceGrant", through::<gateway::ReferenceGrant>),
        ("TCPRoute", through::<gateway::TCPRoute>),
        ("TLSRoute", through::<gateway::TLSRoute>),
        ("UDPRoute", through::<gateway::UDPRoute>),
    ])
}

#[test]
#[ignore = "needs Go and the module of the Gateway API"]
fn the_definitions_of_the_module_are_the_ones_that_we_carry_and_have() {
    let module = module();
    for (folder, channel) in [("standard", Channel::Standard), ("experimental", Channel::Experimental)] {
        let theirs = definitions(&module.join("config/crd").join(folder));
        let ours: BTreeMap<String, CustomResourceDefinition> =
            gateway::gateway_api_crds(channel).into_iter().map(|crd| (crd.spec.names.kind.clone(), crd)).collect();
        assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "kinds of the channel {folder}");
        for (kind, theirs) in theirs {
            let theirs: CustomResourceDefinition = serde_json::from_value(theirs).unwrap();
            assert!(theirs.spec == ours[&kind].spec, "{kind} ({folder}) is carried otherwise");
        }
    }
}

#[test]
#[ignore = "needs Go and the module of the Gateway API"]
fn every_field_and_value_of_the_module_is_ours_or_ignored() {
    let types = types();
    let mut wrong: Vec<String> = Vec::new();
    let mut lost_all = BTreeSet::new();
    let mut fields = 0;
    for (kind, definition) in definitions(&module().join("config/crd/experimental")) {
        let Some(through) = types.get(&*kind) else {
            wrong.push(format!("{kind}: a kind of which we have no type"));
            continue;
        };
        // The version that we read: v1, in all kinds.
        let versions = definition["spec"]["versions"].as_array().unwrap();
        let version = versions.iter().find(|version| version["name"] == "v1").unwrap();
        let mut sample = Sample::default();
        let mut object = sample.of("", &version["schema"]["openAPIV3Schema"]);
        object["apiVersion"] = json!(format!("{GROUP}/v1"));
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": "sample", "namespace": "default"});
        wrong.extend(sample.unknown.iter().map(|value| format!("{kind}{value}")));
        match through(object.clone()) {
            Ok(back) => {
                let mut lost = BTreeSet::new();
                compare("", &object, &back, &mut lost, &mut fields);
                lost_all.extend(lost.into_iter().map(|path| (kind.clone(), path)));
            }
            Err(error) => wrong.push(format!("{kind}: our type does not take it: {error}")),
        }
    }
    let ignored: BTreeSet<(String, String)> =
        IGNORED.iter().map(|(kind, path, _)| ((*kind).to_owned(), (*path).to_owned())).collect();
    wrong.extend(lost_all.difference(&ignored).map(|(kind, path)| format!("{kind}{path}: a field that we lose")));
    wrong.extend(
        ignored.difference(&lost_all).map(|(kind, path)| format!("{kind}{path}: said to be ignored, and is not")),
    );
    assert!(fields > 500, "{fields} fields were compared: the walk misses most of them");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The module's folder.
fn module() -> PathBuf {
    let run = |args: &[&str]| {
        let done =
            Command::new("go").args(args).current_dir(MODULE).output().expect("`go` runs (apt-get install golang)");
        assert!(done.status.success(), "go {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
        done.stdout
    };
    run(&["mod", "download", "sigs.k8s.io/gateway-api"]);
    let found: Value = serde_json::from_slice(&run(&["list", "-m", "-json", "sigs.k8s.io/gateway-api"])).unwrap();
    PathBuf::from(found["Dir"].as_str().expect("the module has a folder"))
}

/// The definitions in a folder, without their descriptions, by kind.
fn definitions(folder: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for document in text.split("\n---\n") {
            let mut definition: Value = serde_saphyr::from_str(document).unwrap();
            if definition["spec"]["group"] == GROUP {
                strip(&mut definition);
                found.insert(definition["spec"]["names"]["kind"].as_str().unwrap().to_owned(), definition);
            }
        }
    }
    found
}

/// Takes descriptions away: texts under that key. A property that is called so holds a schema and stays.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !(key == "description" && value.is_string()));
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Makes an object with every field of a schema.
#[derive(Default)]
struct Sample {
    /// Values of enumerations that we don't know, with their paths.
    unknown: Vec<String>,
}

impl Sample {
    fn of(&mut self, path: &str, schema: &Value) -> Value {
        if let Some(values) = schema["enum"].as_array() {
            return self.one_of(path, values);
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return json!(7);
        }
        match schema["type"].as_str() {
            Some("object") => self.object(path, schema),
            Some("array") => json!([self.of(&format!("{path}[]"), &schema["items"])]),
            Some("integer" | "number") => json!(schema["minimum"].as_i64().unwrap_or(0).max(7)),
            Some("boolean") => json!(true),
            _ => json!(text(schema)),
        }
    }

    fn object(&mut self, path: &str, schema: &Value) -> Value {
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            return json!({"key": self.of(&format!("{path}{{}}"), values)});
        }
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let filled: Map<String, Value> = properties
            .iter()
            .map(|(name, schema)| (name.clone(), self.of(&format!("{path}.{name}"), schema)))
            .collect();
        Value::Object(filled)
    }

    fn one_of(&mut self, path: &str, values: &[Value]) -> Value {
        let known = VALUES.iter().find(|(end, _)| path.ends_with(end)).map_or(&[][..], |(_, values)| values);
        for value in values {
            let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !known.contains(&&*word) {
                self.unknown.push(format!("{path}: the value {word} is unknown to us"));
            }
        }
        values[0].clone()
    }
}

/// A text that a field may hold.
fn text(schema: &Value) -> &'static str {
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    if schema["format"] == "date-time" {
        "2026-01-01T00:00:00Z"
    } else if pattern.contains("(h|m|s|ms)") {
        "7s"
    } else {
        "seven"
    }
}

/// Collects the paths of what is in `was` and not, or otherwise, in `is`.
fn compare(path: &str, was: &Value, is: &Value, lost: &mut BTreeSet<String>, fields: &mut usize) {
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            for (name, value) in was {
                *fields += 1;
                let path = format!("{path}.{name}");
                match is.get(name) {
                    Some(found) => compare(&path, value, found, lost, fields),
                    None => drop(lost.insert(path)),
                }
            }
        }
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            for (was, is) in was.iter().zip(is) {
                compare(&format!("{path}[]"), was, is, lost, fields);
            }
        }
        _ if was == is => {}
        _ => drop(lost.insert(path.to_owned())),
    }
}
