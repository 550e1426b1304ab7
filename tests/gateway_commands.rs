//! The commands of the gateway as people run them, against a running `atoll up`: what they print, and what bad input is told: the object,
//! why, and what to do.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "up/world.rs"]
mod world;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use world::{Ended, FREE, Place, Up, client, until};

/// So many copies of the shop `atoll up` starts; they become ready one after the other.
const COPIES: usize = 2;

/// A running federation, and commands that are run beside it.
struct Stage {
    place: Place,
    up: Up,
}

impl Stage {
    async fn new() -> Result<Self> {
        let place = Place::new()?;
        let config = place.file("up.yaml", FREE)?;
        let up = place.up(&["--members", "2", "--config", &config.display().to_string()]).await?;
        let stage = Self { place, up };
        until("the gateway serves", async || {
            let routes = stage.json(&["gateway", "routes"]).await?;
            ensure!(routes["all"].as_u64() > Some(0), "{routes}");
            let explained = stage.json(&["gateway", "explain", "--host", "shop.example.com"]).await?;
            ensure!(addresses(&explained).len() == COPIES, "{explained}");
            Ok(())
        })
        .await;
        Ok(stage)
    }

    async fn atoll(&self, words: &[&str]) -> Result<Ended> {
        self.place.ended(words).await
    }

    /// One document, of a command that ends well.
    async fn json(&self, words: &[&str]) -> Result<Value> {
        let mut all = words.to_vec();
        all.extend(["-o", "json"]);
        let ran = self.atoll(&all).await?;
        ensure!(ran.code == Some(0), "{words:?}: {ran:?}");
        Ok(serde_json::from_str(&ran.out)?)
    }

