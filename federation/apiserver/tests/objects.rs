//! Objects: what each verb does to them, in process and over HTTPS alike.

mod support;

use anyhow::Result;
use serde_json::{Value, json};
use support::*;

/// Method, path, body; the code, and what the answer says at a pointer.
type Step = (&'static str, String, Value, u16, &'static str, Value);

async fn check(steps: impl Fn() -> Vec<Step>) -> Result<()> {
    for way in 0..2 {
        let bed = Bed::up().await?;
        let (name, client) = bed.both().await?.into_iter().nth(way).expect("two ways");
        for (number, (method, path, body, code, pointer, want)) in steps().into_iter().enumerate() {
            let media = match method {
                "MERGE" => "application/merge-patch+json",
                "JSON" => "application/json-patch+json",
                "STRATEGIC" => "application/strategic-merge-patch+json",
                _ => "application/json",
            };
            let method = if matches!(method, "MERGE" | "JSON" | "STRATEGIC") { "PATCH" } else { method };
            let (got, answer) = ask(&client, method, &path, media, &body).await?;
            assert_eq!(got, code, "{name}, step {number}: {method} {path}: {answer}");
            let found = answer.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(found, want, "{name}, step {number}: {method} {path} at {pointer}: {answer}");
        }
        bed.down().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_object_is_made_changed_and_gone() -> Result<()> {
    check(|| {
        let one = || format!("{MAPS}/a");
        vec![
            ("POST", MAPS.into(), config_map("a", json!({"x": "1"})), 201, "/data/x", json!("1")),
            ("POST", MAPS.into(), config_map("a", json!({})), 409, "/reason", json!("AlreadyExists")),
            ("GET", one(), Value::Null, 200, "/kind", json!("ConfigMap")),
            ("PUT", one(), config_map("a", json!({"x": "2"})), 200, "/data/x", json!("2")),
            ("MERGE", one(), json!({"data": {"x": null, "y": "3"}}), 200, "/data", json!({"y": "3"})),
            ("JSON", one(), json!([{"op": "add", "path": "/data/z", "value": "4"}]), 200, "/data/z", json!("4")),
            ("JSON", one(), json!([{"op": "test", "path": "/data/z", "value": "5"}]), 422, "/reason", json!("Invalid")),
            ("STRATEGIC", one(), json!({"data": {"$patch": "replace", "q": "1"}}), 200, "/data", json!({"q": "1"})),
            ("DELETE", one(), Value::Null, 200, "/status", json!("Success")),
            ("GET", one(), Value::Null, 404, "/message", json!("configmaps \"a\" not found")),
            ("DELETE", one(), Value::Null, 404, "/details/name", json!("a")),
        ]
    })
    .await
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() -> Result<()> {
    check(|| {
        let stale = || {
            let mut map = config_map("a", json!({}));
            map["metadata"]["resourceVersion"] = "1".into();
            map
        };
        let named = |name: &str| config_map(name, json!({}));
        let filled = |name: &str, key: &str, octets: usize| config_map(name, json!({key: "x".repeat(octets)}));
        let labelled = || json!({"metadata": {"labels": {"a b": "c"}}});
        let broken = || json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": "no"});
        let deployments = || "/apis/apps/v1/namespaces/default/deployments".to_owned();
        vec![
            ("POST", MAPS.into(), named("a"), 201, "/metadata/namespace", json!("default")),
            ("PUT", format!("{MAPS}/a"), stale(), 409, "/reason", json!("Conflict")),
            ("POST", MAPS.into(), filled("full", "x", 1 << 20), 201, "/metadata/name", json!("full")),
            ("POST", MAPS.into(), filled("over", "x", (1 << 20) + 1), 422, "/details/causes/0/field", json!("data")),
            ("POST", MAPS.into(), filled("key", "../x", 1), 422, "/details/causes/0/field", json!("data[../x]")),
            ("POST", MAPS.into(), named("Not_A_Name"), 422, "/details/causes/0/field", json!("metadata.name")),
            (
                "POST",
                MAPS.into(),
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}}),
                400,
                "/reason",
                json!("BadRequest"),
            ),
            ("POST", MAPS.into(), json!([1]), 400, "/reason", json!("BadRequest")),
            (
                "POST",
                "/api/v1/namespaces/nowhere/configmaps".into(),
                named("b"),
                404,
                "/message",
                json!("namespaces \"nowhere\" not found"),
            ),
            ("MERGE", format!("{MAPS}/a"), labelled(), 422, "/details/causes/0/field", json!("metadata.labels")),
            ("POST", deployments(), broken(), 422, "/details/causes/0/field", json!("spec")),
            ("PUT", format!("{MAPS}/b"), named("a"), 400, "/reason", json!("BadRequest")),
            ("GET", "/api/v1/nothings".into(), Value::Null, 404, "/reason", json!("NotFound")),
            ("PUT", MAPS.into(), named("a"), 405, "/reason", json!("MethodNotAllowed")),
            ("GET", format!("{MAPS}?labelSelector=a%3D%3D%3D("), Value::Null, 400, "/reason", json!("BadRequest")),
            (
                "GET",
                format!("{MAPS}?fieldSelector=data.x%3D1"),
                Value::Null,
                400,
                "/message",
                json!("field label not supported: data.x"),
            ),
            ("GET", format!("{MAPS}?continue=nonsense"), Value::Null, 400, "/reason", json!("BadRequest")),
            ("DELETE", "/api/v1/namespaces/default".into(), Value::Null, 403, "/reason", json!("Forbidden")),
        ]
    })
    .await
}

