//! What balancers that others own are told beyond HTTPRoutes: gRPC, TLS, ListenerSets, members' Services; who they let speak, and how their servers do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use atoll_api::names::ServiceName;
use atoll_api::topology::{BalancerFacts, BalancerState, ServicePort};
use atoll_gateway::ProviderSettings;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::backend::Pod;
use crate::l4::free_port;
use crate::providers::{asked, certificate, class, condition, edge, haproxy, shown, until};
use crate::world::{Made, World, service, topology};

/// How a server speaks TLS: with that certificate, to whom `clients` vouches for where it asks.
fn speaks(chain: &str, key: &str, clients: Option<&str>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
            let checks = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.with_client_cert_verifier(checks)
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// An authority, and the certificate and key of a client that it vouches for.
fn client() -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let ca = params.self_signed(&key).unwrap().pem();
    let leaf = CertificateParams::new(vec!["atoll".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&own, &Issuer::new(params, key)).unwrap();
    (ca, leaf.pem(), own.serialize_pem())
}

/// A webhook: what it was told, and what it answers.
async fn hook(
    ip: &str,
    acceptor: TlsAcceptor,
    answer: impl Fn(&Value) -> Value + Send + 'static,
) -> (SocketAddr, Arc<Mutex<Value>>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let heard: Arc<Mutex<Value>> = Arc::default();
    let told = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
            let body = loop {
                let n = stream.read(&mut part).await.unwrap_or(0);
                bytes.extend_from_slice(&part[..n]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let whole = text.split_once("\r\n\r\n").filter(|(head, body)| {
                    let length = |l: &str| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned);
                    let length = head.lines().find_map(length).and_then(|n| n.parse().ok());
                    length.is_some_and(|length: usize| body.len() >= length)
                });
                if let Some((_, body)) = whole {
                    break body.to_owned();
                }
                if n == 0 {
                    break String::new();
                }
            };
            let Ok(push) = serde_json::from_str::<Value>(&body) else { continue };
            let said = answer(&push).to_string();
            *told.lock().unwrap() = push;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{said}", said.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (at, heard)
}

/// A route of a kind of the Gateway API in `shop`.
fn route(kind: &str, name: &str, parent: Value, hostnames: &[&str], backend: &str) -> Value {
    let mut route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]}});
    if !hostnames.is_empty() {
        route["spec"]["hostnames"] = json!(hostnames);
    }
    route
}

fn settings(driver: &str, settings: Value) -> Vec<ProviderSettings> {
    vec![ProviderSettings { name: "edge".into(), driver: driver.into(), classes: vec!["edge".into()], settings }]
}

/// What is said of a route by the balancer's side.
async fn said(world: &World, route: Value, kind: &str, status: &str) -> String {
    let parents = |s: &Value| s["parents"].as_array().cloned().unwrap_or_default();
    let found = |s: &Value| parents(s).iter().any(|p| condition(p, kind).0 == status);
    let all = world.until_status(route, found).await;
    parents(&all).iter().map(|p| condition(p, kind).1.to_owned()).collect()
}

