//! Where names belong, over real sockets: own records, members, federated services, hosts, reverse names, others.

mod stage;

use std::sync::Arc;

use atoll_api::topology::{Site, Topology};
use atoll_dns::Config;
use atoll_reach::Route;
use hickory_proto::op::{Edns, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SRV};
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;
use stage::member::{Manner, MemberDns};
use stage::*;

fn a(last: u8) -> RData {
    RData::A(A::new(127, 21, 0, last))
}

/// prod-eu with a DNS that knows a few names.
async fn eu() -> MemberDns {
    let member = MemberDns::at("127.0.0.1", "cluster.local").await;
    member
        .knows("web.shop.svc.cluster.local", 5, a(1))
        .knows("db.shop.svc.cluster.local", 5, RData::CNAME(CNAME(name("web.shop.svc.cluster.local"))))
        .knows("far.shop.svc.cluster.local", 5, RData::CNAME(CNAME(name("api.shop.svc.prod-us.atoll.internal"))))
        .knows("ext.shop.svc.cluster.local", 5, RData::CNAME(CNAME(name("www.example.org"))))
        .knows(
            "_http._tcp.web.shop.svc.cluster.local",
            5,
            RData::SRV(SRV::new(0, 1, 80, name("web.shop.svc.cluster.local"))),
        )
        .knows("1.0.21.127.in-addr.arpa", 5, RData::PTR(PTR(name("web.shop.svc.cluster.local"))))
}

fn one(member: &MemberDns) -> Topology {
    let mut t = federation();
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"servers": [member.addr.to_string()]}));
    t
}

#[tokio::test]
async fn own_records_are_answered_by_udp_and_tcp() {
    let mut t = federation();
    let endpoints = json!({"endpoints": [
        {"dnsName": "db.atoll.internal", "recordType": "A", "recordTTL": 30, "targets": ["192.0.2.7", "192.0.2.8"]},
        {"dnsName": "www.atoll.internal", "recordType": "CNAME", "targets": ["db.atoll.internal"]},
        {"dnsName": "big.atoll.internal", "recordType": "TXT", "targets": ["x".repeat(3000)]},
    ]});
    t.records.insert("ops/a".into(), Arc::new(serde_json::from_value(endpoints).unwrap()));
    let zone = json!({"serial": 9, "spec": {"apex": "example.com", "soa": {"negativeTtl": 30}, "records": [
        {"name": "*", "type": "A", "values": ["192.0.2.9"]},
        {"name": "ns", "type": "A", "values": ["192.0.2.53"]},
        {"name": "@", "type": "CAA", "values": ["0 issue \"ca.example\""]}]}});
    t.zones.insert("example-com".into(), Arc::new(serde_json::from_value(zone).unwrap()));
    let stage = Stage::new(Config::default(), t).await;
    for (asked, kind, want) in [
        ("db.atoll.internal", RecordType::A, "NoError db.atoll.internal. A 192.0.2.7; db.atoll.internal. A 192.0.2.8"),
        ("DB.atoll.INTERNAL", RecordType::A, "NoError DB.atoll.INTERNAL. A 192.0.2.7; DB.atoll.INTERNAL. A 192.0.2.8"),
        ("www.atoll.internal", RecordType::CNAME, "NoError www.atoll.internal. CNAME db.atoll.internal."),
        ("x.example.com", RecordType::A, "NoError x.example.com. A 192.0.2.9"),
        ("db.atoll.internal", RecordType::AAAA, "NoError"),
        ("no.atoll.internal", RecordType::A, "NXDomain"),
    ] {
        let (udp, tcp) = (stage.ask(asked, kind).await, stage.ask_tcp(asked, kind).await);
        assert_eq!(said(&udp), want, "{asked} {kind}");
        assert_eq!(said(&tcp), want, "{asked} {kind} by TCP");
        assert!(udp.metadata.authoritative, "{asked}");
        assert_eq!(soa(&udp).is_some(), udp.answers.is_empty(), "{asked}");
    }
    let mut secure = query("db.atoll.internal", RecordType::A);
    secure.edns.as_mut().unwrap().set_dnssec_ok(true);
    assert!(stage.ask_packet("127.0.0.1", &secure).await.edns.unwrap().flags().dnssec_ok);
    assert_eq!(stage.ask("example.com", RecordType::NS).await.additionals.len(), 1);
    assert_eq!(stage.ask("example.com", RecordType::CAA).await.answers.len(), 1);
    assert_eq!(stage.ask("www.atoll.internal", RecordType::A).await.answers.len(), 3);
    // RFC 2181 §9: what does not fit is marked, and is whole by TCP.
    let cut = stage.ask("big.atoll.internal", RecordType::TXT).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.edns.is_some());
    let whole = stage.ask_tcp("big.atoll.internal", RecordType::TXT).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 1);
    stage.end().await;
}

