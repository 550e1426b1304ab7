//! A node-local DNS over real sockets: its member's own names as the member says them, federated ones out of the topology, those of
//! members that it does not reach by way of the federation's DNS servers, and all of it while the hub is silent.

mod stage;

use std::sync::Arc;

use atoll_api::kinds::MemberDns as OwnDns;
use atoll_api::topology::{Site, Topology};
use atoll_dns::{Config, Home, Rebinding};
use atoll_reach::Route;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, CNAME, PTR};
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;
use stage::member::{Manner, MemberDns};
use stage::*;

fn a(last: u8) -> RData {
    RData::A(A::new(127, 21, 0, last))
}

/// The DNS of prod-eu, which is its pods' only resolver.
async fn own() -> MemberDns {
    let member = MemberDns::at("127.0.0.1", "cluster.local").await;
    member
        .knows("web.shop.svc.cluster.local", 30, a(1))
        .knows("ext.shop.svc.cluster.local", 30, RData::CNAME(CNAME(name("www.example.org"))))
        .knows("all.shop.svc.cluster.local", 30, RData::CNAME(CNAME(name("web.shop.svc.clusterset.local"))))
        .knows("www.example.org", 30, RData::A(A::new(10, 0, 0, 80)))
        .knows("1.0.21.127.in-addr.arpa", 30, RData::PTR(PTR(name("web.shop.svc.cluster.local"))))
}

fn config(own: &MemberDns) -> Config {
    let dns = OwnDns { servers: vec![own.addr.to_string()], ..OwnDns::default() };
    Config {
        home: Some(Home { cluster: "prod-eu".parse().expect("a name"), dns, apex: "atoll.internal".into() }),
        upstreams: vec![own.addr],
        recursion: vec!["0.0.0.0/0".parse().expect("a range")],
        rebinding: Rebinding { guard: false, ..Rebinding::default() },
        ..Config::default()
    }
}

/// prod-eu and prod-us, both with `shop/web`, and a DNS server of the federation.
fn two(site: &MemberDns, us: &MemberDns) -> Topology {
    let mut t = federation();
    // What the hub says of where the own DNS answers is older than what is known here.
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"servers": ["127.0.0.1:9"]}));
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [us.addr.to_string()]}));
    offer(&mut t, "prod", &[("prod-eu", 21), ("prod-us", 22)]);
    let dns =
        Site { instance: "dns".into(), kind: "dns".into(), addresses: vec![site.addr.to_string()], ..Site::default() };
    t.sites.insert("dns".into(), Arc::new(dns));
    t
}

#[tokio::test]
async fn every_kind_of_name_is_answered_and_stays_so_while_the_hub_is_silent() {
    let own = own().await;
    let site = MemberDns::at("127.0.0.1", "atoll.internal").await;
    let site = site.knows("web.shop.svc.prod-us.atoll.internal", 30, a(99));
    let us = MemberDns::at("127.0.0.1", "cluster.local").await.knows("web.shop.svc.cluster.local", 30, a(22));
    let stage = Stage::new(config(&own), two(&site, &us)).await;
    stage.routes.set([("prod-eu".to_owned(), Route::Direct), ("prod-us".to_owned(), Route::Relay)].into());
    let cases = [
        ("web.shop.svc.cluster.local", RecordType::A, "NoError web.shop.svc.cluster.local. A 127.21.0.1"),
        (
            "ext.shop.svc.cluster.local",
            RecordType::A,
            "NoError ext.shop.svc.cluster.local. CNAME www.example.org.; www.example.org. A 10.0.0.80",
        ),
        ("www.example.org", RecordType::A, "NoError www.example.org. A 10.0.0.80"),
        ("none.shop.svc.cluster.local", RecordType::A, "NXDomain"),
        (
            "1.0.21.127.in-addr.arpa",
            RecordType::PTR,
            "NoError 1.0.21.127.in-addr.arpa. PTR web.shop.svc.cluster.local.",
        ),
        (
            "web.shop.svc.prod-eu.atoll.internal",
            RecordType::A,
            "NoError web.shop.svc.prod-eu.atoll.internal. A 127.21.0.1",
        ),
        (
            "web.shop.svc.prod-us.atoll.internal",
            RecordType::A,
            "NoError web.shop.svc.prod-us.atoll.internal. A 127.21.0.99",
        ),
        ("dns-version.clusterset.local", RecordType::TXT, "NoError dns-version.clusterset.local. TXT 1.0.0"),
    ];
    let all = async |when: &str| {
        for (name, kind, want) in cases {
            assert_eq!(said(&stage.ask(name, kind).await), want, "{when}: {name}");
        }
        for name in ["web.shop.svc.atoll.internal", "web.shop.svc.clusterset.local", "all.shop.svc.cluster.local"] {
            let reply = stage.ask_from("127.9.9.9", name, RecordType::A).await;
            assert!(said(&reply).contains("A 127.21.0.80"), "{when}: the own cluster is the nearest: {}", said(&reply));
        }
    };
    all("all is well").await;
    let asked = |dns: &MemberDns, name: &str| dns.asked().iter().filter(|asked| asked.contains(name)).count();
    // Once under its own name, once under the federation's: whatever was asked once is given again.
    assert_eq!(asked(&own, "web.shop.svc.cluster.local"), 2, "{:?}", own.asked());
    assert_eq!(asked(&own, "atoll.internal") + asked(&own, "clusterset.local"), 0, "{:?}", own.asked());
    stage.silence();
    all("the hub is silent").await;
    // The link is cut: nobody of the federation is reached, what was answered before is given.
    site.behave(Manner::Silent);
    all("the link is cut").await;
    // Reached directly: asked directly.
    stage.routes.set([("prod-eu".to_owned(), Route::Direct), ("prod-us".to_owned(), Route::Direct)].into());
    let direct = stage.ask("web.shop.svc.prod-us.atoll.internal", RecordType::TXT).await;
    assert_eq!(direct.metadata.response_code, ResponseCode::NoError);
    assert!(asked(&us, "web.shop.svc.cluster.local") > 0, "{:?}", us.asked());
    stage.end().await;
}

#[tokio::test]
async fn before_the_first_word_of_the_hub_the_member_has_its_dns() {
    let own = own().await;
    let stage = Stage::new(config(&own), Topology::default()).await;
    assert!(stage.server.is_ready());
    for (name, want) in [
        ("web.shop.svc.cluster.local", "NoError web.shop.svc.cluster.local. A 127.21.0.1"),
        ("www.example.org", "NoError www.example.org. A 10.0.0.80"),
        // Never NXDOMAIN, which the member would say of it.
        ("web.shop.svc.atoll.internal", "ServFail"),
        ("web.shop.svc.clusterset.local", "ServFail"),
    ] {
        assert_eq!(said(&stage.ask(name, RecordType::A).await), want, "{name}");
    }
    stage.end().await;
}
