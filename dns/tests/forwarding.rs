//! How members are asked: several servers of which some are ill, slow, unready, liars or forgers; Mesos-DNS; TCP that breaks.

mod stage;

use std::time::Duration;

use atoll_api::topology::Topology;
use atoll_dns::Config;
use atoll_reach::Route;
use futures::future::join_all;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, CNAME, PTR, SRV, TXT};
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;
use stage::clock::{looked, moving, stand, still};
use stage::member::{Manner, MemberDns};
use stage::*;
use tokio::time::Instant;

const WEB: &str = "web.shop.svc.prod-eu.atoll.internal";

fn a(last: u8) -> RData {
    RData::A(A::new(127, 21, 0, last))
}

async fn member() -> MemberDns {
    MemberDns::new("cluster.local").await.knows("web.shop.svc.cluster.local", 0, a(1)).knows(
        "kubernetes.default.svc.cluster.local",
        5,
        a(2),
    )
}

fn servers(members: &[&MemberDns]) -> Vec<String> {
    members.iter().map(|m| m.addr.to_string()).collect()
}

fn of(members: &[&MemberDns]) -> Topology {
    let mut t = federation();
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"servers": servers(members)}));
    t
}

async fn answered(stage: &Stage) -> bool {
    data(&stage.ask(WEB, RecordType::A).await) == "127.21.0.1"
}