#[tokio::test]
async fn a_members_names_are_asked_there_and_translated_both_ways() {
    let member = eu().await;
    let stage = Stage::new(Config::default(), one(&member)).await;
    for (asked, kind, want) in [
        (
            "web.shop.svc.prod-eu.atoll.internal",
            RecordType::A,
            "NoError web.shop.svc.prod-eu.atoll.internal. A 127.21.0.1",
        ),
        (
            "db.shop.svc.prod-eu.atoll.internal",
            RecordType::A,
            "NoError db.shop.svc.prod-eu.atoll.internal. CNAME web.shop.svc.prod-eu.atoll.internal.; web.shop.svc.prod-eu.atoll.internal. A 127.21.0.1",
        ),
        (
            "_http._tcp.web.shop.svc.prod-eu.atoll.internal",
            RecordType::SRV,
            "NoError _http._tcp.web.shop.svc.prod-eu.atoll.internal. SRV 0 1 80 web.shop.svc.prod-eu.atoll.internal.",
        ),
        (
            "1.0.21.127.in-addr.arpa",
            RecordType::PTR,
            "NoError 1.0.21.127.in-addr.arpa. PTR web.shop.svc.prod-eu.atoll.internal.",
        ),
        (
            "ext.shop.svc.prod-eu.atoll.internal",
            RecordType::A,
            "NoError ext.shop.svc.prod-eu.atoll.internal. CNAME www.example.org.",
        ),
        ("web.shop.svc.prod-eu.atoll.internal", RecordType::AAAA, "NoError"),
        ("prod-eu.atoll.internal", RecordType::A, "NoError"),
        ("web.shop.svc.prod-eu.atoll.internal", RecordType::DNSKEY, "NoError"),
        ("web.shop.svc.prod-eu.atoll.internal", RecordType::Unknown(17), "Refused"),
        ("web.shop.svc.prod-eu.atoll.internal", RecordType::Unknown(254), "NotImp"),
        ("web.shop.svc.prod-eu.atoll.internal", RecordType::AXFR, "NotAuth"),
        ("0.21.127.in-addr.arpa", RecordType::PTR, "NoError"),
    ] {
        assert_eq!(said(&stage.ask(asked, kind).await), want, "{asked} {kind}");
    }
    assert!(is_nxdomain(&stage.ask("no.prod-eu.atoll.internal", RecordType::A).await, "prod-eu.atoll.internal."));
    assert!(is_nxdomain(&stage.ask("9.9.21.127.in-addr.arpa", RecordType::PTR).await, "21.127.in-addr.arpa."));
    assert!(member.asked().contains(&"udp web.shop.svc.cluster.local. A".to_owned()), "{:?}", member.asked());
    // Asked again it comes from the cache.
    let before = member.asked().len();
    stage.ask("WEB.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert_eq!(member.asked().len(), before);
    stage.end().await;
}

#[tokio::test]
async fn a_chain_goes_on_in_another_member() {
    let (member, us) = (eu().await, MemberDns::new("cluster.local").await);
    let us = us.knows("api.shop.svc.cluster.local", 5, a(77));
    let mut t = one(&member);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [us.addr.to_string()]}));
    let stage = Stage::new(Config::default(), t).await;
    let got = stage.ask("far.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert_eq!(
        said(&got),
        "NoError api.shop.svc.prod-us.atoll.internal. A 127.21.0.77; far.shop.svc.prod-eu.atoll.internal. CNAME api.shop.svc.prod-us.atoll.internal."
    );
    stage.end().await;
}

