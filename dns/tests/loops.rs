//! Failure mode 5: what we ask comes back to us. One path is left out, everything else goes on, and the path is used again when it is straight.

mod stage;

use std::time::Duration;

use atoll_dns::Config;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, RecordType};
use serde_json::json;
use stage::member::{Manner, MemberDns};
use stage::*;
use tokio::time::Instant;

fn a(last: u8) -> RData {
    RData::A(A::new(127, 21, 0, last))
}

fn is_loop(got: &Message, via: &str) -> bool {
    got.metadata.response_code == ResponseCode::ServFail
        && edes(got) == [0]
        && ede_text(got).contains(&format!("loop via {via}"))
}

/// `lab` has the names that we give it; `prod-us` is beside it.
async fn two(lab: &[&MemberDns], us: &MemberDns) -> Stage {
    let mut t = federation();
    let servers: Vec<String> = lab.iter().map(|m| m.addr.to_string()).collect();
    add(&mut t, "lab", "lab", "eu-central", 21, json!({"kind": "Generic", "servers": servers}));
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [us.addr.to_string()]}));
    Stage::new(Config::default(), t).await
}

async fn lab() -> MemberDns {
    MemberDns::new("lab.atoll.internal").await.knows("web.lab.atoll.internal", 0, a(1))
}

async fn us() -> MemberDns {
    MemberDns::new("cluster.local").await.knows("web.shop.svc.cluster.local", 0, a(22))
}

#[tokio::test]
async fn a_member_that_asks_us_for_its_own_names_is_left_out_until_it_does_not() {
    let (lab, us) = (lab().await, us().await);
    let stage = two(&[&lab], &us).await;
    let web = "web.lab.atoll.internal";
    until(async || data(&stage.ask(web, RecordType::A).await) == "127.21.0.1").await;
    lab.behave(Manner::Forwarding(stage.addr));
    // The mark on the question is enough, whenever the next probe is.
    let start = Instant::now();
    let got = stage.ask("new.lab.atoll.internal", RecordType::A).await;
    assert!(is_loop(&got, "lab"), "{got:?}");
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    until(async || metric(&stage, "atoll_dns_looping", "lab") == 1.0).await;
    let before = lab.asked().len();
    assert!(is_loop(&stage.ask("other.lab.atoll.internal", RecordType::A).await, "lab"));
    // What was answered before is stale, and says why.
    let stale = stage.ask(web, RecordType::A).await;
    assert!(data(&stale) == "127.21.0.1" && edes(&stale).contains(&3) && ede_text(&stale).contains("loop via lab"));
    assert_eq!(lab.asked().len(), before, "a path that loops is asked for nothing");
    assert_eq!(data(&stage.ask("web.shop.svc.prod-us.atoll.internal", RecordType::A).await), "127.21.0.22");
    lab.behave(Manner::Well);
    until(async || {
        let got = stage.ask(web, RecordType::A).await;
        data(&got) == "127.21.0.1" && edes(&got).is_empty()
    })
    .await;
    until(async || metric(&stage, "atoll_dns_looping", "lab") == 0.0).await;
    stage.end().await;
}

#[tokio::test]
async fn another_server_of_the_member_answers_for_one_that_loops() {
    let (bad, good, us) = (lab().await, lab().await, us().await);
    let stage = two(&[&bad, &good], &us).await;
    bad.behave(Manner::Forwarding(stage.addr));
    // A change of the members makes all paths be probed again.
    let again = stage.topology.borrow().topology.as_ref().clone();
    stage.publish(again).await;
    until(async || metric(&stage, "atoll_dns_looping", "lab") == 1.0).await;
    let before = bad.asked().len();
    for _ in 0..10 {
        assert_eq!(data(&stage.ask("web.lab.atoll.internal", RecordType::A).await), "127.21.0.1");
    }
    assert_eq!(bad.asked().len(), before);
    stage.end().await;
}

#[tokio::test]
async fn a_member_is_never_asked_back_for_a_name_that_it_asks_us_for() {
    let (lab, us) = (lab().await, us().await);
    let stage = two(&[&lab], &us).await;
    // From lab's own range.
    let got = stage.ask_from("127.21.0.5", "new.lab.atoll.internal", RecordType::A).await;
    assert_eq!((got.metadata.response_code, edes(&got)), (ResponseCode::ServFail, vec![0]));
    assert!(ede_text(&got).contains("loop"), "{}", ede_text(&got));
    assert!(lab.asked().is_empty(), "{:?}", lab.asked());
    assert_eq!(data(&stage.ask_from("127.22.0.5", "web.lab.atoll.internal", RecordType::A).await), "127.21.0.1");
    stage.end().await;
}

#[tokio::test]
async fn an_upstream_that_asks_us_is_left_out_and_members_are_answered() {
    let (upstream, us) =
        (MemberDns::new("org").await.knows("www.example.org", 0, RData::A(A::new(192, 0, 2, 50))), us().await);
    let mut t = federation();
    add(&mut t, "prod-us", "prod", "us-east", 22, json!({"servers": [us.addr.to_string()]}));
    let config =
        Config { upstreams: vec![upstream.addr], recursion: vec!["127.0.0.0/8".parse().unwrap()], ..Config::default() };
    let stage = Stage::new(config, t).await;
    let www = "www.example.org";
    assert_eq!(data(&stage.ask(www, RecordType::A).await), "192.0.2.50");
    upstream.behave(Manner::Forwarding(stage.addr));
    assert!(is_loop(&stage.ask("new.example.org", RecordType::A).await, "(upstream)"));
    assert_eq!(data(&stage.ask("web.shop.svc.prod-us.atoll.internal", RecordType::A).await), "127.21.0.22");
    upstream.behave(Manner::Well);
    until(async || data(&stage.ask(www, RecordType::A).await) == "192.0.2.50").await;
    stage.end().await;
}
