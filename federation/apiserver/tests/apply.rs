//! Server-side apply: who owns what, who may change it, what goes when it is no longer applied.

mod support;

use anyhow::Result;
use serde_json::{Value, json};
use support::*;

/// Who does what: manager, whether forced, the configuration; the code, and the spec afterwards.
type Step = (&'static str, bool, Value, u16, Value);

async fn check(name: &str, steps: Vec<Step>) -> Result<Value> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    post(&client, DEFINITIONS, &things(thing_spec())).await?;
    let path = format!("{THINGS}/a");
    let mut last = Value::Null;
    for (number, (manager, force, spec, code, want)) in steps.into_iter().enumerate() {
        let (got, answer) = match manager.strip_prefix("update:") {
            Some(manager) => merge(&client, &format!("{path}?fieldManager={manager}"), &json!({"spec": spec})).await?,
            None => apply(&client, &path, &format!("{manager}&force={force}"), &thing("a", spec)).await?,
        };
        assert_eq!(got, code, "{name}, step {number}: {answer}");
        last = answer;
        let (_, shown) = get(&client, &path).await?;
        assert_eq!(shown["spec"], want, "{name}, step {number}");
    }
    bed.down().await?;
    Ok(last)
}

fn spec(rest: Value) -> Value {
    let mut spec = json!({"size": 1, "colour": "blue"});
    for (key, value) in rest.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

#[tokio::test]
async fn what_is_no_longer_applied_goes() -> Result<()> {
    check(
        "own field",
        vec![
            ("me", false, json!({"size": 1, "replicas": 2}), 201, spec(json!({"replicas": 2}))),
            ("me", false, json!({"size": 1}), 200, spec(json!({}))),
        ],
    )
    .await?;
    check(
        "a field that another applies too",
        vec![
            ("me", false, json!({"size": 1, "replicas": 2}), 201, spec(json!({"replicas": 2}))),
            ("you", false, json!({"replicas": 2}), 200, spec(json!({"replicas": 2}))),
            ("me", false, json!({"size": 1}), 200, spec(json!({"replicas": 2}))),
        ],
    )
    .await?;
    check(
        "items of a keyed list",
        vec![
            (
                "me",
                false,
                json!({"size": 1, "parts": [{"name": "a"}, {"name": "b", "m": 1}]}),
                201,
                spec(json!({"parts": [{"name": "a", "n": 7}, {"name": "b", "m": 1, "n": 7}]})),
            ),
            (
                "you",
                false,
                json!({"parts": [{"name": "c"}]}),
                200,
                spec(json!({"parts": [{"name": "a", "n": 7}, {"name": "b", "m": 1, "n": 7}, {"name": "c", "n": 7}]})),
            ),
            (
                "me",
                false,
                json!({"size": 1, "parts": [{"name": "b"}]}),
                200,
                spec(json!({"parts": [{"name": "b", "n": 7}, {"name": "c", "n": 7}]})),
            ),
        ],
    )
    .await?;
    // As a Gateway's spec.tls: what is required there is gone, so what is there by default can't stay.
    let trust = |mode: &str| json!({"trust": {"check": {"names": ["a"], "mode": mode}}});
    check(
        "with what was there by default only",
        vec![
            ("me", false, json!({"size": 1, "trust": {"check": {"names": ["a"]}}}), 201, spec(trust("All"))),
            ("me", false, json!({"size": 1}), 200, spec(json!({}))),
        ],
    )
    .await?;
    check(
        "what somebody else wrote beside it stays",
        vec![
            ("me", false, json!({"size": 1, "trust": {"check": {"names": ["a"]}}}), 201, spec(trust("All"))),
            ("update:you", false, trust("Some"), 200, spec(trust("Some"))),
            ("me", false, json!({"size": 1}), 422, spec(trust("Some"))),
        ],
    )
    .await?;
    check(
        "members of a set",
        vec![
            ("me", false, json!({"size": 1, "tags": ["a", "b"]}), 201, spec(json!({"tags": ["a", "b"]}))),
            ("you", false, json!({"tags": ["c"]}), 200, spec(json!({"tags": ["a", "b", "c"]}))),
            ("me", false, json!({"size": 1, "tags": ["b"]}), 200, spec(json!({"tags": ["b", "c"]}))),
        ],
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_field_of_somebody_else_needs_force() -> Result<()> {
    let answer = check(
        "applied by another",
        vec![
            ("me", false, json!({"size": 1}), 201, spec(json!({}))),
            ("you", false, json!({"size": 2}), 409, spec(json!({}))),
        ],
    )
    .await?;
    assert_eq!(
        answer["message"],
        "Apply failed with 1 conflict: conflict with \"me\" using example.dev/v1: .spec.size"
    );
    assert_eq!(answer.pointer("/details/causes/0/field"), Some(&json!(".spec.size")));
    check(
        "forced, then the first one is refused",
        vec![
            ("me", false, json!({"size": 1}), 201, spec(json!({}))),
            ("you", true, json!({"size": 2}), 200, spec(json!({"size": 2}))),
            ("me", false, json!({"size": 1}), 409, spec(json!({"size": 2}))),
            ("me", false, json!({"size": 2}), 200, spec(json!({"size": 2}))),
        ],
    )
    .await?;
    check(
        "updated by another",
        vec![
            ("me", false, json!({"size": 1, "replicas": 1}), 201, spec(json!({"replicas": 1}))),
            ("update:you", false, json!({"replicas": 5}), 200, spec(json!({"replicas": 5}))),
            ("me", false, json!({"size": 1, "replicas": 1}), 409, spec(json!({"replicas": 5}))),
            ("me", false, json!({"size": 1}), 200, spec(json!({"replicas": 5}))),
        ],
    )
    .await?;
    check(
        "the same value is no conflict",
        vec![
            ("me", false, json!({"size": 1}), 201, spec(json!({}))),
            ("you", false, json!({"size": 1, "replicas": 3}), 200, spec(json!({"replicas": 3}))),
        ],
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    post(&client, DEFINITIONS, &things(thing_spec())).await?;
    let body = thing("a", json!({"size": 1, "parts": [{"name": "a", "m": 1}], "tags": ["x"], "free": {"y": {}}}));
    let (_, first) = apply(&client, &format!("{THINGS}/a"), "me", &body).await?;
    let (_, again) = apply(&client, &format!("{THINGS}/a"), "me", &body).await?;
    assert_eq!(first, again);
    bed.down().await
}

#[tokio::test]
async fn ownership_is_written_as_clients_read_it() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    post(&client, DEFINITIONS, &things(thing_spec())).await?;
    let mut body = thing("a", json!({"size": 1, "parts": [{"name": "a", "m": 1}], "tags": ["x"]}));
    body["metadata"]["labels"] = json!({"l": "1"});
    apply(&client, &format!("{THINGS}/a"), "me", &body).await?;
    merge(&client, &format!("{THINGS}/a/status?fieldManager=controller"), &json!({"status": {"ok": true}})).await?;
    let (_, shown) = get(&client, &format!("{THINGS}/a")).await?;
    let mut managers = shown["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    for manager in &mut managers {
        assert!(manager["time"].is_string());
        manager["time"] = Value::Null;
    }
    assert_eq!(
        managers,
        [
            json!({"manager": "me", "operation": "Apply", "apiVersion": "example.dev/v1", "time": null, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:l": {}}}, "f:spec": {"f:size": {}, "f:tags": {"v:\"x\"": {}},
                "f:parts": {"k:{\"name\":\"a\"}": {".": {}, "f:m": {}, "f:name": {}}}}}}),
            json!({"manager": "controller", "operation": "Update", "apiVersion": "example.dev/v1", "time": null,
            "fieldsType": "FieldsV1", "subresource": "status", "fieldsV1": {"f:status": {".": {}, "f:ok": {}}}}),
        ]
    );
    bed.down().await
}