#[tokio::test]
async fn built_in_kinds_get_the_defaults_that_clients_rely_on() -> Result<()> {
    check(|| {
        let services = || "/api/v1/namespaces/default/services".to_owned();
        let deployments = || "/apis/apps/v1/namespaces/default/deployments".to_owned();
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
        let node = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "node"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}});
        let mut other = deployment.clone();
        other["metadata"]["name"] = "other".into();
        other["spec"]["selector"]["matchLabels"]["app"] = "else".into();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
        let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}});
        vec![
            ("POST", services(), service.clone(), 201, "/spec/ports/0", json!({"port": 80, "protocol": "TCP", "targetPort": 80})),
            ("GET", format!("{}/web", services()), Value::Null, 200, "/spec/clusterIP", json!("10.96.0.11")),
            ("PUT", format!("{}/web", services()), service, 200, "/spec/clusterIPs/0", json!("10.96.0.11")),
            ("MERGE", format!("{}/web", services()), json!({"spec": {"clusterIP": "10.96.0.99"}}), 422, "/reason", json!("Invalid")),
            ("POST", services(), node, 201, "/spec/ports/0/nodePort", json!(30000)),
            ("POST", deployments(), deployment, 201, "/spec/replicas", json!(1)),
            ("POST", deployments(), other, 422, "/details/causes/0/field", json!("spec.template.metadata.labels")),
            ("STRATEGIC", format!("{}/web", deployments()), image, 200, "/metadata/generation", json!(2)),
            ("GET", format!("{}/web", deployments()), Value::Null, 200, "/spec/template/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
            ("MERGE", format!("{}/web/status", deployments()), json!({"spec": {"replicas": 9}, "status": {"replicas": 3}}), 200, "/spec/replicas", json!(1)),
            ("GET", format!("{}/web/scale", deployments()), Value::Null, 200, "/status", json!({"replicas": 3, "selector": "app=web"})),
            ("MERGE", format!("{}/web/scale", deployments()), json!({"spec": {"replicas": 5}}), 200, "/spec/replicas", json!(5)),
            ("GET", format!("{}/web", deployments()), Value::Null, 200, "/metadata/generation", json!(3)),
            ("POST", "/api/v1/namespaces/default/secrets".into(), secret, 201, "/data/a", json!("Yg==")),
        ]
    })
    .await
}