#[tokio::test]
async fn consul_and_mesos_are_asked_in_their_own_words() {
    let consul = MemberDns::new("consul").await.knows("web.service.consul", 0, a(5));
    let mesos = MemberDns::new("mesos").await.knows("web.marathon.mesos", 5, a(6)).knows(
        "api.l4lb.thisdcos.directory",
        5,
        a(7),
    );
    let mut t = federation();
    add(&mut t, "lab", "lab", "eu-central", 23, json!({"kind": "Consul", "servers": [consul.addr.to_string()]}));
    let aliases = json!([{"name": "l4lb", "domain": "l4lb.thisdcos.directory"}]);
    add(
        &mut t,
        "dc1",
        "lab",
        "eu-central",
        24,
        json!({"kind": "MesosDNS", "servers": [mesos.addr.to_string()], "aliases": aliases}),
    );
    let stage = Stage::new(Config::default(), t).await;
    for (asked, want) in [
        ("web.service.lab.atoll.internal", "127.21.0.5"),
        ("web.marathon.dc1.atoll.internal", "127.21.0.6"),
        ("api.l4lb.dc1.atoll.internal", "127.21.0.7"),
    ] {
        assert_eq!(data(&stage.ask(asked, RecordType::A).await), want, "{asked}");
    }
    // Consul's UDP answers may be cut without saying so.
    assert_eq!(consul.asked(), ["tcp web.service.consul. A"]);
    stage.end().await;
}

#[tokio::test]
async fn a_truncated_answer_is_asked_again_by_tcp() {
    let member = eu().await;
    member.behave(Manner::Truncating);
    let stage = Stage::new(Config::default(), one(&member)).await;
    assert_eq!(data(&stage.ask("web.shop.svc.prod-eu.atoll.internal", RecordType::A).await), "127.21.0.1");
    let asked = member.asked();
    assert_eq!(asked, ["udp web.shop.svc.cluster.local. A", "tcp web.shop.svc.cluster.local. A"]);
    stage.end().await;
}

