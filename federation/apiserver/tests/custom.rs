//! Custom kinds: what a definition promises is kept.

mod support;

use anyhow::Result;
use serde_json::{Value, json};
use support::*;

async fn with_things() -> Result<(Bed, kube::Client)> {
    let bed = Bed::up().await?;
    let client = bed.over_https("admin", &["system:masters"]).await?;
    let (code, made) = post(&client, DEFINITIONS, &things(thing_spec())).await?;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made.pointer("/status/conditions/1/type"), Some(&json!("Established")));
    Ok((bed, client))
}

#[tokio::test]
async fn objects_are_checked_defaulted_and_pruned() -> Result<()> {
    let (bed, client) = with_things().await?;
    for (name, spec, code, pointer, want) in [
        ("fine", json!({"size": 1}), 201, "/spec", json!({"size": 1, "colour": "blue"})),
        ("required", json!({}), 422, "/details/causes/0/field", json!("spec.size")),
        ("type", json!({"size": "1"}), 422, "/details/causes/0/reason", json!("FieldValueTypeInvalid")),
        ("minimum", json!({"size": 0}), 422, "/details/causes/0/field", json!("spec.size")),
        ("enum", json!({"size": 1, "colour": "red"}), 422, "/details/causes/0/reason", json!("FieldValueNotSupported")),
        (
            "rule",
            json!({"size": 100}),
            422,
            "/message",
            json!("Thing.example.dev \"rule\" is invalid: spec: Invalid value: \"object\": too large"),
        ),
        ("pruned", json!({"size": 1, "nonsense": true}), 201, "/spec/nonsense", Value::Null),
        ("kept", json!({"size": 1, "free": {"any": [1]}}), 201, "/spec/free/any", json!([1])),
        ("int", json!({"size": 1, "port": 80}), 201, "/spec/port", json!(80)),
        ("string", json!({"size": 1, "port": "http"}), 201, "/spec/port", json!("http")),
        ("neither", json!({"size": 1, "port": true}), 422, "/details/causes/0/field", json!("spec.port")),
        ("twice", json!({"size": 1, "tags": ["a", "a"]}), 422, "/details/causes/0/field", json!("spec.tags[1]")),
        ("nested", json!({"size": 1, "parts": [{"name": "a"}]}), 201, "/spec/parts/0/n", json!(7)),
        (
            "same-key",
            json!({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}),
            422,
            "/details/causes/0/reason",
            json!("FieldValueDuplicate"),
        ),
    ] {
        let (got, answer) = post(&client, THINGS, &thing(name, spec)).await?;
        assert_eq!(got, code, "{name}: {answer}");
        assert_eq!(answer.pointer(pointer).cloned().unwrap_or_default(), want, "{name}: {answer}");
    }
    bed.down().await
}

#[tokio::test]
async fn unknown_fields_are_met_as_asked() -> Result<()> {
    let (bed, client) = with_things().await?;
    let body = thing("a", json!({"size": 1, "nonsense": {"x": 1}}));
    let (code, answer) = post(&client, &format!("{THINGS}?fieldValidation=Strict"), &body).await?;
    assert_eq!(
        (code, answer["message"].as_str()),
        (400, Some("strict decoding error: unknown field \"spec.nonsense\""))
    );
    for (mode, warned) in [("Warn", true), ("Ignore", false)] {
        let request = http::Request::post(format!("{THINGS}?fieldValidation={mode}&dryRun=All"));
        let request = request.header("content-type", "application/json").body(serde_json::to_vec(&body)?.into())?;
        let response = client.send(request).await?;
        let warning = response.headers().get("warning").and_then(|value| value.to_str().ok());
        assert_eq!(warning == Some("299 - \"unknown field \\\"spec.nonsense\\\"\""), warned, "{mode}: {warning:?}");
    }
    bed.down().await
}

#[tokio::test]
async fn status_and_spec_are_written_apart() -> Result<()> {
    let (bed, client) = with_things().await?;
    let mut body = thing("a", json!({"size": 1, "replicas": 2}));
    body["status"] = json!({"early": true});
    let (_, made) = post(&client, THINGS, &body).await?;
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let both = json!({"spec": {"size": 5}, "status": {"phase": "Ready", "replicas": 2}});
    let (_, status) = merge(&client, &format!("{THINGS}/a/status"), &both).await?;
    assert_eq!((&status["spec"]["size"], &status["status"]["phase"]), (&json!(1), &json!("Ready")));
    assert_eq!(status["metadata"]["generation"], 1);
    let (_, spec) = merge(&client, &format!("{THINGS}/a"), &json!({"spec": {"size": 5}, "status": null})).await?;
    assert_eq!((&spec["spec"]["size"], &spec["status"]["phase"]), (&json!(5), &json!("Ready")));
    assert_eq!(spec["metadata"]["generation"], 2);
    let (_, scale) = get(&client, &format!("{THINGS}/a/scale")).await?;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!("Scale"), &json!(2), &json!(2))
    );
    merge(&client, &format!("{THINGS}/a/scale"), &json!({"spec": {"replicas": 4}})).await?;
    assert_eq!(get(&client, &format!("{THINGS}/a")).await?.1["spec"]["replicas"], 4);
    bed.down().await
}