#[tokio::test]
async fn lists_are_selected_and_paged() -> Result<()> {
    let bed = Bed::up().await?;
    for (way, client) in bed.both().await? {
        let space = format!("ns-{}", way.replace(' ', "-"));
        post(
            &client,
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}),
        )
        .await?;
        let maps = format!("/api/v1/namespaces/{space}/configmaps");
        for index in 0..5 {
            let mut map = config_map(&format!("m{index}"), json!({}));
            map["metadata"]["labels"] = json!({"odd": (index % 2 == 1).to_string(), "n": index.to_string()});
            post(&client, &maps, &map).await?;
        }
        for (query, want) in [
            ("", vec!["m0", "m1", "m2", "m3", "m4"]),
            ("labelSelector=odd%3Dtrue", vec!["m1", "m3"]),
            ("labelSelector=odd!%3Dtrue", vec!["m0", "m2", "m4"]),
            ("labelSelector=n+in+(1,2),odd", vec!["m1", "m2"]),
            ("labelSelector=n+notin+(1,2),!missing", vec!["m0", "m3", "m4"]),
            ("labelSelector=n%3E2", vec!["m3", "m4"]),
            ("fieldSelector=metadata.name%3Dm2", vec!["m2"]),
            ("fieldSelector=metadata.name!%3Dm2&limit=2", vec!["m0", "m1"]),
        ] {
            let (_, list) = get(&client, &format!("{maps}?{query}")).await?;
            assert_eq!(names(&list), want, "{way}: {query}");
        }
        let (_, first) = get(&client, &format!("{maps}?limit=2")).await?;
        assert_eq!(first.pointer("/metadata/remainingItemCount"), Some(&json!(3)), "{way}");
        // What happens between pages doesn't show: the list is of one moment.
        delete(&client, &format!("{maps}/m3"), &Value::Null).await?;
        post(&client, &maps, &config_map("m2b", json!({}))).await?;
        let token = first.pointer("/metadata/continue").and_then(Value::as_str).expect("there is more");
        let (_, rest) = get(&client, &format!("{maps}?limit=10&continue={token}")).await?;
        assert_eq!(names(&rest), ["m2", "m3", "m4"], "{way}");
        assert_eq!(rest.pointer("/metadata/resourceVersion"), first.pointer("/metadata/resourceVersion"), "{way}");
        let (code, _) = delete(&client, &format!("{maps}?labelSelector=odd"), &Value::Null).await?;
        assert_eq!((code, names(&get(&client, &maps).await?.1)), (200, vec!["m2b"]), "{way}");
    }
    bed.down().await
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list has items");
    items.iter().filter_map(|item| item.pointer("/metadata/name").and_then(Value::as_str)).collect()
}

#[tokio::test]
async fn a_dry_run_changes_nothing() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let before = bed.server.revision();
    let (code, made) = post(&client, &format!("{MAPS}?dryRun=All"), &config_map("a", json!({}))).await?;
    assert_eq!((code, made["metadata"]["uid"].is_string()), (201, true));
    assert_eq!(get(&client, &format!("{MAPS}/a")).await?.0, 404);
    post(&client, MAPS, &config_map("a", json!({"x": "1"}))).await?;
    let (_, changed) = merge(&client, &format!("{MAPS}/a?dryRun=All"), &json!({"data": {"x": "2"}})).await?;
    assert_eq!(changed["data"]["x"], "2");
    assert_eq!(delete(&client, &format!("{MAPS}/a?dryRun=All"), &Value::Null).await?.0, 200);
    assert_eq!(get(&client, &format!("{MAPS}/a")).await?.1["data"]["x"], "1");
    assert_eq!(bed.server.revision(), before + 1);
    bed.down().await
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_change() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let (_, made) = post(&client, MAPS, &config_map("a", json!({"x": "1"}))).await?;
    let (_, same) = put(&client, &format!("{MAPS}/a"), &made).await?;
    let (_, again) = merge(&client, &format!("{MAPS}/a"), &json!({"data": {"x": "1"}})).await?;
    assert_eq!(made, same);
    assert_eq!(made, again);
    bed.down().await
}

#[tokio::test]
async fn a_name_is_made_up_when_asked() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}});
    let (_, one) = post(&client, MAPS, &body).await?;
    let (_, two) = post(&client, MAPS, &body).await?;
    for made in [&one, &two] {
        let name = made["metadata"]["name"].as_str().unwrap_or_default();
        assert!(name.starts_with("a-") && name.len() == 7, "{name}");
    }
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    bed.down().await
}

