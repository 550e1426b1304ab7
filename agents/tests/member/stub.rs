//! The stub of the member's own resolver: put in, mended, never over what others wrote, and out again without a trace.

use std::net::SocketAddr;
use std::sync::Arc;

use atoll_agents::{Place, Stub, Write};
use atoll_api::facts::{Facts, key};
use atoll_api::topology::{StubFacts, StubReport};
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::hub::{Authority, Hub};
use crate::{Agent, Member, eventually, until};

const COREFILE: &str = ".:53 {\n    errors\n    kubernetes cluster.local in-addr.arpa\n    reload\n}\n";

fn stub(place: Place) -> Stub {
    let write: Write = Arc::new(|facts: &StubFacts| {
        let servers = facts.servers.join(" ");
        Ok(format!("{} clusterset.local {{\n    forward . {servers}\n}}", facts.apex))
    });
    Stub { enabled: true, place, write, servers: Vec::new() }
}

fn wanted(servers: &[&str]) -> Facts {
    let servers = servers.iter().map(|at| (*at).to_owned()).collect();
    let mut facts = Facts::default();
    facts.put(key::STUB, &StubFacts { apex: "atoll.internal".into(), servers, reverse: Vec::new() });
    facts
}

struct Scene {
    authority: Arc<Authority>,
    member: Member,
    hub: Hub,
    agent: Agent,
}

impl Scene {
    async fn new(place: Place, maps: &[(&str, serde_json::Value)]) -> Self {
        let authority = Authority::new();
        let mut member = Member::new().await;
        for (name, data) in maps {
            let map = json!({"metadata": {"name": name}, "data": data});
            let map: ConfigMap = serde_json::from_value(map).unwrap();
            Self::maps(&member).create(&PostParams::default(), &map).await.unwrap();
        }
        member.stub = Some(stub(place));
        let hub = Hub::start(&authority, 1, wanted(&["192.0.2.53:53"])).await;
        let agent = member.start(&hub.address.to_string(), Some(authority.token("dev")));
        Self { authority, member, hub, agent }
    }

    fn maps(member: &Member) -> Api<ConfigMap> {
        Api::namespaced(member.client(), "kube-system")
    }

    async fn text(&self, name: &str, key: &str) -> Option<String> {
        Self::maps(&self.member).get_opt(name).await.unwrap()?.data?.remove(key)
    }

