//! Balancers that others own: a real HAProxy by its runtime API, and one behind a webhook.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_gateway::ProviderSettings;
use atoll_reach::AnyCertificate;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::backend::Pod;
use crate::client::get;
use crate::l4::free_port;
use crate::world::{Made, World, service};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// A HAProxy that is ended with the test.
pub(crate) struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn haproxy(dir: &Path) -> Haproxy {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("haproxy");
    command.env("PATH", path).arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
    Haproxy(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("HAProxy is installed (the package haproxy)"),
    )
}

/// What HAProxy says to a command.
pub(crate) async fn asked(dir: &Path, command: &str) -> String {
    let Ok(mut stream) = UnixStream::connect(dir.join("admin.sock")).await else { return String::new() };
    let _ = stream.write_all(format!("{command}\n").as_bytes()).await;
    let mut heard = String::new();
    let _ = stream.read_to_string(&mut heard).await;
    heard
}

/// A self-signed certificate and its key.
pub(crate) fn certificate(name: &str) -> (Vec<u8>, String, String) {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (made.der().to_vec(), made.pem(), key.serialize_pem())
}

pub(crate) fn tls_secret(name: &str, chain: &str, key: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name, "namespace": "shop"},
        "stringData": {"tls.crt": chain, "tls.key": key}})
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let looked = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, looked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The certificate that is shown at `at`.
pub(crate) async fn shown(at: SocketAddr) -> Option<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let anybody = Arc::new(AnyCertificate(provider));
    let config = config.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
    let stream = TcpStream::connect(at).await.ok()?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("shop.example".try_into().unwrap(), stream).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

pub(crate) fn class() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "edge"},
        "spec": {"controllerName": "atoll.dev/provider"}})
}

pub(crate) fn edge(listeners: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge", "namespace": "shop"},
        "spec": {"gatewayClassName": "edge", "listeners": listeners}})
}

fn web(rule: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "edge"}], "hostnames": ["shop.example"], "rules": [rule]}})
}

pub(crate) fn condition<'a>(status: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let found = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    found.map_or(("", ""), |c| (c["status"].as_str().unwrap_or(""), c["message"].as_str().unwrap_or("")))
}

