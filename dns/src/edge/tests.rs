//! The edge as packets meet it: who is limited and who is not, who must prove an address, and that no octets break a rule.

use std::net::SocketAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::guard::{Kind, Rate};
use crate::respond::{Given, Responder, Via};
use crate::wire::Local;
use crate::wire::tests::{configured, stage};

const TCP: Via = Via::stream("tcp", false, None);
const STRANGER: &str = "203.0.113.9";
const MEMBER: &str = "10.1.0.7";
const RECURSES: &str = "198.18.0.9";

fn guarded(per_second: u32) -> Responder {
    let recursion = vec!["198.18.0.0/15".parse().unwrap()];
    let config = Config { rate: Rate { per_second, slip: 2 }, recursion, ..Config::default() };
    configured(&config, stage(), 1 << 20)
}

fn from(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 4242)
}

fn query(name: &str, cookie: Option<&[u8]>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let mut edns = Edns::new();
    if let Some(cookie) = cookie {
        edns.options_mut().insert(EdnsOption::Unknown(10, cookie.to_vec()));
    }
    message.set_edns(edns);
    message.to_vec().unwrap()
}

/// Full replies, truncated ones, none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    whole: usize,
    truncated: usize,
    none: usize,
}

impl Got {
    fn count(&mut self, reply: Option<&[u8]>) {
        let Some(reply) = reply else {
            self.none += 1;
            return;
        };
        let message = Message::from_vec(reply).unwrap();
        assert_eq!((message.queries.len(), message.edns.is_some()), (1, true));
        if message.metadata.truncation {
            assert!(message.answers.is_empty() && message.authorities.is_empty());
            self.truncated += 1;
        } else {
            assert!(message.answers.len() + message.authorities.len() > 0);
            self.whole += 1;
        }
    }
}

fn cookie(reply: &[u8]) -> Vec<u8> {
    let edns = Message::from_vec(reply).unwrap().edns.unwrap();
    let found = edns.options().as_ref().iter().find(|(code, _)| u16::from(*code) == 10).unwrap().1.clone();
    Vec::<u8>::try_from(&found).unwrap()
}

