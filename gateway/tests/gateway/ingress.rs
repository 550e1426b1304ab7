//! Ingresses: served as annotations wish, told where they are reached, and closed where what protects them can't be had.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use serde_json::{Value, json};

use crate::backend::Pod;
use crate::client::{get, request, send};
use crate::world::{Made, World, secret, service, topology};

const ROOT: &[(&str, &str)] = &[("/", "Prefix")];

/// An Ingress of `shop` for the paths of a host; its backend is `service`, port `http`.
pub(crate) fn ingress(
    name: &str,
    host: &str,
    service: &str,
    annotations: &[(&str, &str)],
    paths: &[(&str, &str)],
) -> Value {
    let of = |name: &str| format!("nginx.ingress.kubernetes.io/{name}");
    let annotations: BTreeMap<String, &str> = annotations.iter().map(|(n, v)| (of(n), *v)).collect();
    let backend = json!({"service": {"name": service, "port": {"name": "http"}}});
    let paths: Vec<Value> =
        paths.iter().map(|(path, kind)| json!({"path": path, "pathType": kind, "backend": backend})).collect();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"ingressClassName": "atoll", "rules": [{"host": host, "http": {"paths": paths}}]}})
}

/// A gateway whose hub has the Services `old` and `new`; the ServiceImport `web` is in a member.
async fn world(ip: [&str; 3]) -> (World, [Pod; 3]) {
    let world = World::start_as(Made { ingress_classes: vec!["nginx".to_owned()], ..Made::default() }).await;
    let pods = [Pod::start("old", ip[0]).await, Pod::start("new", ip[1]).await, Pod::start("web", ip[2]).await];
    for object in service("old", &pods[0]).into_iter().chain(service("new", &pods[1])) {
        world.apply(object).await;
    }
    world.publish(topology(&[("eu", &[&pods[2]])]), true);
    (world, pods)
}

#[tokio::test]
async fn an_ingress_is_served_and_told_where() {
    let (world, _pods) = world(["127.41.0.1", "127.41.0.2", "127.41.0.3"]).await;
    let paths = [("/old", "Prefix"), ("/exact", "Exact"), ("/begins", "ImplementationSpecific")];
    let own = ingress("own", "a.test", "old", &[], &paths);
    world.apply(own.clone()).await;
    world.until("a.test", "/old/x", |a| a.pod() == "old").await;
    for (path, status) in
        [("/old", 200), ("/older", 404), ("/exact", 200), ("/exact/x", 404), ("/beginsthus", 200), ("/", 404)]
    {
        assert_eq!(get(world.http, "a.test", path).await.status, status, "{path}");
    }
    world.apply(ingress("import", "b.test", "web", &[], ROOT)).await;
    world.until("b.test", "/", |a| a.pod() == "web").await;
    let status = world.until_status(own.clone(), |s| s["loadBalancer"]["ingress"][0]["ip"].is_string()).await;
    assert_eq!(status["loadBalancer"]["ingress"][0]["ip"], "127.0.0.1");
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "atoll"}});
    assert_eq!(world.read(class).await["spec"]["controller"], "atoll.dev/gateway");

    let mut nginx = ingress("nginx", "c.test", "old", &[], ROOT);
    nginx["spec"]["ingressClassName"] = json!("nginx");
    world.apply(nginx).await;
    world.until("c.test", "/", |a| a.status == 200).await;
    let mut foreign = ingress("foreign", "d.test", "old", &[], ROOT);
    foreign["spec"]["ingressClassName"] = json!("haproxy");
    world.apply(foreign).await;
    world.apply(ingress("last", "e.test", "old", &[], ROOT)).await;
    world.until("e.test", "/", |a| a.status == 200).await;
    assert_eq!(get(world.http, "d.test", "/").await.status, 404, "a class of somebody else");
    world.delete(own).await;
    world.until("a.test", "/old", |a| a.status == 404).await;
}

