//! Gateways with addresses of their own, of both families, in a network namespace of the test's: pools that are ours by a route alone, clients and
//! endpoints of IPv4 and of IPv6, and the same addresses again after a restart, of `atoll up` and of a gateway of its own (`cargo test --test
//! gateway_families -- --ignored`, as root).

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "up/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use world::{FREE, Place, Up, client, until};

/// What the machine takes packets for, as docs/configuration.md tells.
const ROUTES: [&str; 4] = [
    "link set lo up",
    "route add local 192.0.2.0/28 dev lo",
    "-6 route add local 2001:db8:80::/120 dev lo",
    "-6 addr add fd00::2/128 dev lo nodad",
];
const ENDPOINTS: [&str; 2] = ["127.0.0.1", "fd00::2"];
/// The last two are nobody's here.
const POOL: &str =
    "gateway: {addresses: ['192.0.2.0/28', '2001:db8:80::/120', '198.51.100.0/28', '2001:db8:70::/120']}\n";
/// What serves nothing, beside a gateway of its own.
const NONE: &str = "gateway: {classes: [nobody]}\n";
const HUB: &str = "127.0.0.1:7443";

async fn ip(words: &str) -> Result<()> {
    let status = Command::new("ip").args(words.split(' ')).status().await.context("run `ip`")?;
    ensure!(status.success(), "ip {words}: {status}");
    Ok(())
}

/// An endpoint of streams: answers with its own address and what it heard, and hangs up.
async fn streams(at: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind(at).await?;
    let own = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut got = vec![0; 4096];
                let n = stream.read(&mut got).await.unwrap_or(0);
                let said = format!("{}\n{}", own.ip(), String::from_utf8_lossy(&got[..n]));
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", said.len());
                let _ = stream.write_all((head + &said).as_bytes()).await;
            });
        }
    });
    Ok(own)
}

/// An endpoint of packets: answers with its own address.
async fn packets(at: &str) -> Result<SocketAddr> {
    let socket = UdpSocket::bind(at).await?;
    let own = socket.local_addr()?;
    tokio::spawn(async move {
        let mut got = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut got).await {
            let _ = socket.send_to(own.ip().to_string().as_bytes(), from).await;
        }
    });
    Ok(own)
}

fn service(name: &str, protocol: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"name": "p", "port": 80, "protocol": protocol}]}})
}

fn slice(service: &str, protocol: &str, at: SocketAddr) -> Value {
    let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": format!("{service}-{}", family.to_lowercase()), "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [at.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "p", "port": at.port(), "protocol": protocol}]})
}

fn gateway(name: &str, addresses: &Value) -> Value {
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}, {"name": "tcp", "port": 9000, "protocol": "TCP"},
        {"name": "udp", "port": 5300, "protocol": "UDP"}]);
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name},
        "spec": {"gatewayClassName": "atoll", "addresses": addresses, "listeners": listeners}})
}

fn route(kind: &str, service: &str, parents: &[&str], section: &str) -> Value {
    let parents: Vec<Value> = parents.iter().map(|name| json!({"name": name, "sectionName": section})).collect();
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": section},
        "spec": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": service, "port": 80}]}]}})
}

fn api(client: &kube::Client, object: &DynamicObject) -> Api<DynamicObject> {
    let types = object.types.clone().expect("a kind");
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    Api::namespaced_with(client.clone(), "default", &resource)
}