#[tokio::test]
async fn haproxy_has_the_servers_weights_hosts_and_certificates_that_objects_say_and_refuses_the_rest_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("certs")).unwrap();
    let (first, chain, key) = certificate("old.example");
    std::fs::write(dir.join("certs/shop_tls.pem"), format!("{chain}{key}")).unwrap();
    std::fs::write(dir.join("hosts.map"), "left.example shop_web_0\n").unwrap();
    let (http, https) = (free_port().await, free_port().await);
    let (root, map) = (dir.display(), dir.join("hosts.map"));
    let map = map.display();
    let use_map = format!("use_backend %[req.hdr(host),field(1,:),lower,map({map})]");
    let config = format!(
        "global\n  stats socket {root}/admin.sock mode 600 level admin\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n\
         frontend http\n  bind 127.37.0.1:{http}\n  {use_map}\nfrontend https\n  bind 127.37.0.1:{https} ssl crt {root}/certs/shop_tls.pem\n  {use_map}\n\
         backend shop_web_0\n  balance roundrobin\n  server theirs 127.0.0.1:1 disabled\n"
    );
    std::fs::write(dir.join("haproxy.cfg"), config).unwrap();
    let mut running = haproxy(dir);
    let settings = json!({"socket": dir.join("admin.sock"), "certificates": dir.join("certs"), "addresses": ["192.0.2.10"], "frontends": [
        {"port": http, "protocol": "HTTP", "map": dir.join("hosts.map")}, {"port": https, "protocol": "HTTPS", "map": dir.join("hosts.map")}]});
    let settings =
        ProviderSettings { name: "edge".into(), driver: "haproxy".into(), classes: vec!["edge".into()], settings };
    let world = World::make(Made { providers: vec![settings], ..Made::default() }).await;
    let (a, b) = (Pod::start("a", "127.37.1.1").await, Pod::start("b", "127.37.1.2").await);
    for object in service("a", &a).into_iter().chain(service("b", &b)) {
        world.apply(object).await;
    }
    let (second, chain, key) = certificate("shop.example");
    world.apply(tls_secret("tls", &chain, &key)).await;
    world.apply(class()).await;
    let https_tls = json!({"certificateRefs": [{"name": "tls"}]});
    let listeners = json!([{"name": "http", "port": http, "protocol": "HTTP"}, {"name": "https", "port": https, "protocol": "HTTPS", "tls": https_tls},
        {"name": "more", "port": 9999, "protocol": "HTTP"}]);
    world.apply(edge(listeners)).await;
    let refs = |a: u16, b: u16| json!({"backendRefs": [{"name": "a", "port": 80, "weight": a}, {"name": "b", "port": 80, "weight": b}]});
    world.apply(web(refs(3, 1))).await;
    let at: SocketAddr = format!("127.37.0.1:{http}").parse().unwrap();
    let answers = async |count: usize| {
        a.hits.store(0, Ordering::Relaxed);
        b.hits.store(0, Ordering::Relaxed);
        // One that begins anew takes no connections for a moment.
        if TcpStream::connect(at).await.is_err() {
            return (0, 0);
        }
        for _ in 0..count {
            get(at, "shop.example", "/").await;
        }
        (a.hits.load(Ordering::Relaxed), b.hits.load(Ordering::Relaxed))
    };
    until("three quarters go to a", async || answers(40).await == (30, 10)).await;
    // The certificate in the place of the one that it began with; whatever else is not ours stays.
    assert_ne!(first, second);
    let at_tls: SocketAddr = format!("127.37.0.1:{https}").parse().unwrap();
    until("the certificate is swapped", async || shown(at_tls).await.as_ref() == Some(&second)).await;
    until("the map is ours", async || !asked(dir, &format!("show map {map}")).await.contains("left.example")).await;
    assert!(asked(dir, "show servers state").await.contains("theirs"));
    // What it can't do is said by field.
    let status = world.until_status(edge(json!([])), |s| condition(&s["listeners"][2], "Accepted").0 == "False").await;
    assert!(
        condition(&status["listeners"][2], "Accepted")
            .1
            .contains("spec.listeners[2].port: HAProxy has no frontend for HTTP at port 9999")
    );
    assert_eq!(condition(&status["listeners"][0], "Programmed").0, "True");
    assert_eq!(status["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.10"}]));
    let events: kube::Api<Event> = kube::Api::namespaced(world.client.clone(), "shop");
    until("an Event names the field", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        all.iter().any(|e| {
            e.reason.as_deref() == Some("RefusedByBalancer")
                && e.message.as_deref().is_some_and(|m| m.starts_with("spec.listeners[2].port"))
        })
    })
    .await;
    // Other weights, and none.
    world.apply(web(refs(1, 1))).await;
    until("both have half", async || answers(20).await == (10, 10)).await;
    // An endpoint that goes is drained, then deleted; a new one comes.
    world.apply(web(refs(0, 1))).await;
    until("a has nothing", async || answers(10).await == (0, 10)).await;
    let name = format!("atoll-127-37-1-1-{}", a.address.port());
    until("and is deleted", async || !asked(dir, "show servers state").await.contains(&name)).await;
    world.apply(web(refs(1, 1))).await;
    until("and is back", async || answers(20).await == (10, 10)).await;
    // One that began anew is told everything.
    drop(running);
    running = haproxy(dir);
    until("it is told again", async || answers(20).await == (10, 10)).await;
    until("with its certificate", async || shown(at_tls).await.as_ref() == Some(&second)).await;
    // A rule that a map can't say is not served.
    let mut odd = refs(1, 1);
    odd["matches"] = json!([{"path": {"type": "PathPrefix", "value": "/api"}}]);
    world.apply(web(odd)).await;
    let status = world
        .until_status(web(json!({})), |s| {
            s["parents"].as_array().into_iter().flatten().any(|p| condition(p, "Accepted").0 == "False")
        })
        .await;
    let parent = &status["parents"][0];
    assert_eq!(parent["controllerName"], "atoll.dev/provider");
    assert!(
        condition(parent, "Accepted").1.contains("spec.rules[0].matches[0].path: HAProxy's map knows host names alone"),
        "{status:#}"
    );
    until("nobody is sent there", async || get(at, "shop.example", "/").await.status == 503).await;
    drop(running);
}