#[tokio::test(start_paused = true)]
async fn strangers_get_so_many_replies_by_udp_and_nobody_else_is_limited() {
    let responder = guarded(50);
    let proven = {
        let first = responder.respond(&query("db.atoll.internal.", Some(&[9; 8])), from("198.51.100.1"), TCP).await;
        cookie(&first.unwrap())
    };
    for (case, ip, via, cookie, limited) in [
        ("a stranger", STRANGER, Via::UDP, None, true),
        ("a member", MEMBER, Via::UDP, None, false),
        ("loopback", "127.0.0.1", Via::UDP, None, false),
        ("who is allowed recursion", RECURSES, Via::UDP, None, false),
        ("by TCP", "203.0.114.9", TCP, None, false),
        ("who shows a cookie that we gave", "198.51.100.1", Via::UDP, Some(&proven), false),
    ] {
        for name in ["db.atoll.internal.", "nowhere.atoll.internal."] {
            let (mut got, packet) = (Got::default(), query(name, cookie.map(Vec::as_slice)));
            for _ in 0..300 {
                got.count(responder.respond(&packet, from(ip), via).await.as_deref());
            }
            if limited {
                // A second's worth in no time; of the others half are truncated.
                assert_eq!(got, Got { whole: 50, truncated: 125, none: 125 }, "{case} {name}");
            } else {
                assert_eq!(got, Got { whole: 300, ..Got::default() }, "{case} {name}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_signs_with_a_key_that_we_have_not_is_a_stranger_too() {
    let responder = guarded(50);
    let key = crate::tsig::Key::new("k9.", "hmac-sha256", "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g=").unwrap();
    let plain = query("db.atoll.internal.", None);
    let signed = crate::tsig::Session::begin(Arc::new(key), 7).sign(plain.clone(), 1_800_000_000);
    let mut malformed = plain;
    malformed[11] = 2;
    for (case, packet) in [("an unknown key", signed), ("a record that is not there", malformed)] {
        for (ip, via, replies) in [("192.0.2.9", Via::UDP, 175), (MEMBER, Via::UDP, 300), ("192.0.2.9", TCP, 300)] {
            let mut got = 0;
            for _ in 0..300 {
                got += usize::from(responder.respond(&packet, from(ip), via).await.is_some());
            }
            assert_eq!(got, replies, "{case}: {ip} by {}", via.transport);
        }
        // What was said in the first case counts for a second; the next one begins anew.
        tokio::time::advance(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_fast_path_is_limited_as_well() {
    let responder = guarded(50);
    let packet = query("db.atoll.internal.", None);
    responder.respond(&packet, from(MEMBER), TCP).await.unwrap();
    let mut out = vec![0; 1232];
    for (ip, limited) in [(STRANGER, true), ("127.0.0.1", false), (RECURSES, false)] {
        let (mut local, mut got) = (Local::default(), Got::default());
        responder.respond(&packet, from(ip), TCP).await.unwrap();
        for _ in 0..300 {
            match responder.hit(&mut local, &packet, from(ip), responder.moment(), &mut out) {
                Given::Reply(hit) => got.count(Some(&out[..hit.len])),
                Given::Dropped => got.count(None),
                _ => panic!("{ip}: it was given before"),
            }
        }
        let strangers = Got { whole: 50, truncated: 125, none: 125 };
        let want = if limited { strangers } else { Got { whole: 300, ..Got::default() } };
        assert_eq!(got, want, "{ip}");
    }
}

#[tokio::test(start_paused = true)]
async fn under_stress_who_can_prove_an_address_must_do_so_and_then_is_served() {
    let responder = guarded(10);
    let asked = |option: Option<Vec<u8>>| query("db.atoll.internal.", option.as_deref());
    let code = |reply: &[u8]| u16::from(Message::from_vec(reply).unwrap().metadata.response_code);
    let calm = responder.respond(&asked(Some(vec![9; 8])), from(STRANGER), Via::UDP).await.unwrap();
    assert_eq!(code(&calm), 0, "in peace a cookie is only learned");
    // A flood that claims many addresses.
    for n in 0..2000_u32 {
        let ip = IpAddr::from((0x0505_0000 + n % 64).to_be_bytes());
        responder.edge.guard.judge(responder.edge.now(), ip, Kind::Answer);
    }
    for (case, ip, via, option, want) in [
        ("a client's part alone", STRANGER, Via::UDP, vec![9; 8], 23),
        ("a cookie that is not ours", STRANGER, Via::UDP, vec![9; 24], 23),
        ("by TCP", STRANGER, TCP, vec![9; 8], 0),
        ("a member", MEMBER, Via::UDP, vec![9; 8], 0),
    ] {
        let reply = responder.respond(&asked(Some(option)), from(ip), via).await.unwrap();
        assert_eq!(code(&reply), want, "{case}");
        let again = responder.respond(&asked(Some(cookie(&reply))), from(ip), via).await.unwrap();
        assert_eq!(
            (code(&again), Message::from_vec(&again).unwrap().answers.len()),
            (0, 1),
            "{case}: the cookie was given"
        );
    }
    // Who has none is not asked for one: it may be an old client.
    let plain = responder.respond(&asked(None), from("192.0.2.77"), Via::UDP).await.unwrap();
    assert_eq!(code(&plain), 0);
}

#[tokio::test]
async fn who_may_not_ask_is_told_so_with_the_reason() {
    let config = Config { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Config::default() };
    let responder = configured(&config, stage(), 1 << 20);
    for via in [Via::UDP, TCP] {
        let refused = responder.respond(&query("db.atoll.internal.", None), from(STRANGER), via).await.unwrap();
        let message = Message::from_vec(&refused).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::Refused);
        let edns = message.edns.unwrap();
        let (_, reason) = &edns.options().as_ref()[0];
        // RFC 8914 §4.19: Prohibited.
        assert_eq!(Vec::<u8>::try_from(reason).unwrap()[..2], [0, 18]);
        let allowed = responder.respond(&query("db.atoll.internal.", None), from(MEMBER), via).await.unwrap();
        assert_eq!(Message::from_vec(&allowed).unwrap().metadata.response_code, ResponseCode::NoError);
    }
}

/// What is done to a packet.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, u8),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..120_usize;
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, octet)| Change::Set(at, octet)),
        (at.clone(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        at.clone().prop_map(Change::Cut),
        (at.clone(), any::<u8>()).prop_map(|(at, octet)| Change::Insert(at, octet)),
        (at, 1..40_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

fn changed(mut packet: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let within = |at: usize| at % packet.len().max(1);
        match *change {
            _ if packet.is_empty() => break,
            Change::Set(at, octet) => {
                let at = within(at);
                packet[at] = octet;
            }
            Change::Flip(at, bit) => {
                let at = within(at);
                packet[at] ^= 1 << bit;
            }
            Change::Cut(at) => packet.truncate(within(at)),
            Change::Insert(at, octet) => packet.insert(within(at), octet),
            Change::Repeat(at, length) => {
                let at = within(at);
                let piece = packet[at..packet.len().min(at + length)].to_vec();
                packet.extend(piece);
            }
        }
    }
    packet
}

/// A reply as the rules have it, or none where they say so.
fn by_the_rules(packet: &[u8], reply: Option<&[u8]>, via: Via) -> Result<(), TestCaseError> {
    let query = packet.len() >= 12 && packet[2] & 0x80 == 0;
    prop_assert_eq!(reply.is_some(), query, "a reply exactly to what may be a query");
    let Some(reply) = reply else { return Ok(()) };
    prop_assert_eq!(&reply[..2], &packet[..2]);
    prop_assert_eq!(reply[2] & 0xf8, 0x80 | packet[2] & 0x78, "QR and opcode");
    // RFC 2136 §2.2 and RFC 1996 §3.3 know no RD.
    prop_assert!(packet[2] & 0x78 != 0 || reply[2] & 1 == packet[2] & 1, "RD is copied");
    let most = if via.stream { 65_535 } else { 1232 };
    prop_assert!(reply.len() <= most);
    let message = Message::from_vec(reply).map_err(|e| TestCaseError::fail(format!("{e}: {reply:?}")))?;
    if message.metadata.response_code == ResponseCode::NoError && !message.queries.is_empty() {
        let name = message.queries[0].name.len();
        prop_assert_eq!(&reply[12..12 + name], &packet[12..12 + name], "the question's own octets");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_packets_are_answered_or_dropped_by_the_rules(
        name in prop::sample::select(vec!["db.atoll.internal.", "example.com.", "web.shop.svc.prod-eu.atoll.internal.", "."]),
        option in prop::option::of(0..40_usize),
        changes in prop::collection::vec(change(), 0..6),
        stream: bool,
    ) {
        thread_local! {
            static STAGE: (Runtime, Responder) = {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let responder = runtime.block_on(async { guarded(0) });
                (runtime, responder)
            };
        }
        let packet = changed(query(name, option.map(|length| vec![1; length]).as_deref()), &changes);
        let via = if stream { TCP } else { Via::UDP };
        let reply = STAGE.with(|(runtime, responder)| runtime.block_on(responder.respond(&packet, from(STRANGER), via)));
        by_the_rules(&packet, reply.as_deref(), via)?;
    }
}
