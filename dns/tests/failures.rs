//! What is answered when something is wrong: members that are down, slow or cut off, packets that are none, a hub that is silent.

mod stage;

use std::time::Duration;

use atoll_api::topology::Topology;
use atoll_dns::Config;
use atoll_reach::Route;
use futures::future::join_all;
use futures::poll;
use hickory_proto::op::{OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;
use stage::clock::{looked, moving, stand, still};
use stage::member::{Manner, MemberDns};
use stage::*;
use tokio::time::Instant;

const WEB: &str = "web.shop.svc.prod-eu.atoll.internal";
/// What a client waits.
const SOON: Duration = Duration::from_secs(2);

async fn member(ttl: u32) -> MemberDns {
    MemberDns::new("cluster.local").await.knows("web.shop.svc.cluster.local", ttl, RData::A(A::new(127, 21, 0, 1)))
}

fn one(servers: &[&MemberDns]) -> Topology {
    let servers: Vec<String> = servers.iter().map(|m| m.addr.to_string()).collect();
    let mut t = federation();
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"servers": servers}));
    t
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_down_is_stale_or_servfail_within_two_seconds_and_never_nxdomain() {
    // The server's seconds, however busy the machine is.
    let _clock = stand();
    for manner in [Manner::Silent, Manner::Code(ResponseCode::ServFail), Manner::Code(ResponseCode::Refused)] {
        moving(0, is_down(manner)).await;
    }
}