#[tokio::test]
async fn a_member_speaks_for_its_own_names_only() {
    let member = eu().await;
    member.behave(Manner::Lying);
    let stage = Stage::new(Config::default(), one(&member)).await;
    let got = stage.ask("web.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert_eq!(said(&got), "NoError web.shop.svc.prod-eu.atoll.internal. A 127.21.0.1");
    assert!(got.additionals.is_empty());
    assert_eq!(stage.ask("www.bank.example", RecordType::A).await.metadata.response_code, ResponseCode::Refused);
    stage.end().await;
}

#[tokio::test]
async fn a_federated_name_is_the_nearest_healthy_clusters_and_never_crosses_a_set() {
    let mut t = federation();
    for (name, environment, region, net) in
        [("prod-eu", "prod", "eu-central", 21), ("prod-us", "prod", "us-east", 22), ("dev", "dev", "eu-central", 29)]
    {
        add(&mut t, name, environment, region, net, json!(null));
    }
    offer(&mut t, "prod", &[("prod-eu", 21), ("prod-us", 22)]);
    let gateway = Site {
        instance: "gw".into(),
        kind: "gateway".into(),
        addresses: vec!["192.0.2.80:80".into()],
        // One Gateway has an address of its own.
        gateways: Some(
            serde_json::from_value(json!({"infra/own": {"generation": 1, "addresses": ["192.0.2.81"],
                "hosts": ["*.own.example.com"], "clusterSet": "prod"}}))
            .unwrap(),
        ),
        ..Site::default()
    };
    t.sites.insert("gw".into(), Arc::new(gateway));
    let hosts = json!({"hosts": ["shop.example.com", "a.own.example.com"], "answer": "Gateway", "ttlSeconds": 7});
    t.traffic
        .insert(atoll_api::names::ServiceName::new("shop", "hosts"), Arc::new(serde_json::from_value(hosts).unwrap()));
    let stage = Stage::new(Config::default(), t.clone()).await;
    let web = "web.shop.svc.atoll.internal";
    for (from, asked, want) in [
        ("127.21.0.5", web, "127.21.0.80"),
        ("127.22.0.5", web, "127.22.0.80"),
        ("127.21.0.5", "web.shop.svc.clusterset.local", "127.21.0.80"),
        ("127.21.0.5", "web.shop.svc.us-east.region.atoll.internal", "127.22.0.80"),
        ("127.21.0.5", "shop.example.com", "192.0.2.80"),
        ("127.21.0.5", "a.own.example.com", "192.0.2.81"),
    ] {
        let got = stage.ask_from(from, asked, RecordType::A).await;
        assert_eq!(data(&got), want, "{from} {asked}");
        assert!(got.answers[0].ttl <= 7 && got.metadata.authoritative);
    }
    // In dev's set there is no such service; no topology detail tells that another set has one.
    assert!(is_nxdomain(&stage.ask_from("127.29.0.5", web, RecordType::A).await, "atoll.internal."));
    assert!(is_nxdomain(
        &stage.ask_from("127.29.0.5", "web.shop.svc.clusterset.local", RecordType::A).await,
        "clusterset.local."
    ));
    assert!(is_nxdomain(&stage.ask("web.shop.svc.nowhere.atoll.internal", RecordType::A).await, "atoll.internal."));
    let none = stage.ask_from("127.21.0.5", web, RecordType::AAAA).await;
    assert_eq!((said(&none).as_str(), soa(&none).as_deref()), ("NoError", Some("atoll.internal.")));
    // The hub says that prod-eu is not ready: the next answer knows it.
    change(&mut t, "prod-eu", |c| c.ready = false);
    stage.publish(t).await;
    assert_eq!(data(&stage.ask_from("127.21.0.5", web, RecordType::A).await), "127.22.0.80");
    stage.end().await;
}

#[tokio::test]
async fn a_member_counts_as_soon_as_it_is_added_and_no_longer_than_it_is_there() {
    let member = eu().await;
    let web = "web.shop.svc.prod-eu.atoll.internal";
    let stage = Stage::new(Config::default(), federation()).await;
    assert!(is_nxdomain(&stage.ask(web, RecordType::A).await, "atoll.internal."));
    stage.routes.set(routes(&one(&member), Route::Direct));
    stage.publish(one(&member)).await;
    assert_eq!(data(&stage.ask(web, RecordType::A).await), "127.21.0.1");
    stage.publish(federation()).await;
    assert!(is_nxdomain(&stage.ask(web, RecordType::A).await, "atoll.internal."));
    // Another member of that name does not inherit what was answered for the first.
    let other = MemberDns::new("cluster.local").await.knows("web.shop.svc.cluster.local", 5, a(99));
    stage.publish(one(&other)).await;
    assert_eq!(data(&stage.ask(web, RecordType::A).await), "127.21.0.99");
    stage.end().await;
}

#[tokio::test]
async fn other_names_are_looked_up_for_those_who_may() {
    let upstream = MemberDns::new("org").await.knows("www.example.org", 60, RData::A(A::new(198, 51, 100, 50)));
    let config = Config {
        upstreams: vec![upstream.addr],
        recursion: vec!["127.21.0.0/16".parse().unwrap()],
        ..Config::default()
    };
    let member = eu().await;
    let stage = Stage::new(config, one(&member)).await;
    let refused = stage.ask("www.example.org", RecordType::A).await;
    assert_eq!((refused.metadata.response_code, edes(&refused)), (ResponseCode::Refused, vec![18]));
    assert!(upstream.asked().is_empty() && !refused.metadata.recursion_available);
    let given = stage.ask_from("127.21.0.9", "www.example.org", RecordType::A).await;
    assert_eq!(said(&given), "NoError www.example.org. A 198.51.100.50");
    assert!(given.metadata.recursion_available && !given.metadata.authoritative);
    // A chain out of a member is followed for them, too.
    let chain = stage.ask_from("127.21.0.9", "ext.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert_eq!(chain.answers.len(), 2);
    let mut plain = query("www.example.org", RecordType::A);
    plain.metadata.recursion_desired = false;
    assert_eq!(stage.ask_packet("127.21.0.9", &plain).await.metadata.response_code, ResponseCode::Refused);
    let mut odd = query("www.example.org", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    odd.set_edns(edns);
    // RFC 6891 §6.1.3: BADVERS; 16 is BADSIG in another place.
    let code = stage.ask_packet("127.21.0.9", &odd).await.metadata.response_code;
    assert_eq!(u16::from(code), u16::from(ResponseCode::BADVERS));
    stage.end().await;
}