    async fn apply(&self, object: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.clone().unwrap_or_default();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let hub = client(&PathBuf::from(self.up.text("kubeconfig")), "atoll").await?;
        let api: Api<DynamicObject> = Api::namespaced_with(hub, "default", &resource);
        let name = object.metadata.name.clone().unwrap_or_default();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Where requests for the shop may go now.
    async fn endpoints(&self) -> Result<Vec<String>> {
        Ok(addresses(&self.json(&["gateway", "explain", "--host", "shop.example.com"]).await?))
    }
}

/// The endpoints of all tiers, as `cluster/address`.
fn addresses(explained: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let tiers = list(&explained["listeners"][0]["backends"][0]["tiers"]);
    let clusters = tiers.iter().flat_map(list);
    let all = clusters.flat_map(|c| {
        list(&c["endpoints"]).into_iter().map(move |e| {
            let address = e["address"].as_str().unwrap_or_default();
            format!("{}/{}", c["cluster"].as_str().unwrap_or_default(), address.split(':').next().unwrap_or_default())
        })
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_has_is_shown_and_what_it_would_do_explained() -> Result<()> {
    let stage = Stage::new().await?;
    let says = async |words: &[&str], code: i32, said: &[&str]| -> Result<()> {
        stage.atoll(words).await?.says(&words.join(" "), code, said);
        Ok(())
    };
    says(&["gateway", "routes"], 0, &["route: HTTPRoute shop/web", "- shop.example.com", "ServiceImport web:80"])
        .await?;
    says(&["gateway", "upstreams"], 0, &["upstream: ServiceImport shop/web:80", "usable: true", "role: Active"])
        .await?;
    says(&["gateway", "connections"], 0, &["connections:"]).await?;
    says(&["gateway", "config"], 0, &["instance: gateway", "headSeconds: 30"]).await?;
    let explain = ["gateway", "explain", "--host", "shop.example.com"];
    says(&explain, 0, &["route: HTTPRoute shop/web", "balance: PeakEwma", "why:", "capacity: \"none"]).await?;
    says(&["gateway", "explain", "--host", "nobody.test"], 0, &["404", "`atoll gateway routes` lists"]).await?;
    let region = ["gateway", "explain", "--host", "shop.example.com", "--from", "atlantis"];
    says(&region, 0, &["no cluster is in region `atlantis`"]).await?;
    says(&["gateway", "explain", "--host", "x", "--path", "y"], 2, &["`y`: a path begins with /"]).await?;
    for view in ["routes", "upstreams", "connections", "config"] {
        let nobody = ["gateway", view, "--admin", "127.0.0.1:1"];
        says(&nobody, 4, &["127.0.0.1:1", "refused", "--admin names another"]).await?;
        let shown = stage.json(&["gateway", view]).await?;
        assert!(shown.is_object(), "{view}: {shown}");
    }
    assert_eq!(stage.up.interrupt().await?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_and_endpoints_are_taken_out_and_given_back() -> Result<()> {
    let stage = Stage::new().await?;
    let all = stage.endpoints().await?;
    let first = all[0].clone();
    let (cluster, _) = first.split_once('/').unwrap_or_default();
    let holds = async |verb: &str, target: &str, gone: &str| -> Result<()> {
        let ran = stage.atoll(&["gateway", verb, target, "--reason", "a new kernel"]).await?;
        ran.says(verb, 0, &[&format!("{verb} {target} for gateways: a new kernel")]);
        assert!(ran.err.is_empty(), "{ran:?}");
        until(verb, async || {
            let now = stage.endpoints().await?;
            let left: Vec<&String> = all.iter().filter(|e| gone.is_empty() || !e.starts_with(gone)).collect();
            ensure!(now.len() == left.len() && left.iter().all(|e| now.contains(e)), "{verb} {target}: {now:?}");
            Ok(())
        })
        .await;
        Ok(())
    };
    holds("drain", &first, &first).await?;
    holds("enable", &first, "").await?;
    holds("disable", cluster, &format!("{cluster}/")).await?;
    holds("enable", cluster, "").await?;
    let events = stage.atoll(&["events"]).await?;
    let who = format!("admin: drain {first} for gateways: a new kernel");
    events.says("events", 0, &["TrafficDrained", "TrafficDisabled", "TrafficEnabled", &who]);
    for (target, code, said) in [
        ("nowhere", 1, &["cluster `nowhere`: there is none", "`atoll get clusters`"][..]),
        ("nowhere/10.0.0.1", 1, &["cluster `nowhere`: there is none"]),
        (&format!("{cluster}/ten"), 2, &["`ten` is no address"]),
        (&format!("{cluster}/192.0.2.1"), 0, &["knows no such endpoint", "`atoll gateway upstreams`"]),
    ] {
        stage.atoll(&["gateway", "drain", target]).await?.says(target, code, said);
    }
    assert_eq!(stage.up.interrupt().await?, Some(0));
    let gone = stage.place.ended(&["gateway", "drain", cluster]).await?;
    assert!(matches!(gone.code, Some(1 | 4)) && !gone.err.trim().is_empty(), "the hub is gone: {gone:?}");
    Ok(())
}

/// A Service, and an Ingress to it.
fn old() -> [Value; 2] {
    let of = |name: &str| format!("nginx.ingress.kubernetes.io/{name}");
    let backend = json!({"service": {"name": "web", "port": {"name": "http"}}});
    let path = json!({"path": "/api/(.*)", "pathType": "ImplementationSpecific", "backend": backend});
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 8080}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "old", "namespace": "default",
            "annotations": {of("rewrite-target"): "/$1", of("whitelist-source-range"): "10.0.0.0/8", of("satisfy"): "any",
                of("configuration-snippet"): "more_set_headers x;"}},
            "spec": {"ingressClassName": "atoll", "rules": [{"host": "old.test", "http": {"paths": [path]}}]}}),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn ingresses_are_described_imported_and_shadowed() -> Result<()> {
    let stage = Stage::new().await?;
    let text = old().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n");
    let file = stage.place.file("ingress.yaml", &text)?.display().to_string();
    for object in old() {
        stage.apply(object).await?;
    }
    let described = stage.atoll(&["describe", "ingress", "old"]).await?;
    described.says(
        "describe",
        0,
        &["Not carried out:", "`satisfy`: it is not honoured; it protects, so its paths answer 503"],
    );
    described.says(
        "describe",
        0,
        &["`configuration-snippet`: it is not honoured; the Gateway API way: HTTPRoute filters"],
    );
    until("events say so", async || {
        let described = stage.atoll(&["describe", "ingress", "old"]).await?;
        ensure!(described.out.contains("Closed") && described.out.contains("NotHonoured"), "{described:?}");
        Ok(())
    })
    .await;
    stage.atoll(&["describe", "ingress", "new"]).await?.says("none", 1, &["ingress `default/new`: there is none"]);

    let imported = stage.atoll(&["gateway", "import-ingress", "-f", &file]).await?;
    imported.says(
        "import",
        0,
        &["kind: Gateway", "kind: HTTPRoute", "kind: RoutePolicy", "port: 8080", "filter: allow"],
    );
    assert!(
        imported.err.contains("Ingress default/old: `satisfy`") && !imported.out.contains("satisfy"),
        "{imported:?}"
    );
    // What is printed an API server takes.
    let printed = stage.json(&["gateway", "import-ingress", "-f", &file]).await?;
    for object in printed["items"].as_array().into_iter().flatten() {
        stage.apply(object.clone()).await?;
    }
    stage.atoll(&["gateway", "import-ingress", "-f", "/nowhere"]).await?.says("no file", 1, &["/nowhere"]);
    let empty = stage.place.file("empty.yaml", "kind: ConfigMap\n")?.display().to_string();
    stage.atoll(&["gateway", "import-ingress", "-f", &empty]).await?.says("empty", 1, &["no Ingress in the files"]);

    let log = stage.place.file(
        "log",
        "{\"uri\":\"/\",\"host\":\"none.test\"}\n{\"uri\":\"/\",\"method\":\"POST\",\"host\":\"none.test\"}\n",
    )?;
    let (log, http) = (log.display().to_string(), stage.up.text("http").to_owned());
    let shadow = |old: &str, new: &str| {
        let words = ["gateway", "shadow", "--log", &log, "--old", old, "--new", new].map(str::to_owned);
        let place = &stage.place;
        async move { place.ended(&words.each_ref().map(String::as_str)).await }
    };
    shadow(&http, &http).await?.says("the same", 0, &["1 requests replayed, 1 left out, 0 differences"]);
    let dead = shadow("127.0.0.1:1", &http).await?;
    dead.says("one side is dead", 1, &["GET none.test/", "refused", "404", "1 differences"]);
    shadow("nowhere", &http).await?.says("no address", 2, &["--old `nowhere`: host:port"]);
    assert_eq!(stage.up.interrupt().await?, Some(0));
    Ok(())
}