#[tokio::test]
async fn annotations_do_what_they_say() {
    let (world, _pods) = world(["127.41.1.1", "127.41.1.2", "127.41.1.3"]).await;
    world.apply(secret("users", &[("auth", "ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")])).await;
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static [(&'static str, &'static str)],
        &'static str,
        u16,
        &'static str,
        &'static str,
    );
    let regex = &[("/api(/|$)(.*)", "ImplementationSpecific")][..];
    let cases: [Case; 16] = [
        (&[("rewrite-target", "/$2")], regex, "/API/x/y?q=1", 200, "", "/x/y?q=1"),
        (&[("rewrite-target", "/$2")], regex, "/api", 200, "", "/"),
        (&[("use-regex", "true")], &[("/v[0-9]+", "Prefix")], "/V12/x", 200, "", "/V12/x"),
        (&[("app-root", "/app")], ROOT, "/", 302, "http://HOST/app", ""),
        (&[("permanent-redirect", "https://b.test/x")], ROOT, "/y?z=1", 301, "https://b.test/x", ""),
        (&[("temporal-redirect", "https://b.test")], ROOT, "/y?z=1", 302, "https://b.test", ""),
        (&[("temporal-redirect", "https://b.test$request_uri")], ROOT, "/y?z=1", 302, "https://b.test/y?z=1", ""),
        (&[("force-ssl-redirect", "true")], ROOT, "/y?z=1", 308, "https://HOST/y?z=1", ""),
        (&[("denylist-source-range", "127.0.0.0/8")], ROOT, "/", 403, "", ""),
        (&[("whitelist-source-range", "10.0.0.0/8")], ROOT, "/", 403, "", ""),
        (&[("whitelist-source-range", "127.0.0.1")], ROOT, "/", 200, "", "/"),
        (&[("auth-type", "basic"), ("auth-secret", "users")], ROOT, "/", 401, "", ""),
        (&[("auth-type", "basic"), ("auth-secret", "absent")], ROOT, "/", 503, "", ""),
        (&[("auth-tls-secret", "shop/ca")], ROOT, "/", 503, "", ""),
        (&[("backend-protocol", "HTTPS")], ROOT, "/", 503, "", ""),
        (&[("configuration-snippet", "deny all;")], ROOT, "/", 503, "", ""),
    ];
    for (at, (annotations, paths, ..)) in cases.iter().enumerate() {
        world.apply(ingress(&format!("case-{at}"), &format!("case-{at}.test"), "old", annotations, paths)).await;
    }
    for (at, (annotations, _, path, status, location, seen)) in cases.into_iter().enumerate() {
        let host = format!("case-{at}.test");
        let answer = world.until(&host, path, |a| a.status == status).await;
        assert_eq!(answer.header("location"), location.replace("HOST", &host), "{annotations:?}");
        if status == 200 {
            assert_eq!(answer.said()["uri"], seen, "{annotations:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_open_before_its_filters_are_in_force() {
    let (world, pods) = world(["127.41.2.1", "127.41.2.2", "127.41.2.3"]).await;
    let closed = ingress("web", "a.test", "old", &[("whitelist-source-range", "10.0.0.0/8")], ROOT);
    world.apply(closed.clone()).await;
    // Not there, then refused: never served.
    world.until("a.test", "/", |a| a.status == 403).await;
    assert_eq!(pods[0].hits(), 0);
    let open = ingress("web", "a.test", "old", &[("whitelist-source-range", "127.0.0.0/8")], ROOT);
    world.apply(open).await;
    world.until("a.test", "/", |a| a.status == 200).await;
    world.apply(closed).await;
    world.until("a.test", "/", |a| a.status == 403).await;
}

#[tokio::test]
async fn a_canary_takes_its_part() {
    let (world, pods) = world(["127.41.3.1", "127.41.3.2", "127.41.3.3"]).await;
    world.apply(ingress("main", "a.test", "old", &[], ROOT)).await;
    world.until("a.test", "/", |a| a.pod() == "old").await;
    let canary = [("canary", "true"), ("canary-by-header", "x-canary"), ("canary-weight", "30")];
    world.apply(ingress("canary", "a.test", "new", &canary, ROOT)).await;
    let always = || request("a.test", "GET /", &[("x-canary", "always")], "");
    while send(world.http, always()).await.pod() != "new" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (old, new) = (pods[0].hits(), pods[1].hits());
    for _ in 0..200 {
        assert_eq!(get(world.http, "a.test", "/").await.status, 200);
    }
    assert_eq!(pods[0].hits() + pods[1].hits(), old + new + 200);
    let share = pods[1].hits() - new;
    assert!((30..=90).contains(&share), "{share} of 200, not 60");
    let never = send(world.http, request("a.test", "GET /", &[("x-canary", "never")], "")).await;
    assert_eq!(never.pod(), "old");
}

#[tokio::test]
async fn a_policy_may_target_an_ingress() {
    let (world, _pods) = world(["127.41.4.1", "127.41.4.2", "127.41.4.3"]).await;
    world.apply(ingress("web", "a.test", "old", &[], ROOT)).await;
    world.until("a.test", "/", |a| a.status == 200).await;
    let policy = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "RoutePolicy", "metadata": {"name": "mark", "namespace": "shop"},
        "spec": {"targetRefs": [{"group": "networking.k8s.io", "kind": "Ingress", "name": "web"}],
            "filters": [{"filter": "headers", "response": {"set": [{"name": "x-mark", "value": "ingress"}]}}]}});
    world.apply(policy.clone()).await;
    world.until("a.test", "/", |a| a.header("x-mark") == "ingress").await;
    world.until_status(policy, |s| s["ancestors"][0]["conditions"][0]["status"] == "True").await;
}