async fn is_down(manner: Manner) {
    let dns = member(1).await;
    let stage = Stage::new(Config::default(), one(&[&dns])).await;
    assert_eq!(data(&stage.ask(WEB, RecordType::A).await), "127.21.0.1");
    dns.behave(manner);
    // Its second passes.
    until(async || {
        let start = Instant::now();
        let got = stage.ask(WEB, RecordType::A).await;
        assert!(start.elapsed() < SOON, "{manner:?}");
        assert_eq!(data(&got), "127.21.0.1", "{manner:?}");
        // RFC 8914 §4.4: Stale Answer.
        edes(&got).contains(&3) && got.answers[0].ttl > 0
    })
    .await;
    let start = Instant::now();
    let never = stage.ask("api.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert!(start.elapsed() < SOON, "{manner:?}");
    assert_eq!(never.metadata.response_code, ResponseCode::ServFail, "{manner:?}");
    assert!(!edes(&never).is_empty() && never.answers.is_empty() && soa(&never).is_none(), "{manner:?}");
    dns.behave(Manner::Well);
    until(async || edes(&stage.ask(WEB, RecordType::A).await).is_empty()).await;
    stage.end().await;
}

#[tokio::test]
async fn a_dead_port_is_servfail_at_once_and_a_cluster_without_dns_says_so() {
    let dns = member(1).await;
    dns.die();
    let mut t = one(&[&dns]);
    add(&mut t, "bare", "prod", "eu-central", 22, json!(null));
    let stage = Stage::new(Config::default(), t).await;
    for (asked, code) in [(WEB, 23), ("x.bare.atoll.internal", 22)] {
        let got = stage.ask(asked, RecordType::A).await;
        assert_eq!((got.metadata.response_code, edes(&got)), (ResponseCode::ServFail, vec![code]), "{asked}");
    }
    stage.end().await;
}

#[tokio::test]
async fn another_server_of_the_member_answers_for_one_that_fails() {
    for manner in [Manner::Silent, Manner::Code(ResponseCode::ServFail), Manner::Code(ResponseCode::Refused)] {
        let (bad, good) = (member(5).await, member(5).await);
        bad.behave(manner);
        let stage = Stage::new(Config::default(), one(&[&bad, &good])).await;
        assert_eq!(data(&stage.ask(WEB, RecordType::A).await), "127.21.0.1", "{manner:?}");
        assert!(!bad.asked().is_empty() || !good.asked().is_empty());
        stage.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_member_delays_nobody_else() {
    let _clock = stand();
    let (slow, quick) = (member(5).await, member(5).await);
    slow.behave(Manner::Silent);
    let mut t = one(&[&slow]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [quick.addr.to_string()]}));
    let stage = Stage::new(Config::default(), t).await;
    let names: Vec<String> = (0..300).map(|n| format!("x{n}.prod-eu.atoll.internal")).collect();
    let mut flood = Box::pin(join_all(names.iter().map(|n| stage.ask(n, RecordType::A))));
    // All of them are asked, and wait for the clock.
    assert!(poll!(&mut flood).is_pending());
    still(async {
        while slow.asked().len() < 256 {
            tokio::select! {
                _ = &mut flood => panic!("nobody answered"),
                _ = looked() => {}
            }
        }
    })
    .await;
    let got = still(stage.ask("web.shop.svc.prod-us.atoll.internal", RecordType::A)).await;
    assert_eq!(data(&got), "127.21.0.1");
    assert!(poll!(&mut flood).is_pending());
    let flooded = moving(0, flood).await;
    assert!(flooded.iter().all(|m| m.metadata.response_code == ResponseCode::ServFail));
    moving(0, stage.end()).await;
}

#[tokio::test]
async fn what_is_no_query_gets_formerr_or_nothing_and_the_server_goes_on() {
    let dns = member(5).await;
    let stage = Stage::new(Config::default(), one(&[&dns])).await;
    let whole = query(WEB, RecordType::A).to_vec().unwrap();
    let mut update = query(WEB, RecordType::A);
    update.metadata.op_code = OpCode::Update;
    let mut pointer = whole[..12].to_vec();
    pointer.extend([0xc0, 0x0c, 0, 1, 0, 1]);
    let two = {
        let mut p = whole.clone();
        p[5] = 2;
        p
    };
    for (what, packet, code) in [
        ("an update", update.to_vec().unwrap(), ResponseCode::FormErr),
        ("half a question", whole[..20].to_vec(), ResponseCode::FormErr),
        ("a header alone", whole[..12].to_vec(), ResponseCode::FormErr),
        ("a pointer to itself", pointer, ResponseCode::FormErr),
        ("two questions", two, ResponseCode::FormErr),
    ] {
        let reply = stage.raw("127.0.0.1", &packet).await.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(&reply[..2], &packet[..2], "{what}");
        assert_eq!((reply[2] >> 7, reply[3] & 0x0f), (1, code.low()), "{what}");
    }
    // Nothing comes back for what is no query; a query behind them is answered.
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut reply = whole.clone();
    reply[2] |= 0x80;
    for packet in [&b""[..], &[0; 11], &b"GET / HTTP/1.1\r\n\r\n"[..9], &reply] {
        socket.send_to(packet, stage.addr).await.unwrap();
    }
    let mut seed = 7_u32;
    for len in 0..400_usize {
        let packet: Vec<u8> = (0..len)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        socket.send_to(&packet, stage.addr).await.unwrap();
    }
    assert_eq!(data(&stage.ask(WEB, RecordType::A).await), "127.21.0.1");
    stage.end().await;
}

#[tokio::test]
async fn answers_on_one_connection_come_as_they_are_ready() {
    let (slow, quick) = (member(5).await, member(5).await);
    slow.behave(Manner::Silent);
    let mut t = one(&[&slow]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [quick.addr.to_string()]}));
    let stage = Stage::new(Config::default(), t).await;
    let mut stream = stage.connect().await;
    let (first, second) = (query(WEB, RecordType::A), query("web.shop.svc.prod-us.atoll.internal", RecordType::A));
    write_framed(&mut stream, &first).await;
    write_framed(&mut stream, &second).await;
    let replies = [read_framed(&mut stream).await, read_framed(&mut stream).await];
    assert_eq!(replies.each_ref().map(|m| m.metadata.id), [second.metadata.id, first.metadata.id]);
    // A stream that is no DNS harms nobody.
    use tokio::io::AsyncWriteExt as _;
    let mut odd = stage.connect().await;
    odd.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(stage.ask_tcp("web.shop.svc.prod-us.atoll.internal", RecordType::A).await.answers.len(), 1);
    stage.end().await;
}

#[tokio::test]
async fn a_member_that_is_not_routable_is_asked_through_its_agent() {
    let dns = member(5).await;
    let t = one(&[&dns]);
    let stage = Stage::new(Config::default(), t.clone()).await;
    stage.routes.set(routes(&t, Route::Relay));
    let got = stage.ask(WEB, RecordType::A).await;
    assert_eq!((got.metadata.response_code, edes(&got)), (ResponseCode::ServFail, vec![23]));
    let agent = stage.agent("prod-eu").await;
    until(async || data(&stage.ask(WEB, RecordType::A).await) == "127.21.0.1").await;
    assert!(dns.asked().iter().all(|asked| asked.starts_with("tcp ")), "{:?}", dns.asked());
    drop(agent);
    stage.end().await;
}