#[tokio::test]
async fn no_one_server_of_a_member_decides_that_it_can_not_be_asked() {
    for manner in [
        Manner::Silent,
        Manner::Code(ResponseCode::ServFail),
        Manner::Code(ResponseCode::Refused),
        Manner::Code(ResponseCode::NotImp),
        Manner::Code(ResponseCode::FormErr),
    ] {
        let (bad, good) = (member().await, member().await);
        bad.behave(manner);
        let stage = Stage::new(Config::default(), of(&[&bad, &good])).await;
        for _ in 0..8 {
            let start = Instant::now();
            assert!(answered(&stage).await, "{manner:?}");
            assert!(start.elapsed() < Duration::from_millis(1500), "{manner:?}: {:?}", start.elapsed());
        }
        stage.end().await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_probes_is_asked_last() {
    let (bad, good) = (member().await, member().await);
    bad.behave(Manner::Silent);
    let stage = Stage::new(Config::default(), of(&[&bad, &good])).await;
    // Once it is known, no question waits for it: TTL 0 makes each ask anew.
    until(async || {
        let before = bad.asked().len();
        for _ in 0..10 {
            assert!(answered(&stage).await);
        }
        bad.asked().len() == before
    })
    .await;
    bad.behave(Manner::Well);
    until(async || {
        assert!(answered(&stage).await);
        let before = bad.asked().len();
        for _ in 0..10 {
            assert!(answered(&stage).await);
        }
        bad.asked().len() > before
    })
    .await;
    stage.end().await;
}

/// Failure mode 9: replicas disagree.
#[tokio::test]
async fn that_a_name_is_not_there_is_no_last_word_of_a_replica_that_has_not_read_its_names() {
    let (unready, ready) = (member().await, member().await);
    unready.behave(Manner::Unready);
    let stage = Stage::new(Config::default(), of(&[&unready, &ready])).await;
    // From the first probe on, whoever is asked first.
    until(async || {
        let mut all = true;
        for _ in 0..12 {
            all &= answered(&stage).await;
        }
        all
    })
    .await;
    // Both say so: then it is so.
    let none = stage.ask("none.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert!(is_nxdomain(&none, "prod-eu.atoll.internal."), "{none:?}");
    stage.end().await;
}

#[tokio::test]
async fn a_negative_answer_without_soa_gets_ours_and_is_soon_forgotten() {
    let dns = member().await;
    dns.behave(Manner::Bare);
    let stage = Stage::new(Config::default(), of(&[&dns])).await;
    for (asked, kind, zone, code) in [
        ("no.prod-eu.atoll.internal", RecordType::A, "prod-eu.atoll.internal.", ResponseCode::NXDomain),
        (WEB, RecordType::AAAA, "prod-eu.atoll.internal.", ResponseCode::NoError),
        ("9.9.21.127.in-addr.arpa", RecordType::PTR, "21.127.in-addr.arpa.", ResponseCode::NXDomain),
    ] {
        let got = stage.ask(asked, kind).await;
        assert_eq!((got.metadata.response_code, soa(&got).as_deref()), (code, Some(zone)), "{asked}");
        assert!(got.authorities[0].ttl <= 5, "{asked}");
    }
    stage.end().await;
}

/// Failure mode 3: what crosses members, leaves them, goes round.
#[tokio::test]
async fn chains_are_followed_over_members_and_end_where_they_should() {
    let eu = member()
        .await
        .knows("far.cluster.local", 5, RData::CNAME(CNAME(name("near.prod-us.atoll.internal"))))
        .knows("out.cluster.local", 5, RData::CNAME(CNAME(name("www.example.org"))))
        .knows("leak.cluster.local", 5, RData::CNAME(CNAME(name("x.us.local"))))
        .knows("round.cluster.local", 5, RData::CNAME(CNAME(name("round.prod-us.atoll.internal"))))
        .knows("db.cluster.local", 5, RData::SRV(SRV::new(0, 1, 80, name("web.shop.svc.cluster.local"))));
    let us = MemberDns::new("us.local")
        .await
        .knows("near.us.local", 5, RData::CNAME(CNAME(name("web.us.local"))))
        .knows("web.us.local", 5, a(9))
        .knows("native.us.local", 5, RData::CNAME(CNAME(name("x.cluster.local"))))
        .knows("round.us.local", 5, RData::CNAME(CNAME(name("round.prod-eu.atoll.internal"))));
    let mut t = of(&[&eu]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"domain": "us.local", "servers": servers(&[&us])}));
    let stage = Stage::new(Config::default(), t).await;
    let chain = said(&stage.ask("far.prod-eu.atoll.internal", RecordType::A).await);
    assert_eq!(
        chain,
        "NoError far.prod-eu.atoll.internal. CNAME near.prod-us.atoll.internal.; \
         near.prod-us.atoll.internal. CNAME web.prod-us.atoll.internal.; web.prod-us.atoll.internal. A 127.21.0.9"
    );
    let out = stage.ask("out.prod-eu.atoll.internal", RecordType::A).await;
    assert_eq!(said(&out), "NoError out.prod-eu.atoll.internal. CNAME www.example.org.");
    for asked in ["round.prod-eu.atoll.internal", "native.prod-us.atoll.internal"] {
        let got = stage.ask(asked, RecordType::A).await;
        assert_eq!((got.metadata.response_code, edes(&got)), (ResponseCode::ServFail, vec![0]), "{asked}");
        assert!(got.answers.is_empty(), "{asked}");
    }
    let srv = stage.ask("db.prod-eu.atoll.internal", RecordType::SRV).await;
    assert_eq!(said(&srv), "NoError db.prod-eu.atoll.internal. SRV 0 1 80 web.shop.svc.prod-eu.atoll.internal.");
    stage.end().await;
}

/// Failure mode 4: names grow on their way out, so the size is measured again; what does not fit is whole by TCP.
#[tokio::test]
async fn an_answer_that_grows_too_large_is_cut_for_the_client_and_whole_by_tcp() {
    let mut dns = MemberDns::new("k.l").await;
    for n in 0..24 {
        dns = dns.knows("s.k.l", 5, RData::SRV(SRV::new(0, 1, n, name(&format!("pod-{n}.s.k.l")))));
    }
    let long = "a-member-with-a-name-of-forty-nine-octets-altogethe";
    let mut t = federation();
    add(&mut t, &long[..49], "prod", "eu-central", 21, json!({"domain": "k.l", "servers": servers(&[&dns])}));
    let stage = Stage::new(Config::default(), t).await;
    let asked = format!("s.{}.atoll.internal", &long[..49]);
    let mut plain = query(&asked, RecordType::SRV);
    plain.edns.as_mut().unwrap().set_max_payload(1232);
    let cut = stage.ask_packet("127.0.0.1", &plain).await;
    assert!(cut.metadata.truncation, "{} answers", cut.answers.len());
    let whole = stage.ask_tcp(&asked, RecordType::SRV).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 24);
    assert!(dns.asked().iter().any(|asked| asked.starts_with("udp")));
    stage.end().await;
}