#[tokio::test]
async fn built_in_lists_merge_by_their_keys() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let deployment = |containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}}})
    };
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let container = json!([{"name": "web", "image": "web:1", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}]);
    let (code, made) = apply(&client, path, "me", &deployment(container)).await?;
    assert_eq!(code, 201, "{made}");
    let side = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": [
        {"name": "side", "image": "side:1"}, {"name": "web", "env": [{"name": "B", "value": "2"}]}]}}}});
    let (code, both) = apply(&client, path, "you", &side).await?;
    assert_eq!(code, 200, "{both}");
    let containers =
        both.pointer("/spec/template/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
    let web = containers.iter().find(|c| c["name"] == "web").cloned().unwrap_or_default();
    assert_eq!(web["env"], json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]));
    assert_eq!(containers.len(), 2);
    let container = json!([{"name": "web", "image": "web:2", "ports": [{"containerPort": 81}]}]);
    let (code, last) = apply(&client, path, "me", &deployment(container)).await?;
    assert_eq!(code, 200, "{last}");
    let web = last.pointer("/spec/template/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
    let web = web.iter().find(|c| c["name"] == "web").cloned().unwrap_or_default();
    assert_eq!(web["env"], json!([{"name": "B", "value": "2"}]));
    assert_eq!(web["ports"], json!([{"containerPort": 81, "protocol": "TCP"}]));
    bed.down().await
}

#[tokio::test]
async fn an_apply_without_a_manager_is_refused() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let (code, _) =
        ask(&client, "PATCH", &format!("{MAPS}/a"), "application/apply-patch+yaml", &config_map("a", json!({})))
            .await?;
    assert_eq!(code, 400);
    let mut body = config_map("a", json!({}));
    body["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(apply(&client, &format!("{MAPS}/a"), "me", &body).await?.0, 400);
    bed.down().await
}

#[tokio::test]
async fn a_label_that_is_no_longer_applied_goes_and_nothing_else_of_the_object() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    post(&client, DEFINITIONS, &things(thing_spec())).await?;
    for (path, object) in [
        (format!("{THINGS}/a"), thing("a", json!({"size": 1}))),
        (format!("{MAPS}/a"), config_map("a", json!({"k": "v"}))),
    ] {
        let mut labelled = object.clone();
        labelled["metadata"]["labels"] = json!({"x": "1"});
        let (code, made) = apply(&client, &path, "me&force=false", &labelled).await?;
        assert_eq!((code, &made["metadata"]["labels"]), (201, &json!({"x": "1"})), "{made}");
        let (code, left) = apply(&client, &path, "me&force=false", &object).await?;
        assert_eq!(code, 200, "{left}");
        for field in ["name", "uid", "creationTimestamp", "namespace"] {
            assert_eq!(left["metadata"][field], made["metadata"][field], "{field}");
        }
        assert_eq!(left["metadata"]["labels"], Value::Null);
        assert_eq!((&left["spec"], &left["data"]), (&made["spec"], &made["data"]));
    }
    bed.down().await
}