#[tokio::test]
async fn with_the_hub_silent_our_own_probes_take_a_cut_cluster_out_within_fifteen_seconds() {
    let (eu, us) = (member(5).await, member(5).await);
    let mut t = one(&[&eu]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [us.addr.to_string()]}));
    offer(&mut t, "prod", &[("prod-eu", 21), ("prod-us", 22)]);
    let stage = Stage::new(Config::default(), t).await;
    stage.silence();
    let web = "web.shop.svc.atoll.internal";
    let answer = async || data(&stage.ask_from("127.21.0.5", web, RecordType::A).await);
    assert_eq!(answer().await, "127.21.0.80");
    assert!(stage.server.is_ready(), "on the last good data");
    until(async || stage.report.borrow().probes.len() == 2).await;
    let start = Instant::now();
    eu.behave(Manner::Silent);
    until(async || answer().await == "127.22.0.80").await;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(stage.report.borrow().probes.get("prod-eu"), Some(&false));
    // Its own names fail at once now, and come back when it does.
    let start = Instant::now();
    assert_eq!(stage.ask(WEB, RecordType::A).await.metadata.response_code, ResponseCode::ServFail);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    eu.behave(Manner::Well);
    until(async || answer().await == "127.21.0.80").await;
    until(async || data(&stage.ask(WEB, RecordType::A).await) == "127.21.0.1").await;
    stage.end().await;
}

#[tokio::test]
async fn a_cluster_whose_dns_is_ill_serves_on_while_its_agent_is_there() {
    let (eu, us) = (member(5).await, member(5).await);
    let mut t = one(&[&eu]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [us.addr.to_string()]}));
    offer(&mut t, "prod", &[("prod-eu", 21), ("prod-us", 22)]);
    let stage = Stage::new(Config::default(), t).await;
    stage.silence();
    let agent = stage.agent("prod-eu").await;
    eu.behave(Manner::Silent);
    // Once our probes know it, its names are not waited for.
    until(async || {
        let start = Instant::now();
        let got = stage.ask(WEB, RecordType::A).await;
        assert_eq!(got.metadata.response_code, ResponseCode::ServFail);
        let explained = stage.explain(WEB, None).await;
        start.elapsed() < Duration::from_millis(500) && explained["health"]["probedDown"] == json!(["prod-eu"])
    })
    .await;
    let answer = async || data(&stage.ask_from("127.21.0.5", "web.shop.svc.atoll.internal", RecordType::A).await);
    assert_eq!(answer().await, "127.21.0.80");
    drop(agent);
    until(async || answer().await == "127.22.0.80").await;
    stage.end().await;
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let dns = member(5).await;
    let stage = Stage::new(Config::default(), one(&[&dns])).await;
    let mut held = Vec::new();
    for _ in 0..140 {
        held.push(stage.connect().await);
    }
    // Those beyond the client's share are closed.
    use tokio::io::AsyncReadExt as _;
    let mut last = held.pop().unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), last.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    write_framed(&mut held[0], &query(WEB, RecordType::A)).await;
    assert_eq!(data(&read_framed(&mut held[0]).await), "127.21.0.1");
    stage.end().await;
}

#[tokio::test]
async fn before_the_first_topology_we_do_not_know_and_do_not_guess() {
    let stage = Stage::new(Config::default(), Topology::default()).await;
    assert!(!stage.server.is_ready());
    let got = stage.ask(WEB, RecordType::A).await;
    // RFC 8914 §4.15: Not Ready.
    assert_eq!((got.metadata.response_code, edes(&got)), (ResponseCode::ServFail, vec![14]));
    let dns = member(5).await;
    stage.publish(one(&[&dns])).await;
    assert!(stage.server.is_ready());
    stage.end().await;
}

#[tokio::test]
async fn a_decision_is_explained_and_counted() {
    let (eu, us) = (member(5).await, member(5).await);
    let mut t = one(&[&eu]);
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [us.addr.to_string()]}));
    offer(&mut t, "prod", &[("prod-eu", 21), ("prod-us", 22)]);
    let stage = Stage::new(Config::default(), t).await;
    let web = stage.explain("web.shop.svc.atoll.internal", Some("us-east")).await;
    assert_eq!(web["answer"][0]["data"], "127.22.0.80", "{web:#}");
    assert_eq!(web["asker"]["clusterSet"], "prod");
    assert_eq!(web["health"]["source"], "Hub");
    assert_eq!(web["steps"][0]["hierarchy"]["place"], "Beside");
    assert!(
        web["steps"][1]["policy"]["why"]
            .as_array()
            .unwrap()
            .iter()
            .any(|w| w.as_str().unwrap().starts_with("nearest:")),
        "{web:#}"
    );
    let below = stage.explain(WEB, None).await;
    assert_eq!(below["steps"][0]["hierarchy"]["asked"], "web.shop.svc.cluster.local");
    assert_eq!(below["rcode"], "NOERROR", "{below:#}");
    assert!(stage.explain("a..b", None).await["error"].is_string());
    stage.ask(WEB, RecordType::A).await;
    let families: Vec<String> = stage.metrics.gather().iter().map(|f| f.name().to_owned()).collect();
    for name in
        ["atoll_dns_queries_total", "atoll_dns_forwards_total", "atoll_dns_cache_total", "atoll_dns_query_seconds"]
    {
        assert!(families.iter().any(|f| f == name), "{name} is not among {families:?}");
    }
    stage.end().await;
}

