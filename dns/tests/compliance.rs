//! RFC 8906 over every transport: what servers must do with what they don't know.
//!
//! Each row is a query by octets and what its reply must be; the rows follow §8 of the RFC, and go on where it says "and combinations".

#![allow(clippy::unwrap_used, reason = "a stage that can't be set ends the test")]

mod stage;

use std::sync::Arc;

use atoll_api::topology::Topology;
use atoll_dns::Config;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use serde_json::json;
use stage::ways::WAYS;
use stage::*;

/// A query under construction.
#[derive(Clone)]
struct Asked(Vec<u8>);

impl Asked {
    /// For `db.atoll.internal` without EDNS, no bit set.
    fn plain(kind: u16) -> Self {
        let mut query = query("db.atoll.internal", RecordType::from(kind));
        query.edns = None;
        query.metadata.recursion_desired = false;
        Self(query.to_vec().unwrap())
    }

    /// With an OPT: version, flags, options.
    fn edns(kind: u16, version: u8, flags: u16, options: &[(u16, &[u8])]) -> Self {
        Self::plain(kind).opt(4096, version, flags, options)
    }

    fn opt(mut self, payload: u16, version: u8, flags: u16, options: &[(u16, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (code, value) in options {
            data.extend(code.to_be_bytes());
            data.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            data.extend(*value);
        }
        self.0.extend([0, 0, 41]);
        self.0.extend(payload.to_be_bytes());
        self.0.extend([0, version]);
        self.0.extend(flags.to_be_bytes());
        self.0.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        self.0.extend(data);
        self.0[11] += 1;
        self
    }

    /// With these bits of the second and third word of the header.
    fn bits(mut self, bits: u16) -> Self {
        self.0[2] |= bits.to_be_bytes()[0];
        self.0[3] |= bits.to_be_bytes()[1];
        self
    }

    /// With another octet somewhere.
    fn octet(mut self, at: usize, octet: u8) -> Self {
        self.0[at] = octet;
        self
    }

    fn class(mut self, class: u16) -> Self {
        let at = 12 + "\u{2}db\u{5}atoll\u{8}internal\0".len() + 2;
        self.0[at..at + 2].copy_from_slice(&class.to_be_bytes());
        self
    }
}

/// What a reply must be.
#[derive(Clone, Copy)]
struct Want {
    code: ResponseCode,
    answers: usize,
    /// An OPT of version 0, with DO or without.
    opt: Option<bool>,
}

const fn want(code: ResponseCode, answers: usize, opt: Option<bool>) -> Want {
    Want { code, answers, opt }
}

const A: u16 = 1;
const SOA: u16 = 6;
const TXT: u16 = 16;
const ANY: u16 = 255;
const UNKNOWN: u16 = 1000;
const DO: u16 = 0x8000;

fn topology() -> Topology {
    let mut t = federation();
    let endpoints = json!({"endpoints": [
        {"dnsName": "db.atoll.internal", "recordType": "A", "recordTTL": 30, "targets": ["192.0.2.7"]},
        {"dnsName": "db.atoll.internal", "recordType": "TXT", "targets": ["x".repeat(1000)]},
    ]});
    t.records.insert("ops/a".into(), Arc::new(serde_json::from_value(endpoints).unwrap()));
    t
}

fn rows() -> Vec<(&'static str, Asked, Want)> {
    use ResponseCode::{BADVERS, FormErr, NoError, NotAuth, NotImp, Refused};
    let cookie: &[u8] = &[7; 8];
    let several: &[(u16, &[u8])] = &[(3, &[]), (10, cookie), (8, &[0, 1, 24, 0, 192, 0, 2]), (9, &[])];
    vec![
        // §8.1: basic, without EDNS.
        ("§8.1.1 a known type", Asked::plain(A), want(NoError, 1, None)),
        ("§8.1.1 SOA of a name below", Asked::plain(SOA), want(NoError, 0, None)),
        ("§8.1.2 an unknown type", Asked::plain(UNKNOWN), want(NoError, 0, None)),
        ("§8.1.3.1 CD", Asked::plain(A).bits(0x0010), want(NoError, 1, None)),
        ("§8.1.3.2 a reserved bit", Asked::plain(A).bits(0x0040), want(NoError, 1, None)),
        ("§8.1.3.3 RD", Asked::plain(A).bits(0x0100), want(NoError, 1, None)),
        ("AD", Asked::plain(A).bits(0x0020), want(NoError, 1, None)),
        ("AA, TC, RA in a query", Asked::plain(A).bits(0x0680), want(NoError, 1, None)),
        ("a code in a query", Asked::plain(A).bits(0x0005), want(NoError, 1, None)),
        ("§8.1.4 an unknown opcode", Asked::plain(A).bits(15 << 11), want(NotImp, 0, None)),
        ("opcode IQUERY", Asked::plain(A).bits(1 << 11), want(NotImp, 0, None)),
        ("opcode STATUS", Asked::plain(A).bits(2 << 11), want(NotImp, 0, None)),
        ("an unknown opcode with EDNS", Asked::edns(A, 0, 0, &[]).bits(15 << 11), want(NotImp, 0, None)),
        ("an unknown class", Asked::plain(A).class(0x1234), want(Refused, 0, None)),
        ("class CH", Asked::plain(TXT).class(3), want(Refused, 0, None)),
        ("ANY", Asked::plain(ANY), want(NoError, 1, None)),
        ("an unknown meta type", Asked::plain(200), want(NotImp, 0, None)),
        ("type OPT", Asked::plain(41), want(NotImp, 0, None)),
        // RFC 5936 §2.2.1: "a server that is not authoritative for the zone … NOTAUTH"; the name is none of a zone.
        ("type AXFR", Asked::plain(252), want(NotAuth, 0, None)),
        // §8.2: EDNS.
        ("§8.2.1 EDNS", Asked::edns(A, 0, 0, &[]), want(NoError, 1, Some(false))),
        ("§8.2.2 EDNS version 1", Asked::edns(A, 1, 0, &[]), want(BADVERS, 0, Some(false))),
        ("EDNS version 255", Asked::edns(A, 255, 0, &[]), want(BADVERS, 0, Some(false))),
        ("§8.2.3 an unknown option", Asked::edns(A, 0, 0, &[(100, &[])]), want(NoError, 1, Some(false))),
        ("an unknown option with data", Asked::edns(A, 0, 0, &[(65_001, &[1; 200])]), want(NoError, 1, Some(false))),
        ("§8.2.4 an unknown flag", Asked::edns(A, 0, 0x0040, &[]), want(NoError, 1, Some(false))),
        ("all unknown flags", Asked::edns(A, 0, 0x7fff, &[]), want(NoError, 1, Some(false))),
        ("§8.2.5 version 1 with an unknown flag", Asked::edns(A, 1, 0x0040, &[]), want(BADVERS, 0, Some(false))),
        ("§8.2.6 version 1 with an unknown option", Asked::edns(A, 1, 0, &[(100, &[])]), want(BADVERS, 0, Some(false))),
        ("version 1, flag and option", Asked::edns(A, 1, 0x40, &[(100, &[])]), want(BADVERS, 0, Some(false))),
        ("§8.2.8 DO", Asked::edns(A, 0, DO, &[]), want(NoError, 1, Some(true))),
        ("§8.2.9 DO with version 1", Asked::edns(A, 1, DO, &[]), want(BADVERS, 0, Some(true))),
        ("DO and an unknown flag", Asked::edns(A, 0, DO | 1, &[]), want(NoError, 1, Some(true))),
        ("§8.2.10 several defined options", Asked::edns(A, 0, 0, several), want(NoError, 1, Some(false))),
        ("several options and an unknown type", Asked::edns(UNKNOWN, 0, DO, several), want(NoError, 0, Some(true))),
        (
            "a reserved bit and an unknown option",
            Asked::edns(A, 0, 0, &[(100, &[])]).bits(0x40),
            want(NoError, 1, Some(false)),
        ),
        ("a small size", Asked::plain(A).opt(0, 0, 0, &[]), want(NoError, 1, Some(false))),
        ("EDNS and an unknown class", Asked::edns(A, 0, 0, &[]).class(0x1234), want(Refused, 0, Some(false))),
        ("EDNS and ANY", Asked::edns(ANY, 0, 0, &[]), want(NoError, 1, Some(false))),
        ("EDNS and a meta type", Asked::edns(200, 0, 0, &[]), want(NotImp, 0, Some(false))),
        // RFC 6891 §6.1.1, RFC 7873 §5.2.2, RFC 9619.
        ("two OPT records", Asked::edns(A, 0, 0, &[]).opt(4096, 0, 0, &[]), want(FormErr, 0, None)),
        ("an option that ends too late", Asked::edns(A, 0, 0, &[(100, &[1, 2])]).octet(49, 9), want(FormErr, 0, None)),
        ("a cookie of three octets", Asked::edns(A, 0, 0, &[(10, &[1; 3])]), want(FormErr, 0, Some(false))),
        ("no question", Asked(vec![7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), want(FormErr, 0, None)),
        ("two questions", Asked::plain(A).octet(5, 2), want(FormErr, 0, None)),
        ("an answer that is not there", Asked::plain(A).octet(7, 1), want(FormErr, 0, None)),
        ("a name that never ends", Asked(vec![7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63]), want(FormErr, 0, None)),
        (
            "a name that points to itself",
            Asked(vec![7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1]),
            want(FormErr, 0, None),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_holds_on_every_transport() {
    let stage = Stage::everywhere(Config::default(), topology()).await;
    for way in WAYS {
        let transport = way.transport;
        for (case, asked, want) in rows() {
            let case = format!("{case} by {transport}");
            let octets = (way.ask)(&stage, "127.0.0.1", &asked.0).await.unwrap_or_else(|| panic!("{case}: no reply"));
            let reply = Message::from_vec(&octets).unwrap_or_else(|e| panic!("{case}: {e}: {octets:?}"));
            let head = reply.metadata;
            assert_eq!(octets[..2], asked.0[..2], "{case}: identifier");
            assert_eq!(u16::from(head.response_code), u16::from(want.code), "{case}: {octets:?}");
            assert_eq!(reply.answers.len(), want.answers, "{case}");
            assert_eq!(octets[2] & 0xf8, 0x80 | asked.0[2] & 0x78, "{case}: QR and opcode");
            assert_eq!(octets[2] & 1, asked.0[2] & 1, "{case}: RD is copied");
            assert_eq!(octets[3] & 0x60, 0, "{case}: neither the reserved bit nor AD");
            assert!(!head.truncation, "{case}");
            let flags = reply.edns.as_ref().map(|edns| {
                assert_eq!(edns.version(), 0, "{case}");
                assert_eq!(edns.flags().z, 0, "{case}: unknown flags are cleared");
                assert!(edns.options().as_ref().iter().all(|(code, _)| u16::from(*code) < 100), "{case}: not echoed");
                edns.flags().dnssec_ok
            });
            assert_eq!(flags, want.opt, "{case}: OPT and DO");
            if want.code == ResponseCode::NoError && want.answers == 0 {
                assert!(soa(&reply).is_some() && head.authoritative, "{case}");
            }
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_query_gets_no_reply_on_any_transport() {
    let stage = Stage::everywhere(Config::default(), topology()).await;
    for way in WAYS {
        let transport = way.transport;
        for (case, packet) in [("a reply", Asked::plain(A).bits(0x8000).0), ("half a header", vec![0; 11])] {
            let got = if transport == "udp" {
                silence(&stage, &packet).await
            } else {
                (way.ask)(&stage, "127.0.0.1", &packet).await
            };
            assert_eq!(got, None, "{case} by {transport}");
        }
        assert!((way.ask)(&stage, "127.0.0.1", &Asked::plain(A).0).await.is_some(), "{transport} goes on");
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_truncated_by_udp_alone_and_keeps_its_opt() {
    let stage = Stage::everywhere(Config::default(), topology()).await;
    for (case, asked, size, edns) in [
        // §8.2.7: "truncated response … with an OPT record".
        ("512 with EDNS", Asked::plain(TXT).opt(512, 0, DO, &[]), 512, true),
        ("without EDNS", Asked::plain(TXT), 512, false),
        ("a size above ours", Asked::plain(TXT).opt(4096, 0, 0, &[]), 1232, true),
    ] {
        for way in WAYS {
            let transport = way.transport;
            let reply = (way.ask)(&stage, "127.0.0.1", &asked.0).await.unwrap();
            let message = Message::from_vec(&reply).unwrap();
            let fits = transport != "udp" || size > 1100;
            assert_eq!(message.answers.len(), usize::from(fits), "{case} by {transport}");
            assert_eq!((message.metadata.truncation, message.edns.is_some()), (!fits, edns), "{case} by {transport}");
            assert!(transport != "udp" || reply.len() <= size, "{case}: {}", reply.len());
            assert_eq!(message.queries.len(), 1);
        }
    }
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_answered_where_their_rfcs_say_so() {
    let config = Config { instance: "dns-fra-1".into(), ..Config::default() };
    let stage = Stage::everywhere(config, topology()).await;
    let option = |reply: &[u8], code: u16| -> Option<Vec<u8>> {
        let edns = Message::from_vec(reply).unwrap().edns.unwrap();
        let found = edns.options().as_ref().iter().find(|(c, _)| u16::from(*c) == code)?.1.clone();
        Vec::<u8>::try_from(&found).ok()
    };
    for way in WAYS {
        let transport = way.transport;
        // RFC 5001 §3: on request only.
        let nsid = (way.ask)(&stage, "127.0.0.1", &Asked::edns(A, 0, 0, &[(3, &[])]).0).await.unwrap();
        assert_eq!(option(&nsid, 3).as_deref(), Some(&b"dns-fra-1"[..]), "{transport}");
        let none = (way.ask)(&stage, "127.0.0.1", &Asked::edns(A, 0, 0, &[]).0).await.unwrap();
        assert_eq!([3, 10, 11, 12].map(|code| option(&none, code)), [const { None }; 4], "{transport}");
        // RFC 7873 §5.2.3, RFC 9018 §4: the client's part comes back with ours behind it.
        let cookie = (way.ask)(&stage, "127.0.0.1", &Asked::edns(A, 0, 0, &[(10, &[7; 8])]).0).await.unwrap();
        let cookie = option(&cookie, 10).unwrap();
        assert_eq!((cookie.len(), &cookie[..9]), (24, &[7, 7, 7, 7, 7, 7, 7, 7, 1][..]), "{transport}");
        // RFC 7873 §5.4: a cookie alone.
        let alone = Asked(vec![7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).opt(1232, 0, 0, &[(10, &cookie)]);
        let alone = (way.ask)(&stage, "127.0.0.1", &alone.0).await.unwrap();
        assert_eq!((alone[3] & 15, option(&alone, 10).unwrap().len()), (0, 24), "{transport}");
        // RFC 8467 §4.1: blocks of 468, where nobody reads along.
        let padded = (way.ask)(&stage, "127.0.0.1", &Asked::edns(A, 0, 0, &[(12, &[0; 40])]).0).await.unwrap();
        assert_eq!(padded.len() == 468, transport.starts_with("do"), "{transport}: {}", padded.len());
        if transport != "doq" {
            // RFC 7828 §3.3.2: by TCP and TLS; §3.2.1 forbids it by UDP.
            let kept = (way.ask)(&stage, "127.0.0.1", &Asked::edns(A, 0, 0, &[(11, &[])]).0).await.unwrap();
            let tenths = matches!(transport, "tcp" | "dot").then_some(vec![0, 100]);
            assert_eq!(option(&kept, 11), tenths, "{transport}");
        }
    }
    stage.end().await;
}

/// What comes back by UDP, if it comes before the reply to a later query.
async fn silence(stage: &Stage, packet: &[u8]) -> Option<Vec<u8>> {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(stage.addr).await.unwrap();
    let later = Asked::plain(A).octet(0, 99).0;
    for packet in [packet, &later] {
        socket.send(packet).await.unwrap();
    }
    let mut octets = vec![0; 4096];
    let len = socket.recv(&mut octets).await.unwrap();
    (octets[..2] != later[..2]).then(|| octets[..len].to_vec())
}