#[tokio::test]
async fn a_webhook_is_told_everything_until_it_answers_and_what_it_refuses_is_said_by_field() {
    let (_, chain, key) = certificate("127.37.2.1");
    let listener = TcpListener::bind("127.37.2.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (leaf, secret_key) = (chain.clone(), key.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let config = config
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(secret_key.as_bytes()).unwrap(),
        )
        .unwrap();
    let heard: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let told = Arc::clone(&heard);
    let server = tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = Vec::new();
            let (head, body) = loop {
                let mut part = [0; 4096];
                let n = stream.read(&mut part).await.unwrap_or(0);
                bytes.extend_from_slice(&part[..n]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    if n == 0 {
                        break Default::default();
                    }
                    continue;
                };
                let length = head.lines().find_map(|l| {
                    l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok())
                });
                if n == 0 || length.is_some_and(|length| body.len() >= length) {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let push: Value = serde_json::from_str(&body).unwrap_or_default();
            let count = {
                let mut told = told.lock().unwrap();
                told.push((head, push.clone()));
                told.len()
            };
            let owner = json!({"kind": "Service", "namespace": "shop", "name": "lb"});
            let gateway = json!({"kind": "Gateway", "namespace": "shop", "name": "edge"});
            let answer =
                json!({"generation": push["generation"], "addresses": [{"owner": owner, "addresses": ["192.0.2.20"]}],
                "refused": [{"owner": gateway, "field": "spec.listeners[0].port", "message": "only 443 is open"}]})
                .to_string();
            let (status, answer) = if count < 3 { ("500 Oops", "not yet".to_owned()) } else { ("200 OK", answer) };
            let _ = stream
                .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).as_bytes())
                .await;
            let _ = stream.shutdown().await;
        }
    });
    let settings = json!({"url": format!("https://{at}/v1/state"), "secret": "shop/hook"});
    let settings =
        ProviderSettings { name: "hook".into(), driver: "webhook".into(), classes: vec!["edge".into()], settings };
    let world = World::make(Made { providers: vec![settings], ..Made::default() }).await;
    world.apply(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "hook", "namespace": "shop"},
        "stringData": {"token": "s3cret", "ca.crt": chain}})).await;
    world.apply(class()).await;
    world.apply(edge(json!([{"name": "http", "port": 80, "protocol": "HTTP"}]))).await;
    let pod = Pod::start("a", "127.37.1.3").await;
    let [mut lb, mut slice] = service("lb", &pod);
    lb["spec"]["type"] = json!("LoadBalancer");
    lb["spec"]["loadBalancerClass"] = json!("atoll.dev/edge");
    slice["metadata"]["name"] = json!("lb-1");
    world.apply(slice).await;
    world.apply(lb.clone()).await;
    world.until_status(lb, |s| s["loadBalancer"]["ingress"] == json!([{"ip": "192.0.2.20", "ipMode": "Proxy"}])).await;
    let status = world.until_status(edge(json!([])), |s| condition(&s["listeners"][0], "Accepted").0 == "False").await;
    assert!(condition(&status["listeners"][0], "Accepted").1.contains("spec.listeners[0].port: only 443 is open"));
    let heard = heard.lock().unwrap().clone();
    assert!(heard.len() >= 3, "told again until it answered");
    let (head, push) = heard.last().unwrap();
    assert!(
        head.starts_with("POST /v1/state HTTP/1.1") && head.to_lowercase().contains("authorization: bearer s3cret"),
        "{head}"
    );
    assert_eq!((&push["version"], &push["provider"]), (&json!("v1"), &json!("hook")));
    let server_at = &push["backends"][0]["servers"][0];
    assert_eq!(
        (server_at["address"].as_str(), server_at["port"].as_u64()),
        (Some("127.37.1.3"), Some(pod.address.port().into()))
    );
    let generations: Vec<u64> = heard.iter().filter_map(|(_, push)| push["generation"].as_u64()).collect();
    assert!(generations.is_sorted(), "{generations:?}");
    server.abort();
}
