//! What the wire cache gives is what the slow path would have given: the same octets, apart from the id, the spelling of the name, the
//! time that has passed, and which address comes first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::topology::Topology;
use atoll_reach::{Dialer, RelayTable, Routes, System};
use atoll_wire::follow::Snapshot;
use hickory_proto::op::{Edns, Message, Query as Asks, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::config::Config;
use crate::guard::Rate;
use crate::health::Probes;
use crate::respond::{Given, Responder, Via};
use crate::testing::topology;
use crate::world::World;

const UDP: Via = Via::UDP;
const TCP: Via = Via::stream("tcp", false, None);

/// Names of every kind: own, negative, aliases that go on, federated, hosts, delegated, below members that nobody can ask.
const NAMES: &[&str] = &[
    "db.atoll.internal.",
    "nowhere.atoll.internal.",
    "atoll.internal.",
    "ns.atoll.internal.",
    "www.example.com.",
    "x.example.com.",
    "a.b.example.com.",
    "example.com.",
    "host.sub.example.com.",
    "shop.example.com.",
    "deep.apps.example.net.",
    "web.shop.svc.atoll.internal.",
    "web.shop.svc.clusterset.local.",
    "_http._tcp.web.shop.svc.atoll.internal.",
    "none.shop.svc.atoll.internal.",
    "web.shop.svc.us-east.region.atoll.internal.",
    "dns-version.clusterset.local.",
    "web.shop.svc.prod-eu.atoll.internal.",
    "prod-us.atoll.internal.",
    "1.0.2.10.in-addr.arpa.",
    "example.org.",
];
const KINDS: &[RecordType] = &[
    RecordType::A,
    RecordType::AAAA,
    RecordType::TXT,
    RecordType::SRV,
    RecordType::MX,
    RecordType::SOA,
    RecordType::NS,
    RecordType::CNAME,
    RecordType::HTTPS,
    RecordType::PTR,
];

/// Two endpoints in each member of `shop/web`, and members whose DNS is nowhere.
pub(crate) fn stage() -> Topology {
    let mut topology = topology();
    for facts in topology.clusters.values_mut() {
        let mut changed = atoll_api::topology::ClusterFacts::clone(facts);
        changed.dns.as_mut().unwrap().servers.clear();
        *facts = Arc::new(changed);
    }
    for facts in topology.endpoints.values_mut().flat_map(|m| m.values_mut()) {
        let mut changed = atoll_api::topology::Endpoints::clone(facts);
        changed.endpoints[1].ready = true;
        *facts = Arc::new(changed);
    }
    topology
}

fn snapshot(topology: Topology) -> Snapshot {
    Snapshot { topology: Arc::new(topology), heard: Some(Instant::now()) }
}

fn dialer() -> Dialer {
    Dialer::new(Arc::new(System::default()), RelayTable::default(), Routes::default())
}

/// A responder over `topology` whose wire cache has so many bytes.
pub(crate) fn responder(topology: Topology, bytes_max: usize) -> Responder {
    let config = Config { rate: Rate { per_second: 0, slip: 0 }, ..Config::default() };
    configured(&config, topology, bytes_max)
}

/// The same, as it is told.
pub(crate) fn configured(config: &Config, topology: Topology, bytes_max: usize) -> Responder {
    crate::fuzzing::responder(config, topology, bytes_max).unwrap()
}

/// Another topology counts from now on; the tables are made anew and differ.
pub(crate) fn publish(responder: &Responder, topology: Topology) {
    let before = responder.resolver.world.load_full();
    let now = Instant::now();
    let (world, changes) = World::new(
        Some(&before),
        &snapshot(topology),
        &Probes::default(),
        &dialer(),
        (&Config::default(), &crate::geo::Geo::default()),
        now,
    );
    let generation = world.generation;
    responder.resolver.world.store(Arc::new(world));
    responder.wire.stamps.bump(&changes, generation);
}

/// What a client may vary.
#[derive(Debug, Clone)]
struct Asking {
    name: &'static str,
    kind: RecordType,
    id: u16,
    bits: u8,
    /// Which letters are upper case.
    spelling: u64,
    size: Option<u16>,
    from: [u8; 4],
    via: bool,
}

fn asking() -> impl Strategy<Value = Asking> {
    let from = prop_oneof![
        Just([10, 1, 0, 7]),
        Just([10, 2, 0, 7]),
        Just([10, 3, 0, 7]),
        Just([10, 9, 0, 7]),
        Just([203, 0, 113, 5]),
        Just([127, 0, 0, 1])
    ];
    let size = proptest::option::of(prop_oneof![Just(512_u16), Just(600), Just(1232), Just(4096), Just(0)]);
    let names = proptest::sample::select(NAMES);
    let kinds = proptest::sample::select(KINDS);
    (names, kinds, any::<u16>(), 0_u8..8, any::<u64>(), size, from, any::<bool>()).prop_map(
        |(name, kind, id, bits, spelling, size, from, via)| Asking { name, kind, id, bits, spelling, size, from, via },
    )
}

impl Asking {
    fn packet(&self) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = self.id;
        message.metadata.recursion_desired = self.bits & 1 != 0;
        message.metadata.checking_disabled = self.bits & 2 != 0;
        let upper = |(i, c): (usize, char)| if self.spelling >> (i % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c };
        let spelled: String = self.name.chars().enumerate().map(upper).collect();
        message.add_query(Asks::query(Name::from_ascii(spelled).unwrap(), self.kind));
        if let Some(size) = self.size {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns.set_dnssec_ok(self.bits & 4 != 0);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn via(&self) -> Via {
        if self.via { TCP } else { UDP }
    }

    fn from(&self) -> SocketAddr {
        (self.from, 4000).into()
    }
}

/// The octets, with the addresses in order.
fn plain(octets: &[u8]) -> (usize, String) {
    let mut message = Message::from_vec(octets).unwrap();
    message.answers.sort_by_key(|r| r.data.to_string());
    message.additionals.sort_by_key(|r| r.data.to_string());
    (octets.len(), format!("{message:?}"))
}

proptest! {
    #[test]
    fn a_hit_has_the_octets_of_the_slow_path(first in asking(), then in asking()) {
        // The same question, asked by another client in another way.
        let then = Asking { name: first.name, kind: first.kind, from: first.from, bits: first.bits, ..then };
        let then = if first.size.is_some() == then.size.is_some() { then } else { Asking { size: first.size, ..then } };
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (cached, bare) = (responder(stage(), BYTES_MAX), responder(stage(), 0));
            let packet = first.packet();
            let filled = cached.respond(&packet, first.from(), first.via()).await.unwrap();
            prop_assert_eq!(plain(&filled).0, filled.len());
            let packet = then.packet();
            let slow = bare.respond(&packet, then.from(), then.via()).await.unwrap();
            let before = cached.wire.size();
            let fast = cached.respond(&packet, then.from(), then.via()).await.unwrap();
            prop_assert!(before.0 > 0, "nothing was kept of {:?}", first);
            prop_assert_eq!(cached.wire.size(), before, "not a hit");
            prop_assert_eq!(plain(&fast), plain(&slow));
            let mut folded = [0; query::NAME_MAX];
            let query = Query::read(&packet, &mut folded).unwrap();
            prop_assert_eq!(&fast[..2], &packet[..2]);
            prop_assert_eq!(&fast[query::HEADER..query::HEADER + query.spelled.len()], query.spelled);
            prop_assert!(fast.len() <= crate::edns::limit(query.opt.as_ref(), then.via));
            Ok(())
        })?;
    }
}