#[tokio::test]
async fn what_is_not_carried_out_is_told() {
    let (world, _pods) = world(["127.41.5.1", "127.41.5.2", "127.41.5.3"]).await;
    let wishes = [("configuration-snippet", "more_set_headers x;"), ("auth-tls-secret", "shop/ca")];
    world.apply(ingress("web", "a.test", "old", &wishes, ROOT)).await;
    world.until("a.test", "/", |a| a.status == 503).await;
    let api: Api<Event> = Api::namespaced(world.client.clone(), "shop");
    let mut events = Vec::new();
    for _ in 0..500 {
        events = api.list(&Default::default()).await.unwrap().items;
        if events.len() >= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let told: Vec<(&str, &str, &str)> = events
        .iter()
        .map(|e| (e.type_.as_deref().unwrap(), e.reason.as_deref().unwrap(), e.message.as_deref().unwrap()))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().all(|(kind, _, said)| *kind == "Warning" && said.contains("the Gateway API way: ")),
        "{told:?}"
    );
    let closed = told.iter().find(|(_, reason, _)| *reason == "Closed").unwrap();
    assert!(closed.2.contains("auth-tls-secret") && closed.2.contains("tls.frontend.validation"), "{closed:?}");
    let refused = "atoll_gateway_ingress_refused";
    // Events are told beside the table, which is counted.
    for _ in 0..500 {
        if world.gauge(refused, &["auth-tls-secret", "true"]).is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(world.gauge(refused, &["configuration-snippet", "false"]), Some(1.0));
    assert_eq!(world.gauge(refused, &["auth-tls-secret", "true"]), Some(1.0));
}

#[tokio::test]
async fn what_an_ingress_names_and_is_not_there_is_told_until_it_is() {
    let (world, _pods) = world(["127.41.6.1", "127.41.6.2", "127.41.6.3"]).await;
    let wishes = [("auth-type", "basic"), ("auth-secret", "users")];
    let mut asking = ingress("web", "a.test", "old", &wishes, ROOT);
    asking["spec"]["tls"] = json!([{"hosts": ["a.test"], "secretName": "lost"}]);
    world.apply(asking).await;
    world.apply(ingress("none", "b.test", "nobody", &[], ROOT)).await;
    let api: Api<Event> = Api::namespaced(world.client.clone(), "shop");
    let began = tokio::time::Instant::now();
    for (name, reason, words) in [
        ("web", "Closed", "filter `basic`: secretRef: Secret `users` does not exist"),
        ("web", "InvalidCertificateRef", "a.test at port 443: Secret `shop/lost`: does not exist"),
        ("none", "BackendNotFound", "nobody"),
    ] {
        loop {
            let events = api.list(&Default::default()).await.unwrap().items;
            let is_it = |e: &Event| {
                e.involved_object.name.as_deref() == Some(name)
                    && e.reason.as_deref() == Some(reason)
                    && e.message.as_deref().is_some_and(|said| said.contains(words))
            };
            if events.iter().any(is_it) {
                break;
            }
            let said: Vec<_> = events.iter().map(|e| (&e.involved_object.name, &e.reason, &e.message)).collect();
            assert!(began.elapsed().as_secs() < 20, "{name} {reason}: {said:#?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    let counted = || world.gauge("atoll_gateway_ingress_refused", &["basic", "true"]);
    assert_eq!(counted(), Some(1.0));
    let users = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "users", "namespace": "shop"},
        "data": {"username": "bWU=", "password": "bWU="}});
    world.apply(users).await;
    while counted().is_some() {
        assert!(began.elapsed().as_secs() < 40, "it is there, and counted still");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
