//! Know: what the hub says of members, when it says that they are not well, and the topology that follows.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Site;
use atoll_apiserver::{ApiServer, Storage};
use atoll_reach::{Expect, Identity, Revocations, System, TlsIdentity};
use atoll_wire::follow::{Follow, Report, follow};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::world::{World, api_config, apply, eventually, said, within};

#[tokio::test]
async fn a_member_shows_what_it_has_and_is_in_the_topology() {
    let world = World::start().await;
    let (member, agent) = world.joined("prod-eu", |_| ()).await;
    assert_eq!(world.condition("prod-eu", "DNSReady", "True").await.reason, "Answers");
    assert_eq!(world.condition("prod-eu", "Syncing", "True").await.reason, "Connected");
    assert_eq!(world.condition("prod-eu", "CIDRsDistinct", "True").await.reason, "Distinct");
    let status = eventually("its facts are written", async || {
        let status = world.clusters().get("prod-eu").await.unwrap().status.unwrap();
        if status.nodes.is_some() && status.dns.is_some() { Ok(status) } else { Err(status) }
    })
    .await;
    assert_eq!(status.nodes, Some(2));
    assert!(status.version.unwrap().starts_with("v1."));
    assert_eq!((status.capacity["cpu"].as_str(), status.free["pods"].as_str()), ("8", "100"));
    assert_eq!(status.dns.unwrap().servers, [member.dns().to_string()]);
    assert!(!status.cidrs.unwrap().pods.is_empty());
    assert_eq!(status.agent_version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let facts = world.topology("it is ready", |t| t.clusters.get("prod-eu").filter(|c| c.ready).cloned()).await;
    assert!(facts.dns_ready && !facts.overlaps);
    world.end([agent]).await;
}

#[tokio::test]
async fn a_member_that_falls_silent_is_not_ready_after_two_heartbeats() {
    let world = World::start_with(|c| c.heartbeat = Duration::from_secs(5)).await;
    let (member, agent) = world.joined("prod-eu", |_| ()).await;
    world.condition("prod-eu", "DNSReady", "True").await;
    let cut = Instant::now();
    member.break_it();
    let ready = world.condition("prod-eu", "Ready", "False").await;
    let took = cut.elapsed();
    assert_eq!(ready.reason, "HeartbeatsMissed");
    // The last beat may be five seconds old when the cut comes.
    assert!(Duration::from_secs(5) < took && took < Duration::from_secs(15), "{took:?}");
    assert_eq!(world.condition("prod-eu", "DNSReady", "Unknown").await.reason, "AgentSilent");
    world.topology("DNS and gateway are told", |t| t.clusters.get("prod-eu").filter(|c| !c.ready).cloned()).await;
    member.heal();
    world.condition("prod-eu", "Ready", "True").await;
    world.topology("and told again", |t| t.clusters.get("prod-eu").filter(|c| c.ready).cloned()).await;
    world.end([agent]).await;
}

#[tokio::test]
async fn a_live_link_to_a_member_that_is_cut_off_from_its_own_agent_is_not_ready() {
    let world = World::start().await;
    let member = ApiServer::open(api_config(), Storage::Memory).await.unwrap();
    let token = world.token("dev").await.token.to_string();
    let agent = world.agent_over(member.client(), Arc::new(System::default()), Some(token));
    world.condition("dev", "Ready", "True").await;
    let dns = world.condition("dev", "DNSReady", "False").await;
    assert!(dns.message.contains("DNS: none found"), "{}", dns.message);
    member.close().await;
    let ready = world.condition("dev", "Ready", "False").await;
    assert_eq!(ready.reason, "APIServerUnreachable");
    assert!(ready.message.contains("API server: "), "{}", ready.message);
    assert_eq!(world.condition("dev", "Syncing", "True").await.reason, "Connected", "the link lives");
    world.topology("told", |t| t.clusters.get("dev").filter(|c| !c.ready).cloned()).await;
    world.end([agent]).await;
}

#[tokio::test]
async fn overlapping_ranges_are_reported_on_both_members() {
    let world = World::start().await;
    let (mut agents, mut members) = (Vec::new(), Vec::new());
    for name in ["dev", "test"] {
        let member = ApiServer::open(api_config(), Storage::Memory).await.unwrap();
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"},
                             "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}});
        apply(&member.client(), service).await;
        let token = world.token(name).await.token.to_string();
        agents.push(world.agent_over(member.client(), Arc::new(System::default()), Some(token)));
        world.condition(name, "Ready", "True").await;
        members.push(member);
    }
    for (name, other) in [("dev", "test"), ("test", "dev")] {
        let found = world.condition(name, "CIDRsDistinct", "False").await;
        assert_eq!(found.reason, "Overlap");
        assert!(found.message.contains(&format!("those of {other}: reached by relay")), "{}", found.message);
    }
    world.topology("both overlap", |t| t.clusters.values().all(|c| c.overlaps).then_some(())).await;
    world.end(agents).await;
}

/// Who a site of the hub is.
pub(crate) async fn as_site(world: &World, site: &str) -> TlsIdentity {
    let secrets: Api<Secret> = Api::namespaced(world.client(), "atoll-system");
    let data = secrets.get(&format!("atoll-site-{site}")).await.unwrap().data.unwrap();
    let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let identity = Identity::from_pem(&text("tls.crt"), &text("tls.key"), &text("ca.crt")).unwrap();
    TlsIdentity::new(identity, Revocations::none()).unwrap()
}

/// A connection to the hub as a site.
pub(crate) async fn channel(tls: TlsIdentity, hub: String) -> Result<Channel, String> {
    let connect = tower::service_fn(move |_| {
        let (tls, hub) = (tls.clone(), hub.clone());
        async move {
            let tcp = Box::new(TcpStream::connect(&hub).await?);
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(tcp, "hub", Expect::Hub, &[b"h2"]).await?.stream))
        }
    });
    Endpoint::from_static("http://hub").connect_with_connector(connect).await.map_err(said)
}