async fn ask(responder: &Responder, name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Asks::query(Name::from_ascii(name).unwrap(), kind));
    let octets = responder.respond(&message.to_vec().unwrap(), ([10, 1, 0, 7], 4000).into(), UDP).await.unwrap();
    Message::from_vec(&octets).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    let mut all: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_change_is_seen_at_once_and_what_it_does_not_concern_is_kept() {
    let responder = responder(stage(), BYTES_MAX);
    let (web, db) = ("web.shop.svc.atoll.internal.", "db.atoll.internal.");
    assert_eq!(addresses(&ask(&responder, web, RecordType::A).await), ["10.1.0.1", "10.1.0.2"]);
    assert_eq!(addresses(&ask(&responder, db, RecordType::A).await), ["192.0.2.7"]);
    let kept = responder.wire.size();
    let mut later = stage();
    let gone = later.endpoints.get_mut("prod-eu").unwrap().values_mut().next().unwrap();
    let mut fewer = atoll_api::topology::Endpoints::clone(gone);
    fewer.endpoints.truncate(1);
    *gone = Arc::new(fewer);
    publish(&responder, later);
    assert_eq!(addresses(&ask(&responder, web, RecordType::A).await), ["10.1.0.1"]);
    assert_eq!(responder.wire.size().0, kept.0, "the new answer is in the place of the old one");
    let from: SocketAddr = ([10, 1, 0, 7], 4000).into();
    let hit = |name: &str| {
        let mut message = Message::query();
        message.add_query(Asks::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let (mut local, mut out) = (Local::default(), [0; 1232]);
        let given = responder.hit(&mut local, &message.to_vec().unwrap(), from, responder.moment(), &mut out);
        matches!(given, Given::Reply(_))
    };
    assert!(hit(db) && hit(web), "what did not change is given again, and so is what was decided anew");
    let mut third = Topology::clone(&responder.resolver.world.load().table.topology);
    third.endpoints.get_mut("prod-us").unwrap().values_mut().for_each(|there| *there = Arc::default());
    publish(&responder, third);
    assert!(hit(db) && !hit(web), "the service is void wherever it changed, and nothing else is");
    let world = responder.resolver.world.load_full();
    assert_eq!(world.generation, 3);
    publish(&responder, Topology::clone(&world.table.topology));
    assert_eq!(responder.resolver.world.load().generation, 3, "the same is no change");
}

#[tokio::test]
async fn every_address_is_the_first_one_in_turn() {
    let responder = responder(stage(), BYTES_MAX);
    let mut first = std::collections::HashSet::new();
    for _ in 0..200 {
        let answer = ask(&responder, "web.shop.svc.atoll.internal.", RecordType::A).await;
        assert_eq!(addresses(&answer), ["10.1.0.1", "10.1.0.2"]);
        first.insert(answer.answers[0].data.to_string());
    }
    assert_eq!(first.len(), 2);
}

#[tokio::test]
async fn of_more_addresses_than_one_answer_holds_every_one_is_given_and_is_the_first_in_turn() {
    let mut many = stage();
    let web = many.endpoints.get_mut("prod-eu").unwrap().values_mut().next().unwrap();
    let mut there = atoll_api::topology::Endpoints::clone(web);
    let one = there.endpoints[0].clone();
    there.endpoints =
        (1..=40_u8).map(|n| atoll_api::topology::Endpoint { address: [10, 1, 0, n].into(), ..one.clone() }).collect();
    *web = Arc::new(there);
    let responder = responder(many, BYTES_MAX);
    let (mut given, mut first) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for _ in 0..2000 {
        let answer = ask(&responder, "web.shop.svc.atoll.internal.", RecordType::A).await;
        assert_eq!(answer.answers.len(), 16);
        given.extend(addresses(&answer));
        first.insert(answer.answers[0].data.to_string());
    }
    assert_eq!((given.len(), first.len()), (40, 40));
    // A mark, and an answer for each of three slots.
    assert_eq!(responder.wire.size().0, 4);
}

/// A query, and an answer to keep for it.
fn keep(wire: &Wire, packet: &[u8], answer: &Answer, dice: u64, client: Client, now: Instant) {
    let mut folded = [0; query::NAME_MAX];
    let query = Query::read(packet, &mut folded).unwrap();
    let name = Name::from_ascii("a.example.").unwrap();
    let question = encode::Question { name: &name, kind: RecordType::A, class: hickory_proto::rr::DNSClass::IN };
    let made = Made { answer, generation: 1, dice, now, label: 0 };
    wire.deposit(&query, client, &made, &encode::encode(&question, answer, false));
}

fn given(wire: &Wire, packet: &[u8], dice: u64, client: Client, now: Instant) -> Option<Message> {
    let mut folded = [0; query::NAME_MAX];
    let query = Query::read(packet, &mut folded).unwrap();
    let (mut out, mut local, mut own) = (Vec::new(), Local::default(), vec![0; 1232]);
    let terms = Terms { now, dice, limit: 1232, opt: None };
    let shared = wire.shared(&query, client, terms, &mut out).map(|_| out);
    let hit = wire.hit(&mut local, &query, client, terms, &mut own);
    let own = hit.map(|hit| own[..hit.len].to_vec());
    assert_eq!(own.is_some(), shared.is_some(), "a thread of its own sees what all see");
    own.map(|octets| Message::from_vec(&octets).unwrap())
}

#[test]
fn an_answer_is_given_to_whom_it_may_be_given_and_for_its_time() {
    let now = Instant::now();
    let name = Name::from_ascii("a.example.").unwrap();
    let a = |last: u8| {
        let data = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, last));
        hickory_proto::rr::Record::from_rdata(name.clone(), 60, data)
    };
    let packet = Asking {
        name: "a.example.",
        kind: RecordType::A,
        id: 7,
        bits: 0,
        spelling: 0,
        size: None,
        from: [0; 4],
        via: false,
    }
    .packet();
    let client = |place: u32, net: u64| Client { place, net };
    let source = crate::answer::Source::Upstreams;
    let answer = |reuse| Answer { reuse, sources: vec![source.clone()], ..Answer::records(vec![a(1)]) };
    // Who asked first, with which dice; who asks then; whether it gets the same.
    for (reuse, then, dice, gets) in [
        (Reuse::Place, client(1, 9), 5, true),
        (Reuse::Place, client(2, 8), 4, false),
        (Reuse::Slots(4), client(1, 9), 8, true),
        (Reuse::Slots(4), client(1, 9), 5, false),
        (Reuse::Slots(4), client(2, 8), 4, false),
        (Reuse::Client, client(1, 8), 5, true),
        (Reuse::Client, client(1, 9), 4, false),
        (Reuse::Never, client(1, 8), 4, false),
    ] {
        let wire = Wire::new(BYTES_MAX, now);
        keep(&wire, &packet, &answer(reuse), 4, client(1, 8), now);
        assert_eq!(given(&wire, &packet, dice, then, now).is_some(), gets, "{reuse:?} {then:?} {dice}");
    }
    let wire = Wire::new(BYTES_MAX, now);
    keep(&wire, &packet, &answer(Reuse::Place), 0, client(0, 8), now);
    assert_eq!(wire.size().0, 0, "who stands nowhere is nobody's equal");
    keep(&wire, &packet, &answer(Reuse::Place), 0, client(1, 8), now);
    for (after, ttl) in [(0, Some(60)), (1, Some(59)), (53, Some(7)), (60, None)] {
        let reply = given(&wire, &packet, 0, client(1, 8), now + Duration::from_secs(after));
        assert_eq!(reply.map(|m| m.answers[0].ttl), ttl, "after {after} s");
    }
    let ours = Answer { sources: vec![crate::answer::Source::Zone(name.clone())], ..answer(Reuse::Place) };
    keep(&wire, &packet, &ours, 0, client(1, 8), now);
    let reply = given(&wire, &packet, 0, client(1, 8), now + Duration::from_secs(600)).unwrap();
    assert_eq!(reply.answers[0].ttl, 60, "what we say ourselves does not grow old");
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
}