#[tokio::test]
async fn a_stored_object_may_keep_what_a_later_schema_forbids() -> Result<()> {
    let (bed, client) = with_things().await?;
    post(&client, THINGS, &thing("a", json!({"size": 50}))).await?;
    let mut stricter = thing_spec();
    stricter["properties"]["size"]["maximum"] = 10.into();
    let patch = json!({"spec": {"versions": things(stricter)["spec"]["versions"]}});
    let definition = format!("{DEFINITIONS}/things.example.dev");
    assert_eq!(merge(&client, &definition, &patch).await?.0, 200);
    let path = format!("{THINGS}/a");
    assert_eq!(merge(&client, &path, &json!({"spec": {"colour": "green"}})).await?.0, 200);
    assert_eq!(merge(&client, &path, &json!({"spec": {"size": 60}})).await?.0, 422);
    assert_eq!(post(&client, THINGS, &thing("b", json!({"size": 50}))).await?.0, 422);
    bed.down().await
}

#[tokio::test]
async fn broken_definitions_are_refused() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let change = |pointer: &str, value: Value| {
        let mut body = things(thing_spec());
        *body.pointer_mut(pointer).expect("the pointer fits") = value;
        body
    };
    for (name, body, field) in [
        ("name", change("/metadata/name", json!("others.example.dev")), "metadata.name"),
        (
            "a kind that is built in",
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "deployments.apps"},
                "spec": {"group": "apps", "scope": "Cluster", "names": {"kind": "Deployment", "plural": "deployments"},
                    "versions": [{"name": "v1", "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
            "spec.group",
        ),
        ("scope", change("/spec/scope", json!("Galaxy")), "spec.scope"),
        ("storage", change("/spec/versions/0/storage", json!(false)), "spec.versions"),
        (
            "pattern",
            change(
                "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
                json!({"type": "string", "pattern": "("}),
            ),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].pattern",
        ),
    ] {
        let (code, answer) = post(&client, DEFINITIONS, &body).await?;
        assert_eq!((code, answer.pointer("/details/causes/0/field")), (422, Some(&json!(field))), "{name}: {answer}");
    }
    bed.down().await
}

#[tokio::test]
async fn kinds_come_and_go_with_their_definition() -> Result<()> {
    let (bed, client) = with_things().await?;
    let found =
        |list: &Value| list["resources"].as_array().is_some_and(|l| l.iter().any(|r| r["name"] == "things/status"));
    assert!(found(&get(&client, "/apis/example.dev/v1").await?.1));
    let groups = client.list_api_groups().await?;
    assert!(groups.groups.iter().any(|group| group.name == "example.dev"));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    post(&client, THINGS, &thing("a", json!({"size": 3}))).await?;
    let request = http::Request::get(THINGS).header("accept", table).body(Vec::new())?;
    let shown: Value = client.request(request).await?;
    assert_eq!(shown["rows"][0]["cells"], json!(["a", 3]));
    let (_, document) = get(&client, "/openapi/v3/apis/example.dev/v1").await?;
    let schema = &document["components"]["schemas"]["dev.example.v1.Thing"];
    assert_eq!(schema["properties"]["spec"]["properties"]["colour"]["default"], "blue");
    delete(&client, &format!("{DEFINITIONS}/things.example.dev"), &Value::Null).await?;
    until("the kind is gone", async || Ok(get(&client, THINGS).await?.0 == 404)).await?;
    bed.down().await
}

#[tokio::test]
async fn versions_show_the_same_object() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let mut body = things(thing_spec());
    let mut old = body["spec"]["versions"][0].clone();
    old["name"] = "v1beta1".into();
    old["storage"] = false.into();
    old["deprecated"] = true.into();
    body["spec"]["versions"].as_array_mut().expect("a list").push(old);
    assert_eq!(post(&client, DEFINITIONS, &body).await?.0, 201);
    post(&client, THINGS, &thing("a", json!({"size": 3}))).await?;
    let (_, shown) = get(&client, &format!("{}/a", THINGS.replace("/v1/", "/v1beta1/"))).await?;
    assert_eq!((&shown["apiVersion"], &shown["spec"]["size"]), (&json!("example.dev/v1beta1"), &json!(3)));
    let groups = client.list_api_groups().await?;
    let group = groups.groups.iter().find(|group| group.name == "example.dev").expect("served");
    assert_eq!(group.preferred_version.as_ref().map(|v| &*v.version), Some("v1"));
    bed.down().await
}

#[tokio::test]
async fn a_cluster_stands_on_earth_or_is_refused_with_a_sentence() -> Result<()> {
    use kube::CustomResourceExt as _;
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let (code, made) = post(&client, DEFINITIONS, &serde_json::to_value(atoll_api::kinds::Cluster::crd())?).await?;
    assert_eq!(code, 201, "{made}");
    for (at, (latitude, longitude, says)) in [
        ("50.11", "8.68", ""),
        ("-90", "180.0", ""),
        ("0", "-179.999", ""),
        ("90.00", "099", ""),
        ("91.5", "0", "a latitude is a number of degrees from -90 to 90"),
        ("90.1", "0", "a latitude is"),
        ("999", "0", "a latitude is"),
        ("abc", "0", "a latitude is"),
        ("", "0", "a latitude is"),
        ("0", "180.5", "a longitude is a number of degrees from -180 to 180"),
        ("0", "999", "a longitude is"),
        ("0", "8,68", "a longitude is"),
    ]
    .into_iter()
    .enumerate()
    {
        let cluster = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": format!("eu-{at}")},
            "spec": {"environment": "prod", "location": {"latitude": latitude, "longitude": longitude}}});
        let (code, answer) = post(&client, "/apis/atoll.dev/v1alpha1/clusters", &cluster).await?;
        let message = answer["message"].as_str().unwrap_or_default();
        let expected = if says.is_empty() { 201 } else { 422 };
        assert_eq!(code, expected, "{latitude} {longitude}: {answer}");
        assert!(message.contains(says), "{latitude} {longitude}: {message}");
    }
    bed.down().await
}
