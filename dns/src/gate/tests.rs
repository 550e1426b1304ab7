//! The gate: with one member dead and its share full others are served, and what is too much is answered before any work is done.

use std::net::SocketAddr;

use allocation_counter::measure;
use hickory_proto::op::{Edns, Message, Query as Asks, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};

use super::*;
use crate::cache::{Bits, Kept};
use crate::names::absolute;
use crate::respond::{Given, Responder};
use crate::wire::tests::{responder, stage};
use crate::wire::{BYTES_MAX, Local};

const DEAD: &str = "prod-us";
const WELL: &str = "lab";

fn packet(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Asks::query(Name::from_ascii(name).unwrap(), kind));
    message.set_edns(Edns::new());
    message.to_vec().unwrap()
}

/// A client that asks the fast path.
struct Client {
    responder: Responder,
    local: Local,
    out: [u8; 1232],
}

impl Client {
    fn new() -> Self {
        Self { responder: responder(stage(), BYTES_MAX), local: Local::default(), out: [0; 1232] }
    }

    fn send(&mut self, packet: &[u8]) -> Given {
        let from: SocketAddr = ([10, 3, 0, 7], 4000).into();
        self.responder.hit(&mut self.local, packet, from, self.responder.moment(), &mut self.out)
    }

    fn ask(&mut self, name: &str, kind: RecordType) -> Given {
        self.send(&packet(name, kind))
    }

    /// What a query gets: a pass, or the code and texts of its failure.
    fn gets(&mut self, name: &str, kind: RecordType) -> String {
        match self.ask(name, kind) {
            Given::Slow(_) => "a pass".to_owned(),
            Given::Reply(hit) => {
                let reply = Message::from_vec(&self.out[..hit.len]).unwrap();
                assert_eq!(reply.queries[0].name, Name::from_ascii(name).unwrap());
                assert_eq!((reply.queries[0].query_type, reply.answers.len()), (kind, 0));
                let ede = &self.out[..hit.len].to_vec();
                let text = ede.windows(7).position(|w| w == b"cluster").map_or(&[][..], |at| &ede[at..]);
                format!("{:?} {}", reply.metadata.response_code, String::from_utf8_lossy(text))
            }
            other => panic!("{other:?}"),
        }
    }

    fn party(&self, member: &str) -> Arc<Party> {
        self.responder.resolver.lookups.forwarder().party(member)
    }

    fn shed(&self, member: &str, why: &str) -> u64 {
        self.responder.metrics.shed(member, why).get()
    }

    /// The member leaves so many questions in a row that nobody waits for it any more.
    fn kill(&self, member: &str) {
        let party = self.party(member);
        (0..100).for_each(|_| party.circuit.left(Instant::now()));
    }

    /// Something is kept of a name.
    fn keep(&self, member: &str, name: &str, ttl: u32) {
        let table = Arc::clone(&self.responder.resolver.world.load().table);
        let (name, whose) = (absolute(name).unwrap(), table.members[member].fingerprint);
        let record = Record::from_rdata(name.clone(), ttl, RData::A(A::new(10, 2, 0, 1)));
        let kept = Kept { answers: vec![record], ..Kept::default() };
        self.responder.resolver.lookups.put(whose, &name, RecordType::A, Bits::default(), &kept);
    }
}

fn random(member: &str) -> impl Iterator<Item = String> {
    (0..).map(move |n: u32| format!("x{}.shop.svc.{member}.atoll.internal.", n.wrapping_mul(2_654_435_761)))
}

