//! Ingresses: errors that another Service tells, who stands in where nobody is there, keys that choose endpoints, ports of TCP and UDP.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::backend::Pod;
use crate::client::{get, request, send};
use crate::ingress::ingress;
use crate::l4::free_port;
use crate::policy_auth::{as_service, plain, serve};
use crate::world::{Made, World, service, topology};

const ROOT: &[(&str, &str)] = &[("/", "Prefix")];

async fn world() -> World {
    let world = World::start().await;
    world.publish(topology(&[]), true);
    world
}

#[tokio::test]
async fn errors_are_told_by_the_default_backend() {
    let world = world().await;
    let backend = serve("127.44.0.1", |head, _| {
        let status = head.uri.path().trim_start_matches('/').parse().unwrap_or(200);
        plain(status, &[("x-from", "backend")], "the backend's own words")
    })
    .await;
    let pages = serve("127.44.0.2", |head, _| {
        let of = |name: &str| head.headers.get(name).map_or("-", |v| v.to_str().unwrap());
        let names = ["x-code", "x-format", "x-original-uri", "x-namespace", "x-ingress-name", "host"];
        let told = names.map(of).join(" ");
        let status = if of("x-code") == "404" { 410 } else { 503 };
        plain(status, &[("x-from", "pages"), ("content-type", "text/plain")], &format!("{} {told}", head.method))
    })
    .await;
    as_service(&world, "web", backend).await;
    as_service(&world, "pages", pages).await;
    let annotations = [("custom-http-errors", "404,503"), ("default-backend", "pages")];
    world.apply(ingress("shop", "a.test", "web", &annotations, ROOT)).await;
    world.until("a.test", "/", |a| a.status == 200).await;
    for (target, status, from, body) in [
        ("GET /200", 200, "backend", "the backend's own words"),
        ("GET /500", 500, "backend", "the backend's own words"),
        ("GET /404?a=b", 410, "pages", "GET 404 text/html /404?a=b shop shop a.test"),
        ("POST /503", 503, "pages", "GET 503 text/html /503 shop shop a.test"),
    ] {
        let answer = send(world.http, request("a.test", target, &[("accept", "text/html")], "")).await;
        assert_eq!((answer.status, answer.header("x-from"), answer.body.as_str()), (status, from, body), "{target}");
    }
    // Where nobody tells them they are given as they are.
    as_service(&world, "pages", "127.44.0.3:1".parse().unwrap()).await;
    world.until("a.test", "/404", |a| a.status == 404 && a.body == "the backend's own words").await;
}

#[tokio::test]
async fn the_default_backend_stands_in_where_nobody_is_there() {
    let world = world().await;
    let (web, other) = (Pod::start("web", "127.44.1.1").await, Pod::start("other", "127.44.1.2").await);
    for object in service("web", &web).into_iter().chain(service("other", &other)) {
        world.apply(object).await;
    }
    world.apply(ingress("shop", "a.test", "web", &[("default-backend", "other")], ROOT)).await;
    world.until("a.test", "/", |a| a.pod() == "web").await;
    let [_, mut slice] = service("web", &web);
    slice["endpoints"][0]["conditions"]["ready"] = json!(false);
    world.apply(slice).await;
    world.until("a.test", "/", |a| a.pod() == "other").await;
    let answer = send(world.http, request("a.test", "POST /cart?item=7", &[], "body")).await;
    let said = answer.said();
    assert_eq!(
        (&said["uri"], &said["method"], &said["body"]),
        (&json!("/cart?item=7"), &json!("POST"), &json!("body"))
    );
    for object in service("web", &web) {
        world.apply(object).await;
    }
    world.until("a.test", "/", |a| a.pod() == "web").await;
}

#[tokio::test]
async fn a_key_of_the_request_chooses_the_endpoint() {
    let world = world().await;
    let one = Pod::start("one", "127.44.2.1").await;
    let port = one.address.port();
    let others = [
        Pod::start_as("two", "127.44.2.2", port, crate::backend::Manner::Well).await,
        Pod::start_as("three", "127.44.2.3", port, crate::backend::Manner::Well).await,
    ];
    let [object, mut slice] = service("web", &one);
    let endpoint = |pod: &Pod| json!({"addresses": [pod.address.ip()], "conditions": {"ready": true}});
    slice["endpoints"] = [&one, &others[0], &others[1]].map(endpoint).into_iter().collect();
    world.apply(object).await;
    world.apply(slice).await;
    world.apply(ingress("path", "path.test", "web", &[("upstream-hash-by", "$uri")], ROOT)).await;
    world.apply(ingress("user", "user.test", "web", &[("upstream-hash-by", "${http_x_user}$host")], ROOT)).await;
    world.until("path.test", "/", |a| a.status == 200).await;
    world.until("user.test", "/", |a| a.status == 200).await;
    let mut chosen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for nth in 0..120 {
        let (key, other) = (nth % 30, nth % 7);
        let by_path = get(world.http, "path.test", &format!("/{key}?{other}")).await;
        let asked = request("user.test", &format!("GET /{other}"), &[("x-user", &key.to_string())], "");
        let by_user = send(world.http, asked).await;
        chosen.entry(format!("path {key}")).or_default().insert(by_path.pod().to_owned());
        chosen.entry(format!("user {key}")).or_default().insert(by_user.pod().to_owned());
    }
    assert!(chosen.values().all(|pods| pods.len() == 1), "a key has one endpoint: {chosen:?}");
    for kind in ["path", "user"] {
        let all: BTreeSet<&String> = chosen.iter().filter(|(k, _)| k.starts_with(kind)).flat_map(|(_, p)| p).collect();
        assert_eq!(all.len(), 3, "keys are spread: {chosen:?}");
    }
}

