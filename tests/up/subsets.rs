//! Versions of one service told apart by their pods' labels, over several members: a canary by weights, where a subset is nowhere near, and pods
//! whose labels people change while everything runs.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use atoll_api::kinds::gateway::HTTPRoute;
use atoll_api::kinds::{Bundle, TrafficPolicy};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::install_provider;
use crate::world::{FREE, Place, Up, client, until};

const VERSIONS: &str = "versions.shop.example.com";
const CANARY: &str = "canary.shop.example.com";
const PICKED: &str = "picked.shop.example.com";
const ABSENT: &str = "absent.shop.example.com";

/// Deployment `store-<version>` for the Service `store`.
fn deployment(version: &str) -> Value {
    let labels = json!({"app": "store", "version": version});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("store-{version}")},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "web", "image": "shop/web:1", "ports": [{"name": "http", "containerPort": 8080}]}]}}}})
}

/// A Bundle of these members.
fn bundle(name: &str, members: &[&str], exports: &[&str], manifests: &[Value]) -> Result<Bundle> {
    let placement = json!({"clusters": {"names": members}, "division": {"mode": "Duplicated"}});
    Ok(serde_json::from_value(json!({"metadata": {"name": name},
        "spec": {"placement": placement, "exports": exports, "manifests": manifests}}))?)
}

/// A host whose requests go to subsets of the store, by weight.
fn route(host: &str, subsets: &[(&str, u32)]) -> Result<HTTPRoute> {
    let backend = |(subset, weight): &(&str, u32)| {
        let filter =
            json!({"type": "ExtensionRef", "extensionRef": {"group": "atoll.dev", "kind": "Subset", "name": subset}});
        json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store", "port": 80, "weight": weight,
            "filters": [filter]})
    };
    let backends: Vec<Value> = subsets.iter().map(backend).collect();
    Ok(serde_json::from_value(
        json!({"metadata": {"name": host}, "spec": {"parentRefs": [{"name": "shop"}], "hostnames": [host],
        "rules": [{"backendRefs": backends}]}}),
    )?)
}

/// `cluster/version` of who answers.
async fn answered(up: &Up, host: &str) -> Result<(String, String)> {
    let echo = up.curl(host).await?;
    let of = |field: &str| echo[field].as_str().map(str::to_owned).with_context(|| echo.to_string());
    Ok((of("cluster")?, of("pod")?))
}

async fn answered_by(up: &Up, host: &str, cluster: &str, pod: &str) {
    until(&format!("{host} is answered by {cluster}, {pod}"), async || {
        let by = answered(up, host).await?;
        ensure!(by.0 == cluster && by.1.starts_with(pod), "{by:?}");
        Ok(())
    })
    .await;
}