#[tokio::test(start_paused = true)]
async fn with_one_member_dead_and_its_share_full_others_are_served_and_the_excess_is_shed() {
    let mut client = Client::new();
    let (mut held, mut shed) = (Vec::new(), 0);
    // Nobody answers, so nothing is given back.
    for name in random(DEAD).take(20_000) {
        match client.ask(&name, RecordType::A) {
            Given::Slow(pass) => held.push(pass),
            Given::Reply(hit) => shed += u64::from(hit.told.rcode == 2),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((held.len(), shed, client.shed(DEAD, "full")), (512, 19_488, 19_488));
    let full = "ServFail cluster `prod-us`: too many questions in flight";
    assert_eq!(client.gets("one.more.svc.prod-us.atoll.internal.", RecordType::A), full);
    for name in random(WELL).take(2000) {
        assert_eq!(client.gets(&name, RecordType::A), "a pass");
    }
    for name in ["web.shop.svc.atoll.internal.", "n.example.com.", "example.org.", "7.0.9.10.in-addr.arpa."] {
        assert_eq!(client.gets(name, RecordType::A), "a pass", "{name}");
    }
    assert_eq!((client.shed(WELL, "full"), client.shed("(own)", "full")), (0, 0));
    // What was answered before has the other half of the share.
    client.keep(DEAD, "web.shop.svc.prod-us.atoll.internal", 60);
    assert_eq!(client.gets("web.shop.svc.prod-us.atoll.internal.", RecordType::A), "a pass");
    held.clear();
    assert_eq!(client.gets("one.more.svc.prod-us.atoll.internal.", RecordType::A), "a pass", "given back");
}

#[tokio::test(start_paused = true)]
async fn for_a_member_that_answers_nothing_names_fail_at_once_and_only_those_that_it_would_be_asked_for() {
    let mut client = Client::new();
    client.kill(DEAD);
    let fails = "ServFail cluster `prod-us`: it has left its last questions without an answer";
    client.keep(DEAD, "kept.shop.svc.prod-us.atoll.internal", 0);
    for (name, kind, gets) in [
        ("web.shop.svc.prod-us.atoll.internal.", RecordType::A, fails),
        ("WEB.shop.svc.Prod-US.atoll.internal.", RecordType::AAAA, fails),
        ("prod-us.atoll.internal.", RecordType::A, fails),
        ("web.shop.svc.prod-us.atoll.internal.", RecordType::SRV, fails),
        // Stale is better than nothing.
        ("kept.shop.svc.prod-us.atoll.internal.", RecordType::A, "a pass"),
        ("KEPT.shop.svc.prod-us.atoll.internal.", RecordType::A, "a pass"),
        ("kept.shop.svc.prod-us.atoll.internal.", RecordType::AAAA, fails),
        // These we know ourselves: completions, what is never translated.
        ("www.example.com.shop.svc.prod-us.atoll.internal.", RecordType::A, "a pass"),
        ("web.shop.svc.prod-us.atoll.internal.", RecordType::DNSKEY, "a pass"),
        ("web.shop.svc.prod-us.atoll.internal.", RecordType::Unknown(65_280), "a pass"),
        // The names of its addresses are asked of it.
        ("7.0.2.10.in-addr.arpa.", RecordType::PTR, fails),
        ("0.2.10.in-addr.arpa.", RecordType::PTR, "a pass"),
        ("7.0.1.10.in-addr.arpa.", RecordType::PTR, "a pass"),
        ("7.0.2.10.in-addr.arpa.", RecordType::DS, "a pass"),
        ("web.shop.svc.lab.atoll.internal.", RecordType::A, "a pass"),
        ("prod-usx.atoll.internal.", RecordType::A, "a pass"),
    ] {
        assert_eq!(client.gets(name, kind), gets, "{name} {kind}");
    }
    assert_eq!(client.shed(DEAD, "open"), 6);
    // A record of ours stands among this one's names: it is looked for.
    client.kill("prod-eu");
    assert_eq!(client.gets("special.prod-eu.atoll.internal.", RecordType::A), "a pass");
    // It answers again.
    client.party(DEAD).circuit.answered();
    assert_eq!(client.gets("web.shop.svc.prod-us.atoll.internal.", RecordType::A), "a pass");
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_the_gate_is_the_failure_of_the_slow_way_and_allocates_nothing() {
    let mut client = Client::new();
    client.kill(DEAD);
    let packets: Vec<Vec<u8>> = random(DEAD).take(3000).map(|name| packet(&name, RecordType::A)).collect();
    let Given::Reply(hit) = client.send(&packets[0]) else { panic!("no reply") };
    let at_the_gate = client.out[..hit.len].to_vec();
    let from = ([10, 3, 0, 7], 4000).into();
    let slowly = client.responder.respond(&packets[0], from, crate::respond::Via::UDP).await.unwrap();
    assert_eq!(Message::from_vec(&at_the_gate).unwrap(), Message::from_vec(&slowly).unwrap());
    assert_eq!(Message::from_vec(&slowly).unwrap().metadata.response_code, ResponseCode::ServFail);
    let tcp = crate::respond::Via::stream("tcp", false, None);
    let streamed = client.responder.at_once(&packets[1], from, tcp).unwrap();
    assert_eq!(Message::from_vec(&streamed).unwrap().metadata.response_code, ResponseCode::ServFail);
    let mut fails =
        |packets: &[Vec<u8>]| packets.iter().filter(|packet| matches!(client.send(packet), Given::Reply(_))).count();
    // The tables of the cache are made when they are first looked at.
    fails(&packets[..2000]);
    let mut failed = 0;
    let counted = measure(|| failed = fails(&packets[2000..]));
    assert_eq!((failed, counted.count_total), (1000, 0));
}