/// TuDoor: what answers another question does not end the wait for the answer.
#[tokio::test]
async fn tudoor_replies_to_other_questions_are_passed_over() {
    let dns = member().await;
    dns.behave(Manner::Spoofed);
    let stage = Stage::new(Config::default(), of(&[&dns])).await;
    assert!(answered(&stage).await);
    assert_eq!(dns.asked(), ["udp web.shop.svc.cluster.local. A"]);
    dns.behave(Manner::Halved);
    assert!(answered(&stage).await);
    assert_eq!(dns.asked()[1..], ["udp web.shop.svc.cluster.local. A", "tcp web.shop.svc.cluster.local. A"]);
    stage.end().await;
}

/// Failure mode 7, "0x20 if not broken": letters of questions are mixed where a server repeats them, and a reply that does not is asked for
/// by TCP; one that changes letters is asked in lower case.
#[tokio::test]
async fn letters_of_questions_are_mixed_for_servers_that_repeat_them_and_for_no_others() {
    let dns = member().await;
    let stage = Stage::new(Config::default(), of(&[&dns])).await;
    let ask = async |n: u32| {
        let got = stage.ask(&format!("WEB{n}.shop.svc.prod-eu.atoll.internal"), RecordType::A).await;
        got.metadata.response_code
    };
    let mixed = |name: &String| name.chars().any(|c| c.is_ascii_uppercase());
    for n in 0..8 {
        assert_eq!(ask(n).await, ResponseCode::NXDomain);
    }
    let spelled = dns.spelled();
    assert!(spelled.iter().filter(|name| mixed(name)).count() >= 7, "{spelled:?}");
    // What comes back has the letters of the client, and of nobody else.
    let got = stage.ask(WEB, RecordType::A).await;
    assert_eq!((got.answers[0].name.to_ascii(), data(&got)), (format!("{WEB}."), "127.21.0.1".to_owned()));
    // From one that always repeated them, other letters are no reply: TCP has the word.
    dns.behave(Manner::Lowering);
    let before = dns.asked().len();
    assert_eq!(ask(8).await, ResponseCode::NXDomain);
    let asked = &dns.asked()[before..];
    assert_eq!(asked[..2], ["udp web8.shop.svc.cluster.local. A", "tcp web8.shop.svc.cluster.local. A"]);
    // It goes on so: it is another server, which changes letters. It is asked in lower case, by UDP.
    for n in 9..12 {
        assert_eq!(ask(n).await, ResponseCode::NXDomain);
    }
    let (spelled, asked) = (dns.spelled().len(), dns.asked().len());
    for n in 12..18 {
        assert_eq!(ask(n).await, ResponseCode::NXDomain);
    }
    assert!(!dns.spelled()[spelled..].iter().any(mixed), "{:?}", &dns.spelled()[spelled..]);
    assert!(dns.asked()[asked..].iter().all(|asked| asked.starts_with("udp ")), "{:?}", &dns.asked()[asked..]);
    stage.end().await;
}

/// Fragments: a datagram larger than what we said we take may have been put together from anybody's.
#[tokio::test]
async fn fragment_a_datagram_larger_than_we_take_is_not_believed() {
    let dns = member().await;
    dns.behave(Manner::Oversized);
    let stage = Stage::new(Config::default(), of(&[&dns])).await;
    assert!(answered(&stage).await);
    assert_eq!(dns.asked(), ["udp web.shop.svc.cluster.local. A", "tcp web.shop.svc.cluster.local. A"]);
    stage.end().await;
}