#[test]
fn shortly_before_its_end_an_answer_is_looked_for_again_once() {
    let now = Instant::now();
    let packet = Asking {
        name: "a.example.",
        kind: RecordType::A,
        id: 7,
        bits: 1,
        spelling: 0,
        size: None,
        from: [0; 4],
        via: false,
    }
    .packet();
    let name = Name::from_ascii("a.example.").unwrap();
    let data = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, 1));
    let record = hickory_proto::rr::Record::from_rdata(name, 100, data);
    let answer = Answer { sources: vec![crate::answer::Source::Upstreams], ..Answer::records(vec![record]) };
    let (wire, client) = (Wire::new(BYTES_MAX, now), Client { place: 1, net: 0 });
    keep(&wire, &packet, &answer, 0, client, now);
    let mut local = Local::default();
    let mut folded = [0; query::NAME_MAX];
    let query = Query::read(&packet, &mut folded).unwrap();
    let mut hits = |after: u64, times: usize| {
        let terms = Terms { now: now + Duration::from_secs(after), dice: 0, limit: 512, opt: None };
        let mut out = [0; 512];
        (0..times).filter(|_| wire.hit(&mut local, &query, client, terms, &mut out).is_some()).count()
    };
    assert_eq!((hits(89, 5), hits(91, 5), hits(99, 5), hits(100, 5)), (5, 4, 5, 0));
}