async fn apply(client: &kube::Client, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let name = object.metadata.name.clone().context("a name")?;
    api(client, &object).patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Where a Gateway is, once it is programmed.
async fn addresses(client: &kube::Client, name: &str) -> Vec<IpAddr> {
    let object: DynamicObject = serde_json::from_value(gateway(name, &json!([]))).expect("a Gateway");
    until(&format!("Gateway {name} is programmed"), async || {
        let status = api(client, &object).get(name).await?.data["status"].take();
        ensure!(condition(&status, "Programmed").0 == "True", "{status:#}");
        let all = status["addresses"].as_array().context("no addresses")?;
        Ok(all.iter().filter_map(|a| a["value"].as_str()?.parse().ok()).collect())
    })
    .await
}

fn condition(status: &Value, kind: &str) -> (String, String) {
    let found = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    let text = |field: &str| found.and_then(|c| c[field].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

async fn said(at: SocketAddr, words: &str) -> Result<String> {
    let mut text = String::new();
    let work = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(words.as_bytes()).await?;
        stream.read_to_string(&mut text).await
    };
    timeout(Duration::from_secs(5), work).await.context("no answer")??;
    Ok(text)
}

/// Endpoints of both families answer there, by HTTP, TCP and UDP.
async fn served(at: IpAddr) {
    let heard = Mutex::new(BTreeSet::new());
    until(&format!("everything answers at {at}"), async || {
        let (by_http, by_tcp, by_udp) =
            (http(at).await?, said(SocketAddr::new(at, 9000), "x").await?, packet(at).await?);
        let mut heard = heard.lock().expect("nobody panicked");
        heard.extend([format!("http {by_http}"), format!("tcp {}", endpoint(&by_tcp)), format!("udp {by_udp}")]);
        ensure!(heard.len() == 6, "{heard:?}");
        Ok(())
    })
    .await;
    let wanted = ["http", "tcp", "udp"].iter().flat_map(|way| ENDPOINTS.map(|e| format!("{way} {e}"))).collect();
    assert_eq!(heard.into_inner().expect("nobody panicked"), wanted, "at {at}");
}

/// The first line of a body, which is the endpoint.
fn endpoint(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").and_then(|(_, body)| body.lines().next()).unwrap_or_default()
}

/// Who answers by HTTP; it heard the client's address, which is of the family that was asked.
async fn http(at: IpAddr) -> Result<String> {
    let to = SocketAddr::new(at, 80);
    let answer = said(to, &format!("GET / HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n")).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let lower = answer.to_ascii_lowercase();
    let client: IpAddr =
        lower.lines().find_map(|l| l.strip_prefix("x-forwarded-for: ")).context("no client")?.parse()?;
    ensure!(client.is_ipv4() == at.is_ipv4(), "{answer}");
    Ok(endpoint(&answer).to_owned())
}

/// Who answers a packet, from the address that was asked.
async fn packet(at: IpAddr) -> Result<String> {
    let udp = UdpSocket::bind(if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
    udp.send_to(b"x", SocketAddr::new(at, 5300)).await?;
    let mut got = [0; 512];
    let (n, by) = timeout(Duration::from_secs(1), udp.recv_from(&mut got)).await.context("no packet")??;
    ensure!(by == SocketAddr::new(at, 5300), "a packet from {by}");
    Ok(String::from_utf8_lossy(&got[..n]).into_owned())
}

async fn start(place: &Place, config: &Path) -> Result<(Up, kube::Client)> {
    let data = place.at("data").display().to_string();
    let words = ["--members", "0", "--data-dir", &data, "--config", &config.display().to_string()];
    let up = place.up(&words).await?;
    let client = client(&PathBuf::from(up.text("kubeconfig")), "atoll").await?;
    Ok((up, client))
}

/// A gateway of its own, with the pool.
fn edge(place: &Place, kubeconfig: &str) -> Result<Child> {
    let config = format!(
        "kubeconfig: '{kubeconfig}'\nhub: '{HUB}'\ndataDir: '{}'\nsite: edge\n\
         listen: {{http: '127.0.0.1:8080', https: '127.0.0.1:8443', gatewayRelay: '127.0.0.1:7454', admin: '127.0.0.1:7073'}}\n{POOL}",
        place.at("edge").display(),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.args(["gateway", "--config"]).arg(place.file("edge.yaml", &config)?).env("ATOLL_HOME", place.home());
    let log = std::fs::File::create(place.at("edge.log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().context("run the gateway")
}

#[tokio::test]
#[ignore = "makes a network namespace: as root"]
async fn gateways_have_an_address_of_each_family_and_serve_both() {
    // This thread's, and so that of all that it starts; it goes with them.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for words in ROUTES {
        ip(words).await.unwrap();
    }
    let place = Place::new().unwrap();
    let listen = FREE.replace("hub: '127.0.0.1:0'", &format!("hub: '{HUB}'"));
    let config = place.file("up.yaml", &format!("{listen}{POOL}")).unwrap();
    let (up, client) = start(&place, &config).await.unwrap();
    for (name, protocol) in [("web", "TCP"), ("pkt", "UDP")] {
        apply(&client, service(name, protocol)).await.unwrap();
        for host in ENDPOINTS {
            let at = SocketAddr::new(host.parse().unwrap(), 0).to_string();
            let at = if protocol == "TCP" { streams(&at).await } else { packets(&at).await };
            apply(&client, slice(name, protocol, at.unwrap())).await.unwrap();
        }
    }
    let chosen = json!([{"type": "IPAddress", "value": "2001:db8:80::9"}]);
    let both = json!([{"type": "IPAddress", "value": "192.0.2.9"}, {"type": "IPAddress", "value": "2001:db8:80::7"}]);
    for (name, wished) in [("any", &json!([])), ("chosen", &chosen), ("both", &both)] {
        apply(&client, gateway(name, wished)).await.unwrap();
    }
    for (kind, service, section) in
        [("HTTPRoute", "web", "http"), ("TCPRoute", "web", "tcp"), ("UDPRoute", "pkt", "udp")]
    {
        apply(&client, route(kind, service, &["any", "chosen", "both"], section)).await.unwrap();
    }

    let any = addresses(&client, "any").await;
    assert_eq!(
        any,
        ["192.0.2.1", "2001:db8:80::1"].map(|ip| ip.parse::<IpAddr>().unwrap()),
        "the first of each family"
    );
    assert_eq!(addresses(&client, "chosen").await, ["2001:db8:80::9".parse::<IpAddr>().unwrap()]);
    let both = addresses(&client, "both").await;
    assert_eq!(both, ["192.0.2.9", "2001:db8:80::7"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    for at in any.iter().chain(&both).copied().chain(["2001:db8:80::9".parse().unwrap()]) {
        served(at).await;
    }

    // What can't be had, and is not opened anywhere.
    let refused = [
        ("outside", json!([{"type": "IPAddress", "value": "2001:db8:99::1"}]), "Programmed", "AddressNotUsable"),
        ("foreign4", json!([{"type": "IPAddress", "value": "198.51.100.5"}]), "Programmed", "AddressNotUsable"),
        ("foreign6", json!([{"type": "IPAddress", "value": "2001:db8:70::5"}]), "Programmed", "AddressNotUsable"),
        ("odd", json!([{"type": "example.com/pool", "value": "x"}]), "Accepted", "UnsupportedAddress"),
    ];
    for (name, wished, kind, reason) in refused {
        apply(&client, gateway(name, &wished)).await.unwrap();
        let object: DynamicObject = serde_json::from_value(gateway(name, &wished)).unwrap();
        until(&format!("Gateway {name} hears why"), async || {
            let status = api(&client, &object).get(name).await?.data["status"].take();
            ensure!(condition(&status, kind) == ("False".to_owned(), reason.to_owned()), "{status:#}");
            Ok(())
        })
        .await;
    }
    assert!(TcpStream::connect("[2001:db8:99::1]:80").await.is_err());

    // Both come back where they were.
    assert_eq!(up.interrupt().await.unwrap(), Some(0));
    let (up, client) = start(&place, &config).await.unwrap();
    assert_eq!(addresses(&client, "any").await, any);
    for at in &any {
        served(*at).await;
    }

    // So they do in a gateway of its own.
    assert_eq!(up.interrupt().await.unwrap(), Some(0));
    let (up, client) = start(&place, &place.file("hub.yaml", &format!("{listen}{NONE}")).unwrap()).await.unwrap();
    let _edge = edge(&place, up.text("kubeconfig")).unwrap();
    for at in &any {
        served(*at).await;
    }
    assert_eq!(addresses(&client, "any").await, any);
}