#[tokio::test]
async fn finalizers_and_preconditions_hold_a_deletion_back() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let mut map = config_map("a", json!({}));
    map["metadata"]["finalizers"] = json!(["example.dev/hold"]);
    post(&client, MAPS, &map).await?;
    let path = format!("{MAPS}/a");
    let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    assert_eq!(delete(&client, &path, &wrong).await?.0, 409);
    let (code, marked) = delete(&client, &path, &Value::Null).await?;
    assert_eq!((code, marked["metadata"]["deletionTimestamp"].is_string()), (200, true));
    assert_eq!(get(&client, &path).await?.0, 200);
    merge(&client, &path, &json!({"metadata": {"finalizers": null}})).await?;
    assert_eq!(get(&client, &path).await?.0, 404);
    bed.down().await
}

#[tokio::test]
async fn a_namespace_takes_its_contents_along() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    post(&client, "/api/v1/namespaces", &space).await?;
    let maps = "/api/v1/namespaces/shop/configmaps";
    let mut held = config_map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.dev/hold"]);
    post(&client, maps, &held).await?;
    post(&client, maps, &config_map("free", json!({}))).await?;
    let (_, going) = delete(&client, "/api/v1/namespaces/shop", &Value::Null).await?;
    assert_eq!(going["status"]["phase"], "Terminating");
    until("the free one is gone", async || Ok(get(&client, &format!("{maps}/free")).await?.0 == 404)).await?;
    let (code, refused) = post(&client, maps, &config_map("late", json!({}))).await?;
    assert_eq!((code, refused["reason"].as_str()), (403, Some("Forbidden")));
    assert_eq!(get(&client, "/api/v1/namespaces/shop").await?.0, 200);
    merge(&client, &format!("{maps}/held"), &json!({"metadata": {"finalizers": null}})).await?;
    until("the namespace is gone", async || Ok(get(&client, "/api/v1/namespaces/shop").await?.0 == 404)).await?;
    bed.down().await
}

#[tokio::test]
async fn dependents_follow_their_owner() -> Result<()> {
    for (policy, dependent_stays) in [("Background", false), ("Foreground", false), ("Orphan", true)] {
        let bed = Bed::up().await?;
        let client = bed.server.client();
        let (_, owner) = post(&client, MAPS, &config_map("owner", json!({}))).await?;
        let mut child = config_map("child", json!({}));
        child["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
            "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]);
        post(&client, MAPS, &child).await?;
        delete(&client, &format!("{MAPS}/owner?propagationPolicy={policy}"), &Value::Null).await?;
        until("the owner is gone", async || Ok(get(&client, &format!("{MAPS}/owner")).await?.0 == 404)).await?;
        if dependent_stays {
            let (code, left) = get(&client, &format!("{MAPS}/child")).await?;
            assert_eq!((code, left.pointer("/metadata/ownerReferences/0")), (200, None), "{policy}");
        } else {
            until("the dependent is gone", async || Ok(get(&client, &format!("{MAPS}/child")).await?.0 == 404)).await?;
        }
        bed.down().await?;
    }
    Ok(())
}

#[tokio::test]
async fn events_are_one_thing_in_two_forms() -> Result<()> {
    let bed = Bed::up().await?;
    let client = bed.server.client();
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "hello",
        "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "me", "eventTime": "2026-01-01T00:00:00.000000Z",
        "action": "Do", "reason": "Done", "type": "Normal"});
    let (code, _) = post(&client, "/apis/events.k8s.io/v1/namespaces/default/events", &event).await?;
    let path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,involvedObject.kind%3DPod";
    let (_, old) = get(&client, path).await?;
    let (_, new) = get(&client, "/apis/events.k8s.io/v1/namespaces/default/events/e").await?;
    assert_eq!(code, 201);
    assert_eq!((&old["items"][0]["message"], &old["items"][0]["reportingComponent"]), (&json!("hello"), &json!("me")));
    assert_eq!((&new["note"], &new["apiVersion"]), (&json!("hello"), &json!("events.k8s.io/v1")));
    bed.down().await
}
