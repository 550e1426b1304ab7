//! The Gateway API v1 (sigs.k8s.io/gateway-api v1.6.1) as serde structs of ours, and the CRDs of both its channels as data.
//!
//! What a field may hold is the CRD's affair; here words are strings and everything that may be absent is an `Option` or an empty
//! list, so that an object that the gateway can't serve still parses and gets a status that says why. The CRDs under `crds/` are
//! the project's own, without descriptions, made by `api/examples/gateway_crds.rs`. Source and licence:
//! <https://github.com/kubernetes-sigs/gateway-api>, Copyright The Kubernetes Authors, Apache-2.0.

mod entry;
mod filter;
mod grpc;
mod http;
mod l4;
mod policy;
mod reference;
mod set;

pub use entry::*;
pub use filter::*;
pub use grpc::*;
pub use http::*;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
pub use l4::*;
pub use policy::*;
pub use reference::*;
pub use set::*;

/// The API group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The name that our controller goes by in GatewayClasses and route statuses.
pub const GATEWAY_CONTROLLER: &str = "atoll.dev/gateway";
/// The GatewayClass that exists from the start.
pub const GATEWAY_CLASS: &str = "atoll";

/// Which of the two sets that the Gateway API is published in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Channel {
    /// What is stable.
    Standard,
    /// Also fields that may still change: retries, session persistence, external authorisation, default Gateways.
    #[default]
    Experimental,
}

/// The carried CRDs of both channels, by their plural.
macro_rules! carried {
    ($($plural:literal)*) => {
        &[$((include_str!(concat!("crds/standard/", $plural, ".json")), include_str!(concat!("crds/experimental/", $plural, ".json")))),*]
    };
}

const CARRIED: &[(&str, &str)] = carried![
    "gatewayclasses"
    "gateways"
    "listenersets"
    "httproutes"
    "grpcroutes"
    "tlsroutes"
    "tcproutes"
    "udproutes"
    "referencegrants"
    "backendtlspolicies"
];

/// The CRDs of a channel, as the project publishes them but without descriptions.
///
/// # Panics
/// Never: a test parses what is carried.
pub fn gateway_api_crds(channel: Channel) -> Vec<CustomResourceDefinition> {
    let parse = |json: &str| serde_json::from_str(json).expect("the carried CRDs parse, a test shows it");
    let pick = |(standard, experimental): &(&'static str, &'static str)| match channel {
        Channel::Standard => *standard,
        Channel::Experimental => *experimental,
    };
    CARRIED.iter().map(|both| parse(pick(both))).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    };
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_carried_crds_parse_and_serve_v1() {
        for (channel, word) in [(Channel::Standard, "standard"), (Channel::Experimental, "experimental")] {
            let crds = gateway_api_crds(channel);
            assert_eq!(crds.len(), 10);
            for crd in crds {
                let name = crd.metadata.name.unwrap();
                assert_eq!(crd.spec.group, GATEWAY_GROUP, "{name}");
                assert!(crd.spec.versions.iter().any(|v| v.name == "v1" && v.served), "{name}");
                let annotations = crd.metadata.annotations.unwrap();
                assert_eq!(annotations["gateway.networking.k8s.io/bundle-version"], "v1.6.1", "{name}");
                assert_eq!(annotations["gateway.networking.k8s.io/channel"], word, "{name}");
            }
        }
    }

    /// A value of a schema with everything in it.
    fn sample(schema: &JSONSchemaProps) -> Value {
        match schema.type_.as_deref() {
            Some("object") => {
                let properties = schema.properties.iter().flatten().map(|(k, s)| (k.clone(), sample(s)));
                let any = match &schema.additional_properties {
                    Some(JSONSchemaPropsOrBool::Schema(s)) => Some(("any".to_owned(), sample(s))),
                    _ => None,
                };
                Value::Object(properties.chain(any).collect())
            }
            Some("array") => match &schema.items {
                Some(JSONSchemaPropsOrArray::Schema(s)) => json!([sample(s)]),
                _ => json!([]),
            },
            Some("integer") => json!(1),
            Some("boolean") => json!(true),
            _ if schema.format.as_deref() == Some("date-time") => json!("2026-01-01T00:00:00Z"),
            _ => schema.enum_.iter().flatten().next().map_or_else(|| json!("x"), |first| first.0.clone()),
        }
    }

    /// Where `had` has more than `has`.
    fn lost(had: &Value, has: &Value, at: &str, found: &mut Vec<String>) {
        match (had, has) {
            (Value::Object(had), Value::Object(has)) => {
                for (key, value) in had {
                    match has.get(key) {
                        Some(other) => lost(value, other, &format!("{at}.{key}"), found),
                        None => found.push(format!("{at}.{key}")),
                    }
                }
            }
            (Value::Array(had), Value::Array(has)) if had.len() == has.len() => {
                had.iter().zip(has).for_each(|(a, b)| lost(a, b, at, found));
            }
            _ if had != has => found.push(at.to_owned()),
            _ => {}
        }
    }

    fn through<K: serde::de::DeserializeOwned + serde::Serialize>(object: Value) -> Value {
        serde_json::to_value(serde_json::from_value::<K>(object).unwrap()).unwrap()
    }

    #[test]
    fn no_field_of_the_crds_is_lost() {
        for crd in gateway_api_crds(Channel::Experimental) {
            let kind = crd.spec.names.kind;
            let version = crd.spec.versions.into_iter().find(|v| v.name == "v1").unwrap();
            let mut object = sample(&version.schema.unwrap().open_api_v3_schema.unwrap());
            object["metadata"] = json!({"name": "x"});
            let back = match kind.as_str() {
                "GatewayClass" => through::<GatewayClass>(object.clone()),
                "Gateway" => through::<Gateway>(object.clone()),
                "ListenerSet" => through::<ListenerSet>(object.clone()),
                "HTTPRoute" => through::<HTTPRoute>(object.clone()),
                "GRPCRoute" => through::<GRPCRoute>(object.clone()),
                "TLSRoute" => through::<TLSRoute>(object.clone()),
                "TCPRoute" => through::<TCPRoute>(object.clone()),
                "UDPRoute" => through::<UDPRoute>(object.clone()),
                "ReferenceGrant" => through::<ReferenceGrant>(object.clone()),
                "BackendTLSPolicy" => through::<BackendTLSPolicy>(object.clone()),
                other => panic!("{other}: no struct"),
            };
            let mut found = Vec::new();
            object.as_object_mut().unwrap().retain(|key, _| matches!(key.as_str(), "spec" | "status"));
            lost(&object, &back, &kind, &mut found);
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn a_route_with_more_than_we_know_still_parses() {
        let route: HTTPRoute = serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "n"},
            "spec": {"parentRefs": [{"name": "g"}], "rules": [{"matches": [{"path": {"type": "Odd", "value": "/"}}],
                "filters": [{"type": "Unheard", "unheard": {}}], "backendRefs": [{"name": "s", "port": 80}]}]}
        }))
        .unwrap();
        assert_eq!(route.spec.rules[0].filters[0].filter_type, "Unheard");
        assert_eq!(route.spec.rules[0].backend_refs[0].target.port, Some(80));
    }
}
