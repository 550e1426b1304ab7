//! Shown: a change in a member is in the answers of a DNS server that follows the hub, by way of agent, link, fold and feed. How fast
//! under load is `benches/topology`'s matter; here: at once where the hub says it, within the member's TTL where the member does.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{Cluster, TrafficPolicy};
use atoll_api::topology::Site;
use atoll_dns::{Config, Encrypted, Files, Resources};
use atoll_reach::{Dialer, Listen as _, RelayTable, Route, Routes, System};
use atoll_wire::follow::{Follow, Report, follow};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::know::{as_site, channel};
use crate::world::{World, apply, eventually, said};

/// What the demo members' DNS says.
const MEMBER_TTL: Duration = Duration::from_secs(5);
/// A busy machine is slow.
const SLACK: Duration = Duration::from_secs(3);

/// A DNS server that follows the hub.
struct Dns {
    at: SocketAddr,
    shutdown: CancellationToken,
}

impl Dns {
    async fn start(world: &World, members: &[&str]) -> Self {
        let (tls, hub) = (as_site(world, "dns").await, world.config.advertise.clone());
        let site = Site { instance: "dns-1".into(), kind: "dns".into(), ..Site::default() };
        let (report, reports) = watch::channel(Report { site, ..Report::default() });
        let connect = move || channel(tls.clone(), hub.clone());
        let shutdown = CancellationToken::new();
        let (topology, line, following) = follow(Follow::default(), connect, reports, shutdown.clone()).await;
        tokio::spawn(following);
        let (system, routes) = (System::default(), Routes::default());
        routes.set(members.iter().map(|name| ((*name).to_owned(), Route::Direct)).collect());
        let tcp = system.tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = tcp.local_addr();
        let (started, up) = oneshot::channel();
        let resources = Resources {
            topology,
            dialer: Dialer::new(Arc::new(system.clone()), RelayTable::default(), routes),
            report,
            connect: Arc::new(system.clone()),
            listen: Arc::new(system),
            udp: vec![UdpSocket::bind(at).unwrap()],
            tcp,
            encrypted: Encrypted::default(),
            files: Files::default(),
            taps: Vec::new(),
            line,
            cookies: None,
            metrics: prometheus::Registry::new(),
            dir: None,
            started: Some(started),
        };
        tokio::spawn(atoll_dns::run(Config::default(), resources, shutdown.clone()));
        up.await.unwrap();
        Self { at, shutdown }
    }

    /// The answer's code, and the last octets of every address in it.
    async fn ask(&self, name: &str) -> (u8, Vec<[u8; 4]>) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            octets.push(u8::try_from(label.len()).unwrap());
            octets.extend_from_slice(label.as_bytes());
        }
        octets.extend_from_slice(&[0, 0, 1, 0, 1]);
        socket.send_to(&octets, self.at).await.unwrap();
        let mut reply = [0; 1232];
        let Ok(Ok(length)) = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut reply)).await else {
            return (2, Vec::new());
        };
        // An A record's data: length 4, four octets; compressed names hold no such length.
        let data = reply[octets.len()..length].windows(6).filter(|w| w[..2] == [0, 4]);
        let mut addresses: Vec<[u8; 4]> = data.map(|w| [w[2], w[3], w[4], w[5]]).collect();
        addresses.sort_unstable();
        (reply[3] & 0x0f, addresses)
    }

    /// Asks until the answer is as wanted; how long that took.
    async fn until(&self, what: &str, name: &str, wanted: impl Fn(u8, &[[u8; 4]]) -> bool) -> Duration {
        let began = Instant::now();
        eventually(what, async || {
            let (code, addresses) = self.ask(name).await;
            if wanted(code, &addresses) { Ok(()) } else { Err((code, addresses)) }
        })
        .await;
        began.elapsed()
    }
}

fn service(ip: Option<&str>) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}})
}

fn slice(addresses: &[(&str, bool)]) -> Value {
    let endpoint = |(ip, ready): &(&str, bool)| json!({"addresses": [ip], "conditions": {"ready": ready}});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>()})
}

#[tokio::test]
async fn answers_show_a_change_at_once_and_those_of_a_member_within_its_ttl() {
    let world = World::start().await;
    let (member, agent) = world.joined("prod-eu", |_| ()).await;
    let client = member.client();
    let export = json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
        "metadata": {"name": "web", "namespace": "shop"}});
    for object in [service(None), slice(&[("127.9.0.1", true), ("127.9.0.2", true)])] {
        apply(&client, object).await;
    }
    eventually("its kinds are served", async || {
        let kind = kube::core::GroupVersionKind::gvk("multicluster.x-k8s.io", "v1beta1", "ServiceExport");
        kube::discovery::pinned_kind(&client, &kind).await.map(drop).map_err(said)
    })
    .await;
    apply(&client, export).await;
    let policy = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "answer": "Endpoints", "strategy": [{"policy": "nearest"}], "ttlSeconds": 60}});
    world.apply(policy).await;
    let dns = Dns::start(&world, &["prod-eu"]).await;
    let (web, below) = ("web.shop.svc.atoll.internal", "web.shop.svc.prod-eu.atoll.internal");
    let last = |wanted: Vec<u8>| move |_, found: &[[u8; 4]]| found.iter().map(|a| a[3]).eq(wanted.iter().copied());
    dns.until("both endpoints", web, last(vec![1, 2])).await;
    // The answer may be kept for a minute; what changes does not wait for that.
    for (what, endpoints, wanted) in [
        ("an endpoint comes", vec![("127.9.0.1", true), ("127.9.0.2", true), ("127.9.0.3", true)], vec![1, 2, 3]),
        ("one falls ill", vec![("127.9.0.1", true), ("127.9.0.2", false), ("127.9.0.3", true)], vec![1, 3]),
        ("one moves", vec![("127.9.0.4", true), ("127.9.0.2", false), ("127.9.0.3", true)], vec![3, 4]),
    ] {
        apply(&client, slice(&endpoints)).await;
        let took = dns.until(what, web, last(wanted)).await;
        assert!(took < SLACK, "{what}: {took:?}");
    }
    // What the member itself answers is kept for as long as it said.
    dns.until("the member answers", below, |code, found| code == 0 && found.len() == 1).await;
    let services: Api<Service> = Api::namespaced(client.clone(), "shop");
    services.delete("web", &Default::default()).await.unwrap();
    let took = dns.until("the service is gone there", below, |code, _| code == 3).await;
    assert!(took < MEMBER_TTL + SLACK, "{took:?}");
    // A member that goes takes its names along, whatever is kept of them.
    apply(&client, service(None)).await;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "shop");
    assert!(slices.get_opt("web-1").await.unwrap().is_some());
    dns.until("it is there again", below, |code, found| code == 0 && found.len() == 1).await;
    let clusters: Api<Cluster> = world.clusters();
    clusters.delete("prod-eu", &Default::default()).await.unwrap();
    let took = dns.until("the member is gone", below, |code, _| code == 3).await;
    assert!(took < MEMBER_TTL, "{took:?}");
    let policies: Api<TrafficPolicy> = Api::namespaced(world.client(), "shop");
    assert!(policies.get_opt("web").await.unwrap().is_some());
    dns.until("the federated name is gone", web, |code, _| code == 3).await;
    dns.shutdown.cancel();
    let _ = agent.stop().await;
    world.end([]).await;
}