/// MaginotDNS, and failure mode 7: what a member says of others' names is nowhere to be found afterwards.
#[tokio::test]
async fn maginotdns_a_member_poisons_no_name_outside_its_bailiwick() {
    let (liar, us) = (member().await.knows("evil.cluster.local", 5, a(6)), MemberDns::new("cluster.local").await);
    let us = us.knows("web.shop.svc.cluster.local", 5, a(22));
    liar.behave(Manner::Lying);
    let upstream = MemberDns::new("example").await.knows("www.bank.example", 60, RData::A(A::new(192, 0, 2, 50)));
    let mut t = of(&[&liar]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": servers(&[&us])}));
    let config = Config {
        upstreams: vec![upstream.addr],
        recursion: vec!["127.21.0.0/16".parse().unwrap()],
        ..Config::default()
    };
    let stage = Stage::new(config, t).await;
    for asked in [WEB, "evil.prod-eu.atoll.internal"] {
        let got = stage.ask_from("127.21.0.9", asked, RecordType::A).await;
        assert_eq!((got.answers.len(), got.additionals.len()), (1, 0), "{got:?}");
    }
    assert_eq!(data(&stage.ask_from("127.21.0.9", "www.bank.example", RecordType::A).await), "192.0.2.50");
    assert_eq!(data(&stage.ask("web.shop.svc.prod-us.atoll.internal", RecordType::A).await), "127.21.0.22");
    let counted = metric(&stage, "atoll_dns_refused_records_total", "bailiwick");
    assert!(counted >= 2.0, "{counted}");
    stage.end().await;
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let dns = member().await;
    dns.behave(Manner::Plain);
    let stage = Stage::new(Config::default(), of(&[&dns])).await;
    assert!(answered(&stage).await);
    stage.end().await;
}

/// Mesos-DNS can't be had as a package. This is a stand-in for it: it replays what its documentation ("Service Naming") says that it answers,
/// quirks included, and nothing else.
#[tokio::test]
async fn mesos_dns_by_a_stand_in_that_replays_its_documented_answers() {
    let dns = MemberDns::new("mesos")
        .await
        .knows("search.marathon.mesos", 60, RData::A(A::new(10, 9, 87, 94)))
        .knows("search.marathon.slave.mesos", 60, RData::A(A::new(10, 9, 87, 94)))
        .knows(
            "_search._tcp.marathon.mesos",
            60,
            RData::SRV(SRV::new(0, 0, 31_302, name("search.marathon.slave.mesos"))),
        )
        .knows("leader.mesos", 60, RData::A(A::new(10, 9, 87, 1)))
        .knows("a-task-name-that-is-much.marathon.mesos", 60, RData::A(A::new(10, 9, 87, 95)))
        .knows("mesos", 60, RData::NS(hickory_proto::rr::rdata::NS(name("ns1.mesos"))))
        .knows("ns1.mesos", 60, RData::A(A::new(10, 9, 87, 2)))
        .knows("api.l4lb.thisdcos.directory", 5, RData::A(A::new(11, 1, 2, 3)));
    dns.behave(Manner::Mesos);
    let mut t = federation();
    let aliases = json!([{"name": "l4lb", "domain": "l4lb.thisdcos.directory"}]);
    let facts = json!({"kind": "MesosDNS", "servers": servers(&[&dns]), "aliases": aliases});
    add(&mut t, "dc1", "lab", "eu-central", 24, facts);
    let stage = Stage::new(Config::default(), t).await;
    for (asked, kind, want) in [
        (
            "search.marathon.dc1.atoll.internal",
            RecordType::A,
            "NoError search.marathon.dc1.atoll.internal. A 10.9.87.94",
        ),
        (
            "_search._tcp.marathon.dc1.atoll.internal",
            RecordType::SRV,
            "NoError _search._tcp.marathon.dc1.atoll.internal. SRV 0 0 31302 search.marathon.slave.dc1.atoll.internal.",
        ),
        ("leader.dc1.atoll.internal", RecordType::A, "NoError leader.dc1.atoll.internal. A 10.9.87.1"),
        ("dc1.atoll.internal", RecordType::NS, "NoError dc1.atoll.internal. NS ns1.dc1.atoll.internal."),
        ("api.l4lb.dc1.atoll.internal", RecordType::A, "NoError api.l4lb.dc1.atoll.internal. A 11.1.2.3"),
        // "requests for records of other types … will return NXDOMAIN": the names are there all the same.
        ("search.marathon.dc1.atoll.internal", RecordType::AAAA, "NoError"),
        ("_search._tcp.marathon.dc1.atoll.internal", RecordType::A, "NoError"),
        ("none.marathon.dc1.atoll.internal", RecordType::AAAA, "NXDomain"),
        ("none.marathon.dc1.atoll.internal", RecordType::A, "NXDomain"),
        // "up to 24 characters … Mesos-DNS will trim it".
        (
            "a-task-name-that-is-much-too-long.marathon.dc1.atoll.internal",
            RecordType::A,
            "NoError a-task-name-that-is-much-too-long.marathon.dc1.atoll.internal. CNAME a-task-name-that-is-much.marathon.dc1.atoll.internal.; \
             a-task-name-that-is-much.marathon.dc1.atoll.internal. A 10.9.87.95",
        ),
    ] {
        assert_eq!(said(&stage.ask(asked, kind).await), want, "{asked} {kind}");
    }
    // "does not support PTR records": it is not even asked.
    let before = dns.asked().len();
    assert!(is_nxdomain(&stage.ask("1.0.24.127.in-addr.arpa", RecordType::PTR).await, "24.127.in-addr.arpa."));
    assert_eq!(dns.asked().len(), before);
    stage.end().await;
}

#[tokio::test]
async fn where_ranges_overlap_each_asker_sees_its_own_members_names() {
    let ptr = |to: &str| RData::PTR(PTR(name(to)));
    let eu = member().await.knows("7.0.60.127.in-addr.arpa", 5, ptr("a.cluster.local"));
    let us = member().await.knows("7.0.60.127.in-addr.arpa", 5, ptr("b.cluster.local"));
    let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    let eu = eu.knows(six, 5, ptr("six.cluster.local"));
    let mut t = of(&[&eu]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": servers(&[&us])}));
    let ranges = |net: &str, more: &str| -> Vec<String> { [net, "127.60.0.0/16", more].map(str::to_owned).to_vec() };
    change(&mut t, "prod-eu", |c| c.cidrs.pods = ranges("127.21.0.0/16", "fd00::/64"));
    change(&mut t, "prod-us", |c| c.cidrs.pods = ranges("127.22.0.0/16", "127.60.0.0/24"));
    let stage = Stage::new(Config::default(), t).await;
    let asked = "7.0.60.127.in-addr.arpa";
    for (from, want) in [
        ("127.21.0.5", "a.prod-eu.atoll.internal."),
        ("127.22.0.5", "b.prod-us.atoll.internal."),
        // Nobody's: the narrowest range's.
        ("127.0.0.1", "b.prod-us.atoll.internal."),
    ] {
        assert_eq!(data(&stage.ask_from(from, asked, RecordType::PTR).await), want, "{from}");
    }
    assert_eq!(data(&stage.ask(six, RecordType::PTR).await), "six.prod-eu.atoll.internal.");
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_opened_anew_and_its_questions_asked_again() {
    let _clock = stand();
    let dns = member().await;
    let t = of(&[&dns]);
    let stage = Stage::new(Config::default(), t.clone()).await;
    stage.routes.set(routes(&t, Route::Relay));
    let agent = moving(0, stage.agent("prod-eu")).await;
    moving(0, until(async || answered(&stage).await)).await;
    // Everybody shares one connection.
    let before = dns.connections();
    let names: Vec<String> = (0..50).map(|n| format!("x{n}.prod-eu.atoll.internal")).collect();
    let got = still(join_all(names.iter().map(|n| stage.ask(n, RecordType::A)))).await;
    assert!(got.iter().all(|m| m.metadata.response_code == ResponseCode::NXDomain));
    assert_eq!(dns.connections(), before);
    // What was asked on the one that breaks is asked on another, and waits for no clock.
    dns.hang_up();
    assert!(still(answered(&stage)).await);
    assert!(dns.connections() > before);
    // A slow answer holds up nobody behind it.
    dns.behave(Manner::Slow(Duration::from_millis(600)));
    let mut slow = Box::pin(stage.ask(WEB, RecordType::A));
    still(async {
        while dns.asked().last().is_none_or(|last| !last.contains("web.")) {
            tokio::select! {
                _ = &mut slow => panic!("it is slow"),
                _ = looked() => {}
            }
        }
    })
    .await;
    dns.behave(Manner::Well);
    let quick = still(stage.ask("quick.prod-eu.atoll.internal", RecordType::A)).await;
    assert_eq!(quick.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(data(&moving(0, slow).await), "127.21.0.1");
    // Half open: nothing comes any more. It is given up, and the next question finds a new connection.
    dns.behave(Manner::Silent);
    let lost = moving(0, stage.ask("lost.prod-eu.atoll.internal", RecordType::A)).await;
    assert_eq!(lost.metadata.response_code, ResponseCode::ServFail);
    dns.behave(Manner::Well);
    moving(0, until(async || answered(&stage).await)).await;
    drop(agent);
    moving(0, stage.end()).await;
}

/// The memory of this process, in octets.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux tells it");
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    resident.expect("the second number is it") * 4096
}

#[tokio::test(start_paused = true)]
async fn a_flood_for_a_silent_member_costs_others_nothing() {
    let _clock = stand();
    let (silent, quick) = (member().await, member().await);
    silent.behave(Manner::Silent);
    let mut t = of(&[&silent]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": servers(&[&quick])}));
    let stage = Stage::new(Config::default(), t).await;
    let before = resident();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Many times what the member's share holds. The clock stands, so nothing of it ever ends, and others are answered all the same.
    for n in 0..4_000_u32 {
        let packet = query(&format!("y{n}.prod-eu.atoll.internal"), RecordType::A).to_vec().unwrap();
        socket.send_to(&packet, stage.addr).await.unwrap();
        if n % 20 == 19 {
            let got = still(stage.ask(&format!("x{n}.prod-us.atoll.internal"), RecordType::A)).await;
            assert_eq!(got.metadata.response_code, ResponseCode::NXDomain, "{}", ede_text(&got));
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB more", grown >> 20);
    // Half its share is for names that nothing is known of; the newest beyond that are shed.
    assert_eq!(metric(&stage, "atoll_dns_shed_total", "full"), 4_000.0 - 512.0);
    let asked = silent.asked().len();
    assert!(asked <= 256, "the silent member was asked {asked} times");
    moving(0, stage.end()).await;
}

#[tokio::test]
async fn what_a_member_has_of_any_type_comes_through() {
    let txt = RData::TXT(TXT::new(vec!["1.1.0".into()]));
    let dns = member().await.knows("dns-version.cluster.local", 5, txt);
    let stage = Stage::new(Config::default(), of(&[&dns])).await;
    assert_eq!(data(&stage.ask("dns-version.prod-eu.atoll.internal", RecordType::TXT).await), "1.1.0");
    for (kind, code, why) in
        [(RecordType::Unknown(17), ResponseCode::Refused, 21), (RecordType::Unknown(65_400), ResponseCode::Refused, 21)]
    {
        let got = stage.ask(WEB, kind).await;
        assert_eq!((got.metadata.response_code, edes(&got)), (code, vec![why]), "{kind}");
    }
    assert_eq!(metric(&stage, "atoll_dns_refused_records_total", "opaque"), 2.0);
    // A question that can't be asked: the member's domain is longer than ours.
    let mut t = federation();
    let domain = "a-domain.that-is.much-longer.than-ours.example";
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"domain": domain, "servers": servers(&[&dns])}));
    stage.publish(t).await;
    let got = stage.ask(&format!("{}.prod-eu.atoll.internal", ["a"; 110].join(".")), RecordType::A).await;
    assert_eq!((got.metadata.response_code, edes(&got)), (ResponseCode::ServFail, vec![0]));
    assert!(ede_text(&got).contains("255 octets"), "{}", ede_text(&got));
    stage.end().await;
}