#[tokio::test]
async fn ports_of_configmaps_lead_to_services() {
    let map = |name: &str| Some(("infra".to_owned(), name.to_owned()));
    let services = [map("tcp-services"), map("udp-services")];
    let world = World::start_as(Made { ingress_services: services, ..Made::default() }).await;
    let (web, imported) = (Pod::start("web", "127.44.3.1").await, Pod::start("imported", "127.44.3.2").await);
    world.publish(topology(&[("eu", &[&imported])]), true);
    for mut object in service("db", &web) {
        object["metadata"]["labels"]["kubernetes.io/service-name"] = json!("db");
        world.apply(object).await;
    }
    let echo = UdpSocket::bind("127.44.3.3:0").await.unwrap();
    let at = echo.local_addr().unwrap();
    let echoes = tokio::spawn(async move {
        let mut packet = [0; 100];
        while let Ok((n, from)) = echo.recv_from(&mut packet).await {
            echo.send_to(&packet[..n], from).await.unwrap();
        }
    });
    let [mut dns, mut slice] = service("dns", &Pod::named(at));
    dns["spec"]["ports"][0]["protocol"] = json!("UDP");
    slice["ports"][0]["protocol"] = json!("UDP");
    world.apply(dns).await;
    world.apply(slice).await;
    let (first, second, packets, third) = (free_port().await, free_port().await, free_port().await, free_port().await);
    let config = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "infra"}, "data": data});
    let db = |to: &str| {
        config(
            "tcp-services",
            json!({first.to_string(): to, second.to_string(): "shop/web:80", third.to_string(): "shop/none:80",
                "9": "shop/web:80:PROXY", "ca.crt": "x"}),
        )
    };
    world.apply(db("shop/db:80")).await;
    world.apply(config("udp-services", json!({packets.to_string(): "shop/dns:80"}))).await;
    let asks = |port: u16| async move {
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        if !connected {
            return None;
        }
        let asked = tokio::time::timeout(Duration::from_secs(2), get(([127, 0, 0, 1], port).into(), "x", "/")).await;
        asked.ok().map(|answer| answer.pod().to_owned())
    };
    let until = |port: u16, wanted: Option<&'static str>| async move {
        for _ in 0..400 {
            if asks(port).await.as_deref() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("port {port} is never {wanted:?}")
    };
    until(first, Some("web")).await;
    until(second, Some("imported")).await;
    let api: Api<Event> = Api::namespaced(world.client.clone(), "infra");
    for words in [vec!["PROXY".to_owned()], vec![format!("tcp-{third}: "), "`shop/none`".to_owned()]] {
        let mut told = Vec::new();
        let is_it =
            |event: &&Event| words.iter().all(|word| event.message.as_deref().unwrap_or_default().contains(word));
        for _ in 0..400 {
            told = api.list(&Default::default()).await.unwrap().items;
            if told.iter().any(|event| is_it(&event)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let about = &told.iter().find(is_it).unwrap_or_else(|| panic!("{words:?}: {told:?}")).involved_object;
        assert_eq!((about.kind.as_deref(), about.name.as_deref()), (Some("ConfigMap"), Some("tcp-services")));
        assert!(about.uid.is_some(), "{about:?}");
    }
    assert_eq!(world.gauge("atoll_gateway_ingress_refused", &["tcp-services", "false"]), Some(1.0));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(("127.0.0.1", packets)).await.unwrap();
    let heard = async {
        loop {
            let mut packet = [0; 100];
            let _ = client.send(b"hello").await;
            let got = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut packet)).await;
            if matches!(got, Ok(Ok(5))) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("packets come back");
    echoes.abort();
    world.apply(db("shop/web:80")).await;
    until(first, Some("imported")).await;
    world.delete(config("tcp-services", json!({}))).await;
    until(first, None).await;
}