/// Failure mode 1: nobody of a member answers. What was answered is stale, what was not is SERVFAIL that says why, and once our probes know it
/// nobody waits.
#[tokio::test]
async fn with_every_replica_silent_the_answer_is_stale_or_servfail_and_soon_at_once() {
    let (one, two) = (member(1).await, member(1).await);
    let servers = [one.addr.to_string(), two.addr.to_string()];
    let mut t = federation();
    add(&mut t, "prod-eu", "prod", "eu-central", 21, json!({"servers": servers}));
    let stage = Stage::new(Config::default(), t).await;
    assert_eq!(data(&stage.ask(WEB, RecordType::A).await), "127.21.0.1");
    one.behave(Manner::Silent);
    two.behave(Manner::Silent);
    let start = Instant::now();
    let never = stage.ask("n0.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert!(start.elapsed() < Duration::from_millis(1800), "{:?}", start.elapsed());
    assert_eq!((never.metadata.response_code, edes(&never)), (ResponseCode::ServFail, vec![22]));
    until(async || stage.explain(WEB, None).await["health"]["probedDown"] == json!(["prod-eu"])).await;
    let mut quickest = SOON;
    for n in 1..20 {
        let start = Instant::now();
        let got = stage.ask(&format!("n{n}.shop.svc.prod-eu.atoll.internal"), RecordType::A).await;
        quickest = quickest.min(start.elapsed());
        assert_eq!((got.metadata.response_code, edes(&got)), (ResponseCode::ServFail, vec![23]));
        assert!(ede_text(&got).contains("cluster `prod-eu`"), "{}", ede_text(&got));
    }
    assert!(quickest < Duration::from_millis(5), "{quickest:?}");
    let stale = stage.ask(WEB, RecordType::A).await;
    assert!(data(&stale) == "127.21.0.1" && edes(&stale).contains(&3) && stale.answers[0].ttl <= 30, "{stale:?}");
    stage.end().await;
}

/// Failure mode 2: removed, unknown, cut off, and there without the service.
#[tokio::test]
async fn a_cluster_that_is_gone_is_no_name_and_one_that_is_only_cut_off_is_servfail() {
    let dns = member(5).await;
    let mut t = one(&[&dns]);
    let gone = "atoll.internal.";
    // Its agent is cut off and its DNS not routable: a topology without a way in.
    add(&mut t, "cut", "prod", "eu-central", 23, json!({"servers": ["127.0.0.1:9"]}));
    let stage = Stage::new(Config::default(), t.clone()).await;
    stage.routes.set([("prod-eu".to_owned(), Route::Direct), ("cut".to_owned(), Route::Relay)].into());
    assert!(is_nxdomain(&stage.ask("web.shop.svc.nobody.atoll.internal", RecordType::A).await, gone));
    let cut = stage.ask("web.shop.svc.cut.atoll.internal", RecordType::A).await;
    assert_eq!((cut.metadata.response_code, edes(&cut)), (ResponseCode::ServFail, vec![23]));
    // No such service: what the member says, with its SOA in our names.
    let none = stage.ask("none.shop.svc.prod-eu.atoll.internal", RecordType::A).await;
    assert!(is_nxdomain(&none, "prod-eu.atoll.internal."), "{none:?}");
    assert!(none.authorities[0].data.to_string().starts_with("ns.dns.prod-eu.atoll.internal. hostmaster.prod-eu."));
    assert_eq!(data(&stage.ask(WEB, RecordType::A).await), "127.21.0.1");
    dns.behave(Manner::Silent);
    // Removed: no name at once, and nothing stale, though something was answered before.
    t.clusters.remove("prod-eu");
    stage.publish(t).await;
    let removed = stage.ask(WEB, RecordType::A).await;
    assert!(is_nxdomain(&removed, gone) && removed.authorities[0].ttl <= 30 && edes(&removed).is_empty());
    stage.end().await;
}