#[tokio::test]
async fn a_member_of_names_only_is_in_the_topology_and_is_what_dns_servers_say_of_it() {
    let world = World::start().await;
    let cluster = |name: &str, dns: Value| {
        json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name},
        "spec": {"environment": "lab", "sync": {"mode": "None"}, "dns": dns}})
    };
    world.apply(cluster("lab", json!({"kind": "Consul", "domain": "consul", "servers": ["127.0.0.1:8600"]}))).await;
    world.apply(cluster("nowhere", json!({"kind": "Consul", "domain": "consul"}))).await;
    assert_eq!(world.condition("lab", "Ready", "True").await.reason, "NamesOnly");
    assert_eq!(world.condition("nowhere", "Ready", "False").await.reason, "NoServers");
    // A DNS server follows, and says that it gets no answer there.
    let (tls, hub) = (as_site(&world, "dns").await, world.config.advertise.clone());
    let site = Site { instance: "dns-1".into(), kind: "dns".into(), ..Site::default() };
    let (report, reports) =
        watch::channel(Report { site, probes: [("lab".to_owned(), false)].into(), ..Report::default() });
    let stop = CancellationToken::new();
    let connect = move || channel(tls.clone(), hub.clone());
    let (mut snapshots, _line, run) = follow(Follow::default(), connect, reports, stop.clone()).await;
    let following = tokio::spawn(run);
    let silent = world.condition("lab", "Ready", "False").await;
    assert_eq!((silent.reason.as_str(), silent.message.as_str()), ("Silent", "no DNS server of ours gets an answer"));
    let told = within("the DNS server knows it", snapshots.wait_for(|s| s.topology.sites.contains_key("dns-1"))).await;
    let lab = told.unwrap().topology.clusters["lab"].clone();
    assert_eq!((lab.ready, lab.dns.as_ref().unwrap().servers.clone()), (false, vec!["127.0.0.1:8600".to_owned()]));
    report.send_modify(|r| r.probes.extend([("lab".to_owned(), true)]));
    assert_eq!(world.condition("lab", "DNSReady", "True").await.reason, "Answers");
    assert_eq!(world.condition("lab", "Ready", "True").await.reason, "NamesOnly");
    stop.cancel();
    following.await.unwrap();
    world.end([]).await;
}

#[tokio::test]
async fn exports_become_imports_and_never_cross_a_set() {
    let world = World::start().await;
    let mut agents = Vec::new();
    for name in ["dev", "prod-eu"] {
        let (member, agent) = world.joined(name, |_| ()).await;
        agents.push(agent);
        let client = member.client();
        for object in [
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
                   "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}}),
            json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": {"name": "web", "namespace": "shop"}}),
        ] {
            eventually("its kinds are served", async || {
                let kind = kube::core::GroupVersionKind::gvk("multicluster.x-k8s.io", "v1beta1", "ServiceExport");
                kube::discovery::pinned_kind(&client, &kind).await.map(drop).map_err(said)
            })
            .await;
            apply(&client, object).await;
        }
    }
    let by_set = |t: &atoll_api::topology::Topology| {
        let of =
            |set: &str| t.services.get(set).map(|s| s.values().flat_map(|s| s.clusters.clone()).collect::<Vec<_>>());
        (of("dev") == Some(vec!["dev".into()]) && of("prod") == Some(vec!["prod-eu".into()])).then_some(())
    };
    world.topology("each in its set", by_set).await;
    let imports: Api<atoll_api::kinds::ServiceImport> = Api::namespaced(world.client(), "shop");
    let import = eventually("the default set's is imported", async || {
        // Until prod-eu has reported, dev's is the only export of that name.
        let found = imports.get_opt("web").await.unwrap().ok_or("none")?;
        let set = found.metadata.labels.as_ref().and_then(|l| l.get("atoll.dev/cluster-set")).cloned();
        let told = found.status.as_ref().is_some_and(|s| s.clusters.iter().all(|c| c.cluster == "prod-eu"));
        if set.as_deref() == Some("prod") && told { Ok(found) } else { Err("not prod's yet") }
    })
    .await;
    let clusters: Vec<String> = import.status.unwrap().clusters.into_iter().map(|c| c.cluster).collect();
    assert_eq!(clusters, ["prod-eu"]);
    assert_eq!(import.spec.ports[0].port, 80);
    world.end(agents).await;
}

#[tokio::test]
async fn a_bad_record_is_named_on_its_object_and_the_others_go_on() {
    let world = World::start().await;
    let records = |targets: Value| {
        json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
            "metadata": {"name": "board", "namespace": "shop"},
            "spec": {"endpoints": [{"dnsName": "board.atoll.internal", "recordType": "A", "targets": targets}]}})
    };
    let api: Api<atoll_api::kinds::DNSEndpoint> = Api::namespaced(world.client(), "shop");
    for (targets, status, says) in [
        (json!(["192.0.2.20", "1.2.3"]), "False", "record `board.atoll.internal. A 1.2.3`"),
        (json!(["192.0.2.20"]), "True", ""),
    ] {
        world.apply(records(targets)).await;
        eventually("the object says so", async || {
            let held = api.get("board").await.unwrap();
            let told = held.status.unwrap_or_default();
            let current = told.observed_generation == held.metadata.generation;
            let found = told.conditions.iter().find(|c| c.type_ == "Accepted" && c.status == status && current);
            found.filter(|c| c.message.contains(says)).map(drop).ok_or(told.conditions.clone())
        })
        .await;
    }
    world.end([]).await;
}