#[tokio::test]
async fn a_webhook_lets_in_whom_it_knows_and_hears_of_every_kind_and_of_members_services() {
    let (_, chain, key) = certificate("127.37.4.1");
    let (ca, own, own_key) = client();
    let answer = |push: &Value| {
        let member = json!({"kind": "Service", "namespace": "shop", "name": "web", "cluster": "eu"});
        let ill = push["backends"].as_array().into_iter().flatten().flat_map(|backend| {
            let servers = backend["servers"].as_array().into_iter().flatten();
            servers.map(move |server| {
                let at = format!("{}:{}", server["address"].as_str().unwrap(), server["port"]);
                let healthy = backend["name"] != "shop_calls_0" && backend["name"] != "eu_shop_web_5432";
                json!({"backend": backend["name"], "server": at, "healthy": healthy, "reason": if healthy { "" } else { "timed out" }})
            })
        });
        json!({"generation": push["generation"], "health": ill.collect::<Vec<_>>(),
            "addresses": [{"owner": member, "addresses": ["192.0.2.30", "db.example"]}]})
    };
    let (at, heard) = hook("127.37.4.1", speaks(&chain, &key, Some(&ca)), answer).await;
    let providers = settings("webhook", json!({"url": format!("https://{at}/"), "secret": "shop/hook"}));
    let world = World::make(Made { providers, ..Made::default() }).await;
    let secret = |more: Value| {
        let mut data = json!({"ca.crt": chain});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "hook", "namespace": "shop"}, "stringData": data})
    };
    world.apply(secret(json!({}))).await;
    world.apply(class()).await;
    let mut gateway = edge(json!([{"name": "http", "port": 80, "protocol": "HTTP", "hostname": "*.example"},
        {"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}]));
    gateway["spec"]["allowedListeners"] = json!({"namespaces": {"from": "Same"}});
    world.apply(gateway.clone()).await;
    // Without a certificate of its own it is nobody there, and the condition says so.
    let status = world.until_status(gateway.clone(), |s| condition(s, "Programmed").0 == "False").await;
    assert!(condition(&status, "Programmed").1.to_lowercase().contains("certificate"), "{status:#}");
    world.apply(secret(json!({"tls.crt": own, "tls.key": own_key}))).await;
    world.until_status(gateway.clone(), |s| condition(s, "Programmed").0 == "True").await;

    let pod = Pod::start("a", "127.37.4.2").await;
    for object in service("own", &pod) {
        world.apply(object).await;
    }
    let set = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet", "metadata": {"name": "more", "namespace": "shop"},
        "spec": {"parentRef": {"name": "edge"}, "listeners": [{"name": "alt", "port": 8080, "protocol": "HTTP"},
            {"name": "again", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}]}});
    world.apply(set.clone()).await;
    let to = |kind: &str, name: &str| json!({"kind": kind, "name": name});
    let calls = route("GRPCRoute", "calls", to("Gateway", "edge"), &["calls.example"], "own");
    let pass = route("TLSRoute", "pass", to("Gateway", "edge"), &["tls.example"], "own");
    let more = route("HTTPRoute", "more", to("ListenerSet", "more"), &["more.example"], "own");
    let odd = route("HTTPRoute", "odd", to("Gateway", "edge"), &["other.test"], "own");
    for object in [&calls, &pass, &more, &odd] {
        world.apply(object.clone()).await;
    }
    let mut known = topology(&[("eu", &[&pod])]);
    let ports = vec![ServicePort { name: "http".into(), protocol: "TCP".into(), port: 5432, ..ServicePort::default() }];
    let facts = BalancerFacts { class: Some("edge".into()), ports, ..BalancerFacts::default() };
    let balancers = std::collections::BTreeMap::from([(ServiceName::new("shop", "web"), Arc::new(facts))]);
    known.balancers.insert("eu".parse().unwrap(), balancers.into());
    world.publish(known, true);

    until("it hears of all", async || heard.lock().unwrap()["frontends"].as_array().map(Vec::len) == Some(4)).await;
    let hosts = |push: &Value| {
        let frontends = push["frontends"].as_array().cloned().unwrap_or_default();
        let each = frontends.iter().map(|f| {
            let routes: Vec<String> = f["routes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|r| format!("{}={}", r["hostnames"][0].as_str().unwrap_or(""), r["backend"].as_str().unwrap()))
                .collect();
            format!(
                "{} {}:{} {} [{}]",
                f["owner"]["kind"].as_str().unwrap(),
                f["protocol"].as_str().unwrap(),
                f["port"],
                f["tlsMode"].as_str().unwrap_or("-"),
                routes.join(" ")
            )
        });
        each.collect::<Vec<_>>()
    };
    let wanted = [
        "Gateway HTTP:80 - [calls.example=shop_calls_0]",
        "Gateway TLS:443 Passthrough [tls.example=shop_pass_0]",
        "ListenerSet HTTP:8080 - [more.example=shop_more_0]",
        "Service TCP:5432 - [=eu_shop_web_5432]",
    ];
    until("each with its routes", async || hosts(&heard.lock().unwrap()) == wanted).await;
    let push = heard.lock().unwrap().clone();
    let backend =
        |name: &str| push["backends"].as_array().unwrap().iter().find(|b| b["name"] == name).cloned().unwrap();
    assert_eq!(backend("shop_calls_0")["protocol"], "GRPC");
    assert_eq!(backend("eu_shop_web_5432")["owner"]["cluster"], "eu");
    assert_eq!(backend("eu_shop_web_5432")["servers"][0]["cluster"], "eu");

    // Statuses: the set's own, why a route attaches nowhere, and how the servers do.
    let status = world.until_status(set, |s| condition(s, "Programmed").0 == "True").await;
    assert_eq!(condition(&status["listeners"][1], "Conflicted").0, "True", "the Gateway has that port: {status:#}");
    world.until_status(gateway, |s| s["attachedListenerSets"] == 1).await;
    assert!(said(&world, odd, "Accepted", "False").await.contains("no host name of the route is one of a listener's"));
    assert_eq!(
        said(&world, more, "atoll.dev/ServersHealthy", "True").await,
        "1 server as the balancer sees it: all well"
    );
    let ill = said(&world, calls, "atoll.dev/ServersHealthy", "False").await;
    assert_eq!(ill, format!("1 of 1 server not well, as the balancer sees it: {} (timed out)", pod.address));
    // Of members' Services their agents are told.
    let state = || world.report.borrow().site.provided.get("eu/shop/web").cloned().unwrap_or_default();
    until("it is stated", async || !state().addresses.is_empty()).await;
    let BalancerState { addresses, hostnames, problems, ports, .. } = state();
    assert_eq!(
        (addresses[0].to_string().as_str(), hostnames.as_slice()),
        ("192.0.2.30", ["db.example".to_owned()].as_slice())
    );
    assert_eq!((problems[0].reason.as_str(), ports[0].error.as_deref()), ("ServersUnhealthy", None));
    world.publish(topology(&[("eu", &[&pod])]), true);
    until("one that went is not", async || !world.report.borrow().site.provided.contains_key("eu/shop/web")).await;
}

#[tokio::test]
async fn haproxy_passes_tls_on_by_server_name_speaks_http2_to_grpc_servers_and_says_how_they_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for map in ["hosts.map", "names.map"] {
        std::fs::write(dir.join(map), "").unwrap();
    }
    let (http, tls) = (free_port().await, free_port().await);
    let root = dir.display();
    let config = format!(
        "global\n  stats socket {root}/admin.sock mode 600 level admin\ndefaults\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n\
         frontend http\n  mode http\n  bind 127.37.5.1:{http}\n  use_backend %[req.hdr(host),field(1,:),lower,map({root}/hosts.map)]\n\
         frontend tls\n  mode tcp\n  bind 127.37.5.1:{tls}\n  tcp-request inspect-delay 2s\n  tcp-request content accept if {{ req_ssl_hello_type 1 }}\n  \
         use_backend %[req.ssl_sni,lower,map({root}/names.map)]\n\
         backend shop_calls_0\n  mode http\n  balance roundrobin\n  default-server inter 100ms\n\
         backend shop_pass_0\n  mode tcp\n  balance roundrobin\n  default-server inter 100ms\n"
    );
    std::fs::write(dir.join("haproxy.cfg"), config).unwrap();
    let _running = haproxy(dir);
    let frontends = json!([{"port": http, "protocol": "HTTP", "map": dir.join("hosts.map")}, {"port": tls, "protocol": "TLS", "map": dir.join("names.map")}]);
    let providers =
        settings("haproxy", json!({"socket": dir.join("admin.sock"), "checks": true, "frontends": frontends}));
    let world = World::make(Made { providers, ..Made::default() }).await;
    // Who ends the TLS is the server behind.
    let (shows, chain, key) = certificate("shop.example");
    let (behind, acceptor) = (TcpListener::bind("127.37.5.2:0").await.unwrap(), speaks(&chain, &key, None));
    let secure = behind.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = behind.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { drop(acceptor.accept(stream).await) });
        }
    });
    let [plain, mut slice] = service("secure", &Pod::start("s", "127.37.5.3").await);
    slice["endpoints"] = json!([{"addresses": [secure.ip()], "conditions": {"ready": true}}]);
    slice["ports"][0]["port"] = json!(secure.port());
    let dead = Pod::start("dead", "127.37.5.4").await;
    let dead_at = dead.address;
    for object in [plain, slice].into_iter().chain(service("calls", &dead)) {
        world.apply(object).await;
    }
    world.apply(class()).await;
    world
        .apply(edge(json!([{"name": "http", "port": http, "protocol": "HTTP"},
        {"name": "tls", "port": tls, "protocol": "TLS", "tls": {"mode": "Passthrough"}}])))
        .await;
    let parent = json!({"name": "edge"});
    let calls = route("GRPCRoute", "calls", parent.clone(), &["calls.example"], "calls");
    let late = route("HTTPRoute", "late", parent.clone(), &["calls.example"], "calls");
    world.apply(calls.clone()).await;
    world.apply(route("TLSRoute", "pass", parent, &["shop.example"], "secure")).await;
    let front: SocketAddr = format!("127.37.5.1:{tls}").parse().unwrap();
    until("TLS is passed on", async || shown(front).await.as_ref() == Some(&shows)).await;
    said(&world, calls.clone(), "atoll.dev/ServersHealthy", "True").await;
    let name = format!("atoll-127-37-5-4-{}", dead_at.port());
    assert!(asked(dir, "show servers state shop_calls_0").await.contains(&name));
    dead.die();
    let ill = said(&world, calls, "atoll.dev/ServersHealthy", "False").await;
    assert!(ill.contains(&format!("{dead_at} (DOWN, L4CON")), "{ill}");
    // Another route may not take a name that is taken, and has no backend there besides.
    world.apply(late.clone()).await;
    let why = said(&world, late, "Accepted", "False").await;
    assert!(why.contains("HAProxy's configuration has no backend `shop_late_0`"), "{why}");
    serving.abort();
}