/// Labels a pod of the first version in a member. Returns its name.
async fn pick(up: &Up, member: &str, value: Option<&str>) -> Result<String> {
    let members = up.ready["members"].as_array().context("no members")?;
    let said = members.iter().find(|m| m["name"] == member).context("no such member")?;
    let kubeconfig = PathBuf::from(said["kubeconfig"].as_str().context("no kubeconfig")?);
    let pods: Api<Pod> = Api::namespaced(client(&kubeconfig, member).await?, "shop");
    let all = pods.list(&ListParams::default().labels("version=v1")).await?.items;
    let name = all.iter().filter_map(|pod| pod.metadata.name.clone()).min().context("no pod")?;
    let patch = Patch::Merge(json!({"metadata": {"labels": {"picked": value}}}));
    pods.patch(&name, &PatchParams::default(), &patch).await?;
    Ok(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_reach_the_pods_of_a_subset_in_whatever_member_has_some() -> Result<()> {
    install_provider();
    let place = Place::new()?;
    let config = place.file("up.yaml", FREE)?;
    let up = place.up(&["--config", &config.display().to_string(), "--members", "prod-eu,prod-us"]).await?;
    let hub = client(&PathBuf::from(up.text("kubeconfig")), "atoll").await?;
    let bundles: Api<Bundle> = Api::namespaced(hub.clone(), "shop");
    let routes: Api<HTTPRoute> = Api::namespaced(hub.clone(), "shop");
    let policies: Api<TrafficPolicy> = Api::namespaced(hub.clone(), "shop");
    let new = PostParams::default();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "store"},
        "spec": {"selector": {"app": "store"}, "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}});
    bundles.create(&new, &bundle("store", &["prod-eu", "prod-us"], &["store"], &[deployment("v1"), service])?).await?;
    bundles.create(&new, &bundle("store-canary", &["prod-us"], &[], &[deployment("v2")])?).await?;
    let subset = |name: &str, key: &str, value: &str| json!({"name": name, "labels": {key: value}});
    let subsets = [subset("v1", "version", "v1"), subset("v2", "version", "v2"), subset("picked", "picked", "yes")];
    let policy = |subsets: &[Value]| -> Result<TrafficPolicy> {
        Ok(serde_json::from_value(
            json!({"metadata": {"name": "store"}, "spec": {"service": "store", "subsets": subsets}}),
        )?)
    };
    let twice = policies.create(&new, &policy(&[subsets[0].clone(), subsets[0].clone()])?).await;
    assert!(twice.unwrap_err().to_string().contains("names of subsets are unique"));
    policies.create(&new, &policy(&subsets)?).await?;
    for (host, to) in [
        (VERSIONS, &[("v1", 1), ("v2", 1)][..]),
        (CANARY, &[("v2", 1)]),
        (PICKED, &[("picked", 1)]),
        (ABSENT, &[("v3", 1)]),
    ] {
        routes.create(&new, &route(host, to)?).await?;
    }

    // The gateway stands beside prod-eu, where nothing is of the second version.
    answered_by(&up, CANARY, "prod-us", "store-v2-").await;
    until("both versions are served", async || {
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..40 {
            let (cluster, pod) = answered(&up, VERSIONS).await?;
            *seen.entry(format!("{cluster} {}", &pod[..8])).or_insert(0) += 1;
        }
        ensure!(
            seen.len() == 2 && seen.contains_key("prod-eu store-v1") && seen.contains_key("prod-us store-v2"),
            "{seen:?}"
        );
        // By chance alone fewer than 5 of 40 come once in ten million.
        ensure!(seen.values().all(|count| *count >= 5), "{seen:?}");
        Ok(())
    })
    .await;

    until("a subset that is none answers 500 and is named", async || {
        let route = serde_json::to_value(routes.get(ABSENT).await?)?;
        let said = route["status"]["parents"][0]["conditions"].as_array().context("no conditions")?;
        let resolved = said.iter().find(|c| c["type"] == "ResolvedRefs").context("no ResolvedRefs")?;
        let message = resolved["message"].as_str().unwrap_or_default();
        ensure!(resolved["status"] == "False" && resolved["reason"] == "BackendNotFound", "{resolved}");
        for word in ["shop/store", "v3", "only v1, v2, picked"] {
            ensure!(message.contains(word), "{message}");
        }
        let refused = answered(&up, ABSENT).await.unwrap_err().to_string();
        ensure!(refused.contains(" 500"), "{refused}");
        Ok(())
    })
    .await;

    // Nobody was picked yet.
    until("503", async || {
        let refused = answered(&up, PICKED).await.unwrap_err().to_string();
        ensure!(refused.contains(" 503"), "{refused}");
        Ok(())
    })
    .await;
    let far = pick(&up, "prod-us", Some("yes")).await?;
    answered_by(&up, PICKED, "prod-us", &far).await;
    let near = pick(&up, "prod-eu", Some("yes")).await?;
    answered_by(&up, PICKED, "prod-eu", &near).await;
    pick(&up, "prod-eu", None).await?;
    answered_by(&up, PICKED, "prod-us", &far).await;

    let said = place.ended(&["gateway", "upstreams"]).await?;
    said.says("upstreams name the subset", 0, &["ServiceImport shop/store:80 of cluster set prod, subset v2"]);
    let said = place.ended(&["gateway", "explain", "--host", CANARY]).await?;
    said.says("explain names the subset", 0, &["subset v2", "prod-us"]);
    assert_eq!(up.interrupt().await?, Some(0));
    Ok(())
}
