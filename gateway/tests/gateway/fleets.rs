//! Two fleets on one API: each serves the classes that it is told, and leaves what the other serves, and says, alone.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Site;
use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::get;
use crate::world::{Made, World, gateway, import, listener, policy, route, topology};

fn of_class(name: &str, class: &str) -> Value {
    let mut gateway = gateway(name, json!([listener("http", 80, "HTTP")]));
    gateway["spec"]["gatewayClassName"] = json!(class);
    gateway
}

/// An HTTPRoute at these Gateways.
fn at(name: &str, host: &str, gateways: &[&str]) -> Value {
    let mut route = route(name, &[host], json!([{"name": "all", "backendRefs": [import("web")]}]));
    let parents: Vec<Value> = gateways.iter().map(|g| json!({"name": g, "namespace": "infra"})).collect();
    route["spec"]["parentRefs"] = json!(parents);
    route
}

/// What a status says at each parent or ancestor: whose, accepted or not, of which generation.
fn said(of: &Value) -> Vec<(String, String, i64)> {
    let one = |p: &Value| {
        let at = p.get("parentRef").unwrap_or(&p["ancestorRef"]);
        let accepted = p["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Accepted").unwrap().clone();
        let name = at["name"].as_str().unwrap().to_owned();
        (name, accepted["reason"].as_str().unwrap().to_owned(), accepted["observedGeneration"].as_i64().unwrap())
    };
    let mut all: Vec<_> = of.as_array().into_iter().flatten().map(one).collect();
    all.sort();
    all
}

fn is(of: &Value, expected: &[(&str, i64)]) -> bool {
    let expected: Vec<_> = expected.iter().map(|(name, n)| ((*name).to_owned(), "Accepted".to_owned(), *n)).collect();
    said(of) == expected
}

fn programmed(status: &Value) -> bool {
    let all = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().any(|c| c["type"] == "Programmed" && c["status"] == "True")
}

#[tokio::test]
async fn each_fleet_serves_its_classes_and_writes_their_statuses_alone() {
    let public = World::make(Made { classes: &["atoll"], instance: "public-1", ..Made::default() }).await;
    let internal =
        public.beside(Made { classes: &["internal", "lab"], instance: "internal-1", ..Made::default() }).await;
    let web = Pod::start("web", "127.19.0.1").await;
    let mut known = topology(&[("eu", &[&web])]);
    // A replica of another fleet that serves nothing of ours holds nothing up.
    let foreign = Site {
        instance: "third-1".into(),
        kind: "gateway".into(),
        classes: vec!["third".into()],
        gateways: Some(Default::default()),
        ..Site::default()
    };
    known.sites.insert("third-1".into(), Arc::new(foreign));
    public.publish(known, true);
    public.apply(of_class("main", "atoll")).await;
    public.apply(of_class("inner", "internal")).await;
    public.apply(of_class("nobodys", "elsewhere")).await;
    public.apply(at("outside", "out.test", &["main"])).await;
    public.apply(at("inside", "in.test", &["inner"])).await;
    public.apply(at("both", "both.test", &["main", "inner"])).await;
    let filters = json!([{"filter": "allow", "cidrs": ["127.0.0.0/8"]}]);
    public.apply(policy("outside", ("HTTPRoute", "outside"), filters.clone())).await;
    public.apply(policy("both", ("HTTPRoute", "both"), filters)).await;

    for (world, host, status) in [
        (&public, "out.test", 200),
        (&public, "both.test", 200),
        (&public, "in.test", 404),
        (&internal, "in.test", 200),
        (&internal, "both.test", 200),
        (&internal, "out.test", 404),
    ] {
        world.until(host, "/", |a| a.status == status).await;
    }
    let class = |name: &str| json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": name}});
    for name in ["atoll", "internal", "lab"] {
        public.until_status(class(name), |s| !s["supportedFeatures"].is_null()).await;
    }
    for name in ["main", "inner"] {
        public.until_status(gateway(name, json!([])), programmed).await;
    }
    assert!(public.read(gateway("nobodys", json!([]))).await["status"]["listeners"].is_null());
    let route_of = |name: &str| route(name, &[], json!([]));
    public.until_status(route_of("outside"), |s| is(&s["parents"], &[("main", 1)])).await;
    public.until_status(route_of("inside"), |s| is(&s["parents"], &[("inner", 1)])).await;
    public.until_status(route_of("both"), |s| is(&s["parents"], &[("inner", 1), ("main", 1)])).await;
    let policy_of = |name: &str| policy(name, ("", ""), json!([]));
    public.until_status(policy_of("outside"), |s| is(&s["ancestors"], &[("main", 1)])).await;
    public.until_status(policy_of("both"), |s| is(&s["ancestors"], &[("inner", 1), ("main", 1)])).await;

    // Nobody writes over the other: what is said stays as it is.
    let objects = || [route_of("both"), policy_of("both"), policy_of("outside"), gateway("main", json!([]))];
    let versions = async || {
        let mut all = Vec::new();
        for object in objects() {
            all.push(public.read(object).await["metadata"]["resourceVersion"].clone());
        }
        all
    };
    let before = versions().await;
    for _ in 0..25 {
        assert_eq!(get(internal.http, "both.test", "/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(versions().await, before);
    }

    // A route that leaves one of them is that one's to forget.
    public.apply(at("both", "both.test", &["inner"])).await;
    public.until("both.test", "/", |a| a.status == 404).await;
    public.until_status(route_of("both"), |s| is(&s["parents"], &[("inner", 2)])).await;
    public.until_status(policy_of("both"), |s| is(&s["ancestors"], &[("inner", 1)])).await;
    // And one fleet's end changes nothing for the other.
    drop(internal);
    assert_eq!(get(public.http, "out.test", "/").await.status, 200);
}