    async fn write(&self, name: &str, key: &str, text: &str) {
        let patch = Patch::Merge(json!({"data": {key: text}}));
        Self::maps(&self.member).patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn reported(&self, reason: &str, says: &str) -> StubReport {
        until(&self.hub.status, reason, |status| {
            status.get::<StubReport>(key::STUB).is_some_and(|r| r.reason == reason && r.message.contains(says))
        })
        .await;
        self.hub.status.borrow().get(key::STUB).unwrap()
    }

    /// The same agent, told nothing of a stub any more.
    async fn switched_off(self) -> Self {
        let Self { authority, mut member, hub, agent } = self;
        agent.stop().await.unwrap();
        member.stub = None;
        let agent = member.start(&hub.address.to_string(), None);
        Self { authority, member, hub, agent }
    }
}

#[tokio::test]
async fn coredns_is_told_by_a_block_that_is_mended_and_goes_without_a_trace() {
    let scene = Scene::new(Place::CoreDns, &[("coredns", json!({"Corefile": COREFILE}))]).await;
    let report = scene.reported("Applied", "ConfigMap kube-system/coredns").await;
    assert!(report.applied, "{report:?}");
    let once = scene.text("coredns", "Corefile").await.unwrap();
    assert!(once.contains("atoll.internal:53 clusterset.local:53 {") && once.ends_with(COREFILE), "{once}");
    // What others add stays, what they do to our block is undone.
    let theirs = format!("{}corp.example {{\n    forward . 10.0.0.9\n}}\n", once.replace("192.0.2.53", "198.51.100.1"));
    scene.write("coredns", "Corefile", &theirs).await;
    let mended = format!("{once}corp.example {{\n    forward . 10.0.0.9\n}}\n");
    eventually("drift is mended", async || scene.text("coredns", "Corefile").await.as_deref() == Some(&mended)).await;
    // Another server, at once.
    scene.hub.desired.send_replace(wanted(&["192.0.2.54:53"]));
    let moved = mended.replace("192.0.2.53", "192.0.2.54");
    eventually("another server", async || scene.text("coredns", "Corefile").await.as_deref() == Some(&moved)).await;
    // A zone of ours that somebody else serves would keep CoreDNS from starting.
    let taken = format!("clusterset.local {{\n    errors\n}}\n{COREFILE}");
    scene.write("coredns", "Corefile", &taken).await;
    let report = scene.reported("Refused", "zone `clusterset.local`").await;
    assert!(!report.applied, "{report:?}");
    assert_eq!(scene.text("coredns", "Corefile").await.as_deref(), Some(taken.as_str()));
    scene.write("coredns", "Corefile", &moved).await;
    scene.reported("Applied", "").await;
    let events: Api<Event> = Api::namespaced(scene.member.client(), "kube-system");
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let reasons: Vec<&str> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
    assert!(reasons.contains(&"AtollStubApplied") && reasons.contains(&"AtollStubRefused"), "{reasons:?}");
    let scene = scene.switched_off().await;
    let theirs = format!("{COREFILE}corp.example {{\n    forward . 10.0.0.9\n}}\n");
    eventually("our block is out", async || scene.text("coredns", "Corefile").await.as_deref() == Some(&theirs)).await;
    scene.reported("Removed", "").await;
    scene.agent.stop().await.unwrap();
    drop((scene.hub, scene.authority));
}

#[tokio::test]
async fn a_corefile_that_imports_custom_files_is_left_alone() {
    let corefile = format!("{COREFILE}import custom/*.server\n");
    for custom in [None, Some(json!({"corp.server": "corp.example {\n    errors\n}\n"}))] {
        let mut maps = vec![("coredns", json!({"Corefile": corefile}))];
        maps.extend(custom.clone().map(|data| ("coredns-custom", data)));
        let scene = Scene::new(Place::CoreDns, &maps).await;
        scene.reported("Applied", "ConfigMap kube-system/coredns-custom").await;
        let file = scene.text("coredns-custom", "atoll.server").await.unwrap();
        assert!(file.contains("atoll.internal:53 clusterset.local:53 {"), "{file}");
        assert_eq!(scene.text("coredns", "Corefile").await.as_deref(), Some(corefile.as_str()));
        let scene = scene.switched_off().await;
        let left =
            async || Scene::maps(&scene.member).get_opt("coredns-custom").await.unwrap().and_then(|map| map.data);
        eventually("it is as it was", async || json!(left().await) == json!(custom)).await;
        scene.agent.stop().await.unwrap();
    }
}

#[tokio::test]
async fn kube_dns_is_told_by_keys_of_ours_beside_those_of_others() {
    let before = "{\n  \"corp.example\": [\"10.0.0.9\"]\n}";
    let scene = Scene::new(Place::KubeDns, &[("kube-dns", json!({"stubDomains": before, "other": "x"}))]).await;
    scene.reported("Applied", "ConfigMap kube-system/kube-dns").await;
    let text = scene.text("kube-dns", "stubDomains").await.unwrap();
    let domains: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(domains["atoll.internal"], json!(["192.0.2.53"]));
    assert_eq!(domains["corp.example"], json!(["10.0.0.9"]));
    let scene = scene.switched_off().await;
    eventually("ours are out", async || scene.text("kube-dns", "stubDomains").await.as_deref() == Some(before)).await;
    let map = Scene::maps(&scene.member).get("kube-dns").await.unwrap();
    assert!(!json!(map.metadata.annotations).to_string().contains("atoll.dev"), "{:?}", map.metadata.annotations);
    scene.agent.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_is_told_to_ask_where_nobody_answers() {
    let scene = Scene::new(Place::CoreDns, &[("coredns", json!({"Corefile": COREFILE}))]).await;
    scene.hub.desired.send_replace(wanted(&["127.0.0.1:5353", "dns.example.com:53"]));
    scene.reported("Failed", "agent.stub.servers").await;
    scene.agent.stop().await.unwrap();
    let named: Vec<SocketAddr> = vec!["192.0.2.99:53".parse().unwrap()];
    let mut member = scene.member;
    member.stub = Some(Stub { servers: named, ..stub(Place::CoreDns) });
    let agent = member.start(&scene.hub.address.to_string(), None);
    let maps = Scene::maps(&member);
    let text = async || maps.get("coredns").await.unwrap().data.unwrap_or_default()["Corefile"].clone();
    eventually("the operator's server", async || text().await.contains("forward . 192.0.2.99:53")).await;
    agent.stop().await.unwrap();
}
